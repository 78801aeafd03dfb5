//! One request's or session's view of the plugins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cardan::{Circumstances, Held, Question};
use cardan_api::{Attributes, BodyNeed, Fault, FaultPolicy, Flow, Hook, InstanceMode, Phase, Verdict};
use serde_json::Value;
use tokio::time::Instant;

use crate::chain::{Binding, Chain, Consulted};
use crate::rule::Remembered;
use crate::snapshot::Snapshot;

/// Most attributes that plugins of one visit may set together.
const ATTRIBUTES_MAX: usize = 256;
/// Most bytes of attributes, names and text and numbers counted: each later plugin is shown them all.
const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// Most decisions of one visit that are kept: a hook that is asked about every piece of a stream could go
/// on for ever.
const DECISIONS_MAX: usize = 1024;

/// Most bytes of an error that are logged.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// One request or session: pins a snapshot, and the instances that plugins keep for it.
///
/// Not shared: a host asks one question at a time. Dropping it, also in the middle of a question, ends
/// what is going on and gives everything back.
#[derive(Debug)]
pub struct Visit {
    snapshot: Arc<Snapshot>,
    id: String,
    session: String,
    attributes: Attributes,
    /// What the request was before edits made it another one. Later walks are for both.
    arrived: Option<Remembered>,
    /// Instances of plugins that may be asked again in this visit.
    held: HashMap<Arc<str>, Held>,
    decisions: Vec<Decision>,
    decisions_not_kept: u64,
}

/// What came of asking one plugin.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its name.
    pub plugin: Arc<str>,
    /// [`Hook::NAME`].
    pub hook: &'static str,
    /// What it said, or how it failed.
    pub outcome: Outcome,
    /// From the question to the verdict.
    pub duration: Duration,
}

/// What one plugin said, or how it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Continued,
    /// Stop.
    Stopped,
    /// It could not be asked, and the binding's policy was to go on.
    Skipped(Fault),
    /// It could not be asked, and the binding's policy was to stop.
    Refused(Fault),
}

/// How far a walk along a chain has come.
#[derive(Debug)]
pub enum Progress<H: Hook> {
    /// The next plugin has to see the body: put it into the event and ask again, or say with
    /// [`Visit::cannot_show`] that it cannot be had.
    NeedsBody,
    /// Everybody was asked; the event carries all edits.
    Done,
    /// Somebody stopped it. Nobody else is asked.
    Stopped(Stop<H>),
}

/// Who stopped a chain, and why.
#[derive(Debug)]
pub struct Stop<H: Hook> {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Where it stands.
    pub phase: Phase,
    /// Its answer, or its fault.
    pub cause: Cause<H>,
}

/// Why a chain was stopped.
#[derive(Debug)]
pub enum Cause<H: Hook> {
    /// The plugin's answer.
    Answer(H::Answer),
    /// The plugin could not be asked, and the binding's policy is to refuse.
    Fault(Fault),
}

impl Visit {
    pub(crate) fn new(snapshot: Arc<Snapshot>, id: String, session: String) -> Self {
        Self {
            snapshot,
            id,
            session,
            attributes: Attributes::new(),
            arrived: None,
            held: HashMap::new(),
            decisions: Vec::new(),
            decisions_not_kept: 0,
        }
    }

    /// 16 hexadecimal digits, the same at every hook.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What plugins have set so far.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Which snapshot this visit sees.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation()
    }

    /// What came of every question so far, in order; of the first 1,024.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// How many questions were asked beyond those.
    pub fn decisions_not_kept(&self) -> u64 {
        self.decisions_not_kept
    }

    /// The strongest need for a body among the bindings that are for this event.
    pub fn body_need<H: Consulted>(&self, event: &H::Event) -> BodyNeed {
        let bindings = self.snapshot.chains.at(H::seat());
        let matching = self.chain::<H>(event).matching;
        matching.iter().map(|at| bindings[*at].spec.body).max().unwrap_or(BodyNeed::None)
    }

    /// Begins a walk along the bindings that are for this event.
    pub fn chain<H: Consulted>(&self, event: &H::Event) -> Chain<H> {
        Chain::of(&self.snapshot.chains, event, self.arrived.as_ref())
    }

    /// Asks plugins in order, until one needs the body, one stops, or all were asked. Edits are applied to
    /// the event after each.
    ///
    /// When all were asked, those whom the edits have made the event one for are asked too. A host that
    /// edits the event itself after [`Progress::Done`] asks again, so that they are not left out.
    pub async fn ask<H: Consulted>(&mut self, chain: &mut Chain<H>, event: &mut H::Event) -> Progress<H> {
        let snapshot = self.snapshot.clone();
        loop {
            while let Some(&position) = chain.matching.get(chain.next) {
                let binding = &snapshot.chains.at(H::seat())[position];
                if binding.spec.body == BodyNeed::Whole && !H::shows_body(event) {
                    return Progress::NeedsBody;
                }
                let stop = self.ask_one(binding, event).await;
                self.release_one(chain, binding);
                // Not before the verdict: were this future dropped, the next walk would pass the plugin over.
                chain.next += 1;
                self.remember(chain, event);
                if let Some(stop) = stop {
                    chain.stop();
                    self.release::<H>();
                    return Progress::Stopped(stop);
                }
            }
            self.remember(chain, event);
            // Ends: each round asks somebody who was not asked before, or is the last.
            chain.match_again(&snapshot.chains, event);
            if chain.is_done() {
                self.release::<H>();
                return Progress::Done;
            }
        }
    }

    /// Says that the body the next plugins need cannot be had. Their fault policies decide; nobody is
    /// passed over in silence.
    ///
    /// [`Progress::Done`] means that none of them refused. There may be others to ask, which need no body
    /// ([`Chain::is_done`]): go on with [`Visit::ask`].
    pub fn cannot_show<H: Consulted>(&mut self, chain: &mut Chain<H>, why: Fault) -> Progress<H> {
        let snapshot = self.snapshot.clone();
        while let Some(&position) = chain.matching.get(chain.next) {
            let binding = &snapshot.chains.at(H::seat())[position];
            if binding.spec.body != BodyNeed::Whole {
                break;
            }
            chain.next += 1;
            let asked = Instant::now();
            tracing::warn!(
                target: "cardan::fault", visit = self.id, plugin = %binding.plugin.name(), hook = H::NAME,
                fault = why.label(), "the body cannot be shown"
            );
            if let Some(stop) = self.fault(binding, why, asked) {
                chain.stop();
                self.release::<H>();
                return Progress::Stopped(stop);
            }
        }
        Progress::Done
    }

    /// Gives back the instance of a plugin that was just asked, if nobody may ask it again.
    fn release_one<H: Consulted>(&mut self, chain: &Chain<H>, binding: &Binding) {
        let (chains, plugin) = (&self.snapshot.chains, binding.plugin.name());
        if self.held.contains_key(plugin)
            && !chain.may_ask_again(chains, plugin)
            && !chains.is_bound_after(H::seat(), plugin)
        {
            self.held.remove(plugin);
        }
    }

    /// Gives back the instances of plugins that no later hook asks.
    fn release<H: Consulted>(&mut self) {
        let chains = &self.snapshot.chains;
        self.held.retain(|plugin, _| chains.is_bound_after(H::seat(), plugin));
    }

    /// Keeps what the request was when it arrived, once edits make it another one.
    fn remember<H: Consulted>(&mut self, chain: &Chain<H>, event: &H::Event) {
        if self.arrived.is_none() {
            self.arrived = chain.moved_from(event).cloned();
        }
    }

    async fn ask_one<H: Consulted>(&mut self, binding: &Binding, event: &mut H::Event) -> Option<Stop<H>> {
        let asked = Instant::now();
        let plugin = &binding.plugin;
        let mut held = match plugin.plugin.mode() {
            InstanceMode::Visit => self.held.remove(plugin.name()).unwrap_or_default(),
            InstanceMode::Fresh | InstanceMode::Shared => Held::default(),
        };
        let question = Question::<H> {
            event,
            about: Circumstances {
                phase: binding.spec.phase,
                body: binding.spec.body,
                visit: &self.id,
                session: &self.session,
                attributes: &self.attributes,
                config: plugin.config(),
            },
            entry: binding.spec.entry.as_deref(),
            deadline: binding.spec.deadline,
        };
        let verdict = plugin.plugin.ask(&mut held, question).await;
        if plugin.plugin.mode() == InstanceMode::Visit {
            self.held.insert(plugin.name().clone(), held);
        }
        let checked = verdict.map_err(|error| (error.fault(), error.to_string())).and_then(|verdict| {
            self.check(binding, &verdict).map(|()| verdict).map_err(|why| (Fault::Protocol, why))
        });
        match checked {
            Ok(verdict) => self.follow(binding, event, verdict, asked),
            Err((fault, error)) => {
                let error = shorten(&error);
                tracing::warn!(
                    target: "cardan::fault", visit = self.id, hook = H::NAME, fault = fault.label(), error,
                    "a plugin has no verdict"
                );
                self.fault(binding, fault, asked)
            }
        }
    }

    /// What a verdict may not do, whatever its dialect.
    fn check<H: Consulted>(&self, binding: &Binding, verdict: &Verdict<H>) -> Result<(), String> {
        if binding.spec.body == BodyNeed::None && H::replaces_body(&verdict.edits) {
            return Err("it replaces a body it was not shown; bind it with body: whole".to_owned());
        }
        if verdict.attributes.is_empty() {
            return Ok(());
        }
        let kept = self.attributes.iter().filter(|(key, _)| !verdict.attributes.contains_key(*key));
        let (mut count, mut bytes) = (0, 0);
        for (key, value) in kept.chain(&verdict.attributes) {
            count += 1;
            bytes += key.len() + weight(value);
        }
        if count > ATTRIBUTES_MAX {
            return Err(format!("plugins of one visit may set {ATTRIBUTES_MAX} attributes"));
        }
        if bytes > ATTRIBUTE_BYTES_MAX {
            return Err(format!("plugins of one visit may set {ATTRIBUTE_BYTES_MAX} bytes of attributes"));
        }
        Ok(())
    }

    fn follow<H: Consulted>(
        &mut self,
        binding: &Binding,
        event: &mut H::Event,
        verdict: Verdict<H>,
        asked: Instant,
    ) -> Option<Stop<H>> {
        self.attributes.extend(verdict.attributes);
        match verdict.flow {
            Flow::Continue => {
                H::apply(event, verdict.edits);
                self.record::<H>(binding, Outcome::Continued, asked);
                None
            }
            Flow::Stop(answer) => {
                self.record::<H>(binding, Outcome::Stopped, asked);
                Some(stop(binding, Cause::Answer(answer)))
            }
        }
    }

    fn fault<H: Consulted>(&mut self, binding: &Binding, fault: Fault, asked: Instant) -> Option<Stop<H>> {
        match binding.spec.on_fault {
            FaultPolicy::Skip => {
                self.record::<H>(binding, Outcome::Skipped(fault), asked);
                None
            }
            FaultPolicy::Refuse => {
                self.record::<H>(binding, Outcome::Refused(fault), asked);
                Some(stop(binding, Cause::Fault(fault)))
            }
        }
    }

    fn record<H: Consulted>(&mut self, binding: &Binding, outcome: Outcome, asked: Instant) {
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions_not_kept += 1;
            return;
        }
        let plugin = binding.plugin.name().clone();
        self.decisions.push(Decision { plugin, hook: H::NAME, outcome, duration: asked.elapsed() });
    }
}

fn stop<H: Hook>(binding: &Binding, cause: Cause<H>) -> Stop<H> {
    Stop { plugin: binding.plugin.name().clone(), phase: binding.spec.phase, cause }
}

/// About as many bytes as the value takes in a document.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| 1 + weight(item)).sum::<usize>() + 2,
        Value::Object(members) => {
            members.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>() + 2
        }
    }
}

/// The beginning of an error, which may quote a guest at any length.
fn shorten(error: &str) -> &str {
    &error[..error.floor_char_boundary(ERROR_BYTES_MAX)]
}
