//! Events to a plugin: one subscription for each `event.subscribe` right, each delivery through the
//! gate, acknowledged by the plugin's reply.
//!
//! Deliveries of one subscription come one at a time and in order; subscriptions do not wait for each
//! other. So a plugin handles at most as many events at once as it has rights to subscribe.

use std::sync::Arc;

use palisade_audit::{Act, Decision, RecordKind};
use palisade_broker::{Action, Delivery, DeliveryId, Event, SubscribeOptions};
use palisade_model::{
    Access, CapabilitySet, Encoding, ErrorCode, Failure, Kind, Payload,
    capability::{Scope, SubjectPattern},
};
use palisade_protocol::methods;

use crate::{host::HostInner, running::Running, status::count};

/// Most subscriptions of one plugin.
const MAX_SUBSCRIPTIONS: usize = 64;

/// Subscribes to everything that `rights` allow, and delivers until the run is released.
pub(crate) async fn subscribe(
    host: &Arc<HostInner>,
    running: &Arc<Running>,
    rights: &CapabilitySet,
) -> Result<(), Failure> {
    let patterns = patterns(rights);
    if patterns.len() > MAX_SUBSCRIPTIONS {
        let message = format!(
            "the plugin may subscribe to {} patterns, and at most {MAX_SUBSCRIPTIONS} are served",
            patterns.len()
        );
        return Err(Failure::new(ErrorCode::LimitExceeded, message).hint("ask for wider patterns"));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        host.gate().decide_pattern(&running.caller, pattern)?;
        let mut subscription =
            host.bus.subscribe(pattern.clone(), SubscribeOptions::default()).await?;
        let act = Act::new(RecordKind::Subscribe, Arc::clone(running.caller.principal()))
            .target(&format!("{}:{pattern}", Kind::EventSubscribe))
            .decision(Decision::Allow, None);
        host.gate().note(act, None);
        // What an earlier subscription delivers is not delivered again.
        let earlier: Vec<SubjectPattern> = patterns.iter().take(i).cloned().collect();
        // Weak: the run's tasks must not keep the run.
        let (host, weak) = (Arc::downgrade(host), Arc::downgrade(running));
        let task = tokio::spawn(async move {
            while let Some(delivery) = subscription.next().await {
                if earlier.iter().any(|p| p.matches(&delivery.event().subject)) {
                    delivery.ack();
                    continue;
                }
                let (Some(host), Some(running)) = (host.upgrade(), weak.upgrade()) else { return };
                deliver(&host, &running, delivery).await;
            }
        });
        running.adopt_subscription(task.abort_handle());
    }
    Ok(())
}

/// The patterns of the rights, without those that lie within another.
fn patterns(rights: &CapabilitySet) -> Vec<SubjectPattern> {
    let all: Vec<&SubjectPattern> = rights
        .of_kind(Kind::EventSubscribe)
        .filter_map(|c| match c.scope() {
            Scope::Subject(pattern) => Some(pattern),
            _ => None,
        })
        .collect();
    all.iter()
        .filter(|p| !all.iter().any(|q| p != &q && p.is_subset_of(q)))
        .map(|p| (*p).clone())
        .collect()
}

async fn deliver(host: &Arc<HostInner>, running: &Running, delivery: Delivery) {
    let event = Arc::clone(delivery.event());
    let action = Action::new(RecordKind::Event)
        .towards(&running.caller)
        .target_access(Access::new(Kind::EventSubscribe, &event.subject))
        .payload(&event.data)
        .trace(event.trace.clone())
        .coalesce();
    let params = params(delivery.id(), &event);
    let handling = running.caller.handle_delivery(event.hops);
    let delivered = host
        .gate()
        .run(&host.application, action, || async {
            let timeout = running.loaded.limits.call_timeout;
            let trace = event.trace.clone();
            running.invoke(host, methods::HANDLE_EVENT, params?, timeout, trace).await
        })
        .await;
    drop(handling);
    match delivered {
        Ok(_) => {
            count(&running.counters.events);
            delivery.ack();
        }
        Err(failure) => {
            count(&running.counters.events_failed);
            tracing::debug!(plugin = %running.loaded.manifest.id, "event not handled: {failure}");
            delivery.nack();
        }
    }
}

fn params(delivery: &DeliveryId, event: &Event) -> Result<Payload, Failure> {
    if event.data.encoding() != Encoding::Json {
        return Err(Failure::new(ErrorCode::InvalidParams, "events to plugins are JSON"));
    }
    let wrong = |e: serde_json::Error| {
        Failure::new(ErrorCode::InvalidParams, format!("the event's data is not JSON: {e}"))
    };
    let data = event.data.parse().map_err(wrong)?;
    Payload::json(&methods::HandleEventParams {
        delivery: delivery.to_string(),
        subject: event.subject.to_string(),
        data,
        hops: u32::from(event.hops),
        traceparent: event.trace.as_deref().map(str::to_owned),
    })
    .map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_within_another_needs_no_subscription_of_its_own() {
        let rights: CapabilitySet = ["a.>", "a.b", "a.*", "*.c"]
            .iter()
            .map(|s| format!("event.subscribe:{s}").parse().unwrap())
            .collect();
        let left: Vec<String> = patterns(&rights).iter().map(ToString::to_string).collect();
        assert_eq!(left, ["*.c", "a.>"]);
    }
}
