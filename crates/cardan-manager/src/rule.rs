//! Which events a binding is for.

use cardan_api::http::RequestEvent;
use glob::{MatchOptions, Pattern};

/// What rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// As in the event.
    pub method: &'a str,
    /// As in the event.
    pub host: &'a str,
    /// As in the event.
    pub path: &'a str,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(request: &'a RequestEvent) -> Self {
        Self { method: &request.method, host: &request.host, path: &request.path }
    }
}

/// A [`Subject`] as it was before plugins edited it.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    method: String,
    host: String,
    path: String,
}

impl From<Subject<'_>> for Remembered {
    fn from(subject: Subject<'_>) -> Self {
        Self { method: subject.method.into(), host: subject.host.into(), path: subject.path.into() }
    }
}

impl Remembered {
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { method: &self.method, host: &self.host, path: &self.path }
    }
}

/// Which events a binding is for. An empty list matches all.
#[derive(Debug, Clone, Default)]
pub struct MatchRule {
    /// On the path. One that ends with `/*` is for what that is below, too.
    pub paths: Vec<Pattern>,
    /// In upper case.
    pub methods: Vec<String>,
    /// On the host, in any letter case.
    pub hosts: Vec<Pattern>,
}

impl MatchRule {
    /// Whether this rule is for `subject`.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let without_case = MatchOptions { case_sensitive: false, ..MatchOptions::new() };
        let method = self.methods.is_empty()
            || self.methods.iter().any(|method| method.eq_ignore_ascii_case(subject.method));
        let path =
            self.paths.is_empty() || self.paths.iter().any(|pattern| matches_path(pattern, subject.path));
        let host = self.hosts.is_empty()
            || self.hosts.iter().any(|pattern| pattern.matches_with(subject.host, without_case));
        method && path && host
    }
}

/// Whether a path, or the folder it names, matches. Routes take `/v1` and what is below it for one, and a guard
/// of `/v1/*` that left `/v1` open would be a gap nobody sees.
fn matches_path(pattern: &Pattern, path: &str) -> bool {
    let below = || pattern.as_str().ends_with("/*") || pattern.as_str().ends_with("/**");
    pattern.matches(path) || (below() && pattern.matches(&format!("{path}/")))
}
