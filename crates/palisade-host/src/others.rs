//! One plugin's calls of another's tools: the far side of `plugin.call`.

use std::sync::{OnceLock, Weak};

use palisade_broker::{BoxFuture, Context};
use palisade_model::{ErrorCode, Failure, Payload, PluginId, text::escape};
use palisade_services::plugins::{CallParams, Plugins};

use crate::{CallOptions, control::Control, host::HostInner};

/// The plugins of a host that may not be there yet, and may be gone.
#[derive(Default)]
pub(crate) struct Others(OnceLock<Weak<HostInner>>);

impl Others {
    /// Says which host it is.
    pub(crate) fn belong_to(&self, host: Weak<HostInner>) {
        // Told once, by whoever makes the host.
        let _ = self.0.set(host);
    }
}

impl Plugins for Others {
    fn call(
        &self,
        cx: Context,
        params: CallParams,
    ) -> BoxFuture<'static, Result<Payload, Failure>> {
        let host = self.0.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let gone = || Failure::new(ErrorCode::Unavailable, "the host is going down");
            let CallParams { plugin, tool, args } = params;
            let id = PluginId::parse(&plugin).map_err(|_| {
                let message = format!("{} is no plugin's id", escape(&plugin, 128));
                Failure::new(ErrorCode::InvalidParams, message)
            })?;
            let control = Control::new(host.ok_or_else(gone)?, cx.caller);
            let mut options = CallOptions::new();
            // A trace of a plugin is not validated, and one that is none is not worth a refusal.
            options.trace = cx.trace.filter(|t| crate::call::check_trace(Some(t)).is_ok());
            control.plugin(&id)?.call_with(&tool, &args, options).await
        })
    }
}
