//! What plugins of desktop hosts ask for in JSON lines, under the names that they use:
//! `data_request`, `post_event`, `store_plugin_data` and `get_plugin_data`.
//!
//! Each is another name for something that is here anyway, takes the same right and counts against the
//! same rates. The desktop dialect's answers are bare values, so that these are too.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use palisade_broker::{
    BoxFuture, BrokerError, Bucket, Context, EventBus, Need, Published, Service, ServiceRegistry,
};
use palisade_model::{
    Access, ErrorCode, Failure, Kind,
    text::{escape, nearest},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    bare::Bare,
    events::{PublishParams, publish_as},
    storage::{Key, SetResult, Storage, read_value, write_value},
};

/// What stands before a piece of data's name in its right: `host.call:data.NAME`.
pub const DATA_PREFIX: &str = "data.";

type Provider =
    Arc<dyn Fn(Context, Value) -> BoxFuture<'static, Result<Box<RawValue>, Failure>> + Send + Sync>;

/// The pieces of data that the application gives to plugins, by name. Pieces may be added at any time.
#[derive(Default)]
pub struct Data {
    providers: RwLock<BTreeMap<String, Provider>>,
}

impl Data {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece of data: what `provider` makes of who asks and of the `params` of the request
    /// (`null` where there are none). Plugins need the right `host.call:data.NAME`.
    ///
    /// # Errors
    /// [`BrokerError::ServiceName`] for a name that no right could name, [`BrokerError::DuplicateService`]
    /// for one that is taken.
    pub fn provide<R, F, Fut>(&self, name: &str, provider: F) -> Result<(), BrokerError>
    where
        R: Serialize,
        F: Fn(Context, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let right = format!("{DATA_PREFIX}{name}");
        if name.is_empty() || Access::new(Kind::HostCall, &right).canonical_target().is_none() {
            return Err(BrokerError::ServiceName(right.chars().take(128).collect()));
        }
        let provider: Provider = Arc::new(move |cx, params| {
            let running = provider(cx, params);
            let boxed: BoxFuture<'static, _> = Box::pin(async move {
                serde_json::value::to_raw_value(&running.await?).map_err(|e| {
                    let message = format!("the data cannot be written as JSON: {e}");
                    Failure::new(ErrorCode::Internal, message)
                })
            });
            boxed
        });
        let mut providers = self.providers.write().unwrap_or_else(PoisonError::into_inner);
        if providers.contains_key(name) {
            return Err(BrokerError::DuplicateService(right));
        }
        providers.insert(name.to_owned(), provider);
        Ok(())
    }

    /// The names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let providers = self.providers.read().unwrap_or_else(PoisonError::into_inner);
        providers.keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Provider, Failure> {
        let providers = self.providers.read().unwrap_or_else(PoisonError::into_inner);
        providers.get(name).map(Arc::clone).ok_or_else(|| {
            let message = format!("the application has no data named {}", escape(name, 80));
            let failure = Failure::new(ErrorCode::NotFound, message);
            match nearest(name, providers.keys().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure,
            }
        })
    }
}

/// Parameters of `data_request`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataParams {
    /// Which piece of data. May be written as `key` or `data_type`.
    #[serde(alias = "key", alias = "data_type")]
    pub name: String,
    /// What the application wants to know besides, if anything. May be written as `args` or `query`.
    #[serde(default, alias = "args", alias = "query")]
    pub params: Value,
}

/// Parameters of `post_event`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostParams {
    /// The subject of the event. May be written as `name`, `event_type` or `subject`.
    #[serde(alias = "name", alias = "event_type", alias = "subject")]
    pub event: String,
    /// What is said: any JSON value, at most 1 MiB. May be written as `metadata` or `payload`.
    #[serde(default, alias = "metadata", alias = "payload")]
    #[schemars(with = "serde_json::Value")]
    pub data: Box<RawValue>,
}

/// Parameters of `store_plugin_data`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreParams {
    /// The key, as of `storage.set`.
    pub key: Key,
    /// Any JSON value of at most 1 MiB. May be written as `data`.
    #[serde(alias = "data")]
    #[schemars(with = "serde_json::Value")]
    pub value: Box<RawValue>,
}

/// Parameters of `get_plugin_data`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadParams {
    /// The key, as of `storage.get`.
    pub key: Key,
    /// The result where there is no such entry. Default: `null`.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub default: Box<RawValue>,
}

fn data_request(data: Arc<Data>) -> Service<DataParams> {
    Service::method("data_request", move |cx: Context, params: DataParams| {
        let data = Arc::clone(&data);
        async move { Ok(Bare(data.find(&params.name)?(cx, params.params).await?)) }
    })
    .describe(
        "Asks the application for a named piece of data. A name that is not granted is denied whether \
         there is such data or not.",
    )
    .capability("host.call:data.NAME", |params: &DataParams| {
        Some(Need::new(Kind::HostCall, format!("{DATA_PREFIX}{}", params.name)))
    })
    .idempotent()
}

fn post_event(bus: Arc<dyn EventBus>) -> Service<PostParams> {
    Service::method("post_event", move |cx: Context, params: PostParams| {
        let bus = Arc::clone(&bus);
        async move {
            let params = PublishParams { subject: params.event, data: params.data };
            publish_as(&cx, &*bus, params).await as Result<Published, Failure>
        }
    })
    .describe("Publishes an event, as `event.publish` does.")
    .capability("event.publish:EVENT", |params: &PostParams| {
        Some(Need::new(Kind::EventPublish, params.event.as_str()))
    })
    .rate(Bucket::Events)
    .coalesce()
}

fn store(storage: Storage) -> Service<StoreParams> {
    Service::method("store_plugin_data", move |cx: Context, params: StoreParams| {
        let storage = storage.clone();
        async move {
            write_value(&storage, &cx, params.key, &params.value).await
                as Result<SetResult, Failure>
        }
    })
    .describe("Writes an entry of the plugin's own storage, as `storage.set` does.")
    .capability("storage.kv:KEY", |params: &StoreParams| {
        Some(Need::new(Kind::StorageKv, params.key.as_str()))
    })
    .max_params(crate::storage::MAX_VALUE + (4 << 10))
    .idempotent()
    .coalesce()
}

fn load(storage: Storage) -> Service<LoadParams> {
    Service::method("get_plugin_data", move |cx: Context, params: LoadParams| {
        let storage = storage.clone();
        async move {
            let found = read_value(&storage, &cx, params.key).await?;
            Ok::<_, Failure>(Bare(found.unwrap_or(params.default)))
        }
    })
    .describe("Reads an entry of the plugin's own storage, as `storage.get` does: the bare value.")
    .capability("storage.kv:KEY", |params: &LoadParams| {
        Some(Need::new(Kind::StorageKv, params.key.as_str()))
    })
    .idempotent()
    .coalesce()
}

/// Registers the names of the desktop dialect.
///
/// # Errors
/// [`BrokerError::DuplicateService`] where one of the names is taken.
pub fn register(
    services: &ServiceRegistry,
    data: Arc<Data>,
    bus: Arc<dyn EventBus>,
    storage: &Storage,
) -> Result<(), BrokerError> {
    services.register(data_request(data))?;
    services.register(post_event(bus))?;
    services.register(store(storage.clone()))?;
    services.register(load(storage.clone()))
}

#[cfg(test)]
mod tests;
