;; Calls itself without end.
;; A sound host: a trap (stack overflow); the thread of the host survives.
(module
  (func $down (param $depth i64) (result i64)
    (i64.add (call $down (i64.add (local.get $depth) (i64.const 1))) (local.get $depth)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.wrap_i64 (call $down (i64.const 0)))))
