use cardan_gateway::Service;

use super::*;

fn resolve(yaml: &str) -> Result<Resolved, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cardan.yaml");
    std::fs::write(&path, yaml).unwrap();
    read(&path, &|name| (name == "KEY").then(|| "s3cret".to_owned())).map_err(|failure| failure.to_string())
}

#[track_caller]
fn check_error(yaml: &str, says: &str) {
    let error = resolve(yaml).unwrap_err();
    assert!(error.contains(says), "{yaml}\n  says: {error}\n  not:  {says}");
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    check_error("liten: 127.0.0.1:80", "liten");
    check_error("listen: here", "invalid socket address");
    check_error("upstreams: [{name: a}]", "upstream a: give it either `urls` or `builtin: {}`");
    check_error("upstreams: [{name: a, urls: ['http://h'], builtin: {}}]", "upstream a: give it either");
    check_error(
        "upstreams: [{name: a, urls: ['http://${NOPE}']}]",
        "the environment variable NOPE is not set",
    );
    check_error("upstreams: [{name: a, urls: ['http://${NOPE']}]", "without `}`");
    check_error("routes: [{upstream: a}]", "route a: give it either `path` or `exact`");
    check_error("routes: [{path: /, upstream: a, methods: ['G T']}]", "\"G T\" is no HTTP method");
    check_error("routes: [{path: /, upstream: a, headers: {'a b': c}}]", "\"a b\" is no header name");
    check_error("plugins: [{name: p, source: s, limits: {memory: lots}}]", "a size such as");
    check_error(
        "plugins: [{name: p, source: s, bindings: [{hook: http.reqest}]}]",
        "there is no hook \"http.reqest\"",
    );
    check_error(
        "plugins: [{name: p, source: s, bindings: [{hook: http.request, phase: post_flight}]}]",
        "has no phase",
    );
    check_error("plugins: [{name: p, source: s, bindings: [{hook: http.request, phse: ingress}]}]", "phse");
    check_error("plugins: [{name: p}]", "source");
    check_error("llmproxy: {manifests: [nowhere.yaml]}", "cannot read");
    check_error("listen: [", "cardan.yaml");
    check_error("ambiguous_bodies: pass", "pass_on");
    check_error("engine: {instances: 0}", "expected a nonzero u32");
    check_error("engine: {memory: some}", "a size such as");
}

#[test]
fn what_the_gateway_refuses_has_the_name_of_its_key() {
    let manager =
        || cardan_manager::Manager::new(cardan::Engine::new(cardan::EngineConfig::default()).unwrap(), 0);
    for (yaml, says) in [
        ("limits: {held_total: 0}", "limits.held_total is zero; it has to be at least one"),
        ("limits: {connections: 0}", "limits.connections is zero; it has to be at least one"),
        ("limits: {connections: 9223372036854775807}", "limits.connections is too large; it can be "),
        ("limits: {headers: 1}", "limits.headers is below 8192"),
        ("upstreams: [{name: a, urls: ['http://h'], tries: 0}]", "tries is zero; it has to be at least one"),
    ] {
        let config = resolve(yaml).unwrap().gateway;
        let error = cardan_gateway::Gateway::new(config, manager()).unwrap_err().named(key_of).to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn keys_reach_the_gateway() {
    let resolved =
        resolve("{ambiguous_bodies: pass_on, limits: {held_total: 64MiB}, timeouts: {request: 7s}}");
    let mut expected = Config { ambiguous_bodies: AmbiguousBodies::PassOn, ..Config::default() };
    expected.limits.held_bytes_max = 64 << 20;
    expected.timeouts.request = std::time::Duration::from_secs(7);
    assert_eq!(resolved.unwrap().gateway, expected);
}

#[test]
fn the_engine_has_bounds() {
    let bounds = |yaml| resolve(yaml).unwrap().engine;
    let (pool_instances, memory_bytes_max) = (Some(64), Some(1 << 30));
    assert_eq!(
        bounds("engine: {instances: 64, memory: 1GiB}"),
        EngineBounds { pool_instances, memory_bytes_max, ..EngineBounds::default() }
    );
    assert_eq!(bounds("{}"), EngineBounds { memory_bytes_max: Some(4 << 30), ..EngineBounds::default() });
}

#[test]
fn variables_are_substituted_where_secrets_belong() {
    let resolved = resolve(
        "upstreams: [{name: a, urls: ['http://h/${KEY}']}]\n\
         routes: [{path: /, upstream: a, headers: {authorization: 'Bearer ${KEY}'}}]",
    )
    .unwrap();
    assert_eq!(resolved.gateway.upstreams[0].service, Service::Remote(vec!["http://h/s3cret".to_owned()]));
    assert_eq!(resolved.gateway.routes[0].headers[0].1, "Bearer s3cret");
    assert!(!format!("{:?}", resolved.gateway.routes).contains("s3cret"));
}

#[test]
fn a_gateway_without_routes_is_asked_for_in_words() {
    let resolved = resolve("{}").unwrap();
    assert_eq!(resolved.listen, default_listen());
    assert!(resolved.gateway.routes.is_empty() && resolved.plugins.is_empty());
}

#[test]
fn files_that_say_nothing_are_refused() {
    check_error("llmproxy: {manifests: [/dev/null]}", "nothing but comments: `[]` is a manifest without");
    for empty in ["", " \n", "# a comment\n", "---\n", "---\n# only\n...\n", "null", "~", "\u{feff}"] {
        check_error(
            empty,
            "it is empty, or has nothing but comments: `upstreams`, `routes` and `plugins` are",
        );
    }
}
