;; `_initialize` takes a parameter.
;; A sound host: does not call it; `run` works. (The reference refuses the plugin.)
(module
  (func (export "_initialize") (param i32) unreachable)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
