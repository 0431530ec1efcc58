//! First starts behind the walls with code of Winch, and what comes after it.
#![cfg(target_arch = "x86_64")]

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::ErrorCode as C;
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend as _, Calls};
use palisade_wasm::walled::{EngineProgram, WalledBackend};

use super::{
    Walled, backend,
    code::forge,
    support::{
        TOO_FAR, answers, asks_its_host, fails_in_words, goes_too_far, guest, initialize, quick,
    },
    takes_too_long, walled,
};

/// A plugin that is small, and started with Winch all the same.
fn first(calls: Calls) -> Walled {
    Walled { backend: backend().winch_from(0), ..walled(&guest(), calls) }.in_its_folder()
}

impl Walled {
    fn in_its_folder(self) -> Self {
        self.backend.keep_in(&self.bench.dir.path().canonicalize().unwrap());
        self
    }

    /// Another host on the same folder, with code of Winch or without.
    fn another(self, winch_from: u64) -> Self {
        Self { backend: backend().winch_from(winch_from), ..self }.in_its_folder()
    }

    /// The one file that is kept, once it is another one than `before`.
    async fn replaced(&self, before: &Path) -> PathBuf {
        let begun = Instant::now();
        loop {
            if let [kept] = &self.kept()[..]
                && kept != before
            {
                return kept.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "Cranelift does not come to an end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_first_start_takes_code_of_winch_and_the_next_one_cranelifts() {
    let walled = first(Calls::Stateful);
    let prepared = walled.prepared().await;
    let [winchs] = walled.kept().try_into().unwrap();
    let one = walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&one, "{}").await.unwrap();
    answers(&one).await;
    asks_its_host(&one, &walled.bench.host).await;
    fails_in_words(&one).await;
    let cranelifts = walled.replaced(&winchs).await;
    // What runs goes on with what it has, also with a fresh instance of it.
    assert_eq!(quick(&one, "count").await.unwrap(), "3");
    assert_eq!(quick(&one, "trap").await.unwrap_err().code, C::Crashed);
    assert_eq!(quick(&one, "count").await.unwrap(), "1");
    // The next start of what was prepared takes what there is now.
    let made = fs::metadata(&cranelifts).unwrap().ino();
    let two = walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&two, "{}").await.unwrap();
    answers(&two).await;
    drop(prepared);
    // So does another host, which makes nothing.
    let walled = walled.another(0);
    answers(&walled.started().await).await;
    let [kept] = walled.kept().try_into().unwrap();
    assert_eq!((&kept, fs::metadata(&kept).unwrap().ino()), (&cranelifts, made));
    // It is what a host makes that has never heard of Winch.
    let code = fs::read(&cranelifts).unwrap();
    fs::remove_file(&cranelifts).unwrap();
    let walled = walled.another(u64::MAX);
    walled.started().await;
    let [kept] = walled.kept().try_into().unwrap();
    assert_eq!((&kept, fs::read(&kept).unwrap()), (&cranelifts, code));
}

#[tokio::test]
async fn a_host_that_ends_early_leaves_code_of_winch_for_the_next_one() {
    let walled = first(Calls::Stateful);
    walled.started().await;
    let [winchs] = walled.kept().try_into().unwrap();
    let made = fs::metadata(&winchs).unwrap().ino();
    // Cranelift has not begun, and what it was for is gone.
    let walled = walled.another(0);
    walled.started().await;
    let [kept] = walled.kept().try_into().unwrap();
    assert_eq!((&kept, fs::metadata(&kept).unwrap().ino()), (&winchs, made));
    // A host without Winch does not take it.
    let walled = walled.another(u64::MAX);
    walled.started().await;
    assert_eq!(walled.kept().len(), 2);
}

/// An engine that was exchanged while its plugins run: what is compiled for the new one is compiled as for the first.
#[tokio::test]
async fn after_another_engine_cranelift_comes_after_winch_as_well() {
    let walled = walled(&guest(), Calls::Stateful);
    let engine = walled.bench.dir.path().join("engine");
    fs::copy(env!("CARGO_BIN_EXE_palisade-engine"), &engine).unwrap();
    let wall = Arc::new(ProcessBackend::new(Options::default()));
    let backend = WalledBackend::new(wall, EngineProgram::at(&engine)).winch_from(0);
    let walled = Walled { backend, ..walled }.in_its_folder();
    let prepared = walled.prepared().await;
    walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    let [winchs] = walled.kept().try_into().unwrap();
    let cranelifts = walled.replaced(&winchs).await;

    let older = fs::metadata(&engine).unwrap().modified().unwrap() - Duration::from_secs(60);
    fs::File::open(&engine).unwrap().set_modified(older).unwrap();
    walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    let winchs = walled.kept().into_iter().find(|kept| *kept != cranelifts).unwrap();
    let begun = Instant::now();
    let next = loop {
        let next = walled.kept().into_iter().find(|kept| ![&winchs, &cranelifts].contains(&kept));
        if let Some(next) = next
            && !winchs.exists()
        {
            break next;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "Cranelift does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(fs::read(next).unwrap(), fs::read(cranelifts).unwrap());
}

#[tokio::test]
async fn what_goes_too_far_with_code_of_winch_is_told_apart() {
    let walled = first(Calls::Stateful);
    let instance = walled.started().await;
    goes_too_far(&instance, TOO_FAR).await;
    takes_too_long(&instance).await;
}

#[tokio::test]
async fn limits_count_for_instances_of_winch_and_can_be_changed() {
    let mut walled = first(Calls::Stateless { instances: 3 });
    // Three pages: two that it begins with, and one more.
    walled.bench.spec.limits.memory = 3 * 65536 + 4096;
    let instance = walled.started().await;
    assert_eq!(quick(&instance, "hold").await.unwrap(), "3");
    assert_eq!(quick(&instance, "hold").await.unwrap(), "0");
    let mut limits = walled.bench.spec.limits.clone();
    limits.memory = 16 << 20;
    instance.set_limits(&limits).await.unwrap();
    assert_eq!(quick(&instance, "hold").await.unwrap(), "4");
}

/// The code of Winch, signed as the host signs it, in the place of Cranelift's, and the other way round: what a
/// mistake of ours would look like. The engine does not run it, and it is made anew.
#[tokio::test]
async fn an_engine_refuses_code_of_the_other_compiler() {
    let walled = first(Calls::Stateful);
    walled.started().await;
    let [winchs] = walled.kept().try_into().unwrap();
    let of_winch = fs::read(&winchs).unwrap();
    let walled = walled.another(u64::MAX);
    walled.started().await;
    let cranelifts = walled.kept().into_iter().find(|kept| *kept != winchs).unwrap();
    let of_cranelift = fs::read(&cranelifts).unwrap();

    // In the place of Cranelift's.
    let forged = forge(&cranelifts, &of_winch);
    let walled = walled.another(u64::MAX);
    answers(&walled.started().await).await;
    assert!(!forged.exists());
    assert_eq!(fs::read(&cranelifts).unwrap(), of_cranelift, "made anew");

    // And of Winch's.
    fs::remove_file(&cranelifts).unwrap();
    let forged = forge(&winchs, &of_cranelift);
    let walled = walled.another(0);
    answers(&walled.started().await).await;
    assert!(!forged.exists());
}
