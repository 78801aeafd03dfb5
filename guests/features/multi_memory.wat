;; Several memories.
;; A host that has it: `run` returns 0.
(module
  (memory $a 1)
  (memory $b 1)
  (func (export "run") (result i32)
    (i32.store $a (i32.const 0) (i32.const 1))
    (i32.store $b (i32.const 0) (i32.const 2))
    (memory.copy $b $a (i32.const 8) (i32.const 0) (i32.const 4))
    (i32.ne (i32.add (i32.load $b (i32.const 8)) (i32.load $b (i32.const 0))) (i32.const 3))))
