;; Reads beyond its memory.
;; A sound host: a trap; return code 134 in the C library.
(module
  (memory 1)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.load (i32.const 0xfffffff0))))
