//! HeliosProxy's dialect over its convention: the plugins it came with where they do it, guests of a few lines where
//! none does.

use cardan::api::access::{AccessAuthenticate, Denial, Identity, LoginAnswer, LoginEvent};
use cardan::api::http::Headers;
use cardan::api::sql::{QueryAnswer, QueryEvent, ResultEvent, SqlQuery, SqlResult};
use cardan::api::{Flow, Hook, InstanceMode, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{Abi, Dialect, Error, Fault, Grants, LogLevel, Plugin};
use serde_json::{Value, json};

use crate::probe::{Bytes, Does, LONG, Wrong, probe};
use crate::support::{
    LARGE, UNICODE, VISIT, Visit, counts, fails, granted, limits, plugin, prebuilt, refused, roomy, store,
    stored,
};
use crate::table::{Behaviour, Cell, Column, Family};

const NO_HEAD: &str = "A statement has no head.";
const OBSERVER: &str = "Observers change and answer nothing: what `post_query` returns is dropped.";
const LOGIN: &str = "A login is answered, not edited.";

pub(crate) fn family() -> Family {
    Family {
        title: "HeliosProxy's dialect",
        guests: "`guests/fixtures/helios-plugins`: `cost-governor`, `column-mask`, `ai-classifier`, `audit-chain`, `custom-auth`; for what none of them does, guests of a few lines (`probe.rs`).",
        columns: vec![
            Column::new("packed", "sql.query", query),
            Column::new("packed", "sql.result", result),
            Column::new("packed", "access.authenticate", authenticate),
        ],
    }
}

/// A plugin that HeliosProxy came with.
fn original(name: &str, grants: Grants) -> Plugin {
    let plugin = prebuilt(&format!("helios-{name}")).grants(grants).limits(roomy()).load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Packed, Some(Dialect::HeliosProxy)));
    plugin
}

fn small(entry: &str, mode: InstanceMode, does: Does<'_>) -> Plugin {
    let module = probe(Bytes::Packed, entry, does);
    let builder = plugin(module.as_bytes()).grants(granted()).mode(mode).keep_log(LogLevel::Info);
    let plugin = builder.limits(limits()).load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Packed, Some(Dialect::HeliosProxy)));
    plugin
}

fn identity() -> Identity {
    Identity {
        user_id: "u-7".to_owned(),
        username: "zoe".to_owned(),
        roles: vec!["reader".to_owned()],
        tenant_id: Some("acme".to_owned()),
    }
}

fn statement(sql: &str) -> QueryEvent {
    QueryEvent {
        sql: sql.to_owned(),
        normalized: sql.to_owned(),
        client: "192.0.2.1:4711".to_owned(),
        identity: Some(identity()),
        ..QueryEvent::default()
    }
}

fn ask<H: Spoken>(plugin: &Plugin, visit: &mut Visit, event: &H::Event) -> Result<Verdict<H>, Error> {
    visit.ask(plugin, Phase::PreFlight, event)
}

/// The statement that plugins leave.
fn rewritten(plugin: &Plugin, visit: &mut Visit, sql: &str) -> String {
    let mut event = statement(sql);
    let verdict = ask::<SqlQuery>(plugin, visit, &event).unwrap();
    assert_eq!(verdict.flow, Flow::Continue);
    SqlQuery::apply(&mut event, verdict.edits);
    event.sql
}

/// What goes wrong alike at every hook: with a long event it does, with a short one it does not.
fn wrong<H: Spoken>(entry: &str, row: Behaviour, event: impl Fn(&str) -> H::Event) -> Cell {
    let (fault, wrong, mut visit) = match row {
        Behaviour::Trap => (Fault::Trap, Wrong::Traps, Visit::new()),
        Behaviour::Deadline => (Fault::Deadline, Wrong::Loops, Visit::hurried()),
        _ => (Fault::Memory, Wrong::Grows, Visit::new()),
    };
    let plugin = small(entry, InstanceMode::Fresh, Does::Fails(wrong, ""));
    let bad = ask::<H>(&plugin, &mut visit, &event(&"x".repeat(LONG)));
    fails(fault, bad, || ask::<H>(&plugin, &mut Visit::new(), &event("x")))
}

fn garbage<H: Spoken>(entry: &str, event: &H::Event) -> Cell {
    for document in [&b"{\"action\":"[..], b"{\"action\":\"blok\"}", b"[1]", b"\xff\xfe"] {
        let plugin = small(entry, InstanceMode::Fresh, Does::Answers(document));
        refused(Fault::Protocol, ask::<H>(&plugin, &mut Visit::new(), event));
    }
    Cell::Pass
}

/// A guest that masks `ssn` in `people`.
fn mask() -> Plugin {
    let plugin = original("column-mask", granted());
    let rule = json!({"table": "people", "column": "ssn", "mask_function": "mask"});
    store(&plugin, "rules", &json!([rule]));
    plugin
}

fn governor(grants: Grants) -> Plugin {
    let plugin = original("cost-governor", grants);
    store(&plugin, "tenant:acme:budget", &json!({"day": 1.0}));
    plugin
}

fn query(row: Behaviour) -> Cell {
    const ENTRY: &str = "pre_query";
    match row {
        Behaviour::Continue => {
            let sql = rewritten(&original("ai-classifier", granted()), &mut Visit::new(), "SELECT 1");
            assert_eq!(sql, "SELECT 1");
            Cell::Pass
        }
        Behaviour::EditHead => Cell::Cannot(NO_HEAD),
        Behaviour::EditBody => {
            let sql = rewritten(&mask(), &mut Visit::new(), "SELECT ssn FROM people");
            assert_eq!(sql, "SELECT mask(ssn) AS ssn FROM people");
            Cell::Pass
        }
        Behaviour::Stop => stop_query(ENTRY),
        Behaviour::VisitState | Behaviour::CallState => {
            let load = |mode| small(ENTRY, mode, Does::Counts(r##"{"action":"rewrite","sql":"#"}"##));
            counts(row, load, |plugin, visit| rewritten(plugin, visit, "SELECT 1"))
        }
        Behaviour::Capability => {
            let plugin = governor(granted());
            let event = statement("SELECT 1");
            let pre_query = || ask::<SqlQuery>(&plugin, &mut Visit::new(), &event).unwrap().flow;
            assert_eq!(pre_query(), Flow::Continue, "nothing is spent yet");
            let spent = ResultEvent { query: event.clone(), elapsed_us: 2_000_000, ..ResultEvent::default() };
            ask::<SqlResult>(&plugin, &mut Visit::new(), &spent).unwrap();
            assert!(matches!(pre_query(), Flow::Stop(QueryAnswer::Refuse(_))), "the budget is spent");
            Cell::Pass
        }
        Behaviour::Denied => {
            let plugin = governor(Grants::default());
            refused(Fault::Denied, ask::<SqlQuery>(&plugin, &mut Visit::new(), &statement("SELECT 1")))
        }
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => wrong::<SqlQuery>(ENTRY, row, statement),
        Behaviour::Garbage => garbage::<SqlQuery>(ENTRY, &statement("SELECT 1")),
        Behaviour::Unicode => {
            let sql = rewritten(&mask(), &mut Visit::new(), &format!("SELECT ssn, '{UNICODE}' FROM people"));
            assert_eq!(sql, format!("SELECT mask(ssn) AS ssn, '{UNICODE}' FROM people"));
            Cell::Pass
        }
        Behaviour::Empty => {
            assert_eq!(rewritten(&mask(), &mut Visit::new(), ""), "");
            let silent = small(ENTRY, InstanceMode::Fresh, Does::Answers(b""));
            assert_eq!(rewritten(&silent, &mut Visit::new(), ""), "", "no answer is to go on");
            Cell::Pass
        }
        Behaviour::Large => {
            let rest = format!(", '{}' FROM people", "x".repeat(LARGE));
            let sql = rewritten(&mask(), &mut Visit::new(), &format!("SELECT ssn{rest}"));
            assert!(sql == format!("SELECT mask(ssn) AS ssn{rest}"), "{} bytes", sql.len());
            Cell::Pass
        }
    }
}

/// Both spellings of the tag, and a result in the database's place.
fn stop_query(entry: &str) -> Cell {
    for document in
        [r#"{"action":"block","reason":"over budget"}"#, r#"{"kind":"Block","value":"over budget"}"#]
    {
        let plugin = small(entry, InstanceMode::Fresh, Does::Answers(document.as_bytes()));
        let verdict = ask::<SqlQuery>(&plugin, &mut Visit::new(), &statement("SELECT 1")).unwrap();
        let Flow::Stop(QueryAnswer::Refuse(refusal)) = verdict.flow else {
            panic!("{document}: {verdict:?}")
        };
        assert_eq!(refusal.message, "over budget", "{document}");
    }
    let rows = br#"{"columns":[{"name":"id","oid":23}],"rows":[["1"]]}"#;
    let document = json!({"action": "cached", "data": rows.to_vec()}).to_string();
    let plugin = small(entry, InstanceMode::Fresh, Does::Answers(document.as_bytes()));
    let verdict = ask::<SqlQuery>(&plugin, &mut Visit::new(), &statement("SELECT 1")).unwrap();
    let Flow::Stop(QueryAnswer::Rows(rows)) = verdict.flow else { panic!("{verdict:?}") };
    assert_eq!(rows.rows, [[Some("1".to_owned())]]);
    Cell::Pass
}

/// Writes a record of each statement.
fn audited(statements: &[&str]) -> (Plugin, Vec<Value>) {
    let plugin = original("audit-chain", granted());
    for sql in statements {
        let event = ResultEvent { query: statement(sql), is_success: true, ..ResultEvent::default() };
        let verdict = ask::<SqlResult>(&plugin, &mut Visit::new(), &event).unwrap();
        assert_eq!(verdict.flow, Flow::Continue);
    }
    let record = |index| serde_json::from_str(&stored(&plugin, &format!("record:{index}")).unwrap()).unwrap();
    let records = (0..statements.len()).map(record).collect();
    (plugin, records)
}

fn result(row: Behaviour) -> Cell {
    const ENTRY: &str = "post_query";
    let event = || ResultEvent { query: statement("SELECT 1"), ..ResultEvent::default() };
    match row {
        Behaviour::Continue => {
            let plugin = small(ENTRY, InstanceMode::Fresh, Does::Answers(b"whatever"));
            let verdict = ask::<SqlResult>(&plugin, &mut Visit::new(), &event()).unwrap();
            assert!(verdict.flow == Flow::Continue && verdict.attributes.is_empty());
            Cell::Pass
        }
        Behaviour::EditHead | Behaviour::EditBody | Behaviour::Stop | Behaviour::Garbage => {
            Cell::Cannot(OBSERVER)
        }
        Behaviour::VisitState | Behaviour::CallState => {
            let load = |mode| small(ENTRY, mode, Does::Logs);
            counts(row, load, |plugin, visit| {
                ask::<SqlResult>(plugin, visit, &event()).unwrap();
                let tail = format!("{:?}", plugin.log_tail(0, 100));
                let at = tail.rfind("call ").unwrap() + "call ".len();
                tail[at..=at].to_owned()
            })
        }
        Behaviour::Capability => {
            let (plugin, records) = audited(&["SELECT 1", "SELECT 2"]);
            assert_eq!(
                (&records[0]["prev_hash"], &records[0]["timestamp"]),
                (&json!("GENESIS"), &json!(VISIT))
            );
            assert_eq!(records[1]["seq"], 1);
            let tail = stored(&plugin, "tail_hash").unwrap();
            assert!(tail.len() == 64 && records[1]["prev_hash"] != json!(tail), "{records:?}");
            Cell::Pass
        }
        Behaviour::Denied => {
            let plugin = original("audit-chain", Grants::default());
            refused(Fault::Denied, ask::<SqlResult>(&plugin, &mut Visit::new(), &event()))
        }
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => {
            let event = |sql: &str| ResultEvent { query: statement(sql), ..ResultEvent::default() };
            wrong::<SqlResult>(ENTRY, row, event)
        }
        Behaviour::Unicode => {
            let (_, records) = audited(&[&format!("SELECT '{UNICODE}'"), "SELECT ''"]);
            assert_ne!(records[0]["query_fingerprint"], records[1]["query_fingerprint"]);
            Cell::Pass
        }
        Behaviour::Empty => {
            let (_, records) = audited(&[""]);
            // SHA-256 of nothing.
            let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            assert_eq!(records[0]["query_fingerprint"], of_nothing);
            Cell::Pass
        }
        Behaviour::Large => {
            let (_, records) = audited(&[&"x".repeat(LARGE)]);
            assert_eq!(records[0]["success"], true);
            Cell::Pass
        }
    }
}

fn login(username: &str, fields: &[(&str, &str)]) -> LoginEvent {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    LoginEvent {
        client: "192.0.2.1:4711".to_owned(),
        username: Some(username.to_owned()),
        headers: Headers(fields.collect()),
        ..LoginEvent::default()
    }
}

fn answer(plugin: &Plugin, visit: &mut Visit, event: &LoginEvent) -> LoginAnswer {
    let verdict = ask::<AccessAuthenticate>(plugin, visit, event).unwrap();
    let Flow::Stop(answer) = verdict.flow else { panic!("expected an answer: {verdict:?}") };
    answer
}

/// Whom a guest that says so takes a client for.
fn user(plugin: &Plugin, visit: &mut Visit, event: &LoginEvent) -> String {
    match answer(plugin, visit, event) {
        LoginAnswer::Identity(identity) => identity.user_id,
        LoginAnswer::Deny(denial) => panic!("expected an identity: {denial:?}"),
    }
}

fn success(user: &str) -> String {
    json!({"action": "success", "identity": {"user_id": user}}).to_string()
}

fn authenticate(row: Behaviour) -> Cell {
    const ENTRY: &str = "authenticate";
    let fresh = |does: Does<'_>| small(ENTRY, InstanceMode::Fresh, does);
    let client = || login("zoe", &[]);
    match row {
        Behaviour::Continue => {
            let plugin = fresh(Does::Answers(br#"{"action":"defer"}"#));
            let verdict = ask::<AccessAuthenticate>(&plugin, &mut Visit::new(), &client()).unwrap();
            assert!(verdict.flow == Flow::Continue && verdict.attributes.is_empty());
            Cell::Pass
        }
        Behaviour::EditHead | Behaviour::EditBody => Cell::Cannot(LOGIN),
        Behaviour::Stop => {
            let identity =
                json!({"user_id": "u-7", "username": "zoe", "roles": ["reader"], "tenant_id": "acme"});
            let document = json!({"action": "success", "identity": identity}).to_string();
            let found = answer(&fresh(Does::Answers(document.as_bytes())), &mut Visit::new(), &client());
            assert_eq!(found, LoginAnswer::Identity(self::identity()));
            let denied = br#"{"kind":"Denied","reason":"no such user"}"#;
            let found = answer(&fresh(Does::Answers(denied)), &mut Visit::new(), &client());
            assert_eq!(found, LoginAnswer::Deny(Denial { message: "no such user".to_owned() }));
            Cell::Pass
        }
        Behaviour::VisitState | Behaviour::CallState => {
            let document = success("#");
            let load = |mode| small(ENTRY, mode, Does::Counts(&document));
            counts(row, load, |plugin, visit| user(plugin, visit, &client()))
        }
        Behaviour::Capability => {
            let document = success("kept");
            assert_eq!(user(&fresh(Does::Keeps(&document)), &mut Visit::new(), &client()), "kept");
            Cell::Pass
        }
        Behaviour::Denied => {
            let plugin = original("custom-auth", Grants::default());
            let bad = login("zoe", &[("x-custom-token", "t")]);
            let bad = ask::<AccessAuthenticate>(&plugin, &mut Visit::new(), &bad);
            fails(Fault::Denied, bad, || ask::<AccessAuthenticate>(&plugin, &mut Visit::new(), &client()))
        }
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => {
            wrong::<AccessAuthenticate>(ENTRY, row, |name| login(name, &[]))
        }
        Behaviour::Garbage => garbage::<AccessAuthenticate>(ENTRY, &client()),
        Behaviour::Unicode => {
            let document = success(UNICODE);
            let plugin = fresh(Does::Answers(document.as_bytes()));
            assert_eq!(user(&plugin, &mut Visit::new(), &login(UNICODE, &[("x-name", UNICODE)])), UNICODE);
            Cell::Pass
        }
        Behaviour::Empty => {
            let event = LoginEvent::default();
            let verdict = ask::<AccessAuthenticate>(&fresh(Does::Answers(b"")), &mut Visit::new(), &event);
            assert_eq!(verdict.unwrap().flow, Flow::Continue, "no answer is to defer");
            Cell::Pass
        }
        Behaviour::Large => {
            let document = success("u-7");
            let plugin = fresh(Does::Answers(document.as_bytes()));
            assert_eq!(
                user(&plugin, &mut Visit::new(), &login("zoe", &[("x-token", &"x".repeat(LARGE))])),
                "u-7"
            );
            Cell::Pass
        }
    }
}
