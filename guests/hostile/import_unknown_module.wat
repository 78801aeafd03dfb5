;; Imports from a module that does not exist.
;; A sound host: refuses it; the message names module and function.
(module
  (import "no:such/module" "f" (func $f (param i32)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
