//! Tools behind one export, called as if each were an export of its own.

use serde::Deserialize;

use crate::abi::extism::Report;

/// What [`super::CALL`] is given for a tool: the name's length in four bytes, the name, the arguments.
pub(in crate::abi) fn framed(tool: &str, arguments: &[u8]) -> Vec<u8> {
    let mut call = Vec::with_capacity(4 + tool.len() + arguments.len());
    call.extend_from_slice(&u32::try_from(tool.len()).unwrap_or(u32::MAX).to_le_bytes());
    call.extend_from_slice(tool.as_bytes());
    call.extend_from_slice(arguments);
    call
}

#[derive(Deserialize)]
struct Outcome {
    output: String,
    error: Option<String>,
}

/// What the tool itself said, of what [`super::CALL`] returned. A tool that could not do it is no fault of the
/// guest's: `code` is what it returned, and its words are the error.
pub(in crate::abi) fn unframed(report: Report, code: i32) -> Report {
    if report.fault.is_some() {
        return report;
    }
    match serde_json::from_slice(&report.output) {
        Ok(Outcome { output, error: None }) => Report { output: output.into_bytes(), ..report },
        Ok(Outcome { error, .. }) => Report { code, error, output: Vec::new(), ..report },
        // The host has written it.
        Err(_) => report,
    }
}
