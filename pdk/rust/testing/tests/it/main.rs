//! The guests of the PDK, called as plugins' authors call theirs.

mod samples;
mod universal;

use std::path::PathBuf;

/// A prebuilt guest.
fn guest(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../guests/prebuilt").join(format!("{name}.wasm"))
}
