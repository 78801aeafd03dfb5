;; Clears Extism memory in the middle of a call and goes on with what it had allocated.
;; A sound host: the call ends in some defined way; the next call works.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "reset" (func $reset))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))

    (call $reset)
    (call $free (local.get $p))
    (call $output_set (local.get $p) (i64.const 16))
    (drop (call $alloc (i64.const 16)))
    (i32.const 0)))
