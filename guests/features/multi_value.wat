;; Several results.
;; A host that has it: `run` returns 0.
(module
  (func $swap (param i32 i32) (result i32 i32) (local.get 1) (local.get 0))
  (func (export "run") (result i32)
    (i32.ne (i32.sub (call $swap (i32.const 1) (i32.const 3))) (i32.const 2))))
