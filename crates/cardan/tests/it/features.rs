//! WebAssembly features: what Extism's reference accepts runs, what it refuses is refused (10.4).

use cardan::{Abi, ErrorKind};

use crate::support::{engine, files, guests};

const ACCEPTED: [&str; 14] = [
    "bulk_memory",
    "exceptions",
    "extended_const",
    "function_references",
    "gc",
    "memory64",
    "multi_memory",
    "multi_value",
    "reference_types",
    "relaxed_simd",
    "saturating_conversion",
    "sign_extension",
    "simd",
    "tail_call",
];

const REJECTED: [(&str, &str); 3] = [
    ("component_rejected", "expected a WebAssembly module but was given a WebAssembly component"),
    ("stack_switching_rejected", "stack switching is disabled"),
    ("threads_rejected", "shared memor"),
];

#[test]
fn accepted() {
    for name in ACCEPTED {
        let plugin = engine().load(guests().join("features").join(name).with_extension("wat"));
        let plugin = plugin.unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = plugin.instance().unwrap().call("run", "");
        assert_eq!((report.code, report.error, report.fault), (0, None, None), "{name}");
    }
}

#[test]
fn rejected() {
    for (name, why) in REJECTED {
        let file = guests().join("features").join(name).with_extension("wat");
        let error = engine().plugin(file).abi(Abi::Extism).load().unwrap_err();
        assert!(error.message().contains(why), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Format, "{name}: {error}");
    }
}

#[test]
fn every_file_has_a_row() {
    let mut rows: Vec<&str> = ACCEPTED.into_iter().chain(REJECTED.map(|(name, _)| name)).collect();
    rows.sort_unstable();
    assert_eq!(files("features"), rows);
}
