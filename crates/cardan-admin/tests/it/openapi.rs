//! The document, and whether it tells the truth.

use std::path::Path;

use serde_json::Value;

use crate::access::fill;
use crate::house::{House, block_on};

/// `UPDATE=1 cargo test -p cardan-admin` writes it.
#[test]
fn it_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/openapi.json");
    let now = cardan_admin::openapi().to_pretty_json().unwrap() + "\n";
    #[expect(clippy::disallowed_methods, reason = "a test that writes the file it checks when it is told to")]
    let update = std::env::var("UPDATE").is_ok();
    if update {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/schema/openapi.json is another one: UPDATE=1 cargo test -p cardan-admin openapi"
    );
}

#[test]
fn every_route_in_it_answers() {
    block_on(async {
        let house = House::open().await;
        let document = house.get("/api/openapi.json").await.ok();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let at = fill(path, &[]);
                let method = method.to_ascii_uppercase();
                let answer = house.ask(&method, &at, &Value::Null).await;
                let documented = operation["responses"].as_object().unwrap();
                assert_ne!(answer.status, 405, "{method} {at}");
                // 404 is for what is asked about, never for the route.
                assert!(!answer.body.contains("there is nothing at"), "{method} {at}: {answer:?}");
                assert!(!answer.body.contains("there is no action"), "{method} {at}: {answer:?}");
                let usual = [400, 415, 404];
                let known =
                    documented.contains_key(&answer.status.to_string()) || usual.contains(&answer.status);
                assert!(known, "{method} {at} answers {}: {answer:?}", answer.status);
            }
        }
    });
}
