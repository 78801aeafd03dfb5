;; Imports `alloc` as a function of i32.
;; A sound host: refuses it; the message names the two types.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i32) (result i32)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
