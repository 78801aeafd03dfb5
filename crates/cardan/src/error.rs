//! The one error type of this crate.

use std::fmt;

use cardan_api::Fault;

/// Why a plugin could not be loaded, or a call gave no answer.
///
/// Displayed it names the plugin and what failed, and says what to do where that is known. Code branches
/// on [`Error::kind`] and [`Error::fault`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    plugin: Option<String>,
    message: String,
    backtrace: Option<String>,
}

/// What went wrong, as far as code may care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The plugin's bytes could not be had: no such file, an unreachable address, a wrong digest.
    Source,
    /// The bytes are neither WebAssembly nor a manifest, or a manifest says something impossible.
    Format,
    /// Valid WebAssembly that cannot be a plugin here: an unknown convention, an import nobody
    /// defines, a capability that was not granted.
    Link,
    /// The guest's start section or initialisation failed.
    Start(Fault),
    /// The plugin itself refused to be loaded, at `plugin.load`.
    Refused,
    /// A call failed.
    Call(Fault),
    /// The guest reported an error itself, with this return code.
    Guest(i32),
    /// This program or machine is at fault, not the plugin.
    Host,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, plugin: None, message: message.into(), backtrace: None }))
    }

    pub(crate) fn source(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Source, message)
    }

    pub(crate) fn format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, message)
    }

    pub(crate) fn link(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Link, message)
    }

    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Host, message)
    }

    pub(crate) fn call(fault: Fault, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Call(fault), message)
    }

    pub(crate) fn with_backtrace(mut self, backtrace: Option<String>) -> Self {
        self.0.backtrace = backtrace;
        self
    }

    /// Names the plugin, unless somebody closer to the cause has.
    pub(crate) fn of(mut self, plugin: &str) -> Self {
        self.0.plugin.get_or_insert_with(|| plugin.to_owned());
        self
    }

    /// What went wrong, as far as code may care.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The fault to count and to apply a policy to, for errors that calling a plugin can bring.
    pub fn fault(&self) -> Fault {
        match self.0.kind {
            ErrorKind::Start(fault) | ErrorKind::Call(fault) => fault,
            ErrorKind::Guest(_) | ErrorKind::Refused => Fault::Trap,
            ErrorKind::Source | ErrorKind::Format | ErrorKind::Link | ErrorKind::Host => Fault::Host,
        }
    }

    /// Where the guest was when it was stopped: a line for each function, the innermost first, with its name
    /// as far as the module says it. At most 32. Offsets are those of the module as it was compiled, kernel
    /// included. `None` where no guest was stopped. Quotes the guest: not for clients.
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// The message alone, without the plugin's name. It may quote the guest: not for clients.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plugin) = &self.0.plugin {
            write!(f, "plugin {plugin}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("plugin", &self.0.plugin)
            .field("message", &self.0.message)
            .finish()
    }
}

impl std::error::Error for Error {}
