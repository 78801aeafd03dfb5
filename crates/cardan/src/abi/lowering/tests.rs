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
        (2, Abi::Packed, PACKED, "800f382e736f9aede6b468e5ce4ca3d6e24f547f70b31f76aca693c1246710a7"),
        (2, Abi::Capability, CAPABILITY, "829d58acaf34b5458a9430026a6a69fe2bf51f6208087f8c6b3728f1d6ad95b1"),
    ] {
        let lowered = abi.lower(&wat::parse_str(text).unwrap(), &BTreeMap::new()).unwrap();
        let found = (VERSION, module::digest(&lowered));
        assert_eq!(found, (version, sum.to_owned()), "bump VERSION, and change both here");
    }
}
