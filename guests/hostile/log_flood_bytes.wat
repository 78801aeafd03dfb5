;; Logs a hundred lines of 60,000 bytes, then one short line.
;; A sound host: the call succeeds; the log keeps a bounded number of bytes and says how many lines it
;; dropped.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "log_error" (func $log_error (param i64)))
  (import "extism:host/env" "log_info" (func $log_info (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $i i32)
    (loop $next
      (call $log_error (call $alloc (i64.const 60000)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 100))))
    (call $log_info (call $alloc (i64.const 4)))
    (i32.const 0)))
