//! The state of what the machines measure, so that a recorded row can be told from what is there now. Used by
//! `tests/vm` too, which looks at the recorded rows.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Sources of the walls and of the attacker, from the root of the work tree.
const MEASURED: [&str; 5] = [
    "crates/palisade-process/helper",
    "crates/palisade-process/src",
    "tests/escape/attacker/Cargo.lock",
    "tests/escape/attacker/src",
    "tests/escape/twins/attacker.py",
];

/// The hash of all of them, names included, in twelve digits. It tells states apart; nobody has to be kept from
/// making two that are alike.
pub(crate) fn state(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for place in MEASURED {
        collect(&root.join(place), &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        hash.add(name.as_os_str().as_encoded_bytes());
        hash.add(&fs::read(&file)?);
    }
    Ok(format!("{:012x}", hash.0 >> 16))
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if place.is_file() {
        files.push(place.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(place)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

/// FNV-1a of 64 bits. The standard library's hash may change with its release.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// With the length in front, so that two parts are not the same as one.
    fn add(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_names_and_contents() {
        let folder = std::env::temp_dir().join(format!("palisade-sources-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for place in MEASURED {
            let file =
                if place.contains('.') { place.to_owned() } else { format!("{place}/main.rs") };
            write(&file, "one");
        }
        let first = state(&folder).unwrap();
        assert_eq!(first.len(), 12);
        assert_eq!(state(&folder).unwrap(), first);
        write("crates/palisade-process/helper/main.rs", "two");
        let second = state(&folder).unwrap();
        assert_ne!(second, first);
        let (old, new) =
            (folder.join("tests/escape/attacker/src/main.rs"), "tests/escape/attacker/src/a/b.rs");
        fs::remove_file(old).unwrap();
        write(new, "one");
        assert_ne!(state(&folder).unwrap(), second);
        fs::remove_dir_all(&folder).unwrap();
        assert!(state(&folder).is_err());
    }
}
