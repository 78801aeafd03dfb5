;; A Haskell program's start: `_initialize`, then `hs_init(0, 0)`. `run` answers `3` if both were called in
;; this order and with these arguments, `9` otherwise.
;; A sound host: answers `3`.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (global $seen (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $seen (i32.const 1)))
  (func (export "hs_init") (param $argc i32) (param $argv i32)
    (global.set $seen
      (select (i32.const 9) (i32.const 3)
        (i32.or
          (i32.ne (global.get $seen) (i32.const 1))
          (i32.or (local.get $argc) (local.get $argv))))))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $p) (i32.add (i32.const 0x30) (global.get $seen)))
    (call $output_set (local.get $p) (i64.const 1))
    (i32.const 0)))
