//! The sample plugins, carried inside the command so that an installed one can show them too.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

macro_rules! files {
    ($($plugin:literal / $file:literal),* $(,)?) => {
        &[$(($plugin, $file, include_bytes!(concat!("../../../../plugins/", $plugin, "/", $file)))),*]
    };
}

/// Plugin, file, content.
const FILES: &[(&str, &str, &[u8])] = files![
    "word-counter" / "plugin.yaml",
    "word-counter" / "main.py",
    "markov-chatter" / "plugin.json",
    "markov-chatter" / "chatter.py",
    "markov-chatter" / "corpus.txt",
    "checksum" / "plugin.toml",
    "hostile" / "plugin.yaml",
    "hostile" / "main.py",
];

/// Built by the build script from `plugins/checksum/checksum.c`.
const CHECKSUM: &[u8] = include_bytes!(env!("PALISADE_CHECKSUM"));

/// Writes each plugin into a folder of its name below `folder`.
pub(super) fn unpack(folder: &Path) -> io::Result<()> {
    for (plugin, file, content) in FILES {
        fs::create_dir_all(folder.join(plugin))?;
        fs::write(folder.join(plugin).join(file), content)?;
    }
    let program = folder.join("checksum").join("checksum");
    fs::write(&program, CHECKSUM)?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_that_is_carried_has_a_valid_manifest() {
        let folder = tempfile::tempdir().unwrap();
        unpack(folder.path()).unwrap();
        for plugin in ["word-counter", "markov-chatter", "checksum", "hostile"] {
            let manifest = palisade_manifest::open(&folder.path().join(plugin)).unwrap();
            assert_eq!(manifest.id.as_str(), plugin);
        }
    }
}
