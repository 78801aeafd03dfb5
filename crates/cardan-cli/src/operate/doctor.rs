//! Finding out what is wrong, and what to do about it.

mod ports;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args::{Doctor, Form};
use super::remote::{Ask, Remote};
use super::table::{Table, cell, items, print};
use crate::output::Failure;

/// A clock that is off by more than this is worth a word.
const CLOCK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    Warn,
    Fail,
}

/// What was looked at, and what came of it.
struct Finding {
    check: &'static str,
    mark: Mark,
    found: String,
    /// What to do about it.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, mark: Mark::Ok, found: found.into(), advice: String::new() }
    }

    fn new(check: &'static str, mark: Mark, found: impl Into<String>, advice: &str) -> Self {
        Self { check, mark, found: found.into(), advice: advice.to_owned() }
    }
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

pub(super) async fn doctor(remote: &Remote, doctor: &Doctor) -> Result<(), Failure> {
    let mut findings = examine(remote).await;
    findings.extend(ports::examine(remote, doctor.config.as_deref()).await);
    let document: Vec<Value> = findings
        .iter()
        .map(|it| json!({ "check": it.check, "result": it.mark.word(), "found": it.found, "advice": it.advice }))
        .collect();
    let document = json!({ "checks": document });
    print(
        remote.form,
        &document,
        |it| super::table::names(it, "checks", "check"),
        |document| {
            let mut table = Table::new(&["CHECK", "RESULT", "FOUND", "WHAT TO DO"]);
            for it in items(document, "checks") {
                table.row(["check", "result", "found", "advice"].map(|key| cell(&it[key])));
            }
            table.text()
        },
    )?;
    let failed = findings.iter().filter(|it| it.mark == Mark::Fail).count();
    if failed == 0 {
        return Ok(());
    }
    let see = if remote.form == Form::Table { "see above" } else { "see the document" };
    Err(Failure::failed(format_args!("{failed} of {} checks failed; {see}", findings.len())))
}

async fn examine(remote: &Remote) -> Vec<Finding> {
    let mut findings = Vec::new();
    let health = match remote.ask(Ask::get(&["healthz"])).await {
        Ok(health) => health,
        Err(failure) => {
            let advice = "start `cardan serve`, or name its admin API with --server";
            findings.push(Finding::new("server", Mark::Fail, failure.to_string(), advice));
            return findings;
        }
    };
    findings.push(Finding::ok("server", remote.url().to_string()));
    findings.push(version(&health));
    findings.push(clock(remote).await);
    findings.extend(readiness(remote).await);
    match remote.ask(Ask::get(&["api", "v1", "plugins"])).await {
        Ok(plugins) => findings.extend(self::plugins(&plugins)),
        Err(failure) => {
            let advice = "give a token with --token-file or CARDAN_TOKEN";
            findings.push(Finding::new("token", Mark::Fail, failure.to_string(), advice));
            return findings;
        }
    }
    match remote.ask(Ask::get(&["api", "v1", "status"])).await {
        Ok(status) => findings.extend(process(&status)),
        Err(failure) => {
            findings.push(Finding::new("process", Mark::Warn, failure.to_string(), "update the server"))
        }
    }
    findings
}

fn version(health: &Value) -> Finding {
    let (theirs, ours) = (cell(&health["version"]), env!("CARGO_PKG_VERSION"));
    if theirs == ours {
        return Finding::ok("version", theirs);
    }
    let found = format!("the server is {theirs}, this command is {ours}");
    Finding::new("version", Mark::Warn, found, "use the command of the server's version")
}

async fn clock(remote: &Remote) -> Finding {
    let Ok(response) = remote.send(Ask::get(&["healthz"]), Some(CLOCK_MAX)).await else {
        return Finding::new("clock", Mark::Warn, "the server did not answer again", "see its log");
    };
    let date = response.headers().get("date").and_then(|date| date.to_str().ok()).and_then(http_date);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match date.map(|date| now.abs_diff(date)) {
        Some(apart) if apart <= CLOCK_MAX.as_secs() => Finding::ok("clock", "the same as here"),
        Some(apart) => Finding::new(
            "clock",
            Mark::Warn,
            format!("the server's is {apart} s from the one here"),
            "set both by NTP: traces and expiry go by them",
        ),
        None => Finding::new(
            "clock",
            Mark::Warn,
            "the server does not say its time",
            "use an admin API of Cardan",
        ),
    }
}

/// Seconds since 1970 of an HTTP date in its one current form (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| *known == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    // Days of the civil calendar, with years that begin in March.
    let (shifted_year, shifted_month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (153 * shifted_month + 2) / 5
        + day;
    Some((days.checked_sub(719_469)?) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

async fn readiness(remote: &Remote) -> Vec<Finding> {
    match remote.ask(Ask::get(&["readyz"])).await {
        Ok(_) => vec![Finding::ok("ready", "plugins are applied and clients are served")],
        Err(failure) => {
            let advice = "wait until plugins are loaded; if that lasts, see the server's log";
            vec![Finding::new("ready", Mark::Fail, failure.to_string(), advice)]
        }
    }
}

fn plugins(document: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut count = 0;
    for plugin in items(document, "plugins") {
        count += 1;
        let name = cell(&plugin["name"]);
        if plugin["state"] == "quarantined" {
            let advice =
                "see `cardan get visits NAME --fault any`; then reload, roll back, disable or release it";
            findings.push(Finding::new("plugin", Mark::Fail, format!("{name} is in quarantine"), advice));
        }
        if let Some(trouble) = plugin["trouble"].as_str() {
            let advice =
                "repair its file or its configuration, then reload it; the version before runs meanwhile";
            findings.push(Finding::new("plugin", Mark::Fail, trouble, advice));
        }
        if plugin["state"] == "disabled" {
            let advice = "enable it, if it shall be asked";
            findings.push(Finding::new("plugin", Mark::Warn, format!("{name} is switched off"), advice));
        }
        if plugin["canary"]["stopped"] == true {
            let advice = "see `cardan events`; repair the file and start another canary";
            findings.push(Finding::new(
                "plugin",
                Mark::Warn,
                format!("the canary of {name} was stopped"),
                advice,
            ));
        }
        let waiting = plugin["active"]["usage"]["waiting"].as_u64().unwrap_or(0);
        if waiting > 0 {
            let found = format!("{waiting} calls wait for an instance of {name}");
            let advice = "raise limits.instances of the plugin, or engine.instances";
            findings.push(Finding::new("pool", Mark::Warn, found, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("plugins", format!("{count} run as they should")));
    }
    findings
}

/// What the process says about where it runs.
fn process(status: &Value) -> Vec<Finding> {
    let state = &status["state_dir"];
    let mut findings = vec![match (state["path"].as_str(), state["problem"].as_str()) {
        (Some(path), None) => Finding::ok("state", format!("{path} can be written")),
        (Some(path), Some(problem)) => Finding::new(
            "state",
            Mark::Fail,
            format!("{path}: {problem}"),
            "make it writable: no change can be made before",
        ),
        (None, _) => Finding::new(
            "state",
            Mark::Warn,
            "there is no state directory",
            "set state: {dir: ...}: what is done through the admin API ends with the process",
        ),
    }];
    let cache = &status["cache_dir"];
    findings.push(match (cache["path"].as_str(), cache["problem"].as_str()) {
        (Some(path), None) => Finding::ok("cache", format!("{path} can be written")),
        (path, problem) => Finding::new(
            "cache",
            Mark::Warn,
            format!(
                "{}: {}",
                path.unwrap_or("no cache"),
                problem.unwrap_or("every start compiles every plugin")
            ),
            "name a directory that can be written with --cache-dir or CARDAN_CACHE_DIR",
        ),
    });
    for problem in items(status, "folder_problems") {
        let found = match problem["why"].as_str() {
            Some(why) => format!("{}: {why}", cell(&problem["path"])),
            None => format!("{} cannot be meant", cell(&problem["path"])),
        };
        let advice = "repair the file or take it out of the folder of plugins; the server's log says why";
        findings.push(Finding::new("folder", Mark::Warn, found, advice));
    }
    if status["tokens"] == false {
        let advice = "add tokens under admin.tokens, if others use this machine";
        findings.push(Finding::new(
            "access",
            Mark::Warn,
            "everybody on that machine may do everything",
            advice,
        ));
    } else {
        findings.push(Finding::ok("access", "tokens are asked for"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Tue, 29 Feb 2028 23:59:59 GMT"), Some(1_835_481_599));
        assert_eq!(http_date("yesterday"), None);
    }
}
