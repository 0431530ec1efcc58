//! `palisade new`: a working plugin from a template.
//!
//! Nothing is fetched: the templates and the SDKs are part of this program, and the SDK is copied into the
//! new folder, because a plugin sees nothing but its folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use palisade_model::PluginId;
use serde_json::json;

use crate::{
    cli::Output,
    platform::walls,
    session::shown,
    terminal::{self, Paint},
    trouble::Trouble,
};

/// Make a new plugin that works, in a folder of its name
///
/// Writes a manifest, a program of about fifteen lines with one tool, a test, a README, and the SDK, which needs no
/// other package. Nothing is fetched, and nothing that exists is written over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade new greeter --lang python
  palisade call greeter greet '{\"name\": \"Ada\"}'
  palisade new greeter --lang rust --json    what was written, and what to do next, for programs")]
pub(crate) struct New {
    /// The plugin's id and its folder: 1 to 64 of `a-z 0-9 - _ .`
    pub(crate) name: String,
    /// The language
    #[arg(long, value_enum)]
    pub(crate) lang: Language,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Python,
    Rust,
    Typescript,
    /// Python, as a WebAssembly component
    PythonWasm,
    /// Rust, as a WebAssembly component
    RustWasm,
    /// JavaScript, as a WebAssembly component
    JsWasm,
}

/// A file of a template: where it lies in the plugin, and what is in it.
type File = (&'static str, &'static str);

/// Files of a template or of an SDK: `to/path => from/path`, the latter below this crate's folder.
macro_rules! files {
    ($folder:literal: $($to:literal => $from:literal,)*) => {
        [$(($to, include_str!(concat!("../../", $folder, "/", $from))),)*]
    };
}

const PYTHON: [File; 5] = files! { "templates/python":
    "plugin.yaml" => "plugin.yaml",
    "main.py" => "main.py",
    "test_main.py" => "test_main.py",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

const PYTHON_SDK: [File; 13] = files! { "../../sdk/python/palisade_plugin":
    "palisade_plugin/__init__.py" => "__init__.py",
    "palisade_plugin/__main__.py" => "__main__.py",
    "palisade_plugin/_call.py" => "_call.py",
    "palisade_plugin/_component.py" => "_component.py",
    "palisade_plugin/_errors.py" => "_errors.py",
    "palisade_plugin/_json.py" => "_json.py",
    "palisade_plugin/_parts.py" => "_parts.py",
    "palisade_plugin/_plugin.py" => "_plugin.py",
    "palisade_plugin/_pool.py" => "_pool.py",
    "palisade_plugin/_schema.py" => "_schema.py",
    "palisade_plugin/_services.py" => "_services.py",
    "palisade_plugin/_session.py" => "_session.py",
    "palisade_plugin/_wire.py" => "_wire.py",
};

const TYPESCRIPT: [File; 10] = files! { "templates/typescript":
    "plugin.yaml" => "plugin.yaml",
    "src/main.ts" => "src/main.ts",
    "src/greet.ts" => "src/greet.ts",
    "dist/main.js" => "dist/main.js",
    "dist/greet.js" => "dist/greet.js",
    "test/greet.test.js" => "test/greet.test.js",
    "package.json" => "package.json",
    "tsconfig.json" => "tsconfig.json",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

const TYPESCRIPT_SDK: [File; 26] = files! { "../../sdk/typescript/dist":
    "palisade-plugin/build.d.ts" => "build.d.ts",
    "palisade-plugin/build.js" => "build.js",
    "palisade-plugin/call.d.ts" => "call.d.ts",
    "palisade-plugin/call.js" => "call.js",
    "palisade-plugin/component.d.ts" => "component.d.ts",
    "palisade-plugin/component.js" => "component.js",
    "palisade-plugin/errors.d.ts" => "errors.d.ts",
    "palisade-plugin/errors.js" => "errors.js",
    "palisade-plugin/index.d.ts" => "index.d.ts",
    "palisade-plugin/index.js" => "index.js",
    "palisade-plugin/json.d.ts" => "json.d.ts",
    "palisade-plugin/json.js" => "json.js",
    "palisade-plugin/names.d.ts" => "names.d.ts",
    "palisade-plugin/names.js" => "names.js",
    "palisade-plugin/native.d.ts" => "native.d.ts",
    "palisade-plugin/native.js" => "native.js",
    "palisade-plugin/plugin.d.ts" => "plugin.d.ts",
    "palisade-plugin/plugin.js" => "plugin.js",
    "palisade-plugin/schema.d.ts" => "schema.d.ts",
    "palisade-plugin/schema.js" => "schema.js",
    "palisade-plugin/services.d.ts" => "services.d.ts",
    "palisade-plugin/services.js" => "services.js",
    "palisade-plugin/session.d.ts" => "session.d.ts",
    "palisade-plugin/session.js" => "session.js",
    "palisade-plugin/wire.d.ts" => "wire.d.ts",
    "palisade-plugin/wire.js" => "wire.js",
};

const RUST: [File; 5] = files! { "templates/rust":
    "plugin.yaml" => "plugin.yaml",
    "Cargo.toml" => "Cargo.toml.in",
    "src/main.rs" => "src/main.rs",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

const RUST_SDK: [File; 33] = files! { "../../sdk/rust":
    "palisade-plugin/Cargo.toml" => "Cargo.toml",
    "palisade-plugin/README.md" => "README.md",
    "palisade-plugin/src/args.rs" => "src/args.rs",
    "palisade-plugin/src/args/inside.rs" => "src/args/inside.rs",
    "palisade-plugin/src/args/node.rs" => "src/args/node.rs",
    "palisade-plugin/src/call.rs" => "src/call.rs",
    "palisade-plugin/src/component/bindings.rs" => "src/component/bindings.rs",
    "palisade-plugin/src/component/exports.rs" => "src/component/exports.rs",
    "palisade-plugin/src/component/mod.rs" => "src/component/mod.rs",
    "palisade-plugin/src/component/services.rs" => "src/component/services.rs",
    "palisade-plugin/src/error.rs" => "src/error.rs",
    "palisade-plugin/src/handle.rs" => "src/handle.rs",
    "palisade-plugin/src/handlers.rs" => "src/handlers.rs",
    "palisade-plugin/src/http.rs" => "src/http.rs",
    "palisade-plugin/src/json.rs" => "src/json.rs",
    "palisade-plugin/src/lib.rs" => "src/lib.rs",
    "palisade-plugin/src/native/base64.rs" => "src/native/base64.rs",
    "palisade-plugin/src/native/call_state.rs" => "src/native/call_state.rs",
    "palisade-plugin/src/native/descriptor.rs" => "src/native/descriptor.rs",
    "palisade-plugin/src/native/dispatch.rs" => "src/native/dispatch.rs",
    "palisade-plugin/src/native/errors.rs" => "src/native/errors.rs",
    "palisade-plugin/src/native/mod.rs" => "src/native/mod.rs",
    "palisade-plugin/src/native/pool.rs" => "src/native/pool.rs",
    "palisade-plugin/src/native/services.rs" => "src/native/services.rs",
    "palisade-plugin/src/native/session.rs" => "src/native/session.rs",
    "palisade-plugin/src/native/wire.rs" => "src/native/wire.rs",
    "palisade-plugin/src/parts.rs" => "src/parts.rs",
    "palisade-plugin/src/plugin.rs" => "src/plugin.rs",
    "palisade-plugin/src/storage.rs" => "src/storage.rs",
    "palisade-plugin/wit/0.1.0/handlers.wit" => "wit/0.1.0/handlers.wit",
    "palisade-plugin/wit/0.1.0/imports.wit" => "wit/0.1.0/imports.wit",
    "palisade-plugin/wit/0.1.0/types.wit" => "wit/0.1.0/types.wit",
    "palisade-plugin/wit/0.1.0/worlds.wit" => "wit/0.1.0/worlds.wit",
};

const RUST_WASM: [File; 6] = files! { "templates/rust-wasm":
    "plugin.yaml" => "plugin.yaml",
    "Cargo.toml" => "Cargo.toml.in",
    "src/lib.rs" => "src/lib.rs",
    "src/main.rs" => "src/main.rs",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

const PYTHON_WASM: [File; 6] = files! { "templates/python-wasm":
    "plugin.yaml" => "plugin.yaml",
    "main.py" => "main.py",
    "test_main.py" => "test_main.py",
    "world.wit" => "world.wit",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

const JS_WASM: [File; 9] = files! { "templates/js-wasm":
    "plugin.yaml" => "plugin.yaml",
    "src/main.js" => "src/main.js",
    "src/greet.js" => "src/greet.js",
    "test/greet.test.js" => "test/greet.test.js",
    "package.json" => "package.json",
    "palisade-plugin/package.json" => "sdk-package.json",
    "world.wit" => "world.wit",
    "README.md" => "README.md",
    ".gitignore" => "gitignore",
};

/// What a component can import and export, beside the SDK that makes one.
const PYTHON_WIT: [File; 4] = files! { "../../sdk/python/palisade_plugin/wit":
    "palisade_plugin/wit/handlers.wit" => "handlers.wit",
    "palisade_plugin/wit/imports.wit" => "imports.wit",
    "palisade_plugin/wit/types.wit" => "types.wit",
    "palisade_plugin/wit/worlds.wit" => "worlds.wit",
};

const JS_WIT: [File; 4] = files! { "../../sdk/typescript/wit":
    "palisade-plugin/wit/handlers.wit" => "handlers.wit",
    "palisade-plugin/wit/imports.wit" => "imports.wit",
    "palisade-plugin/wit/types.wit" => "types.wit",
    "palisade-plugin/wit/worlds.wit" => "worlds.wit",
};

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Rust => "Rust",
            Self::Typescript => "TypeScript",
            Self::PythonWasm => "Python, as a WebAssembly component",
            Self::RustWasm => "Rust, as a WebAssembly component",
            Self::JsWasm => "JavaScript, as a WebAssembly component",
        }
    }

    /// The template, where placeholders are filled in.
    fn template(self) -> &'static [File] {
        match self {
            Self::Python => &PYTHON,
            Self::Rust => &RUST,
            Self::Typescript => &TYPESCRIPT,
            Self::PythonWasm => &PYTHON_WASM,
            Self::RustWasm => &RUST_WASM,
            Self::JsWasm => &JS_WASM,
        }
    }

    /// The SDK, which is copied as it is.
    fn sdk(self) -> Vec<File> {
        let (sdk, wit): (&[File], &[File]) = match self {
            Self::Python => (&PYTHON_SDK, &[]),
            Self::PythonWasm => (&PYTHON_SDK, &PYTHON_WIT),
            Self::Rust | Self::RustWasm => (&RUST_SDK, &[]),
            Self::Typescript => (&TYPESCRIPT_SDK, &[]),
            Self::JsWasm => (&TYPESCRIPT_SDK, &JS_WIT),
        };
        [sdk, wit].concat()
    }

    /// Whether it becomes a program of the machine, and no component.
    fn is_native(self) -> bool {
        matches!(self, Self::Python | Self::Rust | Self::Typescript)
    }

    /// Commands for whoever made the plugin, in their order.
    fn next(self, name: &str) -> Vec<String> {
        let build = match self {
            Self::Python | Self::Typescript => None,
            Self::Rust => Some("cargo build --release"),
            Self::RustWasm => Some("cargo build --release --lib --target wasm32-unknown-unknown"),
            Self::PythonWasm => Some("python3 -m palisade_plugin build"),
            Self::JsWasm => Some("npm install && npm run build"),
        };
        let test = match self {
            Self::Python | Self::PythonWasm => "python3 -m unittest",
            Self::Rust | Self::RustWasm => "cargo test",
            Self::Typescript => "npm install && npm test",
            Self::JsWasm => "npm test",
        };
        let others = [
            format!("palisade check {name}"),
            format!("palisade call {name} greet '{{\"name\": \"Ada\"}}'"),
            format!("(cd {name} && {test})"),
        ];
        build.map(|build| format!("(cd {name} && {build})")).into_iter().chain(others).collect()
    }
}

/// Runs the command.
pub(crate) fn new(args: &New) -> Result<(), Trouble> {
    let id = PluginId::parse(&args.name).map_err(|error| Trouble::usage(error.to_string()))?;
    let folder = PathBuf::from(id.as_str());
    let written = make(&folder, id.as_str(), args.lang)?;
    let next = args.lang.next(id.as_str());
    if args.output.json {
        let folder = folder.canonicalize().unwrap_or(folder);
        let lang = args.lang.to_possible_value().map(|value| value.get_name().to_owned());
        terminal::json(&json!({
            "id": id.as_str(), "lang": lang, "folder": folder, "files": written, "next": next,
        }));
    } else {
        let paint = Paint::stdout();
        let about =
            format_args!("{}, a plugin in {}", paint.bold(folder.display()), args.lang.name());
        terminal::out(format_args!("Made {about}.\n\nNext:\n  {}", next.join("\n  ")));
    }
    if let Some(note) = args.lang.is_native().then(walls::no_native).flatten() {
        terminal::err(format_args!("{} {note}", Paint::stderr().warn("warning:")));
    }
    Ok(())
}

/// Writes the plugin into a folder that this makes; gives the files. Of one that fails nothing is left.
fn make(folder: &Path, name: &str, language: Language) -> Result<Vec<&'static str>, Trouble> {
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Trouble::usage(format!("{} exists already", shown(folder)))
            .hint("choose another name, or take it away first; nothing is written over"),
        _ => cannot_write(folder, &error),
    })?;
    let fill = |text: &str| {
        text.replace("{{name}}", name).replace("{{version}}", env!("CARGO_PKG_VERSION"))
    };
    let mut all: Vec<(&'static str, String)> = Vec::new();
    all.extend(language.template().iter().map(|(path, text)| (*path, fill(text))));
    all.extend(language.sdk().into_iter().map(|(path, text)| (path, text.to_owned())));
    if matches!(language, Language::Python | Language::PythonWasm) {
        // Says that the package is typed (PEP 561); an empty file.
        all.push(("palisade_plugin/py.typed", String::new()));
    }
    for (path, text) in &all {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        if let Err(error) = fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)) {
            // Ours alone: it did not exist a moment ago.
            let _ = fs::remove_dir_all(folder);
            return Err(cannot_write(&path, &error));
        }
    }
    Ok(all.into_iter().map(|(path, _)| path).collect())
}

fn cannot_write(path: &Path, error: &io::Error) -> Trouble {
    Trouble::usage(format!("cannot write {}: {error}", shown(path)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The files below a folder of this repository, of one kind.
    fn below(folder: &str, suffixes: &[&str]) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let (mut found, mut folders) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = entry.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                if entry.is_dir() {
                    folders.push(entry);
                } else if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                    found.insert(name);
                }
            }
        }
        found
    }

    fn names(files: &[File], folder: &str) -> BTreeSet<String> {
        files.iter().filter_map(|(path, _)| path.strip_prefix(folder)).map(str::to_owned).collect()
    }

    #[test]
    fn every_file_of_an_sdk_is_copied() {
        let sdk = "../../sdk";
        assert_eq!(
            names(&PYTHON_SDK, "palisade_plugin/"),
            below(&format!("{sdk}/python/palisade_plugin"), &[".py"])
        );
        assert_eq!(
            names(&TYPESCRIPT_SDK, "palisade-plugin/"),
            below(&format!("{sdk}/typescript/dist"), &[".js", ".ts"])
        );
        assert_eq!(
            names(&RUST_SDK, "palisade-plugin/src/"),
            below(&format!("{sdk}/rust/src"), &[".rs"])
        );
        for (files, folder, wit) in [
            (&RUST_SDK[..], "palisade-plugin/wit/0.1.0/", "rust/wit/0.1.0"),
            (&PYTHON_WIT, "palisade_plugin/wit/", "python/palisade_plugin/wit"),
            (&JS_WIT, "palisade-plugin/wit/", "typescript/wit"),
        ] {
            assert_eq!(names(files, folder), below(&format!("{sdk}/{wit}"), &[".wit"]));
        }
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        for language in Language::value_variants() {
            let plugin = folder.path().join(format!("{language:?}"));
            for path in make(&plugin, "a-b.c_1", *language).unwrap() {
                let text = fs::read_to_string(plugin.join(path)).unwrap();
                assert!(!text.contains("{{name}}") && !text.contains("{{version}}"), "{path}");
            }
            let manifest = fs::read_to_string(plugin.join("plugin.yaml")).unwrap();
            let manifest =
                palisade_manifest::parse(&manifest, palisade_manifest::Syntax::Yaml).unwrap();
            assert_eq!(manifest.id.as_str(), "a-b.c_1");
        }
    }
}
