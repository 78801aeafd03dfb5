//! The functions of `extism:host/env` that the host carries out, and those of the embedder.
//!
//! Kernel functions are not here: they are WebAssembly (`kernel.wat`).

use cardan_api::Capability;
use serde::Deserialize;
use wasmtime::{AsContext, AsContextMut, Caller, FuncType, Linker, Val};

use super::fuse::ENV;
use super::state::State;
use crate::Error;
use crate::grants::{Head, HttpExchange, HttpRefusal, LogLevel};
use crate::host_function::{Body, Failed, HostCall, HostFunction};

/// What `get_log_level` answers when nothing is logged.
const LOGGING_OFF: i32 = i32::MAX;

/// Names defined here, for admission.
pub(super) const NAMES: [&str; 12] = [
    "config_get",
    "var_get",
    "var_set",
    "http_request",
    "http_status_code",
    "http_headers",
    "log_trace",
    "log_debug",
    "log_info",
    "log_warn",
    "log_error",
    "get_log_level",
];

/// Whether the plugin's guests can make HTTP requests at all, which decides what they are linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// `http_request` may wait for the network, so calls run on a stack of their own.
    Granted,
    /// `http_request` answers at once that nothing is allowed.
    Denied,
}

/// Defines everything of `extism:host/env` but the kernel.
pub(super) fn define(linker: &mut Linker<State>, http: Outgoing) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "config_get", config_get)?;
    linker.func_wrap(ENV, "var_get", var_get)?;
    linker.func_wrap(ENV, "var_set", var_set)?;
    linker.func_wrap(ENV, "http_status_code", |caller: Caller<'_, State>| {
        i32::from(caller.data().http.status)
    })?;
    linker.func_wrap(ENV, "http_headers", http_headers)?;
    linker.func_wrap(ENV, "get_log_level", |caller: Caller<'_, State>| {
        caller.data().shared.log.level().map_or(LOGGING_OFF, |level| level as i32)
    })?;
    for (name, level) in [
        ("log_trace", LogLevel::Trace),
        ("log_debug", LogLevel::Debug),
        ("log_info", LogLevel::Info),
        ("log_warn", LogLevel::Warn),
        ("log_error", LogLevel::Error),
    ] {
        linker
            .func_wrap(ENV, name, move |caller: Caller<'_, State>, handle: u64| log(caller, level, handle))?;
    }
    match http {
        Outgoing::Granted => linker.func_wrap_async(ENV, "http_request", |caller, (request, body)| {
            Box::new(http_request(caller, request, body))
        })?,
        Outgoing::Denied => linker.func_wrap(ENV, "http_request", http_request_denied)?,
    };
    Ok(())
}

/// Defines the embedder's functions; a later one of the same name replaces an earlier one.
pub(super) fn define_user(linker: &mut Linker<State>, functions: &[HostFunction]) -> Result<(), Error> {
    for function in functions {
        let ty = FuncType::new(
            linker.engine(),
            function.params.iter().map(|ty| ty.to_wasmtime()),
            function.results.iter().map(|ty| ty.to_wasmtime()),
        );
        let (module, name) = (&*function.module, &*function.name);
        let defined = match &function.body {
            Body::Raw(body) => {
                let body = body.clone();
                linker.func_new(module, name, ty, move |mut caller, params, results| {
                    // It may block, or call another plugin.
                    caller.data_mut().clock.step_outside();
                    let mut call = HostCall { caller };
                    let done = body(&mut call, params, results);
                    call.caller.data_mut().clock.step_inside();
                    done
                })
            }
            Body::Bytes(body) => {
                let body = body.clone();
                linker.func_new(module, name, ty, move |mut caller, params, results| {
                    let input = take_argument(&mut caller, params)?;
                    // It may block, or call another plugin.
                    caller.data_mut().clock.step_outside();
                    let output = body(&input).map_err(Failed)?;
                    caller.data_mut().clock.step_inside();
                    give_result(&mut caller, &output, results)
                })
            }
            Body::Suspending(body) => {
                let body = body.clone();
                linker.func_new_async(module, name, ty, move |mut caller, params, results| {
                    let body = body.clone();
                    Box::new(async move {
                        let input = take_argument(&mut caller, params)?;
                        caller.data_mut().clock.step_outside();
                        let output = body(input).await.map_err(Failed)?;
                        caller.data_mut().clock.step_inside();
                        give_result(&mut caller, &output, results)
                    })
                })
            }
        };
        defined.map_err(|error| Error::link(format!("host function {module}::{name}: {error:#}")))?;
    }
    Ok(())
}

fn take_argument(caller: &mut Caller<'_, State>, params: &[Val]) -> wasmtime::Result<Vec<u8>> {
    let handle = params.first().and_then(Val::i64).unwrap_or_default().cast_unsigned();
    read(caller, handle)
}

fn give_result(caller: &mut Caller<'_, State>, output: &[u8], results: &mut [Val]) -> wasmtime::Result<()> {
    let handle = give(caller, output)?;
    if let Some(result) = results.first_mut() {
        *result = Val::I64(handle.cast_signed());
    }
    Ok(())
}

/// The bytes behind a handle; none behind 0. Leaves the block alone.
pub(super) fn read(caller: &mut Caller<'_, State>, handle: u64) -> wasmtime::Result<Vec<u8>> {
    if handle == 0 {
        return Ok(Vec::new());
    }
    let kernel = caller.data().kernel()?;
    kernel
        .block(caller.as_context(), handle)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| wasmtime::format_err!("invalid handle offset: {handle}"))
}

/// The bytes behind a handle, which the host frees.
fn take(caller: &mut Caller<'_, State>, handle: u64) -> wasmtime::Result<Vec<u8>> {
    let bytes = read(caller, handle)?;
    let kernel = caller.data().kernel()?;
    kernel.free(caller.as_context_mut(), handle);
    Ok(bytes)
}

fn take_text(caller: &mut Caller<'_, State>, handle: u64) -> wasmtime::Result<String> {
    String::from_utf8(take(caller, handle)?).map_err(|error| wasmtime::format_err!("{}", error.utf8_error()))
}

/// A new handle for the guest; 0 for nothing.
pub(super) fn give(caller: &mut Caller<'_, State>, bytes: &[u8]) -> wasmtime::Result<u64> {
    let kernel = caller.data().kernel()?;
    kernel.store_bytes(caller.as_context_mut(), bytes)
}

fn config_get(mut caller: Caller<'_, State>, key: u64) -> wasmtime::Result<u64> {
    let key = take_text(&mut caller, key)?;
    let config = caller.data().config.clone();
    config.get(&key).map_or(Ok(0), |value| give(&mut caller, value.as_bytes()))
}

fn var_get(mut caller: Caller<'_, State>, key: u64) -> wasmtime::Result<u64> {
    let key = take_text(&mut caller, key)?;
    let value = caller.data().vars.get(&key);
    value.map_or(Ok(0), |value| give(&mut caller, &value))
}

fn var_set(mut caller: Caller<'_, State>, key: u64, value: u64) -> wasmtime::Result<()> {
    let bytes_max = caller.data().shared.limits.var_bytes_max;
    let value = if value == 0 { None } else { Some(take(&mut caller, value)?) };
    let key = take_text(&mut caller, key)?;
    caller.data().vars.set(key, value, bytes_max).map_err(wasmtime::Error::new)
}

fn log(mut caller: Caller<'_, State>, level: LogLevel, handle: u64) -> wasmtime::Result<()> {
    let state = caller.data_mut();
    if state.shared.log.level().is_none_or(|least| level < least) || !state.log.has_room(level) {
        let kernel = caller.data().kernel()?;
        kernel.free(caller.as_context_mut(), handle);
        return Ok(());
    }
    let (level, text) = match String::from_utf8(take(&mut caller, handle)?) {
        Ok(text) => (level, text),
        Err(error) => (LogLevel::Error, format!("log message is not UTF-8: {error}")),
    };
    let state = caller.data_mut();
    state.log.line(&*state.shared.log, level, text);
    Ok(())
}

fn http_headers(mut caller: Caller<'_, State>) -> wasmtime::Result<u64> {
    let Some(headers) = caller.data().http.headers.clone() else { return Ok(0) };
    give(&mut caller, headers.as_bytes())
}

/// A request as guests write it. Unknown fields are errors, as in the reference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
}

fn http_request_denied(mut caller: Caller<'_, State>, request: u64, body: u64) -> wasmtime::Result<u64> {
    let request = read_request(&mut caller, request, body)?;
    Err(not_allowed(&caller, request).into())
}

fn not_allowed(caller: &Caller<'_, State>, request: HttpExchange) -> HttpRefusal {
    let authority = &caller.data().shared.authority;
    let host = request.url.host_str().unwrap_or_default();
    let why = authority.denied_unless("HTTP", Capability::Http, &format!("http: [{host}]"));
    HttpRefusal::not_allowed(request.url, why.to_string())
}

async fn http_request(mut caller: Caller<'_, State>, request: u64, body: u64) -> wasmtime::Result<u64> {
    let request = read_request(&mut caller, request, body)?;
    let Some(grant) = caller.data().shared.authority.http().cloned() else {
        return Err(not_allowed(&caller, request).into());
    };
    caller.data_mut().clock.step_outside();
    let reply = grant.fetch(request).await?;
    caller.data_mut().clock.step_inside();
    let keep_headers = caller.data().shared.http_headers;
    let last = &mut caller.data_mut().http;
    last.status = reply.status;
    last.headers = keep_headers.then(|| {
        let shown = reply.headers.iter().filter_map(|(name, value)| {
            let value = std::str::from_utf8(value).ok()?;
            value.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t').then_some((name, value))
        });
        // Of several fields with one name the last is kept, as in the reference.
        serde_json::to_string(&shown.collect::<std::collections::BTreeMap<_, _>>()).unwrap_or_default()
    });
    give(&mut caller, &reply.body)
}

fn read_request(caller: &mut Caller<'_, State>, request: u64, body: u64) -> wasmtime::Result<HttpExchange> {
    let malformed = |why: String| wasmtime::Error::from(HttpRefusal::Malformed(why));
    let json = take(caller, request)?;
    let body = if body == 0 { None } else { Some(take(caller, body)?) };
    let state = caller.data_mut();
    state.http.status = 0;
    state.http.headers = None;
    let request: Request = serde_json::from_slice(&json)
        .map_err(|error| malformed(format!("not an HTTP request document: {error}")))?;
    let head = Head { url: request.url, method: request.method, headers: request.headers };
    Ok(HttpExchange { timeout: state.clock.left(), ..head.exchange(body)? })
}

impl HostCall<'_> {
    /// The bytes behind a handle; none behind 0.
    ///
    /// # Errors
    ///
    /// When the guest passed something that is no handle.
    pub fn read(&mut self, handle: u64) -> Result<Vec<u8>, wasmtime::Error> {
        read(&mut self.caller, handle)
    }

    /// Length of the block behind a handle; 0 if it is none.
    pub fn length(&mut self, handle: u64) -> u64 {
        let Ok(kernel) = self.caller.data().kernel() else { return 0 };
        kernel.length(self.caller.as_context(), handle).unwrap_or(0)
    }

    /// A new block with these bytes, for the guest to free.
    ///
    /// # Errors
    ///
    /// When the guest may have no more memory.
    pub fn write(&mut self, bytes: &[u8]) -> Result<u64, wasmtime::Error> {
        give(&mut self.caller, bytes)
    }

    /// Frees a block.
    pub fn free(&mut self, handle: u64) {
        if let Ok(kernel) = self.caller.data().kernel() {
            kernel.free(self.caller.as_context_mut(), handle);
        }
    }
}
