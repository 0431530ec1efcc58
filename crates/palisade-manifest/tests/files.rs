//! Attempt 72: what lies in a plugin's folder under a manifest's name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, path::Path};

use palisade_manifest::{MAX_BYTES, ManifestError, Syntax, open, read};
use palisade_model::{ErrorCode, Failure};

const GOOD: &str =
    "api: palisade/1\nid: a\nversion: 1.0.0\nentry: { kind: python, file: main.py }\n";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn each_file_name_is_found_and_read_as_its_syntax() {
    let toml = "api = \"palisade/1\"\nid = \"a\"\nversion = \"1.0.0\"\nentry = { kind = \"python\", file = \"main.py\" }\n";
    let json = r#"{"api":"palisade/1","id":"a","version":"1.0.0","entry":{"kind":"python","file":"main.py"}}"#;
    for (name, text, syntax) in [
        ("plugin.yaml", GOOD, Syntax::Yaml),
        ("plugin.yml", GOOD, Syntax::Yaml),
        ("plugin.toml", toml, Syntax::Toml),
        ("plugin.json", json, Syntax::Json),
    ] {
        let dir = folder();
        put(dir.path(), name, text);
        let source = read(dir.path()).unwrap();
        assert_eq!((source.file_name, source.syntax), (name, syntax));
        assert_eq!(source.bytes, text.as_bytes());
        let manifest = open(dir.path()).unwrap();
        assert_eq!(manifest.id.as_str(), "a");
        assert_eq!(manifest.digest(), palisade_manifest::Digest::of(text.as_bytes()));
    }
}

#[test]
fn two_manifests_are_an_error_that_names_both() {
    let dir = folder();
    put(dir.path(), "plugin.yml", GOOD);
    put(dir.path(), "plugin.json", "{}");
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(
        error,
        ManifestError::Ambiguous { first: "plugin.yml", second: "plugin.json", .. }
    ));
    let text = error.to_string();
    assert!(text.contains("plugin.yml") && text.contains("plugin.json"), "{text}");
    assert_eq!(error.code(), ErrorCode::ManifestInvalid);
}

/// A link counts as a second manifest too, even one that leads nowhere.
#[cfg(unix)]
#[test]
fn a_dangling_link_beside_the_manifest_is_not_overlooked() {
    let dir = folder();
    put(dir.path(), "plugin.yaml", GOOD);
    std::os::unix::fs::symlink("/nowhere", dir.path().join("plugin.toml")).unwrap();
    assert!(matches!(open(dir.path()), Err(ManifestError::Ambiguous { .. })));
}

#[test]
fn none_is_an_error_that_says_what_to_create() {
    let dir = folder();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, ManifestError::NotFound { .. }));
    assert!(error.hint().unwrap().contains("plugin.yaml"), "{error:?}");
    put(dir.path(), "nexus.plugin.json", "{\"id\": \"secret\"}");
    let error = open(dir.path()).unwrap_err();
    assert!(error.hint().unwrap().contains("nexus.plugin.json"), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"), "it is named and not read");

    let missing = dir.path().join("nothing-here");
    assert!(matches!(open(&missing), Err(ManifestError::Unreadable { .. })));
    put(dir.path(), "file", "");
    assert!(matches!(open(&dir.path().join("file")), Err(ManifestError::Unreadable { .. })));
}

#[test]
fn a_manifest_is_read_up_to_its_bound() {
    let dir = folder();
    let pad = |size: usize| format!("{GOOD}#{}", "x".repeat(size - GOOD.len() - 1));
    put(dir.path(), "plugin.yaml", pad(MAX_BYTES));
    assert!(open(dir.path()).is_ok());
    put(dir.path(), "plugin.yaml", pad(MAX_BYTES + 1));
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { .. }), "{error:?}");
    // A gibibyte that takes no room on the disk.
    let file = fs::File::create(dir.path().join("plugin.yaml")).unwrap();
    file.set_len(1 << 30).unwrap();
    let start = std::time::Instant::now();
    assert!(matches!(open(dir.path()), Err(ManifestError::TooLarge { .. })));
    assert!(start.elapsed().as_secs() < 2);
}

#[cfg(unix)]
#[test]
fn a_link_is_refused_and_what_it_leads_to_is_never_quoted() {
    let dir = folder();
    let secret = dir.path().join("secret");
    fs::write(&secret, "root:hunter2:0:0\nanother secret: line\n").unwrap();
    for target in [
        secret.as_path(),
        Path::new("/etc/passwd"),
        Path::new("/dev/zero"),
        Path::new("/proc/self/environ"),
    ] {
        for name in ["plugin.yaml", "plugin.toml", "plugin.json"] {
            let dir = folder();
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
            let error = open(dir.path()).unwrap_err();
            assert!(
                matches!(error, ManifestError::NotRegular { what: "a symbolic link", .. }),
                "{name} -> {target:?}: {error:?}"
            );
            let everything = format!(
                "{error} {error:?} {:?} {} {}",
                error.hint(),
                serde_json::to_string(&error).unwrap(),
                Failure::from(error.clone())
            );
            for part in ["hunter2", "root:", "another secret"] {
                assert!(!everything.contains(part), "{everything}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn fifos_devices_sockets_and_folders_are_refused_without_waiting() {
    let within_two_seconds = |dir: &Path| {
        let start = std::time::Instant::now();
        let error = open(dir).unwrap_err();
        assert!(start.elapsed().as_secs() < 2, "waited for {error}");
        match error {
            ManifestError::NotRegular { what, .. } => what,
            error => panic!("{error:?}"),
        }
    };
    let dir = folder();
    let status =
        std::process::Command::new("mkfifo").arg(dir.path().join("plugin.yaml")).status().unwrap();
    assert!(status.success());
    assert_eq!(within_two_seconds(dir.path()), "a FIFO");

    let dir = folder();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("plugin.toml")).unwrap();
    assert_eq!(within_two_seconds(dir.path()), "a socket");

    let dir = folder();
    fs::create_dir(dir.path().join("plugin.json")).unwrap();
    assert_eq!(within_two_seconds(dir.path()), "a folder");
}

/// Whoever owns the folder swaps the file for a link over and over while it is opened. Whatever is read
/// must be the manifest.
#[cfg(unix)]
#[test]
fn a_race_between_the_look_and_the_opening_is_not_won() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = folder();
    let path = dir.path().join("plugin.yaml");
    let (file, link) = (dir.path().join("a"), dir.path().join("b"));
    fs::write(dir.path().join("secret"), "hunter2: [").unwrap();
    fs::write(&path, GOOD).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read_it, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(&file, GOOD).unwrap();
                fs::rename(&file, &path).unwrap();
                std::os::unix::fs::symlink("secret", &link).unwrap();
                fs::rename(&link, &path).unwrap();
            }
        });
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 400 {
            match open(dir.path()) {
                Ok(manifest) => {
                    assert_eq!(manifest.id.as_str(), "a");
                    read_it += 1;
                }
                Err(ManifestError::NotRegular { .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(read_it > 0 && refused > 0, "both sides of the race were seen: {read_it}, {refused}");
}

#[test]
fn bytes_that_are_not_text_are_shown_by_their_place() {
    let dir = folder();
    put(dir.path(), "plugin.yaml", b"api: palisade/1\nid: \xff\xfe\n");
    let error = open(dir.path()).unwrap_err();
    let first = &error.diagnostics()[0];
    assert_eq!((first.line, first.column), (2, 5), "{error}");
    // UTF-16, as some editors write it.
    let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    put(dir.path(), "plugin.yaml", utf16);
    assert!(matches!(open(dir.path()), Err(ManifestError::Invalid(_))));
    put(dir.path(), "plugin.yaml", format!("\u{feff}{GOOD}"));
    assert!(open(dir.path()).is_ok(), "a byte order mark does no harm");
}
