//! The samples of other systems' documents.

use cardan_pdk_testing::plugin;
use serde_json::json;

use super::guest;

#[test]
fn transform_in_five_languages() {
    for language in ["rust", "c", "zig", "go", "as"] {
        let plugin = plugin(guest(&format!("transform-{language}"))).unwrap();
        for (mode, result) in
            [("reverse", "€ dlröw olleH"), ("rot13", "Uryyb jöeyq €"), ("other", "Hello wörld €")]
        {
            let answer = plugin.call("transform", json!({ "text": "Hello wörld €", "mode": mode })).unwrap();
            assert_eq!(answer["result"], result, "{language} {mode}");
            assert_eq!(answer["length"], result.len(), "{language} {mode}");
            assert_eq!(answer["hash"], hash(result), "{language} {mode}");
        }
        let large = "xy".repeat(250_000);
        let answer = plugin.call("transform", json!({ "text": large, "mode": "reverse" })).unwrap();
        let size = answer["result"].as_str().map(str::len);
        assert_eq!(size, Some(500_000), "{language}: {answer}");
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
}
