//! The conformance table: every behaviour in every convention, at the hooks that its dialects have, really run.
//!
//! A cell passes, or cannot be and says why. What was found is rendered into `docs/abi/conformance.md`, and a
//! difference from the page that is checked in fails; `cargo xtask conformance` writes it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests: a panic there is what a failing cell says"
)]

mod cortexprism;
mod exchange;
mod heliosproxy;
mod llmproxy;
mod middleware;
mod page;
mod probe;
mod support;
mod table;
mod universal;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use table::{Family, Found};

/// The page as it is checked in, from this crate's folder.
const PAGE: &str = "../../docs/abi/conformance.md";
/// Where the page as it was found is left for `cargo xtask conformance`.
const FOUND: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/conformance.md");

fn families() -> Vec<Family> {
    vec![
        universal::family(),
        llmproxy::family(),
        heliosproxy::family(),
        cortexprism::family(),
        middleware::family(),
    ]
}

/// All cells, run once.
static CELLS: LazyLock<Found> = LazyLock::new(|| table::run(families()));

#[test]
fn every_cell_passes_or_says_why_it_cannot() {
    // A page of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(FOUND);
    let failed = CELLS.failures();
    assert!(failed.is_empty(), "{} cells fail:\n{}", failed.len(), failed.join("\n"));
    fs::write(FOUND, page::render(&CELLS)).unwrap();
}

#[test]
fn the_page_is_what_is_found() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap_or_default();
    let rendered = page::render(&CELLS);
    let differs = committed.lines().zip(rendered.lines()).find(|(committed, found)| committed != found);
    assert!(
        committed == rendered,
        "docs/abi/conformance.md is not what is found; run `cargo xtask conformance`, and commit it if the \
         difference is meant. The first line that differs (committed, found): {differs:#?}"
    );
}
