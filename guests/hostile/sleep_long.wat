;; Sleeps for an hour in one WASI call, `poll_oneoff`. Needs WASI.
;; A sound host: wakes it at the deadline and reports a deadline, not a trap.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; A subscription at 16: clock 1 (monotonic) with a relative timeout of 3,600 s in nanoseconds.
  (data (i32.const 32) "\01\00\00\00")
  (data (i32.const 40) "\00\a0\b8\30\46\03\00\00")
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (call $poll_oneoff (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 256))))
