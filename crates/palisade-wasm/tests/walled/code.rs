//! Compiled code that stays behind the walls: kept, made anew where it was touched or does not fit, and refused where
//! there is none.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend as _, Calls, HostCalls, Instance, Prepared, SandboxError};
use palisade_wasm::walled::{EngineProgram, WalledBackend};
use sha2::Sha256;

use super::{
    Walled, backend,
    support::{GUEST, component, guest, initialize, quick},
    walled,
};

#[tokio::test]
async fn compiled_code_stays_behind_the_walls_and_is_made_anew_where_it_was_touched() {
    let walled = walled(&guest(), Calls::Stateful);
    walled.started().await;
    let [kept] = walled.kept().try_into().unwrap();
    let before = fs::read(&kept).unwrap();
    // Nothing of it lies where the engine of the host would find it.
    assert!(!walled.bench.dir.path().join("wasm").exists());
    // Another host on the same folder takes it.
    let second = walled.again();
    let made = fs::metadata(&kept).unwrap().ino();
    second.started().await;
    assert_eq!(fs::metadata(&kept).unwrap().ino(), made);
    // What was changed does not count: it is compiled anew.
    let mut forged = before.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    fs::write(&kept, &forged).unwrap();
    let third = second.again();
    third.started().await;
    let [kept] = third.kept().try_into().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), before);
    // Code that is gone when an instance is launched is made again.
    let prepared = third.prepared().await;
    fs::remove_file(&kept).unwrap();
    let instance = third.launched(&prepared).await.unwrap();
    initialize(&instance, "{}").await.unwrap();
    // Another file under the same name is not what was compiled.
    let other =
        component(&GUEST.replace("not today", "not later"), &["clock", "storage", "random"]);
    fs::write(third.bench.artifact.content.root.join("plugin.wasm"), other).unwrap();
    let refused = third.launched(&prepared).await.err().unwrap();
    assert!(refused.to_string().contains("not the one"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_compiled_or_run_is_refused_with_words() {
    for (wasm, word) in [
        (&b"no wasm at all"[..], "WebAssembly"),
        (b"\0asm\x01\0\0\0", "component"),
        (b"", "WebAssembly"),
    ] {
        let walled = walled(wasm, Calls::Stateful);
        let refused = walled.launch().await.err().unwrap();
        assert!(matches!(refused, SandboxError::Artifact { .. }), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
    // A program that is no engine says nothing that an engine says.
    let walled = walled(&guest(), Calls::Stateful);
    let wall = Arc::new(ProcessBackend::new(Options::default()));
    for program in ["/bin/true", "/bin/cat"] {
        let backend = WalledBackend::new(wall.clone(), EngineProgram::at(program));
        let refused = backend.prepare(&walled.bench.artifact).await.err().unwrap();
        assert!(refused.to_string().contains("compiling"), "{program}: {refused}");
    }
}

/// Puts `code` in the place of what was kept, signed as the host of this folder signs it. Gives where it lies.
pub(super) fn forge(kept: &Path, code: &[u8]) -> PathBuf {
    let folder = kept.parent().unwrap();
    let named = kept.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().0;
    let name: Vec<u8> =
        (0..32).map(|n| u8::from_str_radix(&named[2 * n..2 * n + 2], 16).unwrap()).collect();
    let key = fs::read(folder.join("key")).unwrap();
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let mac = mac.chain_update("palisade wasm+process 2").chain_update(&name).chain_update(code);
    let tag = mac.finalize().into_bytes();
    let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::remove_file(kept).unwrap();
    let path = folder.join(format!("{named}-{tag}.cwasm"));
    fs::write(&path, code).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

/// Code as an engine of an older version makes it, signed as the host of this folder signs it: what is left of a
/// folder that was there before the engine was changed. Gives where it lies.
fn older(kept: &Path) -> PathBuf {
    let mut code = fs::read(kept).unwrap();
    let is_version = |at: &usize| {
        let rest = &code[*at..];
        rest[0] == 2
            && rest[1..3].iter().all(u8::is_ascii_digit)
            && rest[4..].starts_with(std::env::consts::ARCH.as_bytes())
    };
    let at = (0..code.len() - 16).find(is_version).expect("the version of the engine");
    code[at + 2] = b'0';
    forge(kept, &code)
}

impl Walled {
    /// Another host on the same folder.
    fn again(self) -> Self {
        let backend = backend();
        backend.keep_in(&self.bench.dir.path().canonicalize().unwrap());
        Self { backend, bench: self.bench }
    }

    pub(super) async fn prepared(&self) -> Arc<dyn Prepared> {
        self.backend.prepare(&self.bench.artifact).await.unwrap()
    }

    pub(super) async fn launched(
        &self,
        of: &Arc<dyn Prepared>,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.bench.host) as _;
        of.launch(self.bench.spec.clone(), host).await
    }
}

#[tokio::test]
async fn code_that_does_not_fit_the_engine_is_thrown_away_and_made_anew() {
    let first = walled(&guest(), Calls::Stateful);
    first.started().await;
    let [kept] = first.kept().try_into().unwrap();
    let right = fs::read(&kept).unwrap();
    let old = older(&kept);
    let second = first.again();
    let prepared = second.prepared().await;
    assert!(old.exists(), "it is this host's, and is tried first");
    let instance = second.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&instance, "{}").await.unwrap();
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    let [now] = second.kept().try_into().unwrap();
    assert_eq!(fs::read(&now).unwrap(), right);
    // An engine is believed once: to compile takes much of the machine.
    fs::rename(older(&now), &now).unwrap();
    let refused = second.launched(&prepared).await.err().unwrap();
    assert!(refused.to_string().contains("does not fit"), "{refused}");
    // What it runs already stays as it is.
    assert_eq!(quick(&instance, "count").await.unwrap(), "2");
}

/// A folder that cannot be made, as on a full or read-only disk.
#[tokio::test]
async fn code_that_cannot_be_kept_is_run_all_the_same() {
    let mut walled = walled(&guest(), Calls::Stateful);
    walled.backend = backend();
    let file = walled.bench.dir.path().canonicalize().unwrap().join("a file");
    fs::write(&file, "in the way").unwrap();
    walled.backend.keep_in(&file);
    let prepared = walled.prepared().await;
    let instance = walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&instance, "{}").await.unwrap();
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    let second = walled.launched(&prepared).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&second, "{}").await.unwrap();
    assert_eq!(quick(&second, "count").await.unwrap(), "1");
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}
