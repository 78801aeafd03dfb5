;; Allocates 2^64 - 1 bytes, which overflows naive arithmetic. Returns 0 if it got nothing.
;; A sound host: `alloc` gives 0, and the allocator works on.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (if (i64.ne (call $alloc (i64.const -1)) (i64.const 0)) (then (return (i32.const 1))))
    (i64.eqz (call $alloc (i64.const 16)))))
