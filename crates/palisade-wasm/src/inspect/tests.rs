//! What files are told to be.

mod linked;
mod published;

use palisade_model::{Capability, CapabilitySet};
use serde_json::json;

use super::*;
use crate::reflect::shape::{MAX_DEPTH, Shape};

fn look(text: &str) -> Inspection {
    inspect(&wat::parse_str(text).unwrap()).unwrap()
}

fn rights(all: &[&str]) -> CapabilitySet {
    all.iter().map(|text| text.parse::<Capability>().unwrap()).collect()
}

const NOTES: &str = r#"(component
    (import "palisade:plugin/storage@0.1.0" (instance
        (export "get" (func (param "key" string)))
    ))
    (import "palisade:plugin/log@0.1.0" (instance))
    (import "wasi:filesystem/types@0.2.3" (instance))
)"#;

#[test]
fn the_import_list_is_the_list_of_capabilities() {
    let seen = look(NOTES);
    assert_eq!(seen.form, Form::Component);
    let needs: Vec<(&str, Need)> =
        seen.imports.iter().map(|import| (import.name.as_str(), import.need)).collect();
    use palisade_model::Kind;
    assert_eq!(
        needs,
        [
            ("palisade:plugin/storage@0.1.0", Need::Right(&[Kind::StorageKv])),
            ("palisade:plugin/log@0.1.0", Need::Nothing),
            ("wasi:filesystem/types@0.2.3", Need::Shows(&[Kind::FsRead, Kind::FsWrite])),
        ]
    );
    assert_eq!(seen.imports[0].functions, ["get"]);
    assert!(!seen.asynchronous && !needs_concurrency(&seen));
    let error = seen.check_rights(&rights(&["net.http:example.org:443"])).unwrap_err();
    assert!(error.to_string().contains("storage.kv"), "{error}");
    seen.check_rights(&rights(&["storage.kv:notes"])).unwrap();
}

#[test]
fn what_is_not_granted_and_what_is_unknown_is_told_by_name() {
    let sockets = look(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#);
    for right in ["net.tcp:*:*", "net.http:example.org"] {
        sockets.check_rights(&rights(&[right])).unwrap();
    }
    let error = sockets.check_rights(&rights(&["fs.read:/srv/**"])).unwrap_err().to_string();
    assert!(error.contains("wasi:sockets/tcp@0.2.0"), "{error}");
    assert!(error.contains("net.tcp or net.http"), "{error}");
    let unknown = look(r#"(component (import "evil:host/exec" (func)))"#);
    let error = unknown.check_rights(&CapabilitySet::new()).unwrap_err();
    assert!(error.to_string().contains("evil:host/exec"), "{error}");
    let core = look(r#"(module (import "env" "system" (func)))"#);
    assert_eq!((core.form, core.imports[0].need), (Form::Module, Need::Unknown));
}

#[test]
fn what_nobody_provides_is_told_before_what_is_not_granted() {
    let seen = look(
        r#"(component
            (import "palisade:plugin/storage@0.1.0" (instance))
            (import "evil:host/exec" (instance)))"#,
    );
    for granted in [&[][..], &["storage.kv:*"]] {
        let error = seen.check_rights(&rights(granted)).unwrap_err();
        assert!(error.to_string().contains("evil:host/exec"), "{error}");
    }
}

#[test]
fn forms_are_told_apart() {
    let form = |text: &str| look(text).form;
    let exports =
        |name: &str| format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#);
    assert_eq!(form(&exports("palisade:plugin/guest@0.1.0")), Form::Plugin);
    assert_eq!(form(&exports("wasi:cli/run@0.2.0")), Form::WasiCommand);
    assert_eq!(form(&exports("wasi:http/incoming-handler@0.2.0")), Form::WasiHttp);
    assert_eq!(form("(component)"), Form::Component);
    assert_eq!(form("(module)"), Form::Module);
    assert_eq!(
        form(r#"(module (import "extism:host/env" "alloc" (func (param i64) (result i64))))"#),
        Form::Extism
    );
    assert_eq!(
        form(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                (func (export "_start")))"#
        ),
        Form::WasiModule
    );
    assert_eq!(form(r#"(module (@custom "component-type:x" "y"))"#), Form::Embryo);
}

/// A component that exports `f` with this type; a real function stands behind it.
fn exporting(types: &str, signature: &str) -> Inspection {
    look(&format!(
        r#"(component
            {types}
            (import "palisade:plugin/types@0.1.0" (instance))
            (type $f (func {signature}))
            (import "f-impl" (func $impl (type $f)))
            (export "f" (func $impl))
        )"#
    ))
}

#[test]
fn exported_functions_are_tools_with_a_schema() {
    let seen = exporting(
        r#"(type $p' (record (field "x" s32) (field "name" (option string))))
           (import "point" (type $p (eq $p')))"#,
        r#"(param "where" $p) (param "data" (list u8)) (result (result string (error string)))"#,
    );
    let [tool] = &seen.tools[..] else { panic!("{:?}", seen.tools) };
    assert_eq!(tool.name, "f");
    assert_eq!(
        tool.wit().unwrap(),
        "f: func(where: record { x: s32, name: option<string> }, data: list<u8>) -> result<string, string>"
    );
    assert_eq!(tool.output_schema().unwrap(), json!({"type": "string"}));
    let input = tool.input_schema().unwrap();
    assert_eq!(input["required"], json!(["where", "data"]));
    assert_eq!(input["properties"]["where"]["properties"]["x"]["type"], "integer");
}

#[test]
fn handles_and_streams_have_no_form_and_are_refused_with_words() {
    let seen = exporting(r#"(import "r" (type $r (sub resource)))"#, r#"(param "it" (own $r))"#);
    let why = seen.tools[0].signature.clone().unwrap_err();
    assert!(why.contains("parameter it") && why.contains("handle to a resource"), "{why}");
    assert_eq!(seen.tools[0].input_schema(), None);
    let seen = exporting("(type $s (stream u8))", r#"(result $s)"#);
    let why = seen.tools[0].signature.clone().unwrap_err();
    assert!(why.contains("its result is a stream"), "{why}");
    assert!(seen.asynchronous && needs_concurrency(&seen));
}

#[test]
fn a_type_that_shares_its_parts_does_not_become_a_tree_without_end() {
    // Each level has the level before twice: 2^15 leaves.
    let mut types = "(type $t0 (tuple u8 u8))".to_owned();
    for level in 1..15 {
        types.push_str(&format!("(type $t{level} (tuple $t{0} $t{0}))", level - 1));
    }
    let text = |ty: &str| {
        format!(
            r#"(component {types} (type $f (func (result {ty}))) (import "i" (func $i (type $f)))
               (export "f" (func $i)))"#
        )
    };
    let why = look(&text("$t14")).tools[0].signature.clone().unwrap_err();
    assert!(why.contains("parts"), "{why}");
    assert!(look(&text("$t5")).tools[0].signature.is_ok());

    let mut deep = "(type $d0 (option u8))".to_owned();
    for level in 1..=MAX_DEPTH {
        deep.push_str(&format!("(type $d{level} (option $d{}))", level - 1));
    }
    let text = |level: usize| {
        format!(
            r#"(component {deep} (type $f (func (result $d{level}))) (import "i" (func $i (type $f)))
               (export "f" (func $i)))"#
        )
    };
    assert!(look(&text(MAX_DEPTH)).tools[0].signature.clone().unwrap_err().contains("deeper"));
    let tool = &look(&text(MAX_DEPTH - 1)).tools[0];
    let Ok(signature) = &tool.signature else { panic!("{tool:?}") };
    assert!(matches!(signature.result, Some(Shape::Option(_))));
}

#[test]
fn nested_components_do_not_add_to_the_outermost_ones_imports() {
    let seen = look(
        r#"(component
            (component (import "evil:host/exec" (func)) (export "inner" (component 0) )
               )
        )"#
        .replace(r#"(export "inner" (component 0) )"#, "")
        .as_str(),
    );
    assert!(seen.imports.is_empty() && seen.exports.is_empty(), "{seen:?}");
}

#[test]
fn what_is_no_webassembly_is_refused_with_words() {
    assert_eq!(inspect(b""), Err(InspectError::NotWasm));
    assert_eq!(inspect(b"#!/bin/sh"), Err(InspectError::NotWasm));
    assert!(matches!(inspect(b"\0asm"), Err(InspectError::Invalid(_) | InspectError::NotWasm)));
    assert!(matches!(inspect(b"\0asm\x01\0\0\0\xff\xff\xff"), Err(InspectError::Invalid(_))));
    let cut = wat::parse_str(NOTES).unwrap();
    let (cut, _) = cut.split_at(cut.len() - 1);
    assert!(matches!(inspect(cut), Err(InspectError::Invalid(_))));
}

#[test]
fn there_is_an_end_to_how_many_names_are_looked_at() {
    let mut text = String::from("(module ");
    for at in 0..=MAX_NAMES {
        text.push_str(&format!(r#"(import "env" "f{at}" (func))"#));
    }
    text.push(')');
    let bytes = wat::parse_str(&text).unwrap();
    assert!(matches!(inspect(&bytes), Err(InspectError::TooMany { .. })));
}

#[test]
fn what_the_manifest_lacks_is_an_error_and_what_it_has_too_much_a_warning() {
    let seen = look(NOTES);
    let asks: Vec<Capability> =
        ["net.http:example.org:443", "tool:count", "event.subscribe:a.b", "fs.read:/srv/**"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
    let findings = compare(&seen, &asks, &["count"]);
    let messages: Vec<(Severity, &str)> =
        findings.iter().map(|f| (f.severity, f.message.as_str())).collect();
    assert_eq!(
        messages,
        [
            (
                Severity::Error,
                "it imports palisade:plugin/storage@0.1.0, and the manifest asks for no storage.kv"
            ),
            (
                Severity::Warning,
                "the manifest asks for net.http:example.org:443, and no import can use it"
            ),
            (
                Severity::Warning,
                "the manifest has event.subscribe:a.b, and the component does not export palisade:plugin/events"
            ),
            (
                Severity::Error,
                "the manifest offers the tool count, and no exported function is called so"
            ),
        ]
    );
}

proptest::proptest! {
    #[test]
    fn whatever_the_bytes_are_nothing_panics(
        changes in proptest::collection::vec((proptest::prelude::any::<u16>(), proptest::prelude::any::<u8>()), 1..6),
        cut in proptest::prelude::any::<u16>(),
    ) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            wat::parse_str(
                r#"(component
                    (import "palisade:plugin/storage@0.1.0" (instance
                        (export "get" (func (param "key" string) (result (option string))))))
                    (type $v' (variant (case "a") (case "b" (list u8))))
                    (import "v" (type $v (eq $v')))
                    (type $f (func (param "x" $v) (result (result (tuple u8 f64) (error string)))))
                    (import "i" (func $i (type $f)))
                    (export "f" (func $i))
                )"#,
            )
            .unwrap()
        });
        let mut bytes = WHOLE.clone();
        for (at, to) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = to;
        }
        if cut % 3 == 0 {
            bytes.truncate(usize::from(cut) % WHOLE.len());
        }
        if let Ok(seen) = inspect(&bytes) {
            serde_json::to_vec(&seen).unwrap();
        }
    }
}
