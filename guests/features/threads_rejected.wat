;; Shared memory and atomic instructions.
;; Cardan rejects them, as the Extism reference does: the message says that shared memory or threads are
;; disabled.
(module
  (memory 1 1 shared)
  (func (export "run") (result i32)
    (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))
