//! The guests of the PDK, called as plugins' authors call theirs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests: a panic there is the failure message"
)]

mod samples;
mod universal;

use std::path::PathBuf;

/// A prebuilt guest.
fn guest(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../guests/prebuilt").join(format!("{name}.wasm"))
}
