;; Calls a host function that does nothing, for ever.
;; A sound host: stops it at the deadline, without one log line or counter per call.
(module
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $forever
      (drop (call $input_length))
      (br $forever))
    unreachable))
