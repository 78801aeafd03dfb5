//! Who may do what: tokens with roles, or, without tokens, whoever is on this machine.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::problem::Problem;

/// What somebody may do. A higher one may do all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything but configuration values.
    Viewer,
    /// Reload, switch, roll back and try plugins that are there.
    Operator,
    /// Bring plugins, take them away, see and change configuration and stored values.
    Admin,
}

impl Role {
    /// The word in configuration and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Characters that a token has at least: shorter ones can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// One bearer token. The text is not kept.
#[derive(Clone)]
pub struct Token {
    name: Arc<str>,
    role: Role,
    digest: [u8; 32],
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It can be guessed.
    Short,
    /// No client could send it.
    NotVisible,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(
                f,
                "it is shorter than {TOKEN_CHARS_MIN} characters; make one with `openssl rand -hex 32`"
            ),
            Self::NotVisible => f.write_str("it has characters other than visible ASCII in it"),
        }
    }
}

impl std::error::Error for TokenError {}

impl Token {
    /// A token of this text. `name` is what log lines say in its place.
    ///
    /// # Errors
    ///
    /// When the text is too short, or cannot stand in a header field.
    pub fn new(name: &str, role: Role, text: &str) -> Result<Self, TokenError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotVisible);
        }
        if text.len() < TOKEN_CHARS_MIN {
            return Err(TokenError::Short);
        }
        Ok(Self { name: name.into(), role, digest: digest(text) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The tokens that are in force. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Tokens {
    current: Arc<RwLock<Arc<[Token]>>>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Tokens {
    /// These, until others take their place.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self { current: Arc::new(RwLock::new(tokens.into())) }
    }

    /// Puts others in their place; requests under way go on. Without any, a listener that others than this
    /// machine can reach lets nobody in.
    pub fn replace(&self, tokens: Vec<Token>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
    }

    fn now(&self) -> Arc<[Token]> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Somebody else than this machine could reach an API that asks for no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExposedError(SocketAddr);

impl fmt::Display for ExposedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} can be reached from other machines, and there is no token: add one under admin.tokens, with a \
             name, a role and `token: \"${{NAME}}\"` or `token_file`, or listen on 127.0.0.1",
            self.0
        )
    }
}

impl std::error::Error for ExposedError {}

/// Who may come in at one listener.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: Tokens,
    local: SocketAddr,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
}

impl Access {
    pub(crate) fn new(tokens: Tokens, local: SocketAddr) -> Result<Self, ExposedError> {
        if tokens.now().is_empty() && !local.ip().is_loopback() {
            return Err(ExposedError(local));
        }
        Ok(Self { tokens, local })
    }

    pub(crate) fn asks_for_tokens(&self) -> bool {
        !self.tokens.now().is_empty()
    }

    /// Who sends a request with this head.
    pub(crate) fn caller(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
        let tokens = self.tokens.now();
        if tokens.is_empty() {
            if !self.local.ip().is_loopback() {
                return Err(Problem::new(StatusCode::FORBIDDEN, ExposedError(self.local).to_string()));
            }
            self.check_local(uri, headers)?;
            return Ok(Caller { name: "local".into(), role: Role::Admin });
        }
        let unauthorised = |why: &str| Err(Problem::new(StatusCode::UNAUTHORIZED, why));
        let Some(field) = headers.get(header::AUTHORIZATION) else {
            return unauthorised(
                "send `Authorization: Bearer TOKEN`, with one of the tokens under admin.tokens",
            );
        };
        let text = field.to_str().ok().and_then(|field| field.split_once(' '));
        let Some((_, text)) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return unauthorised("the field Authorization is not of the form `Bearer TOKEN`");
        };
        match find(&tokens, text.trim()) {
            Some(token) => Ok(Caller { name: token.name.clone(), role: token.role }),
            None => unauthorised("there is no such token under admin.tokens"),
        }
    }

    /// Without tokens this machine is trusted, and not the pages that its browsers show: a page may resolve
    /// its own name to this address, and may post without being able to read the answer.
    fn check_local(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let forbidden = |why: &str| Err(Problem::new(StatusCode::FORBIDDEN, why));
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = host.or_else(|| uri.authority().map(http::uri::Authority::as_str)) else {
            return Err(Problem::bad_request("the field Host is missing"));
        };
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Problem::bad_request("there are two fields Host"));
        }
        if !self.is_local(host) {
            return forbidden(
                "without tokens this listener answers to localhost and to its own address only; add a token \
                 under admin.tokens to use another name",
            );
        }
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        let origin = headers.get(header::ORIGIN).map(|origin| origin.as_bytes());
        let foreign_origin = origin.is_some_and(|origin| origin != format!("http://{host}").as_bytes());
        if foreign_site || foreign_origin {
            return forbidden("another site's page may not use this API; add a token under admin.tokens");
        }
        Ok(())
    }

    fn is_local(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = name.parse().ok();
        let known = address.is_some_and(|it| it.is_loopback() || it == self.local.ip());
        !authority.as_str().contains('@') && (known || name.eq_ignore_ascii_case("localhost"))
    }
}

/// Looks at every token, whichever it is, in a time that says nothing about any of them.
fn find<'a>(tokens: &'a [Token], text: &str) -> Option<&'a Token> {
    let sent = digest(text);
    let (mut found, mut at) = (Choice::from(0), 0_u64);
    for (i, token) in (0_u64..).zip(tokens) {
        let same = sent.ct_eq(&token.digest);
        at.conditional_assign(&i, same);
        found |= same;
    }
    let at = usize::try_from(at).ok()?;
    bool::from(found).then(|| tokens.get(at)).flatten()
}

/// A request of somebody whose role is at least `R`. The first argument of every handler.
#[derive(Debug)]
pub(crate) struct As<R> {
    pub(crate) caller: Caller,
    role: PhantomData<R>,
}

pub(crate) trait AtLeast {
    const ROLE: Role;
}

#[derive(Debug)]
pub(crate) struct Viewer;
#[derive(Debug)]
pub(crate) struct Operator;
#[derive(Debug)]
pub(crate) struct Administrator;

impl AtLeast for Viewer {
    const ROLE: Role = Role::Viewer;
}

impl AtLeast for Operator {
    const ROLE: Role = Role::Operator;
}

impl AtLeast for Administrator {
    const ROLE: Role = Role::Admin;
}

impl Caller {
    pub(crate) fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let why = format!(
            "the token {:?} has the role {}, and this takes {}",
            self.name,
            self.role.name(),
            role.name()
        );
        Err(Problem::new(StatusCode::FORBIDDEN, why))
    }
}

impl<S: Send + Sync, R: AtLeast> FromRequestParts<S> for As<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        // Put there by the one layer around every route; without it nobody comes in.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Problem::internal("a route without the access layer"))?;
        caller.require(R::ROLE)?;
        Ok(Self { caller, role: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tokens: &[(&str, Role, &str)]) -> Access {
        let tokens = tokens.iter().map(|(name, role, text)| Token::new(name, *role, text).unwrap());
        Access::new(Tokens::new(tokens.collect()), "127.0.0.1:8081".parse().unwrap()).unwrap()
    }

    fn ask(access: &Access, fields: &[(&'static str, &str)]) -> Result<Role, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let caller = access.caller(&Uri::from_static("/api/v1/plugins"), &headers);
        caller.map(|caller| caller.role).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn tokens() {
        let access = access(&[
            ("eyes", Role::Viewer, "0123456789abcdef"),
            ("hands", Role::Operator, "fedcba9876543210"),
        ]);
        let with = |value: &str| ask(&access, &[("authorization", value)]);
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(Role::Viewer));
        assert_eq!(with("bearer  fedcba9876543210"), Ok(Role::Operator));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer ", "Bearer", "Basic 0123456789abcdef", ""] {
            assert_eq!(with(wrong), Err(401), "{wrong:?}");
        }
        assert_eq!(ask(&access, &[("host", "localhost")]), Err(401));
        // A name of one's own is what tokens are for.
        let named = [("host", "cardan.example"), ("authorization", "Bearer 0123456789abcdef")];
        assert_eq!(ask(&access, &named), Ok(Role::Viewer));
    }

    #[test]
    fn what_is_no_token() {
        assert_eq!(Token::new("a", Role::Admin, "short").unwrap_err(), TokenError::Short);
        assert_eq!(Token::new("a", Role::Admin, "0123456789 abcdef").unwrap_err(), TokenError::NotVisible);
        let debug = format!("{:?}", Token::new("a", Role::Admin, "0123456789abcdef"));
        assert!(!debug.contains("0123456789abcdef") && !debug.contains("digest"), "{debug}");
    }

    #[test]
    fn without_tokens_only_this_machine_and_no_page() {
        let access = access(&[]);
        for host in ["localhost:8081", "127.0.0.1:8081", "127.0.0.1", "[::1]:9", "LOCALHOST", "127.8.9.1"] {
            assert_eq!(ask(&access, &[("host", host)]), Ok(Role::Admin), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "192.0.2.1:8081", "127.0.0.1@evil.example", "a b"]
        {
            assert_eq!(ask(&access, &[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(ask(&access, &[]), Err(400));
        assert_eq!(ask(&access, &[("host", "localhost"), ("host", "evil.example")]), Err(400));
        let with = |name, value| ask(&access, &[("host", "localhost:8081"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:8081"), Ok(Role::Admin));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(Role::Admin));
        assert_eq!(with("sec-fetch-site", "none"), Ok(Role::Admin));
        for origin in ["http://evil.example", "null", "http://localhost:8080", "https://localhost:8081"] {
            assert_eq!(with("origin", origin), Err(403), "{origin}");
        }
        // Another port of this machine is the same site, and another origin.
        for site in ["cross-site", "same-site"] {
            assert_eq!(with("sec-fetch-site", site), Err(403), "{site}");
        }
    }

    #[test]
    fn open_to_others_it_needs_a_token() {
        let error = Access::new(Tokens::default(), "0.0.0.0:8081".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("add one under admin.tokens"), "{error}");
    }
}
