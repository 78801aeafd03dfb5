;; Declares its own input anew, beyond all memory, and reads it. Returns a byte of what it read, or 1.
;; A sound host: ignores the lie, so that the module reads its real input, or lets it read 0; nothing
;; outside Extism memory is read.
(module
  (import "extism:host/env" "input_set" (func $input_set (param i64 i64)))
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $input_set (i64.const 0xfffffffffffffff0) (i64.const 0x1000))
    (i32.or
      (call $input_load_u8 (i64.const 8))
      (i64.ne (call $input_load_u64 (i64.const 0x20)) (i64.const 0)))))
