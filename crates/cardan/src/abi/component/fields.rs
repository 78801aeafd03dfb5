//! Header fields between hosts and guests.

use cardan_api::http::{HeaderEdit, Headers};
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::dialect::check_field;

/// A field as guests are shown it.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Shown<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

/// A field as guests return it.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: String,
}

/// Every field.
pub(super) fn shown(headers: &Headers) -> Vec<Shown<'_>> {
    headers.0.iter().map(|(name, value)| Shown { name, value }).collect()
}

/// Whether a value is visible ASCII, which is what `HeaderValue::to_str` of SMG's gateway takes.
pub(super) fn is_visible(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}

/// Edits as SMG applies them: set, then add, then remove. What cannot stand on the wire is left out.
pub(super) fn edits(
    set: impl IntoIterator<Item = (String, String)>,
    add: impl IntoIterator<Item = (String, String)>,
    remove: Vec<String>,
) -> Vec<HeaderEdit> {
    let fits = |(name, value): &(String, String)| check_field(name, value).is_ok();
    let set = set.into_iter().filter(fits).map(|(name, value)| HeaderEdit::Set(name, value));
    let add = add.into_iter().filter(fits).map(|(name, value)| HeaderEdit::Add(name, value));
    let remove = remove.into_iter().filter(|name| check_field(name, "").is_ok()).map(HeaderEdit::Remove);
    set.chain(add).chain(remove).collect()
}
