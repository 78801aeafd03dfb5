;; `run` returns an i64.
;; A sound host: `function_exists` is false; a call gives -1, as in the reference.
(module
  (func (export "run") (export "handle") (export "http_request") (result i64) (i64.const 0)))
