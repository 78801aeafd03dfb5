;; Sets an error at 2^64 - 1.
;; A sound host: ignores it: return code 3 and no error.
(module
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $error_set (i64.const -1))
    (i32.const 3)))
