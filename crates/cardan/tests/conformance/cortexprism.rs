//! CortexPrism's dialect over its convention, in both of its interfaces: one export for each capability, and all
//! tools behind one export.

use cardan::api::tool::{ToolAnswer, ToolCall, ToolCallEvent, ToolOutput};
use cardan::api::{Flow, InstanceMode, Phase};
use cardan::{Abi, Dialect, Error, Fault, Grants, Plugin};
use serde_json::{Value, json};

use crate::probe::{Bytes, Does, LONG, Wrong, probe};
use crate::support::{
    LARGE, UNICODE, Visit, counts, fails, granted, limits, plugin, prebuilt, refused, roomy,
};
use crate::table::{Behaviour, Cell, Column, Family};

const ANSWERED: &str = "A call of a tool is answered, and there is nothing to edit or to go on to.";
const BUFFER: &str = "Ten million bytes of arguments go in, which is checked. A result has the room that there is in the host's buffer, 64 KiB.";

pub(crate) fn family() -> Family {
    Family {
        title: "CortexPrism's dialect",
        guests: "`guests/fixtures/transform-*` in Rust, C, Zig, Go and AssemblyScript (A: an export for each tool), `guests/fixtures/tools-c` with three kinds of memory (B: tools behind `plugin_execute_tool`); for what none of them does, guests of a few lines (`probe.rs`).",
        columns: vec![
            Column::new("capability A", "tool.call", exports),
            Column::new("capability B", "tool.call", dispatched),
        ],
    }
}

fn transform(language: &str) -> Plugin {
    let plugin = prebuilt(&format!("transform-{language}")).limits(roomy()).load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Capability, Some(Dialect::CortexPrism)));
    plugin
}

fn ask(plugin: &Plugin, visit: &mut Visit, tool: &str, arguments: &Value) -> Result<ToolAnswer, Error> {
    let event = ToolCallEvent { tool: tool.to_owned(), arguments: arguments.to_string().into() };
    let verdict = visit.ask::<ToolCall>(plugin, Phase::PreFlight, &event)?;
    match verdict.flow {
        Flow::Stop(answer) => Ok(answer),
        Flow::Continue => panic!("a tool is called, and it goes on"),
    }
}

/// The text in what the transformer made.
fn transformed(plugin: &Plugin, mode: &str, text: &str) -> String {
    let arguments = json!({"text": text, "mode": mode});
    let answer = ask(plugin, &mut Visit::new(), "transform", &arguments).unwrap();
    let ToolAnswer::Done(ToolOutput::Json(json)) = answer else { panic!("expected JSON: {answer:?}") };
    let output: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(output["length"], output["result"].as_str().unwrap().len());
    output["result"].as_str().unwrap().to_owned()
}

fn small(interface: Bytes, mode: InstanceMode, grants: Grants, does: Does<'_>) -> Plugin {
    let module = probe(interface, "run", does);
    let plugin = plugin(module.as_bytes()).grants(grants).mode(mode).limits(limits()).load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Capability, Some(Dialect::CortexPrism)));
    plugin
}

fn run(plugin: &Plugin, visit: &mut Visit) -> Result<String, Error> {
    Ok(match ask(plugin, visit, "run", &json!({}))? {
        ToolAnswer::Done(ToolOutput::Json(json)) => String::from_utf8(json.to_vec()).unwrap(),
        other => panic!("expected JSON: {other:?}"),
    })
}

fn exports(row: Behaviour) -> Cell {
    let fresh = |does: Does<'_>| small(Bytes::Capability, InstanceMode::Fresh, granted(), does);
    match row {
        Behaviour::Continue | Behaviour::EditHead | Behaviour::EditBody => Cell::Cannot(ANSWERED),
        Behaviour::Stop => {
            for language in ["rust", "c", "zig", "go", "as"] {
                assert_eq!(transformed(&transform(language), "reverse", "hello"), "olleh", "{language}");
            }
            Cell::Pass
        }
        Behaviour::Capability => {
            assert_eq!(run(&fresh(Does::Keeps(r#""kept""#)), &mut Visit::new()).unwrap(), r#""kept""#);
            Cell::Pass
        }
        Behaviour::Denied => {
            let plugin = small(Bytes::Capability, InstanceMode::Fresh, Grants::default(), Does::Keeps("1"));
            refused(Fault::Denied, run(&plugin, &mut Visit::new()))
        }
        Behaviour::VisitState
        | Behaviour::CallState
        | Behaviour::Trap
        | Behaviour::Deadline
        | Behaviour::Memory => memory(Bytes::Capability, row),
        Behaviour::Garbage => {
            // Text of no known length: neither JSON up to a NUL byte, nor behind a length that fits.
            for result in [&b"\xff\xff\xff\x7f{}"[..], b"\x02\x00\x00\x00\xff\xfe", b"\xff\xfe"] {
                refused(Fault::Protocol, run(&fresh(Does::Answers(result)), &mut Visit::new()));
            }
            Cell::Pass
        }
        Behaviour::Unicode => {
            for language in ["rust", "c", "zig", "go", "as"] {
                let turned: String = UNICODE.chars().rev().collect();
                assert_eq!(transformed(&transform(language), "reverse", UNICODE), turned, "{language}");
            }
            Cell::Pass
        }
        Behaviour::Empty => {
            for language in ["rust", "c", "zig", "go", "as"] {
                assert_eq!(transformed(&transform(language), "reverse", ""), "", "{language}");
            }
            Cell::Pass
        }
        Behaviour::Large => {
            let result = transformed(&transform("rust"), "uppercase", &"x".repeat(LARGE));
            assert!(result == "X".repeat(LARGE), "{} bytes", result.len());
            Cell::Pass
        }
    }
}

/// Memory that is kept, and running out of it: alike in both interfaces.
fn memory(interface: Bytes, row: Behaviour) -> Cell {
    let load = |mode, does| small(interface, mode, granted(), does);
    let (fault, wrong, mut visit) = match row {
        Behaviour::VisitState | Behaviour::CallState => {
            let load = |mode| load(mode, Does::Counts("#"));
            return counts(row, load, |plugin, visit| run(plugin, visit).unwrap());
        }
        Behaviour::Trap => (Fault::Trap, Wrong::Traps, Visit::new()),
        Behaviour::Deadline => (Fault::Deadline, Wrong::Loops, Visit::hurried()),
        _ => (Fault::Memory, Wrong::Grows, Visit::new()),
    };
    let plugin = load(InstanceMode::Fresh, Does::Fails(wrong, "1"));
    let bad = ask(&plugin, &mut visit, "run", &json!({ "text": "x".repeat(LONG) }));
    fails(fault, bad, || run(&plugin, &mut Visit::new()))
}

/// Whose memory it is.
const MEMORIES: [&str; 3] = ["own", "imported", "shared"];

fn tools(memory: &str, mode: InstanceMode, grants: Grants) -> Plugin {
    let builder = prebuilt(&format!("tools-{memory}-memory")).grants(grants).mode(mode);
    let plugin = builder.load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Capability, Some(Dialect::CortexPrism)));
    plugin
}

/// Text that a tool has written.
fn said(plugin: &Plugin, visit: &mut Visit, tool: &str, arguments: &Value) -> Result<String, Error> {
    Ok(match ask(plugin, visit, tool, arguments)? {
        ToolAnswer::Done(ToolOutput::Text(text)) => text,
        ToolAnswer::Done(ToolOutput::Json(json)) => String::from_utf8(json.to_vec()).unwrap(),
        ToolAnswer::Failed(why) => panic!("{tool} failed: {why}"),
    })
}

fn dispatched(row: Behaviour) -> Cell {
    let all = || MEMORIES.map(|memory| tools(memory, InstanceMode::Fresh, granted()));
    let echo = |plugin: &Plugin, arguments: &Value| {
        let output = said(plugin, &mut Visit::new(), "echo", arguments).unwrap();
        assert!(output == format!("echo {arguments}"), "{} bytes", output.len());
    };
    let no = json!({});
    match row {
        Behaviour::Continue | Behaviour::EditHead | Behaviour::EditBody => Cell::Cannot(ANSWERED),
        Behaviour::Stop => {
            for plugin in all() {
                echo(&plugin, &json!({"text": "hello"}));
                let failed = ask(&plugin, &mut Visit::new(), "fail", &no).unwrap();
                assert_eq!(failed, ToolAnswer::Failed("it never works".to_owned()));
            }
            Cell::Pass
        }
        Behaviour::VisitState | Behaviour::CallState | Behaviour::Memory => memory(Bytes::Tools, row),
        Behaviour::Capability => {
            for plugin in all() {
                let counted = [(); 2].map(|()| said(&plugin, &mut Visit::new(), "count", &no).unwrap());
                assert_eq!(counted, ["1", "2"]);
            }
            Cell::Pass
        }
        Behaviour::Denied => {
            for memory in MEMORIES {
                let plugin = tools(memory, InstanceMode::Fresh, Grants::default());
                let bad = said(&plugin, &mut Visit::new(), "count", &no);
                fails(Fault::Denied, bad, || said(&plugin, &mut Visit::new(), "echo", &no));
            }
            Cell::Pass
        }
        Behaviour::Trap | Behaviour::Deadline => {
            for plugin in all() {
                let (fault, tool, mut visit) = match row {
                    Behaviour::Trap => (Fault::Trap, "trap", Visit::new()),
                    _ => (Fault::Deadline, "loop", Visit::hurried()),
                };
                let bad = said(&plugin, &mut visit, tool, &no);
                fails(fault, bad, || said(&plugin, &mut Visit::new(), "echo", &no));
            }
            Cell::Pass
        }
        Behaviour::Garbage => {
            for plugin in all() {
                let bad = said(&plugin, &mut Visit::new(), "lie", &no);
                fails(Fault::Protocol, bad, || said(&plugin, &mut Visit::new(), "echo", &no));
            }
            Cell::Pass
        }
        Behaviour::Unicode => {
            all().iter().for_each(|plugin| echo(plugin, &json!({ "text": UNICODE })));
            Cell::Pass
        }
        Behaviour::Empty => {
            all().iter().for_each(|plugin| echo(plugin, &no));
            Cell::Pass
        }
        Behaviour::Large => {
            let plugin = small(Bytes::Tools, InstanceMode::Fresh, granted(), Does::Answers(b"1"));
            let arguments = json!({ "text": "x".repeat(LARGE) });
            assert_eq!(said(&plugin, &mut Visit::new(), "run", &arguments).unwrap(), "1");
            Cell::Cannot(BUFFER)
        }
    }
}
