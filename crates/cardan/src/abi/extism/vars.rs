//! Variables: small values that outlive calls and instances.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the reference counts for a stored pair beside its bytes.
const PAIR_OVERHEAD_BYTES: u64 = 48;

/// One plugin's variables. Its instances share them.
#[derive(Debug, Default)]
pub(crate) struct Vars(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    pairs: BTreeMap<String, Vec<u8>>,
    /// What the pairs count together.
    bytes: u64,
}

/// Why a variable was not set. The words are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VarError {
    Disabled,
    Full,
}

impl std::fmt::Display for VarError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disabled => "Vars are disabled by this host",
            Self::Full => "Variable store is full",
        })
    }
}

impl std::error::Error for VarError {}

impl Vars {
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().pairs.get(key).cloned()
    }

    /// Sets a variable, or removes it when there is no value.
    ///
    /// The size rule is the reference's: the new pair counts beside every stored one, the one that it
    /// replaces included.
    pub(super) fn set(&self, key: String, value: Option<Vec<u8>>, bytes_max: u64) -> Result<(), VarError> {
        if bytes_max == 0 {
            return Err(VarError::Disabled);
        }
        let mut stored = self.lock();
        let new = value.as_ref().map_or(0, |value| pair_bytes(&key, value));
        if value.is_some() && stored.bytes + new > bytes_max {
            return Err(VarError::Full);
        }
        let old = match value {
            Some(value) => stored.pairs.insert(key.clone(), value),
            None => stored.pairs.remove(&key),
        };
        stored.bytes = stored.bytes + new - old.map_or(0, |old| pair_bytes(&key, &old));
        Ok(())
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Stored::default();
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair_bytes(key: &str, value: &[u8]) -> u64 {
    PAIR_OVERHEAD_BYTES + key.len() as u64 + value.len() as u64
}
