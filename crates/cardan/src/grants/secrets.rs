//! Secrets by name.

use std::fmt;

use super::Waiting;

/// Knows secrets. The implementation is the embedder's: `cardan-services` has one in memory.
pub trait SecretStore: Send + Sync + 'static {
    /// The secret of this name, if there is one. Asked only for names that the plugin was granted.
    fn secret(&self, name: &str) -> Waiting<Option<Secret>>;
}

/// A value that no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The value itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
