;; Sets an output of 8 bytes at 2^64 - 4, whose end wraps around to 4.
;; A sound host: ignores it: no output.
(module
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $output_set (i64.const -4) (i64.const 8))
    (i32.const 0)))
