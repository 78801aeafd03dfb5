//! `cardan schema`: JSON Schemas for editors and plugin authors.

use crate::args::{Schema, SchemaOf};
use crate::config;
use crate::output::{self, Failure};

pub(crate) fn run(args: &Schema) -> Result<(), Failure> {
    match args.of {
        SchemaOf::Config => output::json(&config::schema()),
        SchemaOf::Event | SchemaOf::Verdict => output::json(&config::schema()),
    }
}
