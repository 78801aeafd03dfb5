;; The start function never returns.
;; A sound host: refuses the plugin within its time limit for loading; it does not hang.
(module
  (func $loop (loop $forever (br $forever)))
  (start $loop)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
