//! `access-authenticate` and `access-authorize`.

use cardan_api::Verdict;
use cardan_api::access::{
    AccessAnswer, AccessAuthenticate, AccessAuthorize, AccessEvent, Denial, Identity, LoginAnswer, LoginEvent,
};
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::{Ask, Circumstances, Entry, Failure, Guest, Interface, Visit, enter, said};
use crate::abi::component::fields::{self, Shown};

const AUTHENTICATE: Entry = Entry::new::<(Resource<Visit>, Login<'static>), (Result<Authentication, String>,)>(
    Interface::AccessAuthenticate,
    "authenticate",
);
const AUTHORIZE: Entry = Entry::new::<(Resource<Visit>, Access<'static>), (Result<Authorization, String>,)>(
    Interface::AccessAuthorize,
    "authorize",
);

pub(super) const ENTRIES: [Entry; 2] = [AUTHENTICATE, AUTHORIZE];

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Known<'a> {
    #[component(name = "user-id")]
    user_id: &'a str,
    username: &'a str,
    roles: &'a [String],
    #[component(name = "tenant-id")]
    tenant_id: Option<&'a str>,
}

impl<'a> From<&'a Identity> for Known<'a> {
    fn from(identity: &'a Identity) -> Self {
        let Identity { user_id, username, roles, tenant_id } = identity;
        Self { user_id, username, roles, tenant_id: tenant_id.as_deref() }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Recognised {
    #[component(name = "user-id")]
    user_id: String,
    username: String,
    roles: Vec<String>,
    #[component(name = "tenant-id")]
    tenant_id: Option<String>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Login<'a> {
    client: &'a str,
    username: Option<&'a str>,
    password: Option<&'a str>,
    database: Option<&'a str>,
    headers: Vec<Shown<'a>>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Authentication {
    #[component(name = "defer")]
    Defer,
    #[component(name = "identity")]
    Identity(Recognised),
    #[component(name = "deny")]
    Deny(String),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Access<'a> {
    identity: Option<Known<'a>>,
    action: &'a str,
    subject: &'a str,
    client: &'a str,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Authorization {
    #[component(name = "defer")]
    Defer,
    #[component(name = "allow")]
    Allow,
    #[component(name = "deny")]
    Deny(String),
}

impl Ask for AccessAuthenticate {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::AccessAuthenticate)
    }

    async fn ask(
        guest: &mut Guest,
        event: &LoginEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let login = Login {
            client: &event.client,
            username: event.username.as_deref(),
            password: event.password.as_deref(),
            database: event.database.as_deref(),
            headers: fields::shown(&event.headers),
        };
        let visit = enter(guest, about);
        let result: Result<Authentication, String> = guest.call(AUTHENTICATE, (visit, login)).await?;
        Ok(match said(result)? {
            Authentication::Defer => Verdict::pass(),
            Authentication::Identity(Recognised { user_id, username, roles, tenant_id }) => {
                Verdict::stop(LoginAnswer::Identity(Identity { user_id, username, roles, tenant_id }))
            }
            Authentication::Deny(message) => Verdict::stop(LoginAnswer::Deny(Denial { message })),
        })
    }
}

impl Ask for AccessAuthorize {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::AccessAuthorize)
    }

    async fn ask(
        guest: &mut Guest,
        event: &AccessEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let access = Access {
            identity: event.identity.as_ref().map(Known::from),
            action: &event.action,
            subject: &event.resource,
            client: &event.client,
        };
        let visit = enter(guest, about);
        let result: Result<Authorization, String> = guest.call(AUTHORIZE, (visit, access)).await?;
        Ok(match said(result)? {
            Authorization::Defer => Verdict::pass(),
            Authorization::Allow => Verdict::stop(AccessAnswer::Allow),
            Authorization::Deny(message) => Verdict::stop(AccessAnswer::Deny(Denial { message })),
        })
    }
}
