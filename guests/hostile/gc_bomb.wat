;; Chains garbage-collected arrays of a megabyte, all of them alive.
;; A sound host: ends it at the memory limit, to which the heap of the collector counts.
(module
  (type $block (array (mut i8)))
  (type $chain (array (mut (ref null array))))
  (global $all (mut (ref $chain)) (array.new $chain (ref.null array) (i32.const 0x10000)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (local $i i32)
    (loop $more
      (array.set $chain (global.get $all) (local.get $i)
        (array.new $block (i32.const 1) (i32.const 0x100000)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $more))
    unreachable))
