;; Imports a table from the Extism host.
;; A sound host: refuses it: only functions can be imported from `extism:host/env`.
(module
  (import "extism:host/env" "table" (table 1 funcref))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
