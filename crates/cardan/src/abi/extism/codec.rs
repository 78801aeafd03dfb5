//! What a finished call means: Extism's return codes, errors and output.

use cardan_api::Fault;
use wasmtime::{GcHeapOutOfMemory, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::kernel::Kernel;
use super::state::State;
use super::vars::VarError;
use crate::engine;
use crate::grants::{HttpRefusal, Refusal};
use crate::host_function::Failed;
use crate::limits::{Exceeded, MemoryFull};

/// Return code of a trap or a timeout.
const TRAP_CODE: i32 = 134;
/// Longest text of an error that is taken from a guest; what is beyond is cut off.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// Longest backtrace: names of functions are the guest's.
const BACKTRACE_BYTES_MAX: usize = 8 << 10;

/// Everything one call to an Extism export brought, with the values of Extism's own interface: code and
/// error are independent of each other, and there may be output beside either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the export returned, or what stands for the way it ended: 134 for a trap or timeout, -1 for
    /// most other failures.
    pub code: i32,
    /// The guest's error, else what went wrong. Quotes the guest.
    pub error: Option<String>,
    /// What the guest set as its output, also when the call failed afterwards.
    pub output: Vec<u8>,
    /// Why the call counts as failed. `None` for code 0 without an error.
    pub fault: Option<Fault>,
    /// Where the guest was when it was stopped: a line for each function, the innermost first, with its
    /// name as far as the module says it. Offsets are those of the module as it was compiled.
    pub backtrace: Option<String>,
    /// The error without the backtrace that the reference begins it with.
    pub(crate) cause: Option<String>,
    /// The guest had its say, if only that it has nothing to say: it was not left by another way than the one its convention
    /// has, and its function returns something.
    pub(crate) answered: bool,
}

impl Report {
    /// A call that could not begin.
    pub(crate) fn refused(fault: Fault, error: impl Into<String>) -> Self {
        Self {
            code: -1,
            error: Some(error.into()),
            output: Vec::new(),
            fault: Some(fault),
            backtrace: None,
            cause: None,
            answered: false,
        }
    }

    /// Reads the result of a call that did begin.
    pub(super) fn read(
        store: &mut wasmtime::Store<State>,
        kernel: Kernel,
        result: &wasmtime::Result<i32>,
        output_bytes_max: u64,
    ) -> Self {
        let answer = store.data_mut().answer.take();
        let store = &*store;
        let (stage, lowered) = (store.data().stage, store.data().shared.lowered);
        let answered = !lowered || (answer.is_some() && !stage.silent);
        let left = stage.begun && answer.is_none();
        let length = answer.as_ref().map_or_else(|| kernel.output(store).len(), Vec::len);
        let output = match length as u64 <= output_bytes_max {
            true => answer.unwrap_or_else(|| kernel.output(store).to_vec()),
            false if result.is_ok() => {
                return Self::refused(
                    Fault::Memory,
                    format!("output of {length} bytes is over the limit of {output_bytes_max}"),
                );
            }
            // A failed call has a better error to show.
            false => Vec::new(),
        };
        let reported = kernel.error(store).map(error_text);
        match (result, reported) {
            (Ok(code), error) => {
                let failed = *code != 0 || error.is_some();
                let fault = failed.then_some(Fault::Trap);
                Self { code: *code, error, output, fault, backtrace: None, cause: None, answered }
            }
            (Err(cause), Some(error)) => {
                let fault = Some(classify(cause));
                let backtrace = backtrace(cause);
                Self { code: -1, error: Some(error), output, fault, backtrace, cause: None, answered }
            }
            (Err(cause), None) => {
                let (code, error) = failure(cause);
                if code == 0 && left {
                    return Self::refused(Fault::Protocol, "it exited before it answered");
                }
                let fault = (code != 0).then(|| classify(cause));
                let backtrace = backtrace(cause).filter(|_| fault.is_some());
                let brief = backtrace.is_some() && error.as_deref() == Some(&*text(cause));
                let brief = brief.then(|| brief_text(cause));
                Self { code, error, output, fault, backtrace, cause: brief, answered }
            }
        }
    }
}

/// The guest's words, made text and cut to a length that can be passed around.
fn error_text(bytes: &[u8]) -> String {
    match bytes.get(..ERROR_BYTES_MAX) {
        Some(begin) if begin.len() < bytes.len() => {
            let more = bytes.len() - begin.len();
            format!("{}... ({more} bytes more)", String::from_utf8_lossy(begin))
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Code and text for a call that ended in an error the guest did not report itself.
fn failure(cause: &wasmtime::Error) -> (i32, Option<String>) {
    if let Some(exit) = cause.downcast_ref::<I32Exit>() {
        return match exit.0 {
            0 => (0, None),
            code @ 1..126 => (code, Some(text(cause))),
            _ => (-1, Some(text(cause))),
        };
    }
    if is_out_of_memory(cause) {
        return (-1, Some(all_taken(cause).unwrap_or_else(|| "oom".to_owned())));
    }
    match cause.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => (TRAP_CODE, Some("timeout".to_owned())),
        Some(Trap::OutOfFuel) => (-1, Some("plugin ran out of fuel".to_owned())),
        Some(_) => (TRAP_CODE, Some(text(cause))),
        None if is_timeout(cause) => (TRAP_CODE, Some("timeout".to_owned())),
        None => (-1, Some(text(cause))),
    }
}

/// The fault an error counts as.
pub(crate) fn classify(cause: &wasmtime::Error) -> Fault {
    if is_out_of_memory(cause) {
        return Fault::Memory;
    }
    if engine::is_pool_full(cause) || cause.is::<MemoryFull>() {
        return Fault::Busy;
    }
    if cause.is::<Failed>() {
        return Fault::Host;
    }
    if let Some(error) = cause.downcast_ref::<VarError>() {
        return match error {
            VarError::Disabled => Fault::Denied,
            VarError::Full => Fault::Memory,
        };
    }
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return refusal.fault;
    }
    if let Some(refusal) = cause.downcast_ref::<HttpRefusal>() {
        return match refusal {
            HttpRefusal::NotAllowed { .. } => Fault::Denied,
            HttpRefusal::Timeout => Fault::Deadline,
            HttpRefusal::Malformed(_) => Fault::Protocol,
            HttpRefusal::Failed(_) | HttpRefusal::TooLarge(_) => Fault::Host,
        };
    }
    match cause.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => Fault::Deadline,
        Some(_) => Fault::Trap,
        None if cause.is::<I32Exit>() => Fault::Trap,
        None => Fault::Protocol,
    }
}

fn is_out_of_memory(cause: &wasmtime::Error) -> bool {
    cause.is::<Exceeded>() || cause.is::<GcHeapOutOfMemory<()>>()
}

/// What to say where it was not the plugin's own limit that the guest met, which the reference has no words
/// for.
pub(super) fn all_taken(cause: &wasmtime::Error) -> Option<String> {
    let exceeded = cause.downcast_ref::<Exceeded>()?;
    matches!(exceeded, Exceeded::EngineBytes(_)).then(|| exceeded.to_string())
}

fn is_timeout(cause: &wasmtime::Error) -> bool {
    matches!(cause.downcast_ref::<HttpRefusal>(), Some(HttpRefusal::Timeout))
}

/// Where the guest was.
pub(crate) fn backtrace(cause: &wasmtime::Error) -> Option<String> {
    let backtrace = cause.downcast_ref::<WasmBacktrace>().filter(|trace| !trace.frames().is_empty())?;
    let text = backtrace.to_string();
    let mut lines = text.split_once('\n').map_or("", |(_heading, frames)| frames).to_owned();
    if lines.len() > BACKTRACE_BYTES_MAX {
        lines.truncate(lines.floor_char_boundary(BACKTRACE_BYTES_MAX));
        lines.push_str("...");
    }
    Some(lines)
}

/// The error and its causes, without where the guest was.
pub(crate) fn brief_text(cause: &wasmtime::Error) -> String {
    let skipped = usize::from(cause.downcast_ref::<WasmBacktrace>().is_some());
    let layers: Vec<String> = cause.chain().skip(skipped).map(ToString::to_string).collect();
    layers.join(": ")
}

/// The reference's text, which is the outermost layer only, with the causes that it leaves out.
pub(super) fn text(cause: &wasmtime::Error) -> String {
    let mut layers = cause.chain().map(ToString::to_string);
    let mut text = layers.next().unwrap_or_default();
    for (i, layer) in layers.enumerate() {
        if i == 0 {
            text.push_str("\n\nCaused by:");
        }
        text.push_str("\n    ");
        text.push_str(&layer);
    }
    text
}
