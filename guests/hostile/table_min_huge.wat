;; Declares a table of 4,294,967,295 elements.
;; A sound host: refuses it at once.
(module
  (table 0xffffffff funcref)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
