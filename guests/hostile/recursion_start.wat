;; The start function calls itself without end.
;; A sound host: refuses the plugin with a trap (stack overflow).
(module
  (func $down (call $down))
  (start $down)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
