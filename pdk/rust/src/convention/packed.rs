//! The packed convention: the host writes a call's input into memory that it asks this module for, and a result is
//! pointer and length in one 64-bit number. The calls of `cardan` take and give bytes in the same way.

use std::alloc::Layout;
use std::sync::Once;

use crate::Error;
use crate::log::Level;

/// What vectors of bytes have, so that memory can become one.
fn layout(size: usize) -> Option<Layout> {
    Layout::array::<u8>(size.max(1)).ok()
}

/// Memory for the host to write to. Null: there is none.
pub fn alloc(size: usize) -> *mut u8 {
    match layout(size) {
        // SAFETY: the layout is not empty.
        Some(layout) => unsafe { std::alloc::alloc(layout) },
        None => std::ptr::null_mut(),
    }
}

/// Gives back what [`alloc`] gave, or what a call returned.
///
/// # Safety
///
/// It is one of these two, of this size, and nobody uses it any more.
pub unsafe fn dealloc(at: *mut u8, size: usize) {
    if let Some(layout) = layout(size).filter(|_| !at.is_null()) {
        // SAFETY: the caller says so.
        unsafe { std::alloc::dealloc(at, layout) }
    }
}

fn pack(bytes: Vec<u8>) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    let bytes = Box::leak(bytes.into_boxed_slice());
    (bytes.as_mut_ptr() as u64) << 32 | bytes.len() as u64
}

fn unpack(packed: u64) -> Vec<u8> {
    let (at, size) = ((packed >> 32) as usize as *mut u8, (packed & u64::from(u32::MAX)) as usize);
    if at.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the host asked `alloc` for it, with this size, and has no more use for it.
    unsafe { Vec::from_raw_parts(at, size, size) }
}

macro_rules! declare {
    ($($name:ident($($argument:ident),*);)*) => {
        mod raw {
            #[link(wasm_import_module = "cardan")]
            unsafe extern "C" {
                $(pub(super) fn $name($($argument: *const u8, _: usize),*) -> u64;)*
            }
        }

        $(pub(crate) fn $name($($argument: &[u8]),*) -> Vec<u8> {
            // SAFETY: these are the types that the host has for this name.
            unpack(unsafe { raw::$name($($argument.as_ptr(), $argument.len()),*) })
        })*
    };
}

crate::calls::every!(declare);

#[link(wasm_import_module = "cardan")]
unsafe extern "C" {
    #[link_name = "config_get"]
    fn host_config_get(name: *const u8, name_size: usize) -> u64;
    #[link_name = "log"]
    fn host_log(level: *const u8, level_size: usize, text: *const u8, text_size: usize);
}

pub(crate) fn config_get(name: &[u8]) -> Vec<u8> {
    // SAFETY: this is the type that the host has for this name.
    unpack(unsafe { host_config_get(name.as_ptr(), name.len()) })
}

pub(crate) fn log(level: Level, text: &str) {
    let level = level.name();
    // SAFETY: this is the type that the host has for this name.
    unsafe { host_log(level.as_ptr(), level.len(), text.as_ptr(), text.len()) }
}

/// What has to be done once, before the plugin is.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string()))));
}

/// One exported call. The convention has no place for an error: its text goes to the log, and the call traps.
///
/// # Safety
///
/// The host has written `size` bytes at `input`.
pub unsafe fn export(
    input: *const u8,
    size: usize,
    answer: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>,
) -> u64 {
    // SAFETY: the caller says so.
    let input = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(input, size) } };
    match answer(input) {
        Ok(output) => pack(output),
        Err(error) => {
            log(Level::Error, &error.to_string());
            std::process::abort()
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
        unsafe extern "C" fn $hook(input: *const u8, size: usize) -> u64 {
            // SAFETY: the host has written them there.
            unsafe { $crate::convention::export(input, size, $crate::documents::$hook::<$plugin>) }
        }
    };
}

/// What a module of this convention exports beside its hooks.
#[doc(hidden)]
#[macro_export]
macro_rules! export_frame {
    ($plugin:ty, $($hook:ident),*) => {
        #[unsafe(no_mangle)]
        extern "C" fn alloc(size: usize) -> *mut u8 {
            $crate::convention::alloc(size)
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn dealloc(at: *mut u8, size: usize) {
            // SAFETY: the host gives back what it was given.
            unsafe { $crate::convention::dealloc(at, size) }
        }
    };
}
