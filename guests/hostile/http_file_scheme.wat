;; Sends a request to a `file:` URL.
;; A sound host: the call fails; no file is read.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "http_request" (func $http_request (param i64 i64) (result i64)))
  (memory 1)
  (data (i32.const 0) "{\"url\":\"file:///etc/hostname\"}")
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
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (drop (call $http_request (call $put (i32.const 0) (i32.const 30)) (i64.const 0)))
    (i32.const 0)))
