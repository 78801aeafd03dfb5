//! SMG's deploy request.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Component, Path};
use std::time::Duration;

use cardan_api::InstanceMode;
use cardan_api::manifest::LimitsEntry;
use cardan_api::manifest::smg::{AttachPoint, MiddlewareAttachPoint, Module};

use super::hooks::Places;
use super::limits::resolve_ready;
use super::{ResolveError, check_name};
use crate::document;
use crate::spec::{Bindings, Owner, PluginSpec};

/// Time of one call in the original.
const DEADLINE: Duration = Duration::from_secs(1);
/// Where modules may not lie.
const BLOCKED: [&str; 8] = ["/etc", "/proc", "/sys", "/dev", "/boot", "/var/log", "/var/run", "/root"];

/// Resolves one module of a deploy request, with the original's rules about paths and its words. The module's
/// digest is pinned: what is loaded is what was looked at. Whether the bytes are there already is for whoever
/// keeps the list.
///
/// # Errors
///
/// When the name or the path is refused, or the file cannot be a module.
pub fn resolve_smg(module: &Module) -> Result<PluginSpec, ResolveError> {
    let fail = |problem: String| ResolveError::new(&module.name, problem);
    resolved(module).map_err(fail)
}

fn resolved(module: &Module) -> Result<PluginSpec, String> {
    if module.name.is_empty() {
        return Err("Module name cannot be empty".to_owned());
    }
    check_name(&module.name)?;
    let path = Path::new(&module.file_path);
    check_path(&module.file_path)?;
    let digest = check_file(path)?;
    let mut places = Places::default();
    for point in &module.attach_points {
        let AttachPoint::Middleware(when) = point;
        let hook = match when {
            MiddlewareAttachPoint::OnRequest => "http.request",
            MiddlewareAttachPoint::OnResponse => "http.response",
            MiddlewareAttachPoint::OnError => "http.error",
        };
        if !places.bindings.iter().any(|binding| binding.hook.name == hook) {
            places.add(hook, None);
        }
    }
    let mut spec = PluginSpec {
        sha256: digest,
        ready: resolve_ready(&LimitsEntry::default(), InstanceMode::Fresh),
        owner: Owner::Operator,
        bindings: Bindings::Listed(places.bindings),
        elsewhere: places.elsewhere,
        ..PluginSpec::new(&module.name, path)
    };
    spec.limits.deadline = Some(DEADLINE);
    Ok(spec)
}

/// In the original's order, so that the first thing wrong is the same.
fn check_path(text: &str) -> Result<(), String> {
    let path = Path::new(text);
    if text.is_empty() {
        return Err("Module file path cannot be empty".to_owned());
    }
    if !path.is_absolute() {
        return Err(format!("Module file path must be absolute: {text}"));
    }
    // `Path` leaves `.` out.
    if text.split('/').any(|part| part == ".") || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("Path traversal (..) not allowed: {text}"));
    }
    if !is_wasm(path) {
        return Err(format!("Module file must have .wasm extension: {text}"));
    }
    check_place(path, text)
}

fn is_wasm(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|ending| ending.eq_ignore_ascii_case("wasm"))
}

fn check_place(path: &Path, text: &str) -> Result<(), String> {
    match BLOCKED.iter().find(|folder| path.starts_with(folder)) {
        Some(folder) => Err(format!("Access to {folder}/ is not allowed: {text}")),
        None => Ok(()),
    }
}

/// The digest of what the file holds, where it is a core module.
fn check_file(path: &Path) -> Result<Option<String>, String> {
    let text = path.display().to_string();
    let unreadable =
        |error: std::io::Error| format!("Module file not found or not readable: {text}: {error}");
    let real = path.canonicalize().map_err(unreadable)?;
    let file = document::open(path).map_err(|why| format!("Module file {text}: {why}"))?;
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Err(format!("Module file is empty: {text}"));
    }
    check_place(&real, &text)?;
    if !is_wasm(&real) {
        return Err(format!("Module file must have .wasm extension: {}", real.display()));
    }
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic).map_err(unreadable)?;
    if magic != b"\0asm" {
        return Err(format!(
            "Invalid WASM component: {text} does not begin as WebAssembly does. Build it for wasm32-wasip2, or wrap a \
             core module with `wasm-tools component new`"
        ));
    }
    Ok(cardan::file_digest(&real))
}
