//! What a plugin can ask of its host: the published functions of module `env`, and those that the documents have
//! in module `helios`.

use serde_json::Value;

use crate::types::{LogLevel, PluginError};

/// What a service answered.
#[derive(Debug, Clone, Default)]
pub struct FetchResponse {
    /// 100 to 599.
    pub status: u16,
    /// As JSON, where it is that; else `null`.
    pub body: Value,
    /// As it came.
    pub text: String,
}

/// Asks a service, with a token as its bearer.
pub fn http_fetch(url: &str, token: &str) -> Result<FetchResponse, PluginError> {
    let request =
        cardan_pdk::http::Request::get(url).with_header("authorization", &format!("Bearer {token}"));
    let response = cardan_pdk::http::fetch(&request).map_err(|failure| PluginError::new(failure.message))?;
    Ok(FetchResponse {
        status: response.status,
        body: serde_json::from_slice(&response.body).unwrap_or_default(),
        text: String::from_utf8_lossy(&response.body).into_owned(),
    })
}

#[cfg(target_arch = "wasm32")]
mod raw {
    /// The largest value of the original.
    const VALUE_BYTES_MAX: usize = 64 << 10;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn kv_get(key: *const u8, key_size: usize, out: *mut u8, room: usize) -> i32;
        fn kv_set(key: *const u8, key_size: usize, value: *const u8, value_size: usize) -> i32;
        fn kv_delete(key: *const u8, key_size: usize) -> i32;
        fn sha256_hex(input: *const u8, size: usize, out: *mut u8) -> i32;
    }

    #[link(wasm_import_module = "helios")]
    unsafe extern "C" {
        fn execute_query(query: *const u8, size: usize) -> *mut u8;
        fn cache_get(key: *const u8, size: usize) -> *mut u8;
        fn cache_set(key: *const u8, key_size: usize, value: *const u8, value_size: usize, ttl: i64);
        fn log(level: i32, text: *const u8, size: usize);
        fn metric_inc(name: *const u8, size: usize, value: f64);
    }

    pub(super) fn get(key: &str) -> Option<Vec<u8>> {
        let mut room = 1 << 10;
        loop {
            let mut value = vec![0; room];
            // SAFETY: the host writes at most `room` bytes.
            match unsafe { kv_get(key.as_ptr(), key.len(), value.as_mut_ptr(), room) } {
                -2 if room < VALUE_BYTES_MAX => room *= 4,
                size => {
                    value.truncate(usize::try_from(size).ok()?);
                    return Some(value);
                }
            }
        }
    }

    pub(super) fn set(key: &str, value: &[u8]) -> bool {
        // SAFETY: the host reads these bytes.
        unsafe { kv_set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) == 0 }
    }

    pub(super) fn delete(key: &str) -> bool {
        // SAFETY: the host reads these bytes.
        unsafe { kv_delete(key.as_ptr(), key.len()) == 0 }
    }

    pub(super) fn sha256(input: &[u8]) -> String {
        let mut digits = [0; 64];
        // SAFETY: the host writes 64 bytes.
        let written = unsafe { sha256_hex(input.as_ptr(), input.len(), digits.as_mut_ptr()) };
        String::from_utf8_lossy(&digits[..usize::try_from(written).unwrap_or(0).min(64)]).into_owned()
    }

    /// What the host has put into memory that it asked `alloc` for, behind four bytes with its length.
    fn counted(at: *mut u8) -> Option<Vec<u8>> {
        if at.is_null() {
            return None;
        }
        // SAFETY: the host has written a length and as many bytes, and has no more use for them.
        unsafe {
            let size = u32::from_le_bytes(at.cast::<[u8; 4]>().read()) as usize;
            let bytes = std::slice::from_raw_parts(at.add(4), size).to_vec();
            cardan_pdk::convention::dealloc(at, size + 4);
            Some(bytes)
        }
    }

    pub(super) fn query(sql: &str) -> Option<Vec<u8>> {
        // SAFETY: the host reads these bytes.
        counted(unsafe { execute_query(sql.as_ptr(), sql.len()) })
    }

    pub(super) fn cached(key: &str) -> Option<Vec<u8>> {
        // SAFETY: the host reads these bytes.
        counted(unsafe { cache_get(key.as_ptr(), key.len()) })
    }

    pub(super) fn cache(key: &str, value: &[u8], seconds: i64) {
        // SAFETY: the host reads these bytes.
        unsafe { cache_set(key.as_ptr(), key.len(), value.as_ptr(), value.len(), seconds) }
    }

    pub(super) fn line(level: i32, text: &str) {
        // SAFETY: the host reads these bytes.
        unsafe { log(level, text.as_ptr(), text.len()) }
    }

    pub(super) fn increment(name: &str, value: f64) {
        // SAFETY: the host reads these bytes.
        unsafe { metric_inc(name.as_ptr(), name.len(), value) }
    }
}

/// A plugin on the machine it is written on has no host.
#[cfg(not(target_arch = "wasm32"))]
mod raw {
    fn nobody() -> ! {
        panic!("there is no host here; test the built plugin with cardan-pdk-testing")
    }

    pub(super) fn get(_key: &str) -> Option<Vec<u8>> {
        nobody()
    }

    pub(super) fn set(_key: &str, _value: &[u8]) -> bool {
        nobody()
    }

    pub(super) fn delete(_key: &str) -> bool {
        nobody()
    }

    pub(super) fn sha256(_input: &[u8]) -> String {
        nobody()
    }

    pub(super) fn query(_sql: &str) -> Option<Vec<u8>> {
        nobody()
    }

    pub(super) fn cached(_key: &str) -> Option<Vec<u8>> {
        nobody()
    }

    pub(super) fn cache(_key: &str, _value: &[u8], _seconds: i64) {
        nobody()
    }

    pub(super) fn line(_level: i32, text: &str) {
        eprintln!("{text}");
    }

    pub(super) fn increment(_name: &str, _value: f64) {
        nobody()
    }
}

/// The value, if there is one.
pub fn kv_get(key: &str) -> Option<Vec<u8>> {
    raw::get(key)
}

/// Keeps a value. Whether the host had room for it.
pub fn kv_set(key: &str, value: &[u8]) -> bool {
    raw::set(key, value)
}

/// Deletes a key. Whether that worked.
pub fn kv_delete(key: &str) -> bool {
    raw::delete(key)
}

/// 64 hexadecimal digits in lower case.
pub fn sha256_hex(input: &[u8]) -> String {
    raw::sha256(input)
}

/// Runs a statement. The host's answer, if there is one, as JSON.
pub fn execute_query(sql: &str) -> Option<Value> {
    serde_json::from_slice(&raw::query(sql)?).ok()
}

/// The value, if there is one.
pub fn cache_get(key: &str) -> Option<Vec<u8>> {
    raw::cached(key)
}

/// Keeps a value for some seconds.
pub fn cache_set(key: &str, value: &[u8], seconds: u32) {
    raw::cache(key, value, i64::from(seconds));
}

/// A line for the plugin's log.
pub fn log(level: LogLevel, text: &str) {
    raw::line(level as i32, text);
}

/// Adds to a counter.
pub fn metric_inc(name: &str, value: f64) {
    raw::increment(name, value);
}
