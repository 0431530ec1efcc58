use serde_json::json;

use super::*;

fn answer(text: &str) -> Result<Answer, Failure> {
    read(&Payload::from_json_text(text.to_owned()))
}

#[test]
fn an_answer_is_one_of_three_things() {
    for unchanged in ["{}", " { } ", r#"{"veto":null}"#, r#"{"hook":"another","more":[1]}"#] {
        assert_eq!(answer(unchanged).unwrap(), Answer::Unchanged, "{unchanged}");
    }
    let changed = |text: &str| Answer::Changed(Payload::from_json_text(text.to_owned()));
    assert_eq!(answer(r#"{"data":{"n": 1.50}}"#).unwrap(), changed(r#"{"n": 1.50}"#));
    assert_eq!(answer(r#"{"data":null}"#).unwrap(), changed("null"), "null is data");
    assert_eq!(answer(r#"{"data":1,"veto":"no"}"#).unwrap(), Answer::Veto("no".into()));
    assert_eq!(answer(r#"{"veto":" "}"#).unwrap(), Answer::Veto("no reason given".into()));
}

#[test]
fn anything_else_is_a_failure_and_not_a_veto() {
    for bad in [
        "null",
        "[]",
        r#"["data"]"#,
        r#""veto""#,
        r#"{"veto":true}"#,
        r#"{"veto":{"reason":"no"}}"#,
        r#"{"data":1,"data":2}"#,
        r#"{"veto":"a","veto":"b"}"#,
    ] {
        assert_eq!(answer(bad).unwrap_err().code, ErrorCode::PluginError, "{bad}");
    }
}

#[test]
fn the_words_of_a_veto_are_bounded_and_safe_to_show() {
    let text = json!({ "veto": format!("\x1b[2Jno\u{202e}\n{}", "x".repeat(100_000)) }).to_string();
    let Answer::Veto(reason) = answer(&text).unwrap() else { panic!("no veto") };
    assert!(reason.starts_with("\\u{1b}[2Jno\\u{202e}\\n"), "{reason}");
    assert!(reason.chars().count() < 600 && !reason.chars().any(char::is_control));
}

#[test]
fn data_is_bounded_on_its_way_back() {
    let most = json!({ "data": "x".repeat(MAX_HOOK_BYTES - 2) }).to_string();
    assert!(answer(&most).is_ok());
    let more = json!({ "data": "x".repeat(MAX_HOOK_BYTES - 1) }).to_string();
    assert_eq!(answer(&more).unwrap_err().code, ErrorCode::LimitExceeded);
}

#[test]
fn only_an_exact_name_is_a_hook() {
    for good in ["message.received", "a", "$x"] {
        check_name(good).unwrap();
    }
    for bad in ["", "*", "message.*", "a b", "a\n", &"x".repeat(300)] {
        assert_eq!(check_name(bad).unwrap_err().code, ErrorCode::InvalidParams, "{bad:?}");
    }
}

#[test]
fn the_parameters_are_json_whatever_the_data() {
    for data in ["null", r#"{"a":"é\u0000"}"#, "12345678901234567890123"] {
        let params = params("message.received", &Payload::from_json_text(data.to_owned()));
        let read: methods::HookParams = params.parse().unwrap();
        assert_eq!((read.hook.as_str(), read.data.get()), ("message.received", data));
    }
}
