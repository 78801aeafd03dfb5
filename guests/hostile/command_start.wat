;; A command: `_start` counts in a var and in a global and answers `v` and `g` with the two counts; `run`
;; counts the same without being a command.
;; A sound host: every call of `_start` answers `v1g1`, since the instance and its vars are new each time.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
  (import "extism:host/env" "var_get" (func $var_get (param i64) (result i64)))
  (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory 1)
  (data (i32.const 0) "nv0g0")
  (global $calls (mut i32) (i32.const 0x30))
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
  (func $count (result i32)
    (local $before i32)
    (local.set $before (call $load_u8 (call $var_get (call $put (i32.const 0) (i32.const 1)))))
    (i32.store8 (i32.const 2)
      (i32.add (select (local.get $before) (i32.const 0x30) (local.get $before)) (i32.const 1)))
    (call $var_set (call $put (i32.const 0) (i32.const 1)) (call $put (i32.const 2) (i32.const 1)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store8 (i32.const 4) (global.get $calls))
    (call $output_set (call $put (i32.const 1) (i32.const 4)) (i64.const 4))
    (i32.const 0))
  (func (export "_start") (drop (call $count)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $count)))
