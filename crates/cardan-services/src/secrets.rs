//! Secrets in memory. Whoever makes the store reads them from where they are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cardan::{Secret, SecretStore, Waiting};

/// Secrets by name.
#[derive(Clone, Default)]
pub struct MemorySecrets(Arc<BTreeMap<String, Secret>>);

/// Names only.
impl fmt::Debug for MemorySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, Secret)> for MemorySecrets {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(secrets: I) -> Self {
        Self(Arc::new(secrets.into_iter().collect()))
    }
}

impl SecretStore for MemorySecrets {
    fn secret(&self, name: &str) -> Waiting<Option<Secret>> {
        Box::pin(std::future::ready(Ok(self.0.get(name).cloned())))
    }
}
