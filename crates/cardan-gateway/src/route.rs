//! From a request's host, path and method to an upstream.
//!
//! [`Routes`] is immutable: an exchange takes one and keeps it to its end, whatever an operator does
//! meanwhile.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::config::{AmbiguousPaths, Config, ConfigError, HostMatch, Kind, PathMatch, RouteConfig};
use crate::path::normalise;
use crate::upstream::Group;

/// The routes of one configuration, in order.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

/// One route, its upstream found.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    hosts: Vec<HostMatch>,
    path: PathMatch,
    methods: Vec<Method>,
    rewrite: Option<String>,
    /// Fields to set on the upstream request; values are marked sensitive.
    pub(crate) headers: HeaderMap,
    pub(crate) group: Arc<Group>,
}

impl Routes {
    pub(crate) fn resolve(config: &Config) -> Result<Self, ConfigError> {
        let mut groups: HashMap<&str, Arc<Group>> = HashMap::new();
        for upstream in &config.upstreams {
            if groups.insert(&upstream.name, Arc::new(Group::resolve(upstream)?)).is_some() {
                return Err(Kind::DuplicateUpstream { upstream: upstream.name.clone() }.into());
            }
        }
        let routes = config.routes.iter().map(|route| {
            let group = groups.get(route.upstream.as_str()).ok_or_else(|| Kind::UnknownUpstream {
                route: route.name.clone(),
                upstream: route.upstream.clone(),
            })?;
            Route::resolve(route, group.clone())
        });
        Ok(Self { routes: routes.collect::<Result<_, _>>()? })
    }

    /// The first route that matches. `host` and `path` are normalised.
    pub(crate) fn find(&self, method: &Method, host: &str, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| {
            (route.methods.is_empty() || route.methods.contains(method))
                && (route.hosts.is_empty() || route.hosts.iter().any(|pattern| pattern.matches(host)))
                && route.path.rest(path).is_some()
        })
    }
}

impl Route {
    fn resolve(config: &RouteConfig, group: Arc<Group>) -> Result<Self, ConfigError> {
        let checked = |path: &str| match normalise(path, AmbiguousPaths::PassOn) {
            Ok(path) if !path.contains('?') => Ok(path.into_owned()),
            _ => Err(Kind::BadPath { route: config.name.clone(), path: path.to_owned() }),
        };
        let path = match &config.path {
            PathMatch::Exact(path) => PathMatch::Exact(checked(path)?),
            // Whole segments are compared, so that a final slash says nothing.
            PathMatch::Prefix(path) => PathMatch::Prefix(checked(path)?.trim_end_matches('/').to_owned()),
        };
        let rewrite = match (&config.rewrite, &path) {
            (Some(rewrite), PathMatch::Prefix(_)) => Some(checked(rewrite)?.trim_end_matches('/').to_owned()),
            (Some(rewrite), PathMatch::Exact(_)) => Some(checked(rewrite)?),
            (None, _) => None,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self {
            name: config.name.as_str().into(),
            hosts: config.hosts.clone(),
            path,
            methods: config.methods.clone(),
            rewrite,
            headers,
            group,
        })
    }

    /// The path to ask the upstream for.
    pub(crate) fn upstream_path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match (&self.rewrite, self.path.rest(path)) {
            (Some(rewrite), Some(rest)) if rewrite.is_empty() && rest.is_empty() => Cow::Borrowed("/"),
            (Some(rewrite), Some(rest)) => Cow::Owned(format!("{rewrite}{rest}")),
            _ => Cow::Borrowed(path),
        }
    }
}

impl HostMatch {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(host),
            Self::Below(domain) => {
                let below = host.len().checked_sub(domain.len()).and_then(|at| host.split_at_checked(at));
                below.is_some_and(|(name, rest)| {
                    rest.eq_ignore_ascii_case(domain) && name.len() > 1 && name.ends_with('.')
                })
            }
        }
    }
}

impl PathMatch {
    /// What follows the matched part.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(exact) => (exact == path).then_some(""),
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::UpstreamConfig;

    fn config() -> Config {
        let route = |name: &str, path| RouteConfig::new(name, path, "u");
        let mut admin = route("admin", PathMatch::Prefix("/".into()));
        admin.hosts = vec![HostMatch::parse("Admin.example.com"), HostMatch::parse("*.internal")];
        let mut post = route("post", PathMatch::Exact("/v1/chat/completions".into()));
        post.methods = vec![Method::POST];
        let mut openai = route("openai", PathMatch::Prefix("/openai/".into()));
        openai.rewrite = Some("/".into());
        let mut files = route("files", PathMatch::Prefix("/files".into()));
        files.rewrite = Some("/store/v2/".into());
        let mut exact = route("exact", PathMatch::Exact("/ping".into()));
        exact.rewrite = Some("/health/".into());
        let v1 = route("v1", PathMatch::Prefix("/v1".into()));
        Config {
            routes: vec![admin, post, openai, files, exact, v1],
            upstreams: vec![UpstreamConfig::at("u", &["http://127.0.0.1:1"])],
            ..Config::default()
        }
    }

    #[track_caller]
    fn check(method: Method, host: &str, path: &str, expected: Option<(&str, &str)>) {
        let routes = Routes::resolve(&config()).unwrap();
        let found = routes.find(&method, host, path);
        let found = found.map(|route| (route.name.to_string(), route.upstream_path(path).into_owned()));
        assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
    }

    #[test]
    fn the_first_match_takes_it() {
        check(Method::GET, "admin.example.com", "/x", Some(("admin", "/x")));
        check(Method::GET, "a.b.INTERNAL", "/x", Some(("admin", "/x")));
        check(Method::GET, "internal", "/x", None);
        check(Method::GET, ".internal", "/x", None);
        check(Method::GET, "xinternal", "/x", None);
        check(Method::GET, "é.internal", "/x", Some(("admin", "/x")));
        check(Method::POST, "h", "/v1/chat/completions", Some(("post", "/v1/chat/completions")));
        check(Method::GET, "h", "/v1/chat/completions", Some(("v1", "/v1/chat/completions")));
        check(Method::GET, "h", "/v1", Some(("v1", "/v1")));
        check(Method::GET, "h", "/v10", None);
        check(Method::GET, "h", "/", None);
    }

    #[test]
    fn the_matched_part_is_rewritten() {
        check(Method::GET, "h", "/openai", Some(("openai", "/")));
        check(Method::GET, "h", "/openai/", Some(("openai", "/")));
        check(Method::GET, "h", "/openai/v1/models", Some(("openai", "/v1/models")));
        check(Method::GET, "h", "/files/a", Some(("files", "/store/v2/a")));
        check(Method::GET, "h", "/files", Some(("files", "/store/v2")));
        check(Method::GET, "h", "/ping", Some(("exact", "/health/")));
    }

    #[track_caller]
    fn check_error(change: impl FnOnce(&mut Config), message: &str) {
        let mut config = config();
        change(&mut config);
        assert_eq!(Routes::resolve(&config).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_wrong_configuration_says_where() {
        let path = "; a path begins with `/`, has no `.` or `..` segment and no `?`";
        check_error(
            |c| c.routes[0].upstream = "x".into(),
            "route `admin` names the upstream `x`, which is not defined",
        );
        check_error(|c| c.upstreams.push(c.upstreams[0].clone()), "two upstreams are called `u`");
        check_error(
            |c| c.routes[1].path = PathMatch::Exact("v1".into()),
            &format!("route `post` has the path `v1`{path}"),
        );
        check_error(
            |c| c.routes[3].rewrite = Some("/a/../b".into()),
            &format!("route `files` has the path `/a/../b`{path}"),
        );
        check_error(|c| c.upstreams[0] = UpstreamConfig::at("u", &[]), "upstream `u` has no URL");
        let url = |url: &'static str| move |c: &mut Config| c.upstreams[0] = UpstreamConfig::at("u", &[url]);
        let said = |why: &str| format!("URL 1 of upstream `u` cannot be used: a URL here {why}");
        check_error(url("localhost"), &said("begins with http:// or https://"));
        check_error(url("ftp://h"), &said("begins with http:// or https://"));
        check_error(url("http://u:p@h"), &said("has no user or password; set a header on the route"));
        check_error(url("http://h/?q"), &said("has no query"));
        check_error(url("http://h/a/../b"), &said("has a plain path"));
    }

    #[test]
    fn credentials_are_not_printed() {
        let mut config = config();
        config.routes[0].headers =
            vec![(HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cret"))];
        let routes = Routes::resolve(&config).unwrap();
        assert!(!format!("{routes:?}").contains("s3cret"));
    }
}
