//! What is valid and probably not meant.

use cardan_api::http::{HttpRequest, HttpResponse};
use cardan_api::manifest::PluginEntry;
use cardan_api::{FaultPolicy, Hook as _, NamedHook};
use cardan_manager::Snapshot;

/// One sentence for each thing, about plugins that are loaded.
pub(crate) fn about(entries: &[PluginEntry], snapshot: &Snapshot) -> Vec<String> {
    let exported = |entry: &PluginEntry| {
        let plugin = snapshot.plugins().find(|plugin| **plugin.name() == *entry.name);
        plugin.map_or_else(Vec::new, |plugin| plugin.inspection().hooks.clone())
    };
    let open = entries.iter().filter(|entry| fails_open(entry, &exported(entry)));
    open.map(|entry| {
        format!(
            "plugin {}: when it fails, requests are refused, but answers pass without it, by the default of \
             http.response; write `on_fault: refuse` at that binding, or `on_fault: skip` if it is meant",
            entry.name
        )
    })
    .collect()
}

/// Whether a plugin that guards requests lets answers pass when it fails, without anybody having said so.
fn fails_open(entry: &PluginEntry, exported: &[&str]) -> bool {
    let default = |hook| NamedHook::find(hook).map(|info| info.on_fault);
    let open_by_default = default(HttpResponse::NAME) == Some(FaultPolicy::Skip);
    let (guards_requests, leaves_answers) = match &entry.bindings {
        None => (
            exported.contains(&HttpRequest::NAME) && default(HttpRequest::NAME) == Some(FaultPolicy::Refuse),
            exported.contains(&HttpResponse::NAME),
        ),
        Some(bindings) => {
            let mut at_request = bindings.iter().filter(|binding| binding.hook == HttpRequest::NAME);
            let mut at_response = bindings.iter().filter(|binding| binding.hook == HttpResponse::NAME);
            (
                at_request.any(|it| it.on_fault.or(default(HttpRequest::NAME)) == Some(FaultPolicy::Refuse)),
                at_response.any(|it| it.on_fault.is_none()),
            )
        }
    };
    open_by_default && guards_requests && leaves_answers
}
