//! A published version of `palisade:plugin` stays as it was: plugins are built with it and run for years.

use std::{collections::BTreeMap, fs, path::Path};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::super::rights::PLUGIN_VERSIONS;

/// Each published version and the SHA-256 of its WIT files. A line here never changes; a new version is a new one.
const PUBLISHED: [(&str, &str); 1] =
    [("0.1.0", "10a7da162d9cffdfaa352ca996b0e684e7dced4d799c47129d548065168c0dc1")];

/// Over names and contents, in the order of the names.
fn digest(folder: &Path) -> String {
    let files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let mut digest = Sha256::new();
    for (name, content) in files {
        digest.update(format!("{name} {}\n", content.len()));
        digest.update(content);
    }
    HEXLOWER.encode(&digest.finalize())
}

#[test]
fn the_interface_of_a_published_version_does_not_change() {
    let versions = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
    for (version, published) in PUBLISHED {
        assert!(
            digest(&versions.join(version)) == published,
            "wit/{version} is not what was published, and components are built with that. Take the change back, and \
             make a new version beside it: wit/NEW, a module src/world/since_vNEW, the number in PLUGIN_VERSIONS \
             (src/inspect/rights.rs), and a line here for its digest, {}",
            digest(&versions.join(version)),
        );
    }
}

#[test]
fn each_version_that_this_build_knows_is_one_that_was_published() {
    let versions = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
    let mut folders: Vec<String> = fs::read_dir(versions)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let published: Vec<&str> = PUBLISHED.iter().map(|(version, _)| *version).collect();
    assert_eq!(folders, published, "a folder of wit/ without a digest, or the other way round");
    assert_eq!(PLUGIN_VERSIONS, published);
}
