//! The seam between what holds instances (lanes, pools) and what an instance speaks: the world of
//! `palisade:plugin`, the interface of Extism, or any exports at all by their types.
//!
//! Nothing here knows limits or locks: whoever calls has set the store's deadline before, and throws the
//! instance away after [`Trouble::Trapped`].

use palisade_model::{CapabilitySet, Failure, Payload};
use palisade_sandbox::{BoxFuture, Invocation};
use wasmtime::{Engine, Store, component::Component};

use crate::{WasmError, state::State, world::since_v0_1_0::Running};

/// Code that is compiled and linked as far as can be without an instance.
pub(crate) trait Code: Send + Sync {
    /// The engine that it was compiled for; stores are made with it.
    fn engine(&self) -> &Engine;

    /// Linear memories of one instance.
    fn memories(&self) -> u32;

    /// Whether everything that it imports is allowed with these rights. Asked before each launch.
    ///
    /// # Errors
    /// [`WasmError::NotGranted`] with the first import that is not.
    fn check(&self, rights: &CapabilitySet) -> Result<(), WasmError>;

    /// Makes an instance in a fresh store. The store's deadline is set.
    fn instantiate(&self, store: Store<State>) -> BoxFuture<'_, Result<Box<dyn Guest>, Failure>>;
}

/// Linear memories of one instance of a component. What cannot be told before it is made counts as one: the
/// engine refuses what is more than there is.
pub(crate) fn memories(component: &Component) -> u32 {
    component.resources_required().map_or(1, |required| required.num_memories)
}

/// One instance with its store: asked one thing at a time.
pub(crate) trait Guest: Send {
    /// Answers `initialize`, `call`, `handle_event` and so on, as [`palisade_protocol::methods`] has them.
    /// The payload of the answer is well-formed JSON.
    fn call<'a>(
        &'a mut self,
        invocation: &'a Invocation,
    ) -> BoxFuture<'a, Result<Payload, Trouble>>;

    /// Its store.
    fn store(&mut self) -> &mut Store<State>;

    /// Where it is a plugin of our world: the same, to call its tools without a box for each.
    fn plugin(&mut self) -> Option<&mut Running> {
        None
    }
}

/// Why a call was not answered.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The plugin said so, or the host before it was asked. The instance is as good as before.
    Failed(Failure),
    /// It trapped: the instance is of no use any more.
    Trapped(Failure),
}

impl Trouble {
    /// What the caller is told.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) | Self::Trapped(failure) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
