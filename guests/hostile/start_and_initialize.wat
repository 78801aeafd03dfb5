;; Exports both `_start` and `_initialize`; `run` answers `1` if only `_initialize` was called.
;; A sound host: accepts it (the reference does not) and answers `1`.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (global $seen (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $seen (i32.add (global.get $seen) (i32.const 1))))
  (func (export "_start") (global.set $seen (i32.add (global.get $seen) (i32.const 4))))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $p) (i32.add (i32.const 0x30) (global.get $seen)))
    (call $output_set (local.get $p) (i64.const 1))
    (i32.const 0)))
