//! `on_load`. What it is given is what Cardan's own `plugin_load` is.

use cardan_api::Verdict;
use cardan_api::lifecycle::{LifeEvent, LoadRefusal, PluginLoad};

use super::super::Malformed;
use super::super::fields::Fields;
use super::{BLOCKED, Decision};

/// Nothing, `null` or `true`, the `Ok` and `Err` of a Rust result, or a decision.
pub(in super::super) fn decode_load(
    _event: &LifeEvent,
    document: &[u8],
) -> Result<Verdict<PluginLoad>, Malformed> {
    if ["", "null", "true"].contains(&std::str::from_utf8(document.trim_ascii()).unwrap_or("?")) {
        return Ok(Verdict::pass());
    }
    let fields = Fields::read(document, "the output")?;
    if let Some(why) = fields.get("Err").or_else(|| fields.get("error")) {
        let text = serde_json::from_str(why.get()).unwrap_or_else(|_| why.get().to_owned());
        return Ok(refused(text));
    }
    if fields.0.contains_key("Ok") {
        return Ok(Verdict::pass());
    }
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    match decision.word.as_str() {
        "continue" => Ok(Verdict::pass()),
        "block" => Ok(refused(decision.reason(&["value", "reason"])?)),
        _ => Err(decision.unknown()),
    }
}

pub(in super::super) fn load_code(words: Option<&str>) -> Verdict<PluginLoad> {
    refused(words.unwrap_or(BLOCKED).to_owned())
}

fn refused(message: String) -> Verdict<PluginLoad> {
    Verdict::stop(LoadRefusal { message })
}
