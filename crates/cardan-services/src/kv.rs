//! Key-value stores: on disk, and in memory.

mod lane;
mod memory;
mod sqlite;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cardan::{KvSpace, ServiceFailure};

pub use memory::MemoryKv;
pub use sqlite::{KvError, SqliteKv};

/// Tells the time of day, in milliseconds since 1970. What expires is told by it.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// This machine's clock.
pub fn wall_clock() -> WallClock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What a plugin's store holds, or would hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    keys: u64,
    bytes: u64,
}

/// Refuses what would make a store larger than it may be. `before` is what it held: one that is too large
/// already, because its limits were lowered, may still shrink.
fn check(space: &KvSpace, before: Usage, after: Usage) -> Result<(), ServiceFailure> {
    let (keys_max, bytes_max) = (space.limits.keys_max, space.limits.total_bytes_max);
    if after.keys > keys_max && after.keys > before.keys {
        return Err(ServiceFailure::Full(format!(
            "one key more than the {keys_max} allowed: raise kv.keys in the grants"
        )));
    }
    if after.bytes > bytes_max && after.bytes > before.bytes {
        return Err(ServiceFailure::Full(format!(
            "keys and values of {} bytes are more than the {bytes_max} allowed: raise kv.total in the grants",
            after.bytes
        )));
    }
    Ok(())
}

/// When an entry expires that is made without a word on it: as late as its store allows.
fn latest_ms(space: &KvSpace, now_ms: u64) -> Option<u64> {
    space.limits.ttl_max.map(|ttl| now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
}

/// The sum of a number in decimal and another.
fn sum(value: Option<&[u8]>, delta: i64) -> Result<i64, ServiceFailure> {
    let invalid = |why: &str| ServiceFailure::Invalid(why.to_owned());
    let number = match value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .ok_or_else(|| invalid("the value is no whole number in decimal"))?,
    };
    number.checked_add(delta).ok_or_else(|| invalid("the sum is beyond 64 bits"))
}

/// The first key after all that begin with `prefix`, if there is one.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The surrogates in between are no characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        #[track_caller]
        fn check(prefix: &str, expected: Option<&str>) {
            assert_eq!(after_prefix(prefix).as_deref(), expected, "{prefix:?}");
        }
        check("", None);
        check("a", Some("b"));
        check("az", Some("a{"));
        check("\u{d7ff}", Some("\u{e000}"));
        check("a\u{10ffff}", Some("b"));
        check("\u{10ffff}", None);
    }
}
