;; Sets an output of 2^64 - 1 bytes.
;; A sound host: ignores it: no output. (The reference reports that length.)
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))
    (call $output_set (local.get $p) (i64.const -1))
    (i32.const 0)))
