;; `_initialize` never returns.
;; A sound host: refuses the plugin within its time limit for loading; it does not hang.
(module
  (func (export "_initialize") (loop $forever (br $forever)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
