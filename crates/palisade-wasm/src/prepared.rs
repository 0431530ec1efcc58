//! Code that is ready, and its launch: an instance is made at once, so that what cannot run does not
//! start.

use std::{sync::Arc, time::Instant};

use palisade_sandbox::{BoxFuture, Calls, HostCalls, Instance, LaunchSpec, Prepared, SandboxError};

use crate::{
    ablation::{self, Layer},
    backend::assess,
    cache::{CompiledBy, Current},
    engine::Engines,
    guest::Code,
    instance::WasmInstance,
    lane::{Launch, OneByOne, Pool, Reuse, Way},
    state::Shared,
    wasi::Trust,
};

/// A plugin that [`WasmBackend`](crate::WasmBackend) has made ready.
pub struct PreparedCode {
    pub(crate) code: Arc<Current<Arc<dyn Code>>>,
    pub(crate) calls: Calls,
    pub(crate) engines: Arc<Engines>,
    /// Whom requests over TLS trust.
    pub(crate) trust: Trust,
}

impl PreparedCode {
    /// Which compiler made the code that a launch would take now. After [`CompiledBy::Winch`] comes
    /// [`CompiledBy::Cranelift`], once that has compiled it in the background; instances stay with what they were
    /// launched with.
    #[must_use]
    pub fn compiled_by(&self) -> CompiledBy {
        self.code.get().1
    }
}

impl Prepared for PreparedCode {
    fn launch(
        &self,
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
    ) -> BoxFuture<'_, Result<Arc<dyn Instance>, SandboxError>> {
        Box::pin(async move {
            let (code, _) = self.code.get();
            if ablation::has(Layer::Imports) {
                code.check(&spec.rights)?;
            }
            let achieved = assess(Some(&spec));
            if let Some((capability, why)) = achieved.unsupported.first() {
                let (capability, why) = (capability.to_string(), why.clone());
                return Err(SandboxError::Unsupported { capability, why });
            }
            if !achieved.guarantees.covers(&spec.demand) {
                let missing = achieved.guarantees.missing(&spec.demand);
                let list: Vec<String> = missing
                    .iter()
                    .map(|(g, want, have)| format!("{g} is {have}, demanded {want}"))
                    .collect();
                return Err(SandboxError::WallTooWeak(list.join(", ")));
            }
            let deadline = Instant::now() + spec.limits.start_timeout;
            let clock = Arc::clone(&self.engines.clock);
            let shared = Shared::new(spec, host, clock, self.trust.clone());
            let places = Arc::clone(self.engines.places());
            let launch = Launch::new(code, Arc::clone(&shared), places);
            let first = launch.first(deadline).await.map_err(SandboxError::Start)?;
            let way: Arc<dyn Way> = match self.calls {
                Calls::Stateful => Arc::new(OneByOne::new(launch, first)),
                Calls::Stateless { instances } => {
                    Arc::new(Pool::new(launch, first, instances, Reuse::Always))
                }
                Calls::PerCall { instances } => {
                    Arc::new(Pool::new(launch, first, instances, Reuse::BeforeCalls))
                }
            };
            Ok(Arc::new(WasmInstance::new(shared, way, achieved)) as Arc<dyn Instance>)
        })
    }
}
