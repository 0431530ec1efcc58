//! How many files a plugin has open behind walls: as many as its limits say. The engine's process is its own, so that
//! nothing is kept for others.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use palisade_sandbox::{Calls, ExtismOutput, Runtime};

use super::{
    net::{guard_for, rights},
    rights::{Net, does, wasi_guest},
    support::{self, quick},
    walled,
};

const WEB: &str = "net.http:nowhere.example:80";

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_has_as_many_files_open_as_its_limits_say() {
    let mut walled = walled(&wasi_guest(), Calls::Stateful);
    walled.bench.spec.limits.memory = 64 << 20;
    let root = walled.bench.dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("texts")).unwrap();
    let one = root.join("texts/one").display().to_string();
    fs::write(&one, "first").unwrap();
    let reads = format!("fs.read:{}/texts/**", root.display());
    // The guest imports wasi:http, for which it takes some right; this one leads nowhere.
    walled.bench.rights(&[WEB, &reads]);
    let (lines, guard, rights) = (Mutex::default(), guard_for(&[]), rights(&[WEB]));
    let net = Arc::new(Net { lines, guard, rights });
    walled.bench.spec.limits.files = 16;
    assert_eq!(
        does(&mut walled, &net, "again", &one).await,
        [r#"(16, "blocked EDQUOT") (16, "blocked EDQUOT")"#]
    );
    // A listing is one too, and the granted folder itself is none.
    let folder = root.join("texts").display().to_string();
    assert_eq!(
        does(&mut walled, &net, "listings", &format!("{folder}\n600")).await,
        [r#"(16, Some("quota")) (16, Some("quota"))"#]
    );
    // More than a plugin in the host's own process could have.
    walled.bench.spec.limits.files = 300;
    let mut lines = does(&mut walled, &net, "many-files", &format!("{one}\n301")).await;
    // One on stderr and one on stdout, which are two pipes.
    lines.sort();
    assert_eq!(lines, ["300 files", "blocked EDQUOT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_a_module_of_the_older_wasi() {
    let wasm = wat::parse_str(support::FILES).unwrap();
    let mut walled = walled(&wasm, Calls::Stateful);
    walled.bench.artifact.program.runtime =
        Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Text };
    let root = walled.bench.dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("texts")).unwrap();
    fs::write(root.join("texts/file"), "first").unwrap();
    walled.bench.rights(&[&format!("fs.read:{}/texts/**", root.display())]);
    walled.bench.spec.limits.files = 16;
    let instance = walled.started().await;
    let failure = quick(&instance, "fill").await.unwrap_err();
    assert!(failure.message.contains("ended with 1633 "), "{failure}");
    let failure = quick(&instance, "again").await.unwrap_err();
    assert!(failure.message.contains("ended with 333 "), "{failure}");
}
