//! The documents of `access.*`.

use std::collections::BTreeMap;

use cardan_api::access::{
    AccessAnswer, AccessAuthenticate, AccessAuthorize, AccessEvent, Denial, Identity, LoginAnswer, LoginEvent,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{Circumstances, Malformed, ShownHeaders, write};
use super::verdict::{Judged, VerdictDocument, answer, message_or_policy};
use super::{EventDocument, document};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Login")]
pub(super) struct LoginDocument<'a> {
    /// Address and port of the peer.
    client: &'a str,
    username: Option<&'a str>,
    /// In clear text, where the protocol brings it so.
    password: Option<&'a str>,
    database: Option<&'a str>,
    /// Header fields, or startup parameters: names in lower case.
    #[schemars(with = "BTreeMap<String, String>")]
    headers: ShownHeaders<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Access")]
pub(super) struct AccessDocument<'a> {
    /// Who wants to do it; `null` where nobody has said so.
    identity: Option<&'a Identity>,
    /// `connect`, `read`, `write`; for HTTP the method in lower case.
    action: &'a str,
    /// A database, a table, a path.
    resource: &'a str,
    /// Address and port of the peer.
    client: &'a str,
}

/// Who it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IdentityAnswer")]
pub(super) struct IdentityDocument {
    identity: Identity,
}

/// Whether it may.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AllowAnswer")]
pub(super) struct AllowDocument {
    allow: bool,
}

pub(in super::super) fn encode_login(
    event: &LoginEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let login = LoginDocument {
        client: &event.client,
        username: event.username.as_deref(),
        password: event.password.as_deref(),
        database: event.database.as_deref(),
        headers: ShownHeaders(&event.headers),
    };
    write(&EventDocument { login: Some(login), ..document::<AccessAuthenticate>(about) }, [])
}

pub(in super::super) fn encode_access(
    event: &AccessEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let access = AccessDocument {
        identity: event.identity.as_ref(),
        action: &event.action,
        resource: &event.resource,
        client: &event.client,
    };
    write(&EventDocument { access: Some(access), ..document::<AccessAuthorize>(about) }, [])
}

impl Judged for AccessAuthenticate {
    const KEYS: &'static [&'static str] = &["message", "answer"];

    fn stop(document: VerdictDocument) -> Result<LoginAnswer, Malformed> {
        match document {
            VerdictDocument::Answer { answer: it } => {
                let identity = answer::<IdentityDocument>(&it)?.identity;
                if identity.user_id.is_empty() {
                    return Err(Malformed("an identity has a user_id".to_owned()));
                }
                Ok(LoginAnswer::Identity(identity))
            }
            other => denial(other).map(LoginAnswer::Deny),
        }
    }
}

impl Judged for AccessAuthorize {
    const KEYS: &'static [&'static str] = &["message", "answer"];

    fn stop(document: VerdictDocument) -> Result<AccessAnswer, Malformed> {
        match document {
            VerdictDocument::Answer { answer: it } => match answer::<AllowDocument>(&it)?.allow {
                true => Ok(AccessAnswer::Allow),
                false => Ok(AccessAnswer::Deny(Denial { message: message_or_policy(None) })),
            },
            other => denial(other).map(AccessAnswer::Deny),
        }
    }
}

fn denial(document: VerdictDocument) -> Result<Denial, Malformed> {
    match document {
        VerdictDocument::Refuse { message, .. } => Ok(Denial { message: message_or_policy(message) }),
        _ => Err(Malformed("access is allowed or refused, and nothing else".to_owned())),
    }
}
