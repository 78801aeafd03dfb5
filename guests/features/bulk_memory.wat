;; Bulk memory: copy, fill and passive data.
;; A host that has it: `run` returns 0.
(module
  (memory 1)
  (data $passive "abcd")
  (data $unused "")
  (func (export "run") (result i32)
    (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 4))
    (memory.copy (i32.const 4) (i32.const 0) (i32.const 4))
    (memory.fill (i32.const 5) (i32.const 0x21) (i32.const 1))
    (data.drop $unused)
    (i32.ne (i32.load (i32.const 4)) (i32.const 0x64632161))))
