//! The rewriter on modules of every kind, and on bytes that are none.

use std::path::Path;

use proptest::prelude::*;

use super::*;

const PLAN: Plan<'static> = Plan { shadowed: &[], reserve_pages: 4, kernel_pages: 1 };

/// Every wasm file and text of the guests' folder.
fn guests() -> Vec<(String, Vec<u8>)> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    let mut found = Vec::new();
    for folder in ["prebuilt", "hostile", "features"] {
        for file in std::fs::read_dir(guests.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "wasm" || extension == "wat") {
                let module = wat::parse_file(&path).unwrap();
                found.push((path.file_name().unwrap().to_string_lossy().into_owned(), module));
            }
        }
    }
    assert!(found.len() > 100);
    found
}

/// What is a valid module stays one, and is called as before.
#[test]
fn every_guest() {
    for (name, module) in guests() {
        let mut validator = wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
        let valid = wasmparser::Parser::is_core_wasm(&module) && validator.validate_all(&module).is_ok();
        if !valid {
            continue;
        }
        let fused = match fuse(&module, PLAN) {
            Ok(fused) => fused,
            Err(Unfusable(why)) => {
                let expected = ["export_host_internals.wat", "import_wrong_type.wat"];
                assert!(expected.contains(&&*name), "{name}: {why}");
                continue;
            }
        };
        let mut validator = wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
        if let Err(error) = validator.validate_all(&fused) {
            // 100 memories are the most a validator takes, and the kernel's is one more.
            assert_eq!(name, "memories_100.wat", "{error}");
        }
        let before = crate::abi::extism::recognise::inspect(&module).unwrap();
        let after = crate::abi::extism::recognise::inspect(&fused).unwrap();
        let own = |name: &&String| !name.starts_with(RESERVED);
        assert!(after.functions.iter().filter(own).eq(before.functions.iter()), "{name}");
        let others = |(module, name, _): &&(String, String, _)| !(module == ENV && is_kernel_function(name));
        assert!(after.imports.iter().eq(before.imports.iter().filter(others)), "{name}");
    }
}

/// The rewriter runs before validation: it must not panic, whatever it is given.
#[test]
fn arbitrary_bytes() {
    let modules: Vec<Vec<u8>> =
        guests().into_iter().map(|(_, module)| module).filter(|module| module.len() < 4000).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    // Bytes, bytes after a module's header, and modules with some bytes changed, cut off or doubled.
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let strategy = (
        prop::sample::select(modules),
        edits,
        prop_oneof![4 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)],
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    let outcome = runner.run(&strategy, |(mut module, edits, form, cut, bytes)| {
        for (at, byte) in edits {
            let at = at.index(module.len());
            module[at] = byte;
        }
        match form {
            1 => module.truncate(cut.index(module.len())),
            2 => module = [&b"\0asm\x01\0\0\0"[..], &bytes].concat(),
            3 => {
                let tail = module[cut.index(module.len())..].to_vec();
                module.extend(tail);
            }
            _ => {}
        }
        if let Ok(fused) = fuse(&module, PLAN) {
            let _ = crate::abi::extism::recognise::inspect(&fused);
        }
        let _ = crate::abi::extism::recognise::inspect(&module);
        Ok(())
    });
    outcome.unwrap();
}

/// Names that the guest may not take, and types that do not match, are left to the linker.
#[test]
fn unfusable() {
    let cases = [
        (
            r#"(module (func (export "cardan:kernel/alloc")))"#,
            "it exports the reserved name cardan:kernel/alloc",
        ),
        (
            r#"(module (import "extism:host/env" "alloc" (func (param i32) (result i32))))"#,
            "it imports alloc with another type",
        ),
    ];
    for (text, why) in cases {
        let Err(Unfusable(found)) = fuse(&wat::parse_str(text).unwrap(), PLAN) else {
            panic!("{text} is fused")
        };
        assert_eq!(found, why);
    }
}

/// `memory.size` and `memory.grow` as a guest with a reserve sees them.
#[test]
fn the_reserve_shows_in_nothing() {
    let sizes = |memory: &str, reserve_pages: u32, grows: &[i32]| -> Vec<i32> {
        let text = format!(
            r#"(module {memory}
                 (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
                 (func (export "size") (result i32) (memory.size)))"#
        );
        let engine = wasmtime::Engine::default();
        let module =
            fuse(&wat::parse_str(text).unwrap(), Plan { shadowed: &[], reserve_pages, kernel_pages: 1 })
                .unwrap();
        let module = wasmtime::Module::new(&engine, module).unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").unwrap();
        let size = instance.get_typed_func::<(), i32>(&mut store, "size").unwrap();
        let mut seen = vec![size.call(&mut store, ()).unwrap()];
        for &pages in grows {
            seen.push(grow.call(&mut store, pages).unwrap());
            seen.push(size.call(&mut store, ()).unwrap());
        }
        seen
    };
    for memory in
        ["(memory 1)", "(memory 0)", "(memory 1 3)", "(memory 2 2)", "(memory 1 6)", "(memory 65535)"]
    {
        for grows in [&[0, 1, 1, 1, 1, 1, 1][..], &[5, 1], &[-1, 1], &[65536, 2], &[3, 0, -1, 3, 1]] {
            assert_eq!(sizes(memory, 4, grows), sizes(memory, 0, grows), "{memory} {grows:?}");
        }
    }
}
