//! Components without a world of ours, called by their types.

use palisade_model::ErrorCode;
use serde_json::{Value, json};

use crate::{
    guest::Trouble,
    testing::{Launch, Launched, reflect},
};

/// A component whose function `echo` gives back a list as it lies in memory, whatever is in it.
fn echo(types: &str, element: &str) -> String {
    format!(
        r#"(component
            {types}
            (core module $m
                (memory (export "memory") 64)
                (global $next (mut i32) (i32.const 64))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and
                        (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
                        (i32.sub (i32.const 0) (local.get 2))))
                    (global.set $next (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (func (export "echo") (param i32 i32) (result i32)
                    (i32.store (i32.const 8) (local.get 0))
                    (i32.store (i32.const 12) (local.get 1))
                    (i32.const 8))
                (func (export "reset") (param i32) (global.set $next (i32.const 64))))
            (core instance $i (instantiate $m))
            (func (export "echo") (param "values" (list {element})) (result (list {element}))
                (canon lift (core func $i "echo") (memory $i "memory") (realloc (func $i "realloc"))
                    (post-return (func $i "reset"))))
        )"#
    )
}

async fn launched(text: &str) -> Launched {
    let code = reflect(&wat::parse_str(text).unwrap()).unwrap();
    Launch::default().of(&code).await.unwrap()
}

#[tokio::test]
async fn values_of_every_type_pass_through_a_component_unchanged() {
    for (types, element, values) in [
        ("", "bool", json!([true, false])),
        ("", "u8", json!("AAEC/w==")),
        ("", "s8", json!([-128, 127])),
        ("", "u64", json!([0, u64::MAX])),
        ("", "s64", json!([i64::MIN, i64::MAX])),
        ("", "f32", json!([0.1, "NaN", "-Infinity"])),
        ("", "f64", json!([0.1, 1e300, "Infinity"])),
        ("", "char", json!(["a", "é", "🦀"])),
        ("", "string", json!(["", "naïve \u{0} \"quoted\""])),
        ("(type $t (option (option u8)))", "$t", json!([null, {"some": null}, {"some": 7}])),
        ("(type $t (tuple u8 string))", "$t", json!([[1, "one"], [2, "two"]])),
        ("(type $t (result string (error u32)))", "$t", json!([{"ok": "x"}, {"err": 9}])),
        ("(type $t (list (list string)))", "$t", json!([[["a"], []], []])),
        (
            r#"(type $t' (record (field "x" s32) (field "tag" (option string))))
               (import "t" (type $t (eq $t')))"#,
            "$t",
            json!([{"x": -1, "tag": "a"}, {"x": 1, "tag": null}]),
        ),
        (
            r#"(type $t' (variant (case "none") (case "some-text" string) (case "number" u64)))
               (import "t" (type $t (eq $t')))"#,
            "$t",
            json!(["none", {"some-text": "a"}, {"number": 3}]),
        ),
        (
            r#"(type $t' (enum "red" "green")) (import "t" (type $t (eq $t')))"#,
            "$t",
            json!(["green", "red"]),
        ),
        (
            r#"(type $t' (flags "r" "w" "x")) (import "t" (type $t (eq $t')))"#,
            "$t",
            json!([["r", "x"], []]),
        ),
    ] {
        let mut guest = launched(&echo(types, element)).await;
        // Twice: what is allocated for a call is free for the next one.
        for _ in 0..2 {
            let answer = guest.call("echo", json!({"values": values})).await;
            assert_eq!(answer.unwrap(), values, "{element}");
        }
    }
}

#[tokio::test]
async fn many_bytes_come_back() {
    let mut guest = launched(&echo("", "u8")).await;
    let bytes = data_encoding::BASE64.encode(&vec![7; 900_000]);
    let answer = guest.call("echo", json!({"values": bytes})).await.unwrap();
    assert!(answer == json!(bytes));
}

#[tokio::test]
async fn arguments_that_do_not_fit_never_reach_the_component() {
    let mut guest = launched(&echo("", "u32")).await;
    for (arguments, problem) in [
        (json!({"values": [1, -1]}), "values[1]: must be from 0 to 4294967295, and is -1"),
        (json!({}), "\"values\" is missing"),
        (json!([]), "must be an object, and is an array"),
    ] {
        let answer = guest.call("echo", arguments).await;
        let Err(Trouble::Failed(failure)) = answer else { panic!("{answer:?}") };
        assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::InvalidParams, problem));
    }
    let answer = guest.call("other", json!({})).await;
    assert!(matches!(answer, Err(Trouble::Failed(f)) if f.code == ErrorCode::NotFound));
    assert_eq!(guest.call("echo", json!({"values": [1]})).await.unwrap(), json!([1]));
}

#[tokio::test]
async fn the_bad_side_of_a_result_is_a_failure_of_the_plugin() {
    let text = r#"(component
        (core module $m
            (memory (export "memory") 1)
            (data (i32.const 32) "too late\1b[31m")
            (func (export "try") (param i32) (result i32)
                (i32.store8 (i32.const 0) (local.get 0))
                (i32.store (i32.const 4) (i32.const 32))
                (i32.store (i32.const 8) (i32.const 13))
                (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "try") (param "fail" bool) (result (result u32 (error string)))
            (canon lift (core func $i "try") (memory $i "memory")))
    )"#;
    let mut guest = launched(text).await;
    assert_eq!(guest.call("try", json!({"fail": false})).await.unwrap(), json!(32));
    let answer = guest.call("try", json!({"fail": true})).await;
    let Err(Trouble::Failed(failure)) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.code, ErrorCode::PluginError);
    assert_eq!(failure.message, "too late\\u{1b}[31m");
}

#[tokio::test]
async fn a_trap_says_so_and_a_value_that_is_none_does_not_come_through() {
    let text = r#"(component
        (core module $m
            (memory (export "memory") 1)
            (func (export "trap") unreachable)
            (func (export "wild") (result i32)
                (i32.store (i32.const 0) (i32.const 65000))
                (i32.store (i32.const 4) (i32.const 5000))
                (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "trap") (canon lift (core func $i "trap")))
        (func (export "wild") (result string) (canon lift (core func $i "wild") (memory $i "memory")))
    )"#;
    for name in ["trap", "wild"] {
        let answer = launched(text).await.call(name, json!({})).await;
        assert!(matches!(answer, Err(Trouble::Trapped(_))), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn an_unknown_import_is_refused_before_anything_is_linked() {
    let text = r#"(component (import "evil:host/exec@1.0.0" (func $f)) (export "f" (func $f)))"#;
    let error = reflect(&wat::parse_str(text).unwrap()).err().unwrap();
    assert!(error.to_string().contains("evil:host/exec@1.0.0"), "{error}");
    let text = r#"(component (import "wasi:keyvalue/store@0.2.0" (instance)))"#;
    assert!(reflect(&wat::parse_str(text).unwrap()).is_err());
}

#[tokio::test]
async fn a_component_tells_its_tools_when_it_starts() {
    use palisade_model::Payload;
    use palisade_sandbox::{Invocation, Trace};
    let mut guest = launched(&echo("", "string")).await;
    let params = json!({
        "protocol": {"min": 1, "max": 1}, "host": {"name": "h", "version": "1"},
        "plugin": {"id": "test"}, "config": {},
    });
    let invocation = Invocation {
        method: "initialize",
        payload: Payload::json(&params).unwrap(),
        tool: None,
        deadline: std::time::Instant::now() + std::time::Duration::from_secs(5),
        trace: Trace(None),
    };
    let answer: Value = guest.guest.call(&invocation).await.unwrap().parse().unwrap();
    assert_eq!(answer["protocol"], 1);
    assert_eq!(answer["tools"][0]["name"], "echo");
    assert_eq!(answer["tools"][0]["input_schema"]["required"], json!(["values"]));
}
