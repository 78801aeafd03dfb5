//! One request's or session's view of the plugins.

use std::collections::HashMap;
use std::sync::Arc;

use cardan::{Circumstances, Held, Question};
use cardan_api::{Attributes, BodyNeed, Fault, FaultPolicy, Flow, Hook, InstanceMode, Phase, Verdict};
use serde_json::Value;
use tokio::time::Instant;

use crate::chain::{Binding, Chain, Consulted};
use crate::decision::{Decision, Outcome, TraceContext};
use crate::health::Change;
use crate::installed::Canary;
use crate::ledger::{EventKind, Ledger, VisitRecord};
use crate::rule::{Remembered, Subject};
use crate::snapshot::Snapshot;
use crate::spread::mix;
use crate::version::Version;

/// Most attributes that plugins of one visit may set together.
const ATTRIBUTES_MAX: usize = 256;
/// Most bytes of attributes, names and text and numbers counted: each later plugin is shown them all.
const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// Most header fields that one verdict may change, or answer with: each is looked for among all others, on the host's own time.
const FIELDS_MAX: usize = 1000;

/// Most decisions of one visit that are kept: a hook that is asked about every piece of a stream could go
/// on for ever.
const DECISIONS_MAX: usize = 1024;

/// Decisions of one visit that its record keeps.
const RECORDED_DECISIONS_MAX: usize = 64;
/// Bytes of an error that a record keeps, and of what the visit was about.
const RECORDED_ERROR_BYTES_MAX: usize = 512;
const SUBJECT_BYTES_MAX: usize = 256;

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
    ledger: Ledger,
    opened: Instant,
    trace: Option<TraceContext>,
    /// For the record.
    subject: String,
    /// Decides which canaries this visit asks.
    lot: u64,
    /// Plugins whose canary failed this visit.
    fallen_back: Vec<Arc<str>>,
    attributes: Attributes,
    /// What the request was before edits made it another one. Later walks are for both.
    arrived: Option<Remembered>,
    /// Instances of plugins that may be asked again in this visit.
    held: HashMap<Arc<str>, Held>,
    decisions: Vec<Decision>,
    decisions_not_kept: u64,
}

/// What a visit is opened with.
pub(crate) struct Opening {
    pub(crate) id: String,
    pub(crate) session: String,
    pub(crate) ledger: Ledger,
    /// Any number, spread evenly.
    pub(crate) lot: u64,
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
    pub(crate) fn new(snapshot: Arc<Snapshot>, opening: Opening) -> Self {
        let Opening { id, session, ledger, lot } = opening;
        Self {
            snapshot,
            id,
            session,
            ledger,
            opened: Instant::now(),
            trace: None,
            subject: String::new(),
            lot,
            fallen_back: Vec::new(),
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

    /// Puts this visit into the client's trace.
    pub fn continue_trace(&mut self, trace: TraceContext) {
        self.trace = Some(trace);
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
        // Most events of most hosts are nobody's: those are not to pay for the rest.
        if chain.subject().is_none() {
            self.release::<H>();
            return Progress::Done;
        }
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
        if let Some(subject) = chain.subject() {
            self.note_subject(subject);
        }
        let snapshot = self.snapshot.clone();
        while let Some(&position) = chain.matching.get(chain.next) {
            let binding = &snapshot.chains.at(H::seat())[position];
            if binding.spec.body != BodyNeed::Whole {
                break;
            }
            chain.next += 1;
            let asked = Asked::now(self.version_for(binding));
            let problem = "the body cannot be shown";
            tracing::warn!(
                target: "cardan::fault", visit = self.id, plugin = %binding.plugin.name(), hook = H::NAME,
                fault = why.label(), problem
            );
            if let Some(stop) = self.fault::<H>(binding, asked, why, problem.to_owned()) {
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

    /// The version of a plugin that this visit asks: always the same one, unless it is a canary that fails.
    fn version_for<'a>(&self, binding: &'a Binding) -> &'a Arc<Version> {
        self.canary_for(binding).map_or(&binding.plugin.active, |canary| &canary.version)
    }

    fn canary_for<'a>(&self, binding: &'a Binding) -> Option<&'a Arc<Canary>> {
        let installed = &binding.plugin;
        installed.canary.as_ref()?;
        let name = installed.name();
        let lot = name.bytes().fold(self.lot, |lot, byte| mix(lot ^ u64::from(byte)));
        installed.canary_for(lot as u32 % 10_000).filter(|_| !self.fallen_back.contains(name))
    }

    async fn ask_one<H: Consulted>(&mut self, binding: &Binding, event: &mut H::Event) -> Option<Stop<H>> {
        self.note_subject(H::subject(event));
        if let Some(canary) = self.canary_for(binding) {
            let asked = Asked::now(&canary.version);
            let verdict = self.verdict(binding, &asked, event).await;
            let fault = verdict.as_ref().err().map(|(fault, _)| *fault);
            if let Some(why) = canary.judge(fault) {
                let version = canary.version.number;
                self.ledger.event(Some(binding.plugin.name()), EventKind::CanaryStopped { version, why });
            }
            match verdict {
                Ok(verdict) => return self.follow(binding, event, verdict, asked),
                // Nothing of what it did was applied, so the version that everybody trusts can be asked
                // as if the other one had never been.
                Err((fault, error)) => {
                    self.record::<H>(asked, Outcome::FellBack(fault), None, Some(error));
                    self.fallen_back.push(binding.plugin.name().clone());
                }
            }
        }
        let asked = Asked::now(&binding.plugin.active);
        match self.verdict(binding, &asked, event).await {
            Ok(verdict) => self.follow(binding, event, verdict, asked),
            Err((fault, error)) => self.fault(binding, asked, fault, error),
        }
    }

    /// Asks one version, if it is not in quarantine.
    async fn verdict<H: Consulted>(
        &mut self,
        binding: &Binding,
        asked: &Asked<'_>,
        event: &H::Event,
    ) -> Result<Verdict<H>, (Fault, String)> {
        let version = asked.version;
        let plugin = version.plugin();
        let Some(attempt) = version.run.health.attempt(self.ledger.ms(asked.at)) else {
            return Err((Fault::Quarantined, "it is in quarantine, because it kept failing".to_owned()));
        };
        let keeps = plugin.mode() == InstanceMode::Visit;
        let mut held =
            if keeps { self.held.remove(plugin.name()).unwrap_or_default() } else { Held::default() };
        let question = Question::<H> {
            event,
            about: Circumstances {
                phase: binding.spec.phase,
                body: binding.spec.body,
                visit: &self.id,
                session: &self.session,
                attributes: &self.attributes,
                config: version.config(),
            },
            entry: binding.spec.entry.as_deref(),
            deadline: binding.spec.deadline,
        };
        let verdict = plugin.ask(&mut held, question).await;
        if keeps {
            self.held.insert(plugin.name().clone(), held);
        }
        let checked = verdict.map_err(|error| (error.fault(), error.to_string())).and_then(|verdict| {
            self.check(binding, &verdict).map(|()| verdict).map_err(|why| (Fault::Protocol, why))
        });
        let change = match &checked {
            Ok(_) => attempt.succeeded(),
            Err((fault, error)) => {
                let error = shorten(error);
                tracing::warn!(
                    target: "cardan::fault", visit = self.id, hook = H::NAME, fault = fault.label(), error,
                    version = version.number, "a plugin has no verdict"
                );
                attempt.faulted(*fault, version.spec.health, self.ledger.ms(Instant::now()))
            }
        };
        if let Some(change) = change {
            self.announce(version, change, checked.as_ref().err().map(|(fault, _)| *fault));
        }
        checked
    }

    fn announce(&self, version: &Version, change: Change, fault: Option<Fault>) {
        let number = version.number;
        let kind = match change {
            Change::Quarantined { until_ms, faults } => EventKind::Quarantined {
                version: number,
                faults,
                last: fault.unwrap_or(Fault::Host),
                until_ms: self.ledger.unix_ms(until_ms),
            },
            Change::Recovered => EventKind::Recovered { version: number },
        };
        self.ledger.event(Some(version.name()), kind);
    }

    /// What a verdict may not do, whatever its dialect.
    fn check<H: Consulted>(&self, binding: &Binding, verdict: &Verdict<H>) -> Result<(), String> {
        if binding.spec.body == BodyNeed::None && H::replaces_body(&verdict.edits) {
            return Err("it replaces a body it was not shown; bind it with body: whole".to_owned());
        }
        let fields = H::fields(verdict);
        if fields > FIELDS_MAX {
            return Err(format!("it changes {fields} header fields; one verdict may change {FIELDS_MAX}"));
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
        asked: Asked<'_>,
    ) -> Option<Stop<H>> {
        self.attributes.extend(verdict.attributes);
        match verdict.flow {
            Flow::Continue => {
                let changed = H::changes(&verdict.edits);
                H::apply(event, verdict.edits);
                self.record::<H>(asked, Outcome::Continued, changed, None);
                None
            }
            Flow::Stop(answer) => {
                self.record::<H>(asked, Outcome::Stopped, None, None);
                Some(stop(binding, Cause::Answer(answer)))
            }
        }
    }

    fn fault<H: Consulted>(
        &mut self,
        binding: &Binding,
        asked: Asked<'_>,
        fault: Fault,
        error: String,
    ) -> Option<Stop<H>> {
        match binding.spec.on_fault {
            FaultPolicy::Skip => {
                self.record::<H>(asked, Outcome::Skipped(fault), None, Some(error));
                None
            }
            FaultPolicy::Refuse => {
                self.record::<H>(asked, Outcome::Refused(fault), None, Some(error));
                Some(stop(binding, Cause::Fault(fault)))
            }
        }
    }

    fn record<H: Consulted>(
        &mut self,
        asked: Asked<'_>,
        outcome: Outcome,
        changed: Option<String>,
        error: Option<String>,
    ) {
        let Asked { version, at } = asked;
        let duration = at.elapsed();
        version.run.tally.count(H::seat(), outcome, duration);
        if self.decisions.len() >= DECISIONS_MAX {
            self.decisions_not_kept += 1;
            return;
        }
        let error = error.map(|error| version.spec.redacted(&error, RECORDED_ERROR_BYTES_MAX));
        self.decisions.push(Decision {
            plugin: version.name().clone(),
            version: version.number,
            hook: H::NAME,
            outcome,
            since: at.saturating_duration_since(self.opened),
            duration,
            changed,
            error,
        });
    }

    fn note_subject(&mut self, subject: Subject<'_>) {
        if self.subject.is_empty() {
            let Subject { method, host, path } = subject;
            for part in [method, " ", host, path] {
                let left = SUBJECT_BYTES_MAX.saturating_sub(self.subject.len());
                self.subject.push_str(&part[..part.floor_char_boundary(left)]);
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.decisions.is_empty() {
            return;
        }
        let mut decisions = std::mem::take(&mut self.decisions);
        let beyond = decisions.len().saturating_sub(RECORDED_DECISIONS_MAX);
        decisions.truncate(RECORDED_DECISIONS_MAX);
        self.ledger.visit(VisitRecord {
            id: std::mem::take(&mut self.id),
            trace: self.trace,
            generation: self.snapshot.generation(),
            began_at: self.ledger.time_of(self.opened),
            duration: self.opened.elapsed(),
            subject: std::mem::take(&mut self.subject),
            decisions,
            decisions_not_kept: self.decisions_not_kept + beyond as u64,
        });
    }
}

/// A question that is under way.
struct Asked<'a> {
    version: &'a Arc<Version>,
    at: Instant,
}

impl<'a> Asked<'a> {
    fn now(version: &'a Arc<Version>) -> Self {
        Self { version, at: Instant::now() }
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
