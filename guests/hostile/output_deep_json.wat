;; Answers with 100,000 opening brackets, for parsers that recurse.
;; A sound host: a protocol fault; no stack overflow in the host.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64) (local $i i64)
    (local.set $p (call $alloc (i64.const 100000)))
    (loop $next
      (call $store_u8 (i64.add (local.get $p) (local.get $i)) (i32.const 0x5b))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $next (i64.lt_u (local.get $i) (i64.const 100000))))
    (call $output_set (local.get $p) (i64.const 100000))
    (i32.const 0)))
