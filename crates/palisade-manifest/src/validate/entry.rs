//! `entry`: how the plugin is started.

use std::time::Duration;

use super::{
    MAX_ENTRIES,
    reader::{Field, Fields, Reader, Text},
};
use crate::{
    error::{Rule, quoted},
    manifest::{
        Calls, DEFAULT_INSTANCES, Entry, Init, Jsonl, MAX_INSTANCES, Mode, Output, Runtime,
    },
    path::{Interpreter, Program, RelPath},
};

/// Longest argument, in bytes.
pub(crate) const MAX_ARG_BYTES: usize = 4096;

#[derive(Clone, Copy)]
enum Tag {
    Python,
    Node,
    Exec,
    Mcp,
    Jsonl,
    Wasm,
    Extism,
    Image,
    Library,
}

const TAGS: [(&str, Tag); 9] = [
    ("python", Tag::Python),
    ("node", Tag::Node),
    ("exec", Tag::Exec),
    ("mcp", Tag::Mcp),
    ("jsonl", Tag::Jsonl),
    ("wasm", Tag::Wasm),
    ("extism", Tag::Extism),
    ("image", Tag::Image),
    ("library", Tag::Library),
];

/// The names of the entry kinds, in the order of the reference.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    TAGS.iter().map(|(name, _)| *name)
}

pub(super) fn read(field: &Field<'_>, reader: &mut Reader) -> Option<Entry> {
    let mut fields = reader.fields(field)?;
    let kind = fields.need(reader, "kind")?;
    let tag = reader.choice(&kind, &TAGS)?;
    let entry = match tag {
        Tag::Python => python(&mut fields, reader),
        Tag::Node => {
            let file = need_file(&mut fields, reader);
            let args = args(&mut fields, reader);
            file.map(|file| Entry::Node { file, args })
        }
        Tag::Exec => {
            let program = program(&mut fields, reader);
            let args = args(&mut fields, reader);
            program.map(|program| Entry::Exec { program, args })
        }
        Tag::Mcp => {
            let command = fields.need(reader, "command");
            let command = command.and_then(|field| path(&field, reader, Program::parse));
            let args = args(&mut fields, reader);
            command.map(|command| Entry::Mcp { command, args })
        }
        Tag::Jsonl => jsonl(&mut fields, reader).map(Entry::Jsonl),
        Tag::Wasm => {
            let file = need_file(&mut fields, reader);
            let calls = calls(&mut fields, reader);
            file.map(|file| Entry::Wasm { file, calls })
        }
        Tag::Extism => {
            let file = need_file(&mut fields, reader);
            let calls = calls(&mut fields, reader);
            let output = fields.take("output").and_then(|field| {
                let words =
                    [("auto", Output::Auto), ("json", Output::Json), ("text", Output::Text)];
                reader.choice(&field, &words)
            });
            file.map(|file| Entry::Extism { file, calls, output: output.unwrap_or_default() })
        }
        Tag::Image => {
            let image = fields.need_text(reader, "image", Text::line(512));
            image.map(|image| Entry::Image { image })
        }
        Tag::Library => need_file(&mut fields, reader).map(|file| Entry::Library { file }),
    };
    fields.finish(reader);
    entry
}

fn python(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Entry> {
    let file = need_file(fields, reader);
    let args = args(fields, reader);
    let interpreter =
        fields.take("interpreter").and_then(|field| path(&field, reader, Interpreter::parse));
    let version = fields.take("version").and_then(|field| {
        let text = reader.str(&field)?;
        let parsed =
            semver::VersionReq::parse(text.trim()).ok().filter(|_| !text.trim().is_empty());
        if parsed.is_none() || text.len() > 128 {
            let message = format!("{} is not a requirement", quoted(text));
            reader.wrong_hint(Rule::Version, &field, message, "write it as in \">=3.10\"");
            return None;
        }
        parsed
    });
    Some(Entry::Python { file: file?, args, interpreter: interpreter.unwrap_or_default(), version })
}

fn jsonl(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Jsonl> {
    let program = program(fields, reader);
    let runtime = fields.take("runtime").and_then(|field| {
        let words = [("python", Runtime::Python), ("node", Runtime::Node), ("exec", Runtime::Exec)];
        let runtime = reader.choice(&field, &words)?;
        // An interpreter runs a script of the plugin's; a command of this machine is not one.
        if runtime != Runtime::Exec
            && matches!(program, Some(Program::Name(_) | Program::Absolute(_)))
        {
            let message = "python and node run a file in the plugin's folder, not a command";
            reader.wrong_hint(Rule::Conflict, &field, message, "name the script with file");
        }
        Some(runtime)
    });
    let args = args(fields, reader);
    let mode = fields.take("mode").and_then(|field| {
        reader.choice(&field, &[("resident", Mode::Resident), ("per-call", Mode::PerCall)])
    });
    let init = fields.take("init").and_then(|field| {
        reader.choice(&field, &[("init", Init::Init), ("initialize", Init::Initialize)])
    });
    let timeout = fields.take("timeout").and_then(|field| {
        reader.duration(&field, Duration::from_millis(1), super::resources::MAX_TIMEOUT)
    });
    Some(Jsonl {
        program: program?,
        runtime: runtime.unwrap_or_default(),
        args,
        mode: mode.unwrap_or_default(),
        init: init.unwrap_or_default(),
        timeout,
    })
}

/// `calls` and `instances`.
fn calls(fields: &mut Fields<'_>, reader: &mut Reader) -> Calls {
    let stateless = Calls::Stateless { instances: DEFAULT_INSTANCES };
    let per_call = Calls::PerCall { instances: DEFAULT_INSTANCES };
    let words = [("stateful", Calls::Stateful), ("stateless", stateless), ("per-call", per_call)];
    let calls = fields.take("calls").and_then(|field| reader.choice(&field, &words));
    let calls = calls.unwrap_or_default();
    let Some(field) = fields.take("instances") else { return calls };
    let Some(most) = reader.whole32(&field, 1, MAX_INSTANCES) else { return calls };
    match calls {
        Calls::Stateful => {
            reader.wrong_hint(
                Rule::Conflict,
                &field,
                "a stateful plugin has one instance",
                "write calls: stateless, or calls: per-call",
            );
            calls
        }
        Calls::Stateless { .. } => Calls::Stateless { instances: most },
        Calls::PerCall { .. } => Calls::PerCall { instances: most },
    }
}

/// `file` or `command`, exactly one of them.
fn program(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Program> {
    match (fields.take("file"), fields.take("command")) {
        (Some(field), None) => path(&field, reader, RelPath::parse).map(Program::File),
        (None, Some(field)) => path(&field, reader, Program::parse),
        (Some(_), Some(field)) => {
            reader.wrong(Rule::Conflict, &field, "file and command cannot both stand here");
            None
        }
        (None, None) => {
            fields.wrong(reader, Rule::Conflict, "file or command is missing");
            None
        }
    }
}

fn need_file(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<RelPath> {
    let field = fields.need(reader, "file")?;
    path(&field, reader, RelPath::parse)
}

fn path<T>(
    field: &Field<'_>,
    reader: &mut Reader,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<T> {
    let text = reader.str(field)?;
    parse(text)
        .map_err(|why| reader.wrong(Rule::Path, field, format!("{} {why}", quoted(text))))
        .ok()
}

fn args(fields: &mut Fields<'_>, reader: &mut Reader) -> Vec<String> {
    let Some(field) = fields.take("args") else { return Vec::new() };
    let mut out = Vec::new();
    for item in reader.list(&field, MAX_ENTRIES) {
        let Some(text) = reader.str(&item) else { continue };
        if text.len() > MAX_ARG_BYTES {
            reader.wrong(
                Rule::Bounds,
                &item,
                format!("an argument has at most {MAX_ARG_BYTES} bytes"),
            );
        } else if text.contains('\0') {
            reader.wrong(Rule::Text, &item, "an argument may not hold NUL");
        } else {
            out.push(text.to_owned());
        }
    }
    out
}
