//! The broker: takes a plugin's request and has the right service answer it, through the gate.
//!
//! Order: rate, then the method, then the parameters, then the right, then the record, then the act.
//! Every refusal on that way is recorded.

use std::{
    borrow::Cow,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use palisade_audit::{BoxFuture, RecordKind};
use palisade_model::{
    Access, ErrorCode, Failure, Kind, Payload,
    text::{escape, nearest},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Action, Bucket, Caller, Context, Gate, Need, Reach, ServiceRegistry,
    registry::MAX_NAME,
    service::{Prepared, Registered},
};

/// The method by which plugins reach the application's services.
pub const HOST_CALL: &str = "host.call";

/// The parameters of `host.call`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostCall<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Routes requests to services. Cloning shares both.
#[derive(Clone)]
pub struct Broker {
    gate: Gate,
    services: Arc<ServiceRegistry>,
}

impl Broker {
    /// A broker of `services` behind `gate`.
    #[must_use]
    pub fn new(gate: Gate, services: Arc<ServiceRegistry>) -> Self {
        Self { gate, services }
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> &Arc<ServiceRegistry> {
        &self.services
    }

    /// Serves one request of `caller`. `method` and `payload` are as the plugin sent them. Must be
    /// polled on a tokio runtime with time enabled. Dropping the future cancels the request.
    ///
    /// # Errors
    /// A [`Failure`] for the plugin: denied, over the rate, no such method, parameters that do not fit,
    /// a deadline, or the service's own.
    pub fn request(
        &self,
        caller: &Arc<Caller>,
        method: &str,
        payload: &Payload,
        trace: Option<Arc<str>>,
    ) -> BoxFuture<'static, Result<Payload, Failure>> {
        let found = self.find(caller, method, payload);
        let (gate, caller, payload) = (self.gate.clone(), Arc::clone(caller), payload.clone());
        Box::pin(async move {
            let (registered, prepared) = found?;
            let Prepared { needs, run } = prepared;
            // What takes a right on a secret hands it out, and is on disk before that happens.
            let kind = match needs.iter().any(|need| need.kind == Kind::Secret) {
                true => RecordKind::Secret,
                false => RecordKind::Request,
            };
            let mut action = Action::new(kind).payload(&payload).trace(trace.clone());
            // An action has one access; several, and those to all of a scope, are decided here.
            let mut rule = None;
            if needs.len() > 1 || needs.iter().any(Need::is_every) {
                for need in &needs {
                    match gate.decide_need(&caller, need) {
                        Ok(right) => rule = rule.or(Some(right)),
                        Err(failure) => {
                            let action = action.access(need.access());
                            return Err(gate.refuse(&caller, &action, failure));
                        }
                    }
                }
            }
            let scope = needs.first().filter(|need| need.is_every()).map(ToString::to_string);
            action = match (needs.first(), &scope, rule) {
                (_, Some(scope), Some(rule)) => action.name(scope).decided(rule),
                (Some(need), ..) => action.access(need.access()),
                (None, ..) => action.name(&registered.info.name),
            };
            if let Some(bucket) = registered.rate {
                action = action.rate(bucket);
            }
            if registered.coalesce {
                action = action.coalesce();
            }
            let cx = Context { caller: Arc::clone(&caller), trace };
            gate.run(&caller, action, || guarded(&registered, move || run(cx))).await
        })
    }

    /// Finds the service and reads the parameters; takes the token for a request first.
    fn find(
        &self,
        caller: &Caller,
        method: &str,
        payload: &Payload,
    ) -> Result<(Arc<Registered>, Prepared), Failure> {
        if let Some(rates) = caller.rates() {
            rates.take(Bucket::Requests).map_err(|failure| {
                self.gate.refuse(caller, &Action::new(RecordKind::Request), failure)
            })?;
        }
        let refuse = |name: &str, failure| {
            let action = Action::new(RecordKind::Request).name(name).payload(payload);
            self.gate.refuse(caller, &action, failure)
        };
        if method != HOST_CALL {
            let registered = self
                .services
                .find(Reach::Method, method)
                .ok_or_else(|| refuse(method, self.not_found(Reach::Method, method)))?;
            let prepared = (registered.read)(payload).map_err(|f| refuse(method, f))?;
            return Ok((registered, prepared));
        }
        let call: HostCall<'_> = serde_json::from_slice(payload.bytes()).map_err(|e| {
            let message =
                format!("host.call takes method and params: {}", escape(&e.to_string(), 200));
            refuse(HOST_CALL, Failure::new(ErrorCode::InvalidParams, message))
        })?;
        let params = call.params.map_or_else(Payload::null, |raw| {
            Payload::from_json_text(payload.bytes().slice_ref(raw.get().as_bytes()))
        });
        let name = call.method.as_ref();
        let Some(registered) = self.services.find(Reach::HostCall, name) else {
            // Which services there are is not told to those who may not call them.
            let access = Access::new(Kind::HostCall, name);
            let failure = match self.gate.decide(caller, &access) {
                Err(denied) => denied,
                Ok(()) => self.not_found(Reach::HostCall, name),
            };
            let action = Action::new(RecordKind::Request).access(access).payload(payload);
            return Err(self.gate.refuse(caller, &action, failure));
        };
        let prepared = (registered.read)(&params).map_err(|misfit| {
            let fixed = registered.fixed.as_ref();
            match fixed.map(|need| self.gate.decide(caller, &need.access())) {
                Some(Err(denied)) => refuse(name, denied),
                _ => refuse(name, misfit),
            }
        })?;
        Ok((registered, prepared))
    }

    fn not_found(&self, reach: Reach, name: &str) -> Failure {
        let what = match reach {
            Reach::Method => "method",
            Reach::HostCall => "service",
        };
        let shown = escape(name, MAX_NAME);
        let failure = Failure::new(ErrorCode::NotFound, format!("there is no {what} {shown}"));
        let names = self.services.names(reach);
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => failure.hint(format!("did you mean {near}?")),
            None => failure,
        }
    }
}

/// Runs a handler within its deadline, and turns its panic into a failure.
async fn guarded(
    registered: &Registered,
    start: impl FnOnce() -> BoxFuture<'static, Result<Payload, Failure>>,
) -> Result<Payload, Failure> {
    let service = &registered.info;
    let panicked = || {
        Failure::new(ErrorCode::Internal, format!("the service {} failed", service.name))
            .hint("this is an error of the application; its log says more")
    };
    // A handler that panics leaves only its own captures behind, which are dropped here.
    let running = std::panic::catch_unwind(AssertUnwindSafe(start)).map_err(|_| panicked())?;
    match tokio::time::timeout(service.deadline, CatchPanic(running)).await {
        Ok(Some(result)) => result,
        Ok(None) => Err(panicked()),
        Err(_) => {
            let ms = service.deadline.as_millis();
            let message = format!("the service {} did not answer within {ms} ms", service.name);
            Err(Failure::new(ErrorCode::Deadline, message).hint(if service.idempotent {
                "ask again; doing it twice does no harm"
            } else {
                "it may have been done or not; find out before asking again"
            }))
        }
    }
}

/// Resolves to `None` when the future inside panics.
struct CatchPanic<T>(BoxFuture<'static, T>);

impl<T> Future for CatchPanic<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let inner = self.0.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Err(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests;
