//! From a loaded plugin to an instance that has answered `initialize`.
//!
//! Order: limits, rights, real paths, wall, launch, then the first request. What was launched is
//! watched before anything else happens to it, so that no way out of here leaves it running.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use palisade_audit::RecordKind;
use palisade_broker::{Action, Caller, Routine};
use palisade_model::{
    Access, Capability, CapabilitySet, ErrorCode, Failure, GuaranteeSet, InstanceId, Kind,
    text::escape,
};
use palisade_policy::{Rules, check_limits, registration_allowed};
use palisade_protocol::{
    VersionRange,
    methods::{self, InitializeParams, InitializeResult, Party, PluginName},
};
use palisade_sandbox::{
    Backend, Deadline, Exit, Invocation, KillReason, Lane, LaunchSpec, NoBackend, Resolver,
    SandboxError, Trace, Wire,
};

use crate::{
    cell::{PluginCell, Ready},
    host::HostInner,
    host_calls::InstanceCalls,
    loaded::{Loaded, Tool},
    rights::{self, Held},
    state_dir,
    status::Counters,
    watch::Watched,
};

/// Room for an answer that came in time to be read.
const SLACK: Duration = Duration::from_millis(200);

/// Everything that a launch takes, found and checked.
pub(crate) struct Plan {
    pub(crate) held: Held,
    pub(crate) spec: LaunchSpec,
    pub(crate) backend: &'static str,
    prepared: Arc<dyn palisade_sandbox::Prepared>,
}

/// An instance that has answered `initialize`. Killed when this is dropped before it is taken.
pub(crate) struct Launched {
    pub(crate) watched: Watched,
    pub(crate) lane: Arc<dyn Lane>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) offer: Offer,
    guard: KillOnDrop,
}

impl Launched {
    /// Keeps the instance running.
    pub(crate) fn keep(mut self) -> (Watched, Arc<dyn Lane>, Arc<Caller>, Offer) {
        self.guard.0 = None;
        (self.watched, self.lane, self.caller, self.offer)
    }
}

struct KillOnDrop(Option<Watched>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(watched) = self.0.take() {
            watched.abandon();
        }
    }
}

/// What a plugin offers: declared, not forbidden, and announced where it announces.
#[derive(Clone, Default)]
pub(crate) struct Offer {
    pub(crate) registered: CapabilitySet,
    pub(crate) tools: BTreeMap<String, Offered>,
}

/// A tool that is offered.
#[derive(Clone)]
pub(crate) struct Offered {
    pub(crate) tool: Arc<Tool>,
    /// What is known of its calls in this run.
    pub(crate) calls: Arc<Routine>,
}

/// The backends that this plugin may get, in the order in which they are tried.
pub(crate) fn candidates(
    host: &HostInner,
    loaded: &Loaded,
) -> Result<Vec<Arc<dyn Backend>>, Failure> {
    let runtime = loaded.program()?.runtime;
    let names: Vec<&str> = host.backends.iter().map(|b| b.name()).collect();
    let mut allowed = host.policy.candidates(&names);
    if let Some(wanted) = &loaded.backend {
        if !names.contains(&wanted.as_str()) {
            let message = format!("there is no backend {} here", escape(wanted, 40));
            let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::new(ErrorCode::Usage, message).hint(format!("there are: {list}")));
        }
        if !allowed.contains(&wanted.as_str()) {
            let message = format!("the operator's policy does not allow the backend {wanted}");
            return Err(Failure::new(ErrorCode::Denied, message).rule("backends"));
        }
        allowed.retain(|name| name == wanted);
    }
    let find = |name: &str| host.backends.iter().find(|b| b.name() == name).map(Arc::clone);
    let found: Vec<Arc<dyn Backend>> = allowed.iter().copied().filter_map(find).collect();
    let able: Vec<Arc<dyn Backend>> =
        found.iter().filter(|b| b.runs(&runtime)).map(Arc::clone).collect();
    if able.is_empty() && !found.is_empty() {
        let word = runtime.word();
        let message = match &loaded.backend {
            Some(wanted) => format!("the backend {wanted} runs no {word} entries"),
            None => format!("no backend runs {word} entries; there are: {}", allowed.join(", ")),
        };
        let others = host.backends.iter().filter(|b| b.runs(&runtime)).map(|b| b.name());
        let failure = Failure::new(ErrorCode::NoBackend, message);
        return Err(match others.collect::<Vec<_>>() {
            others if others.is_empty() => {
                failure.hint("this build of Palisade has none that does")
            }
            others => failure.hint(format!("backends that do: {}", others.join(", "))),
        });
    }
    Ok(able)
}

/// That no backend covers the demand, with the rules for single plugins that ask for what is lacking.
pub(crate) fn no_wall(host: &HostInner, loaded: &Loaded, none: &NoBackend) -> Failure {
    let failure = Failure::from(none.clone());
    let lacks = |floor: &GuaranteeSet| {
        let mut missing = none.candidates.iter().flat_map(|candidate| &candidate.missing);
        missing.any(|(guarantee, _, have)| floor.level(*guarantee) > *have)
    };
    let floors = host.policy.plugin_floors().iter();
    let rules: Vec<String> = floors
        .filter(|of| of.names(&loaded.manifest.id) && lacks(of.floor()))
        .map(|of| of.rule())
        .collect();
    if rules.is_empty() { failure } else { failure.rule(rules.join(", ")) }
}

/// The specification of a launch with these rights.
pub(crate) fn spec(
    host: &HostInner,
    cell: &PluginCell,
    loaded: &Loaded,
    rights: CapabilitySet,
    serial: u64,
) -> LaunchSpec {
    LaunchSpec {
        instance: InstanceId {
            node: host.node.clone(),
            plugin: Arc::clone(&cell.reference),
            generation: loaded.generation,
            serial,
        },
        // What the rights give goes before what the loader chose.
        env: loaded.env.clone().into_iter().chain(rights::environment(&rights)).collect(),
        workdir: loaded.workdir.clone(),
        observe: cell.observer.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        rights: Arc::new(rights),
        limits: loaded.limits.clone(),
        demand: loaded.demand.clone(),
        wire: loaded.wire(),
        data: cell.data.clone(),
        slot: cell.slot,
    }
}

/// Finds out whether and how the plugin can be launched now.
pub(crate) async fn plan(
    host: &HostInner,
    cell: &PluginCell,
    loaded: &Arc<Loaded>,
) -> Result<Plan, Failure> {
    check_limits(&loaded.limits, &host.policy)?;
    let artifact = loaded.artifact()?;
    let (serial, mut grants) = host.store.begin_start(cell.key).await?;
    grants
        .extend(cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    let held = host.held(Arc::clone(loaded), grants).await?;
    held.require(loaded)?;
    state_dir::create_data_dir(&cell.data)?;
    let spec = spec(host, cell, loaded, held.rights.clone(), serial);
    let resolver = Resolver::new(candidates(host, loaded)?);
    let resolved = resolver.resolve(&spec, None).await;
    let backend = resolved.map_err(|none| no_wall(host, loaded, &none))?.backend;

    // One at a time: two starts must not prepare the same thing twice.
    let mut ready = cell.prepared.lock().await;
    let prepared = match &*ready {
        Some(r) if r.backend == backend.name() && r.artifact == artifact => Arc::clone(&r.prepared),
        _ => {
            let prepared = backend.prepare(&artifact).await?;
            let backend = backend.name();
            *ready = Some(Ready { backend, artifact, prepared: Arc::clone(&prepared) });
            prepared
        }
    };
    Ok(Plan { held, spec, backend: backend.name(), prepared })
}

/// An instance whose walls stand and cover the demand, and that has not been spoken with.
struct Raised {
    watched: Watched,
    caller: Arc<Caller>,
    held: Held,
    wire: Wire,
    deadline: Instant,
    guard: KillOnDrop,
}

/// Launches what was planned and has it answer `initialize`. `launched` is told as soon as there is an
/// instance, `ended` when it has ended.
pub(crate) async fn launch(
    host: &HostInner,
    loaded: &Loaded,
    plan: Plan,
    counters: &Arc<Counters>,
    launched: impl FnOnce(&Watched),
    ended: impl FnOnce(&Exit) + Send + 'static,
) -> Result<Launched, Failure> {
    let raised = raise(host, loaded, plan, counters, launched, ended).await?;
    let Raised { watched, caller, held, wire, deadline, guard } = raised;
    let lane = watched.instance.lane();
    let announced =
        initialize(loaded, &held.rights, &wire, &watched, lane.as_ref(), deadline).await?;
    let offer = register(host, loaded, &caller, announced);
    caller.set_rules(Arc::new(held.rules(loaded, &offer.registered, &host.policy)));
    Ok(Launched { watched, lane, caller, offer, guard })
}

/// Launches what was planned for a conversation that somebody else leads. What the manifest declares and
/// `offered` are registered; nobody asks the plugin.
pub(crate) async fn launch_unspoken(
    host: &HostInner,
    loaded: &Loaded,
    plan: Plan,
    offered: &CapabilitySet,
    counters: &Arc<Counters>,
    launched: impl FnOnce(&Watched),
    ended: impl FnOnce(&Exit) + Send + 'static,
) -> Result<Launched, Failure> {
    let raised = raise(host, loaded, plan, counters, launched, ended).await?;
    let Raised { watched, caller, held, guard, .. } = raised;
    let mut offer = register(host, loaded, &caller, None);
    offer.registered.extend(offered.iter().cloned());
    caller.set_rules(Arc::new(held.rules(loaded, &offer.registered, &host.policy)));
    Ok(Launched { lane: watched.instance.lane(), watched, caller, offer, guard })
}

async fn raise(
    host: &HostInner,
    loaded: &Loaded,
    plan: Plan,
    counters: &Arc<Counters>,
    launched: impl FnOnce(&Watched),
    ended: impl FnOnce(&Exit) + Send + 'static,
) -> Result<Raised, Failure> {
    let Plan { held, mut spec, prepared, .. } = plan;
    let deadline = Instant::now() + spec.limits.start_timeout;
    let (limits, wire) = (spec.limits.clone(), spec.wire.clone());
    let demand = spec.demand.clone();
    // Nothing that it offers can be called before it was registered.
    let rules = held.rules(loaded, &CapabilitySet::new(), &host.policy);
    let clock = Arc::clone(&host.clock);
    let caller = Caller::plugin(spec.instance.clone(), Arc::new(rules), &limits, clock);
    let secrets = host.secret_environment(&caller, &spec.rights, &loaded.secret_env).await?;
    spec.env.extend(secrets);
    let calls = InstanceCalls {
        caller: Arc::clone(&caller),
        broker: host.broker.clone(),
        guard: host.guard.for_plugin(),
        tunnels: OnceLock::new(),
        sink: Arc::clone(&host.sink),
        counters: Arc::clone(counters),
    };
    let building = prepared.launch(spec, Arc::new(calls));
    let instance = tokio::time::timeout_at(deadline.into(), building).await.map_err(|_| {
        let ms = limits.start_timeout.as_millis();
        Failure::new(ErrorCode::Deadline, format!("the wall was not built within {ms} ms"))
    })??;
    let gate = host.gate().clone();
    let watched = Watched::new(Arc::clone(&instance), Arc::clone(&caller), gate, &limits, ended);
    launched(&watched);
    let guard = KillOnDrop(Some(watched.clone()));

    // The backend has looked already; the host does not take its word for it.
    let achieved = &instance.achieved().guarantees;
    if !achieved.covers(&demand) {
        let missing = achieved.missing(&demand);
        let list: Vec<String> = missing
            .iter()
            .map(|(g, want, have)| format!("{g} is {have}, demanded {want}"))
            .collect();
        instance.kill(KillReason::WallTooWeak).await;
        return Err(SandboxError::WallTooWeak(list.join(", ")).into());
    }
    Ok(Raised { watched, caller, held, wire, deadline, guard })
}

/// The first request. Gives the tools that the plugin announced, if it did.
async fn initialize(
    loaded: &Loaded,
    rights: &CapabilitySet,
    wire: &Wire,
    watched: &Watched,
    lane: &dyn Lane,
    deadline: Instant,
) -> Result<Option<Vec<String>>, Failure> {
    let offered = VersionRange::SUPPORTED;
    let params = InitializeParams {
        protocol: offered,
        features: Vec::new(),
        host: Party { name: "palisade".into(), version: env!("CARGO_PKG_VERSION").into() },
        plugin: PluginName { id: loaded.manifest.id.to_string() },
        config: loaded.config.clone(),
        rights: rights.iter().map(ToString::to_string).collect(),
    };
    let payload = palisade_model::Payload::json(&params)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("initialize: {e}")))?;
    let invocation = Invocation {
        method: methods::INITIALIZE,
        payload,
        tool: None,
        deadline,
        trace: Trace(None),
    };
    let answer = tokio::select! {
        biased;
        answer = tokio::time::timeout_at((deadline + SLACK).into(), lane.call(invocation)) => {
            answer.unwrap_or_else(|_| Err(Failure::new(ErrorCode::Deadline, "no answer")))
        }
        exit = watched.ended() => Err(exit.to_failure()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) if failure.code == ErrorCode::Deadline => {
            let exit = watched.instance.kill(KillReason::Deadline(Deadline::Start)).await;
            let ms = loaded.limits.start_timeout.as_millis();
            return Err(exit.to_failure().hint(format!(
                "it has {ms} ms; resources.timeouts.start in the manifest gives more"
            )));
        }
        Err(failure) => return Err(watched.explain(failure).await),
    };
    if matches!(wire, Wire::Jsonl(_)) {
        // The dialect has no versions and announces nothing: what the manifest declares is offered.
        return Ok(None);
    }
    match InitializeResult::read(&answer, offered) {
        Ok(result) => {
            if let Some(party) = &result.plugin {
                tracing::debug!(
                    plugin = %loaded.manifest.id,
                    says = %escape(&format!("{} {}", party.name, party.version), 128),
                    "initialized"
                );
            }
            Ok(result.tools.map(|tools| tools.into_iter().map(|t| t.name).collect()))
        }
        Err(error) => {
            let failure = Failure::from(error);
            watched.instance.kill(KillReason::Breach(failure.message.clone())).await;
            Err(failure)
        }
    }
}

/// Registers what is declared and, where the plugin announced its tools, announced. The rest is refused
/// one by one, recorded and warned of.
pub(crate) fn register(
    host: &HostInner,
    loaded: &Loaded,
    caller: &Caller,
    announced: Option<Vec<String>>,
) -> Offer {
    let declared = Rules::new(loaded.declared.clone(), host.policy.forbids());
    let refuse = |access: Access<'_>, failure: Failure| {
        let action = Action::new(RecordKind::Registration).access(access);
        let failure = host.gate().refuse(caller, &action, failure);
        tracing::warn!(plugin = %loaded.manifest.id, "not registered: {failure}");
    };
    let mut offer = Offer::default();
    for capability in loaded.declared.iter() {
        let name = capability.scope().to_string();
        if capability.kind() == Kind::Tool && announced.is_some() {
            continue;
        }
        let access = Access::new(capability.kind(), &name);
        match registration_allowed(&declared, &access) {
            Ok(_) => offer.add(loaded, capability.clone(), &name),
            Err(failure) => refuse(access, failure),
        }
    }
    for name in announced.into_iter().flatten() {
        let access = Access::new(Kind::Tool, &name);
        match registration_allowed(&declared, &access) {
            Ok(capability) => offer.add(loaded, capability.clone(), &name),
            Err(failure) => refuse(access, failure),
        }
    }
    offer
}

impl Offer {
    fn add(&mut self, loaded: &Loaded, capability: Capability, name: &str) {
        if let (Kind::Tool, Some(tool)) = (capability.kind(), loaded.tools.get(name)) {
            let offered = Offered { tool: Arc::clone(tool), calls: Arc::default() };
            self.tools.insert(name.to_owned(), offered);
        }
        self.registered.insert(capability);
    }
}
