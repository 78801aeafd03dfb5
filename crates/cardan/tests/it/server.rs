//! An HTTP server whose answer depends on the path alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

/// The address of the one server of this process, such as `http://127.0.0.1:4711`.
pub(crate) fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A client that hangs up is the test's business.
                std::thread::spawn(move || drop(serve(connection)));
            }
        });
        address
    })
}

/// The port of [`address`].
pub(crate) fn port() -> u16 {
    address().rsplit(':').next().unwrap().parse().unwrap()
}

struct Request {
    /// Everything before the body, as it was sent.
    head: String,
    path: String,
    body: Vec<u8>,
}

fn read(connection: &mut BufReader<TcpStream>) -> std::io::Result<Request> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    connection.read_exact(&mut body)?;
    Ok(Request { head, path, body })
}

fn serve(connection: TcpStream) -> std::io::Result<()> {
    let mut out = connection.try_clone()?;
    let mut connection = BufReader::new(connection);
    loop {
        let request = read(&mut connection)?;
        answer(&request, &mut out)?;
    }
}

fn answer(request: &Request, out: &mut TcpStream) -> std::io::Result<()> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut segments = path[1..].split('/');
    let mut plain = |status: &str, fields: &str, body: &[u8]| {
        let length = body.len();
        let body = if request.head.starts_with("HEAD ") { b"" } else { body };
        write!(out, "HTTP/1.1 {status} Some Reason\r\ncontent-length: {length}\r\n{fields}\r\n")?;
        out.write_all(body)
    };
    match (segments.next().unwrap_or_default(), segments.next().unwrap_or_default()) {
        ("echo", _) => plain("200", "", &[request.head.as_bytes(), b"\r\n", &request.body].concat()),
        ("status", code) => plain(code, "", b"the body"),
        ("size", bytes) => plain("200", "", &vec![b'x'; bytes.parse().unwrap()]),
        ("redirect", code) => plain(code, &format!("location: {query}\r\n"), b"moved"),
        ("slow", ms) => {
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap()));
            plain("200", "", b"late")
        }
        ("gzip", _) => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(b"unpacked")?;
            plain("200", "content-encoding: gzip\r\n", &encoder.finish()?)
        }
        ("fields", _) => {
            let fields = b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-Mixed-Case: Yes\r\nx-tab: a\tb\r\nx-binary: \xff\r\n";
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n")?;
            out.write_all(fields)?;
            out.write_all(b"\r\n")
        }
        ("module", _) => plain("200", "", br#"(module (func (export "run") (result i32) (i32.const 42)))"#),
        _ => plain("404", "", b"no such path"),
    }
}
