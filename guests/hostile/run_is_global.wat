;; `run` is a global.
;; A sound host: `function_exists` is false; a call fails: no such function.
(module
  (global (export "run") (export "handle") (export "http_request") i32 (i32.const 0)))
