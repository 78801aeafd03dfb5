;; Imports a function from the module `main`, which is itself.
;; A sound host: an error at creation, or the function is linked to itself; no endless recursion.
(module
  (import "main" "helper" (func $helper))
  (func (export "helper"))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $helper)
    (i32.const 0)))
