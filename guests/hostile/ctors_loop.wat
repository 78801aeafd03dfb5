;; `__wasm_call_ctors` never returns.
;; A sound host: refuses the plugin, or fails its first call, within the time limit.
(module
  (func (export "__wasm_call_ctors") (loop $forever (br $forever)))
  (func (export "run") (export "handle") (export "http_request") (result i32)
    (i32.const 0)))
