use super::*;

fn everything() -> Grants {
    Grants {
        http: Some(HttpScope::hosts(["a.example".to_owned()])),
        kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }),
        cache: Some(CacheScope::shared(Access::Write)),
        sql: [("main".to_owned(), SqlScope::new(Access::Write))].into(),
        metrics: Some(MetricsScope::default()),
        files: [("/srv".to_owned(), "/data".to_owned())].into(),
        secrets: ["key".to_owned()].into(),
        env: [("A".to_owned(), "1".to_owned())].into(),
        ..Grants::default()
    }
}

/// What a plugin may is what was asked for and granted; asking to write is asking to read, too.
#[test]
fn intersection() {
    #[track_caller]
    fn check(asked: &[Capability], expected: &[Capability]) {
        let left = everything().asked_for(&asked.iter().copied().collect());
        let always = [
            Capability::Log,
            Capability::Clock,
            Capability::Random,
            Capability::Vars,
            Capability::Wasi,
            Capability::HostFunctions,
        ];
        for capability in Capability::ALL {
            let expected = expected.contains(&capability) || always.contains(&capability);
            assert_eq!(left.has(capability), expected, "{asked:?}: {capability}");
        }
    }
    check(&[], &[]);
    for one in [
        Capability::Http,
        Capability::KvRead,
        Capability::CacheRead,
        Capability::SqlRead,
        Capability::Metrics,
        Capability::FilesRead,
        Capability::Secrets,
        Capability::Env,
    ] {
        check(&[one], &[one]);
    }
    check(&[Capability::KvWrite], &[Capability::KvRead, Capability::KvWrite]);
    check(&[Capability::CacheWrite], &[Capability::CacheRead, Capability::CacheWrite]);
    check(&[Capability::SqlWrite], &[Capability::SqlRead, Capability::SqlWrite]);
    check(&[Capability::FilesWrite], &[Capability::FilesRead, Capability::FilesWrite]);
    check(&Capability::ALL, &Capability::ALL);
    let nothing = Grants::default().asked_for(&Capability::ALL.into_iter().collect());
    assert_eq!(nothing, Grants::default(), "asking alone brings nothing");
}

/// Private addresses are for those who named them.
#[test]
fn reach() {
    #[track_caller]
    fn check(hosts: &[&str], private: &[&str], permitted: &[(&str, &str)], refused: &[(&str, &str)]) {
        let mut scope = HttpScope::hosts(hosts.iter().map(|it| (*it).to_owned()));
        let ranges = private.iter().filter_map(|it| it.parse().ok()).collect();
        let names = private.iter().filter(|it| it.parse::<AddressRange>().is_err());
        scope.private =
            PrivateAddresses::Listed { ranges, hosts: names.map(|it| (*it).to_owned()).collect() };
        let reach = scope.reach();
        for (host, address) in permitted {
            assert!(reach.permits(host, address.parse().unwrap()), "{hosts:?} {private:?}: {host} {address}");
        }
        for (host, address) in refused {
            assert!(
                !reach.permits(host, address.parse().unwrap()),
                "{hosts:?} {private:?}: {host} {address}"
            );
        }
    }
    let public = ("a.example", "8.8.8.8");
    check(&["*"], &[], &[public], &[("127.0.0.1", "127.0.0.1"), ("a.example", "10.0.0.1"), ("[::1]", "::1")]);
    check(&["127.0.0.1"], &[], &[public, ("127.0.0.1", "127.0.0.1")], &[("a.example", "127.0.0.1")]);
    check(&["127.*"], &[], &[], &[("127.0.0.1", "127.0.0.1")]);
    check(&["[::1]"], &[], &[("[::1]", "::1")], &[("127.0.0.1", "127.0.0.1")]);
    let here = [("localhost", "127.0.0.1"), ("localhost", "::1")];
    check(&["localhost"], &[], &here, &[("localhost", "10.0.0.1"), ("127.0.0.1", "127.0.0.1")]);
    check(&["db.example"], &[], &[], &[("db.example", "10.0.0.1")]);
    check(&["*"], &["db.example"], &[("db.example", "10.0.0.1")], &[("other.example", "10.0.0.1")]);
    let ten = [("x", "10.1.2.3"), ("x", "::ffff:10.1.2.3")];
    check(&["*"], &["10.0.0.0/8"], &ten, &[("x", "127.0.0.1"), ("x", "192.168.0.1")]);
    assert!(Reach::EVERYWHERE.permits("x", "127.0.0.1".parse().unwrap()));
}
