;; Calls a table element of another type.
;; A sound host: a trap; return code 134 in the C library.
(module
  (table funcref (elem $other))
  (func $other (param f64))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call_indirect (result i32) (i32.const 0))))
