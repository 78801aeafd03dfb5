//! What a plugin is asked before it serves: the hook `plugin.load`.

use cardan_api::Flow;
use cardan_api::lifecycle::{LifeEvent, PluginLoad};
use serde_json::Value;

use crate::abi::extism::{Call, Guest};
use crate::dialect::{Circumstances, Dialect, Spoken};
use crate::error::ErrorKind;
use crate::{Error, plugin};

/// The question that every new instance is asked once, made ahead.
pub(crate) struct LoadQuestion {
    dialect: Dialect,
    event: LifeEvent,
    export: &'static str,
    pub(crate) document: Vec<u8>,
}

impl LoadQuestion {
    /// `None` for a plugin without an export for it.
    pub(super) fn of(
        dialect: Option<Dialect>,
        exports: &[String],
        event: LifeEvent,
        config: &Value,
    ) -> Result<Option<Self>, Error> {
        let Some(dialect) = dialect else { return Ok(None) };
        let mut asked =
            PluginLoad::entries(dialect).asked(|entry| exports.iter().any(|export| export == entry));
        let Some(export) = asked.next() else { return Ok(None) };
        let document = PluginLoad::encode(dialect, &event, Circumstances::of_life(config))
            .map_err(|why| Error::host(format!("plugin.load has no document: {why}")))?;
        Ok(Some(Self { dialect, event, export, document }))
    }

    /// Asks an instance that nobody has called yet.
    pub(crate) async fn ask(&self, guest: &mut Guest) -> Result<(), Error> {
        let start = |error: Error| match error.kind() {
            ErrorKind::Call(fault) => {
                Error::new(ErrorKind::Start(fault), format!("plugin.load: {}", error.message()))
                    .with_backtrace(error.backtrace().map(str::to_owned))
            }
            _ => error,
        };
        let deadline = guest.time_left();
        let call = Call { export: self.export, input: &self.document, deadline };
        let report = guest.call(call).await;
        let verdict = plugin::verdict::<PluginLoad>(self.dialect, &self.event, report).map_err(start)?;
        match verdict.flow {
            Flow::Continue => guest.forget_call().map_err(|why| Error::host(format!("{why:#}"))),
            Flow::Stop(refusal) => {
                Err(Error::new(ErrorKind::Refused, format!("it refuses to be loaded: {}", refusal.message)))
            }
        }
    }
}
