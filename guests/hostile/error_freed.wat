;; Sets an error and frees its block.
;; A sound host: return code 3; the error is empty. No stale bytes.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))
    (call $error_set (local.get $p))
    (call $free (local.get $p))
    (i32.const 3)))
