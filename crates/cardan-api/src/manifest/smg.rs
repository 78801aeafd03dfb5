//! The body of SMG's `POST /wasm`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A whole request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "SMG deploy request")]
pub struct DeployRequest {
    /// The modules, in the order in which they will be asked.
    pub modules: Vec<Module>,
    /// Keys that SMG does not have.
    #[serde(flatten, skip_serializing)]
    pub other: BTreeMap<String, Value>,
}

/// One module to be deployed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SmgModule")]
pub struct Module {
    /// The plugin's name.
    pub name: String,
    /// An absolute path on the server.
    pub file_path: String,
    /// What it is.
    pub module_type: ModuleType,
    /// Where it is asked. A module with none is registered and never asked.
    pub attach_points: Vec<AttachPoint>,
    /// Keys that SMG does not have, and `add_result`, which is its answer.
    #[serde(flatten, skip_serializing)]
    pub other: BTreeMap<String, Value>,
}

/// What a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModuleType {
    /// The one kind there is.
    Middleware,
}

/// Where a module is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttachPoint {
    /// Around requests.
    Middleware(MiddlewareAttachPoint),
}

/// When a middleware is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MiddlewareAttachPoint {
    /// Before a request goes to its upstream.
    OnRequest,
    /// Before its answer goes to the client.
    OnResponse,
    /// When there is no answer.
    OnError,
}
