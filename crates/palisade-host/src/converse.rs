//! A plugin with which somebody else speaks, byte by byte: a proxy that must not change what passes, or
//! nobody at all, where a program only runs to its end.
//!
//! The plugin is loaded, granted, walled, recorded and ended like any other. What is not done here is
//! `initialize`, calls, events and hooks: whoever holds the ends answers for those, and for bringing what
//! passes to the gate.

use std::{sync::Arc, time::Duration};

use palisade_broker::{Caller, Gate};
use palisade_model::{CapabilitySet, ErrorCode, Failure, Limits, PluginRef};
use palisade_sandbox::{
    Exit,
    stream::{ByteEnds, ByteWire},
};

use crate::{
    Plugin,
    plugin::Talk,
    running::{Running, Way},
    watch::Watched,
};

/// How long the ends may take to arrive once the program runs.
const HANDED_OVER: Duration = Duration::from_secs(5);

/// What a conversation may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConverseOptions {
    /// What is registered for the plugin besides what its manifest declares: `tool:*` for a server whose
    /// tools nobody knows beforehand, say. The operator's forbids still win.
    pub offered: CapabilitySet,
}

impl ConverseOptions {
    /// What the manifest declares and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these contributions besides.
    #[must_use]
    pub fn offered(mut self, offered: CapabilitySet) -> Self {
        self.offered = offered;
        self
    }
}

/// A running plugin and the ends of its conversation. Ends with the [`Plugin`] that it came from:
/// dropping this leaves it running, for as long as its stdin stays open.
pub struct Conversation {
    /// Its standard input and output.
    pub ends: ByteEnds,
    /// Where everything that passes is decided and recorded.
    pub gate: Gate,
    /// The plugin, with its rights: whom is asked something, and who asks.
    pub server: Arc<Caller>,
    /// Who speaks with it.
    pub client: Arc<Caller>,
    /// What it may use; deadlines among it.
    pub limits: Limits,
    reference: Arc<PluginRef>,
    watched: Watched,
}

impl Conversation {
    /// Which plugin it is with.
    #[must_use]
    pub fn plugin(&self) -> &Arc<PluginRef> {
        &self.reference
    }

    /// Waits until the plugin has ended. Dropping the future harms nothing.
    pub fn exit(&self) -> impl Future<Output = Exit> + Send + 'static {
        let watched = self.watched.clone();
        async move { watched.ended().await }
    }
}

impl Plugin {
    /// Starts it with its standard input and output in the hands of whoever asked, whatever wire its
    /// manifest names. For the rest as [`Plugin::start`].
    ///
    /// To end it in order: drop [`ByteEnds::to`], which closes its standard input, tell
    /// [`ByteEnds::finished`], and call [`Plugin::stop`].
    ///
    /// # Errors
    /// As [`Plugin::start`].
    pub async fn converse(&self, options: ConverseOptions) -> Result<Conversation, Failure> {
        let (wire, arriving) = ByteWire::new();
        self.start_as(Talk::Bytes { wire, offered: options.offered }).await?;
        let lost = || Failure::new(ErrorCode::Internal, "the conversation was not handed over");
        let ends = match tokio::time::timeout(HANDED_OVER, arriving).await {
            Ok(Ok(ends)) => ends,
            _ => return Err(lost()),
        };
        let running: Arc<Running> = self.cell().require_running()?;
        let Way::Resident { watched, .. } = &running.way else { return Err(lost()) };
        Ok(Conversation {
            ends,
            gate: self.control().host().gate().clone(),
            server: Arc::clone(&running.caller),
            client: Arc::clone(self.control().caller()),
            limits: running.loaded.limits.clone(),
            reference: Arc::clone(self.reference()),
            watched: watched.clone(),
        })
    }
}
