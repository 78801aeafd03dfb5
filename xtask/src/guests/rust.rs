//! The guests in Rust.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use super::{Built, Guests, hex, take};
use crate::tool;

/// One run of cargo, and what to take from it.
struct Build {
    target: &'static str,
    profile: &'static str,
    /// Of the packages, for those that have any.
    features: &'static str,
    form: Form,
    names: Names,
    /// The package whose examples the guests are. None: they are packages.
    examples_of: Option<&'static str>,
    /// Package or example, and name of the prebuilt file.
    guests: &'static [(&'static str, &'static str)],
}

/// What becomes of the linker's output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    AsLinked,
    /// A component is made of it, by the interfaces that it carries.
    Component,
}

/// What the names of symbols, and with them the order of functions, depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Cargo,
    /// Cargo's depend on where the checkout is, for packages that are not below `guests/`.
    Ours,
}

impl Build {
    const RELEASE: Self = Self {
        target: "wasm32-unknown-unknown",
        profile: "release",
        features: "",
        form: Form::AsLinked,
        names: Names::Cargo,
        examples_of: None,
        guests: &[],
    };
    const PDK: Self = Self { names: Names::Ours, ..Self::RELEASE };
}

const BUILDS: [Build; 12] = [
    Build {
        guests: &[
            ("my-wasm-plugin", "llmproxy-template-unknown"),
            ("api-key", "api-key"),
            ("pii-mask", "pii-mask"),
            ("prompt-guard", "prompt-guard"),
            ("count-vowels", "count-vowels"),
            ("kitchen", "kitchen"),
            ("llmproxy-zoo", "llmproxy-zoo"),
            ("services", "services"),
        ],
        ..Build::RELEASE
    },
    Build { profile: "fast", guests: &[("echo", "echo"), ("json-edit", "json-edit")], ..Build::RELEASE },
    Build {
        target: "wasm32-wasip1",
        guests: &[("my-wasm-plugin", "llmproxy-template"), ("wasi-files", "wasi-files")],
        ..Build::RELEASE
    },
    Build { features: "extism", guests: &[("universal", "universal-extism")], ..Build::PDK },
    Build { features: "packed", guests: &[("universal", "universal-packed")], ..Build::PDK },
    Build { features: "capability", guests: &[("universal", "universal-capability")], ..Build::PDK },
    Build {
        features: "component",
        form: Form::Component,
        guests: &[("universal", "universal-component")],
        ..Build::PDK
    },
    Build { guests: &[("llm-guardrail", "helios-llm-guardrail")], ..Build::RELEASE },
    Build { profile: "fast", guests: &[("transform-rust", "transform-rust")], ..Build::PDK },
    Build {
        examples_of: Some("helios-plugins"),
        guests: &[
            ("ai-classifier", "helios-ai-classifier"),
            ("audit-chain", "helios-audit-chain"),
            ("column-mask", "helios-column-mask"),
            ("cost-governor", "helios-cost-governor"),
            ("custom-auth", "helios-custom-auth"),
            ("pgvector-router", "helios-pgvector-router"),
            ("residency-router", "helios-residency-router"),
            ("token-budget", "helios-token-budget"),
        ],
        ..Build::PDK
    },
    Build { target: "wasm32-wasip2", guests: &[("world", "world")], ..Build::RELEASE },
    Build {
        target: "wasm32-wasip2",
        examples_of: Some("smg-guests"),
        guests: &[
            ("smg-auth", "smg-auth"),
            ("smg-logging", "smg-logging"),
            ("smg-misbehaving", "smg-misbehaving"),
            ("smg-on-request", "smg-on-request"),
            ("smg-passthrough", "smg-passthrough"),
            ("smg-sign", "smg-sign"),
            ("smg-rate-limit", "smg-rate-limit"),
            ("smg-storage", "smg-storage"),
            ("smg-storage-passthrough", "smg-storage-passthrough"),
            ("vllm-misbehaving", "vllm-misbehaving"),
            ("vllm-on-request", "vllm-on-request"),
        ],
        ..Build::RELEASE
    },
];

/// What `.cargo/config.toml` says too; flags from the environment take its place.
const STACK_SIZE: &str = "-Clink-arg=-zstack-size=65536";
/// That this program is run in the place of rustc.
const AS_RUSTC: &str = "CARDAN_XTASK_AS_RUSTC";

/// The targets that the Rust guests are built for.
pub(crate) fn targets() -> BTreeSet<&'static str> {
    BUILDS.iter().map(|build| build.target).collect()
}

impl Guests<'_> {
    /// Why the Rust guests cannot be built here, or not to the same bytes.
    pub(super) fn rust_obstacle(&self) -> Result<Option<String>> {
        let found = rustc_version()?;
        let wanted = self.version("rustc");
        if found != wanted {
            return Ok(Some(format!("this is rustc {found}, and they were built with {wanted}")));
        }
        for target in targets() {
            if let Err(error) = tool::ensure_target(target) {
                return Ok(Some(format!("{error:#}")));
            }
        }
        Ok(None)
    }

    pub(super) fn build_rust(&self, built: &mut Built) -> Result<()> {
        let flags = self.rust_flags()?;
        for build in &BUILDS {
            let names = build.guests.iter().map(|(name, _)| *name);
            println!("cargo build --profile {} --target {} {}", build.profile, build.target, build.features);
            let mut cargo = self.cargo(&["build", "--quiet", "--locked"]);
            let mut folder = self.target();
            if build.names == Names::Ours {
                folder = folder.join("pdk");
                cargo.env("RUSTC_WRAPPER", std::env::current_exe()?).env(AS_RUSTC, "1");
            }
            cargo.args(["--profile", build.profile, "--target", build.target, "--target-dir"]).arg(&folder);
            let below = match build.examples_of {
                None => {
                    cargo.args(names.flat_map(|package| ["--package", package]));
                    ""
                }
                Some(package) => {
                    cargo.args(["--package", package]).args(names.flat_map(|name| ["--example", name]));
                    "examples/"
                }
            };
            if !build.features.is_empty() {
                cargo.args(["--features", build.features]);
            }
            tool::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", &flags))?;
            for (built_as, name) in build.guests {
                let file = built_as.replace('-', "_");
                let file = format!("{}/{}/{below}{file}.wasm", build.target, build.profile);
                take(built, name, &folder.join(file))?;
                if build.form == Form::Component {
                    wrap(built, name)?;
                }
            }
        }
        Ok(())
    }

    /// Panic messages name source files. The folders of this machine in them are replaced by names that are
    /// the same everywhere.
    fn rust_flags(&self) -> Result<String> {
        let mut flags =
            vec![STACK_SIZE.to_owned(), remap(self.root, "/cardan"), remap(&self.folder, "/guests")];
        let mut metadata = self.cargo(&["metadata", "--locked", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&tool::read(&mut metadata)?)?;
        let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
        let unpacked: BTreeSet<&Path> = packages
            .iter()
            .filter(|package| !package["source"].is_null())
            .filter_map(|package| Path::new(package["manifest_path"].as_str()?).parent()?.parent())
            .collect();
        flags.extend(unpacked.into_iter().map(|folder| remap(folder, "/registry")));
        Ok(flags.join("\u{1f}"))
    }

    /// Cargo in the guests' workspace, without what the environment could change in the output.
    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = tool::cargo();
        cargo.current_dir(&self.folder).args(args);
        for name in tool::variables("CARGO_PROFILE_") {
            cargo.env_remove(name);
        }
        for name in
            ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR", "RUSTC_WRAPPER"]
        {
            cargo.env_remove(name);
        }
        cargo.env("CARGO_INCREMENTAL", "0");
        cargo
    }
}

/// Makes a component of a module, in its place.
fn wrap(built: &mut Built, name: &str) -> Result<()> {
    let module = built.get_mut(&format!("{name}.wasm")).context("it was built just now")?;
    let encoded =
        ComponentEncoder::default().module(module).and_then(|encoder| encoder.validate(true).encode());
    *module = encoded.with_context(|| format!("no component can be made of {name}"))?;
    Ok(())
}

/// In the place of rustc: the same run, but that the crate's part of symbol names depends on its package, its
/// version and its features, and not on the folder that it is in. Nothing when this is a chore.
pub(crate) fn rewrite_metadata() -> Option<ExitCode> {
    tool::variables(AS_RUSTC).next()?;
    let mut arguments = std::env::args_os().skip(1);
    let mut rustc = Command::new(arguments.next()?);
    let arguments: Vec<OsString> = arguments.collect();
    let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let after = |key: &str| text.iter().position(|word| *word == key).and_then(|at| text.get(at + 1));
    let features = text.iter().filter(|word| word.starts_with("feature=")).copied();
    let package = ["CARGO_PKG_NAME", "CARGO_PKG_VERSION"].map(tool::variable_text);
    let mut stable = Sha256::new();
    for part in package.iter().map(String::as_str).chain(after("--crate-name").copied()).chain(features) {
        stable.update(part.as_bytes());
        stable.update([0]);
    }
    let stable = format!("metadata={}", hex(&stable.finalize()));
    let is_metadata = |argument: &OsString| argument.to_str().is_some_and(|it| it.starts_with("metadata="));
    for argument in arguments {
        if is_metadata(&argument) {
            rustc.arg(&stable);
        } else {
            rustc.arg(argument);
        }
    }
    match tool::run(&mut rustc) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// Version and host: symbol hashes, and with them the order of functions, may differ between hosts.
fn rustc_version() -> Result<String> {
    let verbose = tool::read(tool::rustc().arg("-vV"))?;
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown");
    Ok(format!("{} on {}", field("release: "), field("host: ")))
}

fn remap(folder: &Path, name: &str) -> String {
    format!("--remap-path-prefix={}={name}", folder.display())
}
