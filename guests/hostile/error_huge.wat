;; Sets an error of 32 MiB.
;; A sound host: fails the call and cuts the text off in logs and answers.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 0x2000000)))
    (call $error_set (local.get $p))
    (i32.const 3)))
