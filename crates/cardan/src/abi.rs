//! The calling conventions: how bytes reach a guest and come back.
//!
//! Guests of core modules are instances of one kind, Extism's; other conventions of such modules are *lowered* to
//! it when they are loaded. Components are of another kind. This file is the only place that knows there is more
//! than one.

pub(crate) mod capability;
pub(crate) mod component;
pub(crate) mod extism;
mod imported;
mod lowering;
mod packed;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cardan_api::Fault;

use self::extism::{ImportKind, ModuleInspection, Vars};
use crate::Error;
use crate::dialect::Dialect;

pub(crate) use imported::Imported;
pub use lowering::ResultForm;

/// A calling convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abi {
    /// Extism 1.x: a kernel memory between host and guest, exports without parameters.
    Extism,
    /// A pointer and a length in, both in one `i64` out, in memory of the guest's `alloc`: HeliosProxy's.
    Packed,
    /// Tools that a guest exports, by name or behind one export: CortexPrism's.
    Capability,
    /// Components of the worlds that hosts ask at: SMG's, the vLLM router's, and Cardan's own.
    Component,
}

impl Abi {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Extism, Self::Packed, Self::Capability, Self::Component];

    /// The name in configuration, metrics and `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extism => "extism",
            Self::Packed => "packed",
            Self::Capability => "capability",
            Self::Component => "component",
        }
    }

    /// The dialect of the system that the convention was made for.
    pub(crate) fn native_dialect(self) -> Option<Dialect> {
        match self {
            Self::Extism | Self::Component => None,
            Self::Packed => Some(Dialect::HeliosProxy),
            Self::Capability => Some(Dialect::CortexPrism),
        }
    }

    /// What a core module is, by its imports and exports. One that says nothing is taken for Extism's; what is
    /// `implied` counts for more than its exports.
    pub(crate) fn recognise(module: &ModuleInspection, implied: Option<Self>) -> Self {
        if module.imports.iter().any(|(from, _, _)| from.starts_with("extism:host/")) {
            return Self::Extism;
        }
        if let Some(implied) = implied {
            return implied;
        }
        let types = module.function_types.iter().map(String::as_str);
        let exports: Vec<(&str, &str)> = module.functions.iter().map(String::as_str).zip(types).collect();
        let imports = module.imports.iter().map(|(from, name, _)| (from.as_str(), name.as_str()));
        let imports: Vec<(&str, &str)> = imports.collect();
        if packed::recognise(exports.iter().copied()) {
            Self::Packed
        } else if capability::recognise(&exports, &imports) {
            Self::Capability
        } else {
            Self::Extism
        }
    }

    /// What can be asked of a module with these exports: they, and what the convention answers in their place.
    pub(crate) fn entries(self, exports: &[String]) -> Vec<String> {
        let own = (self == Self::Capability).then(|| capability::LIST.to_owned());
        exports.iter().cloned().chain(own).collect()
    }

    /// Those of the [entries](Self::entries) that can say what they think.
    pub(crate) fn heard(self, module: &ModuleInspection) -> Vec<String> {
        if self != Self::Packed {
            return self.entries(&module.functions);
        }
        let typed = module.functions.iter().zip(&module.function_types);
        let answering = typed.filter(|(_, ty)| packed::ANSWERING.contains(&ty.as_str()));
        answering.map(|(name, _)| name.clone()).collect()
    }

    /// How guests become ones that are called as guests of Extism are; `None` for those that already are.
    pub(crate) fn lowering(self, forms: &BTreeMap<String, ResultForm>) -> Option<String> {
        (self != Self::Extism).then(|| format!("lowered {} {self:?} {forms:?}", lowering::VERSION))
    }

    /// Makes a guest one of those.
    pub(crate) fn lower(self, module: &[u8], forms: &BTreeMap<String, ResultForm>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Extism => Ok(module.to_owned()),
            Self::Component => Err(Error::format(component::MODULE_GIVEN)),
            Self::Packed => packed::lower(module),
            Self::Capability => capability::lower(module, forms),
        }
    }

    /// What an import means in this convention, where it means something of its own.
    pub(crate) fn imported(self, module: &str, name: &str, kind: &ImportKind) -> Option<Imported> {
        let rows = match self {
            Self::Extism | Self::Component => return None,
            Self::Packed => packed::IMPORTS,
            Self::Capability => capability::IMPORTS,
        };
        imported::find(rows, module, name, kind)
    }
}

/// Defines what lowered guests import for being called.
pub(crate) fn define_lowered(linker: &mut wasmtime::Linker<extism::State>) -> wasmtime::Result<()> {
    lowering::host::define(linker)
}

/// A linked plugin: instances come from here.
pub(crate) enum Template {
    Core(Box<extism::Template>),
    Component(component::Template),
}

/// A live instance.
pub(crate) enum Guest {
    Core(Box<extism::Guest>),
    Component(Box<component::Guest>),
}

impl Template {
    /// Whether `name` can be called with bytes.
    pub(crate) fn is_callable(&self, name: &str) -> bool {
        match self {
            Self::Core(template) => template.is_callable(name),
            Self::Component(_) => false,
        }
    }

    /// Whether one function answers for tools of any name, this one's among them.
    pub(crate) fn is_dispatched(&self, name: &str) -> bool {
        match self {
            Self::Core(template) => template.is_dispatched(name),
            Self::Component(_) => false,
        }
    }

    /// How many of the pool's instances one of ours takes.
    pub(crate) fn pool_slots(&self) -> u32 {
        match self {
            Self::Core(template) => template.pool_slots(),
            Self::Component(template) => template.pool_slots(),
        }
    }

    /// Whether instances can be put back to their beginning.
    pub(crate) fn rewinds(&self) -> bool {
        match self {
            Self::Core(template) => template.rewinds(),
            Self::Component(_) => false,
        }
    }

    /// Puts an instance back to where it was before its first call. To be asked only after calls that all went well.
    pub(crate) fn rewound(&self, guest: Guest) -> Option<Guest> {
        match (self, guest) {
            (Self::Core(template), Guest::Core(guest)) => {
                template.rewound(*guest).map(|guest| Guest::Core(Box::new(guest)))
            }
            _ => None,
        }
    }

    /// Makes an instance, with these variables where its convention has any.
    pub(crate) async fn instantiate(&self, vars: Arc<Vars>) -> Result<Guest, Error> {
        Ok(match self {
            Self::Core(template) => Guest::Core(Box::new(template.instantiate(vars).await?)),
            Self::Component(template) => Guest::Component(Box::new(template.instantiate().await?)),
        })
    }

    /// Tries what can be tried before the first call; then there is an instance, unless each call makes its own.
    pub(crate) fn command(&self) -> Option<&extism::Template> {
        match self {
            Self::Core(template) => Some(&**template).filter(|template| template.is_command()),
            Self::Component(_) => None,
        }
    }

    /// The template of a plugin whose functions are called with bytes.
    pub(crate) fn core(&self) -> Result<&extism::Template, Error> {
        match self {
            Self::Core(template) => Ok(template),
            Self::Component(_) => Err(not_called()),
        }
    }
}

impl Guest {
    /// Whether the next call needs another instance.
    pub(crate) fn is_spent(&self) -> bool {
        match self {
            Self::Core(guest) => guest.is_spent(),
            Self::Component(_) => false,
        }
    }

    /// Whether the instance had better not be shared any longer.
    pub(crate) fn is_worn(&self) -> bool {
        match self {
            Self::Core(guest) => guest.is_worn(),
            Self::Component(_) => false,
        }
    }

    /// The instance of a plugin whose functions are called with bytes.
    pub(crate) fn core(&mut self) -> Result<&mut extism::Guest, Error> {
        match self {
            Self::Core(guest) => Ok(guest),
            Self::Component(_) => Err(not_called()),
        }
    }

    /// The instance of a component.
    pub(crate) fn component(&mut self) -> Result<&mut component::Guest, Error> {
        match self {
            Self::Core(_) => Err(Error::host("the plugin is no component")),
            Self::Component(guest) => Ok(guest),
        }
    }
}

fn not_called() -> Error {
    Error::call(
        Fault::Protocol,
        "a component is asked at hooks: it has no functions that take bytes and return bytes",
    )
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Abi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|abi| abi.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{text:?} is no calling convention: {}", known.join(", "))
        })
    }
}
