//! Secrets that the operator has named. Needs the grant `secrets`.

use crate::host;

/// The secret of this name, if there is one.
pub fn get(name: &str) -> Option<Vec<u8>> {
    host::secret_get(name)
}
