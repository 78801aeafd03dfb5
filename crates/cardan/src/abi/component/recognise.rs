//! What a component is, read from its bytes alone.

use cardan_api::Capability;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

use crate::Error;

/// What a component's top level says about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Names of imported instances and functions.
    pub(crate) imports: Vec<String>,
    /// Names of exported instances and functions.
    pub(crate) exports: Vec<String>,
    /// Memories of its modules: first and greatest size in bytes.
    pub(crate) memories: Vec<(u64, Option<u64>)>,
    /// Those of the exports that hosts ask at, or that belong to the plugin's life.
    pub(crate) interfaces: Vec<Interface>,
}

impl Found {
    /// Names of the hooks that it can be asked at, and of those of its own life.
    pub(crate) fn hooks(&self) -> Vec<&'static str> {
        let mut hooks: Vec<_> = self.interfaces.iter().flat_map(|it| it.hooks()).copied().collect();
        hooks.sort_unstable();
        hooks.dedup();
        hooks
    }

    /// What its imports ask for. Files, environment and standard streams are not among it: toolchains import
    /// them whatever a guest does.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        use Capability as C;
        let asked = |name: &String| {
            let bare = name.split_once('@').map_or(name.as_str(), |(bare, _)| bare);
            let asked: &[Capability] = match bare {
                "cardan:plugin/log" => &[C::Log],
                "cardan:plugin/kv" => &[C::KvRead, C::KvWrite],
                "cardan:plugin/cache" => &[C::CacheRead, C::CacheWrite],
                "cardan:plugin/sql" => &[C::SqlRead],
                "cardan:plugin/http" => &[C::Http],
                "cardan:plugin/metrics" => &[C::Metrics],
                "cardan:plugin/secrets" => &[C::Secrets],
                "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => &[C::Clock],
                "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => &[C::Random],
                _ => &[],
            };
            asked.iter().copied()
        };
        let mut capabilities: Vec<Capability> = self.imports.iter().flat_map(asked).collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        capabilities
    }
}

/// An interface that a host asks plugins through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interface {
    SmgOnRequest,
    SmgOnResponse,
    SmgBefore,
    SmgAfter,
    VllmOnRequest,
    HttpRequest,
    HttpResponse,
    HttpComplete,
    HttpExchange,
    Life,
    Tick,
    Tools,
    AccessAuthenticate,
    AccessAuthorize,
    CacheGet,
    CacheSet,
    SqlQuery,
    SqlRoute,
    SqlResult,
}

/// The package of Cardan's own interfaces, and the versions of it that are spoken here: any that is compatible with
/// this one.
const CARDAN: &str = "cardan:plugin/";
const CARDAN_VERSION: [u64; 2] = [0, 1];
const CARDAN_NEWEST: &str = "0.1.0";

const VLLM: &str = "vllm:router-middleware/";

/// What is said where a core module was given.
pub(crate) const MODULE_GIVEN: &str = "expected a WebAssembly component but was given a core module: build it for \
     wasm32-wasip2, or make a component of it with `wasm-tools component new`";

/// Every interface by its name, without a version.
const INTERFACES: [(&str, Interface); 19] = {
    use Interface as I;
    [
        ("smg:gateway/middleware-on-request", I::SmgOnRequest),
        ("smg:gateway/middleware-on-response", I::SmgOnResponse),
        ("smg:storage/storage-hook-before", I::SmgBefore),
        ("smg:storage/storage-hook-after", I::SmgAfter),
        ("vllm:router-middleware/on-request", I::VllmOnRequest),
        ("cardan:plugin/http-request", I::HttpRequest),
        ("cardan:plugin/http-response", I::HttpResponse),
        ("cardan:plugin/http-complete", I::HttpComplete),
        ("cardan:plugin/http-exchange", I::HttpExchange),
        ("cardan:plugin/life", I::Life),
        ("cardan:plugin/tick", I::Tick),
        ("cardan:plugin/tools", I::Tools),
        ("cardan:plugin/access-authenticate", I::AccessAuthenticate),
        ("cardan:plugin/access-authorize", I::AccessAuthorize),
        ("cardan:plugin/cache-get", I::CacheGet),
        ("cardan:plugin/cache-set", I::CacheSet),
        ("cardan:plugin/sql-query", I::SqlQuery),
        ("cardan:plugin/sql-route", I::SqlRoute),
        ("cardan:plugin/sql-result", I::SqlResult),
    ]
};

impl Interface {
    /// The interface that an export's name means.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let bare = name.split_once('@').map_or(name, |(bare, _)| bare);
        INTERFACES.iter().find(|(known, _)| *known == bare).map(|(_, interface)| *interface)
    }

    /// The hooks that it answers.
    fn hooks(self) -> &'static [&'static str] {
        match self {
            Self::SmgOnRequest | Self::VllmOnRequest | Self::HttpRequest => &["http.request"],
            Self::SmgOnResponse | Self::HttpResponse => &["http.response"],
            Self::SmgBefore => &["storage.before"],
            Self::SmgAfter => &["storage.after"],
            Self::HttpComplete => &["http.complete"],
            Self::HttpExchange => &["http.request", "http.response", "http.complete"],
            Self::Life => &["plugin.load", "plugin.unload"],
            Self::Tick => &["plugin.tick"],
            Self::Tools => &["tool.list", "tool.call"],
            Self::AccessAuthenticate => &["access.authenticate"],
            Self::AccessAuthorize => &["access.authorize"],
            Self::CacheGet => &["cache.get"],
            Self::CacheSet => &["cache.set"],
            Self::SqlQuery => &["sql.query"],
            Self::SqlRoute => &["sql.route"],
            Self::SqlResult => &["sql.result"],
        }
    }

    /// Its name, as far as it is the same in all versions.
    pub(crate) fn name(self) -> &'static str {
        INTERFACES.iter().find(|(_, interface)| *interface == self).map_or("", |(name, _)| name)
    }
}

/// Reads what a component imports and exports, and refuses what is none or what nobody here can ask. It
/// need not be valid for that.
pub(crate) fn recognise(bytes: &[u8]) -> Result<Found, Error> {
    if !Parser::is_component(bytes) {
        return Err(Error::format(if Parser::is_core_wasm(bytes) {
            MODULE_GIVEN
        } else {
            "this is no WebAssembly component"
        }));
    }
    let mut found = read(bytes).map_err(|error| Error::format(error.to_string()))?;
    for name in found.imports.iter().chain(&found.exports) {
        check_version(name)?;
    }
    for name in &found.exports {
        match Interface::named(name) {
            Some(interface) => found.interfaces.push(interface),
            None if name.starts_with(CARDAN) => {
                return Err(Error::link(format!(
                    "it exports {name}, which this Cardan does not know: use a newer one"
                )));
            }
            None => {}
        }
    }
    for (at, interface) in found.interfaces.iter().enumerate() {
        let shared = |other: &&Interface| other.hooks().iter().any(|hook| interface.hooks().contains(hook));
        if let Some(other) = found.interfaces[..at].iter().find(shared) {
            return Err(Error::link(format!(
                "it answers the same hook by {} and by {}: one of them would never be asked",
                other.name(),
                interface.name()
            )));
        }
    }
    if found.interfaces.is_empty() {
        let exports = if found.exports.is_empty() { "nothing".to_owned() } else { found.exports.join(", ") };
        return Err(Error::format(format!(
            "the component is of no world that can be asked here: it exports {exports}, and none of the interfaces of \
             smg:gateway, smg:storage, vllm:router-middleware and cardan:plugin"
        )));
    }
    Ok(found)
}

fn read(bytes: &[u8]) -> wasmparser::Result<Found> {
    let mut found = Found::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && encoding != Encoding::Component {
                    return Ok(found);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page_bytes = 1 << memory.page_size_log2.unwrap_or(16).min(16);
                    let bytes = |pages: u64| pages.saturating_mul(page_bytes);
                    found.memories.push((bytes(memory.initial), memory.maximum.map(bytes)));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import?;
                    if matches!(import.ty, ComponentTypeRef::Instance(_) | ComponentTypeRef::Func(_)) {
                        found.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Refuses versions of known packages that are not spoken here.
fn check_version(name: &str) -> Result<(), Error> {
    let version = name.split_once('@').map(|(_, version)| version);
    if name.starts_with(CARDAN) {
        let numbers: Vec<u64> =
            version.unwrap_or_default().split('.').map_while(|number| number.parse().ok()).collect();
        if numbers.get(..2) == Some(&CARDAN_VERSION) && numbers.len() == 3 {
            return Ok(());
        }
        let which = version.map_or("no version".to_owned(), |version| format!("version {version}"));
        return Err(Error::link(format!(
            "it is built against {which} of cardan:plugin, and this Cardan speaks {CARDAN_NEWEST}: use a Cardan that \
             speaks both, or build it against {CARDAN_NEWEST}"
        )));
    }
    if let Some(version) = version.filter(|_| name.starts_with("smg:")) {
        return Err(Error::link(format!(
            "it names {name}: what is known here of SMG's packages has no version, and nothing of {version}"
        )));
    }
    if name.starts_with(VLLM) && version.is_none_or(|version| !version.starts_with("0.1.")) {
        return Err(Error::link(format!(
            "it names {name}, and of vllm:router-middleware version 0.1.0 is known here"
        )));
    }
    Ok(())
}
