//! Who may operate the gateway, and where.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cardan_admin::{Role, Token};
use schemars::JsonSchema;
use serde::Deserialize;

use super::source::{Environment, read_text, substitute};
use crate::output::Failure;

/// The admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Admin")]
pub(crate) struct AdminEntry {
    /// An address, or `off`; 127.0.0.1:8081 unless said otherwise. Other addresses than this machine's own
    /// need tokens. Read at the start only.
    listen: Option<String>,
    /// Who may come in. Without any, everybody on this machine may do everything.
    tokens: Vec<TokenEntry>,
}

/// One bearer token. Exactly one of `token` and `token_file`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminToken")]
struct TokenEntry {
    /// Who it is, for the log.
    name: String,
    role: RoleEntry,
    /// At least 16 visible characters. `${NAME}` stands for an environment variable.
    #[serde(default)]
    token: Option<String>,
    /// A file that holds it, relative to this file.
    #[serde(default)]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RoleEntry {
    /// Looks at everything but configuration values.
    Viewer,
    /// Reloads, switches, rolls back and tries plugins that are there.
    Operator,
    /// Brings plugins, takes them away, sees and changes configuration and stored values.
    Admin,
}

/// Where the admin API listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminListen {
    Off,
    /// There, if nobody else does.
    Usual(SocketAddr),
    /// There, because somebody said so.
    At(SocketAddr),
}

/// The admin API, resolved.
#[derive(Debug, Clone)]
pub(crate) struct AdminSettings {
    pub(crate) listen: AdminListen,
    pub(crate) tokens: Vec<Token>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { listen: AdminListen::usual(), tokens: Vec::new() }
    }
}

impl AdminListen {
    /// An address, or `off`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("{text:?} is neither an address with a port, such as 127.0.0.1:8081, nor `off`")
            }),
        }
    }

    fn usual() -> Self {
        Self::Usual((Ipv4Addr::LOCALHOST, 8081).into())
    }
}

impl AdminEntry {
    pub(super) fn resolve(
        &self,
        base: &Path,
        environment: Environment<'_>,
    ) -> Result<AdminSettings, Failure> {
        let listen = self.listen.as_deref().map_or(Ok(AdminListen::usual()), AdminListen::parse);
        let listen = listen.map_err(|why| Failure::unusable(format_args!("admin.listen: {why}")))?;
        let mut tokens: Vec<Token> = Vec::new();
        for entry in &self.tokens {
            let wrong = |why: &dyn std::fmt::Display| {
                Failure::unusable(format_args!("admin.tokens: {}: {why}", entry.name))
            };
            let role = match entry.role {
                RoleEntry::Viewer => Role::Viewer,
                RoleEntry::Operator => Role::Operator,
                RoleEntry::Admin => Role::Admin,
            };
            let text = entry.text(base, environment).map_err(|failure| wrong(&failure))?;
            tokens.push(Token::new(&entry.name, role, text.trim()).map_err(|error| wrong(&error))?);
        }
        Ok(AdminSettings { listen, tokens })
    }
}

impl TokenEntry {
    fn text(&self, base: &Path, environment: Environment<'_>) -> Result<String, Failure> {
        match (&self.token, &self.token_file) {
            (Some(token), None) => substitute(token, environment),
            (None, Some(file)) => read_text(&base.join(file), "; it should hold the token and nothing else"),
            _ => Err(Failure::unusable("give it either `token` or `token_file`")),
        }
    }
}
