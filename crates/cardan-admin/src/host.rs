//! What the admin API needs of the process around it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::access::Tokens;
use crate::readiness::Readiness;

/// Tells which files of the folder of plugins cannot be meant, and why.
pub type FolderProblems = dyn Fn() -> Vec<(PathBuf, String)> + Send + Sync;

/// What the process around the admin API lets it use. What is not there, its routes say is not there.
#[derive(Clone)]
pub struct Host {
    /// The program's version.
    pub version: &'static str,
    /// Who may come in. Without any: whoever is on this machine.
    pub tokens: Tokens,
    /// Whether the gateway serves.
    pub readiness: Readiness,
    /// The configuration file.
    pub configuration: Option<Arc<dyn Configuration>>,
    /// What plugins have stored.
    pub kv: Option<Arc<dyn KeyValues>>,
    /// Where compiled plugins are kept.
    pub cache_dir: Option<PathBuf>,
    /// What relative entry points of LLMProxy's install requests are relative to.
    pub llmproxy_folder: Option<PathBuf>,
    /// Files of the folder of plugins that cannot be meant, and why. Asked by probes: it must not block.
    pub folder_problems: Option<Arc<FolderProblems>>,
    /// What plugins measure themselves.
    pub measured: Option<Arc<dyn Fn() -> Vec<Measured> + Send + Sync>>,
    /// How many visits were not told to a trace collector.
    pub traces_dropped: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

impl Host {
    pub(crate) fn folder_problems(&self) -> Vec<(PathBuf, String)> {
        self.folder_problems.as_ref().map(|ask| ask()).unwrap_or_default()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The configuration that the process was started with. All of it may block.
pub trait Configuration: Send + Sync + 'static {
    /// What is in force, and what the file holds.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Unreadable`].
    fn current(&self) -> Result<Document, ConfigurationError>;

    /// Does everything with a text but putting it in force. Returns warnings.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Invalid`].
    fn check(&self, text: &str) -> Result<Vec<String>, ConfigurationError>;

    /// Puts a text in force and into the file, if the file is still as this revision was.
    ///
    /// # Errors
    ///
    /// Any; what was in force still is.
    fn replace(&self, text: &str, revision: &str) -> Result<Document, ConfigurationError>;

    /// Reads the file again, as at SIGHUP.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Invalid`] or [`ConfigurationError::Unreadable`]; what was in force still is.
    fn reload(&self) -> Result<(), ConfigurationError>;
}

/// A configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// As it was written.
    pub text: String,
    /// The same for those who may not see its secrets.
    pub redacted: Value,
    /// Another one for every other text.
    pub revision: String,
    /// Where it is.
    pub path: PathBuf,
    /// Why it cannot be replaced, if it cannot.
    pub read_only: Option<String>,
    /// What is valid and probably not meant.
    pub warnings: Vec<String>,
}

/// Why a configuration was not replaced, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigurationError {
    /// It cannot be meant, or cannot be put in force.
    Invalid(String),
    /// The file is another one than the caller has seen.
    Changed(String),
    /// It cannot be written.
    ReadOnly(String),
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(why) | Self::Changed(why) | Self::ReadOnly(why) | Self::Unreadable(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for ConfigurationError {}

/// A metric that a plugin measures itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The plugin.
    pub plugin: String,
    /// A name of the Prometheus text format.
    pub name: String,
    /// What its numbers mean.
    pub kind: MeasuredKind,
    /// By labels, whose names are of that format too.
    pub series: Vec<(BTreeMap<String, String>, MeasuredValue)>,
}

/// What the numbers of a metric mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasuredKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are distributions.
    Histogram,
}

/// One number, or one distribution.
#[derive(Debug, Clone, PartialEq)]
pub enum MeasuredValue {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution {
        /// Upper bounds, the last of them infinite, and how many are between each and the one before.
        buckets: Vec<(f64, u64)>,
        /// Of all samples.
        sum: f64,
    },
}

/// What plugins have stored, by the plugin's name. All of it may block.
pub trait KeyValues: Send + Sync + 'static {
    /// One value.
    ///
    /// # Errors
    ///
    /// [`KvError::Failed`].
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, KvError>;

    /// Keys that begin so, in order, at most `max` of them.
    ///
    /// # Errors
    ///
    /// [`KvError::Failed`].
    fn keys(&self, plugin: &str, prefix: &str, max: usize) -> Result<Vec<String>, KvError>;

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// [`KvError::Full`] when a maximum refuses it.
    fn put(&self, plugin: &str, key: &str, value: &[u8]) -> Result<(), KvError>;

    /// Takes a value out, if it is there.
    ///
    /// # Errors
    ///
    /// [`KvError::Failed`].
    fn delete(&self, plugin: &str, key: &str) -> Result<(), KvError>;
}

/// Why a stored value was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvError {
    /// A maximum of the store refuses it.
    Full(String),
    /// The store failed.
    Failed(String),
}
