;; Takes one page of memory after the other and writes to it. Returns 1 if it is refused a page.
;; A sound host: ends it at the memory limit (the reference fails the call with `oom` and does not return
;; -1).
(module
  (memory 1)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $page i32)
    (loop $more
      (local.set $page (memory.grow (i32.const 1)))
      (if (i32.eq (local.get $page) (i32.const -1)) (then (return (i32.const 1))))
      (i32.store (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
      (br $more))
    unreachable))
