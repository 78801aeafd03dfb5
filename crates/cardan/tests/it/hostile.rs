//! Hostile guests: each ends in the way its row says, in both linkages, twice, and a friendly plugin beside
//! it works on.

use std::path::Path;
use std::time::Duration;

use cardan::{ErrorKind, Fault, LogLevel, PluginBuilder, Report};

use crate::support::{GENEROUS, Linkage, Recorder, engine, files, guests, prebuilt, within};

/// What becomes of a guest.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It does not load: the kind of the error, and part of its text.
    Refused(ErrorKind, &'static str),
    /// Its call ends like this: code, part of the error, output, fault.
    Report(i32, Option<&'static str>, &'static [u8], Option<Fault>),
    /// Its call may end in any way, but the next one works as well or as badly.
    Whatever,
    /// Named here for completeness: another test is about it.
    Elsewhere(&'static str),
}

use End::{Elsewhere, Refused, Whatever};

const fn good(output: &'static [u8]) -> End {
    End::Report(0, None, output, None)
}

/// A code that the guest returned, without an error.
const fn code(code: i32) -> End {
    End::Report(code, None, b"", Some(Fault::Trap))
}

const fn error(code: i32, error: &'static str) -> End {
    End::Report(code, Some(error), b"", Some(Fault::Trap))
}

const fn fails(fault: Fault, error: &'static str) -> End {
    End::Report(-1, Some(error), b"", Some(fault))
}

const fn traps(error: &'static str) -> End {
    End::Report(134, Some(error), b"", Some(Fault::Trap))
}

const TIMEOUT: End = End::Report(134, Some("timeout"), b"", Some(Fault::Deadline));
const OOM: End = fails(Fault::Memory, "oom");
const LATE: End = Refused(ErrorKind::Start(Fault::Deadline), "timeout while starting");
const NO_HANDLE: End = fails(Fault::Protocol, "invalid handle offset");
const NOT_UTF8: End = fails(Fault::Protocol, "invalid utf-8 sequence");
const NOT_ALLOWED: &str = "HTTP request to http://127.0.0.1:9/ is not allowed: HTTP is not granted: add \"http: [127.0.0.1]\" to the grants";

const ROWS: &[(&str, End)] = &[
    ("alloc_4gib", good(b"")),
    ("alloc_exhaust", OOM),
    ("alloc_max", good(b"")),
    ("alloc_small_exhaust", Whatever),
    ("call_ctors", good(b"1")),
    ("command_start", Elsewhere("instances::programs_start_anew")),
    ("config_get_non_handle", NO_HANDLE),
    ("config_key_not_utf8", NOT_UTF8),
    ("ctors_loop", LATE),
    ("error_and_output", End::Report(9, Some("words"), b"words", Some(Fault::Trap))),
    ("error_beyond_memory", code(3)),
    ("error_cleared", good(b"")),
    ("error_freed", error(3, "")),
    ("error_huge", Elsewhere("limits::long_errors_are_cut")),
    ("error_inside_block", error(3, "")),
    ("error_max", code(3)),
    ("error_not_utf8", error(3, "\u{fffd}")),
    ("error_then_trap", fails(Fault::Trap, "words")),
    ("error_then_zero", error(0, "words")),
    ("export_host_internals", good(b"1")),
    ("free_input", good(b"")),
    ("free_inside_block", good(b"")),
    ("free_twice", good(b"")),
    ("gc_bomb", OOM),
    ("headers_overwrite", Whatever),
    ("headers_sizes", Whatever),
    ("hs_init", good(b"3")),
    ("hs_init_loops", LATE),
    ("http_file_scheme", fails(Fault::Denied, "file:")),
    ("http_garbage", fails(Fault::Protocol, "not an HTTP request document")),
    ("http_non_handle", NO_HANDLE),
    ("http_unknown_field", fails(Fault::Protocol, "unknown field")),
    ("import_global", Refused(ErrorKind::Link, "non-function exports of extism kernel")),
    ("import_host_internals", Refused(ErrorKind::Link, "unknown import: `cardan:kernel::memory`")),
    ("import_legacy", Refused(ErrorKind::Link, "unknown import: `env::extism_alloc`")),
    ("import_memory", Refused(ErrorKind::Link, "non-function exports of extism kernel")),
    ("import_self", Refused(ErrorKind::Link, "in a circle: main -> main")),
    ("import_table", Refused(ErrorKind::Link, "non-function exports of extism kernel")),
    ("import_unknown", Refused(ErrorKind::Link, "Invalid function import from extism:host/env: ")),
    ("import_unknown_module", Refused(ErrorKind::Link, "unknown import: `")),
    ("import_wasi_unstable", Refused(ErrorKind::Link, "unknown import: `wasi_unstable::")),
    ("import_wrong_type", Refused(ErrorKind::Link, "types incompatible: expected type")),
    ("initialize_exits", Refused(ErrorKind::Start(Fault::Trap), "Exited with i32 exit status 0")),
    ("initialize_log_flood", good(b"")),
    ("initialize_logs", good(b"")),
    ("initialize_loops", LATE),
    ("initialize_reads_config", good(b"x")),
    ("initialize_sends_http", Refused(ErrorKind::Start(Fault::Denied), NOT_ALLOWED)),
    ("initialize_sets_var", good(b"v")),
    ("initialize_traps", Refused(ErrorKind::Start(Fault::Trap), "unreachable")),
    ("initialize_wrong_type", good(b"")),
    ("input_set_lies", Whatever),
    ("invalid_body", Refused(ErrorKind::Format, "type mismatch")),
    ("load_beyond_memory", good(b"")),
    ("log_flood", TIMEOUT),
    ("log_flood_bytes", good(b"")),
    ("log_forged", good(b"")),
    ("log_huge", good(b"")),
    ("log_non_handle", NO_HANDLE),
    ("log_not_utf8", good(b"")),
    ("loop_bulk_fill", TIMEOUT),
    ("loop_forever", TIMEOUT),
    ("loop_host_calls", TIMEOUT),
    ("memories_100", Refused(ErrorKind::Start(Fault::Memory), "oom: its memories may have 67108864 bytes")),
    ("memories_1000", Refused(ErrorKind::Format, "memories count exceeds limit of 100")),
    ("memory_bomb", OOM),
    (
        "memory_bomb_start",
        Refused(ErrorKind::Start(Fault::Memory), "oom: its memories may have 67108864 bytes"),
    ),
    ("memory_grow_all", OOM),
    (
        "memory_min_4gib",
        Refused(ErrorKind::Start(Fault::Memory), "oom: its memories may have 67108864 bytes"),
    ),
    (
        "memory_min_large",
        Refused(ErrorKind::Start(Fault::Memory), "oom: its memories may have 67108864 bytes"),
    ),
    ("no_exports", fails(Fault::Protocol, "Function not found: run")),
    ("output_array", Whatever),
    ("output_bad_base64", Whatever),
    ("output_bad_status", Whatever),
    ("output_beyond_block", Elsewhere("kernel::output_may_exceed_its_block")),
    ("output_beyond_memory", good(b"")),
    ("output_deep_json", Whatever),
    ("output_empty", good(b"")),
    ("output_framing_header", Whatever),
    ("output_freed", Whatever),
    ("output_garbage", Whatever),
    ("output_header_injection", Whatever),
    ("output_header_name", Whatever),
    ("output_huge", OOM),
    ("output_in_root", good(b"")),
    ("output_length_max", good(b"")),
    ("output_length_wraps", good(b"")),
    ("output_none", good(b"")),
    ("output_not_utf8", Whatever),
    ("output_null", good(b"")),
    ("output_pointer_max", good(b"")),
    ("output_trailing", Whatever),
    ("output_unknown_action", Whatever),
    ("output_unknown_key", Whatever),
    ("output_unknown_verdict", Whatever),
    ("recursion", traps("call stack exhausted")),
    ("recursion_host", Elsewhere("host::calls_may_not_nest_without_end")),
    ("recursion_start", Refused(ErrorKind::Start(Fault::Trap), "call stack exhausted")),
    ("reset_inside_call", Whatever),
    ("return_negative", code(-5)),
    ("return_nothing", good(b"")),
    ("return_seven", code(7)),
    ("return_zero", good(b"")),
    ("run_is_global", fails(Fault::Protocol, "Function not found: run")),
    ("run_is_memory", fails(Fault::Protocol, "Function not found: run")),
    ("run_returns_f64", code(-1)),
    ("run_returns_i64", code(-1)),
    ("run_returns_reference", code(-1)),
    ("run_returns_two", fails(Fault::Protocol, "Function run has 2 results, expected 0 or 1")),
    ("run_takes_params", fails(Fault::Protocol, "expected 1 arguments, got 0")),
    ("sleep_long", TIMEOUT),
    ("start_and_initialize", good(b"1")),
    ("start_logs", good(b"")),
    ("start_loops", LATE),
    ("start_reads_config", good(b"x")),
    ("start_sends_http", Refused(ErrorKind::Start(Fault::Denied), NOT_ALLOWED)),
    ("start_sets_var", good(b"v")),
    ("start_traps", Refused(ErrorKind::Start(Fault::Trap), "unreachable")),
    ("table_bomb", code(1)),
    ("table_min_huge", Refused(ErrorKind::Start(Fault::Memory), "oom: its tables may have 100000 elements")),
    ("trap_after_output", End::Report(134, Some("unreachable"), b"words", Some(Fault::Trap))),
    ("trap_division", traps("integer divide by zero")),
    ("trap_indirect_call", traps("indirect call type mismatch")),
    ("trap_out_of_bounds", traps("out of bounds memory access")),
    ("trap_unreachable", traps("error while executing at wasm backtrace:\n")),
    ("var_key_not_utf8", NOT_UTF8),
    ("var_set_huge", fails(Fault::Memory, "Variable store is full")),
    ("var_set_many", fails(Fault::Memory, "Variable store is full")),
    ("var_value_non_handle", NO_HANDLE),
];

fn load(linkage: Linkage, name: &str, end: End) -> PluginBuilder {
    let module = std::fs::read(guests().join("hostile").join(name).with_extension("wat")).unwrap();
    // Only what is meant to run into it gets a short deadline: the machine may be busy.
    let deadline = match end {
        End::Report(_, _, _, Some(Fault::Deadline))
        | Refused(ErrorKind::Start(Fault::Deadline), _)
        | Whatever => Duration::from_millis(250),
        _ => GENEROUS,
    };
    let limits = cardan::Limits { start_deadline: deadline, ..within(deadline) };
    linkage.plugin(&module).limits(limits).config("k", "xyz").log(Recorder::at(Some(LogLevel::Trace)))
}

fn check(linkage: Linkage, name: &str, end: End) -> Result<(), String> {
    let plugin = match (end, load(linkage, name, end).load()) {
        (Elsewhere(test), _) => return is_there(test),
        (Refused(kind, why), Err(error)) if error.kind() == kind && error.message().contains(why) => {
            return Ok(());
        }
        (Refused(..), Ok(_)) => return Err("it loads".to_owned()),
        (_, Err(error)) => return Err(format!("does not load: {error:?}")),
        (_, Ok(plugin)) => plugin,
    };
    let mut instance = plugin.instance().map_err(|error| error.to_string())?;
    for call in ["first", "second"] {
        check_report(end, &instance.call("run", "input")).map_err(|why| format!("{call} call: {why}"))?;
    }
    let fresh = plugin.call("run", "input").map_err(|error| error.fault());
    match end {
        End::Report(_, _, output, None) if fresh.as_deref() != Ok(output) => Err(format!("fresh: {fresh:?}")),
        End::Report(_, _, _, Some(fault)) if fresh != Err(fault) => Err(format!("fresh: {fresh:?}")),
        _ => Ok(()),
    }
}

fn check_report(end: End, report: &Report) -> Result<(), String> {
    let End::Report(code, error, output, fault) = end else { return Ok(()) };
    let error_fits = match (error, &report.error) {
        (None, None) => true,
        (Some(part), Some(error)) => error.contains(part),
        _ => false,
    };
    let fits = error_fits && (report.code, report.fault) == (code, fault) && report.output == output;
    if fits { Ok(()) } else { Err(format!("{report:?}")) }
}

#[test]
fn each_ends_as_its_row_says() {
    let friend = prebuilt("echo").load().unwrap();
    let mut wrong = Vec::new();
    for linkage in Linkage::BOTH {
        for &(name, end) in ROWS {
            if let Err(why) = check(linkage, name, end) {
                wrong.push(format!("{name} {linkage:?}: expected {end:?}\n    {why}"));
            }
            assert_eq!(friend.call("echo", name).unwrap(), name.as_bytes(), "after {name}");
        }
    }
    assert!(wrong.is_empty(), "{} rows fail:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_file_has_a_row() {
    let mut rows: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    rows.sort_unstable();
    assert_eq!(files("hostile"), rows);
}

#[test]
fn none_of_them_is_taken_for_anything_else_by_inspection() {
    for (name, end) in ROWS {
        let module = std::fs::read(guests().join("hostile").join(name).with_extension("wat")).unwrap();
        let inspected = engine().plugin(module).inspect();
        // Only what is said of a module's own form can be told without compiling it.
        let readable = !matches!(end, Refused(ErrorKind::Format, _));
        assert!(inspected.is_ok() || !readable, "{name}: {inspected:?}");
    }
}

/// Whether the test that a row refers to exists.
fn is_there(test: &str) -> Result<(), String> {
    let missing = || format!("there is no test {test}");
    let (module, name) = test.split_once("::").ok_or_else(missing)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(module).with_extension("rs");
    let source = std::fs::read_to_string(file).map_err(|_| missing())?;
    if source.contains(&format!("fn {name}(")) { Ok(()) } else { Err(missing()) }
}
