;; Reads and writes far outside Extism memory. Returns 0 if every read gave 0.
;; A sound host: reads give 0, writes are ignored, nothing traps. (In the reference some additions wrap
;; around.)
(module
  (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
  (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $store_u8 (i64.const -1) (i32.const 1))
    (call $store_u64 (i64.const -4) (i64.const 1))
    (call $store_u64 (i64.const 0x7fffffffffffffff) (i64.const 1))
    (i32.or
      (i32.or (call $load_u8 (i64.const -1)) (call $load_u8 (i64.const 0xffffffff)))
      (i32.or
        (i64.ne
          (i64.const 0)
          (i64.or (call $load_u64 (i64.const -8)) (call $load_u64 (i64.const 0xfffffff9))))
        (i32.or
          (call $input_load_u8 (i64.const -1))
          (i64.ne
            (i64.const 0)
            (i64.or (call $input_load_u64 (i64.const -1)) (call $input_load_u64 (i64.const -8)))))))))
