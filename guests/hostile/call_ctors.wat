;; Exports `__wasm_call_ctors` and `_initialize`; `run` answers `1` if only the constructors were called on
;; this instance.
;; A sound host: answers `1`: constructors come first, and only one of the two is called.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (global $seen (mut i32) (i32.const 0))
  (func (export "__wasm_call_ctors") (global.set $seen (i32.add (global.get $seen) (i32.const 1))))
  (func (export "_initialize") (global.set $seen (i32.add (global.get $seen) (i32.const 4))))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $p) (i32.add (i32.const 0x30) (global.get $seen)))
    (call $output_set (local.get $p) (i64.const 1))
    (i32.const 0)))
