//! What well-known packages need and cannot say: programs of this machine that they run, and another place
//! for what they keep beside their own code, which is read-only here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::Context;

/// A package of npm, the variable that says where it keeps its data, and what that is set to. `/data` is the
/// server's own folder inside.
const DATA: [(&str, &str, &str); 1] =
    [("@modelcontextprotocol/server-memory", "MEMORY_FILE_PATH", "/data/memory.jsonl")];

/// A file that a library has in a folder of packages, and the program that it runs.
const COMPANIONS: [(&str, &str); 3] =
    [("git/cmd.py", "git"), ("simple-git/package.json", "git"), ("dugite/package.json", "git")];

/// The programs for what is in these folders of packages.
pub(crate) fn of<'a>(
    packages: impl IntoIterator<Item = &'a Path>,
    context: &Context,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in packages {
        for (mark, program) in COMPANIONS {
            if folder.join(mark).is_file()
                && let Ok(path) = context.programs().any(program)
                && !found.contains(&path)
            {
                found.push(path);
            }
        }
    }
    found
}

/// Sets the variables of the package whose script this is, unless the command line sets them.
pub(crate) fn set_data(script: &Path, env: &mut BTreeMap<String, String>) {
    for (package, name, value) in DATA {
        let folder = Path::new("node_modules").join(package);
        if script.ancestors().any(|above| above.ends_with(&folder)) {
            env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}
