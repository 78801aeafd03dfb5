;; Parses as text and does not validate: a function that promises a number and gives none.
;; A sound host: refuses it with the validator's message.
(module
  (func (export "run") (export "handle") (export "http_request") (result i32)))
