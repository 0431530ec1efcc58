//! One run at a time, bounded; what nobody waits for gives way.

use std::sync::atomic::{AtomicBool, Ordering};

use palisade_sandbox::{Assessment, Facts, Lane, Prepared, RightsChange, Usage, stream::bytes};

use super::*;

#[test]
fn a_run_takes_a_bounded_part_of_the_machine() {
    assert_eq!(most(0), 16 << 20);
    assert_eq!(most(1 << 20), 80 << 20);
    assert_eq!(most(u64::MAX), MAX_CODE);
    let instance = instance(b"").unwrap();
    let limits = |module| spec(Path::new("/n"), Wire::Native, instance.clone(), module).limits;
    assert_eq!(limits(1 << 20).memory, (1 << 30) + (16 << 20));
    assert_eq!(limits(u64::MAX).memory, 4 << 30);
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(limits(0).cpu >= 1.0 && limits(0).cpu <= (cores / 2.0).max(1.0));
}

#[test]
fn each_module_is_a_plugin_of_its_own() {
    let plugin = |wasm: &[u8]| instance(wasm).unwrap().plugin;
    assert_eq!(plugin(b"one"), plugin(b"one"));
    assert_ne!(plugin(b"one"), plugin(b"other"));
}

#[test]
fn what_could_not_be_compiled_is_not_tried_again_at_once() {
    let refused = Refused::default();
    let name = |digest: &str| Name::new(digest, false, "engine", &[1; 32], CompiledBy::Cranelift);
    refused.put(&name("aa"), &SandboxError::Ended);
    assert!(refused.find(&name("aa")).is_ok(), "the machine's fault");
    let error = SandboxError::Artifact { what: "it is broken".into(), hint: "mend it".into() };
    refused.put(&name("aa"), &error);
    assert_eq!(refused.find(&name("aa")).unwrap_err().to_string(), "it is broken");
    assert!(refused.find(&name("bb")).is_ok());
    for n in 0..2 * MOST_REFUSED {
        refused.put(&name(&n.to_string()), &error);
    }
    assert!(refused.find(&name("aa")).is_ok(), "only so many are remembered");
    assert_eq!(refused.0.lock().unwrap().len(), MOST_REFUSED);
}

/// Runs that answer at once, but the first one that nobody waits for: it does not come to an end.
#[derive(Clone, Default)]
struct Wall {
    log: Arc<Mutex<Vec<&'static str>>>,
    has_hung: Arc<AtomicBool>,
    is_later: bool,
}

impl Wall {
    fn note(&self, what: &'static str) {
        self.log.lock().unwrap().push(what);
    }

    fn log(&self) -> Vec<&'static str> {
        self.log.lock().unwrap().clone()
    }
}

impl Backend for Wall {
    fn name(&self) -> &'static str {
        "wall"
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        unreachable!("nobody asks")
    }

    fn assess<'a>(&'a self, _spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        unreachable!("nobody asks")
    }

    fn prepare<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        let is_later = artifact.program.args.iter().any(|argument| argument == LATER);
        let prepared: Arc<dyn Prepared> = Arc::new(Self { is_later, ..self.clone() });
        Box::pin(std::future::ready(Ok(prepared)))
    }
}

impl Prepared for Wall {
    fn launch(
        &self,
        spec: LaunchSpec,
        _host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        use std::io::{Read as _, Write as _};
        self.note(if self.is_later { "later" } else { "now" });
        let Wire::Bytes(wire) = &spec.wire else { unreachable!("a conversation") };
        let ((mut stdin, to), (from, mut stdout)) =
            (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        bytes(to.into(), from.into(), wire).unwrap();
        let hangs = self.is_later && !self.has_hung.swap(true, Ordering::AcqRel);
        let held = hangs.then(|| stdout.try_clone().unwrap());
        std::thread::spawn(move || {
            stdin.read_to_end(&mut Vec::new()).unwrap();
            if !hangs {
                stdout.write_all(&[COMPILED, 1, 2, 3]).unwrap();
            }
        });
        let run = Run { wall: self.clone(), achieved: Assessment::default(), _held: held };
        Box::pin(std::future::ready(Ok(Arc::new(run) as Arc<dyn Instance>)))
    }
}

struct Run {
    wall: Wall,
    achieved: Assessment,
    _held: Option<std::io::PipeWriter>,
}

impl Instance for Run {
    fn id(&self) -> &palisade_model::InstanceId {
        unreachable!("nobody asks")
    }

    fn lane(&self) -> Arc<dyn Lane> {
        unreachable!("nobody asks")
    }

    fn achieved(&self) -> &Assessment {
        &self.achieved
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        unreachable!("nobody asks")
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(std::future::ready(Exit { cause: ExitCause::Exited(0), usage: None }))
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, Exit> {
        self.kill(KillReason::Asked)
    }

    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit> {
        Box::pin(async {
            // It takes its time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.wall.note("gone");
            Exit { cause: ExitCause::Killed(why), usage: None }
        })
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("nobody asks")
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        unreachable!("nobody asks")
    }

    fn set_limits<'a>(&'a self, _limits: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>> {
        unreachable!("nobody asks")
    }

    fn set_rights(&self, _rights: Arc<CapabilitySet>) -> RightsChange {
        unreachable!("nobody asks")
    }
}

#[tokio::test]
async fn runs_that_nobody_waits_for_give_way_and_begin_again() {
    let wall = Wall::default();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::default());
    store.keep_in(&dir.path().join("kept"));
    let later = || {
        let (wall, store) = (wall.clone(), Arc::clone(&store));
        tokio::spawn(async move {
            let engine = Path::new("/engine");
            let compiling = Compiling { wall: &wall, store: &store, engine, is_extism: false };
            loop {
                let turn = IdleTurn::new().await.unwrap();
                if let Some(code) = compile_later(compiling, b"wasm", turn).await.unwrap() {
                    return code;
                }
            }
        })
    };
    // The second stands in line when somebody comes who waits.
    let laters = [later(), later()];
    let begun = Instant::now();
    while wall.log().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let engine = Path::new("/engine");
    let compiling = Compiling { wall: &wall, store: &store, engine, is_extism: false };
    let made = compile(compiling, b"wasm", CompiledBy::Winch).await.unwrap();
    assert_eq!(made, (CompiledBy::Cranelift, vec![1, 2, 3]));
    for later in laters {
        assert_eq!(later.await.unwrap(), [1, 2, 3]);
    }
    let log = wall.log();
    assert_eq!(
        log,
        ["later", "gone", "now", "later", "later"],
        "one at a time, and none in between"
    );
}
