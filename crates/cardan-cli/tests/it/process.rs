//! The binary as a child process: run to its end, or serving until it is dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// One of the prebuilt guests.
pub(crate) fn guest(name: &str) -> PathBuf {
    root().join("guests/prebuilt").join(name)
}

/// The command, with a cache that all tests share and nothing else of the machine's.
pub(crate) fn cardan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardan"));
    command
        .env_remove("CARDAN_LOG")
        .env_remove("CARDAN_SERVER")
        .env_remove("CARDAN_TOKEN")
        .env_remove("CARDAN_TOKEN_FILE")
        .env("CARDAN_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"))
        .env_remove("STATE_DIRECTORY")
        .env("XDG_STATE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("state"))
        // A backtrace in what it prints means that it panicked.
        .env("RUST_BACKTRACE", "1");
    command
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs to its end with this on standard input.
#[track_caller]
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Finished {
    let began = Instant::now();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = pid(&child);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // What does not read its input closes the pipe, which is its right.
    thread::spawn(move || _ = stdin.write_all(&input));
    let (done, finished) = channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    let Ok(output) = finished.recv_timeout(PATIENCE) else {
        _ = kill_process(pid, Signal::KILL);
        panic!("{command:?} has not ended after {PATIENCE:?}");
    };
    Finished {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    }
}

/// A gateway; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    /// Closed when the process closes its output.
    output: Receiver<String>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Server {
    pub(crate) fn serve(config: &Path) -> Self {
        Self::start(cardan().args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config))
    }

    /// Starts it and waits until clients can connect.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = read_log(child.stderr.take().unwrap());
        let output = read_output(child.stdout.take().unwrap());
        let line = output.recv_timeout(PATIENCE);
        let address = line.as_ref().ok().and_then(|line| line.strip_prefix("listening on http://"));
        let Some(address) = address.and_then(|address| address.parse().ok()) else {
            _ = child.kill();
            _ = child.wait();
            panic!("{command:?} does not listen: {line:?}\n{}", log.lines.lock().unwrap().join("\n"));
        };
        Self { child, address, log, output }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
    }

    /// How many lines it has logged so far.
    pub(crate) fn logged(&self) -> usize {
        self.log.lines.lock().unwrap().len()
    }

    /// Waits for a log line, at or after the `from`th, that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for(&self, from: usize, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().skip(from).find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no log line says {text:?}:\n{}", lines.join("\n"));
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits until it has ended by itself, and gives its exit code and log.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "it has not ended after {PATIENCE:?}:\n{}", self.log());
        let status = self.child.wait().unwrap();
        (status.code(), self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

fn read_log(stderr: ChildStderr) -> Arc<Log> {
    let log = Arc::new(Log::default());
    let written = log.clone();
    thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            written.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            written.grown.notify_all();
        }
    });
    log
}

fn read_output(stdout: ChildStdout) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Read on when nobody listens any more, so that the process is never stopped by a full pipe.
            _ = send.send(line);
        }
    });
    receive
}
