//! Random bytes, fit for keys. Needs the grant `random`, which plugins have unless it is switched off.

use crate::host;

/// At most 65,536 at once.
pub fn bytes(count: usize) -> Vec<u8> {
    host::random_bytes(count)
}
