;; Traps.
;; A sound host: a trap; return code 134 in the C library.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32)
    unreachable))
