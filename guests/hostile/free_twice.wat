;; Frees a block twice, then allocates two of the same size. Returns 1 if both are the same block.
;; A sound host: the second `free` does nothing; two live blocks never overlap.
(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $p i64)
    (local.set $p (call $alloc (i64.const 16)))

    (call $free (local.get $p))
    (call $free (local.get $p))
    (i64.eq (call $alloc (i64.const 16)) (call $alloc (i64.const 16)))))
