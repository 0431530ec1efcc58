use palisade_model::Origin;

use super::*;

fn plugin(id: &str, path: &str) -> Arc<PluginRef> {
    Arc::new(PluginRef {
        id: PluginId::parse(id).unwrap(),
        origin: Origin::Folder { path: path.into(), owner: 1000 },
    })
}

fn granted(text: &str, digest: [u8; 32]) -> StoredGrant {
    let capability: Capability = text.parse().unwrap();
    StoredGrant {
        grant: Grant {
            capability: capability.clone(),
            by: Principal::Operator("ann".into()),
            at: 10,
            until: Some(20),
            manifest_digest: digest,
        },
        resolved: capability,
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_reopening() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("host.db");
    let a = plugin("a", "/a");
    {
        let store = Store::open(&path).await.unwrap();
        let known = store.see(a.clone(), [1; 32], 5).await.unwrap();
        assert_eq!(known, Known { key: known.key, slot: 0, generation: 1 });
        store.grant(known.key, vec![granted("env:A", [1; 32])]).await.unwrap();
        let answer =
            ConsentRow { by: Principal::Application, at: 7, digest: [1; 32], agreed: Some(vec![]) };
        store.consent(known.key, answer, vec![granted("env:B", [1; 32])]).await.unwrap();
        assert_eq!(store.begin_start(known.key).await.unwrap().0, 1);
    }
    let store = Store::open(&path).await.unwrap();
    let known = store.see(a.clone(), [2; 32], 6).await.unwrap();
    assert_eq!(known.generation, 2, "another manifest is another generation");
    let (serial, grants) = store.begin_start(known.key).await.unwrap();
    assert_eq!(serial, 2, "serials go on");
    assert_eq!(grants, [granted("env:A", [1; 32]), granted("env:B", [1; 32])]);
    assert_eq!(store.consents(known.key).await.unwrap().len(), 1);
    assert_eq!(store.known().await.unwrap(), [(*a).clone()]);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("host.db");
    let modes = || -> Vec<u32> {
        let files = std::fs::read_dir(tmp.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect()
    };
    for _ in 0..2 {
        let store = Store::open(&path).await.unwrap();
        store.see(plugin("a", "/a"), [1; 32], 1).await.unwrap();
        let modes = modes();
        assert!(modes.len() > 1 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
        drop(store);
        // One of an earlier version.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[tokio::test]
async fn an_id_belongs_to_its_first_origin_until_it_is_forgotten() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("host.db")).await.unwrap();
    let first = store.see(plugin("a", "/one"), [1; 32], 1).await.unwrap();
    store.grant(first.key, vec![granted("env:A", [1; 32])]).await.unwrap();
    let refused = store.see(plugin("a", "/two"), [1; 32], 1).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("folder /one (uid 1000)") && text.contains("folder /two (uid 1000)"),
        "{text}"
    );

    assert!(store.forget(PluginId::parse("a").unwrap()).await.unwrap());
    let second = store.see(plugin("a", "/two"), [1; 32], 1).await.unwrap();
    assert_ne!(second.slot, first.slot, "a number is never given twice");
    assert!(store.grants(second.key).await.unwrap().is_empty(), "grants do not pass on");

    assert!(store.forget(PluginId::parse("a").unwrap()).await.unwrap());
    let again = store.see(plugin("a", "/one"), [1; 32], 1).await.unwrap();
    assert_eq!(again.slot, first.slot, "and stays with its plugin");
}

#[tokio::test]
async fn a_revocation_takes_what_lies_within_it() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("host.db")).await.unwrap();
    let key = store.see(plugin("a", "/a"), [1; 32], 1).await.unwrap().key;
    let given = ["fs.read:/srv/a", "fs.read:/srv/b/**", "fs.read:/etc/x"];
    store.grant(key, given.map(|t| granted(t, [1; 32])).into()).await.unwrap();
    let taken = store.revoke(key, "fs.read:/srv/**".parse().unwrap()).await.unwrap();
    assert_eq!(taken.len(), 2);
    let left: Vec<String> =
        store.grants(key).await.unwrap().iter().map(|g| g.grant.capability.to_string()).collect();
    assert_eq!(left, ["fs.read:/etc/x"]);
}

#[tokio::test]
async fn grants_for_another_manifest_make_room_for_new_ones() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("host.db")).await.unwrap();
    let key = store.see(plugin("a", "/a"), [1; 32], 1).await.unwrap().key;
    store.grant(key, vec![granted("env:A", [1; 32]), granted("env:B", [1; 32])]).await.unwrap();
    store.grant(key, vec![granted("env:A", [2; 32])]).await.unwrap();
    assert_eq!(store.grants(key).await.unwrap(), [granted("env:A", [2; 32])]);
}

#[tokio::test]
async fn a_file_that_is_no_database_and_one_that_is_newer_are_typed_errors() {
    let tmp = tempfile::tempdir().unwrap();
    let garbage = tmp.path().join("garbage.db");
    std::fs::write(&garbage, vec![0x5a; 8192]).unwrap();
    let error = Store::open(&garbage).await.err().unwrap();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");

    let newer = tmp.path().join("newer.db");
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&newer).await.err().unwrap();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_locked_database_is_a_typed_error_after_a_wait() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("host.db");
    let store = Store::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.see(plugin("a", "/a"), [1; 32], 1).await.unwrap_err();
    assert!(matches!(error, HostError::Store(StoreError::Locked)), "{error}");
}

#[tokio::test]
async fn there_are_at_most_65533_numbers() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("host.db");
    let store = Store::open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute("INSERT INTO slots (id, origin, slot) VALUES ('x', 'y', 65531)", []).unwrap();
    assert_eq!(store.see(plugin("a", "/a"), [1; 32], 1).await.unwrap().slot, 65532);
    let error = store.see(plugin("b", "/b"), [1; 32], 1).await.unwrap_err();
    assert!(matches!(error, HostError::Store(StoreError::Full)), "{error}");
}
