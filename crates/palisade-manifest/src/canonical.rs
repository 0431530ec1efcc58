//! A manifest as JSON in the manifest's own shape.
//!
//! For `--json`, and so that what was read can be written: reading the result gives a manifest that says
//! the same. Quantities stand as bare numbers or with the largest unit that holds them whole; what the
//! manifest left out is left out.

use palisade_model::Level;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use crate::{
    manifest::{
        Calls, Contributes, Entry, Init, Jsonl, Manifest, Mode, Output, Request, Resources, Runtime,
    },
    path::Program,
    quantity::{show_duration, show_size},
};

/// An object without its `null`s and its empty lists and maps.
fn compact(value: Json) -> Json {
    let Json::Object(map) = value else { return value };
    let full = |value: &Json| match value {
        Json::Null => false,
        Json::Array(items) => !items.is_empty(),
        Json::Object(map) => !map.is_empty(),
        _ => true,
    };
    Json::Object(map.into_iter().filter(|(_, value)| full(value)).collect())
}

/// An object without its `null`s. For objects in which an empty map means something.
fn without_nulls(value: Json) -> Json {
    let Json::Object(map) = value else { return value };
    Json::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

impl Manifest {
    /// The manifest as JSON that [`crate::parse`] reads back. Keys that begin with `x-` are not kept.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let requests = |list: &[Request]| -> Json { list.iter().map(request).collect() };
        let guarantees: Map<String, Json> = self
            .guarantees
            .iter()
            .map(|(guarantee, level)| {
                let level =
                    if level == Level::Kernel { json!(true) } else { json!(level.as_str()) };
                (guarantee.to_string(), level)
            })
            .collect();
        compact(json!({
            "api": crate::API,
            "id": self.id.as_str(),
            "name": self.name,
            "version": self.version.to_string(),
            "description": self.description,
            "authors": self.authors,
            "license": self.license,
            "homepage": self.homepage,
            "requires": self.requires.as_ref().map(|r| json!({ "palisade": r.to_string() })),
            "entry": entry(&self.entry),
            "content": self.content,
            "capabilities": compact(json!({
                "required": requests(&self.capabilities.required),
                "optional": requests(&self.capabilities.optional),
            })),
            "contributes": contributes(&self.contributes),
            "resources": resources(&self.resources),
            "guarantees": guarantees,
            "config": self.config.as_ref().map(|c| json!({
                "schema": c.schema.document(),
                "defaults": c.defaults,
            })),
            "state": self.state.as_ref().map(|s| json!({ "schema": s.schema, "accepts": s.accepts })),
        }))
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

fn request(request: &Request) -> Json {
    let capability = request.capability.to_string();
    match &request.reason {
        Some(reason) => json!({ "capability": capability, "reason": reason }),
        None => json!(capability),
    }
}

fn entry(entry: &Entry) -> Json {
    compact(match entry {
        Entry::Python { file, args, interpreter, version } => json!({
            "kind": "python",
            "file": file.as_str(),
            "args": args,
            "interpreter": interpreter.to_string(),
            "version": version.as_ref().map(ToString::to_string),
        }),
        Entry::Node { file, args } => {
            json!({ "kind": "node", "file": file.as_str(), "args": args })
        }
        Entry::Exec { program, args } => {
            with_program(json!({ "kind": "exec", "args": args }), program)
        }
        Entry::Mcp { command, args } => {
            json!({ "kind": "mcp", "command": command.to_string(), "args": args })
        }
        Entry::Jsonl(Jsonl { program, runtime, args, mode, init, timeout }) => with_program(
            json!({
                "kind": "jsonl",
                "runtime": match runtime {
                    Runtime::Python => "python",
                    Runtime::Node => "node",
                    Runtime::Exec => "exec",
                },
                "args": args,
                "mode": match mode {
                    Mode::Resident => "resident",
                    Mode::PerCall => "per-call",
                },
                "init": match init {
                    Init::Init => "init",
                    Init::Initialize => "initialize",
                },
                "timeout": timeout.map(show_duration),
            }),
            program,
        ),
        Entry::Wasm { file, calls } => with_calls("wasm", file.as_str(), *calls),
        Entry::Extism { file, calls, output } => {
            let mut entry = with_calls("extism", file.as_str(), *calls);
            if let Json::Object(entry) = &mut entry {
                let word = match output {
                    Output::Auto => "auto",
                    Output::Json => "json",
                    Output::Text => "text",
                };
                entry.insert("output".to_owned(), json!(word));
            }
            entry
        }
        Entry::Image { image } => json!({ "kind": "image", "image": image }),
        Entry::Library { file } => json!({ "kind": "library", "file": file.as_str() }),
    })
}

fn with_calls(kind: &str, file: &str, calls: Calls) -> Json {
    let (calls, instances) = match calls {
        Calls::Stateful => ("stateful", None),
        Calls::Stateless { instances } => ("stateless", Some(instances)),
        Calls::PerCall { instances } => ("per-call", Some(instances)),
    };
    json!({ "kind": kind, "file": file, "calls": calls, "instances": instances })
}

fn with_program(mut entry: Json, program: &Program) -> Json {
    let (key, value) = match program {
        Program::File(path) => ("file", path.to_string()),
        command => ("command", command.to_string()),
    };
    if let Json::Object(map) = &mut entry {
        map.insert(key.to_owned(), json!(value));
    }
    entry
}

fn contributes(c: &Contributes) -> Json {
    let list = |items: Vec<Json>| Json::Array(items.into_iter().map(without_nulls).collect());
    compact(json!({
        "tools": list(c.tools.iter().map(|t| json!({
            "name": t.name,
            "description": t.description,
            "input": t.input.document(),
            "output": t.output.as_ref().map(|o| o.document()),
        })).collect()),
        "commands": list(c.commands.iter().map(|x| json!({
            "name": x.name, "description": x.description, "usage": x.usage,
        })).collect()),
        "hooks": list(c.hooks.iter().map(|x| json!({
            "event": x.event, "priority": x.priority, "reason": x.reason,
        })).collect()),
        "channels": list(c.channels.iter().map(|x| json!({
            "type": x.channel_type, "name": x.name, "description": x.description,
        })).collect()),
        "services": list(c.services.iter().map(|x| json!({
            "name": x.name, "description": x.description,
        })).collect()),
    }))
}

fn resources(r: &Resources) -> Json {
    compact(json!({
        "cpu": r.cpu,
        "memory": r.memory.map(show_size),
        "pids": r.pids,
        "files": r.files,
        "disk": r.disk.map(show_size),
        "log": r.log_bytes_per_second.map(show_size),
        "timeouts": compact(json!({
            "start": r.start_timeout.map(show_duration),
            "call": r.call_timeout.map(show_duration),
            "stop": r.stop_timeout.map(show_duration),
            "lifetime": r.max_lifetime.map(show_duration),
        })),
        "rates": compact(json!({
            "requests": r.requests_per_second,
            "events": r.events_per_second,
            "calls": r.calls_per_second,
        })),
    }))
}
