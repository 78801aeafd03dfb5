;; Sets one var after the other, each with a key of its own.
;; A sound host: the call fails at the limit for vars; keys and a fixed cost for each pair count.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $key i64) (local $i i64)
    (loop $more
      (local.set $key (call $alloc (i64.const 8)))
      (call $store_u64 (local.get $key) (i64.and (local.get $i) (i64.const 0x7f7f7f7f7f7f7f7f)))
      (call $var_set (local.get $key) (call $alloc (i64.const 1)))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br $more))
    unreachable))
