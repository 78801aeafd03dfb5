//! Small guests of the byte conventions, for what no plugin that is of use does.

/// A convention that carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    Extism,
    Packed,
    /// An export for each tool, whose result is a pointer.
    Capability,
    /// All tools behind one export, which is given a buffer for their results.
    Tools,
}

/// What the guest does when it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does<'a> {
    /// Returns this document.
    Answers(&'a [u8]),
    /// Returns it with how often it was called, a digit, where `#` stands.
    Counts(&'a str),
    /// The same, where nobody reads what it returns: into its log.
    Logs,
    /// Stores it, gets it back, and returns what it got.
    Keeps(&'a str),
    /// Goes wrong where the input has more than [`LONG`] bytes, and returns the document otherwise.
    Fails(Wrong, &'a str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrong {
    Traps,
    Loops,
    /// Takes memory until there is none, and then traps.
    Grows,
}

impl Wrong {
    fn work(self) -> &'static str {
        match self {
            Self::Traps => "unreachable",
            Self::Loops => "(loop $on (br $on))",
            Self::Grows => {
                "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
            }
        }
    }
}

/// Bytes of input beyond which a guest that fails does.
pub(crate) const LONG: usize = 10_000;

/// Where the document begins in memory, and where what comes back from the store is put.
const DOCUMENT: usize = 4096;
const RETURNED: usize = 16384;

/// A guest with this one entry.
pub(crate) fn probe(bytes: Bytes, entry: &str, does: Does<'_>) -> String {
    let document: Vec<u8> = match does {
        Does::Answers(document) => document.to_vec(),
        Does::Counts(text) | Does::Keeps(text) | Does::Fails(_, text) => text.replace('#', "0").into_bytes(),
        Does::Logs => b"call 0".to_vec(),
    };
    let escaped: String = document.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let counted = |text: &str| {
        let at = DOCUMENT + text.find('#').unwrap();
        format!("(i32.store8 (i32.const {at}) (i32.add (i32.load8_u (i32.const {at})) (i32.const 1)))")
    };
    let work = match does {
        Does::Answers(_) | Does::Keeps(_) => String::new(),
        Does::Counts(text) => counted(text),
        Does::Logs => {
            format!("{} (call $log (i32.const 2) (i32.const {DOCUMENT}) (i32.const 6))", counted("call #"))
        }
        Does::Fails(wrong, _) => {
            // Where the length of the input is among the parameters.
            let length = if bytes == Bytes::Tools { 3 } else { 1 };
            let work = wrong.work();
            format!("(if (i32.gt_u (local.get {length}) (i32.const {LONG})) (then {work}))")
        }
    };
    let keeps = matches!(does, Does::Keeps(_));
    let rest = match bytes {
        Bytes::Extism => extism(entry, &work, document.len(), keeps),
        Bytes::Packed => packed(entry, &work, document.len(), keeps),
        Bytes::Capability => capability(entry, &work, document.len(), keeps),
        Bytes::Tools => tools(&work, document.len()),
    };
    format!(
        r#"(module {rest}
             (data (i32.const 512) "key") (data (i32.const {DOCUMENT}) "{escaped}"))"#
    )
}

fn extism(entry: &str, work: &str, length: usize, keeps: bool) -> String {
    let answer = if keeps {
        format!(
            "(drop (call $kv_set (call $put (i32.const 512) (i32.const 3))
                     (call $put (i32.const {DOCUMENT}) (i32.const {length})) (i64.const 0)))
             (local.set $block (call $kv_get (call $put (i32.const 512) (i32.const 3))))"
        )
    } else {
        format!("(local.set $block (call $put (i32.const {DOCUMENT}) (i32.const {length})))")
    };
    let stores = r#"(import "extism:host/user" "kv_set" (func $kv_set (param i64 i64 i64) (result i64)))
                    (import "extism:host/user" "kv_get" (func $kv_get (param i64) (result i64)))"#;
    let stores = if keeps { stores } else { "" };
    format!(
        r#"(import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
           (import "extism:host/env" "length" (func $length (param i64) (result i64)))
           (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
           (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
           {stores}
           (memory (export "memory") 2)
           (func $put (param $from i32) (param $size i32) (result i64) (local $block i64) (local $i i32)
             (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
             (loop $next
               (if (i32.lt_u (local.get $i) (local.get $size)) (then
                 (call $store (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
                   (i32.load8_u (i32.add (local.get $from) (local.get $i))))
                 (local.set $i (i32.add (local.get $i) (i32.const 1)))
                 (br $next))))
             (local.get $block))
           (func (export "{entry}") (result i32) (local $block i64)
             {work} {answer}
             (call $output_set (local.get $block) (call $length (local.get $block)))
             (i32.const 0))"#
    )
}

/// An allocator that grows.
const ALLOC: &str = r#"
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "alloc") (param $n i32) (result i32) (local $at i32)
      (local.set $at (global.get $next))
      (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get $n)) (i32.const 7)) (i32.const -8)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $n) (i32.const 16)))))))
      (local.get $at))
    (func (export "dealloc") (param i32 i32))"#;

fn packed(entry: &str, work: &str, length: usize, keeps: bool) -> String {
    let (place, answer) = if keeps {
        let get = format!(
            "(drop (call $kv_set (i32.const 512) (i32.const 3) (i32.const {DOCUMENT}) (i32.const {length})))
             (local.set 2 (call $kv_get (i32.const 512) (i32.const 3) (i32.const {RETURNED}) (i32.const 4096)))"
        );
        (RETURNED, get)
    } else {
        (DOCUMENT, format!("(local.set 2 (i32.const {length}))"))
    };
    let stores = r#"(import "env" "kv_set" (func $kv_set (param i32 i32 i32 i32) (result i32)))
                    (import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))"#;
    let stores = if keeps { stores } else { "" };
    let log = r#"(import "helios" "log" (func $log (param i32 i32 i32)))"#;
    let log = if work.contains("$log") { log } else { "" };
    format!(
        r#"{stores} {log} {ALLOC}
           (func (export "{entry}") (param i32 i32) (result i64) (local i32)
             {work} {answer}
             (i64.or (i64.const {}) (i64.extend_i32_u (local.get 2))))"#,
        place << 32
    )
}

fn capability(entry: &str, work: &str, length: usize, keeps: bool) -> String {
    let (place, answer) = if keeps {
        let get = format!(
            "(call $set (i32.const 512) (i32.const 3) (i32.const {DOCUMENT}) (i32.const {length}))
             (i32.store (i32.const 256) (i32.const 4096))
             (drop (call $get (i32.const 512) (i32.const 3) (i32.const {RETURNED}) (i32.const 256)))"
        );
        (RETURNED, get)
    } else {
        (DOCUMENT, String::new())
    };
    let stores = r#"(import "env" "host_set_state" (func $set (param i32 i32 i32 i32)))
                    (import "env" "host_get_state" (func $get (param i32 i32 i32 i32) (result i32)))"#;
    let stores = if keeps { stores } else { "" };
    // What is behind the answer is zero, which ends it.
    format!(
        r#"{stores} {ALLOC}
           (func (export "{entry}") (param i32 i32) (result i32) {work} {answer} (i32.const {place}))"#
    )
}

/// Whatever the tool's name is. What stays for it to keep is in `guests/fixtures/tools-c`.
fn tools(work: &str, length: usize) -> String {
    format!(
        r#"{ALLOC}
           (func (export "plugin_execute_tool") (param i32 i32 i32 i32 i32 i32) (result i32)
             {work}
             (memory.copy (local.get 4) (i32.const {DOCUMENT}) (i32.const {length}))
             (i32.store (local.get 5) (i32.const {length}))
             (i32.const 0))"#
    )
}
