;; Spends its time inside bulk memory instructions: one fill of 64 MiB after the other.
;; A sound host: stops it at the deadline, or soon after: between two fills.
(module
  (memory 1024)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $forever
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x4000000))
      (br $forever))
    unreachable))
