;; Sends an HTTP request from a place that is not a handle.
;; A sound host: the call fails; the error says why.
(module
  (import "extism:host/env" "http_request" (func $http_request (param i64 i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (drop (call $http_request (i64.const 123456) (i64.const 654321)))
    (i32.const 0)))
