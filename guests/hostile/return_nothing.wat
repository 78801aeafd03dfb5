;; `run` has no result.
;; A sound host: return code 0, a success.
(module
  (func (export "run") (export "handle") (export "http_request")
    (nop)))
