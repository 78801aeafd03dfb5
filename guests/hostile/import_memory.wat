;; Imports Extism memory itself.
;; A sound host: refuses it: only functions can be imported from `extism:host/env`.
(module
  (import "extism:host/env" "memory" (memory 1))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.load (i32.const 0))))
