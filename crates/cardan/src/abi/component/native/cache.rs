//! `cache-get` and `cache-set`.

use bytes::Bytes;
use cardan_api::Verdict;
use cardan_api::cache::{
    CacheAnswer, CacheGet, CacheGetEdits, CacheGetEvent, CacheSet, CacheSetEdits, CacheSetEvent,
    CacheSubject, NotKept,
};
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::http::Request;
use super::sql::Query;
use super::{Ask, Circumstances, Entry, Failure, Guest, Interface, Visit, enter, said};
use crate::dialect::check_hit;

const GET: Entry = Entry::new::<(Resource<Visit>, &'static str, Subject<'static>), (Result<Lookup, String>,)>(
    Interface::CacheGet,
    "on-get",
);
const SET: Entry = Entry::new::<(Resource<Visit>, Offer<'static>), (Result<Admission, String>,)>(
    Interface::CacheSet,
    "on-set",
);

pub(super) const ENTRIES: [Entry; 2] = [GET, SET];

#[derive(ComponentType, Lower)]
#[component(variant)]
enum Subject<'a> {
    #[component(name = "query")]
    Query(Query<'a>),
    #[component(name = "request")]
    Request(Request<'a>),
}

impl<'a> Subject<'a> {
    fn of(subject: &'a CacheSubject, about: Circumstances<'_>) -> Self {
        match subject {
            CacheSubject::Query(query) => Self::Query(query.into()),
            CacheSubject::Request(request) => Self::Request(Request::of(request, about)),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Lookup {
    #[component(name = "continue")]
    Continue,
    #[component(name = "key")]
    Key(String),
    #[component(name = "hit")]
    Hit(Vec<u8>),
    #[component(name = "skip")]
    Skip,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Offer<'a> {
    key: &'a str,
    subject: Subject<'a>,
    #[component(name = "ttl-ms")]
    ttl_ms: Option<u64>,
    #[component(name = "value-bytes")]
    value_bytes: u64,
    value: Option<&'a [u8]>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Changes {
    key: Option<String>,
    #[component(name = "ttl-ms")]
    ttl_ms: Option<u64>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Admission {
    #[component(name = "keep")]
    Keep(Changes),
    #[component(name = "skip")]
    Skip,
}

impl Ask for CacheGet {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::CacheGet)
    }

    async fn ask(
        guest: &mut Guest,
        event: &CacheGetEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let visit = enter(guest, about);
        let params = (visit, &*event.key, Subject::of(&event.subject, about));
        let result: Result<Lookup, String> = guest.call(GET, params).await?;
        Ok(match said(result)? {
            Lookup::Continue => Verdict::pass(),
            Lookup::Key(key) => Verdict::edit(CacheGetEdits { key: Some(key) }),
            Lookup::Hit(value) => {
                check_hit(&event.subject, &value)?;
                Verdict::stop(CacheAnswer::Hit(value.into()))
            }
            Lookup::Skip => Verdict::stop(CacheAnswer::Skip),
        })
    }
}

impl Ask for CacheSet {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::CacheSet)
    }

    async fn ask(
        guest: &mut Guest,
        event: &CacheSetEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let offer = Offer {
            key: &event.key,
            subject: Subject::of(&event.subject, about),
            ttl_ms: event.ttl_ms,
            value_bytes: event.value_bytes,
            value: about.shown(event.value.as_ref()).map(Bytes::as_ref),
        };
        let visit = enter(guest, about);
        let result: Result<Admission, String> = guest.call(SET, (visit, offer)).await?;
        Ok(match said(result)? {
            Admission::Keep(Changes { key, ttl_ms }) => Verdict::edit(CacheSetEdits { key, ttl_ms }),
            Admission::Skip => Verdict::stop(NotKept),
        })
    }
}
