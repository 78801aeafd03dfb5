;; Imports a function that the Extism host does not have.
;; A sound host: refuses it; the message names the function.
(module
  (import "extism:host/env" "no_such_function" (func $f))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
