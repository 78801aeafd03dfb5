;; Reference types: tables of externref, ref.func, table.set.
;; A host that has it: `run` returns 0.
(module
  (table $t 2 externref)
  (table $f 1 funcref)
  (elem declare func $two)
  (func $two (result i32) (i32.const 2))
  (func (export "run") (result i32)
    (table.set $f (i32.const 0) (ref.func $two))
    (i32.or
      (i32.ne (call_indirect $f (result i32) (i32.const 0)) (i32.const 2))
      (i32.eqz (ref.is_null (table.get $t (i32.const 1)))))))
