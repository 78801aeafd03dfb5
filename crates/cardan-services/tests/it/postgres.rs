//! A PostgreSQL server of our own: in a scratch directory, on a free port, gone with the test process.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for the server to be there.
const START: Duration = Duration::from_secs(60);
/// Where distributions keep the programs of servers, beside the search path.
const HOMES: [&str; 3] = ["/usr/lib/postgresql", "/usr/local/pgsql", "/usr/pgsql"];

/// A running server. It belongs to the user `postgres`, who needs no password.
pub(crate) struct Server {
    port: u16,
    child: Child,
    /// Deleted when the server is.
    _directory: tempfile::TempDir,
}

impl Server {
    /// The one server of this process.
    pub(crate) fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER
            .get_or_init(|| Self::start(&[], &[]).unwrap_or_else(|why| panic!("no PostgreSQL server: {why}")))
    }

    /// Starts one with these settings, such as `ssl=on`, and files for them in its directory.
    pub(crate) fn start(settings: &[&str], files: &[(&str, &[u8])]) -> Result<Self, String> {
        let programs = programs()?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let user = User::for_servers(directory.path())?;
        let data = directory.path().join("data");
        let made = user
            .command(&programs.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(directory.path())
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        for (name, content) in files {
            user.write(&data.join(name), content).map_err(|error| format!("{name}: {error}"))?;
        }
        // Somebody else may take the port before the server does: then it says so, and we try again.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
            let port = listener.local_addr().map_err(|error| error.to_string())?.port();
            drop(listener);
            let mut server = user.command(&programs.join("postgres"));
            server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F"]);
            server.arg("-k").arg(directory.path());
            for setting in settings {
                server.args(["-c", setting]);
            }
            let log = fs::File::create(directory.path().join("log")).map_err(|error| error.to_string())?;
            server.stdout(Stdio::null()).stderr(log).current_dir(directory.path());
            let mut child = spawn_for_good(server)?;
            if is_there(&mut child, port) {
                return Ok(Self { port, child, _directory: directory });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let mut log = String::new();
        let read =
            fs::File::open(directory.path().join("log")).and_then(|mut file| file.read_to_string(&mut log));
        Err(format!("it does not start: {log} {read:?}"))
    }

    /// The address of a database that is always there.
    pub(crate) fn address(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A server that no test waits for any more. Statics are not dropped: see [`User::command`].
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with `postgres` and `initdb`.
fn programs() -> Result<PathBuf, String> {
    let complete = |folder: &Path| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let mut folders: Vec<PathBuf> = Vec::new();
    for home in HOMES {
        let versions = fs::read_dir(home).into_iter().flatten().flatten();
        let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
        // The newest first.
        versions.sort();
        folders.extend(versions.into_iter().rev());
        folders.push(Path::new(home).join("bin"));
    }
    folders.extend(["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    folders
        .into_iter()
        .find(|folder| complete(folder))
        .ok_or_else(|| "it is not installed: on Debian, `apt-get install postgresql`".to_owned())
}

/// Starts a process from a thread that stays: to the kernel, the parent whose death ends the process is the
/// thread that started it, and a test's thread ends with the test.
fn spawn_for_good(mut command: Command) -> Result<Child, String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            std::thread::park();
        }
    });
    receiver.recv().map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// What a client says first (protocol 3.0).
const HELLO: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

/// Lets a client in: one that is still starting says so.
fn is_there(child: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < START {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return false;
        }
        let asked = std::net::TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(HELLO)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        });
        // An answer about authentication, and no error.
        if asked.is_ok_and(|answer| answer == *b"R") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Who the server runs as: it refuses to be root.
struct User(Option<u32>);

impl User {
    fn for_servers(directory: &Path) -> Result<Self, String> {
        let id = Command::new("id").arg("-u").output().map_err(|error| format!("id: {error}"))?;
        if String::from_utf8_lossy(&id.stdout).trim() != "0" {
            return Ok(Self(None));
        }
        let known = Command::new("id").args(["-u", "nobody"]).output();
        let known = known.map_err(|error| format!("id: {error}"))?;
        let nobody: u32 =
            String::from_utf8_lossy(&known.stdout).trim().parse().map_err(|_| "nobody is not there")?;
        std::os::unix::fs::chown(directory, Some(nobody), None).map_err(|error| error.to_string())?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(|error| error.to_string())?;
        Ok(Self(Some(nobody)))
    }

    /// A file that nobody else may read.
    fn write(&self, file: &Path, content: &[u8]) -> std::io::Result<()> {
        fs::write(file, content)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(file, self.0, None)
    }

    /// A program that ends with the process that started it, however that ends.
    fn command(&self, program: &Path) -> Command {
        // `setpriv` sets the signal of the parent's death, for which there is no safe call.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = self.0 {
            let user = user.to_string();
            command.args(["--reuid", &user, "--clear-groups"]);
        }
        command.arg("--").arg(program);
        // Its children are told by the server itself, and not by a terminal.
        command.process_group(0);
        command
    }
}
