//! `cardan schema`: JSON Schemas for editors and plugin authors.

use cardan_api::manifest::{cortex, helios, llmproxy, plugin, smg};
use schemars::{JsonSchema, schema_for};

use crate::args::{Schema, SchemaOf};
use crate::config;
use crate::output::{self, Failure};

pub(crate) fn run(args: &Schema) -> Result<(), Failure> {
    let [(_, event), (_, verdict), (_, life)] = cardan::dialect::cardan::schemas();
    match args.of {
        SchemaOf::Config => output::json(&config::schema()),
        SchemaOf::Event => output::raw(event.as_bytes()),
        SchemaOf::Verdict => output::raw(verdict.as_bytes()),
        SchemaOf::Life => output::raw(life.as_bytes()),
        SchemaOf::Plugin => print::<plugin::Manifest>(),
        SchemaOf::HeliosPlugin => print::<helios::Manifest>(),
        SchemaOf::HeliosConfig => print::<helios::File>(),
        SchemaOf::Cortex => print::<cortex::Manifest>(),
        SchemaOf::LlmProxy => print::<llmproxy::Document>(),
        SchemaOf::SmgDeploy => print::<smg::DeployRequest>(),
    }
}

fn print<T: JsonSchema>() -> Result<(), Failure> {
    output::json(&schema_for!(T))
}
