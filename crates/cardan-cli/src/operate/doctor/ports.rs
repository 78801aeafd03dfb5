//! Whether a gateway could listen where its configuration says.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::Value;

use super::{Ask, Finding, Mark, Remote};
use crate::config::{self, AdminListen, environment};

/// Where `cardan serve` looks unless it is told otherwise.
const USUAL: &str = "cardan.yaml";

/// Nothing is looked at where there is no configuration and none was named.
pub(super) async fn examine(remote: &Remote, named: Option<&Path>) -> Vec<Finding> {
    let path = named.unwrap_or(Path::new(USUAL));
    if named.is_none() && !path.is_file() {
        return Vec::new();
    }
    let resolved = match config::read(path, &environment) {
        Ok(resolved) => resolved,
        Err(failure) => {
            let advice = "repair it; `cardan validate` says the same, and loads its plugins";
            return vec![Finding::new("config", Mark::Fail, failure.to_string(), advice)];
        }
    };
    let own = own(remote).await;
    let mut findings = vec![look("listen", resolved.listen, &own, Mark::Fail)];
    let (address, mark) = match resolved.admin.listen {
        AdminListen::Off => return findings,
        // Without it a gateway starts all the same.
        AdminListen::Usual(address) => (address, Mark::Warn),
        AdminListen::At(address) => (address, Mark::Fail),
    };
    findings.push(look("admin.listen", address, &own, mark));
    findings
}

/// `mark`: how bad it is if it could not.
fn look(key: &'static str, address: SocketAddr, own: &[SocketAddr], mark: Mark) -> Finding {
    let failed = |found: String, advice: &str| Finding::new(key, mark, found, advice);
    // Whoever listens at all addresses of a machine has the port of each.
    let is_same = |held: &SocketAddr| {
        let everywhere = held.ip().is_unspecified() || address.ip().is_unspecified();
        held.port() == address.port() && (held.ip() == address.ip() || everywhere)
    };
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(key, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && own.iter().any(is_same) => {
            Finding::ok(key, format!("{address} is held by the gateway that runs"))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => failed(
            format!("{address} is held by another process"),
            "end that one, see `ss -ltnp`, or choose another port",
        ),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            failed(format!("{address} is no address of this machine"), "name one that is, or 0.0.0.0 for all")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => failed(
            format!("{address}: this user may not listen there"),
            "choose a port from 1024, or give the process the capability CAP_NET_BIND_SERVICE",
        ),
        Err(error) => failed(format!("{address}: {error}"), "choose another"),
    }
}

/// Where the gateway that was asked listens, if it is on this machine.
async fn own(remote: &Remote) -> Vec<SocketAddr> {
    let Ok(admin) = remote.url().socket_addrs(|| None) else { return Vec::new() };
    let is_here = |ip: IpAddr| TcpListener::bind((ip, 0)).is_ok();
    if !admin.iter().any(|address| is_here(address.ip())) || remote.ask(Ask::get(&["healthz"])).await.is_err()
    {
        return Vec::new();
    }
    let status = remote.ask(Ask::get(&["api", "v1", "status"])).await.unwrap_or(Value::Null);
    let gateway = status["serves_at"].as_str().and_then(|address| address.parse().ok());
    admin.into_iter().chain(gateway).collect()
}
