;; Conversions from floats that do not trap.
;; A host that has it: `run` returns 0.
(module
  (func (export "run") (result i32)
    (i32.ne (i32.trunc_sat_f64_s (f64.const 1e100)) (i32.const 0x7fffffff))))
