//! From a wish to what the runtime loads.

use std::path::Path;

use cardan::{Engine, PluginBuilder};
use cardan_api::manifest::{Abi, ResultForm};

use crate::spec::PluginSpec;

impl PluginSpec {
    /// What is to be loaded for this wish, from `source` or from its own. It has everything but what depends on where
    /// it runs: grants, instances kept ready, and what becomes of its log.
    ///
    /// # Errors
    ///
    /// When it is of a convention that the runtime does not have.
    pub fn builder(&self, engine: &Engine, source: &Path) -> Result<PluginBuilder, String> {
        let mut plugin = engine
            .plugin(source)
            .name(&self.name)
            .version(&self.version)
            .mode(self.mode)
            .snapshot(self.snapshot)
            .limits(self.limits.clone())
            .config_object(&self.config);
        let named = |why: String| format!("plugin {}: abi: {why}", self.name);
        if let Some(abi) = self.abi {
            plugin = plugin.abi(convention(abi).map_err(named)?);
        }
        if let Some(abi) = self.abi_implied {
            plugin = plugin.abi_implied(convention(abi).map_err(named)?);
        }
        for (tool, result) in &self.result_forms {
            plugin = plugin.result_form(tool, form(*result));
        }
        if let Some(dialect) = self.dialect {
            plugin = plugin.dialect(dialect);
        }
        if let Some(sha256) = &self.sha256 {
            plugin = plugin.digest(sha256);
        }
        if let Some(requested) = &self.requested {
            plugin = plugin.requests(requested.clone());
        }
        Ok(plugin)
    }
}

/// The convention under the runtime's name.
fn convention(abi: Abi) -> Result<cardan::Abi, String> {
    abi.name().parse()
}

/// The form under the runtime's name.
fn form(form: ResultForm) -> cardan::ResultForm {
    match form {
        ResultForm::Nul => cardan::ResultForm::Nul,
        ResultForm::Len32 => cardan::ResultForm::Len32,
        ResultForm::Int => cardan::ResultForm::Int,
    }
}
