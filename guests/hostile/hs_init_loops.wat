;; `hs_init`, the start of Haskell's runtime, never returns.
;; A sound host: refuses the plugin, or fails its first call, within the time limit.
(module
  (func (export "hs_init") (param i32 i32) (loop $forever (br $forever)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
