;; Writes block sizes that lie just before the data of a live block, then asks the host to read that block
;; as a config key.
;; A sound host: the call fails or the key is unknown; nothing outside Extism memory is read.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))

    (call $store_u64 (i64.sub (local.get $p) (i64.const 12)) (i64.const 0xffffffff00000001))
    (call $store_u64 (i64.sub (local.get $p) (i64.const 8)) (i64.const 0xffffffffffffffff))
    (drop (call $length (local.get $p)))
    (drop (call $config_get (local.get $p)))
    (i32.const 0)))
