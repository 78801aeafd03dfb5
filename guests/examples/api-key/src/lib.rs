//! Lets a request through when it carries a known API key, and says whose it is in the attribute `user`.
//! The headers with the key go no further: the upstream has its own.
//!
//! Config: `{"keys": {"sk-alice-1": "alice"}}`, from key to user.

pub mod check;

#[cfg(target_arch = "wasm32")]
mod plugin {
    use extism_pdk::{FnResult, Json, plugin_fn};

    use crate::check::{Event, Verdict, check};

    #[plugin_fn]
    pub fn http_request(Json(event): Json<Event>) -> FnResult<Json<Verdict>> {
        Ok(Json(check(&event)?))
    }
}
