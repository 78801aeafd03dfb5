//! Masks e-mail addresses, card numbers, phone numbers and US social security numbers in JSON requests and
//! in the answers to them. The attribute `pii_masked` counts what was masked in the visit.
//!
//! What it cannot read it refuses. Bind `http.response` with `on_fault: refuse`: the default there lets
//! answers pass unmasked when the plugin fails.

pub mod body;
pub mod scan;
pub mod stream;

#[cfg(target_arch = "wasm32")]
mod plugin {
    use extism_pdk::{FnResult, Json, plugin_fn};

    use crate::body::{Verdict, mask_answer, mask_request};

    #[plugin_fn]
    pub fn http_request(event: Vec<u8>) -> FnResult<Json<Verdict>> {
        Ok(Json(mask_request(&event)))
    }

    #[plugin_fn]
    pub fn http_response(event: Vec<u8>) -> FnResult<Json<Verdict>> {
        Ok(Json(mask_answer(&event)))
    }
}
