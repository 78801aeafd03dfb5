;; Frees places inside a block, before it and far away. Returns 0 if the block is still alive.
;; A sound host: none of them is a handle, so nothing happens.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))

    (call $free (i64.add (local.get $p) (i64.const 1)))
    (call $free (i64.add (local.get $p) (i64.const 8)))
    (call $free (i64.sub (local.get $p) (i64.const 12)))
    (call $free (i64.const 1))
    (call $free (i64.const 0x7fffffff))
    (call $free (i64.const -1))
    (i64.ne (call $length (local.get $p)) (i64.const 16))))
