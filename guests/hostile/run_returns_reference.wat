;; `run` returns a reference to a function.
;; A sound host: `function_exists` is false; a call fails; the reference goes nowhere.
(module
  (func (export "run") (export "handle") (export "http_request") (result funcref) (ref.null func)))
