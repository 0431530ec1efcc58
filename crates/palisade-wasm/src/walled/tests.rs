use std::{collections::BTreeMap, time::Duration};

use palisade_model::{Generation, InstanceId, NodeId, Origin, PluginId, PluginRef};
use palisade_sandbox::{Calls, Finding};

use super::*;

fn spec(rights: &[&str]) -> LaunchSpec {
    let plugin = PluginRef {
        id: PluginId::parse("test").unwrap(),
        origin: Origin::Folder { path: "/p".into(), owner: 0 },
    };
    LaunchSpec {
        instance: InstanceId {
            node: NodeId::local(),
            plugin: Arc::new(plugin),
            generation: Generation(1),
            serial: 1,
        },
        rights: Arc::new(rights.iter().map(|right| right.parse().unwrap()).collect()),
        limits: Limits { memory: 8 << 20, pids: 1, files: 20, ..Limits::default() },
        demand: GuaranteeSet::default_floor().with(G::EngineWalled, Level::Kernel),
        wire: Wire::Native,
        data: "/data".into(),
        slot: 3,
        env: BTreeMap::from([("LD_PRELOAD".to_owned(), "/evil.so".to_owned())]),
        workdir: Some("/srv".into()),
        observe: None,
    }
}

/// A wall that says what it is told to.
struct Wall {
    guarantees: GuaranteeSet,
    unavailable: Option<Unavailable>,
    runs_engines: bool,
}

impl Backend for Wall {
    fn name(&self) -> &'static str {
        "wall"
    }

    fn runs(&self, runtime: &Runtime) -> bool {
        self.runs_engines && *runtime == Runtime::Engine
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        Box::pin(std::future::ready(Arc::new(Facts {
            unavailable: self.unavailable.clone(),
            guarantees: self.guarantees.clone(),
            findings: Vec::<Finding>::new(),
        })))
    }

    fn assess<'a>(&'a self, _spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        let guarantees = self.guarantees.clone();
        Box::pin(async { Assessment { guarantees, ..Assessment::default() } })
    }

    fn prepare<'a>(
        &'a self,
        _artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        Box::pin(std::future::ready(Err(SandboxError::Ended)))
    }
}

fn wall() -> Wall {
    let guarantees = GuaranteeSet::new()
        .with(G::FsIsolated, Level::Kernel)
        .with(G::NetIsolated, Level::Kernel)
        .with(G::IpcIsolated, Level::Kernel)
        .with(G::PeersIsolated, Level::Kernel)
        .with(G::SyscallsFiltered, Level::Kernel)
        .with(G::MemoryCapped, Level::Policed)
        .with(G::DiskCapped, Level::Policed)
        .with(G::NoJit, Level::Kernel);
    Wall { guarantees, unavailable: None, runs_engines: true }
}

fn backend(wall: Wall, program: EngineProgram) -> WalledBackend {
    WalledBackend::new(Arc::new(wall), program)
}

#[tokio::test]
async fn what_holds_is_what_the_wall_holds() {
    let backend = backend(wall(), EngineProgram::this());
    let facts = backend.probe().await;
    assert!(facts.unavailable.is_none());
    for guarantees in [&facts.guarantees, &backend.assess(&spec(&[])).await.guarantees] {
        assert_eq!(guarantees.level(G::EngineWalled), Level::Kernel);
        assert_eq!(guarantees.level(G::FsIsolated), Level::Kernel);
        // The engine's own count would say kernel.
        assert_eq!(guarantees.level(G::MemoryCapped), Level::Policed);
        assert_eq!(guarantees.level(G::OwnUid), Level::None);
        assert_eq!(guarantees.level(G::DiskCapped), Level::Kernel);
        // Whatever the wall can do for others.
        assert_eq!(guarantees.level(G::NoJit), Level::None);
    }
    let writes = backend.assess(&spec(&["fs.write:/srv/out/**"])).await;
    assert_eq!(writes.guarantees.level(G::DiskCapped), Level::None);
    let cannot = backend.assess(&spec(&["exec:/usr/bin/git", "fs.read:/srv/a"])).await;
    assert_eq!(cannot.unsupported.len(), 2, "{:?}", cannot.unsupported);
}

#[tokio::test]
async fn an_engine_is_walled_as_much_as_the_weakest_of_its_walls() {
    for weakest in WALLS {
        for level in [Level::None, Level::Policed] {
            let mut weaker = wall();
            weaker.guarantees.lower(weakest, level);
            let backend = backend(weaker, EngineProgram::this());
            let facts = backend.probe().await;
            let assessed = backend.assess(&spec(&[])).await.guarantees;
            for guarantees in [&facts.guarantees, &assessed] {
                assert_eq!(guarantees.level(G::EngineWalled), level, "{weakest}");
            }
            // Of the disk, what the wall holds by itself stays.
            assert_eq!(assessed.level(G::DiskCapped), Level::Policed, "{weakest}");
        }
    }
}

#[tokio::test]
async fn without_walls_or_without_an_engine_there_is_no_such_backend() {
    let none = Wall {
        unavailable: Some(Unavailable { reason: "no namespaces".into(), remedy: "x".into() }),
        ..wall()
    };
    for (backend, word) in [
        (backend(none, EngineProgram::this()), "no namespaces"),
        (backend(Wall { runs_engines: false, ..wall() }, EngineProgram::this()), "runs no engine"),
        (backend(wall(), EngineProgram::at("/no/engine")), "/no/engine"),
        (backend(wall(), EngineProgram::at("/")), "not a file"),
    ] {
        let facts = backend.probe().await;
        let why = facts.unavailable.as_ref().unwrap();
        assert!(why.reason.contains(word), "{}", why.reason);
        assert!(facts.guarantees.is_empty());
    }
    let backend = backend(wall(), EngineProgram::this());
    assert!(backend.runs(&Runtime::Wasm { calls: Calls::Stateful }));
    assert!(!backend.runs(&Runtime::Native) && !backend.runs(&Runtime::Engine));
}

#[test]
fn the_engine_is_launched_with_what_it_needs_and_no_more() {
    let spec = spec(&["fs.read:/srv/a/**", "net.http:example.org:443", "storage.kv:*", "env:LANG"]);
    let inside = behind_walls(&spec, 1 << 20, 4);
    let rights: Vec<String> = inside.rights.iter().map(ToString::to_string).collect();
    assert_eq!(rights, ["fs.read:/srv/a/**", "net.http:example.org:443"]);
    assert!(inside.env.is_empty(), "variables of the plugin are none of the engine's");
    assert_eq!(inside.workdir, None);
    assert_eq!(inside.demand.level(G::EngineWalled), Level::None);
    assert_eq!(inside.demand.level(G::FsIsolated), Level::Kernel);
    assert_eq!(inside.slot, 3);
    // Room for the engine itself, whatever the plugin may have.
    assert_eq!(inside.limits.memory, (8 << 20) + (64 << 20) + (4 << 20) + (8 << 20));
    // Of each of the four instances: one folder, eight requests and 32 connections.
    let files = 20 + ENGINE_FILES + 4 * (1 + 8 + 32);
    assert_eq!((inside.limits.pids, inside.limits.files), (ENGINE_THREADS, files));
    assert_eq!(inside.limits.start_timeout, Duration::from_secs(10));
}
