//! Which dialect has what to say at which hook: a row for each pair.

use std::fmt;

use cardan_api::access::{AccessAuthenticate, AccessAuthorize};
use cardan_api::cache::{CacheGet, CacheSet};
use cardan_api::http::{HttpComplete, HttpRequest, HttpResponse};
use cardan_api::lifecycle::{PluginLoad, PluginTick, PluginUnload};
use cardan_api::sql::{SqlQuery, SqlResult, SqlRoute};
use cardan_api::storage::{StorageAfter, StorageBefore};
use cardan_api::tool::{ToolCall, ToolList};
use cardan_api::{Hook, Verdict};

use crate::abi::component::Ask;

use super::{Circumstances, Dialect, Malformed, cardan, cortexprism, heliosproxy, llmproxy};

#[cfg(test)]
mod tests;

/// A hook that plugins can be asked at: one that dialects have documents for, or components an interface.
pub trait Spoken: Hook + Ask {
    /// What each dialect has to say here; none for one that has nothing.
    const ROWS: &'static [Row<Self>];

    /// Which exports answer this hook.
    fn entries(dialect: Dialect) -> Entries {
        row::<Self>(dialect).map_or(Entries::NONE, |row| row.entries)
    }

    /// The export that this very event is for, where the dialect has one for each name in events.
    fn entry_of(dialect: Dialect, event: &Self::Event) -> Option<&str> {
        row::<Self>(dialect)?.entry_of.map(|entry_of| entry_of(event))
    }

    /// The document a plugin is given.
    ///
    /// # Errors
    ///
    /// When the dialect cannot say it, for instance a body that is no JSON.
    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        (row::<Self>(dialect).ok_or_else(|| unspoken::<Self>(dialect))?.encode)(event, about)
    }

    /// The verdict a plugin's document means.
    ///
    /// # Errors
    ///
    /// When it is not what the dialect requires.
    fn decode(dialect: Dialect, event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        (row::<Self>(dialect).ok_or_else(|| unspoken::<Self>(dialect))?.decode)(event, document)
    }

    /// The verdict a plugin means that answers with a number other than 0 and perhaps with some words, in
    /// conventions that allow it. `None` where the dialect has no such answers: it has failed then.
    fn decode_code(dialect: Dialect, words: Option<&str>) -> Option<Verdict<Self>> {
        row::<Self>(dialect)?.decode_code.map(|decode_code| decode_code(words))
    }
}

/// Writes a document.
type Encode<H> = fn(&<H as Hook>::Event, Circumstances<'_>) -> Result<Vec<u8>, Malformed>;
/// Reads a verdict.
type Decode<H> = fn(&<H as Hook>::Event, &[u8]) -> Result<Verdict<H>, Malformed>;
/// Reads a verdict that is a number, and perhaps some words.
type DecodeCode<H> = fn(Option<&str>) -> Verdict<H>;

/// What one dialect has to say at one hook.
pub struct Row<H: Hook> {
    pub(super) dialect: Dialect,
    entries: Entries,
    encode: Encode<H>,
    decode: Decode<H>,
    entry_of: Option<fn(&H::Event) -> &str>,
    decode_code: Option<DecodeCode<H>>,
}

impl<H: Hook> fmt::Debug for Row<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("hook", &H::NAME)
            .field("dialect", &self.dialect)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<H: Hook> Row<H> {
    const fn new(
        dialect: Dialect,
        names: &'static [&'static str],
        encode: Encode<H>,
        decode: Decode<H>,
    ) -> Self {
        let entries = Entries { names, ..Entries::NONE };
        Self { dialect, entries, encode, decode, entry_of: None, decode_code: None }
    }

    /// Exports that are asked as well.
    const fn and(self, further: &'static [&'static str]) -> Self {
        Self { entries: Entries { further, ..self.entries }, ..self }
    }

    /// Every export that `fits` answers events that name it.
    const fn or_named(self, fits: fn(&str) -> bool, entry_of: fn(&H::Event) -> &str) -> Self {
        Self { entries: Entries { fits: Some(fits), ..self.entries }, entry_of: Some(entry_of), ..self }
    }

    /// Answers may be numbers.
    const fn or_code(self, decode_code: DecodeCode<H>) -> Self {
        Self { decode_code: Some(decode_code), ..self }
    }
}

/// Which exports answer a hook in a dialect.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    /// In order of preference: the first one that is there is asked.
    names: &'static [&'static str],
    /// Each of these is asked as well, after it.
    further: &'static [&'static str],
    /// Exports whose names are up to the plugin's author.
    fits: Option<fn(&str) -> bool>,
}

impl Entries {
    const NONE: Self = Self { names: &[], further: &[], fits: None };

    /// The exports that are asked, one after another, of those that `is_there`.
    pub fn asked(self, is_there: impl Fn(&str) -> bool) -> impl Iterator<Item = &'static str> {
        let there = |entry: &&'static str| is_there(entry);
        let first = self.names.iter().copied().find(there);
        let further: Vec<_> = self.further.iter().copied().filter(there).collect();
        first.into_iter().chain(further)
    }

    fn answered_by<'a>(self, mut exports: impl Iterator<Item = &'a str>) -> bool {
        exports.any(|export| {
            self.names.contains(&export)
                || self.further.contains(&export)
                || self.fits.is_some_and(|fits| fits(export))
        })
    }

    /// Whether one of these exports has a name that the dialect has given it.
    fn names_any<'a>(self, exports: impl Iterator<Item = &'a str>) -> bool {
        Self { fits: None, ..self }.answered_by(exports)
    }
}

fn row<H: Spoken>(dialect: Dialect) -> Option<&'static Row<H>> {
    H::ROWS.iter().find(|row| row.dialect == dialect)
}

/// For hooks that a dialect has no documents for, where configuration names an export all the same.
fn unspoken<H: Hook>(dialect: Dialect) -> Malformed {
    Malformed(format!("the dialect {dialect} has no document for the hook {}", H::NAME))
}

/// A hook's name, and how to find out who answers it.
type Listed = (&'static str, fn(Dialect) -> Entries);

/// Every hook there are documents for.
static SPOKEN: [Listed; 15] = [
    listed::<HttpRequest>(),
    listed::<HttpResponse>(),
    listed::<HttpComplete>(),
    listed::<AccessAuthenticate>(),
    listed::<AccessAuthorize>(),
    listed::<CacheGet>(),
    listed::<CacheSet>(),
    listed::<SqlQuery>(),
    listed::<SqlRoute>(),
    listed::<SqlResult>(),
    listed::<ToolList>(),
    listed::<ToolCall>(),
    listed::<PluginLoad>(),
    listed::<PluginUnload>(),
    listed::<PluginTick>(),
];

const fn listed<H: Spoken>() -> Listed {
    (H::NAME, H::entries)
}

/// Names of the hooks that a plugin with these exports answers.
pub(crate) fn answered(dialect: Dialect, exports: &[String]) -> impl Iterator<Item = &'static str> {
    let answers = move |(name, entries): &Listed| {
        entries(dialect).answered_by(exports.iter().map(String::as_str)).then_some(*name)
    };
    SPOKEN.iter().filter_map(answers)
}

/// Which exports answer the hook of this name.
pub(crate) fn entries_at(dialect: Dialect, hook: &str) -> Option<Entries> {
    SPOKEN.iter().find(|(name, _)| *name == hook).map(|(_, entries)| entries(dialect))
}

/// Hooks whose exports other systems may have under the same name, or that say nothing about the rest.
const VAGUE: [&str; 5] =
    [CacheGet::NAME, CacheSet::NAME, PluginLoad::NAME, PluginUnload::NAME, PluginTick::NAME];

/// The dialect whose exports these are, if they are any's. `native` is the one of the system that the module's
/// convention was made for. Cardan's own wins, then the native one.
pub(crate) fn recognise<'a>(
    exports: impl Iterator<Item = &'a str> + Clone,
    native: Option<Dialect>,
) -> Option<Dialect> {
    let any = |dialect: Dialect, is_vague: bool| {
        let mut hooks = SPOKEN.iter().filter(|(name, _)| VAGUE.contains(name) == is_vague);
        hooks.any(|(_, entries)| entries(dialect).names_any(exports.clone()))
    };
    let named =
        |dialects: &[Dialect], is_vague| dialects.iter().copied().find(|dialect| any(*dialect, is_vague));
    let native: Vec<Dialect> = native.into_iter().collect();
    named(&[Dialect::Cardan], false)
        .or_else(|| named(&native, false))
        .or_else(|| named(&Dialect::ALL, false))
        .or_else(|| named(&native, true))
        .or_else(|| named(&Dialect::ALL, true))
        // What its exports are called is up to their author.
        .or_else(|| native.into_iter().find(|dialect| *dialect == Dialect::CortexPrism))
}

impl Spoken for HttpRequest {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::REQUEST],
            cardan::http::encode_request,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(Dialect::LlmProxy, &llmproxy::ENTRIES, llmproxy::encode_request, llmproxy::decode_request),
    ];
}

impl Spoken for HttpResponse {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::RESPONSE],
            cardan::http::encode_response,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(Dialect::LlmProxy, &llmproxy::ENTRIES, llmproxy::encode_response, llmproxy::decode_response),
    ];
}

impl Spoken for HttpComplete {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::COMPLETE],
            cardan::http::encode_complete,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(Dialect::LlmProxy, &llmproxy::ENTRIES, llmproxy::encode_complete, |_, document| {
            llmproxy::decode_complete(document)
        }),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::METRICS],
            heliosproxy::encode_complete,
            heliosproxy::observed,
        ),
    ];
}

impl Spoken for AccessAuthenticate {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::AUTHENTICATE],
            cardan::access::encode_login,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::AUTHENTICATE],
            heliosproxy::access::encode_login,
            heliosproxy::access::decode_login,
        )
        .or_code(heliosproxy::access::login_code),
    ];
}

impl Spoken for AccessAuthorize {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::AUTHORIZE],
            cardan::access::encode_access,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::AUTHORIZE],
            heliosproxy::access::encode_access,
            heliosproxy::access::decode_access,
        )
        .or_code(heliosproxy::access::access_code),
    ];
}

impl Spoken for CacheGet {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(Dialect::Cardan, &[cardan::CACHE_GET], cardan::cache::encode_get, cardan::cache::decode_get),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::CACHE_GET],
            heliosproxy::cache::encode_get,
            heliosproxy::cache::decode_get,
        )
        .or_code(heliosproxy::cache::get_code),
    ];
}

impl Spoken for CacheSet {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::CACHE_SET],
            cardan::cache::encode_set,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::CACHE_SET],
            heliosproxy::cache::encode_set,
            heliosproxy::cache::decode_set,
        )
        .or_code(heliosproxy::cache::set_code),
    ];
}

impl Spoken for SqlQuery {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::QUERY],
            cardan::sql::encode_query,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::PRE_QUERY],
            heliosproxy::sql::encode_query,
            heliosproxy::sql::decode_query,
        )
        .and(&[heliosproxy::REWRITE])
        .or_code(heliosproxy::sql::query_code),
    ];
}

impl Spoken for SqlRoute {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(Dialect::Cardan, &[cardan::ROUTE], cardan::sql::encode_route, cardan::sql::decode_route),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::ROUTE],
            heliosproxy::sql::encode_route,
            heliosproxy::sql::decode_route,
        )
        .or_code(heliosproxy::sql::route_code),
    ];
}

impl Spoken for SqlResult {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::RESULT],
            cardan::sql::encode_result,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::POST_QUERY],
            heliosproxy::sql::encode_result,
            heliosproxy::observed,
        )
        .and(&[heliosproxy::METRICS]),
    ];
}

impl Spoken for ToolList {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::TOOL_LIST],
            cardan::tool::encode_list,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::LIST_TOOLS],
            heliosproxy::tool::encode_list,
            heliosproxy::tool::decode_list,
        ),
        Row::new(
            Dialect::CortexPrism,
            &[cortexprism::CAPABILITIES],
            cortexprism::encode_nothing::<Self>,
            cortexprism::decode_list,
        ),
    ];
}

impl Spoken for ToolCall {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(
            Dialect::Cardan,
            &[cardan::TOOL_CALL],
            cardan::tool::encode_call,
            cardan::verdict::decode::<Self>,
        ),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::EXECUTE_TOOL],
            heliosproxy::tool::encode_call,
            heliosproxy::tool::decode_call,
        ),
        Row::new(
            Dialect::CortexPrism,
            &[cortexprism::EXECUTE],
            cortexprism::encode_call,
            cortexprism::decode_call,
        )
        .or_named(cortexprism::is_tool, |event| &event.tool)
        .or_code(cortexprism::call_code),
    ];
}

/// SMG's, which come as components.
impl Spoken for StorageBefore {
    const ROWS: &'static [Row<Self>] = &[];
}

impl Spoken for StorageAfter {
    const ROWS: &'static [Row<Self>] = &[];
}

impl Spoken for PluginLoad {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(Dialect::Cardan, &[cardan::LOAD], cardan::life::encode::<Self>, |_, document| {
            cardan::life::decode_load(document)
        }),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::ON_LOAD],
            cardan::life::encode::<Self>,
            heliosproxy::life::decode_load,
        )
        .or_code(heliosproxy::life::load_code),
    ];
}

impl Spoken for PluginUnload {
    const ROWS: &'static [Row<Self>] = &[
        Row::new(Dialect::Cardan, &[cardan::UNLOAD], cardan::life::encode::<Self>, |_, document| {
            cardan::life::decode_done(document)
        }),
        Row::new(
            Dialect::HeliosProxy,
            &[heliosproxy::ON_UNLOAD],
            cardan::life::encode::<Self>,
            heliosproxy::observed,
        ),
        Row::new(
            Dialect::CortexPrism,
            &[cortexprism::DESTROY],
            cortexprism::encode_nothing::<Self>,
            |_, _| Ok(Verdict::pass()),
        ),
    ];
}

impl Spoken for PluginTick {
    const ROWS: &'static [Row<Self>] =
        &[Row::new(Dialect::Cardan, &[cardan::TICK], cardan::life::encode_tick, |_, document| {
            cardan::life::decode_done(document)
        })];
}
