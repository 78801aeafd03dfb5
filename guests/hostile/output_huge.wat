;; Sets an output of 256 MiB that it did allocate.
;; A sound host: fails the call at its memory or output limit.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 0x10000000)))
    (if (i64.eqz (local.get $p)) (then (return (i32.const 1))))
    (call $output_set (local.get $p) (i64.const 0x10000000))
    (i32.const 0)))
