//! The documents of a plugin's own life.

use cardan_api::lifecycle::{LifeEvent, LifeReason, LoadRefusal, PluginLoad, TickEvent};
use cardan_api::{Flow, Hook, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::{Circumstances, Malformed, write};
use super::verdict::VerdictDocument;

/// What a plugin is given at the hooks of its own life.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Cardan life document")]
pub(super) struct LifeDocument<'a> {
    /// The hook's name, for instance `plugin.load`.
    hook: &'static str,
    plugin: PluginDocument<'a>,
    /// Why now. Absent at `plugin.tick`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<LifeReason>,
    /// The plugin's configuration.
    config: &'a Value,
}

/// Which plugin is asked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Plugin")]
struct PluginDocument<'a> {
    /// The name it is deployed under.
    name: &'a str,
    /// Its author's version; empty where nobody said.
    version: &'a str,
}

pub(in super::super) fn encode<H: Hook>(
    event: &LifeEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let plugin = PluginDocument { name: &event.plugin, version: &event.version };
    let document = LifeDocument { hook: H::NAME, plugin, reason: Some(event.reason), config: about.config };
    write(&document, [])
}

pub(in super::super) fn encode_tick(
    event: &TickEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let plugin = PluginDocument { name: &event.plugin, version: &event.version };
    let hook = cardan_api::lifecycle::PluginTick::NAME;
    write(&LifeDocument { hook, plugin, reason: None, config: about.config }, [])
}

/// Continue, or refuse with a message.
pub(in super::super) fn decode_load(document: &[u8]) -> Result<Verdict<PluginLoad>, Malformed> {
    match VerdictDocument::read(document)? {
        VerdictDocument::Refuse { status: None, kind: None, sqlstate: None, message } => {
            Ok(Verdict::stop(LoadRefusal {
                message: message.unwrap_or_else(|| "it said no more than that".to_owned()),
            }))
        }
        VerdictDocument::Refuse { .. } => Err(Malformed(
            "plugin.load is refused with a message and nothing else: no client hears of it".to_owned(),
        )),
        other => plain(&other),
    }
}

/// Continue, where there is nothing else to say.
pub(in super::super) fn decode_done<H: Hook>(document: &[u8]) -> Result<Verdict<H>, Malformed> {
    plain(&VerdictDocument::read(document)?)
}

fn plain<H: Hook>(document: &VerdictDocument) -> Result<Verdict<H>, Malformed> {
    let name = H::NAME;
    match document {
        VerdictDocument::Continue { edits, attributes } => {
            if let Some(edits) = edits {
                edits.fit(name, &[])?;
            }
            if attributes.as_ref().is_some_and(|attributes| !attributes.is_empty()) {
                return Err(Malformed(format!("there is no visit at {name} to set attributes of")));
            }
            Ok(Verdict { flow: Flow::Continue, edits: H::Edits::default(), attributes: Default::default() })
        }
        VerdictDocument::Refuse { .. } => Err(Malformed(format!("there is nothing to refuse at {name}"))),
        VerdictDocument::Answer { .. } => Err(Malformed(format!("there is nothing to answer at {name}"))),
        VerdictDocument::Respond { .. } => Err(Malformed(format!("there is nobody to respond to at {name}"))),
    }
}
