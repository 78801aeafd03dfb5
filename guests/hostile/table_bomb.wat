;; Grows a table by 64 Ki elements, again and again. Returns 1 if it is refused.
;; A sound host: ends it at its table limit.
(module
  (table $t 1 funcref)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (loop $more
      (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 0x10000)) (i32.const -1))))
    (i32.const 1)))
