#![allow(clippy::unwrap_used, clippy::panic)] // A failure here fails its test.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use palisade_manifest::Syntax;
use palisade_model::Origin;

use super::*;

struct Ground {
    dir: tempfile::TempDir,
    plugin: PluginRef,
}

const MANIFEST: &[u8] = b"the manifest";

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        create_private(&dir.path().join("state"), false).unwrap();
        let ground = Self {
            plugin: PluginRef {
                id: PluginId::parse("a").unwrap(),
                origin: Origin::Folder { path: dir.path().display().to_string(), owner: 0 },
            },
            dir,
        };
        ground.write("main.py", "print()");
        ground.write("lib/b.py", "b = 1");
        ground.write("plugin.yaml", "not a part of it");
        ground
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("plugin")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn digest(&self) -> Digest {
        survey(&self.folder()).unwrap().digest
    }

    fn take(&self, wanted: Digest, manifest: &[u8]) -> Result<Sealed, HostError> {
        let source =
            Source { file_name: "plugin.yaml", syntax: Syntax::Yaml, bytes: manifest.to_vec() };
        let manifest = (Digest::of(manifest), Some(&source));
        take_over(&self.state(), &self.plugin, &self.folder(), wanted, manifest)
    }
}

#[test]
fn the_digest_can_be_made_by_hand() {
    let ground = Ground::new();
    ground.write("lib/a b", "2");
    ground.write("lib-c", "3");
    ground.write(".git/config", "not a part of it");
    ground.write("lib/.git", "not a part of it: a submodule");
    ground.write("lib/__pycache__/b.pyc", "not a part of it");
    let list = "find . -type f ! -path ./plugin.yaml ! -path '*/.git/*' ! -name .git ! -path '*/__pycache__/*' -printf '%P\\n' \
                | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";
    let made = Command::new("sh").args(["-c", list]).current_dir(ground.folder()).output().unwrap();
    let hex = String::from_utf8(made.stdout).unwrap();
    let found = survey(&ground.folder()).unwrap();
    assert_eq!(found.digest.hex(), hex.split_whitespace().next().unwrap());
    assert_eq!((found.files, found.bytes), (4, 14));
}

#[test]
fn what_runs_is_what_was_measured_whatever_becomes_of_the_folder() {
    let ground = Ground::new();
    symlink("lib/b.py", ground.folder().join("link")).unwrap();
    let wanted = ground.digest();
    let taken = ground.take(wanted, MANIFEST).unwrap();
    let read = |path: &str| fs::read_to_string(taken.root.join(path)).unwrap();
    let intact = || {
        assert_eq!(read("main.py"), "print()");
        assert_eq!(read("link"), "b = 1");
        assert_eq!(read("plugin.yaml"), "the manifest");
    };
    intact();
    let mode = |path: &str| taken.root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("main.py"), mode("lib"), mode("")), (0o555, 0o755, 0o755));
    // Written in place, replaced, added, taken away.
    ground.write("main.py", "other()");
    fs::write(ground.folder().join("new"), "").unwrap();
    fs::rename(ground.folder().join("new"), ground.folder().join("lib/b.py")).unwrap();
    ground.write("lib/os.py", "");
    fs::remove_file(ground.folder().join("link")).unwrap();
    intact();
    let error = ground.take(wanted, MANIFEST).unwrap_err();
    let HostError::Content { changes, .. } = &error else { panic!("{error}") };
    assert_eq!(*changes, ["lib/b.py has changed", "lib/os.py is new", "link is gone", "1 more"]);
    assert_eq!(palisade_model::Failure::from(error).code, palisade_model::ErrorCode::Denied);
    intact();
}

#[test]
fn a_copy_that_is_not_whole_is_made_again() {
    let ground = Ground::new();
    let wanted = ground.digest();
    let root = ground.take(wanted, MANIFEST).unwrap().root;
    for damage in [
        |root: &Path| fs::remove_file(root.join("main.py")),
        |root: &Path| fs::remove_dir_all(root),
        |root: &Path| fs::write(root.join("more"), ""),
        // What is no part of the author's folder has no place in ours either: Python would run it.
        |root: &Path| {
            fs::create_dir(root.join("lib/__pycache__"))?;
            fs::write(root.join("lib/__pycache__/b.cpython-311.pyc"), "")
        },
        |root: &Path| fs::write(root.join("plugin.toml"), ""),
        // A plugin that shares the user's id can do this where only Landlock holds it.
        |root: &Path| fs::set_permissions(root.join("lib"), fs::Permissions::from_mode(0o0)),
        |root: &Path| fs::set_permissions(root, fs::Permissions::from_mode(0o0)),
        |root: &Path| fs::remove_file(root.join("plugin.yaml")),
    ] {
        damage(&root).unwrap();
        let again = ground.take(wanted, MANIFEST).unwrap();
        assert_eq!(survey(&again.root).unwrap().digest, wanted);
        assert_eq!(fs::read(again.root.join("plugin.yaml")).unwrap(), MANIFEST);
    }
    // A host that was killed while it copied.
    fs::create_dir_all(root.with_file_name("work/lib")).unwrap();
    fs::remove_dir_all(&root).unwrap();
    ground.take(wanted, MANIFEST).unwrap();
    // One that was killed before anybody could use its copy.
    let stray = root.with_file_name("0".repeat(64));
    fs::create_dir(&stray).unwrap();
    ground.take(wanted, MANIFEST).unwrap();
    assert!(!stray.exists() && !root.with_file_name("work").exists());
}

#[test]
fn copies_that_nobody_uses_are_removed() {
    let ground = Ground::new();
    let old = ground.take(ground.digest(), b"1").unwrap();
    ground.write("main.py", "2");
    let new = ground.take(ground.digest(), b"2").unwrap();
    assert!(old.root.is_dir(), "a host has it loaded");
    let old_root = old.root.clone();
    drop(old);
    drop(ground.take(ground.digest(), b"2").unwrap());
    assert!(!old_root.exists() && new.root.is_dir());
    forget(&ground.state(), &PluginId::parse("a.b").unwrap());
    forget(&ground.state(), &ground.plugin.id);
    assert!(new.root.is_dir());
    let root = new.root.clone();
    drop(new);
    forget(&ground.state(), &ground.plugin.id);
    assert!(!root.exists());
}

#[test]
fn what_is_no_content_is_refused_with_its_name() {
    let refused = |make: &dyn Fn(&Path), says: &[&str]| {
        let ground = Ground::new();
        make(&ground.folder());
        let error = survey(&ground.folder()).unwrap_err().to_string();
        assert!(says.iter().all(|word| error.contains(word)), "{error}");
    };
    let fifo = rustix::fs::FileType::Fifo;
    refused(
        &|at| {
            rustix::fs::mknodat(rustix::fs::CWD, at.join("f"), fifo, 0o600.into(), 0).unwrap();
        },
        &["f: is no file"],
    );
    refused(&|at| fs::write(at.join("a\nb"), "").unwrap(), &["a\\nb", "control"]);
    refused(
        &|at| {
            let name = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
            fs::write(at.join::<&std::ffi::OsStr>(name), "").unwrap();
        },
        &["UTF-8"],
    );
    refused(
        &|at| fs::create_dir_all(at.join("d/".repeat(70))).unwrap(),
        &["more than 64 folders deep"],
    );
    refused(
        &|at| {
            let file = File::create(at.join("large")).unwrap();
            file.set_len(2 << 30).unwrap();
        },
        &["large", "1 GiB"],
    );
    let gone = survey(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(gone.contains("No such file"), "{gone}");
}

/// A file system of a stranger may list a name twice, as a link and then as a folder; one of ours may take two
/// names for one. What is there already is neither followed nor written to.
#[test]
fn nothing_is_written_through_what_is_there() {
    let ground = Ground::new();
    let (outside, work) = (ground.dir.path().join("outside"), ground.dir.path().join("work"));
    fs::create_dir(&outside).unwrap();
    for (name, link) in [("lib", &outside), ("main.py", &outside.join("planted"))] {
        fs::create_dir(&work).unwrap();
        symlink(link, work.join(name)).unwrap();
        let error = Walk::copying(&ground.folder(), &work).err().unwrap().to_string();
        assert!(error.contains("File exists") && error.contains(name), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_dir_all(&work).unwrap();
    }
}

#[test]
fn paths_are_bounded() {
    let ground = Ground::new();
    let mut at = ground.folder();
    for _ in 0..18 {
        at.push("d".repeat(240));
        fs::create_dir(&at).unwrap_or_default();
        if !at.is_dir() {
            // Longer than a path may be at once.
            break;
        }
    }
    let long = "e".repeat(200);
    let inside = Command::new("sh")
        .args(["-c", &format!("cd '{0}' && cd -P . && for i in 1 2 3 4; do mkdir {long} && cd {long}; done; : > x", at.parent().unwrap().display())])
        .status();
    assert!(inside.unwrap().success());
    let error = survey(&ground.folder()).unwrap_err().to_string();
    assert!(error.contains("the paths are too long"), "{error}");
}

/// Somebody changes the folder all the time, in every way: what is taken over is right, or nothing is.
#[test]
fn nobody_gets_another_file_in_between() {
    let ground = Ground::new();
    ground.write("../evil/b.py", "evil");
    ground.write("../evil/main.py", "evil()!");
    let wanted = ground.digest();
    let stop = AtomicBool::new(false);
    let (mut taken, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let (folder, stop) = (ground.folder(), &stop);
        let evil = ground.dir.path().join("evil");
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // In place.
                fs::write(folder.join("main.py"), "evil()!").unwrap();
                fs::write(folder.join("main.py"), "print()").unwrap();
                // A folder that becomes a link.
                fs::rename(folder.join("lib"), folder.join("../lib")).unwrap();
                symlink(&evil, folder.join("lib")).unwrap();
                fs::remove_file(folder.join("lib")).unwrap();
                fs::rename(folder.join("../lib"), folder.join("lib")).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && (taken < 30 || refused < 30) {
            match ground.take(wanted, MANIFEST) {
                Ok(sealed) => {
                    taken += 1;
                    let main = fs::read_to_string(sealed.root.join("main.py")).unwrap();
                    let lib = fs::read_to_string(sealed.root.join("lib/b.py")).unwrap();
                    assert_eq!((main.as_str(), lib.as_str()), ("print()", "b = 1"));
                    fs::remove_dir_all(&sealed.root).unwrap();
                }
                Err(HostError::Content { .. } | HostError::Folder { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(taken > 0 && refused > 0, "{taken} taken over, {refused} refused");
}
