use cardan_api::catalogue::HOOKS;

use super::*;

/// The dialect that exports are recognised as, and the hooks they answer, for modules of each system's convention.
#[test]
fn exports() {
    #[track_caller]
    fn check(exports: &[&str], native: Option<Dialect>, expected: Option<(Dialect, &str)>) {
        let dialect = recognise(exports.iter().copied(), native);
        let exports: Vec<String> = exports.iter().map(|export| (*export).to_owned()).collect();
        let hooks = dialect.map(|dialect| answered(dialect, &exports).collect::<Vec<_>>().join(" "));
        assert_eq!(dialect.zip(hooks.as_deref()), expected, "{exports:?}");
    }
    let (cardan, llmproxy) = (Dialect::Cardan, Dialect::LlmProxy);
    let (helios, cortex) = (Dialect::HeliosProxy, Dialect::CortexPrism);
    let all_http = "http.request http.response http.complete";
    check(&[], None, None);
    check(&["memory", "_start"], None, None);
    check(&["http_request"], None, Some((cardan, "http.request")));
    check(&["handle", "http_request"], None, Some((cardan, "http.request")));
    check(&["handle"], None, Some((llmproxy, all_http)));
    check(&["execute", "plugin_load"], None, Some((llmproxy, all_http)));
    check(&["plugin_load"], None, Some((cardan, "plugin.load")));
    check(&["pre_query", "post_query"], None, Some((helios, "sql.query sql.result")));
    check(&["rewrite"], Some(helios), Some((helios, "sql.query")));
    check(&["metrics"], Some(helios), Some((helios, "http.complete sql.result")));
    check(&["authenticate", "on_load"], None, Some((helios, "access.authenticate plugin.load")));
    // Both have exports of these names.
    check(&["cache_get", "cache_set"], None, Some((cardan, "cache.get cache.set")));
    check(&["cache_get", "cache_set"], Some(helios), Some((helios, "cache.get cache.set")));
    check(&["cache_get", "route"], None, Some((helios, "cache.get sql.route")));
    check(&["cache_get", "sql_query"], Some(helios), Some((cardan, "cache.get sql.query")));
    // A name that two systems have means what the one means whose convention it is.
    check(&["handle", "pre_query"], Some(helios), Some((helios, "sql.query")));
    check(&["handle", "pre_query"], None, Some((llmproxy, all_http)));
    let both = "tool.list tool.call plugin.unload";
    check(&["plugin_get_capabilities", "plugin_execute_tool", "plugin_destroy"], None, Some((cortex, both)));
    check(&["transform", "alloc"], Some(cortex), Some((cortex, "tool.call")));
    check(&["tool_call"], Some(cortex), Some((cardan, "tool.call")));
    check(&["transform"], None, None);
}

/// What is asked at a hook, in order.
#[test]
fn order() {
    #[track_caller]
    fn check<H: Spoken>(dialect: Dialect, exports: &[&str], expected: &[&str]) {
        let asked = H::entries(dialect).asked(|entry| exports.contains(&entry));
        assert_eq!(asked.collect::<Vec<_>>(), expected);
    }
    check::<SqlQuery>(Dialect::HeliosProxy, &["rewrite", "pre_query"], &["pre_query", "rewrite"]);
    check::<SqlQuery>(Dialect::HeliosProxy, &["rewrite"], &["rewrite"]);
    check::<SqlResult>(Dialect::HeliosProxy, &["metrics", "post_query"], &["post_query", "metrics"]);
    check::<HttpRequest>(Dialect::LlmProxy, &["execute", "handle"], &["handle"]);
    check::<HttpRequest>(Dialect::LlmProxy, &["execute"], &["execute"]);
    check::<SqlQuery>(Dialect::LlmProxy, &["handle"], &[]);
}

/// The two tables have the same hooks in the same order, and Cardan's dialect has all of them.
#[test]
fn every_hook_is_spoken() {
    let spoken: Vec<&str> = SPOKEN.iter().map(|(name, _)| *name).collect();
    let hooks: Vec<&str> = HOOKS.iter().map(|hook| hook.name).collect();
    assert_eq!(spoken, hooks);
    for (name, entries) in &SPOKEN {
        assert_eq!(entries(Dialect::Cardan).names, [name.replace('.', "_")], "{name}");
    }
}

#[test]
fn what_a_dialect_has_not_got() {
    let refused = SqlQuery::decode(Dialect::LlmProxy, &Default::default(), b"{}").unwrap_err();
    assert_eq!(refused.0, "the dialect llmproxy has no document for the hook sql.query");
    assert!(SqlQuery::decode_code(Dialect::Cardan, Some("why")).is_none());
}
