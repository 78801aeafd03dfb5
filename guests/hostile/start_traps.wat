;; The start function traps.
;; A sound host: refuses the plugin and reports the trap.
(module
  (func $trap unreachable)
  (start $trap)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
