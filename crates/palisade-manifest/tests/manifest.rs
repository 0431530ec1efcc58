//! What a manifest says once it was read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{full, least, with};
use palisade_manifest::{
    Entry, Init, Interpreter, Manifest, Mode, Program, RelPath, Runtime, Syntax, parse,
};
use palisade_model::{Access, ErrorCode, Failure, Guarantee, Kind, Level, Limits};
use serde_json::{Value, json};

fn read(document: &Value) -> Manifest {
    parse(&document.to_string(), Syntax::Json).unwrap_or_else(|e| panic!("{e}"))
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

#[test]
fn the_least_manifest_has_the_documented_defaults() {
    let m = read(&least());
    let python3 = Interpreter::Name("python3".into());
    assert_eq!(
        m.entry,
        Entry::Python { file: rel("main.py"), args: vec![], interpreter: python3, version: None }
    );
    assert_eq!(m.limits(), Limits::default());
    assert!(
        m.guarantees.is_empty()
            && m.requested().required.is_empty()
            && m.declared_registrations().is_empty()
    );
    assert!(m.needs_backend().is_none() && m.config.is_none() && m.state.is_none());
    let hook = read(&with(
        json!({ "contributes": { "hooks": [{ "event": "e" }], "tools": [{ "name": "t", "description": "d" }] } }),
    ));
    assert_eq!(hook.contributes.hooks[0].priority, 50);
    assert_eq!(hook.contributes.tools[0].input.document(), &json!({ "type": "object" }));
    let Entry::Jsonl(j) = read(&with(json!({ "entry": { "kind": "jsonl", "file": "a" } }))).entry
    else {
        panic!()
    };
    assert_eq!(
        (j.program, j.runtime, j.mode, j.init, j.timeout),
        (Program::File(rel("a")), Runtime::Exec, Mode::Resident, Init::Initialize, None)
    );
}

#[test]
fn every_field_is_read() {
    let m = read(&full());
    assert_eq!(m.id.as_str(), "org.example.word-counter");
    assert_eq!(m.version.to_string(), "1.2.3-beta.1+build.7");
    assert_eq!(m.name.as_deref(), Some("Word counter"));
    assert_eq!(m.description.as_deref(), Some("Counts words.\nIn every text of a folder."));
    assert_eq!(m.authors, ["Ada <ada@example.org>", "Grace"]);
    assert_eq!(m.license.as_deref(), Some("MIT OR Apache-2.0"));
    assert_eq!(m.homepage.as_deref(), Some("https://example.org/word-counter"));
    assert_eq!(m.requires.as_ref().unwrap().to_string(), ">=0.1");
    let Entry::Python { file, args, interpreter, version } = &m.entry else {
        panic!("{:?}", m.entry)
    };
    assert_eq!((file.as_str(), args.len()), ("src/main.py", 2));
    assert_eq!(*interpreter, Interpreter::Venv(rel(".venv")));
    assert!(version.as_ref().unwrap().matches(&"3.12.1".parse().unwrap()));

    let limits = m.limits();
    assert_eq!(limits.cpu, 0.5);
    assert_eq!((limits.memory, limits.disk), (128 << 20, 10_000_000));
    assert_eq!((limits.pids, limits.files), (8, 64));
    assert_eq!(limits.start_timeout, Duration::from_secs(5));
    assert_eq!(limits.call_timeout, Duration::from_millis(2500));
    assert_eq!(limits.stop_timeout, Duration::from_millis(500));
    assert_eq!(limits.max_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(limits.log_bytes_per_second, 65536);
    assert_eq!(
        (
            limits.rates.requests_per_second,
            limits.rates.events_per_second,
            limits.rates.calls_per_second
        ),
        (100, 10, 1000)
    );

    assert_eq!(m.guarantees.level(Guarantee::OwnUid), Level::Kernel);
    assert_eq!(m.guarantees.level(Guarantee::MemoryCapped), Level::Kernel);
    assert_eq!(m.guarantees.level(Guarantee::DiskCapped), Level::Policed);
    assert_eq!(m.guarantees.iter().count(), 3);
    let state = m.state.as_ref().unwrap();
    assert!(state.can_restore(2) && state.can_restore(1) && !state.can_restore(3));
}

#[test]
fn what_is_asked_for_and_what_is_offered_are_two_sets() {
    let m = read(&full());
    let requested = m.requested();
    assert!(requested.required.allows(&Access::new(Kind::FsRead, "/srv/texts/a/b")).is_some());
    assert!(requested.required.allows(&Access::new(Kind::EventPublish, "words.counted")).is_none());
    assert!(requested.optional.allows(&Access::new(Kind::EventPublish, "words.counted")).is_some());
    assert_eq!((requested.required.len(), requested.optional.len()), (2, 2));
    assert_eq!(requested.reasons.len(), 4, "three capabilities and one hook have a reason");
    let offered: Vec<String> = m.declared_registrations().iter().map(ToString::to_string).collect();
    assert_eq!(
        offered,
        [
            "tool:count",
            "tool:forget",
            "command:words",
            "channel:irc",
            "service:counter",
            "hook:message.received",
            "hook:tick"
        ]
    );
}

#[test]
fn resources_stand_over_any_base() {
    let m = read(&with(json!({ "resources": { "pids": 3 } })));
    let base = Limits { cpu: 7.0, max_lifetime: Some(Duration::from_secs(9)), ..Limits::default() };
    let limits = m.resources.over(&base);
    assert_eq!((limits.pids, limits.cpu, limits.max_lifetime), (3, 7.0, base.max_lifetime));
}

#[test]
fn entries_without_a_backend_are_read_and_say_so() {
    for (entry, backend) in [
        (json!({ "kind": "image", "image": "x/y:1" }), "container"),
        (json!({ "kind": "library", "file": "a.so" }), "library"),
    ] {
        let needs = read(&with(json!({ "entry": entry }))).needs_backend().expect(backend);
        assert_eq!((needs.backend, needs.code()), (backend, ErrorCode::NoBackend));
        assert!(needs.to_string().starts_with(&format!("needs backend {backend}")), "{needs}");
        assert_eq!(Failure::from(needs).code.exit_status(), 4);
    }
}

#[test]
fn webassembly_says_how_calls_find_an_instance() {
    use palisade_manifest::{Calls, Entry};
    let calls = |entry| match read(&with(json!({ "entry": entry }))).entry {
        Entry::Wasm { calls, .. } | Entry::Extism { calls, .. } => calls,
        other => panic!("{other:?}"),
    };
    let stateless = |instances| Calls::Stateless { instances };
    for (entry, found) in [
        (json!({ "kind": "wasm", "file": "a.wasm" }), Calls::Stateful),
        (json!({ "kind": "extism", "file": "a.wasm", "calls": "stateful" }), Calls::Stateful),
        (json!({ "kind": "wasm", "file": "a.wasm", "calls": "stateless" }), stateless(16)),
        (
            json!({ "kind": "extism", "file": "a.wasm", "calls": "stateless", "instances": 3 }),
            stateless(3),
        ),
        (
            json!({ "kind": "wasm", "file": "a.wasm", "calls": "per-call" }),
            Calls::PerCall { instances: 16 },
        ),
        (
            json!({ "kind": "wasm", "file": "a.wasm", "calls": "per-call", "instances": 2 }),
            Calls::PerCall { instances: 2 },
        ),
    ] {
        assert_eq!(calls(entry.clone()), found, "{entry}");
    }
}

#[test]
fn a_module_for_extism_says_what_its_output_means() {
    use palisade_manifest::{Entry, Output};
    for (word, found) in [
        (None, Output::Auto),
        (Some("auto"), Output::Auto),
        (Some("json"), Output::Json),
        (Some("text"), Output::Text),
    ] {
        let entry = json!({ "kind": "extism", "file": "a.wasm", "output": word });
        let entry =
            if word.is_none() { json!({ "kind": "extism", "file": "a.wasm" }) } else { entry };
        let manifest = read(&with(json!({ "entry": entry })));
        let Entry::Extism { output, .. } = manifest.entry else { panic!("{:?}", manifest.entry) };
        assert_eq!(output, found);
        assert_eq!(manifest.to_json()["entry"]["output"], word.unwrap_or("auto"));
    }
}

#[test]
fn a_configuration_is_validated_offline_with_the_defaults_put_in() {
    let m = read(&full());
    let errors = m.validate_config(&json!({ "mode": "lines" })).unwrap_err();
    assert_eq!((errors[0].path.as_str(), errors[0].keyword.as_str()), ("", "required"));
    let errors =
        m.validate_config(&json!({ "token": "hunter2", "limits": { "max": "many" } })).unwrap_err();
    let mut paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/limits/max", "/token"]);
    assert!(
        errors.iter().all(|e| !e.to_string().contains("hunter2")),
        "a secret is not shown: {errors:?}"
    );

    let config = m.effective_config(&json!({ "token": "abc", "limits": { "min": 1 } })).unwrap();
    assert_eq!(
        config,
        json!({ "token": "abc", "mode": "words", "limits": { "min": 1, "max": 10 } })
    );
    assert!(m.effective_config(&Value::Null).is_err(), "the token has no default");

    let none = read(&least());
    assert!(none.validate_config(&json!(null)).is_ok() && none.validate_config(&json!({})).is_ok());
    assert!(none.validate_config(&json!({ "a": 1 })).is_err());
    assert_eq!(none.effective_config(&Value::Null), Ok(json!({})));
}

#[test]
fn an_error_of_a_configuration_is_safe_to_show() {
    let m = read(&with(
        json!({ "config": { "schema": { "additionalProperties": false, "properties": { "a": {} } } } }),
    ));
    let errors = m.validate_config(&json!({ "\u{1b}[2J\n\u{202e}": 1 })).unwrap_err();
    let shown = errors[0].to_string();
    assert!(!shown.chars().any(palisade_model::text::is_deceptive), "{shown:?}");
    let many: serde_json::Map<String, Value> =
        (0..500).map(|i| (format!("k{i}"), json!({}))).collect();
    let m = read(&with(
        json!({ "config": { "schema": { "additionalProperties": { "type": "integer" } } } }),
    ));
    assert_eq!(m.validate_config(&Value::Object(many)).unwrap_err().len(), 64, "bounded");
}

#[test]
fn the_own_version_satisfies_what_it_should() {
    for good in ["palisade >= 0.1", "palisade >=0.1.0, <1", "palisade *", "palisade 0.1"] {
        assert!(read(&with(json!({ "requires": good }))).requires.is_some(), "{good}");
    }
    for bad in [
        "palisade",
        "palisade >",
        "palisade >= x",
        "palisade < 0.1",
        "Palisade >= 0.1",
        ">= 0.1",
        "",
    ] {
        assert!(
            parse(&with(json!({ "requires": bad })).to_string(), Syntax::Json).is_err(),
            "{bad:?}"
        );
    }
}
