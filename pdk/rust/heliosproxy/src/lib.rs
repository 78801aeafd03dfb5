//! HeliosProxy's plugins as its documents write them, over the packed convention.
//!
//! In `Cargo.toml`: `heliosproxy-plugin-sdk = { package = "cardan-heliosproxy-sdk", path = "..." }`. Then a module of
//! functions with the hooks' names, and one line above it:
//!
//! ```
//! # extern crate cardan_heliosproxy_sdk as heliosproxy_plugin_sdk;
//! #[heliosproxy_plugin_sdk::plugin]
//! mod my_custom_auth {
//!     use heliosproxy_plugin_sdk::*;
//!
//!     #[no_mangle]
//!     pub fn authenticate(request: &AuthRequest) -> AuthResult {
//!         let token = request.header("X-Custom-Token")?;
//!         let response = http_fetch("https://auth.internal/validate", &token)?;
//!         if response.status == 200 {
//!             AuthResult::Success(Identity {
//!                 user_id: response.body["user_id"].clone(),
//!                 roles: response.body["roles"].clone(),
//!             })
//!         } else {
//!             AuthResult::Denied("Invalid token")
//!         }
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! or a type with the traits, and `export!(Type: pre_query, cache_key)`.

mod hooks;
mod host;
mod run;
mod types;

pub use cardan_heliosproxy_sdk_macros::plugin;
pub use hooks::{
    AuthenticateHook, AuthorizeHook, CacheHook, HeliosPlugin, MetricsHook, PostQueryHook, PreQueryHook,
    RewriteHook, RouteHook,
};
pub use host::{
    FetchResponse, cache_get, cache_set, execute_query, http_fetch, kv_delete, kv_get, kv_set, log,
    metric_inc, sha256_hex,
};
pub use serde_json::{Value, json};
pub use types::{
    AuthError, AuthOutcome, AuthRequest, AuthResult, AuthorizeRequest, AuthorizeResult, HookContext,
    HookType, Identity, LogLevel, Permission, PluginError, PluginMetadata, PreQueryResult, QueryContext,
    QueryResult, RouteResult,
};

/// What `export!` and `#[plugin]` are made of.
#[doc(hidden)]
pub mod exports {
    pub use cardan_pdk::convention::prepare;
    #[cfg(target_arch = "wasm32")]
    pub use cardan_pdk::convention::{alloc, dealloc, export};

    pub use crate::run::*;
}

/// Exports what every plugin exports.
#[doc(hidden)]
#[macro_export]
macro_rules! export_memory {
    () => {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn alloc(size: usize) -> *mut u8 {
            $crate::exports::alloc(size)
        }

        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn dealloc(at: *mut u8, size: usize) {
            // SAFETY: the host gives back what it was given.
            unsafe { $crate::exports::dealloc(at, size) }
        }
    };
}

/// Exports one function under the name that hosts know.
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    (cache_key, $function:expr) => {
        $crate::export_hook!(@ cache_get, cache_key, $function);
    };
    (should_cache, $function:expr) => {
        $crate::export_hook!(@ cache_set, should_cache, $function);
    };
    ($hook:ident, $function:expr) => {
        $crate::export_hook!(@ $hook, $hook, $function);
    };
    (@ $export:ident, $hook:ident, $function:expr) => {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $export(input: *const u8, size: usize) -> u64 {
            // SAFETY: the host has written `size` bytes there.
            unsafe { $crate::exports::export(input, size, |input| $crate::exports::$hook(input, $function)) }
        }
        // On other machines nothing is exported, but what would be has to compile.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&[u8]) -> $crate::exports::Answer = |input| $crate::exports::$hook(input, $function);
    };
}

/// Exports the hooks of a type that has the traits. `metadata`, `on_load` and `on_unload` are always exported.
#[macro_export]
macro_rules! export {
    ($plugin:ident : $($hook:ident),+ $(,)?) => {
        const _: () = {
            #[allow(unused_imports, reason = "some of them have the hooks of this plugin")]
            use $crate::{
                AuthenticateHook as _, AuthorizeHook as _, CacheHook as _, HeliosPlugin as _, MetricsHook as _,
                PostQueryHook as _, PreQueryHook as _, RewriteHook as _, RouteHook as _,
            };
            $crate::export_memory!();
            $crate::export_hook!(metadata, <$plugin>::metadata);
            $crate::export_hook!(on_load, <$plugin>::on_load);
            $crate::export_hook!(on_unload, <$plugin>::on_unload);
            $($crate::export_hook!($hook, <$plugin>::$hook);)+
        };
    };
}
