//! `authenticate` and `authorize`.

use std::borrow::Cow;

use cardan_api::Verdict;
use cardan_api::access::{
    AccessAnswer, AccessAuthenticate, AccessAuthorize, AccessEvent, Denial, Identity, LoginAnswer, LoginEvent,
};
use serde::{Deserialize, Serialize};

use super::super::{Circumstances, Malformed, ShownHeaders, write};
use super::{BLOCKED, Client, Decision, HookContext, address_alone};

#[derive(Serialize)]
struct AuthRequest<'a> {
    headers: ShownHeaders<'a>,
    username: Option<&'a str>,
    password: Option<&'a str>,
    client_ip: Cow<'a, str>,
    database: Option<&'a str>,
}

/// Nothing of it is in any known guest: the names are those of the rest.
#[derive(Serialize)]
struct AccessRequest<'a> {
    action: &'a str,
    resource: &'a str,
    identity: Option<&'a Identity>,
    hook_context: HookContext<'a>,
}

/// An identity as guests write it; further claims are not read. The name is left out by guests of the documented
/// kit, whose identities have none.
#[derive(Deserialize)]
struct SaidIdentity {
    user_id: String,
    username: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    tenant_id: Option<String>,
}

pub(in super::super) fn encode_login(
    event: &LoginEvent,
    _about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let request = AuthRequest {
        headers: ShownHeaders(&event.headers),
        username: event.username.as_deref(),
        password: event.password.as_deref(),
        client_ip: address_alone(&event.client),
        database: event.database.as_deref(),
    };
    write(&request, [])
}

pub(in super::super) fn decode_login(
    _event: &LoginEvent,
    document: &[u8],
) -> Result<Verdict<AccessAuthenticate>, Malformed> {
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(match decision.word.as_str() {
        "defer" => Verdict::pass(),
        "success" => {
            let said = decision.fields.get("identity");
            let said = said.ok_or_else(|| Malformed("a success without an identity".to_owned()))?;
            // A list in the order of the fields would do for serde.
            if !said.get().starts_with('{') {
                return Err(Malformed("an identity is an object".to_owned()));
            }
            let said: SaidIdentity = serde_json::from_str(said.get())
                .map_err(|error| Malformed(format!("the identity is none: {error}")))?;
            if said.user_id.trim().is_empty() {
                return Err(Malformed("an identity has a user_id".to_owned()));
            }
            Verdict::stop(LoginAnswer::Identity(Identity {
                username: said.username.unwrap_or_else(|| said.user_id.clone()),
                user_id: said.user_id,
                roles: said.roles,
                tenant_id: said.tenant_id,
            }))
        }
        "denied" => login_denied(decision.reason(&["message", "reason"])?),
        _ => return Err(decision.unknown()),
    })
}

pub(in super::super) fn login_code(words: Option<&str>) -> Verdict<AccessAuthenticate> {
    login_denied(words.unwrap_or(BLOCKED).to_owned())
}

fn login_denied(message: String) -> Verdict<AccessAuthenticate> {
    Verdict::stop(LoginAnswer::Deny(Denial { message }))
}

pub(in super::super) fn encode_access(
    event: &AccessEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let client = Client { identity: event.identity.as_ref(), address: &event.client, ..Client::default() };
    let request = AccessRequest {
        action: &event.action,
        resource: &event.resource,
        identity: event.identity.as_ref(),
        hook_context: HookContext::of(client, about),
    };
    write(&request, [])
}

pub(in super::super) fn decode_access(
    _event: &AccessEvent,
    document: &[u8],
) -> Result<Verdict<AccessAuthorize>, Malformed> {
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(match decision.word.as_str() {
        "defer" => Verdict::pass(),
        "allow" | "allowed" => Verdict::stop(AccessAnswer::Allow),
        "deny" | "denied" => access_denied(decision.reason(&["message", "reason"])?),
        _ => return Err(decision.unknown()),
    })
}

pub(in super::super) fn access_code(words: Option<&str>) -> Verdict<AccessAuthorize> {
    access_denied(words.unwrap_or(BLOCKED).to_owned())
}

fn access_denied(message: String) -> Verdict<AccessAuthorize> {
    Verdict::stop(AccessAnswer::Deny(Denial { message }))
}
