;; Asks for a config key at a place that is not a handle.
;; A sound host: the call fails; the error says why.
(module
  (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (drop (call $config_get (i64.const 123456)))
    (i32.const 0)))
