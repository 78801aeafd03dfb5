use std::collections::BTreeMap;

use super::VERSION;
use crate::abi::Abi;
use crate::module;

const PACKED: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "pre_query") (param i32 i32) (result i64) (i64.const 0)))"#;
const CAPABILITY: &str = r#"(module
  (import "env" "host_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "transform") (param i32 i32) (result i32)
    (call $log (i32.const 0) (local.get 0) (local.get 1)) (local.get 0)))"#;

/// Modules that were lowered are kept on disk by the version of how.
#[test]
fn the_version_says_when_the_output_changes() {
    for (version, abi, text, sum) in [
        (1, Abi::Packed, PACKED, "1c11505934de7134115a8e4bec6fc1eac4783081835fb62e23d5483eeb83313b"),
        (1, Abi::Capability, CAPABILITY, "792a55cc0d116bb99de19b0f0a7308b3c348ca6f93ce9ef96e17bb4d6c356a63"),
    ] {
        let lowered = abi.lower(&wat::parse_str(text).unwrap(), &BTreeMap::new()).unwrap();
        let found = (VERSION, module::digest(&lowered));
        assert_eq!(found, (version, sum.to_owned()), "bump VERSION, and change both here");
    }
}
