;; Overwrites the first MiB of Extism memory, allocator and all, with each of three bytes; allocates, frees
;; and sets an output in between.
;; A sound host: whatever the call gives, the host does not crash and reads nothing outside Extism memory.
;; The next call works.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "length_unsafe" (func $length_unsafe (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func $smash (param $byte i32)
    (local $at i64)
    (loop $next
      (call $store_u8 (local.get $at) (local.get $byte))
      (local.set $at (i64.add (local.get $at) (i64.const 1)))
      (br_if $next (i64.lt_u (local.get $at) (i64.const 0x100000)))))
  (func $use
    (local $p i64)
    (local.set $p (call $alloc (i64.const 24)))
    (call $free (local.get $p))
    (call $free (i64.const 77))
    (drop (call $length (i64.const 77)))
    (drop (call $length_unsafe (i64.const 77)))
    (drop (call $alloc (i64.const 100000)))
    (call $output_set (local.get $p) (i64.const 24)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (drop (call $alloc (i64.const 64)))
    (call $smash (i32.const 0xff))
    (call $use)
    (call $smash (i32.const 0x01))
    (call $use)
    (call $smash (i32.const 0x00))
    (call $use)
    (i32.const 0)))
