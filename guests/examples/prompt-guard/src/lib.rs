//! Blocks prompts that contain a known injection phrase, with 403 and the type `injection_detected`, and
//! requests that it cannot read.
//!
//! Speaks the LLMProxy protocol and knows nothing of Cardan. Config: `{"phrases": ["..."]}` adds phrases to
//! the built-in ones.

pub mod guard;

#[cfg(target_arch = "wasm32")]
mod plugin {
    use extism_pdk::{FnResult, Json, plugin_fn};

    use crate::guard::{Answer, judge};

    #[plugin_fn]
    pub fn handle(input: Vec<u8>) -> FnResult<Json<Answer>> {
        Ok(Json(judge(&input)))
    }
}
