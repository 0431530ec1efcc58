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

const PYTHON_SDK: [File; 10] = files! { "../../sdk/python/palisade_plugin":
    "palisade_plugin/__init__.py" => "__init__.py",
    "palisade_plugin/_call.py" => "_call.py",
    "palisade_plugin/_errors.py" => "_errors.py",
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

const TYPESCRIPT_SDK: [File; 14] = files! { "../../sdk/typescript/dist":
    "palisade-plugin/errors.d.ts" => "errors.d.ts",
    "palisade-plugin/errors.js" => "errors.js",
    "palisade-plugin/index.d.ts" => "index.d.ts",
    "palisade-plugin/index.js" => "index.js",
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

const RUST_SDK: [File; 16] = files! { "../../sdk/rust":
    "palisade-plugin/Cargo.toml" => "Cargo.toml",
    "palisade-plugin/README.md" => "README.md",
    "palisade-plugin/src/args.rs" => "src/args.rs",
    "palisade-plugin/src/call.rs" => "src/call.rs",
    "palisade-plugin/src/descriptor.rs" => "src/descriptor.rs",
    "palisade-plugin/src/error.rs" => "src/error.rs",
    "palisade-plugin/src/handle.rs" => "src/handle.rs",
    "palisade-plugin/src/handlers.rs" => "src/handlers.rs",
    "palisade-plugin/src/http.rs" => "src/http.rs",
    "palisade-plugin/src/lib.rs" => "src/lib.rs",
    "palisade-plugin/src/parts.rs" => "src/parts.rs",
    "palisade-plugin/src/plugin.rs" => "src/plugin.rs",
    "palisade-plugin/src/pool.rs" => "src/pool.rs",
    "palisade-plugin/src/session.rs" => "src/session.rs",
    "palisade-plugin/src/storage.rs" => "src/storage.rs",
    "palisade-plugin/src/wire.rs" => "src/wire.rs",
};

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Rust => "Rust",
            Self::Typescript => "TypeScript",
        }
    }

    /// The template, where placeholders are filled in, and the SDK, which is copied as it is.
    fn files(self) -> (&'static [File], &'static [File]) {
        match self {
            Self::Python => (&PYTHON, &PYTHON_SDK),
            Self::Rust => (&RUST, &RUST_SDK),
            Self::Typescript => (&TYPESCRIPT, &TYPESCRIPT_SDK),
        }
    }

    /// Commands for whoever made the plugin, in their order.
    fn next(self, name: &str) -> Vec<String> {
        let build = (self == Self::Rust).then(|| format!("(cd {name} && cargo build --release)"));
        let test = match self {
            Self::Python => "python3 -m unittest",
            Self::Rust => "cargo test",
            Self::Typescript => "npm install && npm test",
        };
        let others = [
            format!("palisade check {name}"),
            format!("palisade call {name} greet '{{\"name\": \"Ada\"}}'"),
            format!("(cd {name} && {test})"),
        ];
        build.into_iter().chain(others).collect()
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
    Ok(())
}

/// Writes the plugin into a folder that this makes; gives the files. Of one that fails nothing is left.
fn make(folder: &Path, name: &str, language: Language) -> Result<Vec<&'static str>, Trouble> {
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Trouble::usage(format!("{} exists already", shown(folder)))
            .hint("choose another name, or take it away first; nothing is written over"),
        _ => cannot_write(folder, &error),
    })?;
    let (template, sdk) = language.files();
    let fill = |text: &str| {
        text.replace("{{name}}", name).replace("{{version}}", env!("CARGO_PKG_VERSION"))
    };
    let mut all: Vec<(&'static str, String)> = Vec::new();
    all.extend(template.iter().map(|(path, text)| (*path, fill(text))));
    all.extend(sdk.iter().map(|(path, text)| (*path, (*text).to_owned())));
    if language == Language::Python {
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
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        names
            .map(|name| name.into_string().unwrap())
            .filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)))
            .collect()
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
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        for language in Language::value_variants() {
            let plugin = folder.path().join(language.name());
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
