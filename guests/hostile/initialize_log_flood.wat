;; Logs 5,000 lines in `_initialize`, and one in `run`.
;; A sound host: the log keeps a bounded number of the first and says how many it dropped; `run` works, and
;; its line is kept.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "log_error" (func $log_error (param i64)))
  (func (export "_initialize")
    (local $i i32)
    (loop $next
      (call $log_error (call $alloc (i64.const 8)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 5000)))))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $log_error (call $alloc (i64.const 8)))
    (i32.const 0)))
