//! The hostile guests: three written in Rust, and modules as text where one import or one instruction is the
//! whole attack.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

use crate::trouble::{Result, Trouble, While};

#[path = "../../../../../crates/palisade-wasm/tests/support/built.rs"]
mod built;

/// What was built, as bytes.
pub struct Guests {
    /// Uses all of `palisade:plugin`.
    pub(super) plugin: Vec<u8>,
    /// A WASI 0.2 command.
    pub(super) wasi: Vec<u8>,
    /// A WASI 0.3 command.
    pub(super) wasi3: Vec<u8>,
}

/// Folder, target, file.
const CRATES: [(&str, &str, &str); 3] = [
    ("plugin", "wasm32-unknown-unknown", "palisade_guest.wasm"),
    ("wasi", "wasm32-wasip2", "wasi-guest.wasm"),
    ("wasi3", "wasm32-wasip2", "wasi3_guest.wasm"),
];

/// Builds them, and puts them into `folder`.
///
/// # Errors
/// When the toolchain or a target is missing, or one does not build.
pub fn build(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    for (name, target, file) in CRATES {
        let wasm = built::build(name, target, file).map_err(Trouble)?;
        fs::write(folder.join(file), wasm)?;
    }
    Ok(())
}

impl Guests {
    /// Reads what [`build`] built.
    ///
    /// # Errors
    /// When one is missing.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |(_, _, file): (&str, &str, &str)| {
            let path: PathBuf = folder.join(file);
            fs::read(&path).doing(path.display())
        };
        let [plugin, wasi, wasi3] = CRATES;
        Ok(Self { plugin: read(plugin)?, wasi: read(wasi)?, wasi3: read(wasi3)? })
    }
}

macro_rules! wit {
    ($($file:literal),*) => {
        &[$(($file, include_str!(concat!("../../../../../crates/palisade-wasm/wit/0.1.0/", $file)))),*]
    };
}

/// The package `palisade:plugin`. In the program, which runs where its sources are not.
const WIT: &[(&str, &str)] = wit!("handlers.wit", "imports.wit", "types.wit", "worlds.wit");

/// A component or a module as text.
pub(super) fn text(text: &str) -> Result<Vec<u8>> {
    wat::parse_str(text).doing("a guest")
}

/// A module that opens a path of its first folder with the older WASI; its `f` gives the number of the error.
pub(super) fn opening(path: &str) -> Result<Vec<u8>> {
    text(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open" (func $open
                (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "{path}")
            (func (export "f") (result i32)
                (call $open (i32.const 3) (i32.const 1) (i32.const 16) (i32.const {})
                    (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 1024))))"#,
        path.len()
    ))
}

/// A component of `palisade:plugin` around a core module. `imports` are its interfaces.
pub(super) fn plugin(module: &str, imports: &[&str]) -> Result<Vec<u8>> {
    let mut wasm = wat::parse_str(module).doing("a guest")?;
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::default();
    for (name, text) in WIT {
        sources.push_str(name, *text);
    }
    let interfaces = sources.parse().map_err(|(_, e)| Trouble(format!("the WIT: {e}")))?;
    resolve.push_group(interfaces).doing("the WIT")?;
    let imports: String =
        imports.iter().map(|name| format!("import palisade:plugin/{name}@0.1.0;\n")).collect();
    let world = format!(
        "package test:plugin;\nworld plugin {{ {imports} export palisade:plugin/guest@0.1.0; }}"
    );
    let package = resolve.push_str("test.wit", &world).doing("the WIT")?;
    let world = resolve.select_world(&[package], Some("plugin")).doing("the world")?;
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
        .doing("a component")?;
    Ok(palisade_wasm::componentize(&wasm).doing("a component")?.into_owned())
}

/// A plugin whose `call` is `body`, with `$tool`, `$tool-length`, `$args` and `$args-length` at hand; what it
/// leaves is dropped, and it answers with its arguments. `more` stands in the module.
pub(super) fn small(more: &str, body: &str, imports: &[&str]) -> Result<Vec<u8>> {
    let module = format!(
        r#"(module
        {more}
        (global $next (mut i32) (i32.const 4096))
        (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "palisade:plugin/guest@0.1.0#initialize")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (memory.fill (i32.const 64) (i32.const 0) (i32.const 128))
            (i32.const 64))
        (func (export "palisade:plugin/guest@0.1.0#call")
            (param $tool i32) (param $tool-length i32) (param $args i32) (param $args-length i32)
            (result i32)
            (local $count i32)
            {body}
            (memory.fill (i32.const 64) (i32.const 0) (i32.const 128))
            (i32.store (i32.const 72) (local.get $args))
            (i32.store (i32.const 76) (local.get $args-length))
            (i32.const 64))
        (func (export "cabi_post_palisade:plugin/guest@0.1.0#call") (param i32)
            (global.set $next (i32.const 4096))))"#
    );
    plugin(&module, imports)
}

/// The memory of a [`small`] plugin: 128 KiB.
pub(super) const MEMORY: &str = r#"(memory (export "memory") 2)"#;
