//! The command line of the verbs.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List plugins, versions, chains, hooks, events, visits, or the configuration of a running gateway
    Get(Get),
    /// Say everything about one plugin
    Describe(Describe),
    /// Load a plugin into a running gateway
    Load(Load),
    /// Read a plugin's file again
    Reload(Plugin),
    /// Have a plugin asked again
    Enable(Plugin),
    /// Have a plugin asked no more; it stays loaded
    Disable(Plugin),
    /// Make an earlier version of a plugin the active one
    Rollback(Rollback),
    /// Have a share of visits try what a plugin's file holds now
    Canary(Canary),
    /// Make a plugin's canary the active version
    Promote(Plugin),
    /// Have everybody ask the active version again
    StopCanary(Plugin),
    /// End a plugin's quarantine at once
    Release(Plugin),
    /// Take a plugin out for good
    Rm(Plugin),
    /// Print what plugins log
    Logs(Logs),
    /// Print what becomes of plugins
    Events(Events),
    /// Show who is asked how often, and how long it takes
    Top(Top),
    /// Show what every plugin decided about one request
    Trace(Trace),
    /// Show one made-up event to one plugin alone
    Try(Try),
    /// Find out what is wrong, and what to do about it
    Doctor(Doctor),
}

/// Where the gateway is, and how to print what it says.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The gateway's admin API
    #[arg(long, env = "CARDAN_SERVER", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    pub(crate) server: String,
    /// A token for it; other users of this machine can see it, which they cannot with --token-file
    #[arg(long, env = "CARDAN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "CARDAN_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Table,
    /// What the server said
    Json,
    /// The same as YAML
    Yaml,
    /// Names alone, one in each line
    Name,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// What
    #[arg(value_enum)]
    pub(crate) what: What,
    /// Of which plugin, or which one
    pub(crate) name: Option<String>,
    /// Visits with this outcome: continued, stopped, skipped, refused, fell_back
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Visits with this fault, or `any`
    #[arg(long)]
    pub(crate) fault: Option<String>,
    /// At most so many
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    #[value(alias = "plugin")]
    Plugins,
    #[value(alias = "version")]
    Versions,
    #[value(alias = "chain")]
    Chains,
    #[value(alias = "hook")]
    Hooks,
    #[value(alias = "event")]
    Events,
    #[value(alias = "visit")]
    Visits,
    Config,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Describe {
    /// What
    #[arg(value_enum)]
    pub(crate) what: Describable,
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Describable {
    #[value(alias = "plugins")]
    Plugin,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plugin {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// A module or a manifest, on the machine of the gateway
    pub(crate) path: PathBuf,
    /// What to call it [default: as its manifest or its file does]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Send the module itself, for a gateway that cannot see the file
    #[arg(long)]
    pub(crate) upload: bool,
    /// With --upload: make a new version of the plugin of this name
    #[arg(long, requires = "upload")]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// Its name
    pub(crate) name: String,
    /// The number of the version [default: the one before]
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<u32>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Canary {
    /// Its name
    pub(crate) name: String,
    /// Share of visits
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    pub(crate) percent: f64,
    /// Stop it when more of its calls than this fail
    #[arg(long, value_name = "PERCENT")]
    pub(crate) faults_percent: Option<f64>,
    /// Make it the active version when it was not stopped for so long
    #[arg(long, value_name = "SECONDS")]
    pub(crate) promote_after: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Of which plugin [default: all]
    pub(crate) name: Option<String>,
    /// Print new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The last so many lines of each plugin
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) tail: usize,
    /// Lines of this level and of more important ones
    #[arg(long)]
    pub(crate) level: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Print new events as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Those after the one with this number
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) since: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Look again after so many seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub(crate) interval: u64,
    /// Look so many times [default: until it is stopped, or once where there is no terminal]
    #[arg(long, value_name = "N")]
    pub(crate) times: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    /// The request's id, from the header x-request-id, or its trace's
    pub(crate) visit: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Try {
    /// Its name
    pub(crate) name: String,
    /// Where to ask it
    #[arg(long, default_value = "http.request")]
    pub(crate) hook: String,
    /// A file with the event as JSON, or `-` for standard input: request, response, complete, attributes,
    /// session [default: a request without a body]
    #[arg(long, value_name = "FILE")]
    pub(crate) event: Option<PathBuf>,
    /// Which version [default: the active one]
    #[arg(long = "plugin-version", value_name = "N")]
    pub(crate) version: Option<u32>,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The configuration whose addresses are looked at; cardan.yaml unless said otherwise, if there is one here
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}
