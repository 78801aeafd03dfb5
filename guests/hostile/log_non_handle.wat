;; Logs from a place that is not a handle.
;; A sound host: the call fails if the level is enabled, as in the reference, and passes if not.
(module
  (import "extism:host/env" "log_error" (func $log_error (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $log_error (i64.const 123456))
    (i32.const 0)))
