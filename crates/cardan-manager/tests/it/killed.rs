//! Killed at any moment, a process leaves a set that was complete.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cardan_manager::{CanaryPlan, Manager, Owner, PluginSpec, StateDir};
use serde_json::json;

use crate::support::{answering, ask_request, engine, request, told};

/// Where the child works. It is this program again, with this variable.
const CHILD: &str = "CARDAN_TEST_KILLED_IN";
/// How often a child is killed.
const KILLS: u64 = 60;

fn spec(name: &str, dir: &Path) -> PluginSpec {
    let spec = PluginSpec::new(name, dir.join(format!("{name}.wat")));
    PluginSpec { owner: Owner::Operator, ..spec }
}

fn write(dir: &Path, name: &str, stamp: u64) {
    let field = format!("x-{name}");
    let verdict = json!({"verdict": "continue", "edits": {"headers": {field: stamp.to_string()}}});
    let fresh = dir.join("fresh");
    std::fs::write(&fresh, answering(&verdict.to_string())).unwrap();
    std::fs::rename(fresh, dir.join(format!("{name}.wat"))).unwrap();
}

/// What visits see of the two plugins; `-` where there is none.
fn seen(manager: &Manager) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut event = request("{}");
    let told = runtime.block_on(async { told(&ask_request(&mut manager.open(None), &mut event).await) });
    let stamp = |name| event.headers.get(name).unwrap_or("-").to_owned();
    format!("{told} {} {}", stamp("x-a"), stamp("x-b"))
}

fn restarted(dir: &Path) -> Manager {
    let manager = Manager::with_state(engine(), 17, StateDir::open(&dir.join("state")).unwrap());
    let restored = manager.restore().unwrap();
    assert!(restored.lost.is_empty(), "{restored:?}");
    manager
}

/// The child: changes one thing after the other for ever, and says before and after each what visits see.
#[test]
fn child() {
    #[expect(clippy::disallowed_methods, reason = "how this program knows that it is the child")]
    let Ok(dir) = std::env::var(CHILD) else { return };
    let dir = Path::new(&dir);
    let manager = restarted(dir);
    let mut out = std::io::stdout();
    let mut say =
        |word: &str, seen: &str| writeln!(out, "\n{word} {seen}").and_then(|()| out.flush()).unwrap();
    say("is", &seen(&manager));
    let first = u64::from(std::process::id()) * 1_000;
    for n in first.. {
        let name = if n % 2 == 0 { "a" } else { "b" };
        write(dir, name, n);
        say("next", "");
        match n % 7 {
            _ if manager.plugin(name).is_err() => drop(manager.install(&spec(name, dir)).unwrap()),
            0 if n % 35 == 0 => manager.remove(name).unwrap(),
            1 => drop(manager.rollback(name, None)),
            2 => drop(manager.disable(name)),
            3..=5 if manager.plugins().iter().any(|plugin| !plugin.enabled) => {
                ["a", "b"].into_iter().for_each(|name| drop(manager.enable(name)));
            }
            4 => {
                let plan = CanaryPlan { share: 1, ..CanaryPlan::default() };
                drop(manager.start_canary(name, plan).and_then(|_| manager.promote_canary(name)));
            }
            _ => drop(manager.reload(name).unwrap()),
        }
        say("is", &seen(&manager));
    }
}

/// Kills a child some time after it has made so many changes, however long they took. What the child said last: what visits saw, and whether it was changing something.
fn run_and_kill(dir: &Path, changes: u64, after: Duration) -> (String, bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut is, mut changing) = (None, false);
    let mut note = |line: String| {
        if let Some(seen) = line.strip_prefix("is ") {
            (is, changing) = (Some(seen.to_owned()), false);
        } else if line.starts_with("next ") {
            changing = true;
        }
    };
    let mut seen = 0;
    while seen <= changes {
        let line = lines.next().expect("the child has ended").unwrap();
        seen += u64::from(line.starts_with("is "));
        note(line);
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.map_while(Result::ok).for_each(note);
    (is.unwrap(), changing)
}

#[test]
fn killed_at_sixty_moments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut idle, mut served) = (0, 0);
    for n in 0..KILLS {
        // A moment within some changes, each of which takes some milliseconds, or tens of them.
        let after = Duration::from_micros(n * 7_919 % 200_000);
        let (is, changing) = run_and_kill(dir.path(), n % 3, after);
        let manager = restarted(dir.path());
        let now = seen(&manager);
        assert!(now.starts_with("done "), "{now}");
        if !changing {
            assert_eq!(now, is, "killed {after:?} after the start, with nothing under way");
            idle += 1;
        }
        served += usize::from(now != "done - -");
        // What is remembered can be changed on.
        for plugin in manager.plugins() {
            let artifact = dir.path().join("state/artifacts").join(&plugin.active.digest);
            assert_eq!(cardan::file_digest(&artifact), Some(plugin.active.digest));
        }
    }
    assert!(served > KILLS as usize / 2, "{served}");
    assert!(idle < KILLS as usize, "every child was killed between two changes");
}
