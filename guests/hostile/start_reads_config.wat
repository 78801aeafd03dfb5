;; Reads the config key `k` in the start function; `run` answers with the first byte of the value.
;; A sound host: answers that byte. Host functions work before the first call.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
  (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory 1)
  (data (i32.const 0) "k")
  (global $seen (mut i32) (i32.const 0))
  ;; Copies bytes of this module's memory to a new block.
  (func $put (param $from i32) (param $size i32) (result i64)
    (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
    (loop $next
      (if (i32.lt_u (local.get $i) (local.get $size))
        (then
          (call $store_u8
            (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
            (i32.load8_u (i32.add (local.get $from) (local.get $i))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next))))
    (local.get $block))
  (func $early
    (global.set $seen (call $load_u8 (call $config_get (call $put (i32.const 0) (i32.const 1))))))
  (start $early)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 1)))
    (call $store_u8 (local.get $p) (global.get $seen))
    (call $output_set (local.get $p) (i64.const 1))
    (i32.const 0)))
