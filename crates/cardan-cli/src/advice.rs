//! What is valid and probably not meant.

use cardan_api::http::{HttpRequest, HttpResponse};
use cardan_api::manifest::{BindingEntry, PluginEntry};
use cardan_api::{FaultPolicy, Hook as _, NamedHook};
use cardan_manager::{Bindings, PluginSpec, Snapshot};

/// One sentence for each thing, about plugins that are loaded. `entries` are those that the configuration itself
/// describes.
pub(crate) fn about(specs: &[PluginSpec], entries: &[PluginEntry], snapshot: &Snapshot) -> Vec<String> {
    let open = specs.iter().filter(|spec| {
        let plugin = snapshot.plugins().find(|plugin| **plugin.name() == *spec.name);
        let exported = plugin.map_or(&[][..], |plugin| &plugin.inspection().hooks);
        let entry = entries.iter().find(|entry| entry.name == spec.name);
        fails_open(spec, entry.and_then(|entry| entry.bindings.as_deref()), exported)
    });
    open.map(|spec| {
        format!(
            "plugin {}: when it fails, requests are refused, but answers pass without it, by the default of \
             http.response; write `on_fault: refuse` at that binding, or `on_fault: skip` if it is meant",
            spec.name
        )
    })
    .collect()
}

/// Whether a plugin that guards requests lets answers pass when it fails, without its operator having said so.
fn fails_open(spec: &PluginSpec, said: Option<&[BindingEntry]>, exported: &[&str]) -> bool {
    let default = |hook| NamedHook::find(hook).map(|info| info.on_fault);
    let open_by_default = default(HttpResponse::NAME) == Some(FaultPolicy::Skip);
    let (guards_requests, leaves_answers) = match (said, &spec.bindings) {
        (Some(bindings), _) => {
            let mut at_request = bindings.iter().filter(|binding| binding.hook == HttpRequest::NAME);
            let mut at_response = bindings.iter().filter(|binding| binding.hook == HttpResponse::NAME);
            (
                at_request.any(|it| it.on_fault.or(default(HttpRequest::NAME)) == Some(FaultPolicy::Refuse)),
                at_response.any(|it| it.on_fault.is_none()),
            )
        }
        (None, Bindings::Exported) => (
            exported.contains(&HttpRequest::NAME) && default(HttpRequest::NAME) == Some(FaultPolicy::Refuse),
            exported.contains(&HttpResponse::NAME),
        ),
        (None, Bindings::Listed(bindings)) => {
            let has = |hook, policy| bindings.iter().any(|it| it.hook.name == hook && it.on_fault == policy);
            (has(HttpRequest::NAME, FaultPolicy::Refuse), has(HttpResponse::NAME, FaultPolicy::Skip))
        }
    };
    open_by_default && guards_requests && leaves_answers
}
