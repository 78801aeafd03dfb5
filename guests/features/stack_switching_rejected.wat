;; Stack switching.
;; Cardan rejects it, as the Extism reference does.
(module
  (type $f (func))
  (type $c (cont $f))
  (elem declare func $nothing)
  (func $nothing (type $f))
  (func (export "run") (result i32)
    (resume $c (cont.new $c (ref.func $nothing)))
    (i32.const 0)))
