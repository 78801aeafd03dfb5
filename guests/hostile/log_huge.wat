;; Logs a line of 16 MiB.
;; A sound host: cuts it off at its limit; the call succeeds, or fails at the memory limit.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "log_error" (func $log_error (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $log_error (call $alloc (i64.const 0x1000000)))
    (i32.const 0)))
