;; `run` returns an f64.
;; A sound host: `function_exists` is false; a call gives -1, as in the reference.
(module
  (func (export "run") (export "handle") (export "http_request") (result f64) (f64.const 0)))
