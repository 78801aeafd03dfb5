//! The runtime through its public interface, with real WebAssembly. A module per topic, a `check` per
//! boundary, a row per case.

mod support;

mod codes;
mod features;
mod host;
mod hostile;
mod kernel;
