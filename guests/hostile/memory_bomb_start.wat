;; The start function takes memory until it is refused a page.
;; A sound host: refuses the plugin at the memory limit.
(module
  (memory 1)
  (func $bomb
    (local $page i32)
    (loop $more
      (local.set $page (memory.grow (i32.const 16)))
      (if (i32.eq (local.get $page) (i32.const -1)) (then unreachable))
      (i32.store (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
      (br $more)))
  (start $bomb)
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
