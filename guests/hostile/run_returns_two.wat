;; `run` returns two results.
;; A sound host: `function_exists` is false; a call fails with a message about its type.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32 i32) (i32.const 0) (i32.const 0)))
