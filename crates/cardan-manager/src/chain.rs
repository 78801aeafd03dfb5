//! The compiled order of bindings at one hook.

use std::marker::PhantomData;
use std::sync::Arc;

use cardan::dialect::Spoken;
use cardan::{Abi, Plugin};
use cardan_api::http::{HeaderEdit, HttpAnswer, HttpComplete, HttpRequest, HttpResponse};
use cardan_api::{Flow, Hook, NamedHook, Verdict};

use crate::installed::Installed;
use crate::rule::{Remembered, Subject};
use crate::seat::Seat;
use crate::spec::{BindingSpec, Bindings};
use crate::version::Version;

/// One plugin at one hook, loaded.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) plugin: Arc<Installed>,
    pub(crate) spec: BindingSpec,
}

/// Where a plugin is asked, as its spec or its exports say.
pub(crate) fn bindings(version: &Version) -> Result<Vec<BindingSpec>, String> {
    let plugin = version.plugin();
    let hooks = &plugin.inspection().hooks;
    let specs: Vec<BindingSpec> = match &version.spec.bindings {
        Bindings::Exported if hooks.is_empty() => {
            return Err(format!(
                "it has no export that any hook could be asked at; its exports are {}. \
                 Name one with `bindings: [{{hook: ..., entry: ...}}]` and a `dialect`",
                plugin.inspection().exports.join(", ")
            ));
        }
        Bindings::Exported => {
            let hooks = hooks.iter().filter_map(|hook| NamedHook::find(hook));
            hooks.flat_map(|hook| exported(plugin, hook)).collect()
        }
        Bindings::Listed(specs) => specs.clone(),
    };
    answers(plugin, &specs)?;
    Ok(specs)
}

/// A plugin's bindings at one hook: a dialect may have several exports for it, each with its own say.
fn exported(plugin: &Plugin, hook: &'static NamedHook) -> impl Iterator<Item = BindingSpec> {
    let further = plugin.entries_at(hook.name).into_iter().skip(1);
    let further =
        further.map(move |entry| BindingSpec { entry: Some(entry.to_owned()), ..BindingSpec::at(hook) });
    std::iter::once(BindingSpec::at(hook)).chain(further)
}

/// Whether a plugin has an export for every one of these bindings.
pub(crate) fn answers(plugin: &Plugin, bindings: &[BindingSpec]) -> Result<(), String> {
    let hooks = &plugin.inspection().hooks;
    for spec in bindings {
        if plugin.dialect().is_none() && plugin.inspection().abi != Abi::Component {
            return Err("its exports are of no known dialect; name one with `dialect`".to_owned());
        }
        let answered = match &spec.entry {
            Some(entry) => plugin.can_call(entry),
            None => hooks.contains(&spec.hook.name),
        };
        if !answered {
            let wanted = spec.entry.as_deref().unwrap_or(spec.hook.name);
            return Err(format!(
                "it has no export that answers {wanted}; its exports are {}",
                plugin.inspection().exports.join(", ")
            ));
        }
    }
    Ok(())
}

/// The bindings of every hook, each in the order in which they are asked: phase, then priority, then
/// order of installation.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    request: Vec<Binding>,
    response: Vec<Binding>,
    complete: Vec<Binding>,
}

impl Chains {
    /// The chains of plugins in the order of installation. Those that are switched off are in none.
    pub(crate) fn compile(plugins: &[Arc<Installed>]) -> Self {
        let mut chains = Self::default();
        let enabled = plugins.iter().filter(|plugin| plugin.enabled);
        let bindings = enabled.flat_map(|plugin| {
            // Found to be good when the version was loaded.
            let specs = bindings(&plugin.active).unwrap_or_default();
            specs.into_iter().map(|spec| Binding { plugin: plugin.clone(), spec })
        });
        for binding in bindings {
            let chain = match binding.spec.hook.name {
                HttpRequest::NAME => &mut chains.request,
                HttpResponse::NAME => &mut chains.response,
                HttpComplete::NAME => &mut chains.complete,
                // No listener asks there: whoever does asks the plugin itself.
                _ => continue,
            };
            chain.push(binding);
        }
        for chain in [&mut chains.request, &mut chains.response, &mut chains.complete] {
            chain.sort_by_key(|binding| (binding.spec.phase, binding.spec.priority));
        }
        chains
    }
}

/// A hook that visits can ask at.
pub trait Consulted: Spoken {
    /// What rules look at in an event.
    fn subject(event: &Self::Event) -> Subject<'_>;
    /// Whether the event shows its body.
    fn shows_body(event: &Self::Event) -> bool;
    /// Whether edits replace a body.
    fn replaces_body(edits: &Self::Edits) -> bool;
    /// How many header fields edits change, or an answer has.
    fn fields(verdict: &Verdict<Self>) -> usize;
    /// What edits change, for people: names of parts and fields, never values. `None`: nothing.
    fn changes(edits: &Self::Edits) -> Option<String>;
    /// Which chain is asked.
    fn seat() -> Seat;
}

impl Chains {
    /// Whether a plugin may be asked at a hook after this one.
    pub(crate) fn is_bound_after(&self, seat: Seat, plugin: &str) -> bool {
        let mut later = seat.later().iter().flat_map(|seat| self.at(*seat));
        later.any(|binding| &**binding.plugin.name() == plugin)
    }

    pub(crate) fn at(&self, seat: Seat) -> &[Binding] {
        match seat {
            Seat::Request => &self.request,
            Seat::Response => &self.response,
            Seat::Complete => &self.complete,
        }
    }
}

/// Header fields of an answer.
fn answered(flow: &Flow<HttpAnswer>) -> usize {
    match flow {
        Flow::Stop(HttpAnswer::Respond(response)) => response.headers.0.len(),
        _ => 0,
    }
}

impl Consulted for HttpRequest {
    fn subject(event: &Self::Event) -> Subject<'_> {
        Subject::of(event)
    }

    fn shows_body(event: &Self::Event) -> bool {
        event.body.is_some()
    }

    fn replaces_body(edits: &Self::Edits) -> bool {
        edits.body.is_some()
    }

    fn fields(verdict: &Verdict<Self>) -> usize {
        verdict.edits.headers.len() + answered(&verdict.flow)
    }

    fn changes(edits: &Self::Edits) -> Option<String> {
        let path = edits.path.as_ref().map(|_| "path");
        let body = edits.body.as_ref().map(|_| "body");
        listed(path.into_iter().chain(body), &edits.headers)
    }

    fn seat() -> Seat {
        Seat::Request
    }
}

impl Consulted for HttpResponse {
    fn subject(event: &Self::Event) -> Subject<'_> {
        Subject::of(&event.request)
    }

    fn shows_body(event: &Self::Event) -> bool {
        event.body.is_some()
    }

    fn replaces_body(edits: &Self::Edits) -> bool {
        edits.body.is_some() || edits.request_body.is_some()
    }

    fn fields(verdict: &Verdict<Self>) -> usize {
        verdict.edits.headers.len() + answered(&verdict.flow)
    }

    fn changes(edits: &Self::Edits) -> Option<String> {
        let status = edits.status.map(|_| "status");
        let body = edits.body.as_ref().map(|_| "body");
        let request = edits.request_body.as_ref().map(|_| "request body");
        listed(status.into_iter().chain(body).chain(request), &edits.headers)
    }

    fn seat() -> Seat {
        Seat::Response
    }
}

impl Consulted for HttpComplete {
    fn subject(event: &Self::Event) -> Subject<'_> {
        Subject::of(&event.request)
    }

    /// The body is the request's, and it is shown if it was kept; nothing can be read any more.
    fn shows_body(_event: &Self::Event) -> bool {
        true
    }

    fn replaces_body((): &Self::Edits) -> bool {
        false
    }

    fn fields(_verdict: &Verdict<Self>) -> usize {
        0
    }

    fn changes((): &Self::Edits) -> Option<String> {
        None
    }

    fn seat() -> Seat {
        Seat::Complete
    }
}

/// Longest text about changes.
const CHANGES_BYTES_MAX: usize = 256;

fn listed(parts: impl Iterator<Item = &'static str>, headers: &[HeaderEdit]) -> Option<String> {
    let mut text = String::new();
    let mut add = |sign: &str, name: &str| {
        if text.len() < CHANGES_BYTES_MAX {
            let comma = if text.is_empty() { "" } else { ", " };
            let name = &name[..name.floor_char_boundary(CHANGES_BYTES_MAX)];
            text.extend([comma, sign, name]);
        }
    };
    parts.for_each(|part| add("", part));
    for edit in headers {
        match edit {
            HeaderEdit::Set(name, _) | HeaderEdit::Add(name, _) => add("+", name),
            HeaderEdit::Remove(name) => add("-", name),
        }
    }
    (!text.is_empty()).then_some(text)
}

/// A walk along one hook's chain: the bindings that are for one event, in order.
///
/// A binding is in the walk when it is for the event as it was when the walk began, or for what edits have
/// made of it by the end. So no edit takes a later plugin out of the walk, and none gets round a guard of
/// the place it leads to. Nobody is asked twice.
#[derive(Debug)]
pub struct Chain<H: Hook> {
    /// Positions in the hook's chain: those asked, then those to be asked, each time in order.
    pub(crate) matching: Vec<usize>,
    pub(crate) next: usize,
    /// What `matching` was last made for. `None`: it is complete, because nothing matched or the walk was
    /// stopped.
    matched: Option<Remembered>,
    hook: PhantomData<fn() -> H>,
}

impl<H: Consulted> Chain<H> {
    /// No allocation where nothing matches. `arrived` is what the request was before an earlier walk
    /// changed it.
    pub(crate) fn of(chains: &Chains, event: &H::Event, arrived: Option<&Remembered>) -> Self {
        let bindings = chains.at(H::seat());
        let subject = H::subject(event);
        let is_for = |binding: &Binding| {
            let rule = &binding.spec.rule;
            rule.matches(&subject) || arrived.is_some_and(|arrived| rule.matches(&arrived.subject()))
        };
        let matching: Vec<usize> = (0..bindings.len()).filter(|at| is_for(&bindings[*at])).collect();
        let matched = (!matching.is_empty()).then(|| subject.into());
        Self { matching, next: 0, matched, hook: PhantomData }
    }

    /// Whether nobody is left to ask.
    pub fn is_done(&self) -> bool {
        self.next >= self.matching.len()
    }

    /// Whether this walk may still come to a plugin after the question that is under way.
    pub(crate) fn may_ask_again(&self, chains: &Chains, plugin: &str) -> bool {
        let asked = self.matching.get(..=self.next).unwrap_or(&self.matching);
        // Also bindings that are not for the event now: edits may make it one for them.
        let mut left = chains.at(H::seat()).iter().enumerate().filter(|(at, _)| !asked.contains(at));
        left.any(|(_, binding)| &**binding.plugin.name() == plugin)
    }

    /// Ends the walk; nobody joins it any more.
    pub(crate) fn stop(&mut self) {
        self.next = self.matching.len();
        self.matched = None;
    }

    /// What the event was before edits, if it is another one now.
    pub(crate) fn moved_from(&self, event: &H::Event) -> Option<&Remembered> {
        self.matched.as_ref().filter(|matched| matched.subject() != H::subject(event))
    }

    /// What this walk was last made for, while somebody may still be asked.
    pub(crate) fn subject(&self) -> Option<Subject<'_>> {
        self.matched.as_ref().map(Remembered::subject)
    }

    /// Adds those whom edits have made the event one for.
    pub(crate) fn match_again(&mut self, chains: &Chains, event: &H::Event) {
        if self.moved_from(event).is_none() {
            return;
        }
        let subject = H::subject(event);
        let asked = self.matching.len();
        for (at, binding) in chains.at(H::seat()).iter().enumerate() {
            if !self.matching[..asked].contains(&at) && binding.spec.rule.matches(&subject) {
                self.matching.push(at);
            }
        }
        self.matched = Some(subject.into());
    }
}
