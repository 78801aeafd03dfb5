//! What people and programs see of a command: text, JSON, one error, an exit code.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde::Serialize;
use tokio::signal::unix::SignalKind;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document on standard output.
    Json,
}

/// Why a command failed, in one message that says what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: FailureKind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// What was asked for was tried and did not work: a plugin failed, a port is taken.
    Failed,
    /// What was asked for makes no sense: a wrong argument, a configuration that does not resolve.
    Unusable,
    /// What was asked about is not there.
    NotFound,
    /// A gateway does not let this user do it.
    Denied,
    /// A gateway cannot be reached.
    Unreachable,
    /// The user did not want to wait any more, and said so with this signal.
    CutOff(u8),
}

impl Failure {
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Failed, message: message.to_string() }
    }

    pub(crate) fn unusable(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Unusable, message: message.to_string() }
    }

    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::NotFound, message: message.to_string() }
    }

    pub(crate) fn denied(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Denied, message: message.to_string() }
    }

    pub(crate) fn unreachable(message: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Unreachable, message: message.to_string() }
    }

    /// A second signal while the first one's work was under way.
    pub(crate) fn cut_off(signal: SignalKind) -> Self {
        let kind = FailureKind::CutOff(u8::try_from(signal.as_raw_value()).unwrap_or(0));
        Self {
            kind,
            message: "stopped at once by a second signal: requests under way are cut off".to_owned(),
        }
    }

    /// Prints the message and gives the exit code: 1 for what failed, 2 for what cannot be, 3 for what is not
    /// there, 4 for what is not allowed, 5 for a gateway that cannot be reached, and for a signal what shells
    /// make of one.
    pub(crate) fn report(&self) -> ExitCode {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "cardan: {}", tame(&self.message));
        ExitCode::from(match self.kind {
            FailureKind::Failed => 1,
            FailureKind::Unusable => 2,
            FailureKind::NotFound => 3,
            FailureKind::Denied => 4,
            FailureKind::Unreachable => 5,
            FailureKind::CutOff(signal) => 128 | signal,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Guests write parts of messages. Nobody reads more of one than this, and a terminal would act on
/// control characters.
fn tame(message: &str) -> String {
    const CHARS_MAX: usize = 4000;
    let mut chars = message.trim_end().chars();
    let shown = chars.by_ref().take(CHARS_MAX);
    let mut shown: String = shown
        .map(|char| if char.is_control() && char != '\n' { char::REPLACEMENT_CHARACTER } else { char })
        .collect();
    if !chars.as_str().is_empty() {
        shown.push_str(" ... and so on");
    }
    shown
}

/// What a guest wrote, in one line of a report: it can neither add lines nor move the cursor.
pub(crate) fn one_line(text: &str) -> String {
    tame(text).replace('\n', "; ")
}

/// Writes bytes to standard output as they are. A reader that has gone is no failure.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format_args!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line of text.
pub(crate) fn line(text: impl fmt::Display) -> Result<(), Failure> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes a line beside the result, to standard error.
pub(crate) fn aside(text: impl fmt::Display) {
    // As with failures: nobody is left to tell.
    let _ = writeln!(io::stderr(), "{}", tame(&text.to_string()));
}

/// Writes a JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    line(text)
}

/// Whether standard output is something a person looks at.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
