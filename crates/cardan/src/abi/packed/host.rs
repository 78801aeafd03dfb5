//! What guests of the packed convention import: HeliosProxy's functions, those that it published and those that its
//! documents promise, and Cardan's calls.

use cardan_api::Capability as C;

use crate::abi::imported::{Does, Row};
use crate::grants::calls::Operation as Op;

pub(super) const ROWS: &[Row] = &[
    Row::new("env", "kv_get", ("i32 i32 i32 i32", "i32"), Some(C::KvRead), Does::KvGetInto),
    Row::new("env", "kv_set", ("i32 i32 i32 i32", "i32"), Some(C::KvWrite), Does::Status(Op::KvSet)),
    Row::new("env", "kv_delete", ("i32 i32", "i32"), Some(C::KvWrite), Does::Status(Op::KvDelete)),
    Row::new("env", "sha256_hex", ("i32 i32 i32", "i32"), None, Does::Sha256),
    Row::new(
        "helios",
        "execute_query",
        ("i32 i32", "i32"),
        Some(C::SqlRead),
        Does::Counted(Op::ExecuteQuery),
    ),
    Row::new("helios", "cache_get", ("i32 i32", "i32"), Some(C::CacheRead), Does::Counted(Op::CacheGet)),
    Row::new(
        "helios",
        "cache_set",
        ("i32 i32 i32 i32 i64", ""),
        Some(C::CacheWrite),
        Does::Plain(Op::CacheSet),
    ),
    Row::new("helios", "http_fetch", ("i32 i32", "i32"), Some(C::Http), Does::Counted(Op::HttpFetch)),
    Row::new("helios", "log", ("i32 i32 i32", ""), Some(C::Log), Does::Log),
    Row::new("helios", "metric_inc", ("i32 i32 f64", ""), Some(C::Metrics), Does::Plain(Op::MetricInc)),
    Row::new("helios", "metric_gauge", ("i32 i32 f64", ""), Some(C::Metrics), Does::Plain(Op::MetricGauge)),
    Row::new("helios", "get_config", ("i32 i32", "i32"), None, Does::CountedConfig),
    Row::new("helios", "get_time", ("", "i64"), Some(C::Clock), Does::Clock),
    Row::new("query", "execute", ("i32 i32", "i32"), Some(C::SqlRead), Does::Counted(Op::ExecuteQuery)),
    Row::new("cache", "get", ("i32 i32", "i32"), Some(C::CacheRead), Does::Counted(Op::CacheGet)),
    Row::new("cache", "set", ("i32 i32 i32 i32 i64", ""), Some(C::CacheWrite), Does::Plain(Op::CacheSet)),
    Row::new("cache", "delete", ("i32 i32", ""), Some(C::CacheWrite), Does::Plain(Op::CacheDelete)),
    Row::new("http", "fetch", ("i32 i32", "i32"), Some(C::Http), Does::Counted(Op::HttpFetch)),
    Row::new("kv", "get", ("i32 i32", "i32"), Some(C::KvRead), Does::Counted(Op::KvGet)),
    Row::new("kv", "set", ("i32 i32 i32 i32", ""), Some(C::KvWrite), Does::Plain(Op::KvSet)),
    Row::new("kv", "delete", ("i32 i32", ""), Some(C::KvWrite), Does::Plain(Op::KvDelete)),
    Row::new("kv", "list", ("i32 i32", "i32"), Some(C::KvRead), Does::Counted(Op::KvScan)),
    Row::new("cardan", "config_get", ("i32 i32", "i64"), None, Does::PackedConfig),
];
