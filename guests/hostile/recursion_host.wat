;; Calls a function of the embedder that is meant to call `run` of the same plugin again. The test
;; registers `extism:host/user` `call_again`.
;; A sound host: an error for the inner call (a plugin is not entered twice); no deadlock, no overflow.
(module
  (import "extism:host/user" "call_again" (func $call_again (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (drop (call $call_again (i64.const 0)))
    (i32.const 0)))
