;; Imports from `env` as plugins for Extism 0.5 did.
;; A sound host: refuses it with a message that names the import, or serves it as `alloc`.
(module
  (import "env" "extism_alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i64.eqz (call $alloc (i64.const 16)))))
