;; `run` is a memory.
;; A sound host: `function_exists` is false; a call fails: no such function.
(module
  (memory (export "run") (export "handle") (export "http_request") 1))
