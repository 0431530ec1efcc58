//! The same echo, written with each SDK: folders of plugins, for `call_vs_socketpair`.

use std::{fs, path::Path, process::ExitCode};

use crate::{host, plugin::Result};

/// What this program is started with to be the plugin in Rust.
pub(crate) const PLUGIN_ARGUMENT: &str = "--sdk-plugin";

/// The SDKs, as they are called in the names of rows. Python twice: functions have threads, coroutines
/// the event loop.
pub(crate) const SDKS: [&str; 4] = ["python", "python_async", "typescript", "rust"];

const PYTHON: &str = r#"
from palisade_plugin import Plugin
plugin = Plugin()
@plugin.tool
DEF echo(text: str) -> dict:
    return {"text": text}
plugin.run()
"#;

const TYPESCRIPT: &str = r#"
import { Plugin, string } from "./palisade-plugin/index.js";
const plugin = new Plugin();
plugin.tool("echo", { params: { text: string() } }, ({ text }) => ({ text }));
plugin.run();
"#;

#[derive(serde::Deserialize, serde::Serialize)]
struct Echo {
    text: String,
}

/// This program as the plugin in Rust.
pub(crate) fn run() -> ExitCode {
    let mut plugin = palisade_plugin::Plugin::new();
    plugin.tool("echo", |args: Echo, _| Ok(args));
    plugin.run()
}

/// Makes the plugin of one SDK in `folder`.
pub(crate) fn make(sdk: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    let entry = match sdk {
        "python" | "python_async" => {
            copy(&source.join("python/palisade_plugin"), &folder.join("palisade_plugin"))?;
            let def = if sdk == "python" { "def" } else { "async def" };
            fs::write(folder.join("main.py"), PYTHON.replace("DEF", def))?;
            "kind = \"python\"\nfile = \"main.py\"".to_owned()
        }
        "typescript" => {
            copy(&source.join("typescript/dist"), &folder.join("palisade-plugin"))?;
            fs::write(folder.join("package.json"), "{\"type\": \"module\"}")?;
            fs::write(folder.join("main.js"), TYPESCRIPT)?;
            "kind = \"node\"\nfile = \"main.js\"".to_owned()
        }
        _ => {
            fs::copy(std::env::current_exe()?, folder.join("plugin"))?;
            format!("kind = \"exec\"\nfile = \"plugin\"\nargs = [\"{PLUGIN_ARGUMENT}\"]")
        }
    };
    let manifest = host::echo_manifest(&format!("bench-{sdk}"), &entry);
    Ok(fs::write(folder.join("plugin.toml"), manifest)?)
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
