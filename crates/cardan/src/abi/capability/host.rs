//! What guests of the capability convention import from `env`, under the names of CortexPrism's "ABI v1" and under those
//! that it had before.

use cardan_api::Capability as C;

use crate::abi::imported::{Does, Row};
use crate::grants::calls::Operation as Op;

const HTTP: &str = "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";

pub(super) const ROWS: &[Row] = &[
    Row::new("env", "host_alloc", ("i32", "i32"), None, Does::Allocate),
    Row::new("env", "host_free", ("i32", ""), None, Does::Nothing),
    Row::new("env", "host_log", ("i32 i32", ""), Some(C::Log), Does::LogText),
    Row::new("env", "host_get_config", ("i32 i32 i32 i32", "i32"), None, Does::ConfigInto),
    Row::new("env", "host_set_state", ("i32 i32 i32 i32", ""), Some(C::KvWrite), Does::Plain(Op::KvSet)),
    Row::new("env", "host_get_state", ("i32 i32 i32 i32", "i32"), Some(C::KvRead), Does::StateInto),
    Row::new("env", "host_http_request", (HTTP, "i32"), Some(C::Http), Does::HttpInto),
    Row::new("env", "host_get_abi_version", ("", "i32"), None, Does::Version),
    Row::new("env", "host_get_time_ms", ("", "i64"), Some(C::Clock), Does::Clock),
    Row::new("env", "host_random", ("i32 i32", ""), Some(C::Random), Does::RandomInto),
    Row::new("env", "log", ("i32 i32", ""), Some(C::Log), Does::LogText),
    Row::new("env", "get_config", ("i32 i32 i32 i32", "i32"), None, Does::ConfigInto),
    Row::new("env", "set_state", ("i32 i32 i32 i32", ""), Some(C::KvWrite), Does::Plain(Op::KvSet)),
    Row::new("env", "get_state", ("i32 i32 i32 i32", "i32"), Some(C::KvRead), Does::StateInto),
    Row::new("env", "http_request", (HTTP, "i32"), Some(C::Http), Does::HttpInto),
];
