;; Returns 0 and sets no output.
;; A sound host: an empty output for a plain call; a protocol fault for dialects that need an answer.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
