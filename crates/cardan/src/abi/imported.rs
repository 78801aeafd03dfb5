//! Functions that guests import by other systems' names, carried out by the calls that every convention shares.

use cardan_api::{Capability, Fault};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::extism::{ImportKind, State, perform, perform_now, write_line};
use super::lowering::host::{memory, read, write};
use crate::grants::calls::{Arguments, Function, Operation, Waits, log_level};
use crate::grants::{Authority, LogLevel, Refusal};

/// The import module of the calls that every convention shares.
const CARDAN: &str = "cardan";
/// Room that a buffer is taken to have whose length word says 0 (CortexPrism).
const BUFFER_BYTES: u32 = 64 << 10;
/// Where guests that import their memory expect their host to allocate (CortexPrism's memory map).
const HEAP: (u32, u32) = (0x2_0000, 0x10_0000);
const PAGE_BYTES: u32 = 1 << 16;

/// An import, and what is done for it.
pub(super) struct Row {
    module: &'static str,
    name: &'static str,
    params: &'static str,
    result: &'static str,
    /// What has to be granted.
    needs: Option<Capability>,
    does: Does,
}

/// What is done. In `env` of the capability convention a place for a result is followed by a place for its length, which holds
/// how much there is room for before.
#[derive(Debug, Clone, Copy)]
pub(super) enum Does {
    /// A call whose result goes to a buffer of the guest's: its length, -1 where there is nothing, -2 where it does not fit.
    KvGetInto,
    /// A call that returns 0, or -1 where it failed.
    Status(Operation),
    /// A call without a result.
    Plain(Operation),
    /// A call whose result the guest's `alloc` gets a place for, behind four bytes with its length; 0 where there is nothing.
    Counted(Operation),
    CountedConfig,
    /// The same with pointer and length in one `i64`.
    Packed(&'static Function),
    PackedConfig,
    Sha256,
    Log,
    LogText,
    Clock,
    Allocate,
    Nothing,
    Version,
    ConfigInto,
    StateInto,
    RandomInto,
    HttpInto,
}

impl Row {
    pub(super) const fn new(
        module: &'static str,
        name: &'static str,
        (params, result): (&'static str, &'static str),
        needs: Option<Capability>,
        does: Does,
    ) -> Self {
        Self { module, name, params, result, needs, does }
    }

    fn is(&self, module: &str, name: &str, kind: &ImportKind) -> bool {
        self.module == module && self.name == name && kind.is_function(self.params, self.result)
    }
}

/// An import of one guest.
#[derive(Debug, Clone)]
pub(crate) struct Imported {
    module: &'static str,
    name: &'static str,
    ty: (Vec<ValType>, Option<ValType>),
    needs: Option<Capability>,
    does: Does,
}

/// What an import means, if it is one of `rows` or one of the calls that every convention shares.
pub(super) fn find(rows: &'static [Row], module: &str, name: &str, kind: &ImportKind) -> Option<Imported> {
    let types = |list: &str| list.split_whitespace().map(value_type).collect::<Vec<_>>();
    if let Some(row) = rows.iter().find(|row| row.is(module, name, kind)) {
        return Some(Imported {
            module: row.module,
            name: row.name,
            ty: (types(row.params), types(row.result).pop()),
            needs: row.needs,
            does: row.does,
        });
    }
    let function = Function::find(name).filter(|_| module == CARDAN)?;
    let params = vec!["i32 i32"; function.params].join(" ");
    let result = ["i64", ""].into_iter().find(|result| kind.is_function(&params, result))?;
    Some(Imported {
        module: CARDAN,
        name: function.name,
        ty: (types(&params), types(result).pop()),
        needs: Some(function.needs),
        does: Does::Packed(function),
    })
}

fn value_type(name: &str) -> ValType {
    match name {
        "i64" => ValType::I64,
        "f64" => ValType::F64,
        _ => ValType::I32,
    }
}

impl Imported {
    pub(crate) fn needs(&self) -> Option<Capability> {
        self.needs
    }

    pub(crate) fn is(&self, module: &str, name: &str) -> bool {
        self.module == module && self.name == name
    }

    /// Whether configuration alone decides what it answers, or it answers nothing.
    pub(crate) fn answers_alike(&self) -> bool {
        let told = matches!(
            self.does,
            Does::CountedConfig | Does::PackedConfig | Does::ConfigInto | Does::Sha256 | Does::Version
        );
        told || self.needs == Some(Capability::Log)
    }

    /// Whether guests can be suspended in it: where it waits for a service, and where the guest's allocator is asked.
    pub(crate) fn suspends(&self, authority: &Authority) -> bool {
        let granted = self.needs.is_none_or(|needs| authority.grants().has(needs));
        granted && self.does.waits()
    }

    pub(crate) fn define(&self, linker: &mut Linker<State>, authority: &Authority) -> wasmtime::Result<()> {
        let (module, name, does) = (self.module, self.name, self.does);
        let ty = FuncType::new(linker.engine(), self.ty.0.iter().cloned(), self.ty.1.clone());
        if self.suspends(authority) {
            linker.func_new_async(module, name, ty, move |mut caller, params, results| {
                Box::new(async move { does.carry_out(&mut caller, params, results).await })
            })?;
        } else {
            let needs = self.needs;
            linker.func_new(module, name, ty, move |mut caller, params, results| {
                if let Some(needs) = needs {
                    let allowed = caller.data().shared.authority.allow(name, needs);
                    if let (Err(_), Does::HttpInto) = (&allowed, does) {
                        return refuse_http(&mut caller, params, results);
                    }
                    allowed?;
                }
                does.carry_out_now(&mut caller, params, results)
            })?;
        }
        Ok(())
    }
}

impl Does {
    fn waits(self) -> bool {
        match self {
            Self::KvGetInto | Self::StateInto | Self::HttpInto | Self::Counted(_) | Self::CountedConfig => {
                true
            }
            Self::Packed(_) | Self::PackedConfig => true,
            Self::Status(operation) | Self::Plain(operation) => function(operation).waits == Waits::Maybe,
            _ => false,
        }
    }

    async fn carry_out(
        self,
        caller: &mut Caller<'_, State>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        match self {
            Self::KvGetInto => {
                let [_, _, out, room] = numbers(params);
                let value = self.ask(caller, function(Operation::KvGet), params).await?;
                let status = match value.len() {
                    0 => -1,
                    length if length > room as usize => -2,
                    length => {
                        write(caller, out, &value, "the place for a value")?;
                        length as i32
                    }
                };
                give(results, Val::I32(status));
            }
            Self::StateInto => {
                let value = self.ask(caller, function(Operation::KvGet), params).await?;
                let [_, _, out, length] = numbers(params);
                give(results, Val::I32(put(caller, (out, length), &value)?));
            }
            Self::Status(operation) => {
                let done = self.ask(caller, function(operation), params).await;
                give(results, Val::I32(status(caller, done.map(drop))?));
            }
            Self::Plain(operation) => {
                self.ask(caller, function(operation), params).await?;
            }
            Self::Counted(operation) => {
                let bytes = self.ask(caller, function(operation), params).await?;
                let at = counted(caller, &bytes).await?;
                give(results, Val::I32(at.cast_signed()));
            }
            Self::CountedConfig | Self::PackedConfig => {
                let value = config(caller, params)?;
                let packed = if matches!(self, Self::PackedConfig) {
                    Val::I64(packed(caller, &value).await?)
                } else {
                    Val::I32(counted(caller, &value).await?.cast_signed())
                };
                give(results, packed);
            }
            Self::Packed(function) => {
                let bytes = self.ask(caller, function, params).await?;
                if !results.is_empty() {
                    let at = packed(caller, &bytes).await?;
                    give(results, Val::I64(at));
                }
            }
            Self::HttpInto => http_into(caller, params, results).await?,
            _ => self.carry_out_now(caller, params, results)?,
        }
        Ok(())
    }

    fn carry_out_now(
        self,
        caller: &mut Caller<'_, State>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        match self {
            Self::Status(operation) => {
                let done = self.ask_now(caller, function(operation), params);
                give(results, Val::I32(status(caller, done.map(drop))?));
            }
            Self::Plain(operation) => {
                self.ask_now(caller, function(operation), params)?;
            }
            Self::Sha256 => {
                let [at, length, out, _] = numbers(params);
                let digest = Sha256::digest(read(caller, at, length, "what is to be hashed")?);
                let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                write(caller, out, text.as_bytes(), "the place for a digest")?;
                give(results, Val::I32(64));
            }
            Self::Log | Self::LogText => {
                let skipped = usize::from(matches!(self, Self::Log));
                let [at, length, ..] = numbers(&params[skipped..]);
                let level = params.first().and_then(Val::i32).filter(|_| skipped == 1);
                let level = level.map_or(Some(LogLevel::Info), |level| log_level(&level.to_string()));
                let text = read(caller, at, length, "a line for the log")?;
                let level =
                    level.ok_or_else(|| Refusal::protocol("log: levels are 0, trace, to 4, error"))?;
                write_line(caller, level, String::from_utf8_lossy(&text).into_owned());
            }
            Self::Clock => {
                let now = perform_now(caller, function(Operation::TimeNowMs), Arguments::default())?;
                let now = String::from_utf8_lossy(&now).parse().unwrap_or_default();
                give(results, Val::I64(now));
            }
            Self::Allocate => {
                let [bytes, ..] = numbers(params);
                let at = allocate(caller, bytes)?;
                give(results, Val::I32(at.cast_signed()));
            }
            Self::Version => give(results, Val::I32(1)),
            Self::ConfigInto => {
                let value = config(caller, params)?;
                let [_, _, out, length] = numbers(params);
                give(results, Val::I32(put(caller, (out, length), &value)?));
            }
            Self::RandomInto => random(caller, params)?,
            _ => {}
        }
        Ok(())
    }

    /// Makes the call behind it.
    async fn ask(
        self,
        caller: &mut Caller<'_, State>,
        function: &'static Function,
        params: &[Val],
    ) -> Result<Vec<u8>, Refusal> {
        let arguments = self.arguments(caller, params)?;
        perform(caller, function, arguments).await
    }

    fn ask_now(
        self,
        caller: &mut Caller<'_, State>,
        function: &Function,
        params: &[Val],
    ) -> Result<Vec<u8>, Refusal> {
        let arguments = self.arguments(caller, params)?;
        perform_now(caller, function, arguments)
    }

    /// The arguments of the call behind it.
    fn arguments(self, caller: &mut Caller<'_, State>, params: &[Val]) -> Result<Arguments, Refusal> {
        let [first, second, third, fourth] = numbers(params);
        let mut text = |at, length| read(caller, at, length, "an argument");
        let mut all = vec![text(first, second)?];
        match self {
            Self::Status(Operation::KvSet) | Self::Plain(Operation::KvSet) => {
                all.extend([text(third, fourth)?, Vec::new()]);
            }
            Self::Plain(Operation::CacheSet) => {
                let seconds = params.get(4).and_then(Val::i64).unwrap_or_default();
                let seconds = if seconds > 0 { seconds.to_string() } else { String::new() };
                all.extend([text(third, fourth)?, seconds.into_bytes()]);
            }
            Self::Plain(Operation::MetricInc | Operation::MetricGauge) => {
                let value = params.get(2).and_then(Val::f64).unwrap_or_default();
                all.push(value.to_string().into_bytes());
            }
            Self::Packed(function) => {
                all.clear();
                for pair in params.chunks_exact(2).take(function.params) {
                    let [at, length, ..] = numbers(pair);
                    all.push(text(at, length)?);
                }
            }
            _ => {}
        }
        Ok(Arguments(all))
    }
}

#[expect(clippy::expect_used, reason = "every operation has a row in the table of functions")]
fn function(operation: Operation) -> &'static Function {
    Function::of(operation).expect("every operation is a function")
}

/// The first four parameters as places and lengths.
fn numbers(params: &[Val]) -> [u32; 4] {
    std::array::from_fn(|index| params.get(index).and_then(Val::i32).map_or(0, i32::cast_unsigned))
}

fn give(results: &mut [Val], value: Val) {
    if let Some(result) = results.first_mut() {
        *result = value;
    }
}

/// HeliosProxy's: a store that is full is an answer, not a failure. What is not granted is one.
fn status(caller: &mut Caller<'_, State>, done: Result<(), Refusal>) -> wasmtime::Result<i32> {
    match done {
        Ok(()) => Ok(0),
        Err(refusal) if refusal.fault == Fault::Denied => Err(refusal.into()),
        Err(refusal) => {
            write_line(caller, LogLevel::Warn, refusal.to_string());
            Ok(-1)
        }
    }
}

fn config(caller: &mut Caller<'_, State>, params: &[Val]) -> wasmtime::Result<Vec<u8>> {
    let [at, length, ..] = numbers(params);
    let key = read(caller, at, length, "a key")?;
    let config = &caller.data().config;
    let value = std::str::from_utf8(&key).ok().and_then(|key| config.get(key));
    Ok(value.map(|value| value.clone().into_bytes()).unwrap_or_default())
}

/// Puts a value into a buffer whose length word says how much room there is: 0, or -1 where there is no value, or not
/// the room for it, which is said in the log.
fn put(caller: &mut Caller<'_, State>, (out, word): (u32, u32), value: &[u8]) -> wasmtime::Result<i32> {
    let what = "the length of a buffer";
    let room = read(caller, word, 4, what)?;
    let room = room.first_chunk().map_or(0, |room| u32::from_le_bytes(*room));
    let room = if room == 0 { BUFFER_BYTES } else { room };
    if value.len() > room as usize {
        let why = format!("a value of {} bytes does not fit into the plugin's buffer of {room}", value.len());
        write_line(caller, LogLevel::Warn, why);
    }
    if value.is_empty() || value.len() > room as usize {
        write(caller, word, &[0; 4], what)?;
        return Ok(-1);
    }
    write(caller, out, value, "the place for a value")?;
    write(caller, word, &(value.len() as u32).to_le_bytes(), what)?;
    Ok(0)
}

/// A place from the guest's own allocator, which may ask its host for nothing that takes another place: each call inside of another
/// takes a stack, of which all plugins together have so many.
async fn own_place(caller: &mut Caller<'_, State>, bytes: usize) -> wasmtime::Result<u32> {
    if std::mem::replace(&mut caller.data_mut().allocates, true) {
        return Err(
            Refusal::protocol("its allocator asks for what has to be put into memory of its own").into()
        );
    }
    let place = place_of(caller, bytes).await;
    caller.data_mut().allocates = false;
    place
}

async fn place_of(caller: &mut Caller<'_, State>, bytes: usize) -> wasmtime::Result<u32> {
    let alloc = caller.get_export("alloc").and_then(wasmtime::Extern::into_func);
    let alloc = alloc.ok_or_else(|| Refusal::protocol("it exports no alloc to put a result into"))?;
    let alloc = alloc.typed::<u32, u32>(&*caller)?;
    let bytes = u32::try_from(bytes).map_err(|_| Refusal::protocol("a result is beyond 4 GiB"))?;
    alloc.call_async(&mut *caller, bytes).await
}

async fn counted(caller: &mut Caller<'_, State>, bytes: &[u8]) -> wasmtime::Result<u32> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let mut block = (bytes.len() as u32).to_le_bytes().to_vec();
    block.extend_from_slice(bytes);
    let at = own_place(caller, block.len()).await?;
    write(caller, at, &block, "the place that its allocator gave for a result")?;
    Ok(at)
}

async fn packed(caller: &mut Caller<'_, State>, bytes: &[u8]) -> wasmtime::Result<i64> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let at = own_place(caller, bytes.len()).await?;
    write(caller, at, bytes, "the place that its allocator gave for a result")?;
    Ok((u64::from(at) << 32 | bytes.len() as u64).cast_signed())
}

/// Memory for a guest that asks its host for it: of the part that is kept for that where the host was to bring the memory, else
/// pages behind it. Nothing is ever given back.
fn allocate(caller: &mut Caller<'_, State>, bytes: u32) -> wasmtime::Result<u32> {
    if bytes == 0 {
        return Ok(0);
    }
    let bytes = u64::from(bytes).next_multiple_of(8);
    let heap = caller.data().heap.unwrap_or(if caller.data().shared.given_memory { HEAP } else { (0, 0) });
    let (mut at, mut end) = (u64::from(heap.0), u64::from(heap.1));
    if at + bytes > end {
        let memory = memory(caller)?;
        let pages = bytes.div_ceil(u64::from(PAGE_BYTES));
        let Ok(first) = memory.grow(&mut *caller, pages) else { return Ok(0) };
        let grown = first * u64::from(PAGE_BYTES);
        // What is left of the last pages goes on in these, if they are next to each other.
        at = if grown == end { at } else { grown };
        end = grown + pages * u64::from(PAGE_BYTES);
    }
    let place = u32::try_from(at).map_err(|_| Refusal::protocol("its memory is beyond 4 GiB"))?;
    let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    caller.data_mut().heap = Some((number(at + bytes), number(end)));
    Ok(place)
}

fn random(caller: &mut Caller<'_, State>, params: &[Val]) -> wasmtime::Result<()> {
    let [at, length, ..] = numbers(params);
    let most = 32 << 10;
    let mut done = 0;
    while done < length {
        let some = (length - done).min(most);
        let arguments = Arguments(vec![some.to_string().into_bytes()]);
        let bytes = perform_now(caller, function(Operation::RandomBytes), arguments)?;
        write(caller, at.saturating_add(done), &bytes, "the place for random bytes")?;
        done += some;
    }
    Ok(())
}

/// The places of `host_http_request`: for the status, the body, and the body's length.
fn http_places(params: &[Val]) -> (u32, (u32, u32)) {
    let [_, _, status, body] = numbers(params.get(6..).unwrap_or_default());
    let [length, ..] = numbers(params.get(10..).unwrap_or_default());
    (status, (body, length))
}

fn answer_http(
    caller: &mut Caller<'_, State>,
    params: &[Val],
    (status, body, code): (u64, &[u8], i32),
) -> wasmtime::Result<Val> {
    let (place, buffer) = http_places(params);
    let status = u32::try_from(status).unwrap_or_default();
    write(caller, place, &status.to_le_bytes(), "the place for a status")?;
    let fits = put(caller, buffer, body)? == 0 || body.is_empty();
    Ok(Val::I32(if fits { code } else { -1 }))
}

/// CortexPrism's words for a request that is not granted.
fn refuse_http(caller: &mut Caller<'_, State>, params: &[Val], results: &mut [Val]) -> wasmtime::Result<()> {
    let denied = b"host: network:fetch permission denied";
    let answer = answer_http(caller, params, (403, denied, -1))?;
    give(results, answer);
    let why = caller.data().shared.authority.denied("host_http_request", Capability::Http);
    write_line(caller, LogLevel::Warn, why.to_string());
    Ok(())
}

async fn http_into(
    caller: &mut Caller<'_, State>,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let mut texts = Vec::new();
    for pair in params.chunks_exact(2).take(4) {
        let [at, length, ..] = numbers(pair);
        let text = read(caller, at, length, "a part of a request")?;
        texts.push(String::from_utf8_lossy(&text).into_owned());
    }
    let [method, url, body, headers] = texts.try_into().unwrap_or_default();
    let answer = if url.is_empty() {
        (400, b"host: empty URL".to_vec(), -1)
    } else {
        let headers: Value =
            if headers.is_empty() { json!({}) } else { serde_json::from_str(&headers).unwrap_or(json!({})) };
        let method = if method.is_empty() { "GET" } else { &method };
        let mut request = json!({ "url": url, "method": method, "headers": headers });
        if !body.is_empty() {
            request["body"] = body.into();
        }
        let arguments = Arguments(vec![request.to_string().into_bytes()]);
        match perform(caller, function(Operation::HttpFetch), arguments).await {
            Ok(reply) => http_reply(&reply),
            Err(refusal) if refusal.fault == Fault::Denied => {
                write_line(caller, LogLevel::Warn, refusal.to_string());
                (403, b"host: network:fetch permission denied".to_vec(), -1)
            }
            Err(refusal) => {
                write_line(caller, LogLevel::Warn, refusal.to_string());
                (500, b"host: unexpected error in http_request".to_vec(), -1)
            }
        }
    };
    let (status, body, code) = answer;
    let answer = answer_http(caller, params, (status, &body, code))?;
    give(results, answer);
    Ok(())
}

/// Status, body and code of what `http_fetch` answers.
fn http_reply(document: &[u8]) -> (u64, Vec<u8>, i32) {
    use base64::Engine as _;
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    if let Some(kind) = document["error"]["kind"].as_str() {
        let status = if kind == "timeout" { 408 } else { 500 };
        return (status, b"host: request timeout or failed".to_vec(), -1);
    }
    let body = match document["body_base64"].as_str() {
        Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default(),
        None => document["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    (document["status"].as_u64().unwrap_or_default(), body, 0)
}
