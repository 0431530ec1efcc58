//! Attempt 73: a configuration schema that fetches, reads or never ends.

use super::{Case, Desk, Naive, Verdict, desk};
use crate::trouble::Result;

/// Checks and calls a plugin with this schema and configuration.
fn configured(desk: &Desk, schema: &str, config: &str) -> Result<Verdict> {
    desk.write("plugin/main.py", desk::program("reply({})"))?;
    let rest = format!("config:\n  schema: {schema}\n");
    desk.write("plugin/plugin.yaml", desk::manifest("victim", &rest))?;
    desk.write("config.json", config)?;
    let before = desk.visits();
    let said = desk.run(&["check", "plugin", "--config", "config.json", "--json"])?;
    fetched(desk, before, said.judge(desk, "contained"))
}

fn tool_input(desk: &Desk, schema: &str, arguments: &str) -> Result<Verdict> {
    desk.write("plugin/main.py", desk::program("reply({})"))?;
    let text = desk::manifest("victim", "").replace(
        "{ name: go, description: Does it. }",
        &format!("{{ name: go, description: Does it., input: {schema} }}"),
    );
    desk.write("plugin/plugin.yaml", text)?;
    let before = desk.visits();
    let said = desk.run(&["call", "plugin", "go", arguments, "--json"])?;
    fetched(desk, before, said.judge(desk, "contained"))
}

fn fetched(desk: &Desk, before: usize, verdict: Verdict) -> Result<Verdict> {
    // Other attempts leave the services alone: whoever visits them meanwhile was not stopped.
    let visits = desk.visits() - before;
    if visits > 0 {
        return Ok(("SUCCEEDED".into(), format!("{visits} visits; {}", verdict.1)));
    }
    Ok(verdict)
}

/// Python's engine backtracks.
fn backtracks(desk: &Desk) -> Result<bool> {
    let program = "import re; re.match(r'^(a+)+$', 'a' * 40 + '!')";
    let mut python = desk.prepare("python3");
    python.args(["-c", program]);
    let said = desk.finish_within(&mut python, b"", std::time::Duration::from_secs(2))?;
    Ok(said.status.is_none())
}

/// A resolver that takes no care opens what the reference names.
fn opens_file(desk: &Desk) -> Result<bool> {
    let program =
        "import sys, urllib.request; print(urllib.request.urlopen('file://' + sys.argv[1]).read())";
    let said = desk.python(program, &[&desk.text("outside/secret")])?;
    Ok(said.holds(desk.secret.as_bytes()))
}

const A40: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";

pub(super) const CASES: &[Case] = &[
    Case {
        number: 73,
        variant: "ref-file",
        name: "`$ref` to a file of the host",
        attack: |d| {
            let schema = format!("{{ $ref: 'file://{}' }}", d.text("outside/secret"));
            configured(d, &schema, "{}")
        },
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "ref-path",
        name: "`$ref` to a relative path",
        attack: |d| configured(d, "{ $ref: '../outside/secret' }", "{}"),
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "ref-http",
        name: "`$ref` to a service on loopback",
        attack: |d| {
            let schema = format!("{{ $ref: 'http://127.0.0.1:{}/schema.json' }}", d.port());
            configured(d, &schema, "{}")
        },
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "id-http",
        name: "`$id` that moves the base of references",
        attack: |d| {
            let schema = format!(
                "{{ $id: 'http://127.0.0.1:{}/', $ref: '#/$defs/a', $defs: {{ a: {{}} }} }}",
                d.port()
            );
            configured(d, &schema, "{}")
        },
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "meta-schema",
        name: "`$schema` that has to be fetched",
        attack: |d| {
            let schema =
                format!("{{ $schema: 'http://127.0.0.1:{}/meta', type: object }}", d.port());
            configured(d, &schema, "{}")
        },
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "ref-cycle",
        name: "`$ref` that leads to itself",
        attack: |d| configured(d, "{ $ref: '#' }", "{}"),
        control: Naive::Works(|d| {
            let program = "def f(s): return f(s)\ntry: f({})\nexcept RecursionError: print('deep')";
            Ok(d.python(program, &[])?.text().contains("deep"))
        }),
    },
    Case {
        number: 73,
        variant: "ref-bomb",
        name: "references that unfold to billions",
        attack: |d| {
            let mut defs = "a0: {}".to_owned();
            for level in 1..12 {
                let below = vec![format!("{{ $ref: '#/$defs/a{}' }}", level - 1); 8].join(", ");
                defs.push_str(&format!(", a{level}: {{ anyOf: [{below}] }}"));
            }
            configured(d, &format!("{{ $ref: '#/$defs/a11', $defs: {{ {defs} }} }}"), "{}")
        },
        control: Naive::None("no validator is installed that takes no care"),
    },
    Case {
        number: 73,
        variant: "regex",
        name: "a pattern that backtracks for ever",
        attack: |d| {
            let schema =
                "{ type: object, properties: { a: { type: string, pattern: '^(a+)+$' } } }";
            configured(d, schema, &format!("{{\"a\": \"{A40}\"}}"))
        },
        control: Naive::Works(backtracks),
    },
    Case {
        number: 73,
        variant: "regex-repeat",
        name: "a pattern that compiles to gigabytes",
        attack: |d| {
            let schema = "{ type: object, properties: { a: { type: string, pattern: '((((a{1,200}){1,200}){1,200}){1,200})' } } }";
            configured(d, schema, "{\"a\": \"a\"}")
        },
        control: Naive::Works(backtracks),
    },
    Case {
        number: 73,
        variant: "regex-back-reference",
        name: "a pattern with a back-reference",
        attack: |d| {
            let schema =
                r"{ type: object, properties: { a: { type: string, pattern: '^(a*)*\1$' } } }";
            configured(d, schema, &format!("{{\"a\": \"{A40}\"}}"))
        },
        control: Naive::Works(backtracks),
    },
    Case {
        number: 73,
        variant: "regex-names",
        name: "the same in the names of properties",
        attack: |d| {
            let schema = "{ type: object, patternProperties: { '^(a+)+$': {} } }";
            configured(d, schema, &format!("{{\"{A40}\": 1}}"))
        },
        control: Naive::Works(backtracks),
    },
    Case {
        number: 73,
        variant: "input-ref-file",
        name: "`$ref` to a file in a tool's input schema",
        attack: |d| {
            let schema = format!("{{ $ref: 'file://{}' }}", d.text("outside/secret"));
            tool_input(d, &schema, "{}")
        },
        control: Naive::Works(opens_file),
    },
    Case {
        number: 73,
        variant: "input-regex",
        name: "a pattern that backtracks in a tool's input schema",
        attack: |d| {
            let schema =
                "{ type: object, properties: { a: { type: string, pattern: '^(a+)+$' } } }";
            tool_input(d, schema, &format!("{{\"a\": \"{A40}\"}}"))
        },
        control: Naive::Works(backtracks),
    },
    Case {
        number: 73,
        variant: "config-deep",
        name: "a configuration nested 100,000 deep",
        attack: |d| configured(d, "{}", &"[".repeat(100_000)),
        control: Naive::Works(|d| {
            let said = d.python("import json; json.loads('[' * 100000)", &[])?;
            Ok(said.text().contains("RecursionError"))
        }),
    },
];
