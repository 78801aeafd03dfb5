//! One engine for all tests, and guests made from a few words.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cardan::{
    Engine, EngineConfig, Limits, LogLevel, LogSink, Manifest, MemoryLimits, PluginBuilder, WasmEntry,
};

/// Long enough for anything that is not meant to end by its deadline, on a machine that is busy.
pub(crate) const GENEROUS: Duration = Duration::from_secs(20);

/// The engine all tests share: every pool reserves terabytes of address space.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let http = cardan_services::HttpService::new().unwrap();
        // Most guests are loaded many times. What an earlier run left may be another rewriter's work.
        let cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        if cache_dir.exists() {
            // Another run at the same time may be writing there, which does no harm.
            let _ = std::fs::remove_dir_all(&cache_dir);
        }
        let engine = Engine::new(EngineConfig {
            cache_dir: Some(cache_dir),
            http: Some(Arc::new(http)),
            ..EngineConfig::default()
        });
        let engine = engine.unwrap();
        assert_eq!(engine.pool_failure(), None, "the tests are about the pool, too");
        engine
    })
}

pub(crate) fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests")
}

/// A compiled guest of `guests/prebuilt`.
pub(crate) fn prebuilt(name: &str) -> PluginBuilder {
    engine().plugin(guests().join("prebuilt").join(name).with_extension("wasm"))
}

pub(crate) fn within(deadline: Duration) -> Limits {
    Limits { deadline: Some(deadline), ..Limits::default() }
}

/// The ways the kernel and a guest come together. What a guest sees is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// A single module, which gets the kernel inside.
    Fused,
    /// Several modules around a kernel of their own.
    Beside,
}

impl Linkage {
    pub(crate) const BOTH: [Self; 2] = [Self::Fused, Self::Beside];

    pub(crate) fn plugin(self, module: &[u8]) -> PluginBuilder {
        match self {
            Self::Fused => engine().plugin(module),
            Self::Beside => engine().plugin(Manifest {
                wasm: vec![entry("bystander", b"(module)"), entry("main", module)],
                ..Manifest::default()
            }),
        }
    }
}

/// A manifest's entry for a module in memory.
pub(crate) fn entry(name: &str, module: &[u8]) -> WasmEntry {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(module);
    WasmEntry { data: Some(data), name: Some(name.to_owned()), ..WasmEntry::default() }
}

/// A manifest of named modules, main last.
pub(crate) fn linked(modules: &[(&str, &str)]) -> Manifest {
    Manifest {
        wasm: modules.iter().map(|(name, text)| entry(name, text.as_bytes())).collect(),
        ..Manifest::default()
    }
}

/// A manifest of one module with Extism's limits on memory.
pub(crate) fn with_memory(module: &str, memory: MemoryLimits) -> Manifest {
    Manifest { memory, ..linked(&[("main", module)]) }
}

/// A module around some functions.
///
/// All of `extism:host/env` is there under the name it has there; `@"text"` is a new block with that text;
/// `$tell` adds a number to an output of 64-bit words that `$told` sets; `$say` makes a block the output.
pub(crate) fn guest(functions: &str) -> String {
    guest_importing("", functions)
}

/// As [`guest`], with further imports.
pub(crate) fn guest_importing(imports: &str, functions: &str) -> String {
    let mut data = String::new();
    let mut body = String::new();
    let mut at = 0x8000;
    let mut rest = functions;
    while let Some((before, after)) = rest.split_once("@\"") {
        let (text, after) = after.split_once('"').expect("a text ends");
        body.push_str(before);
        let length = wat_length(text);
        body.push_str(&format!("(call $put (i32.const {at}) (i32.const {length}))"));
        data.push_str(&format!("(data (i32.const {at}) \"{text}\")\n"));
        at += length;
        rest = after;
    }
    body.push_str(rest);
    format!("(module\n{}\n{imports}\n{PRELUDE}\n{data}\n{body})", env_imports())
}

/// Bytes of a WAT string, in which `\` and two digits are one.
fn wat_length(text: &str) -> usize {
    text.len() - 2 * text.matches('\\').count()
}

const PRELUDE: &str = r#"
  (memory (export "memory") 1)
  (global $told_bytes (mut i32) (i32.const 0))
  (func $put (param $from i32) (param $size i32) (result i64)
    (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $size)))
        (call $store_u8
          (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
          (i32.load8_u (i32.add (local.get $from) (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (local.get $block))
  (func $say (param $block i64)
    (call $output_set (local.get $block) (call $length (local.get $block))))
  (func $tell (param $number i64)
    (i64.store (i32.add (i32.const 0x4000) (global.get $told_bytes)) (local.get $number))
    (global.set $told_bytes (i32.add (global.get $told_bytes) (i32.const 8))))
  (func $told
    (call $say (call $put (i32.const 0x4000) (global.get $told_bytes)))
    (global.set $told_bytes (i32.const 0)))
  "#;

/// Every function of `extism:host/env`, with its type.
pub(crate) const ENV: [(&str, &str); 32] = [
    ("alloc", "(param i64) (result i64)"),
    ("free", "(param i64)"),
    ("length", "(param i64) (result i64)"),
    ("length_unsafe", "(param i64) (result i64)"),
    ("load_u8", "(param i64) (result i32)"),
    ("load_u64", "(param i64) (result i64)"),
    ("store_u8", "(param i64 i32)"),
    ("store_u64", "(param i64 i64)"),
    ("input_offset", "(result i64)"),
    ("input_length", "(result i64)"),
    ("input_load_u8", "(param i64) (result i32)"),
    ("input_load_u64", "(param i64) (result i64)"),
    ("output_set", "(param i64 i64)"),
    ("error_set", "(param i64)"),
    ("error_get", "(result i64)"),
    ("input_set", "(param i64 i64)"),
    ("output_length", "(result i64)"),
    ("output_offset", "(result i64)"),
    ("reset", ""),
    ("memory_bytes", "(result i64)"),
    ("config_get", "(param i64) (result i64)"),
    ("var_get", "(param i64) (result i64)"),
    ("var_set", "(param i64 i64)"),
    ("http_request", "(param i64 i64) (result i64)"),
    ("http_status_code", "(result i32)"),
    ("http_headers", "(result i64)"),
    ("log_trace", "(param i64)"),
    ("log_debug", "(param i64)"),
    ("log_info", "(param i64)"),
    ("log_warn", "(param i64)"),
    ("log_error", "(param i64)"),
    ("get_log_level", "(result i32)"),
];

fn env_imports() -> String {
    let import = |(name, ty)| format!("(import \"extism:host/env\" \"{name}\" (func ${name} {ty}))\n");
    ENV.into_iter().map(import).collect()
}

/// The numbers that a guest told.
pub(crate) fn told(output: &[u8]) -> Vec<u64> {
    assert_eq!(output.len() % 8, 0, "{output:?} are no numbers");
    output.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Keeps what guests log.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) level: Option<LogLevel>,
    pub(crate) lines: Mutex<Vec<(LogLevel, String)>>,
}

impl Recorder {
    pub(crate) fn at(level: Option<LogLevel>) -> Arc<Self> {
        Arc::new(Self { level, lines: Mutex::default() })
    }

    pub(crate) fn take(&self) -> Vec<(LogLevel, String)> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl LogSink for Recorder {
    fn level(&self) -> Option<LogLevel> {
        self.level
    }

    fn line(&self, level: LogLevel, text: &str) {
        self.lines.lock().unwrap().push((level, text.to_owned()));
    }
}

/// Names of the files in a folder of `guests`, without their extension.
pub(crate) fn files(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(guests().join(folder))
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
