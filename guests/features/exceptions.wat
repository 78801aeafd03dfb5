;; Exceptions, with try_table and throw.
;; A host that has it: `run` returns 0.
(module
  (tag $e (param i32))
  (func $throws (throw $e (i32.const 5)))
  (func (export "run") (result i32)
    (i32.ne
      (i32.const 5)
      (block $caught (result i32)
        (try_table (catch $e $caught) (call $throws))
        (i32.const 0)))))
