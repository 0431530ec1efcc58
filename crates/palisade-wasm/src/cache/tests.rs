//! Files that are not ours are refused and made anew.

use std::sync::Arc;

use super::*;
use crate::engine::Engines;

const WASM: &[u8] = b"(module (func (export \"f\") (result i32) (i32.const 7)))";

fn engines() -> Arc<Engines> {
    Arc::new(Engines::new(4).unwrap())
}

fn wasm() -> Vec<u8> {
    wat::parse_bytes(WASM).unwrap().into_owned()
}

fn compiled(folder: &Path) -> PathBuf {
    let mut found = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    found.find(|path| path.extension().is_some_and(|e| e == "cwasm")).expect("a compiled file")
}

async fn run(engines: &Arc<Engines>, folder: &Path) -> i32 {
    let compiler = Compiler::new(Arc::clone(engines), u64::MAX);
    compiler.keep_in(folder.to_owned());
    let link = |module: &wasmtime::Module| Ok(module.clone());
    let (module, _) = compiler.code(engines.plain(), wasm(), link).await.unwrap().get();
    let mut store = wasmtime::Store::new(engines.plain(), ());
    store.set_epoch_deadline(1000);
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
    instance.get_typed_func::<(), i32>(&mut store, "f").unwrap().call(&mut store, ()).unwrap()
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_made_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("compiled");
    let engines = engines();
    assert_eq!(run(&engines, &folder).await, 7);
    let path = compiled(&folder);
    let good = fs::read(&path).unwrap();
    let entry = || {
        Entry::new(&folder, engines.plain(), CompiledBy::Cranelift, Kind::Module, &wasm()).unwrap()
    };
    assert!(entry().read().is_some(), "what was written is believed");

    // Code that does something else, correctly compiled, but not signed for this place.
    let other = wat::parse_bytes(b"(module (func (export \"f\") (result i32) (i32.const 666)))");
    let other = engines.plain().precompile_module(&other.unwrap()).unwrap();
    let mut forged = good[..MAGIC.len() + TAG].to_vec();
    forged.extend_from_slice(&other);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let unsigned = other.clone();
    for (what, bytes) in [
        ("forged", forged),
        ("flipped", flipped),
        ("cut short", good[..good.len() / 2].to_vec()),
        ("only a head", good[..MAGIC.len() + 3].to_vec()),
        ("empty", Vec::new()),
        ("bare", unsigned),
    ] {
        fs::write(&path, &bytes).unwrap();
        assert!(entry().read().is_none(), "{what}");
        assert!(!path.exists(), "{what} is removed");
        assert_eq!(run(&engines, &folder).await, 7, "{what}");
        assert_eq!(fs::read(&path).unwrap().len(), good.len(), "{what}: made anew");
    }
}

#[tokio::test]
async fn a_file_of_another_name_or_another_key_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (ours, theirs) = (tmp.path().join("ours"), tmp.path().join("theirs"));
    let engines = engines();
    assert_eq!(run(&engines, &ours).await, 7);
    assert_eq!(run(&engines, &theirs).await, 7);
    let entry =
        |kind| Entry::new(&ours, engines.plain(), CompiledBy::Cranelift, kind, &wasm()).unwrap();

    // The same code, signed by somebody else's key.
    fs::copy(compiled(&theirs), compiled(&ours)).unwrap();
    assert!(entry(Kind::Module).read().is_none());

    // Our own file under the name of something else.
    assert_eq!(run(&engines, &ours).await, 7);
    fs::copy(compiled(&ours), &entry(Kind::Component).path).unwrap();
    assert!(entry(Kind::Component).read().is_none());
}

#[tokio::test]
async fn code_that_does_not_fit_the_engine_is_made_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("compiled");
    let engines = engines();
    assert_eq!(run(&engines, &folder).await, 7);
    let path = compiled(&folder);
    let entry = || {
        Entry::new(&folder, engines.plain(), CompiledBy::Cranelift, Kind::Module, &wasm()).unwrap()
    };
    let right = entry().read().unwrap().bytes().to_vec();
    // Signed by this host for this very place, and made by an engine with other settings.
    let mut other = crate::engine::config(false);
    let other = Engine::new(other.epoch_interruption(false)).unwrap();
    entry().write(&other.precompile_module(&wasm()).unwrap()).unwrap();
    assert_ne!(entry().read().unwrap().bytes(), right);
    assert_eq!(run(&engines, &folder).await, 7);
    assert_eq!(entry().read().unwrap().bytes(), right, "and kept");
    // Such an engine looks in another place from the beginning.
    let theirs = Entry::new(&folder, &other, CompiledBy::Cranelift, Kind::Module, &wasm()).unwrap();
    assert_ne!(theirs.path, path);
}

/// The same after a first start with Winch's code, and where Cranelift's cannot be kept.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[tokio::test]
async fn what_comes_after_winch_is_made_anew_where_it_does_not_fit_and_run_where_it_cannot_be_kept()
{
    for is_blocked in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("compiled");
        let engines = engines();
        let entry = || {
            let by = CompiledBy::Cranelift;
            Entry::new(&folder, engines.plain(), by, Kind::Module, &wasm()).unwrap()
        };
        if is_blocked {
            fs::create_dir(&entry().path).unwrap();
            fs::write(entry().path.join("file"), "in the way").unwrap();
        } else {
            let mut other = crate::engine::config(false);
            let other = Engine::new(other.epoch_interruption(false)).unwrap();
            entry().write(&other.precompile_module(&wasm()).unwrap()).unwrap();
        }
        let compiler = Compiler::new(Arc::clone(&engines), 0);
        compiler.keep_in(folder.clone());
        let link = |module: &wasmtime::Module| Ok(module.clone());
        let current = compiler.code(engines.plain(), wasm(), link).await.unwrap();
        assert_eq!(current.get().1, CompiledBy::Winch);
        let begun = std::time::Instant::now();
        while current.get().1 == CompiledBy::Winch {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{is_blocked}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let winch = &engines.winch_for(engines.plain()).unwrap().engine;
        let winchs = Entry::new(&folder, winch, CompiledBy::Winch, Kind::Module, &wasm()).unwrap();
        assert_eq!(winchs.path.exists(), is_blocked, "it stays where there is nothing better");
        if !is_blocked {
            let right = machine_code(engines.plain(), Kind::Module, &wasm()).unwrap();
            assert_eq!(entry().read().unwrap().bytes(), right);
        }
    }
}

/// Winch's code, signed by this host for the place of Cranelift's: what a mistake of ours would look like.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[tokio::test]
async fn code_of_winch_is_not_taken_for_cranelifts_nor_the_other_way_round() {
    use CompiledBy::{Cranelift, Winch};

    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("compiled");
    let engines = engines();
    assert_eq!(run(&engines, &folder).await, 7);
    let (plain, winch) = (engines.plain(), engines.winch_for(engines.plain()).unwrap());
    let entry = |by| {
        let engine = if by == Winch { &winch.engine } else { plain };
        Entry::new(&folder, engine, by, Kind::Module, &wasm()).unwrap()
    };
    assert_ne!(entry(Winch).path, entry(Cranelift).path);
    let right = entry(Cranelift).read().unwrap().bytes().to_vec();
    let winchs = machine_code_by_winch(winch, Kind::Module, &wasm()).unwrap();
    entry(Cranelift).write(&winchs).unwrap();
    assert_eq!(run(&engines, &folder).await, 7);
    assert_eq!(entry(Cranelift).read().unwrap().bytes(), right, "made anew");
    // A file of the one under the other's name carries the wrong MAC.
    fs::copy(&entry(Cranelift).path, &entry(Winch).path).unwrap();
    assert!(entry(Winch).read().is_none());
    // What Winch panics at, or refuses, comes to nothing.
    assert!(machine_code_by_winch(winch, Kind::Module, b"nonsense").is_none());
}

/// The same where there is no address space for a pool.
#[tokio::test]
async fn what_a_pool_would_not_take_is_refused_without_one() {
    let engines = Arc::new(Engines::without_pool(4).unwrap());
    assert!(!engines.is_pooled());
    let globals = |count| format!("(module {})", "(global i64 (i64.const 7))".repeat(count));
    for (module, why) in [
        (globals(1000), None),
        (globals(300_000), Some("exceeds the configured maximum")),
        ("(module (memory 1 2 shared))".to_owned(), Some("shared")),
    ] {
        let compiler = Compiler::new(Arc::clone(&engines), u64::MAX);
        let link = |module: &wasmtime::Module| Ok(module.clone());
        let wasm = wat::parse_str(&module).unwrap();
        let made = compiler.code(engines.plain(), wasm, link).await.map(|code| code.get().1);
        match why {
            None => assert_eq!(made.unwrap(), CompiledBy::Cranelift),
            Some(why) => {
                let error = made.unwrap_err().to_string();
                assert!(error.contains(why), "{error}");
            }
        }
    }
}

/// Instances of Winch's code come out of no pool, and what the pool would refuse is refused to them as well: memory
/// that the engine itself takes for an instance is counted by nobody.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn code_whose_instances_the_pool_would_not_take_is_not_winchs() {
    let engines = engines();
    let winch = engines.winch_for(engines.plain()).unwrap();
    for (count, taken) in [(1000, true), (300_000, false)] {
        let globals = "(global i64 (i64.const 7))".repeat(count);
        let component =
            format!("(component (core module $m {globals}) (core instance (instantiate $m)))");
        for (kind, text) in
            [(Kind::Module, format!("(module {globals})")), (Kind::Component, component)]
        {
            let wasm = wat::parse_str(&text).unwrap();
            assert_eq!(machine_code_by_winch(winch, kind, &wasm).is_some(), taken, "{count}");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_files_of_others_are_not_followed() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("compiled");
    let engines = engines();
    assert_eq!(run(&engines, &folder).await, 7);
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(folder.join("key")).unwrap().mode() & 0o777, 0o600);
    let path = compiled(&folder);
    let entry = || {
        Entry::new(&folder, engines.plain(), CompiledBy::Cranelift, Kind::Module, &wasm()).unwrap()
    };

    let elsewhere = tmp.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(entry().read().is_none(), "a link");
    assert!(elsewhere.exists(), "what it leads to stays");

    assert_eq!(run(&engines, &folder).await, 7);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(entry().read().is_none(), "a file that others can write");

    // A key that others could have read is thrown away, and with it everything that it signed.
    assert_eq!(run(&engines, &folder).await, 7);
    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(entry().read().is_none(), "signed with a key that is not secret");
}

#[cfg(unix)]
#[tokio::test]
async fn code_is_kept_where_the_folders_above_are_not_there_yet() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("state/of/host/wasm");
    let engines = engines();
    assert_eq!(run(&engines, &folder).await, 7);
    let made = fs::metadata(compiled(&folder)).unwrap();
    assert_eq!(run(&engines, &folder).await, 7);
    assert_eq!(fs::metadata(compiled(&folder)).unwrap().ino(), made.ino(), "not made anew");
    for folder in ["state", "state/of", "state/of/host", "state/of/host/wasm"] {
        assert_eq!(fs::metadata(tmp.path().join(folder)).unwrap().mode() & 0o777, 0o700);
    }

    // A link in the folder's place is not followed, wherever it leads.
    let (link, elsewhere) = (tmp.path().join("link"), tmp.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    assert_eq!(run(&engines, &link).await, 7);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is kept there");
}

#[test]
fn room_is_made_by_what_was_not_used_for_longest() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, age) in [("a", 30), ("b", 10), ("c", 20)] {
        let path = tmp.path().join(format!("{name}.cwasm"));
        fs::write(&path, [0; 100]).unwrap();
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::options().write(true).open(&path).unwrap().set_modified(used).unwrap();
    }
    file::make_room(tmp.path(), 300, 150).unwrap();
    let left: Vec<_> = fs::read_dir(tmp.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["b.cwasm"]);
}

proptest::proptest! {
    #[test]
    fn a_file_that_was_changed_in_any_way_is_not_believed(
        input in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        crate::fuzz::compiled(&input);
    }
}
