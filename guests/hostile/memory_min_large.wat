;; Declares an initial memory of 1,025 pages, a little over 64 MiB.
;; A sound host: refuses it when its limit is 64 MiB, with a message that names the limit.
(module
  (memory 1025)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
