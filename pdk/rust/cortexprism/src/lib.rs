//! CortexPrism's capabilities as its documents write them:
//!
//! ```
//! use cortexprism_wasm_sdk::{register_capability, CapabilityContext};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     text: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     length: usize,
//! }
//!
//! fn measure(input: Input, _ctx: CapabilityContext) -> Output {
//!     Output { length: input.text.len() }
//! }
//!
//! register_capability!("measure", measure);
//! # extern crate cardan_cortexprism_sdk as cortexprism_wasm_sdk;
//! # fn main() {}
//! ```
//!
//! In `Cargo.toml`: `cortexprism-wasm-sdk = { package = "cardan-cortexprism-sdk", path = "..." }`. A capability is an
//! export of its name: JSON arguments in, a pointer to JSON that ends in a NUL byte out. Arguments that are not what
//! it takes give `{"error": "..."}`.

use cardan_pdk::convention::prepare;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// What a capability knows beside its arguments.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CapabilityContext {}

impl CapabilityContext {
    /// A setting of the plugin.
    pub fn config(&self, key: &str) -> Option<String> {
        cardan_pdk::host_config::get(key)
    }

    /// A line for the plugin's log.
    pub fn log(&self, text: &str) {
        cardan_pdk::log::info(text);
    }

    /// What the plugin has kept under this key. Needs the grant `kv`.
    pub fn state(&self, key: &str) -> Option<Vec<u8>> {
        cardan_pdk::kv::get(key)
    }

    /// Keeps it. Needs the grant `kv`.
    pub fn set_state(&self, key: &str, value: &[u8]) {
        cardan_pdk::kv::set(key, value);
    }
}

/// Exports a function as the capability of this name. It takes the arguments, as any type that can be read, and
/// the context, and returns any type that can be written.
#[macro_export]
macro_rules! register_capability {
    ($name:literal, $capability:path) => {
        const _: () = {
            #[cfg(target_arch = "wasm32")]
            #[unsafe(export_name = $name)]
            unsafe extern "C" fn capability(input: *const u8, size: usize) -> *mut u8 {
                // SAFETY: the host has written `size` bytes there.
                unsafe { $crate::exports::export(input, size, |input| $crate::answer(input, $capability)) }
            }
            // On other machines nothing is exported, but what would be has to compile.
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn(&[u8]) -> $crate::Answer = |input| $crate::answer(input, $capability);
        };
    };
}

/// JSON, or why there is none.
#[doc(hidden)]
pub type Answer = cardan_pdk::Result<Vec<u8>>;

/// Calls a capability.
#[doc(hidden)]
pub fn answer<I: DeserializeOwned, O: Serialize>(
    input: &[u8],
    capability: impl FnOnce(I, CapabilityContext) -> O,
) -> Answer {
    prepare();
    let input = if input.trim_ascii().is_empty() { b"{}" } else { input };
    Ok(match serde_json::from_slice(input) {
        Ok(arguments) => serde_json::to_vec(&capability(arguments, CapabilityContext {}))?,
        Err(error) => serde_json::to_vec(&json!({ "error": format!("the arguments: {error}") }))?,
    })
}

/// What every plugin of this convention exports beside its capabilities.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod exports {
    pub use cardan_pdk::convention::export;
    use cardan_pdk::convention::{alloc as allocate, dealloc as deallocate};

    #[unsafe(no_mangle)]
    extern "C" fn alloc(size: usize) -> *mut u8 {
        allocate(size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn dealloc(at: *mut u8, _size: usize) {
        // SAFETY: the host gives back what it was given.
        unsafe { deallocate(at) }
    }
}
