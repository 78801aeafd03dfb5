//! Where configuration comes from: files, pipes, and the environment.

use std::io::Read as _;
use std::path::Path;

use cardan_manager::document::{self, Format};
use serde::de::DeserializeOwned;

use crate::output::Failure;

/// Where values of `${NAME}` come from.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// This process's environment.
#[expect(clippy::disallowed_methods, reason = "this is the binary, the one place that reads the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Most bytes of a configuration or manifest.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a file, or what a pipe brings: configurations may be made on the fly.
/// `hint` says what to do when there is nothing.
pub(super) fn read_text(path: &Path, hint: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::unusable(format_args!(
            "cannot read {}: it is larger than {} MiB",
            path.display(),
            FILE_BYTES_MAX >> 20
        )));
    }
    read.map(|_| text).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::NotFound { hint } else { "" };
        Failure::unusable(format_args!("cannot read {}: {error}{hint}", path.display()))
    })
}

/// A file that says nothing is refused: more likely it is half written than meant, and to go by it would be
/// to go on without a single guard.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str, missing: &str) -> Result<T, Failure> {
    let document = document::parse(text, Format::of(path));
    let document = document.map_err(|why| Failure::unusable(format_args!("{}: {why}", path.display())))?;
    document.ok_or_else(|| {
        let path = path.display();
        Failure::unusable(format_args!("{path}: it is empty, or has nothing but comments: {missing}"))
    })
}

/// Replaces each `${NAME}` by the value of that variable.
pub(super) fn substitute(text: &str, environment: Environment<'_>) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after
            .split_once('}')
            .ok_or_else(|| Failure::unusable(format_args!("{text:?} has `${{` without `}}`")))?;
        let value = environment(name).ok_or_else(|| {
            Failure::unusable(format_args!(
                "the environment variable {name} is not set; the configuration uses it"
            ))
        })?;
        out.push_str(before);
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}
