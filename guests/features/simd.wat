;; Fixed-width SIMD.
;; A host that has it: `run` returns 0.
(module
  (func (export "run") (result i32)
    (i32.ne
      (i32x4.extract_lane 2 (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 10 20 30 40)))
      (i32.const 33))))
