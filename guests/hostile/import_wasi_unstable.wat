;; Imports the WASI of 2019.
;; A sound host: refuses it; the message names the import.
(module
  (import "wasi_unstable" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
