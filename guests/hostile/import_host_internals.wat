;; Imports what a host might keep for itself, by the name it might give it.
;; A sound host: refuses it as an unknown import.
(module
  (import "cardan:kernel" "memory" (memory 1))
  (import "cardan:kernel" "alloc" (func $alloc (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.load (i32.const 0))))
