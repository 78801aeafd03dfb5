;; Garbage collection: structs, arrays, i31.
;; A host that has it: `run` returns 0.
(module
  (type $pair (struct (field $a i32) (field $b i32)))
  (type $list (array (mut i32)))
  (func (export "run") (result i32)
    (local $list (ref $list))
    (local.set $list (array.new_default $list (i32.const 8)))
    (array.set $list (local.get $list) (i32.const 5) (i32.const 4))
    (i32.ne
      (i32.const 10)
      (i32.add
        (i32.add
          (struct.get $pair $b (struct.new $pair (i32.const 1) (i32.const 3)))
          (array.get $list (local.get $list) (i32.const 5)))
        (i31.get_u (ref.i31 (i32.const 3)))))))
