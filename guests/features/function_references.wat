;; Typed function references.
;; A host that has it: `run` returns 0.
(module
  (type $number (func (result i32)))
  (elem declare func $two)
  (func $two (type $number) (i32.const 2))
  (func (export "run") (result i32)
    (i32.ne (call_ref $number (ref.func $two)) (i32.const 2))))
