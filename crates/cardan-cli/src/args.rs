//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use cardan::InstanceMode;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use crate::config::AdminListen;
use crate::operate::Verb;
use crate::output::Format;

/// Runs WebAssembly plugins of many systems, in a gateway or on their own.
#[derive(Debug, Parser)]
#[command(name = "cardan", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Where compiled plugins are kept between runs [default: the user's cache directory]
    #[arg(long, global = true, env = "CARDAN_CACHE_DIR", value_name = "DIR", value_parser = directory())]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Compile plugins at every start
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// What to log to standard error, as `warn`, `info`, `cardan=debug`, ...
    #[arg(long, global = true, env = "CARDAN_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Log what the runtime and its plugins do: the same as `--log info,cardan=debug`
    #[arg(short, long, global = true, conflicts_with = "log")]
    pub(crate) verbose: bool,
    /// Log lines for people or for programs
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a gateway; SIGHUP reads its configuration again
    Serve(Serve),
    /// Run a gateway with example plugins that needs nothing else
    Demo(Demo),
    /// Call one function of one plugin
    Call(Call),
    /// Use plugins as agents do: call their tools
    #[command(visible_alias = "plugins", subcommand)]
    Plugin(PluginVerb),
    /// Say what a plugin is: convention, hooks, imports, exports, needs
    Inspect(Inspect),
    /// Check a configuration or a manifest and load its plugins, without serving
    Validate(Validate),
    /// Print a JSON Schema: of the configuration, of manifests, or of the documents plugins are given and return
    Schema(Schema),
    #[command(flatten)]
    Operate(Verb),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// The configuration file
    #[arg(short, long, default_value = "cardan.yaml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Listen here instead of where the configuration says
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Listen here for the admin API instead of where the configuration says, or `off`
    #[arg(long, value_name = "ADDRESS", value_parser = AdminListen::parse)]
    pub(crate) admin_listen: Option<AdminListen>,
    /// Go without this plugin, which an operator loaded and which cannot be loaded any more; may be given
    /// several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) forget: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Listen here
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Write the demo's configuration and plugins here and keep them; files that are there already, and
    /// may have been edited, stay as they are [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Calls of one `cardan call`. Each one's duration is remembered.
const CALLS_MAX: i64 = 10_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// A module, its text form, a manifest, or a folder that holds one of these
    pub(crate) plugin: PathBuf,
    /// The exported function, or a tool of a plugin that has all of its tools behind one function
    pub(crate) export: String,
    /// What the function is given; `-` reads standard input
    #[arg(default_value = "", allow_negative_numbers = true)]
    pub(crate) input: String,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// How long an instance lives, for calls repeated with --times
    #[arg(long, value_parser = parse_mode, default_value = "fresh", value_name = "MODE")]
    pub(crate) instance: InstanceMode,
    /// Call this many times, print the last output, and say how long the calls took
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=CALLS_MAX), default_value_t = 1, value_name = "N")]
    pub(crate) times: u32,
}

/// What a plugin that is called is given, and how the result is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// Something the plugin reads from its configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) config: Vec<String>,
    /// A host that the plugin may ask over HTTP, or a glob pattern; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// A directory that the plugin may open; `ro:` before the host path makes it read-only
    #[arg(long, value_name = "HOST=GUEST")]
    pub(crate) allow_path: Vec<String>,
    /// Grant it a key-value store, and keep that in this directory from call to call
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Time that the call may take, in milliseconds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), default_value_t = 10_000, value_name = "MS")]
    pub(crate) deadline_ms: u64,
    /// How to print the result: the output as it is, or a JSON document about the call
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// Call one tool of one plugin
    Call(ToolCall),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ToolCall {
    /// A module, a manifest, a folder that holds one of these, or the name of a plugin in --dir
    pub(crate) plugin: String,
    /// The tool, which is also called a capability
    pub(crate) tool: String,
    /// A JSON object; `-` reads standard input
    #[arg(default_value = "{}", value_name = "JSON")]
    pub(crate) arguments: String,
    /// The folder of plugins in which a name is looked for
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// A module, its text form, a manifest, or a folder that holds one of these
    pub(crate) plugin: PathBuf,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// The configuration, a manifest of a plugin, or a deploy request, of any system that Cardan knows
    #[arg(short, long, default_value = "cardan.yaml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Schema {
    /// Of what
    #[arg(value_enum)]
    pub(crate) of: SchemaOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// `cardan.yaml`
    Config,
    /// What a plugin of Cardan's dialect is given
    Event,
    /// What it returns
    Verdict,
    /// What it is given when it is loaded, unloaded, or at a tick
    Life,
    /// `plugin.yaml`
    Plugin,
    /// HeliosProxy's manifest of a plugin
    HeliosPlugin,
    /// HeliosProxy's configuration of plugins
    HeliosConfig,
    /// CortexPrism's manifest of a plugin
    Cortex,
    /// LLMProxy's manifest of plugins
    #[value(name = "llmproxy")]
    LlmProxy,
    /// The body of SMG's `POST /wasm`
    SmgDeploy,
}

/// Accepts nothing at all too, since an empty variable counts as not set.
fn directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn parse_mode(text: &str) -> Result<InstanceMode, String> {
    match text {
        "fresh" => Ok(InstanceMode::Fresh),
        "shared" => Ok(InstanceMode::Shared),
        other => Err(format!("{other:?} is neither fresh nor shared")),
    }
}
