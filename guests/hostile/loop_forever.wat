;; An export that never returns.
;; A sound host: stops it at the deadline; other plugins and the next call are not affected.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $forever (br $forever))
    unreachable))
