;; Allocates blocks of one byte until there are no more: bookkeeping weighs more than data.
;; A sound host: ends it at the memory limit or the deadline; its own bookkeeping is bounded too.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $more (br_if $more (i64.ne (call $alloc (i64.const 1)) (i64.const 0))))
    (i32.const 7)))
