;; Divides by zero.
;; A sound host: a trap; return code 134 in the C library.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.div_u (i32.const 1) (i32.const 0))))
