//! What lowered guests ask their host for: the input, and to take the answer.

use std::borrow::Cow;

use serde_json::json;
use wasm_encoder::{Instruction, ValType};
use wasmtime::{Caller, Extern, Linker, Memory};

use super::{Facts, ResultForm};
use crate::abi::extism::State;
use crate::dialect::cortexprism;
use crate::grants::Refusal;

/// Where lowered guests import these from.
pub(in crate::abi) const MODULE: &str = "cardan:lowered";

/// What stays between an input that lies below the shadow stack's pointer and that pointer.
const STACK_MARGIN_BYTES: u64 = 64 << 10;
/// Room for the output of a guest that is given a buffer.
pub(crate) const OUT_BYTES: u64 = 64 << 10;
/// What an input that does not fit is refused with.
const PLACE: &str = "the place that its allocator gave for the input";
/// The version that guests of the capability convention may say they are of.
const CAPABILITY_VERSION: i32 = 1;

/// One of the functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::abi) enum Service {
    InputLength,
    TakeInput,
    AnswerPacked,
    AnswerDecision,
    AnswerPointer,
    StageLength,
    Stage,
    Staged,
    AnswerTool,
    AnswerDocument,
    AnswerExports,
    CheckVersion,
    NoRoom,
    AnswerNothing,
}

impl Service {
    pub(super) const ALL: [Self; 14] = [
        Self::InputLength,
        Self::TakeInput,
        Self::AnswerPacked,
        Self::AnswerDecision,
        Self::AnswerPointer,
        Self::StageLength,
        Self::Stage,
        Self::Staged,
        Self::AnswerTool,
        Self::AnswerDocument,
        Self::AnswerExports,
        Self::CheckVersion,
        Self::NoRoom,
        Self::AnswerNothing,
    ];
    pub(super) const COUNT: u32 = Self::ALL.len() as u32;

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InputLength => "input_length",
            Self::TakeInput => "take_input",
            Self::AnswerPacked => "answer_packed",
            Self::AnswerDecision => "answer_decision",
            Self::AnswerPointer => "answer_pointer",
            Self::StageLength => "stage_length",
            Self::Stage => "stage",
            Self::Staged => "staged",
            Self::AnswerTool => "answer_tool",
            Self::AnswerDocument => "answer_document",
            Self::AnswerExports => "answer_exports",
            Self::CheckVersion => "check_version",
            Self::NoRoom => "no_room",
            Self::AnswerNothing => "answer_nothing",
        }
    }

    pub(super) fn signature(self) -> (&'static [ValType], &'static [ValType]) {
        use ValType::{I32, I64};
        match self {
            Self::InputLength | Self::StageLength => (&[], &[I32]),
            Self::TakeInput | Self::Stage | Self::AnswerPointer => (&[I32, I32], &[]),
            Self::AnswerPacked => (&[I64], &[]),
            Self::Staged => (&[I32], &[I32]),
            Self::AnswerDecision | Self::AnswerTool | Self::AnswerDocument | Self::CheckVersion => {
                (&[I32], &[])
            }
            Self::AnswerExports | Self::NoRoom | Self::AnswerNothing => (&[], &[]),
        }
    }

    pub(super) fn call(self, facts: &Facts<'_>) -> Instruction<'static> {
        Instruction::Call(facts.imported + self as u32)
    }
}

/// What the host has put into a guest's memory for one call.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Stage {
    name: (u32, u32),
    arguments: (u32, u32),
    out: (u32, u32),
    out_length: u32,
    /// What the tool returned, or the export that decides.
    pub(in crate::abi) code: i32,
    /// The guest was given its input by one of these functions.
    pub(in crate::abi) begun: bool,
    /// It has come to its end, and has no answer.
    pub(in crate::abi) silent: bool,
}

/// Defines the functions.
pub(in crate::abi) fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, Service::InputLength.name(), |mut caller: Caller<'_, State>| {
        caller.data_mut().stage.begun = true;
        caller.data().input.len() as u32
    })?;
    linker.func_wrap(MODULE, Service::TakeInput.name(), take_input)?;
    linker.func_wrap(
        MODULE,
        Service::AnswerPacked.name(),
        |mut caller: Caller<'_, State>, packed: i64| {
            let (pointer, length) = ((packed >> 32) as u32, packed as i32);
            // Beyond 2 GiB it is no length, but a number of another meaning; and none is of nothing beyond the memory.
            let bytes = read(&mut caller, pointer, length.cast_unsigned(), "its result")?;
            answer(&mut caller, bytes);
            wasmtime::Result::Ok(())
        },
    )?;
    linker.func_wrap(
        MODULE,
        Service::AnswerDecision.name(),
        |mut caller: Caller<'_, State>, decision: i32| {
            caller.data_mut().stage.code = decision;
            // A JSON number, for whoever reads bytes; nothing where the guest has nothing against it.
            let text = if decision == 0 { Vec::new() } else { decision.to_string().into_bytes() };
            answer(&mut caller, text);
        },
    )?;
    linker.func_wrap(MODULE, Service::AnswerPointer.name(), answer_pointer)?;
    linker.func_wrap(MODULE, Service::AnswerNothing.name(), |mut caller: Caller<'_, State>| {
        caller.data_mut().stage.silent = true;
        answer(&mut caller, Vec::new());
    })?;
    linker.func_wrap(MODULE, Service::StageLength.name(), |mut caller: Caller<'_, State>| {
        caller.data_mut().stage.begun = true;
        let (name, arguments) = split(&caller.data().input)?;
        Ok(layout(0, name.len() as u64, arguments.len() as u64)?.1)
    })?;
    linker.func_wrap(MODULE, Service::Stage.name(), stage)?;
    linker.func_wrap(MODULE, Service::Staged.name(), |caller: Caller<'_, State>, which: i32| {
        let Stage { name, arguments, out, out_length, .. } = caller.data().stage;
        let all = [name.0, name.1, arguments.0, arguments.1, out.0, out_length];
        all.get(which as usize).copied().unwrap_or_default()
    })?;
    linker.func_wrap(MODULE, Service::AnswerTool.name(), |mut caller: Caller<'_, State>, code: i32| {
        let text = staged_output(&mut caller)?;
        caller.data_mut().stage.code = code;
        if code == 0 && std::str::from_utf8(&text).is_err() {
            return Err(Refusal::protocol("its output is no UTF-8").into());
        }
        let text = String::from_utf8_lossy(&text);
        let document = if code == 0 {
            json!({ "success": true, "output": text })
        } else {
            let error = if text.is_empty() { Cow::Borrowed("WASM tool execution failed") } else { text };
            json!({ "success": false, "output": "", "error": error })
        };
        answer(&mut caller, document.to_string().into_bytes());
        wasmtime::Result::Ok(())
    })?;
    linker.func_wrap(
        MODULE,
        Service::AnswerDocument.name(),
        |mut caller: Caller<'_, State>, code: i32| {
            let text = staged_output(&mut caller)?;
            if code != 0 {
                return Err(
                    Refusal::protocol(format!("it has no list of its capabilities: code {code}")).into()
                );
            }
            answer(&mut caller, text);
            Ok(())
        },
    )?;
    linker.func_wrap(MODULE, Service::AnswerExports.name(), |mut caller: Caller<'_, State>| {
        let list = cortexprism::capabilities(caller.data().shared.exports.callable());
        answer(&mut caller, list);
    })?;
    linker.func_wrap(MODULE, Service::CheckVersion.name(), |version: i32| {
        if version == CAPABILITY_VERSION {
            return Ok(());
        }
        Err(wasmtime::Error::from(Refusal::protocol(format!(
            "it is of version {version} of the capability convention, and this host knows version {CAPABILITY_VERSION}"
        ))))
    })?;
    linker.func_wrap(MODULE, Service::NoRoom.name(), || -> wasmtime::Result<()> {
        Err(Refusal::memory("its memory has no room for the input").into())
    })?;
    Ok(())
}

/// The guest's memory.
pub(in crate::abi) fn memory(caller: &mut Caller<'_, State>) -> Result<Memory, Refusal> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => {
            caller.data_mut().memory = Some(memory);
            Ok(memory)
        }
        _ => Err(Refusal::protocol("it exports no memory of the name \"memory\"")),
    }
}

/// Bytes of the guest's.
pub(in crate::abi) fn read(
    caller: &mut Caller<'_, State>,
    pointer: u32,
    length: u32,
    what: &str,
) -> Result<Vec<u8>, Refusal> {
    let memory = memory(caller)?;
    let bytes = memory.data(&*caller);
    let range = pointer as usize..(pointer as usize).saturating_add(length as usize);
    let found = bytes.get(range).map(<[u8]>::to_vec);
    found.ok_or_else(|| outside(what, pointer, u64::from(length), bytes.len()))
}

/// Puts bytes where the guest said.
pub(in crate::abi) fn write(
    caller: &mut Caller<'_, State>,
    pointer: u32,
    bytes: &[u8],
    what: &str,
) -> Result<(), Refusal> {
    let memory = memory(caller)?;
    let all = memory.data_mut(&mut *caller);
    let size = all.len();
    let range = pointer as usize..(pointer as usize).saturating_add(bytes.len());
    match all.get_mut(range) {
        Some(place) => {
            place.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(outside(what, pointer, bytes.len() as u64, size)),
    }
}

fn outside(what: &str, pointer: u32, length: u64, size: usize) -> Refusal {
    Refusal::protocol(format!(
        "{what}, {length} bytes from {pointer}, lies outside of its memory of {size} bytes"
    ))
}

/// Takes what the guest answered.
fn answer(caller: &mut Caller<'_, State>, bytes: Vec<u8>) {
    caller.data_mut().answer = Some(bytes);
}

/// Refuses places that the guest's own stack would be written over, as a made-up allocator may name them: a
/// wrong answer without an error would follow.
fn check_place(pointer: u32, length: u64, stack: i32) -> wasmtime::Result<()> {
    let stack = u64::from(stack.cast_unsigned());
    let (begin, end) = (u64::from(pointer), u64::from(pointer) + length);
    if length > 0 && begin < stack && end + STACK_MARGIN_BYTES > stack {
        let why = format!(
            "its allocator gave a place in its stack for {length} bytes of input, {begin} of {stack}: it is good for inputs of at most \
             {} bytes",
            stack.saturating_sub(STACK_MARGIN_BYTES).saturating_sub(begin)
        );
        return Err(Refusal::protocol(why).into());
    }
    Ok(())
}

fn take_input(mut caller: Caller<'_, State>, pointer: i32, stack: i32) -> wasmtime::Result<()> {
    let pointer = pointer.cast_unsigned();
    let input = std::mem::take(&mut caller.data_mut().input);
    check_place(pointer, input.len() as u64, stack)?;
    Ok(write(&mut caller, pointer, &input, PLACE)?)
}

fn answer_pointer(mut caller: Caller<'_, State>, pointer: i32, form: i32) -> wasmtime::Result<()> {
    let form =
        [ResultForm::Auto, ResultForm::Nul, ResultForm::Len32, ResultForm::Int].get(form as usize).copied();
    let form = form.unwrap_or_default();
    if form == ResultForm::Int {
        answer(&mut caller, pointer.to_string().into_bytes());
        return Ok(());
    }
    let memory = memory(&mut caller)?;
    let bytes = memory.data(&caller);
    let text = result_text(bytes, pointer.cast_unsigned(), form).map_err(Refusal::protocol)?;
    answer(&mut caller, text);
    Ok(())
}

/// What a capability's result says, which is a pointer and nothing more.
fn result_text(memory: &[u8], pointer: u32, form: ResultForm) -> Result<Vec<u8>, String> {
    let size = memory.len();
    let from = memory.get(pointer as usize..).filter(|from| !from.is_empty());
    let from =
        from.ok_or_else(|| format!("its result at {pointer} lies outside of its memory of {size} bytes"))?;
    let nul = || {
        let end = from.iter().position(|byte| *byte == 0).unwrap_or(from.len());
        &from[..end]
    };
    let len32 = || {
        let (length, text) = from.split_first_chunk::<4>()?;
        text.get(..u32::from_le_bytes(*length) as usize)
    };
    let is_json = |text: &&[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let found = match form {
        ResultForm::Nul => Some(nul()).filter(is_json),
        ResultForm::Len32 => len32().filter(is_json),
        ResultForm::Auto | ResultForm::Int => {
            let begins = matches!(
                from[0],
                b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b' ' | b'\t' | b'\r' | b'\n'
            );
            let counted = || len32().filter(is_json);
            // A digit and three zeros are a length far more often than a number.
            let length = from.len() > 4 && from[0].is_ascii_digit() && from[1..4] == [0; 3];
            let first = if length { counted() } else { None };
            let first = first.or_else(|| if begins { Some(nul()).filter(is_json) } else { None });
            first.or_else(counted)
        }
    };
    found.map(<[u8]>::to_vec).ok_or_else(|| {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let len32 = len32().map_or_else(|| "a length beyond its memory".to_owned(), |text| format!("{:?}", shown(text)));
        format!(
            "its result at {pointer} is no JSON: read up to a NUL byte it is {:?}, read behind a length of four bytes it is {len32}; a \
             number is declared with `result: int`",
            shown(nul())
        )
    })
}

/// A tool's name and its arguments, as the dialect writes them: the name's length in four bytes, the name, the arguments.
fn split(input: &[u8]) -> wasmtime::Result<(&[u8], &[u8])> {
    if input.is_empty() {
        return Ok((&[], &[]));
    }
    let parts = input
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    parts.ok_or_else(|| Refusal::protocol("the call has no name of a tool").into())
}

/// Where everything goes, each at a multiple of eight; and how many bytes that takes.
fn layout(base: u64, name: u64, arguments: u64) -> wasmtime::Result<(Stage, u32)> {
    let align = |at: u64| at.next_multiple_of(8);
    let word = align(base);
    let name_at = word + 8;
    let arguments_at = align(name_at + name + 1);
    let out_at = align(arguments_at + arguments + 1);
    let end = out_at + OUT_BYTES;
    let number = |number: u64| {
        u32::try_from(number)
            .map_err(|_| wasmtime::Error::from(Refusal::protocol("the input is beyond 4 GiB")))
    };
    let stage = Stage {
        name: (number(name_at)?, number(name)?),
        arguments: (number(arguments_at)?, number(arguments)?),
        out: (number(out_at)?, number(OUT_BYTES)?),
        out_length: number(word)?,
        code: 0,
        begun: true,
        silent: false,
    };
    // The base itself need not be aligned.
    Ok((stage, number(end - base + 8)?))
}

fn stage(mut caller: Caller<'_, State>, base: i32, stack: i32) -> wasmtime::Result<()> {
    let base = base.cast_unsigned();
    let input = std::mem::take(&mut caller.data_mut().input);
    let (name, arguments) = split(&input)?;
    let (stage, length) = layout(u64::from(base), name.len() as u64, arguments.len() as u64)?;
    check_place(base, u64::from(length), stack)?;
    write(&mut caller, stage.out_length, &stage.out.1.to_le_bytes(), PLACE)?;
    for (at, bytes) in [(stage.name.0, name), (stage.arguments.0, arguments)] {
        write(&mut caller, at, bytes, PLACE)?;
        write(&mut caller, at + bytes.len() as u32, &[0], PLACE)?;
    }
    // It has to be there to be written to.
    read(&mut caller, stage.out.0, stage.out.1, PLACE)?;
    caller.data_mut().stage = stage;
    Ok(())
}

/// What the guest wrote into the buffer it was given.
fn staged_output(caller: &mut Caller<'_, State>) -> wasmtime::Result<Vec<u8>> {
    let Stage { out, out_length, .. } = caller.data().stage;
    let length = read(caller, out_length, 4, "the length of its output")?;
    let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    if length > out.1 {
        let why = format!("it says it has written {length} bytes into a buffer of {}", out.1);
        return Err(Refusal::protocol(why).into());
    }
    Ok(read(caller, out.0, length, "its output")?)
}
