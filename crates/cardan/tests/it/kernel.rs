//! Kernel functions (2.1) and the allocator's behaviour (3), row by row.

use cardan::Limits;

use crate::support::{Linkage, engine, guest, guests, told};

const INPUT: &str = "hello world";

/// What a sequence of instructions tells, with the input `hello world`.
#[track_caller]
fn check(body: &str, expected: &[u64]) {
    check_with(INPUT, body, expected);
}

#[track_caller]
fn check_with(input: &str, body: &str, expected: &[u64]) {
    let module = guest(&format!(
        r#"(global $a (mut i64) (i64.const 0))
           (global $b (mut i64) (i64.const 0))
           (func (export "run") {body} (call $told))"#
    ));
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(module.as_bytes()).load().unwrap();
        let mut instance = plugin.instance().unwrap();
        for call in 0..2 {
            let report = instance.call("run", input);
            assert_eq!((report.code, &report.error), (0, &None), "{linkage:?}, call {call}");
            assert_eq!(told(&report.output), expected, "{linkage:?}, call {call}");
        }
    }
}

/// `(call $tell ...)` around each expression.
fn tell(expressions: &[&str]) -> String {
    expressions.iter().map(|expression| format!("(call $tell {expression})")).collect()
}

/// As [`tell`], for expressions that are true or false.
fn whether(expressions: &[&str]) -> String {
    expressions.iter().map(|expression| format!("(call $tell (i64.extend_i32_u {expression}))")).collect()
}

#[test]
fn alloc() {
    let sizes = ["0", "0xffffffffffffffff", "0x100000000", "0x7fffffffffff", "0xffffffff"];
    let body: String = sizes.map(|size| format!("(call $tell (call $alloc (i64.const {size})))")).concat();
    check(&body, &[0; 5]);
    // It works on after all of these.
    check(
        &(body.clone()
            + "(global.set $a (call $alloc (i64.const 24)))"
            + &tell(&["(call $length (global.get $a))"])),
        &[0, 0, 0, 0, 0, 24],
    );
    // Zero after a reset.
    check(
        &("(global.set $a (call $alloc (i64.const 16)))".to_owned()
            + &tell(&["(call $load_u64 (global.get $a))"])
            + "(call $store_u64 (global.get $a) (i64.const -1))"),
        &[0],
    );
    // Blocks neither overlap nor lose their data.
    check(
        &("(global.set $a (call $alloc (i64.const 5))) (global.set $b (call $alloc (i64.const 9)))
           (call $store_u8 (i64.add (global.get $a) (i64.const 4)) (i32.const 7))
           (call $store_u64 (global.get $b) (i64.const -1))"
            .to_owned()
            + &tell(&[
                "(i64.extend_i32_u (call $load_u8 (i64.add (global.get $a) (i64.const 4))))",
                "(call $length (global.get $a))",
                "(call $length (global.get $b))",
            ])),
        &[7, 5, 9],
    );
}

#[test]
fn free_and_length() {
    let set = "(global.set $a (call $alloc (i64.const 100)))";
    check(
        &(set.to_owned()
            + &tell(&[
                "(call $length (global.get $a))",
                "(call $length_unsafe (global.get $a))",
                "(call $length (i64.const 0))",
                "(call $length_unsafe (i64.const 0))",
                "(call $length (i64.add (global.get $a) (i64.const 8)))",
                "(call $length (i64.sub (global.get $a) (i64.const 8)))",
                "(call $length (i64.const 0x7fffffffffffffff))",
                "(call $length (i64.const -1))",
                "(call $length_unsafe (i64.const -1))",
            ])),
        &[100, 100, 0, 0, 0, 0, 0, 0, 0],
    );
    // Freed once, freed twice, and everything that is no handle.
    check(
        &(set.to_owned()
            + "(call $free (global.get $a)) (call $free (global.get $a)) (call $free (i64.const 0))
               (call $free (i64.const 12345)) (call $free (i64.const -1))"
            + &tell(&["(call $length (global.get $a))", "(call $length_unsafe (global.get $a))"])
            + "(global.set $b (call $alloc (i64.const 100)))"
            + &whether(&[
                "(i64.eq (global.get $a) (global.get $b))",
                "(i64.eq (call $alloc (i64.const 100)) (global.get $b))",
            ])),
        &[0, 0, 1, 0],
    );
    // A reused block is as long as was asked for, not as it is.
    check(
        &(set.to_owned()
            + "(call $free (global.get $a)) (global.set $b (call $alloc (i64.const 97)))"
            + &whether(&["(i64.eq (global.get $a) (global.get $b))"])
            + &tell(&["(call $length (global.get $b))"])),
        &[1, 97],
    );
    // The input is a block like others, and its length goes with it.
    check(
        &(tell(&["(call $length (call $input_offset))"])
            + "(call $free (call $input_offset))"
            + &tell(&["(call $input_length)", "(i64.extend_i32_u (call $input_load_u8 (i64.const 0)))"])),
        &[11, 0, 0],
    );
}

#[test]
fn the_first_offset_comes_back() {
    let module = guest(
        r#"(func (export "run") (call $tell (call $alloc (i64.const 10))) (call $tell (call $input_offset))
             (call $told))"#,
    );
    for linkage in Linkage::BOTH {
        let mut instance = linkage.plugin(module.as_bytes()).load().unwrap().instance().unwrap();
        let first = told(&instance.call("run", INPUT).output);
        assert!(first.iter().all(|&offset| offset != 0));
        assert_eq!(told(&instance.call("run", INPUT).output), first);
        assert_eq!(told(&instance.call("run", "").output)[1], 0);
    }
}

#[test]
fn load_and_store() {
    let set = "(global.set $a (call $alloc (i64.const 24)))
               (call $store_u64 (global.get $a) (i64.const 0x0807060504030201))
               (call $store_u8 (i64.add (global.get $a) (i64.const 8)) (i32.const 0x1ff))";
    check(
        &(set.to_owned()
            + &tell(&[
                "(call $load_u64 (global.get $a))",
                "(i64.extend_i32_u (call $load_u8 (global.get $a)))",
                "(i64.extend_i32_u (call $load_u8 (i64.add (global.get $a) (i64.const 8))))",
                "(call $load_u64 (i64.add (global.get $a) (i64.const 1)))",
            ])),
        &[0x0807060504030201, 1, 0xff, 0xff08070605040302],
    );
    // Nothing traps outside, and nothing is seen: below the visible part, across the end, far beyond, and
    // where addresses wrap around.
    let end = "(call $memory_bytes)";
    for place in [
        "(i64.const 0)",
        "(i64.const 63)",
        end,
        "(i64.const 0x100000208)",
        "(i64.const -1)",
        "(i64.const -8)",
    ] {
        check(
            &(format!("(call $store_u64 {place} (i64.const -1)) (call $store_u8 {place} (i32.const 255))")
                + &tell(&[
                    &format!("(call $load_u64 {place})"),
                    &format!("(i64.extend_i32_u (call $load_u8 {place}))"),
                ])),
            &[0, 0],
        );
    }
    check(
        &tell(&[
            "(call $load_u64 (i64.sub (call $memory_bytes) (i64.const 7)))",
            "(call $load_u64 (i64.sub (call $memory_bytes) (i64.const 8)))",
        ]),
        &[0, 0],
    );
    // The last word is there.
    check(
        &("(global.set $a (i64.sub (call $memory_bytes) (i64.const 8)))
           (call $store_u64 (global.get $a) (i64.const 5))"
            .to_owned()
            + &tell(&["(call $load_u64 (global.get $a))"])
            + "(call $store_u64 (global.get $a) (i64.const 0))"),
        &[5],
    );
}

#[test]
fn input() {
    let first = u64::from_le_bytes(*b"hello wo");
    let last = u64::from_le_bytes(*b"lo world");
    check(
        &(tell(&[
            "(call $input_length)",
            "(i64.extend_i32_u (call $input_load_u8 (i64.const 0)))",
            "(i64.extend_i32_u (call $input_load_u8 (i64.const 10)))",
            "(i64.extend_i32_u (call $input_load_u8 (i64.const 11)))",
            "(i64.extend_i32_u (call $input_load_u8 (i64.const -1)))",
            "(call $input_load_u64 (i64.const 0))",
            "(call $input_load_u64 (i64.const 3))",
            "(call $input_load_u64 (i64.const 4))",
            "(call $input_load_u64 (i64.const 11))",
            "(call $input_load_u64 (i64.const -1))",
            "(call $input_load_u64 (i64.const -4))",
        ]) + &whether(&["(i64.eqz (call $input_offset))"])),
        &[11, u64::from(b'h'), u64::from(b'd'), 0, 0, first, last, 0, 0, 0, 0, 0],
    );
    check_with(
        "",
        &tell(&[
            "(call $input_offset)",
            "(call $input_length)",
            "(i64.extend_i32_u (call $input_load_u8 (i64.const 0)))",
            "(call $input_load_u64 (i64.const 0))",
        ]),
        &[0, 0, 0, 0],
    );
    check_with("1234567", &tell(&["(call $input_load_u64 (i64.const 0))"]), &[0]);
    // The handle is the input's address.
    check(&tell(&["(call $load_u64 (call $input_offset))"]), &[first]);
    // A guest may declare another input, but only within its memory.
    check(
        &("(call $input_set (i64.add (call $input_offset) (i64.const 6)) (i64.const 5))".to_owned()
            + &tell(&["(call $input_length)", "(i64.extend_i32_u (call $input_load_u8 (i64.const 0)))"])
            + "(call $input_set (i64.const 0x7fffffff) (i64.const 5))"
            + &tell(&["(call $input_length)"])),
        &[5, u64::from(b'w'), 5],
    );
}

#[test]
fn error() {
    check(
        &(tell(&["(call $error_get)"])
            + r#"(global.set $a @"words") (call $error_set (global.get $a))"#
            + &whether(&["(i64.eq (call $error_get) (global.get $a))"])
            + "(call $error_set (i64.const 0x7fffffffff))"
            + &whether(&["(i64.eq (call $error_get) (global.get $a))"])
            + "(call $error_set (i64.const 0))"
            + &tell(&["(call $error_get)"])),
        &[0, 1, 1, 0],
    );
}

/// What `output_set` makes of pairs; the output is that of the last call it takes.
#[track_caller]
fn check_output(body: &str, expected: &[u8]) {
    let module = guest(&format!(r#"(global $a (mut i64) (i64.const 0)) (func (export "run") {body})"#));
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(module.as_bytes()).load().unwrap();
        assert_eq!(plugin.call("run", "").unwrap(), expected, "{linkage:?}");
    }
}

#[test]
fn output() {
    let first = r#"(call $say @"first")"#;
    let pairs = [
        ("(i64.const 0) (i64.const 0)", &b"first"[..]),
        ("(i64.const 0) (i64.const 8)", b"first"),
        ("(i64.const 0x7fffffffff) (i64.const 8)", b"first"),
        ("(i64.const 600) (i64.const 0x7fffffff)", b"first"),
        ("(i64.const 600) (i64.const -1)", b"first"),
        ("(i64.const -4) (i64.const 8)", b"first"),
        ("(i64.const 600) (i64.const 0)", b""),
        (r#"(call $alloc (i64.const 3)) (i64.const 3)"#, b"\0\0\0"),
    ];
    for (pair, expected) in pairs {
        check_output(&format!("{first} (call $output_set {pair})"), expected);
    }
    check_output(&format!(r#"{first} (call $say @"second")"#), b"second");
    check_output("", b"");
    check(
        &(r#"(global.set $a @"words") (call $say (global.get $a))"#.to_owned()
            + &whether(&["(i64.eq (call $output_offset) (global.get $a))"])
            + &tell(&["(call $output_length)"])),
        &[1, 5],
    );
}

#[test]
fn output_may_exceed_its_block() {
    let module = std::fs::read(guests().join("hostile/output_beyond_block.wat")).unwrap();
    for linkage in Linkage::BOTH {
        let output = linkage.plugin(&module).load().unwrap().call("run", "").unwrap();
        assert_eq!(output.len(), 4096);
    }
}

#[test]
fn reset_inside_a_call() {
    check(
        &("(call $reset)".to_owned()
            + &tell(&[
                "(call $input_length)",
                "(call $input_offset)",
                "(call $output_length)",
                "(call $error_get)",
            ])
            + "(global.set $a (call $alloc (i64.const 8)))"
            + &tell(&["(call $length (global.get $a))"])),
        &[0, 0, 0, 0, 8],
    );
}

#[test]
fn memory_bytes() {
    check(&tell(&["(i64.rem_u (call $memory_bytes) (i64.const 65536))"]), &[0]);
    check(
        &("(global.set $a (call $alloc (i64.const 300000)))".to_owned()
            + &whether(&["(i64.ge_u (call $memory_bytes) (i64.const 300000))"])),
        &[1],
    );
}

/// The reference takes 1.4 s for a call of this.
#[test]
fn ten_thousand_blocks() {
    let plugin = crate::support::prebuilt("kitchen").load().unwrap();
    for _ in 0..3 {
        plugin.call("allocations", "").unwrap();
    }
    plugin.call("alloc_free", "100000").unwrap();
}

/// Sizes near the end of what there may be: no room, or a block of the right length.
#[test]
fn large_blocks() {
    let module = guest(
        r#"(func $try (param $n i64) (local $p i64)
             (local.set $p (call $alloc (local.get $n)))
             (call $tell (i64.extend_i32_u (i32.or (i64.eqz (local.get $p))
               (i64.eq (call $length (local.get $p)) (local.get $n)))))
             (call $free (local.get $p)))
           (func (export "run")
             (call $try (i64.const 0x3ffffff)) (call $try (i64.const 0x8000000)) (call $try (i64.const 0x7ffffff8))
             (call $told))"#,
    );
    let limits = Limits { memory_bytes_max: 1 << 32, ..Limits::default() };
    let plugin = engine().plugin(module.as_bytes()).limits(limits).load().unwrap();
    assert_eq!(told(&plugin.call("run", "").unwrap()), [1, 1, 1]);
}

/// The PDK's own view of all this.
#[test]
fn through_the_pdk() {
    let plugin = crate::support::prebuilt("kitchen").load().unwrap();
    let answers = plugin.call("memory_probe", "hello wor").unwrap();
    let answers: serde_json::Value = serde_json::from_slice(&answers).unwrap();
    let expected = serde_json::json!({
        "input_offset_is_zero": false, "input_length": 9, "input_first": b'h', "input_beyond": 0,
        "input_word": u64::from_le_bytes(*b"hello wo"), "input_word_past_end": 0, "reused": true,
        "alloc_zero": 0, "alloc_all": 0, "length": 24, "length_unsafe": 24, "length_inside": 0,
        "length_null": 0, "length_freed": 0, "word": 0x0807060504030201u64, "byte": 9,
        "unaligned_word": 0x0908070605040302u64, "error_before": 0, "error_after": true, "error_cleared": 0,
    });
    assert_eq!(answers, expected);
}
