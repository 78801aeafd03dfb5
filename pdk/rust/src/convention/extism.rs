//! Extism's: input and output lie in the memory of its kernel, and so do arguments and results of calls, which
//! handles name. A function returns 0, or 1 beside an error text.

use std::sync::Once;

use crate::Error;
use crate::log::Level;

#[link(wasm_import_module = "extism:host/env")]
unsafe extern "C" {
    fn input_length() -> u64;
    fn input_load_u8(at: u64) -> u8;
    fn input_load_u64(at: u64) -> u64;
    fn length(handle: u64) -> u64;
    fn alloc(length: u64) -> u64;
    fn free(handle: u64);
    fn output_set(handle: u64, length: u64);
    fn error_set(handle: u64);
    fn store_u8(at: u64, byte: u8);
    fn store_u64(at: u64, bytes: u64);
    fn load_u8(at: u64) -> u8;
    fn load_u64(at: u64) -> u64;
    #[link_name = "config_get"]
    fn host_config_get(key: u64) -> u64;
    fn log_trace(handle: u64);
    fn log_debug(handle: u64);
    fn log_info(handle: u64);
    fn log_warn(handle: u64);
    fn log_error(handle: u64);
}

/// Copies `size` bytes by eights and ones.
fn copy_in(size: usize, eight: impl Fn(u64) -> u64, one: impl Fn(u64) -> u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut at = 0;
    let mut eights = bytes.chunks_exact_mut(8);
    for chunk in &mut eights {
        chunk.copy_from_slice(&eight(at).to_le_bytes());
        at += 8;
    }
    for byte in eights.into_remainder() {
        *byte = one(at);
        at += 1;
    }
    bytes
}

/// A block of the kernel's memory that holds these bytes.
struct Block(u64);

impl Block {
    fn holding(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self(0);
        }
        // SAFETY: the kernel gives a block of this length, or ends the call, and the stores stay inside of it.
        unsafe {
            let handle = alloc(bytes.len() as u64);
            let mut at = handle;
            let mut eights = bytes.chunks_exact(8);
            for chunk in &mut eights {
                let mut eight = [0; 8];
                eight.copy_from_slice(chunk);
                store_u64(at, u64::from_le_bytes(eight));
                at += 8;
            }
            for byte in eights.remainder() {
                store_u8(at, *byte);
                at += 1;
            }
            Self(handle)
        }
    }

    fn read(&self) -> Vec<u8> {
        if self.0 == 0 {
            return Vec::new();
        }
        // SAFETY: the loads stay inside of the block.
        unsafe {
            let size = length(self.0) as usize;
            copy_in(size, |at| load_u64(self.0 + at), |at| load_u8(self.0 + at))
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.0 != 0 {
            // SAFETY: nobody else has this handle.
            unsafe { free(self.0) }
        }
    }
}

macro_rules! declare {
    ($($name:ident($($argument:ident),*);)*) => {
        mod raw {
            #[link(wasm_import_module = "extism:host/user")]
            unsafe extern "C" {
                $(pub(super) fn $name($($argument: u64),*) -> u64;)*
            }
        }

        $(pub(crate) fn $name($($argument: &[u8]),*) -> Vec<u8> {
            $(let $argument = Block::holding($argument);)*
            // SAFETY: these are the types that the host has for this name.
            Block(unsafe { raw::$name($($argument.0),*) }).read()
        })*
    };
}

crate::calls::every!(declare);

pub(crate) fn config_get(name: &[u8]) -> Vec<u8> {
    let name = Block::holding(name);
    // SAFETY: this is the type that the host has for this name.
    Block(unsafe { host_config_get(name.0) }).read()
}

pub(crate) fn log(level: Level, text: &str) {
    let line = Block::holding(text.as_bytes());
    // SAFETY: these are the types that the host has for these names.
    unsafe {
        match level {
            Level::Trace => log_trace(line.0),
            Level::Debug => log_debug(line.0),
            Level::Info => log_info(line.0),
            Level::Warn => log_warn(line.0),
            Level::Error => log_error(line.0),
        }
    }
}

/// What has to be done once, before the plugin is.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string()))));
}

/// One exported call.
pub fn export(answer: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>) -> i32 {
    // SAFETY: the loads stay inside of the input.
    let input = unsafe { copy_in(input_length() as usize, |at| input_load_u64(at), |at| input_load_u8(at)) };
    match answer(&input) {
        Ok(output) => {
            let block = Block::holding(&output);
            // SAFETY: the block is there, and the host's from now on.
            unsafe { output_set(block.0, output.len() as u64) }
            std::mem::forget(block);
            0
        }
        Err(error) => {
            let block = Block::holding(error.to_string().as_bytes());
            // SAFETY: the block is there, and the host's from now on.
            unsafe { error_set(block.0) }
            std::mem::forget(block);
            1
        }
    }
}

/// Exports one hook. [`export!`](crate::export) uses it.
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    ($plugin:ty, tools) => {
        $crate::export_hook!($plugin, tool_list);
        $crate::export_hook!($plugin, tool_call);
    };
    ($plugin:ty, $hook:ident) => {
        #[unsafe(no_mangle)]
        extern "C" fn $hook() -> i32 {
            $crate::convention::export($crate::documents::$hook::<$plugin>)
        }
    };
}

/// What a module of this convention exports beside its hooks: nothing.
#[doc(hidden)]
#[macro_export]
macro_rules! export_frame {
    ($plugin:ty, $($hook:ident),*) => {};
}
