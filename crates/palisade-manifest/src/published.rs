//! The JSON Schema of the manifest, for editors and for programs that write manifests.
//!
//! Written out rather than derived, so that each field carries its help text and its range as an author
//! needs them. A test runs documents through this schema and through the validator: the schema is never
//! stricter, and laxer only for what a schema cannot say (paths of bytes, versions, capabilities' scopes,
//! reasons by risk, duplicates, sizes with units, schemas within the manifest).

use palisade_model::{Guarantee, Kind};
use serde_json::{Map, Value as Json, json};

use crate::{
    manifest::{DEFAULT_INSTANCES, MAX_INSTANCES},
    path::MAX_PATH_BYTES,
    validate::{
        API, MAX_DESCRIPTION, MAX_ENTRIES, MAX_NAME, MAX_REASON,
        contributes::{DEFAULT_PRIORITY, MAX_PRIORITY},
        entry::{MAX_ARG_BYTES, kinds},
        resources::{
            CPU, FILES, LIFETIME, LOG, MAX_BYTES, MAX_PIDS, MAX_RATE, MAX_TIMEOUT, MIN_MEMORY,
            has_levels,
        },
    },
};

/// No control character.
const LINE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// No control character but line breaks and tabs.
const LINES: &str = r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$";
/// Something that can be seen.
const VISIBLE: &str = r"\S";

/// The JSON Schema (draft 2020-12) of manifests in any of the three syntaxes. `palisade schema` prints it.
#[must_use]
pub fn schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Palisade plugin manifest",
        "description": "plugin.yaml, plugin.toml or plugin.json in a plugin's folder.",
        "type": "object",
        "required": ["api", "id", "version", "entry"],
        "additionalProperties": false,
        "patternProperties": extensions(),
        "properties": {
            "api": { "const": API, "description": "Which form of manifest this is." },
            "id": {
                "type": "string",
                "pattern": "^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$",
                "not": { "pattern": r"\.\." },
                "maxLength": 64,
                "description": "The plugin's name for programs."
            },
            "name": line(MAX_NAME, "The plugin's name for people."),
            "version": {
                "type": "string",
                "maxLength": 128,
                "pattern": r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$",
                "description": "The plugin's version (SemVer 2.0)."
            },
            "description": lines(MAX_DESCRIPTION, "What the plugin does."),
            "authors": {
                "type": "array", "maxItems": 64, "items": line(200, "An author."),
                "description": "Who wrote it."
            },
            "license": line(200, "An SPDX expression or any text."),
            "homepage": with(line(2000, "The plugin's page."), "allOf", json!([{ "pattern": r#"^https?://[^ "<>\\\n]+\n?$"# }, { "pattern": r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$" }])),
            "requires": {
                "description": "Which versions of Palisade the plugin needs.",
                "anyOf": [
                    { "type": "string", "pattern": "^palisade" },
                    object(&["palisade"], json!({
                        "palisade": { "type": "string", "maxLength": 128, "description": "A requirement, as in >=0.1." }
                    }), "By name.")
                ]
            },
            "entry": { "$ref": "#/$defs/entry" },
            "content": {
                "type": "string",
                "pattern": "^sha256:[0-9a-f]{64}$",
                "description": "The digest of the plugin's files, as palisade seal writes it. A folder with other files is refused."
            },
            "capabilities": object(&[], json!({
                "required": requests("Without these the plugin does not start."),
                "optional": requests("These it can do without.")
            }), "What the plugin asks for."),
            "contributes": contributes(),
            "resources": resources(),
            "guarantees": guarantees(),
            "config": object(&["schema"], json!({
                "schema": { "type": "object", "description": "JSON Schema of the configuration. $ref points into it only." },
                "defaults": { "type": "object", "description": "Values for what an operator leaves out." }
            }), "What the plugin can be configured with."),
            "state": object(&["schema"], json!({
                "schema": version_number("The version of the state that the plugin saves."),
                "accepts": {
                    "type": "array", "maxItems": MAX_ENTRIES, "items": version_number("A version."),
                    "description": "Other versions that it can restore."
                }
            }), "The shape of the state that is saved across a reload.")
        },
        "$defs": {
            "entry": entry(),
            "file": file("A file in the plugin's folder."),
            "command": {
                "type": "string", "minLength": 1, "maxLength": MAX_PATH_BYTES, "pattern": LINE,
                "not": { "pattern": r"(^|/)\.\.(/|$)" },
                "description": "An absolute path, a path inside the plugin's folder with a /, or a program's name."
            },
            "args": {
                "type": "array", "maxItems": MAX_ENTRIES,
                "items": { "type": "string", "maxLength": MAX_ARG_BYTES, "pattern": r"^[^\u0000]*$" },
                "description": "Arguments of the program."
            },
            "size": {
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": r"^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)$" }
                ]
            },
            "duration": {
                "anyOf": [
                    { "type": "number", "minimum": 0 },
                    { "type": "string", "pattern": r"^[0-9]+ ?(ms|s|m|h|d)$" }
                ]
            },
            "rate": {
                "description": "So many a second.",
                "anyOf": [
                    { "type": "integer", "minimum": 1, "maximum": MAX_RATE },
                    { "type": "string", "pattern": r"^[0-9]+ ?/s$" }
                ]
            },
            "capability": {
                "type": "string",
                "pattern": format!("^({}):", kinds_of_capability()),
                "description": "A right, written kind:scope."
            }
        }
    })
}

/// Keys of one's own.
fn extensions() -> Json {
    json!({ "^x-[A-Za-z0-9._-]+$": true })
}

fn with(mut schema: Json, key: &str, value: Json) -> Json {
    if let Json::Object(map) = &mut schema {
        map.insert(key.to_owned(), value);
    }
    schema
}

fn line(max: usize, description: &str) -> Json {
    text(max, LINE, description)
}

fn lines(max: usize, description: &str) -> Json {
    text(max, LINES, description)
}

/// A last line break does not count, as in a YAML block.
fn text(max: usize, pattern: &str, description: &str) -> Json {
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": max,
        "allOf": [{ "pattern": VISIBLE }, { "pattern": format!("{pattern}\\n?$") }],
        "description": description
    })
}

fn object(required: &[&str], properties: Json, description: &str) -> Json {
    json!({
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "patternProperties": extensions(),
        "properties": properties,
        "description": description
    })
}

fn version_number(description: &str) -> Json {
    json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX, "description": description })
}

fn file(description: &str) -> Json {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PATH_BYTES,
        "pattern": LINE,
        "not": { "pattern": r"^/|(^|/)\.\.(/|$)|\\|/$" },
        "description": description
    })
}

fn kinds_of_capability() -> String {
    let names: Vec<String> = Kind::ALL.iter().map(|k| k.as_str().replace('.', r"\.")).collect();
    names.join("|")
}

fn requests(description: &str) -> Json {
    json!({
        "type": "array",
        "maxItems": MAX_ENTRIES,
        "description": description,
        "items": {
            "anyOf": [
                { "$ref": "#/$defs/capability" },
                object(&["capability"], json!({
                    "capability": { "$ref": "#/$defs/capability" },
                    "reason": line(MAX_REASON, "What it is for, in one line. Needed from medium risk on.")
                }), "A right and what it is for.")
            ]
        }
    })
}

/// One alternative for each kind, chosen by `kind`, so that an editor shows the findings of the right one.
fn entry() -> Json {
    let alternatives: Vec<Json> = kinds()
        .map(|kind| {
            let (required, more, properties, what) = entry_kind(kind);
            let mut properties = match properties {
                Json::Object(map) => map,
                _ => Map::new(),
            };
            properties.insert("kind".into(), json!({ "const": kind }));
            let required: Vec<&str> =
                std::iter::once("kind").chain(required.iter().copied()).collect();
            let mut then = object(&required, Json::Object(properties), what);
            if let (Json::Object(then), Json::Object(more)) = (&mut then, more) {
                then.extend(more);
            }
            json!({ "if": { "properties": { "kind": { "const": kind } } }, "then": then })
        })
        .collect();
    json!({
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": { "enum": kinds().collect::<Vec<_>>(), "description": "What kind of program it is." }
        },
        "allOf": alternatives,
        "description": "How the plugin is started."
    })
}

type EntryKind = (&'static [&'static str], Json, Json, &'static str);

fn entry_kind(kind: &str) -> EntryKind {
    let file = json!({ "$ref": "#/$defs/file" });
    let command = json!({ "$ref": "#/$defs/command" });
    let args = json!({ "$ref": "#/$defs/args" });
    let either = json!({ "oneOf": [{ "required": ["file"] }, { "required": ["command"] }] });
    let none = json!({});
    let with_calls = || {
        json!({
            "file": file,
            "calls": { "enum": ["stateful", "stateless", "per-call"], "default": "stateful", "description": "How calls find an instance: the one there is, one of a pool, or one of their own." },
            "instances": { "type": "integer", "minimum": 1, "maximum": MAX_INSTANCES, "default": DEFAULT_INSTANCES, "description": "Most instances at a time; stands only with calls: stateless or per-call." }
        })
    };
    match kind {
        "python" => (
            &["file"],
            none,
            json!({
                "file": file,
                "args": args,
                "interpreter": with(command, "description", json!("A name on PATH, an absolute path, or venv:FOLDER. Default python3.")),
                "version": { "type": "string", "maxLength": 128, "pattern": VISIBLE, "description": "Versions of Python, as in >=3.10." }
            }),
            "A Python program that speaks Palisade's protocol.",
        ),
        "node" => (
            &["file"],
            none,
            json!({ "file": file, "args": args }),
            "A Node.js program that speaks Palisade's protocol.",
        ),
        "exec" => (
            &[],
            either,
            json!({ "file": file, "command": command, "args": args }),
            "Any program that speaks Palisade's protocol.",
        ),
        "mcp" => (
            &["command"],
            none,
            json!({ "command": command, "args": args }),
            "An MCP server on stdio.",
        ),
        "jsonl" => (
            &[],
            either,
            json!({
                "file": file,
                "command": command,
                "runtime": { "enum": ["python", "node", "exec"], "default": "exec", "description": "What runs the file." },
                "args": args,
                "mode": { "enum": ["resident", "per-call"], "default": "resident", "description": "How long one process lives." },
                "init": { "enum": ["init", "initialize"], "default": "initialize", "description": "The name of the first message." },
                "timeout": duration("Deadline of one answer.", 0.001, MAX_TIMEOUT.as_secs_f64())
            }),
            "A program that answers {id, method, params} line by line on stdout.",
        ),
        "image" => (
            &["image"],
            none,
            json!({ "image": line(512, "The image's reference.") }),
            "A container image.",
        ),
        "wasm" => (&["file"], none, with_calls(), "A WebAssembly component."),
        "extism" => {
            let mut keys = with_calls();
            if let Json::Object(keys) = &mut keys {
                keys.insert("output".to_owned(), json!({ "enum": ["auto", "json", "text"], "default": "auto", "description": "What the output of its functions means." }));
            }
            (&["file"], none, keys, "A WebAssembly module for Extism.")
        }
        _ => (&["file"], none, json!({ "file": file }), "A shared library."),
    }
}

fn contributes() -> Json {
    let name = |what: &str| {
        json!({
            "type": "string",
            "pattern": "^[A-Za-z0-9._:/@$+-]{1,256}$",
            "description": what
        })
    };
    let description = || lines(MAX_DESCRIPTION, "What it does.");
    let family = |required: &[&str], properties: Json, what: &str| {
        json!({
            "type": "array",
            "maxItems": MAX_ENTRIES,
            "description": what,
            "items": object(required, properties, what)
        })
    };
    object(
        &[],
        json!({
            "tools": family(&["name", "description"], json!({
                "name": name("The tool's name."),
                "description": description(),
                "input": { "type": "object", "description": "JSON Schema of what it takes. Default: any object." },
                "output": { "type": "object", "description": "JSON Schema of what it gives." }
            }), "Tools."),
            "commands": family(&["name", "description"], json!({
                "name": name("The command's name."),
                "description": description(),
                "usage": lines(MAX_DESCRIPTION, "How it is used.")
            }), "Commands."),
            "hooks": family(&["event"], json!({
                "event": name("Which event."),
                "priority": { "type": "integer", "minimum": 0, "maximum": MAX_PRIORITY, "default": DEFAULT_PRIORITY, "description": "Lower is earlier." },
                "reason": line(MAX_REASON, "What it is for, in one line.")
            }), "Hooks."),
            "channels": family(&["type", "description"], json!({
                "type": name("The channel's type."),
                "name": line(MAX_NAME, "Its name for people."),
                "description": description()
            }), "Channels."),
            "services": family(&["name", "description"], json!({
                "name": name("The service's name."),
                "description": description()
            }), "Services.")
        }),
        "What the plugin offers.",
    )
}

/// The range stands at the numeric form; the text form's is checked when the manifest is read.
fn size(description: &str, min: u64, max: u64) -> Json {
    json!({ "$ref": "#/$defs/size", "minimum": min, "maximum": max, "description": description })
}

fn duration(description: &str, min: f64, max: f64) -> Json {
    json!({ "$ref": "#/$defs/duration", "minimum": min, "maximum": max, "description": description })
}

fn rate(description: &str) -> Json {
    json!({ "$ref": "#/$defs/rate", "description": description })
}

fn resources() -> Json {
    let timeout = |what: &str| duration(what, 0.001, MAX_TIMEOUT.as_secs_f64());
    object(
        &[],
        json!({
            "cpu": { "type": "number", "minimum": CPU.0, "maximum": CPU.1, "description": "Share of one core." },
            "memory": size("Memory of all processes together.", MIN_MEMORY, MAX_BYTES),
            "pids": { "type": "integer", "minimum": 1, "maximum": MAX_PIDS, "description": "Processes and threads." },
            "files": { "type": "integer", "minimum": FILES.0, "maximum": FILES.1, "description": "Open file handles of each process." },
            "disk": size("Bytes that may be kept.", 0, MAX_BYTES),
            "log": size("Bytes of log kept per second.", LOG.0, LOG.1),
            "timeouts": object(&[], json!({
                "start": timeout("From launch to the answer of initialize."),
                "call": timeout("Deadline of one call."),
                "stop": timeout("From shutdown to SIGKILL."),
                "lifetime": duration("Longest life of one instance.", LIFETIME.0.as_secs_f64(), LIFETIME.1.as_secs_f64())
            }), "Deadlines."),
            "rates": object(&[], json!({
                "requests": rate("Requests to the host."),
                "events": rate("Events published."),
                "calls": rate("Calls into the plugin.")
            }), "How often per second.")
        }),
        "How much the plugin needs.",
    )
}

fn guarantees() -> Json {
    let names: Vec<&str> = Guarantee::ALL.iter().map(|g| g.as_str()).collect();
    let properties: Map<String, Json> = Guarantee::ALL
        .iter()
        .map(|g| {
            let levels = if has_levels(*g) {
                json!([true, "kernel", "policed"])
            } else {
                json!([true, "kernel"])
            };
            (g.to_string(), json!({ "enum": levels }))
        })
        .collect();
    json!({
        "description": "What the plugin demands of its walls on top of the operator's floor.",
        "anyOf": [
            { "type": "array", "maxItems": 64, "items": { "enum": names } },
            object(&[], Json::Object(properties), "With levels.")
        ]
    })
}
