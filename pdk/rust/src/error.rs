use std::error::Error as StdError;
use std::fmt;

/// Why a plugin could not answer. Operators read it; clients do not. Any error turns into one with `?`.
pub struct Error(String);

/// What hooks return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error in the plugin's own words.
    pub fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}

// Not a `std::error::Error` itself, so that all of those can become one.
impl<E: StdError> From<E> for Error {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
