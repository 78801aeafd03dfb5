//! The calls by which guests use their grants, in `extism:host/user`: a handle for each argument, and one
//! for what comes back; 0 is nothing. As with all functions there, handles that a guest passes stay the
//! guest's to free.

use cardan_api::Capability;
use wasmtime::{Caller, FuncType, Linker, Val, ValType};

use super::host::{give, read};
use super::recognise::ImportKind;
use super::state::State;
use crate::grants::calls::{Arguments, Function, Operation, Outcome, Situation, Waits, log_level};
use crate::grants::{Authority, LogLevel, Refusal};
use crate::host_function::HostFunction;

/// One of the calls, as a module imports it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Imported {
    function: &'static Function,
    /// Whether the guest wants what comes back.
    returns: Returns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returns {
    Handle,
    Nothing,
}

/// The call that an import means. One with another type is somebody else's function.
pub(super) fn imported(module: &str, name: &str, kind: &ImportKind) -> Option<Imported> {
    let function = Function::find(name).filter(|_| module == HostFunction::USER)?;
    let ImportKind::Function(ty) = kind else { return None };
    let params = if function.params == 0 {
        String::new()
    } else {
        format!(" (param{})", " i64".repeat(function.params))
    };
    let returns = [(Returns::Nothing, ""), (Returns::Handle, " (result i64)")];
    let returns = returns.into_iter().find(|(_, result)| *ty == format!("(type (func{params}{result}))"));
    Some(Imported { function, returns: returns?.0 })
}

/// The capability that an import asks for, if it is one of the calls.
pub(crate) fn capability(module: &str, name: &str, kind: &ImportKind) -> Option<Capability> {
    imported(module, name, kind).map(|imported| imported.function.needs)
}

impl Imported {
    pub(super) fn is_same(self, other: Self) -> bool {
        self.function.operation == other.function.operation
    }

    /// Whether guests can be suspended in it: not where it is refused at once.
    pub(super) fn suspends(self, authority: &Authority) -> bool {
        self.function.waits == Waits::Maybe && authority.grants().has(self.function.needs)
    }
}

/// Defines the calls that a plugin imports.
pub(super) fn define(
    linker: &mut Linker<State>,
    imported: &[Imported],
    authority: &Authority,
) -> wasmtime::Result<()> {
    for import in imported {
        let function = import.function;
        let results = match import.returns {
            Returns::Handle => Some(ValType::I64),
            Returns::Nothing => None,
        };
        let params = std::iter::repeat_n(ValType::I64, function.params);
        let ty = FuncType::new(linker.engine(), params, results);
        if import.suspends(authority) {
            linker.func_new_async(
                HostFunction::USER,
                function.name,
                ty,
                move |mut caller, params, results| {
                    Box::new(async move {
                        let arguments = arguments(&mut caller, params)?;
                        let bytes = perform(&mut caller, function, arguments).await?;
                        hand_over(&mut caller, &bytes, results)
                    })
                },
            )?;
        } else {
            linker.func_new(HostFunction::USER, function.name, ty, move |mut caller, params, results| {
                let arguments = arguments(&mut caller, params)?;
                let bytes = perform_now(&mut caller, function, arguments)?;
                hand_over(&mut caller, &bytes, results)
            })?;
        }
    }
    Ok(())
}

fn arguments(caller: &mut Caller<'_, State>, params: &[Val]) -> wasmtime::Result<Arguments> {
    let handles = params.iter().map(|param| param.i64().unwrap_or_default().cast_unsigned());
    let bytes: Vec<Vec<u8>> = handles.map(|handle| read(caller, handle)).collect::<Result<_, _>>()?;
    Ok(Arguments(bytes))
}

/// Makes a call for a guest, which waits for it.
pub(in crate::abi) async fn perform(
    caller: &mut Caller<'_, State>,
    function: &'static Function,
    arguments: Arguments,
) -> Result<Vec<u8>, Refusal> {
    if function.operation == Operation::Log {
        return log(caller, arguments);
    }
    let state = caller.data_mut();
    let situation = Situation { left: state.clock.left(), claims: state.claims.len() };
    let authority = state.shared.authority.clone();
    state.clock.step_outside();
    let outcome = authority.call(function, arguments, situation).await;
    caller.data_mut().clock.step_inside();
    Ok(keep(caller, outcome?))
}

/// Makes a call that is done at once.
pub(in crate::abi) fn perform_now(
    caller: &mut Caller<'_, State>,
    function: &Function,
    arguments: Arguments,
) -> Result<Vec<u8>, Refusal> {
    if function.operation == Operation::Log {
        return log(caller, arguments);
    }
    let outcome = caller.data().shared.authority.call_now(function, arguments)?;
    Ok(keep(caller, outcome))
}

/// Keeps what a call leaves beside its result.
fn keep(caller: &mut Caller<'_, State>, outcome: Outcome) -> Vec<u8> {
    let Outcome { bytes, claim, note } = outcome;
    if let Some(note) = note {
        write_line(caller, LogLevel::Warn, note);
    }
    caller.data_mut().claims.extend(claim);
    bytes
}

fn hand_over(caller: &mut Caller<'_, State>, bytes: &[u8], results: &mut [Val]) -> wasmtime::Result<()> {
    if let Some(result) = results.first_mut() {
        *result = Val::I64(give(caller, bytes)?.cast_signed());
    }
    Ok(())
}

/// `log`, whose lines count with those of `extism:host/env`.
fn log(caller: &mut Caller<'_, State>, arguments: Arguments) -> Result<Vec<u8>, Refusal> {
    let [level, text] = <[Vec<u8>; 2]>::try_from(arguments.0).unwrap_or_default();
    let level = String::from_utf8_lossy(&level);
    let Some(level) = log_level(&level) else {
        let why = format!("log: {level:?} is no level: trace, debug, info, warn or error");
        return Err(Refusal::protocol(why));
    };
    let text = String::from_utf8(text).map_err(|_| Refusal::protocol("log: argument 2 is not UTF-8"))?;
    write_line(caller, level, text);
    Ok(Vec::new())
}

pub(in crate::abi) fn write_line(caller: &mut Caller<'_, State>, level: LogLevel, text: String) {
    let state = caller.data_mut();
    let wanted = state.shared.log.level().is_some_and(|least| level >= least);
    if wanted && state.log.has_room(level) {
        state.log.line(&*state.shared.log, level, text);
    }
}
