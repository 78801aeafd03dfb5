/// Exports the hooks that a plugin answers, by the names of its methods:
///
/// ```ignore
/// cardan_pdk::export!(Guard: http_request, http_response);
/// ```
///
/// A hook that is not named is one that the plugin does not have: hosts do not ask, and hold back no body for it.
/// `plugin_load` need not be named.
#[macro_export]
macro_rules! export {
    ($plugin:ident : $($hook:ident),+ $(,)?) => {
        impl $crate::Exported for $plugin {
            fn with<R>(act: impl FnOnce(&mut Option<Self>) -> R) -> R {
                thread_local! {
                    static PLACE: std::cell::RefCell<Option<$plugin>> = const { std::cell::RefCell::new(None) };
                }
                PLACE.with_borrow_mut(act)
            }
        }

        const _: () = {
            $($crate::export_hook!($plugin, $hook);)+
            $crate::export_hook!($plugin, plugin_load);
            $crate::export_frame!($plugin, $($hook),+);
        };
    };
    ($plugin:ident) => {
        compile_error!(concat!(
            "name the hooks that the plugin answers: export!(", stringify!($plugin), ": http_request)"
        ));
    };
}
