;; Allocates 4 GiB and other sizes around 2^32 and 2^63. Returns 0 if it got nothing.
;; A sound host: `alloc` gives 0 each time, or the call fails at the memory limit.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i64.ne
      (i64.const 0)
      (i64.or
        (i64.or (call $alloc (i64.const 0x100000000)) (call $alloc (i64.const 0xffffffff)))
        (i64.or (call $alloc (i64.const 0x7fffffffffffffff)) (call $alloc (i64.const 0xfffffffffffffff0)))))))
