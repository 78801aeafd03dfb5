;; Sign extension operators.
;; A host that has it: `run` returns 0.
(module
  (func (export "run") (result i32)
    (i32.ne (i32.extend8_s (i32.const 0xff)) (i32.const -1))))
