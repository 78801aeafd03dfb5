use cardan::{Engine, EngineConfig};

const ECHO: &str = r#"(module
  (import "extism:host/env" "input_length" (func $len (result i64)))
  (import "extism:host/env" "input_load_u8" (func $in8 (param i64) (result i32)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $st (param i64 i32)))
  (import "extism:host/env" "output_set" (func $out (param i64 i64)))
  (memory 1)
  (func (export "echo") (result i32) (local $i i64) (local $p i64) (local $n i64)
    (local.set $n (call $len))
    (local.set $p (call $alloc (local.get $n)))
    (block (loop
      (br_if 1 (i64.ge_u (local.get $i) (local.get $n)))
      (call $st (i64.add (local.get $p) (local.get $i)) (call $in8 (local.get $i)))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br 0)))
    (call $out (local.get $p) (local.get $n))
    (i32.const 0))
  (func (export "loop") (loop (br 0)))
  (func (export "grow") (result i32) (memory.grow (i32.const 1))))"#;

#[test]
fn echo() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    assert_eq!(engine.pool_failure(), None);
    let plugin = engine.load(ECHO.as_bytes()).unwrap();
    for _ in 0..40 {
        assert_eq!(plugin.call("echo", "Hello").unwrap(), b"Hello");
    }
    let mut instance = plugin.instance().unwrap();
    assert_eq!(instance.call("grow", "").code, 1);
    assert_eq!(instance.call("grow", "").code, 2);
    let t = std::time::Instant::now();
    for _ in 0..1000 {
        plugin.call("echo", "Hello").unwrap();
    }
    eprintln!("fresh: {:?} per call", t.elapsed() / 1000);
    let limits =
        cardan::Limits { deadline: Some(std::time::Duration::from_millis(50)), ..Default::default() };
    let plugin = engine.plugin(ECHO.as_bytes()).limits(limits).load().unwrap();
    let t = std::time::Instant::now();
    let e = plugin.call("loop", "").unwrap_err();
    eprintln!("{e} after {:?}", t.elapsed());
}
