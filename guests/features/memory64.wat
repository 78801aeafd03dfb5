;; A memory with 64-bit addresses.
;; A host that has it: `run` returns 0.
(module
  (memory i64 1)
  (func (export "run") (result i32)
    (i64.store (i64.const 0x8000) (i64.const 7))
    (i64.ne (i64.load (i64.const 0x8000)) (i64.const 7))))
