;; `_initialize` ends the program by `proc_exit(0)`. Needs WASI.
;; A sound host: refuses the plugin, or treats the exit as the end of the initialisation; it does not exit
;; itself.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_initialize") (call $proc_exit (i32.const 0)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
