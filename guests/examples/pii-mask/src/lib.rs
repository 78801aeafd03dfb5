//! Masks e-mail addresses, card numbers, phone numbers and US social security numbers in the messages of
//! chat requests and in the answers to them. The attribute `pii_masked` counts what was masked in the visit.

pub mod chat;
pub mod scan;

#[cfg(target_arch = "wasm32")]
mod plugin {
    use extism_pdk::{FnResult, Json, plugin_fn};

    use crate::chat::{Event, Verdict, mask_answer, mask_request};

    #[plugin_fn]
    pub fn http_request(Json(event): Json<Event>) -> FnResult<Json<Verdict>> {
        Ok(Json(mask_request(event)))
    }

    #[plugin_fn]
    pub fn http_response(Json(event): Json<Event>) -> FnResult<Json<Verdict>> {
        Ok(Json(mask_answer(event)))
    }
}
