;; Sets an error at 1 TiB.
;; A sound host: ignores it, as the reference does: return code 3 and no error.
(module
  (import "extism:host/env" "error_set" (func $error_set (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $error_set (i64.const 0x10000000000))
    (i32.const 3)))
