;; The Extism kernel: the memory that host and guest exchange data through, and its allocator.
;;
;; It exists in two places with one source. Linked beside the modules of a manifest it is a module of
;; its own, as in the reference. Fused into a single guest (fuse.rs) its memory and functions become
;; part of the guest, so that Cranelift sees plain loads and stores.
;;
;; Memory:
;;   8 position   end of the bump area, 0 before the first allocation
;;  16 error      handle of the current error
;;  24, 32        input handle and length
;;  40, 48        output handle and length
;;  56 nonempty   bit c is set while free list c has a block
;;  64..320       heads of the 64 free lists, u32 each
;; 320 retired    head of the list of blocks that the host has freed, u32
;; 512..          blocks: tag u64, capacity u32, used u32, then `capacity` bytes
;;
;; Everything below 512 is out of reach of the guest's loads and stores. Block headers are not: a guest
;; that overwrites them harms only itself, since the host trusts no offset it finds here.
;;
;; A handle is the address of a block's first byte. It is live when the tag before it is the handle
;; xored with a constant, which makes `length` and `free` O(1) and false for interior pointers. Freed
;; blocks wait in lists by size, two lists for each power of two.
;;
;; Guests also free what the host has freed before them: Go's PDK does so with every key and request it
;; passes. Such a block must not be another block's memory by then, so what the host frees waits apart
;; and is used again only where the memory would have to grow otherwise.
(module
  (memory $kernel (export "memory") 1)

  (func $bytes (result i64)
    (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))

  (func $at (param $p i64) (result i32)
    (i32.wrap_i64 (local.get $p)))

  ;; Whether [p, p+n) lies in the part of the memory that the guest may see.
  (func $visible (param $p i64) (param $n i64) (result i32)
    (i32.and
      (i64.le_u (local.get $n) (i64.sub (call $bytes) (i64.const 512)))
      (i64.le_u
        (i64.sub (local.get $p) (i64.const 512))
        (i64.sub (i64.sub (call $bytes) (i64.const 512)) (local.get $n)))))

  (func $live (param $p i64) (result i32)
    (if (i32.eqz (call $visible (i64.sub (local.get $p) (i64.const 16)) (i64.const 24)))
      (then (return (i32.const 0))))
    (i64.eq
      (i64.load (call $at (i64.sub (local.get $p) (i64.const 16))))
      (i64.xor (local.get $p) (i64.const 0x6d61645261436c76))))

  ;; The list for blocks of `size` bytes, a multiple of 8: twice the logarithm, plus the next bit.
  (func $class (param $size i64) (result i64)
    (local $log i64)
    (local.set $log (i64.sub (i64.const 63) (i64.clz (local.get $size))))
    (i64.add
      (i64.shl (i64.sub (local.get $log) (i64.const 3)) (i64.const 1))
      (i64.and
        (i64.shr_u (local.get $size) (i64.sub (local.get $log) (i64.const 1)))
        (i64.const 1))))

  (func $head (param $class i64) (result i32)
    (i32.add (i32.const 64) (i32.shl (i32.wrap_i64 (local.get $class)) (i32.const 2))))

  ;; Where a free block has the next one of its list: in place of its tag, which is never that small. Its
  ;; data stays as it is, for guests that still look there.
  (func $link (param $p i64) (result i32)
    (i32.sub (call $at (local.get $p)) (i32.const 16)))

  ;; Takes the first block off a list.
  (func $pop (param $class i64) (result i64)
    (local $p i64)
    (local.set $p (i64.load32_u (call $head (local.get $class))))
    (i32.store (call $head (local.get $class)) (i32.load (call $link (local.get $p))))
    (if (i32.eqz (i32.load (call $head (local.get $class))))
      (then
        (i64.store (i32.const 56)
          (i64.and
            (i64.load (i32.const 56))
            (i64.xor (i64.shl (i64.const 1) (local.get $class)) (i64.const -1))))))
    (local.get $p))

  ;; Puts a block that is no longer live onto the list for its size.
  (func $push (param $p i64)
    (local $class i64)
    (local.set $class
      (call $class
        (i64.or
          (i64.load32_u (call $at (i64.sub (local.get $p) (i64.const 8))))
          (i64.const 8))))
    (i32.store (call $link (local.get $p)) (i32.load (call $head (local.get $class))))
    (i32.store (call $head (local.get $class)) (call $at (local.get $p)))
    (i64.store (i32.const 56)
      (i64.or
        (i64.load (i32.const 56))
        (i64.shl (i64.const 1) (local.get $class)))))

  ;; Makes the blocks that the host has freed available. Returns whether there were any.
  (func $release (result i32)
    (local $p i64) (local $next i64)
    (local.set $p (i64.load32_u (i32.const 320)))
    (if (i64.eqz (local.get $p))
      (then (return (i32.const 0))))
    (i32.store (i32.const 320) (i32.const 0))
    (loop $more
      (local.set $next (i64.load32_u (call $link (local.get $p))))
      (call $push (local.get $p))
      (local.set $p (local.get $next))
      (br_if $more (i64.ne (local.get $p) (i64.const 0))))
    (i32.const 1))

  ;; A free block of at least `size` bytes and at most about twice that, or 0.
  (func $reuse (param $size i64) (result i64)
    (local $class i64) (local $candidates i64)
    (local.set $class (call $class (local.get $size)))
    (local.set $candidates
      (i64.and (i64.load (i32.const 56)) (i64.shl (i64.const 7) (local.get $class))))
    ;; In the request's own list only the first block is looked at, and it may be too small.
    (if (i64.eq (i64.ctz (local.get $candidates)) (local.get $class))
      (then
        (if (i64.ge_u
              (i64.load32_u
                (i32.sub (i32.load (call $head (local.get $class))) (i32.const 8)))
              (local.get $size))
          (then (return (call $pop (local.get $class)))))
        (local.set $candidates
          (i64.and (local.get $candidates) (i64.sub (local.get $candidates) (i64.const 1))))))
    (if (i64.eqz (local.get $candidates))
      (then (return (i64.const 0))))
    (call $pop (i64.ctz (local.get $candidates))))

  ;; A new block at the end of the bump area, or 0 when the memory may not grow. Before it grows, what the
  ;; host has freed is looked through.
  (func $bump (param $size i64) (result i64)
    (local $p i64) (local $end i64)
    (local.set $p (i64.load (i32.const 8)))
    (if (i64.lt_u (local.get $p) (i64.const 512))
      (then (local.set $p (i64.const 512))))
    (local.set $end (i64.add (i64.add (local.get $p) (i64.const 16)) (local.get $size)))
    ;; The first is true only of a position that the guest has overwritten.
    (if (i32.or
          (i64.gt_u (local.get $p) (i64.const 0xfffffff8))
          (i64.gt_u (local.get $end) (i64.const 0xfffffff8)))
      (then (return (i64.const 0))))
    (if (i64.gt_u (local.get $end) (call $bytes))
      (then
        (if (call $release)
          (then
            (local.set $p (call $reuse (local.get $size)))
            (if (i64.ne (local.get $p) (i64.const 0))
              (then (return (local.get $p))))
            (return (call $bump (local.get $size)))))
        (if (i32.eq
              (memory.grow
                (i32.wrap_i64
                  (i64.shr_u
                    (i64.add (i64.sub (local.get $end) (call $bytes)) (i64.const 65535))
                    (i64.const 16))))
              (i32.const -1))
          (then (return (i64.const 0))))))
    (local.set $p (i64.add (local.get $p) (i64.const 16)))
    (i64.store (i32.const 8) (local.get $end))
    (i32.store
      (i32.sub (call $at (local.get $p)) (i32.const 8))
      (i32.wrap_i64 (local.get $size)))
    (local.get $p))

  (func $alloc (export "alloc") (param $n i64) (result i64)
    (local $size i64) (local $p i64)
    (if (i32.or (i64.eqz (local.get $n)) (i64.gt_u (local.get $n) (i64.const 0xffff0000)))
      (then (return (i64.const 0))))
    (local.set $size
      (i64.and (i64.add (local.get $n) (i64.const 7)) (i64.const -8)))
    (local.set $p (call $reuse (local.get $size)))
    (if (i64.eqz (local.get $p))
      (then (local.set $p (call $bump (local.get $size)))))
    (if (i64.eqz (local.get $p))
      (then (return (i64.const 0))))
    (i64.store
      (call $at (i64.sub (local.get $p) (i64.const 16)))
      (i64.xor (local.get $p) (i64.const 0x6d61645261436c76)))
    (i32.store
      (call $at (i64.sub (local.get $p) (i64.const 4)))
      (i32.wrap_i64 (local.get $n)))
    (local.get $p))

  ;; Makes a live block one that is not. Returns whether it was one.
  (func $bury (param $p i64) (result i32)
    (if (i32.eqz (call $live (local.get $p)))
      (then (return (i32.const 0))))
    (i64.store (call $at (i64.sub (local.get $p) (i64.const 16))) (i64.const 0))
    (if (i64.eq (local.get $p) (i64.load (i32.const 24)))
      (then (i64.store (i32.const 32) (i64.const 0))))
    (i32.const 1))

  (func (export "free") (param $p i64)
    (if (call $bury (local.get $p))
      (then (call $push (local.get $p)))))

  ;; What the host does to free a block, for tests; guests cannot import it.
  (func (export "retire") (param $p i64)
    (if (call $bury (local.get $p))
      (then
        (i32.store (call $link (local.get $p)) (i32.load (i32.const 320)))
        (i32.store (i32.const 320) (call $at (local.get $p))))))

  (func $length (export "length") (param $p i64) (result i64)
    (if (i32.eqz (call $live (local.get $p)))
      (then (return (i64.const 0))))
    (i64.load32_u (call $at (i64.sub (local.get $p) (i64.const 4)))))

  (func (export "length_unsafe") (param $p i64) (result i64)
    (call $length (local.get $p)))

  (func (export "load_u8") (param $p i64) (result i32)
    (if (i32.eqz (call $visible (local.get $p) (i64.const 1)))
      (then (return (i32.const 0))))
    (i32.load8_u (call $at (local.get $p))))

  (func (export "load_u64") (param $p i64) (result i64)
    (if (i32.eqz (call $visible (local.get $p) (i64.const 8)))
      (then (return (i64.const 0))))
    (i64.load align=1 (call $at (local.get $p))))

  (func (export "store_u8") (param $p i64) (param $byte i32)
    (if (call $visible (local.get $p) (i64.const 1))
      (then (i32.store8 (call $at (local.get $p)) (local.get $byte)))))

  (func (export "store_u64") (param $p i64) (param $word i64)
    (if (call $visible (local.get $p) (i64.const 8))
      (then (i64.store align=1 (call $at (local.get $p)) (local.get $word)))))

  (func (export "input_offset") (result i64)
    (i64.load (i32.const 24)))

  (func (export "input_length") (result i64)
    (i64.load (i32.const 32)))

  (func (export "input_load_u8") (param $i i64) (result i32)
    (if (i64.ge_u (local.get $i) (i64.load (i32.const 32)))
      (then (return (i32.const 0))))
    (i32.load8_u (call $at (i64.add (i64.load (i32.const 24)) (local.get $i)))))

  (func (export "input_load_u64") (param $i i64) (result i64)
    (if (i32.or
          (i64.ge_u (local.get $i) (i64.load (i32.const 32)))
          (i64.gt_u (i64.add (local.get $i) (i64.const 8)) (i64.load (i32.const 32))))
      (then (return (i64.const 0))))
    (i64.load align=1 (call $at (i64.add (i64.load (i32.const 24)) (local.get $i)))))

  ;; Only ranges inside the memory are taken, so that the two loads above need no check of their own.
  (func $input_set (export "input_set") (param $p i64) (param $n i64)
    (if (call $visible (local.get $p) (local.get $n))
      (then
        (i64.store (i32.const 24) (local.get $p))
        (i64.store (i32.const 32) (local.get $n)))))

  (func (export "output_set") (param $p i64) (param $n i64)
    (if (call $visible (local.get $p) (local.get $n))
      (then
        (i64.store (i32.const 40) (local.get $p))
        (i64.store (i32.const 48) (local.get $n)))))

  (func (export "output_offset") (result i64)
    (i64.load (i32.const 40)))

  (func (export "output_length") (result i64)
    (i64.load (i32.const 48)))

  (func (export "error_set") (param $p i64)
    (if (i32.or (i64.eqz (local.get $p)) (call $visible (local.get $p) (i64.const 1)))
      (then (i64.store (i32.const 16) (local.get $p)))))

  (func (export "error_get") (result i64)
    (i64.load (i32.const 16)))

  (func (export "memory_bytes") (result i64)
    (call $bytes))

  ;; Forgets all blocks, input, output and error, and zeroes what was used.
  (func $reset (export "reset")
    (local $used i64)
    (local.set $used (i64.load (i32.const 8)))
    ;; Where nothing was allocated, or a header that the guest wrote said so, the root is cleared still.
    (if (i64.lt_u (local.get $used) (i64.const 512))
      (then (local.set $used (i64.const 512))))
    (if (i64.gt_u (local.get $used) (call $bytes))
      (then (local.set $used (i64.sub (call $bytes) (i64.const 8)))))
    (memory.fill (i32.const 0) (i32.const 0) (call $at (local.get $used))))

  ;; Starts a call: resets, and makes room for an input of `n` bytes. Returns its handle; 0 when there
  ;; is no input, or no room for it.
  (func (export "begin") (param $n i64) (result i64)
    (local $p i64)
    (call $reset)
    (local.set $p (call $alloc (local.get $n)))
    (if (i64.ne (local.get $p) (i64.const 0))
      (then (call $input_set (local.get $p) (local.get $n))))
    (local.get $p)))
