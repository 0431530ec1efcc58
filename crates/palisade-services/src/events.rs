//! `event.publish`: a plugin tells others that something happened.
//!
//! Subscribing is no request: what a plugin wants to hear is declared in its manifest, granted as
//! `event.subscribe`, and delivered to it by the host.

use std::sync::Arc;

use palisade_broker::{Bucket, Context, Event, EventBus, Need, Published, Service};
use palisade_model::{Failure, Kind, Payload};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Parameters of `event.publish`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishParams {
    /// What it is about: 1 to 16 tokens with dots between, at most 256 bytes, no wildcards.
    pub subject: String,
    /// What is said: any JSON value, at most 1 MiB. Passed on as it is.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
}

/// The service `event.publish` on `bus`.
///
/// The source of the event is who asks, and its hop count what the host knows about the deliveries
/// that the plugin is handling; neither is a parameter.
pub fn publish(bus: Arc<dyn EventBus>) -> Service<PublishParams> {
    Service::method("event.publish", move |cx: Context, params: PublishParams| {
        let bus = Arc::clone(&bus);
        async move { publish_as(&cx, &*bus, params).await }
    })
    .describe(
        "Publishes an event. The answer says how many subscriptions took it, how many deliveries were \
         dropped for it, and how many subscriptions were full and refused it.",
    )
    .capability("event.publish:SUBJECT", |params: &PublishParams| {
        Some(Need::new(Kind::EventPublish, params.subject.as_str()))
    })
    .rate(Bucket::Events)
    .coalesce()
}

pub(crate) async fn publish_as(
    cx: &Context,
    bus: &dyn EventBus,
    params: PublishParams,
) -> Result<Published, Failure> {
    let text = String::from(Box::<str>::from(params.data));
    let mut event =
        Event::new(params.subject, Payload::from_json_text(text), Arc::clone(cx.principal()));
    event.hops = cx.hops();
    event.trace.clone_from(&cx.trace);
    Ok(bus.publish(event).await?)
}
