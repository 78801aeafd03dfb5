;; Sets an error at a place inside a block, which is not a handle.
;; A sound host: return code 3 with an empty error, as the reference does.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))
    (call $error_set (i64.add (local.get $p) (i64.const 5)))
    (i32.const 3)))
