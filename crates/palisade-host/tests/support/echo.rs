//! A backend whose plugins are Rust functions in this process, called on the caller's task: a direct
//! lane without a byte stream. It isolates nothing and so lives in tests only; what it says about its
//! guarantees is set by each test.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use palisade_model::{
    Capability, CapabilitySet, ErrorCode, Failure, Guarantee, GuaranteeSet, InstanceId, Level,
    Limits, Payload,
};
use palisade_sandbox::{
    Artifact, Assessment, Backend, BoxFuture, Exit, ExitCause, Facts, HostCalls, HostRequest,
    Instance, Invocation, KillReason, Lane, LaunchSpec, OutputStream, Prepared, RightsChange,
    SandboxError, Trace, Unavailable, Usage,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::sync::watch;

/// How a plugin answers `initialize`.
#[derive(Clone, Debug)]
pub(crate) enum Init {
    Tools(Option<Vec<&'static str>>),
    Raw(&'static str),
    Hang,
    Die(ExitCause),
}

/// What a plugin does with a hook or a command.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Answers this.
    Answer(String),
    /// Answers `{data: [DATA, NAME]}`.
    Wrap(&'static str),
    Fail,
    Hang,
    Die(ExitCause),
    /// Asks the host for this and answers `{data: ITS ANSWER}`; where that fails, with the failure.
    Ask(&'static str, Value),
}

/// What a test decides and what it looks at afterwards.
pub(crate) struct Knobs {
    pub(crate) init: Mutex<Init>,
    pub(crate) unavailable: Mutex<Option<Unavailable>>,
    pub(crate) guarantees: Mutex<GuaranteeSet>,
    /// What is really achieved, where that differs from what was promised.
    pub(crate) achieved: Mutex<Option<GuaranteeSet>>,
    pub(crate) rights_change: Mutex<RightsChange>,
    pub(crate) launch_delay: Mutex<Duration>,
    pub(crate) specs: Mutex<Vec<LaunchSpec>>,
    pub(crate) events: Mutex<VecDeque<Value>>,
    /// By plugin id; `{}` where nothing is said.
    pub(crate) hooks: Mutex<BTreeMap<&'static str, Does>>,
    /// Plugin id and parameters of each hook and command, as they came.
    pub(crate) hooked: Mutex<Vec<(String, Value)>>,
    pub(crate) initialized: Mutex<Vec<Value>>,
    pub(crate) prepared: AtomicU32,
    pub(crate) alive: AtomicU32,
    pub(crate) kills: Mutex<Vec<KillReason>>,
    pub(crate) on_launch: Mutex<Option<Box<dyn Fn() + Send>>>,
}

pub(crate) struct Echo {
    pub(crate) name: &'static str,
    pub(crate) knobs: Arc<Knobs>,
}

impl Echo {
    pub(crate) fn new() -> Arc<Self> {
        Self::named("echo")
    }

    pub(crate) fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            knobs: Arc::new(Knobs {
                init: Mutex::new(Init::Tools(None)),
                unavailable: Mutex::default(),
                guarantees: Mutex::new(GuaranteeSet::default_floor()),
                achieved: Mutex::default(),
                rights_change: Mutex::new(RightsChange::Applied),
                launch_delay: Mutex::default(),
                specs: Mutex::default(),
                events: Mutex::default(),
                hooks: Mutex::default(),
                hooked: Mutex::default(),
                initialized: Mutex::default(),
                prepared: AtomicU32::new(0),
                alive: AtomicU32::new(0),
                kills: Mutex::default(),
                on_launch: Mutex::default(),
            }),
        })
    }

    pub(crate) fn alive(&self) -> u32 {
        self.knobs.alive.load(Ordering::SeqCst)
    }

    /// Waits until no instance is left.
    pub(crate) async fn all_gone(&self) {
        for _ in 0..500 {
            if self.alive() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} instances are still alive", self.alive());
    }
}

impl Backend for Echo {
    fn name(&self) -> &'static str {
        self.name
    }

    fn probe(&self) -> BoxFuture<'_, Arc<Facts>> {
        let facts = Facts {
            unavailable: self.knobs.unavailable.lock().unwrap().clone(),
            guarantees: self.knobs.guarantees.lock().unwrap().clone(),
            findings: Vec::new(),
        };
        Box::pin(std::future::ready(Arc::new(facts)))
    }

    fn assess<'a>(&'a self, spec: &'a LaunchSpec) -> BoxFuture<'a, Assessment> {
        let mut assessment = Assessment {
            guarantees: self.knobs.guarantees.lock().unwrap().clone(),
            ..Assessment::default()
        };
        let everything: Capability = "fs.write:/**".parse().unwrap();
        if spec.rights.contains(&everything) {
            assessment.weaken(Guarantee::FsIsolated, Level::None, "the whole tree is granted");
        }
        Box::pin(std::future::ready(assessment))
    }

    fn prepare<'a>(
        &'a self,
        artifact: &'a Artifact,
    ) -> BoxFuture<'a, Result<Arc<dyn Prepared>, SandboxError>> {
        self.knobs.prepared.fetch_add(1, Ordering::SeqCst);
        let there = artifact.content.root.join(&artifact.program.file).exists();
        let result: Result<Arc<dyn Prepared>, _> = if there {
            Ok(Arc::new(EchoPrepared(Arc::clone(&self.knobs))))
        } else {
            let (what, hint) = (format!("no file {}", artifact.program.file), "create it".into());
            Err(SandboxError::Artifact { what, hint })
        };
        Box::pin(std::future::ready(result))
    }
}

struct EchoPrepared(Arc<Knobs>);

impl Prepared for EchoPrepared {
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        Box::pin(async move {
            let knobs = Arc::clone(&self.0);
            let delay = *knobs.launch_delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            if let Some(on_launch) = &*knobs.on_launch.lock().unwrap() {
                on_launch();
            }
            let promised = knobs.guarantees.lock().unwrap().clone();
            let achieved = knobs.achieved.lock().unwrap().clone().unwrap_or(promised);
            knobs.specs.lock().unwrap().push(spec.clone());
            knobs.alive.fetch_add(1, Ordering::SeqCst);
            let body =
                Arc::new(Body { exit: watch::Sender::new(None), knobs, host, id: spec.instance });
            let instance: Arc<dyn Instance> = Arc::new(EchoInstance {
                body,
                achieved: Assessment { guarantees: achieved, ..Assessment::default() },
            });
            Ok(instance)
        })
    }
}

/// What instance and lane share.
struct Body {
    exit: watch::Sender<Option<Exit>>,
    knobs: Arc<Knobs>,
    host: Arc<dyn HostCalls>,
    id: InstanceId,
}

impl Body {
    /// Ends, if it has not ended yet.
    fn end(&self, cause: ExitCause) -> Exit {
        self.exit.send_if_modified(|exit| {
            if exit.is_some() {
                return false;
            }
            self.knobs.alive.fetch_sub(1, Ordering::SeqCst);
            if let ExitCause::Killed(why) = &cause {
                self.knobs.kills.lock().unwrap().push(why.clone());
            }
            *exit = Some(Exit { cause, usage: None });
            true
        });
        self.exit.borrow().clone().unwrap()
    }

    async fn ended(&self) -> Exit {
        self.exit.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
}

struct EchoInstance {
    body: Arc<Body>,
    achieved: Assessment,
}

impl Drop for EchoInstance {
    fn drop(&mut self) {
        self.body.end(ExitCause::Killed(KillReason::Dropped));
    }
}

impl Instance for EchoInstance {
    fn id(&self) -> &InstanceId {
        &self.body.id
    }

    fn lane(&self) -> Arc<dyn Lane> {
        Arc::new(EchoLane(Arc::clone(&self.body)))
    }

    fn achieved(&self) -> &Assessment {
        &self.achieved
    }

    fn usage(&self) -> BoxFuture<'_, Usage> {
        Box::pin(async { Usage { pids: Some(1), ..Usage::default() } })
    }

    fn wait(&self) -> BoxFuture<'_, Exit> {
        Box::pin(self.body.ended())
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Exit> {
        Box::pin(async { self.body.end(ExitCause::Exited(0)) })
    }

    fn kill(&self, why: KillReason) -> BoxFuture<'_, Exit> {
        Box::pin(async { self.body.end(ExitCause::Killed(why)) })
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Err(SandboxError::Ended) })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        Box::pin(async { Err(SandboxError::Ended) })
    }

    fn set_limits<'a>(&'a self, _: &'a Limits) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async { Ok(()) })
    }

    fn set_rights(&self, _: Arc<CapabilitySet>) -> RightsChange {
        *self.body.knobs.rights_change.lock().unwrap()
    }
}

struct EchoLane(Arc<Body>);

impl Lane for EchoLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        Box::pin(async move {
            let deadline = invocation.deadline;
            tokio::select! {
                biased;
                answer = self.answer(&invocation) => answer,
                _ = self.0.ended() => Err(closed()),
                () = tokio::time::sleep_until(deadline.into()) => {
                    Err(Failure::new(ErrorCode::Deadline, "no answer in time"))
                }
            }
        })
    }
}

fn closed() -> Failure {
    Failure::new(ErrorCode::Crashed, "connection closed")
}

#[derive(Deserialize)]
struct Call {
    tool: String,
    args: Box<RawValue>,
}

impl EchoLane {
    async fn answer(&self, invocation: &Invocation) -> Result<Payload, Failure> {
        let Body { knobs, host, exit, .. } = &*self.0;
        if exit.borrow().is_some() {
            return Err(closed());
        }
        match invocation.method {
            "initialize" => {
                knobs.initialized.lock().unwrap().push(invocation.payload.parse().unwrap());
                let init = knobs.init.lock().unwrap().clone();
                match init {
                    Init::Tools(tools) => {
                        let tools: Option<Vec<Value>> =
                            tools.map(|t| t.iter().map(|name| json!({"name": name})).collect());
                        let mut answer = json!({"protocol": 1});
                        if let Some(tools) = tools {
                            answer["tools"] = tools.into();
                        }
                        Ok(Payload::json(&answer).unwrap())
                    }
                    Init::Raw(text) => Ok(Payload::from_json_text(text)),
                    Init::Hang => std::future::pending().await,
                    Init::Die(cause) => {
                        self.0.end(cause);
                        Err(closed())
                    }
                }
            }
            "handle_event" => {
                let event: Value = invocation.payload.parse().unwrap();
                let refuse = event["subject"] == "refused.event";
                knobs.events.lock().unwrap().push_back(event);
                if refuse {
                    return Err(Failure::new(ErrorCode::PluginError, "not this one"));
                }
                Ok(Payload::null())
            }
            "hook" | "run_command" => {
                let params: Value = invocation.payload.parse().unwrap();
                let id = self.0.id.plugin.id.to_string();
                let does = knobs.hooks.lock().unwrap().get(id.as_str()).cloned();
                knobs.hooked.lock().unwrap().push((id, params.clone()));
                self.does(does, &params["data"], host).await
            }
            "call" => {
                let Call { tool, args } = invocation.payload.parse().unwrap();
                self.tool(&tool, &args, host).await
            }
            other => Err(Failure::new(ErrorCode::NotFound, format!("no method {other}"))),
        }
    }

    async fn does(
        &self,
        does: Option<Does>,
        data: &Value,
        host: &Arc<dyn HostCalls>,
    ) -> Result<Payload, Failure> {
        match does {
            None => Ok(Payload::from_json_text("{}")),
            Some(Does::Answer(text)) => Ok(Payload::from_json_text(text)),
            Some(Does::Wrap(name)) => Ok(Payload::json(&json!({"data": [data, name]})).unwrap()),
            Some(Does::Fail) => Err(Failure::new(ErrorCode::PluginError, "it went wrong")),
            Some(Does::Hang) => std::future::pending().await,
            Some(Does::Die(cause)) => {
                self.0.end(cause);
                Err(closed())
            }
            Some(Does::Ask(method, params)) => {
                let payload = Payload::json(&params).unwrap();
                let (method, trace) = (method.to_owned(), Trace(None));
                let answer = host.request(HostRequest { method, payload, trace }).await?;
                let answer: Value = answer.parse().unwrap();
                Ok(Payload::json(&json!({ "data": answer })).unwrap())
            }
        }
    }

    async fn tool(
        &self,
        tool: &str,
        args: &RawValue,
        host: &Arc<dyn HostCalls>,
    ) -> Result<Payload, Failure> {
        let text = Payload::from_json_text(args.get().to_owned());
        match tool {
            "echo" => Ok(text),
            // Asks the host for `{method, params}`, and answers with its answer.
            "ask" => {
                let ask: Value = text.parse().unwrap();
                host.request(HostRequest {
                    method: ask["method"].as_str().unwrap().to_owned(),
                    payload: Payload::json(&ask["params"]).unwrap(),
                    trace: Trace(None),
                })
                .await
            }
            "print" => {
                host.output(OutputStream::Stdout, "a stray \x1b[31mprint");
                Ok(Payload::null())
            }
            "hang" => std::future::pending().await,
            "fail" => Err(Failure::new(ErrorCode::PluginError, "it went wrong")),
            "oom" => {
                self.0.end(ExitCause::OutOfMemory);
                Err(closed())
            }
            "sigsys" => {
                self.0.end(ExitCause::PolicyKill { syscall: Some("bpf".into()) });
                Err(closed())
            }
            "segv" => {
                self.0.end(ExitCause::Signalled(11));
                Err(closed())
            }
            "exit" => {
                self.0.end(ExitCause::Exited(0));
                Err(closed())
            }
            // The lane has seen nonsense; the instance itself still runs.
            "breach" => Err(Failure::new(ErrorCode::ProtocolBreach, "half a frame")),
            other => Err(Failure::new(ErrorCode::NotFound, format!("no tool {other}"))),
        }
    }
}
