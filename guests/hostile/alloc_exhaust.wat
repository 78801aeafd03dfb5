;; Allocates blocks of 64 KiB until there are no more. Returns 7 when `alloc` gives 0.
;; A sound host: ends it at the memory limit; the next call finds the memory free again.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $more (br_if $more (i64.ne (call $alloc (i64.const 0x10000)) (i64.const 0))))
    (i32.const 7)))
