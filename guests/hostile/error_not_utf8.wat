;; Sets an error of 16 bytes that are not UTF-8.
;; A sound host: return code 3 and some readable error text.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))
    (call $store_u8 (local.get $p) (i32.const 0xff))
    (call $store_u8 (i64.add (local.get $p) (i64.const 1)) (i32.const 0xfe))
    (call $error_set (local.get $p))
    (i32.const 3)))
