;; Imports the context of the reference's kernel, a global.
;; A sound host: refuses it: only functions can be imported from `extism:host/env`.
(module
  (import "extism:host/env" "extism_context" (global $context (mut externref)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (ref.is_null (global.get $context))))
