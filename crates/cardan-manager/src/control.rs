//! What an operator may do with one plugin while the others run.
//!
//! Everything here prepares first and changes one pointer at the end: whatever fails leaves what runs
//! running. All of it blocks, some of it for as long as compiling takes.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use cardan_api::lifecycle::LifeReason;
use serde::Serialize;

use crate::chain::{answers, bindings};
use crate::installed::{Canary, CanaryPlan, Declined, Earlier, Installed};
use crate::ledger::{EventKind, Reason};
use crate::manager::{Change, Manager, Next};
use crate::spec::{Owner, PluginSpec};
use crate::version::{Run, Version};

/// What is active after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Activated {
    /// The plugin.
    pub name: String,
    /// The active version.
    pub version: u32,
    /// SHA-256 of its module.
    pub digest: String,
    /// Whether it is another one than before.
    pub changed: bool,
}

/// Why an operator's wish was not carried out. What ran before still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    /// There is no such plugin, or it has no such version.
    NotFound(String),
    /// It cannot be done in the state that things are in.
    Conflict(String),
    /// The plugin was found wanting: it cannot be read, linked, started or bound.
    Refused(String),
    /// The state directory cannot be written.
    State(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotFound(why) | Self::Conflict(why) | Self::Refused(why) | Self::State(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for ControlError {}

impl Activated {
    fn of(version: &Version, changed: bool) -> Self {
        let name = version.name().to_string();
        Self { name, version: version.number, digest: version.digest().to_owned(), changed }
    }
}

impl Manager {
    /// Loads a plugin beside the others.
    ///
    /// # Errors
    ///
    /// [`ControlError::Conflict`] when there is one of this name, [`ControlError::Refused`] when it cannot be
    /// loaded or bound.
    pub fn install(&self, spec: &PluginSpec) -> Result<Activated, ControlError> {
        let change = self.begin();
        if let Some(other) = change.old.find(&spec.name) {
            let why = format!(
                "plugin {}: there is one of this name, {}; reload or remove that one, or choose another name",
                spec.name,
                other.spec().owner
            );
            return Err(ControlError::Conflict(why));
        }
        self.settle(change, None, spec, Reason::Load)
    }

    /// Reads a plugin's file again, and makes what it holds the active version if it is another one.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`], or [`ControlError::Refused`] when what the file holds now cannot run: the
    /// active version stays, and the plugin's status says so.
    pub fn reload(&self, name: &str) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let spec = before.spec().clone();
        // Asked for by name, so also what was rolled back from.
        let before = match before.declined {
            Some(_) => Arc::new(Installed { declined: None, ..Installed::clone(&before) }),
            None => before,
        };
        self.settle(change, Some(before), &spec, Reason::Reload)
    }

    /// Makes a plugin as this spec says, whether there is one of its name or not. What the same spec and file
    /// made before is kept.
    ///
    /// # Errors
    ///
    /// As [`Manager::reload`]; [`ControlError::Conflict`] when the name is somebody else's.
    pub fn replace(&self, spec: &PluginSpec) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.old.find(&spec.name).cloned();
        if let Some(other) = before.as_ref().filter(|before| before.spec().owner != spec.owner) {
            let why = format!("plugin {}: {} already; rename one", spec.name, other.spec().owner);
            return Err(ControlError::Conflict(why));
        }
        let reason = if before.is_some() { Reason::Reload } else { Reason::Load };
        self.settle(change, before, spec, reason)
    }

    /// Makes a plugin of uploaded bytes: a new one, or another version of the one that was uploaded before.
    /// The spec's source is not looked at.
    ///
    /// # Errors
    ///
    /// As [`Manager::replace`]; [`ControlError::Conflict`] where there is no state directory to keep it in.
    pub fn upload(&self, spec: &PluginSpec, module: &[u8]) -> Result<Activated, ControlError> {
        let change = self.begin();
        let Some(state) = self.state() else {
            let why = "uploads are kept in the state directory, and there is none; set state: {dir: ...}";
            return Err(ControlError::Conflict(why.to_owned()));
        };
        let before = change.old.find(&spec.name).cloned();
        if let Some(other) = before.as_ref().filter(|before| before.spec().owner != Owner::Operator) {
            let why = format!("plugin {}: {} already; choose another name", spec.name, other.spec().owner);
            return Err(ControlError::Conflict(why));
        }
        let refused = |why: String| ControlError::Refused(format!("plugin {}: {why}", spec.name));
        let source = state.keep_upload(module).map_err(refused)?;
        let spec = PluginSpec { source, owner: Owner::Operator, ..spec.clone() };
        let reason = if before.is_some() { Reason::Reload } else { Reason::Load };
        self.settle(change, before, &spec, reason)
    }

    fn settle(
        &self,
        change: Change<'_>,
        before: Option<Arc<Installed>>,
        spec: &PluginSpec,
        reason: Reason,
    ) -> Result<Activated, ControlError> {
        match self.next_of(before.as_ref(), spec) {
            Ok(Next::Kept(next)) if before.as_ref().is_some_and(|before| is_settled(before, &next)) => {
                Ok(Activated::of(&next.active, false))
            }
            Ok(Next::Kept(next) | Next::Loaded(next)) => {
                let changed = before.is_none_or(|before| before.active.number != next.active.number);
                self.activate(change, next, changed.then_some(reason))
            }
            Err(why) => {
                self.ledger().event(Some(&spec.name), EventKind::NotActivated { why: why.clone() });
                if let Some(before) = before {
                    let trouble = Some(why.clone());
                    let next = Installed { trouble, ..Installed::clone(&before) };
                    change.publish_one(&spec.name, Some(Arc::new(next))).map_err(ControlError::State)?;
                }
                Err(ControlError::Refused(why))
            }
        }
    }

    fn activate(
        &self,
        change: Change<'_>,
        next: Arc<Installed>,
        reason: Option<Reason>,
    ) -> Result<Activated, ControlError> {
        let next = if next.trouble.is_some() {
            Arc::new(Installed { trouble: None, ..Installed::clone(&next) })
        } else {
            next
        };
        let active = next.active.clone();
        change.publish_one(active.name(), Some(next)).map_err(ControlError::State)?;
        if let Some(reason) = reason {
            let (version, digest) = (active.number, active.digest().to_owned());
            self.ledger().event(Some(active.name()), EventKind::Activated { version, digest, reason });
        }
        Ok(Activated::of(&active, reason.is_some()))
    }

    /// Has visits ask a plugin again.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn enable(&self, name: &str) -> Result<Activated, ControlError> {
        self.switch(name, true, EventKind::Enabled)
    }

    /// Has no visit ask a plugin from now on. It stays loaded.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn disable(&self, name: &str) -> Result<Activated, ControlError> {
        self.switch(name, false, EventKind::Disabled)
    }

    fn switch(&self, name: &str, enabled: bool, kind: EventKind) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let active = before.active.clone();
        if before.enabled == enabled {
            return Ok(Activated::of(&active, false));
        }
        let next = Installed { enabled, ..Installed::clone(&before) };
        change.publish_one(name, Some(Arc::new(next))).map_err(ControlError::State)?;
        self.ledger().event(Some(name), kind);
        Ok(Activated::of(&active, true))
    }

    /// Takes a plugin out for good, its versions included.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`]; [`ControlError::Conflict`] when a file says that it shall be there.
    pub fn remove(&self, name: &str) -> Result<(), ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let hint = match before.spec().owner {
            Owner::Operator => None,
            Owner::File => Some("take it out there and reload, or disable it"),
            Owner::Folder => Some("remove its file, or disable it"),
        };
        if let Some(hint) = hint {
            let owner = before.spec().owner;
            return Err(ControlError::Conflict(format!("plugin {name}: {owner}; {hint}")));
        }
        change.publish_one(name, None).map_err(ControlError::State)?;
        self.ledger().event(Some(name), EventKind::Removed);
        Ok(())
    }

    /// Takes out what lay in the watched folder and does no more.
    ///
    /// # Errors
    ///
    /// [`ControlError::State`].
    pub(crate) fn forget(&self, name: &str) -> Result<(), ControlError> {
        let change = self.begin();
        if change.old.find(name).is_none_or(|plugin| plugin.spec().owner != Owner::Folder) {
            return Ok(());
        }
        change.publish_one(name, None).map_err(ControlError::State)?;
        self.ledger().event(Some(name), EventKind::Removed);
        Ok(())
    }

    /// Makes an earlier version the active one: the one before, or the one with this number. What is
    /// active now is not activated again by itself until its file changes.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn rollback(&self, name: &str, to: Option<u32>) -> Result<Activated, ControlError> {
        self.go_back(name, to, Refusal::Decline)
    }

    /// The same for one who undoes what was only tried: what is active now may be activated again.
    ///
    /// # Errors
    ///
    /// As [`Manager::rollback`].
    pub fn undo(&self, name: &str, to: u32) -> Result<Activated, ControlError> {
        self.go_back(name, Some(to), Refusal::Keep)
    }

    fn go_back(&self, name: &str, to: Option<u32>, refusal: Refusal) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let earlier = match to {
            None => before.earlier.first(),
            Some(number) if number == before.active.number => {
                return Ok(Activated::of(&before.active, false));
            }
            Some(number) => before.earlier.iter().find(|earlier| earlier.record.number == number),
        };
        let Some(earlier) = earlier.cloned() else {
            let numbers: Vec<String> = before.earlier.iter().map(|it| it.record.number.to_string()).collect();
            let has = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
            let wanted =
                to.map_or_else(|| "version before this one".to_owned(), |to| format!("version {to}"));
            let why = format!("plugin {name}: it has no {wanted} to go back to; there are {has}");
            return Err(ControlError::NotFound(why));
        };
        let version = self.back_to(&before, &earlier).map_err(ControlError::Refused)?;
        let declined = match refusal {
            Refusal::Decline if version.digest() != before.active.digest() => Some(Declined {
                digest: before.active.digest().to_owned(),
                wish: Box::new(before.spec().clone()),
            }),
            _ => None,
        };
        let next = Installed { declined, ..before.with_active(version) };
        self.activate(change, Arc::new(next), Some(Reason::Rollback))
    }

    /// An earlier version as it may run now. What a file says about the plugin counts, and nobody gets back
    /// what is granted no more; everything else is as it was.
    fn back_to(&self, before: &Installed, earlier: &Earlier) -> Result<Arc<Version>, String> {
        let (was, now) = (&earlier.record.spec, before.spec());
        let spec = match now.owner {
            Owner::File => now.clone(),
            Owner::Folder | Owner::Operator => PluginSpec {
                grants: now.grants.clone(),
                source: now.source.clone(),
                owner: now.owner,
                ..was.clone()
            },
        };
        let number = earlier.record.number;
        if let Some(version) = &earlier.version {
            return self.dressed(version, number, &spec, LifeReason::Rollback).map(|(version, _)| version);
        }
        let plugin = self.load_kept(&spec, &earlier.record.digest, LifeReason::Rollback)?;
        let version = self.version(number, &spec, Arc::new(Run::new(plugin)));
        version.map_err(|why| format!("plugin {}: {why}", spec.name))
    }

    /// Has a share of visits ask what the plugin's file holds now, in place of the active version.
    ///
    /// # Errors
    ///
    /// [`ControlError::Refused`] when it cannot run, or cannot be asked wherever the active version is;
    /// [`ControlError::Conflict`] when there is a canary already, or nothing to try.
    pub fn start_canary(&self, name: &str, plan: CanaryPlan) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let conflict = |why: &str| Err(ControlError::Conflict(format!("plugin {name}: {why}")));
        if plan.share == 0 || plan.share > 10_000 {
            return conflict("a canary's share is more than 0 and at most 100 percent");
        }
        if before.canary.as_ref().is_some_and(|canary| !canary.is_stopped()) {
            return conflict("there is a canary already; promote or stop it first");
        }
        if before.active.is_same_file() {
            return conflict("its file holds what is active; replace the file first");
        }
        let spec = before.spec().clone();
        let version = self.load(&spec, LifeReason::Canary).and_then(|plugin| {
            answers(&plugin, &bindings(&before.active)?)
                .map_err(|why| format!("plugin {name}: the canary cannot stand in: {why}"))?;
            let (number, loaded_at) = (before.next_number(), SystemTime::now());
            Ok(Version { number, spec, run: Arc::new(Run::new(plugin)), loaded_at })
        });
        let version = Arc::new(version.map_err(|why| {
            self.ledger().event(Some(name), EventKind::NotActivated { why: why.clone() });
            ControlError::Refused(why)
        })?);
        let canary = Some(Arc::new(Canary::new(version.clone(), plan)));
        let next = Installed { canary, numbered: version.number, ..Installed::clone(&before) };
        change.publish_one(name, Some(Arc::new(next))).map_err(ControlError::State)?;
        let kind = EventKind::CanaryStarted { version: version.number, permyriad: plan.share };
        self.ledger().event(Some(name), kind);
        Ok(Activated::of(&version, true))
    }

    /// Makes the canary the active version.
    ///
    /// # Errors
    ///
    /// [`ControlError::Conflict`] when there is none, or it was stopped.
    pub fn promote_canary(&self, name: &str) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let Some(canary) = before.canary.as_ref().filter(|canary| !canary.is_stopped()) else {
            let why = format!("plugin {name}: there is no canary to promote; start one first");
            return Err(ControlError::Conflict(why));
        };
        let (number, spec) = (canary.version.number, before.spec().clone());
        let dressed = self.dressed(&canary.version, number, &spec, LifeReason::Canary);
        let (version, _) = dressed.map_err(ControlError::Refused)?;
        let next = Installed { canary: None, ..before.with_active(version) };
        self.activate(change, Arc::new(next), Some(Reason::Promotion))
    }

    /// Has everybody ask the active version again.
    ///
    /// # Errors
    ///
    /// [`ControlError::Conflict`] when there is no canary.
    pub fn stop_canary(&self, name: &str) -> Result<Activated, ControlError> {
        let change = self.begin();
        let before = change.find(name)?;
        let Some(canary) = &before.canary else {
            return Err(ControlError::Conflict(format!("plugin {name}: there is no canary")));
        };
        let (active, was_stopped, version) =
            (before.active.clone(), canary.is_stopped(), canary.version.number);
        let digest = canary.version.digest().to_owned();
        let declined = Some(Declined { digest, wish: Box::new(before.spec().clone()) });
        let next = Installed { canary: None, declined, ..Installed::clone(&before) };
        change.publish_one(name, Some(Arc::new(next))).map_err(ControlError::State)?;
        if !was_stopped {
            let why = "an operator stopped it".to_owned();
            self.ledger().event(Some(name), EventKind::CanaryStopped { version, why });
        }
        Ok(Activated::of(&active, true))
    }

    /// Ends a plugin's quarantine at once. Whether there was one.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn release(&self, name: &str) -> Result<bool, ControlError> {
        let snapshot = self.snapshot();
        let installed = snapshot.find(name).ok_or_else(|| missing(name))?;
        let active = &installed.active;
        let was_quarantined = active.run.health.release();
        if was_quarantined {
            self.ledger().event(Some(name), EventKind::Released { version: active.number });
        }
        Ok(was_quarantined)
    }
}

/// What becomes of what is gone back from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It is not activated again until its file changes.
    Decline,
    /// Nothing.
    Keep,
}

impl Change<'_> {
    fn find(&self, name: &str) -> Result<Arc<Installed>, ControlError> {
        self.old.find(name).cloned().ok_or_else(|| missing(name))
    }
}

/// Whether there is nothing to publish.
fn is_settled(before: &Arc<Installed>, next: &Arc<Installed>) -> bool {
    Arc::ptr_eq(before, next) && next.trouble.is_none()
}

pub(crate) fn missing(name: &str) -> ControlError {
    ControlError::NotFound(format!("there is no plugin {name:?}"))
}
