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

nobody! { config_get(name); }
crate::calls::every!(nobody);

pub(crate) fn log(level: Level, text: &str) {
    eprintln!("{}: {text}", level.name());
}

/// What has to be done once, before the plugin is.
pub fn prepare() {}

/// On this machine nothing is exported, but what would be has to compile.
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    ($plugin:ty, tools) => {
        $crate::export_hook!($plugin, tool_list);
        $crate::export_hook!($plugin, tool_call);
    };
    ($plugin:ty, $hook:ident) => {
        const _: fn(&[u8]) -> $crate::Result<Vec<u8>> = $crate::documents::$hook::<$plugin>;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_frame {
    ($plugin:ty, $($hook:ident),*) => {};
}
