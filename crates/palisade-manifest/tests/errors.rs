//! How errors look. Each snapshot is what an author reads on the terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use palisade_manifest::{ManifestError, Syntax, parse_named};

const HEAD: &str = "api: palisade/1\nid: word-counter\nversion: 1.0.0\n";
const ENTRY: &str = "entry:\n  kind: python\n  file: main.py\n";

fn error(text: &str) -> ManifestError {
    parse_named(text.as_bytes(), Syntax::Yaml, "plugin.yaml").expect_err("the manifest is wrong")
}

/// The error of a manifest that goes on with `rest`.
fn after(rest: &str) -> String {
    error(&format!("{HEAD}{ENTRY}{rest}")).to_string()
}

macro_rules! shows {
    ($($name:ident: $text:expr;)*) => { $(
        #[test]
        fn $name() {
            insta::assert_snapshot!($text);
        }
    )* };
}

shows! {
    empty: error("").to_string();
    api_is_missing: error("id: a\nversion: 1.0.0\n").to_string();
    api_of_another_system: error("id: a\nconfigSchema: {}\n").to_string();
    api_is_newer: error("api: palisade/2\nid: 7\n").to_string();
    key_is_misspelt: after("resources:\n  memroy: 128MiB\n");
    key_is_unknown: after("events:\n  subscribe: [a]\n");
    entry_leads_out_of_the_folder: error(&format!("{HEAD}entry:\n  kind: python\n  file: ../../etc/passwd\n")).to_string();
    entry_kind_is_misspelt: error(&format!("{HEAD}entry:\n  kind: pyton\n  file: main.py\n")).to_string();
    entry_has_neither_file_nor_command: error(&format!("{HEAD}entry: {{ kind: exec, args: [a] }}\n")).to_string();
    version_is_a_number: error("api: palisade/1\nid: a\nversion: 1.0\nentry: { kind: node, file: a.js }\n").to_string();
    needs_a_newer_palisade: after("requires: palisade >= 99.1\n").replace(env!("CARGO_PKG_VERSION"), "OWN");
    capability_kind_is_misspelt: after("capabilities:\n  required:\n    - fs.raed:/srv/texts/**\n");
    capability_has_no_reason: after("capabilities:\n  required:\n    - fs.write:/srv/texts/**\n");
    capability_stands_twice: after("capabilities:\n  required: [\"storage.kv:a\"]\n  optional: [\"storage.kv:a\"]\n");
    environment_runs_foreign_code: after("capabilities:\n  optional:\n    - capability: env:LD_PRELOAD\n      reason: Speed.\n");
    memory_is_too_small: after("resources: { memory: 1MiB, cpu: 0, pids: 1.5 }\n");
    duration_has_no_unit: after("resources: { timeouts: { call: \"5\" } }\n");
    guarantee_is_taken_away: after("guarantees: { fs-isolated: false, own-uid: policed, kernel: true }\n");
    boolean_is_written_as_a_word: after("guarantees: { own-uid: yes }\n");
    schema_refers_to_the_web: after("config:\n  schema:\n    $ref: https://example.org/schema.json\n");
    schema_uses_look_around: after("config:\n  schema:\n    properties:\n      name: { type: string, pattern: \"^(?!root)\" }\n");
    schema_is_not_valid: after("config:\n  schema:\n    properties:\n      name: { type: strin }\n");
    defaults_do_not_fit: after("config:\n  schema: { properties: { n: { type: integer } } }\n  defaults: { n: many }\n");
    name_steers_the_terminal: after("name: \"\\e[2K\\e[1Aharmless\"\n");
    tool_stands_twice: after("contributes:\n  tools:\n    - { name: count, description: Counts. }\n    - { name: count, description: Counts too. }\n");
    key_stands_twice: after("name: a\nname: b\n");
    alias: after("name: &n a\ndescription: *n\n");
    not_yaml: after("name: [a\nlicense: b\n");
    several_findings_come_in_the_order_of_the_text:
        error("api: palisade/1\nid: Word Counter\nversion: one\nentry: { kind: exec }\nlicence: MIT\n").to_string();
    a_long_line_is_cut_around_the_finding: after(&format!("x-a: {{ b: {} }}\nname: [{}]\n", "y".repeat(300), "z".repeat(300)));
    a_long_line_is_cut_in_front_of_the_finding: after(&format!("state: {{ x-{}: 1, schema: -1 }}\n", "y".repeat(300)));
    in_json: parse_named(b"{\"api\": \"palisade/1\",\n \"id\": \"a\",}", Syntax::Json, "plugin.json").unwrap_err().to_string();
    in_toml: parse_named(b"api = \"palisade/1\"\nid = \"a\"\n[entry]\nkind = \"mcp\"\nargs = [1]\n", Syntax::Toml, "plugin.toml").unwrap_err().to_string();
    as_json: serde_json::to_string_pretty(&error(&format!("{HEAD}{ENTRY}nam: a\n"))).unwrap();
    as_a_failure: palisade_model::Failure::from(error("api: palisade/1\nid: A\nversion: 1.0.0\n")).to_string();
}

#[test]
fn the_number_of_findings_is_bounded() {
    let text: String = (0..5000).map(|i| format!("k{i}: 1\n")).collect();
    let error = error(&format!("{HEAD}{ENTRY}{text}"));
    assert_eq!(error.diagnostics().len(), palisade_manifest::MAX_DIAGNOSTICS);
    assert!(error.to_string().ends_with("… and 4950 more"), "{error}");
    assert!(error.to_string().len() < 30_000);
}
