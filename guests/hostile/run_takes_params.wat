;; `run` takes a parameter.
;; A sound host: `function_exists` is false; a call fails with a message about its type.
(module
  (func (export "run") (export "handle") (export "http_request") (param i32) (result i32) (local.get 0)))
