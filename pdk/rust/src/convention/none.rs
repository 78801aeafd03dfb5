//! No convention: a plugin on the machine it is written on, whose logic its author tests. What it asks of a host
//! ends the test, since nobody is there to answer; `cardan-pdk-testing` calls the built plugin.

use crate::log::Level;

macro_rules! nobody {
    ($($name:ident($($argument:ident),*);)*) => {
        $(pub(crate) fn $name($($argument: &[u8]),*) -> Vec<u8> {
            $(let _ = $argument;)*
            panic!("{}: there is no host here; test the built plugin with cardan-pdk-testing", stringify!($name))
        })*
    };
}

nobody! {
    config_get(name);
    kv_get(key);
    kv_set(key, value, options);
    kv_delete(key);
    kv_add(key, delta);
    kv_cas(key, expected, value);
    kv_scan(options);
    cache_get(key);
    cache_set(key, value, seconds);
    cache_delete(key);
    cache_fill(key);
    execute_query(query);
    metric_inc(metric, value);
    metric_gauge(metric, value);
    metric_observe(metric, value);
    http_fetch(request);
    secret_get(name);
    time_now_ms();
    random_bytes(count);
}

pub(crate) fn log(level: Level, text: &str) {
    eprintln!("{}: {text}", level.name());
}

pub(crate) fn prepare() {}

/// On this machine nothing is exported, but what would be has to compile.
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    ($plugin:ty, $hook:ident) => {
        const _: fn(&[u8]) -> $crate::Result<Vec<u8>> = $crate::documents::$hook::<$plugin>;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_frame {
    ($plugin:ty, $($hook:ident),*) => {};
}
