;; Arithmetic in constant expressions.
;; A host that has it: `run` returns 0.
(module
  (global $g i32 (i32.mul (i32.const 6) (i32.add (i32.const 3) (i32.const 4))))
  (func (export "run") (result i32)
    (i32.ne (global.get $g) (i32.const 42))))
