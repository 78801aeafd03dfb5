;; Asks for all the memory there can be in one step. Returns 1 if it is refused.
;; A sound host: refuses without reserving or touching anything.
(module
  (memory 1)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.eq (memory.grow (i32.const 65535)) (i32.const -1))))
