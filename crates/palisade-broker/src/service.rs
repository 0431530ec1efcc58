//! Services: what a plugin may ask the host for, with typed parameters and results.
//!
//! Built-in services and those of the application are declared the same way. The right that a request
//! takes is computed from its parameters, after they were read and before anything happens.

use std::{sync::Arc, time::Duration};

use palisade_audit::BoxFuture;
use palisade_model::{
    Access, Encoding, ErrorCode, Failure, InstanceId, Kind, Payload, Principal,
    text::{escape, nearest},
};
use schemars::{JsonSchema, Schema};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Bucket, Caller};

/// Most bytes of parameters, unless a service says otherwise.
pub const DEFAULT_MAX_PARAMS: usize = 1 << 20;
/// Most bytes of a result. Leaves room for the envelope in a frame of 4 MiB.
pub const MAX_RESULT: usize = (4 << 20) - (64 << 10);
/// How long a service may take, unless it says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Who asks, for a handler.
#[derive(Clone)]
pub struct Context {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// W3C trace context, if the plugin gave one. Not validated.
    pub trace: Option<Arc<str>>,
}

impl Context {
    /// Who asks.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        self.caller.principal()
    }

    /// Which instance asks, if it is a plugin.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        self.caller.instance()
    }

    /// The hop count of an event that the asker publishes now.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.caller.hops()
    }
}

/// The right that a request takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The kind of right.
    pub kind: Kind,
    /// On what; a scope, where it is on everything that the scope covers.
    pub target: String,
    every: bool,
}

impl Need {
    /// A right of `kind` on `target`.
    pub fn new(kind: Kind, target: impl Into<String>) -> Self {
        Self { kind, target: target.into(), every: false }
    }

    /// A right of `kind` that covers everything which the scope covers: `storage.kv` on `notes/*`.
    /// Forbids are no part of this, since a scope may lie partly within one; the service holds them
    /// against each thing that it gives.
    pub fn every(kind: Kind, scope: impl Into<String>) -> Self {
        Self { kind, target: scope.into(), every: true }
    }

    /// Whether it is on everything that a scope covers.
    #[must_use]
    pub fn is_every(&self) -> bool {
        self.every
    }

    /// The access to decide about.
    #[must_use]
    pub fn access(&self) -> Access<'_> {
        Access::new(self.kind, &self.target)
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.target)
    }
}

/// How a plugin reaches a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// As a method of the protocol.
    Method,
    /// As `host.call` with the service's name.
    HostCall,
}

type Handler<P> =
    Arc<dyn Fn(Context, P) -> BoxFuture<'static, Result<Payload, Failure>> + Send + Sync>;
type Needs<P> = Arc<dyn Fn(&P) -> Vec<Need> + Send + Sync>;

/// What a service is, for the reference and for reports.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// How a plugin reaches it.
    pub reach: Reach,
    /// What it does.
    pub description: String,
    /// The right that it takes, in words; empty: none.
    pub capability: String,
    /// Whether doing it twice is as good as once.
    pub idempotent: bool,
    /// How long it may take.
    pub deadline: Duration,
    /// Most bytes of parameters.
    pub max_params: usize,
    /// The rate that it counts against, besides that of requests.
    pub rate: Option<&'static str>,
    /// JSON Schema of the parameters.
    pub params: Schema,
    /// JSON Schema of the result.
    pub result: Schema,
}

/// A service with parameters of type `P`, to be registered.
pub struct Service<P> {
    info: ServiceInfo,
    rate: Option<Bucket>,
    coalesce: bool,
    needs: Needs<P>,
    /// The right, where it is the same whatever the parameters.
    fixed: Option<Need>,
    handler: Handler<P>,
}

/// A service whose parameter type is known only to its reader.
pub(crate) struct Registered {
    pub(crate) info: ServiceInfo,
    pub(crate) rate: Option<Bucket>,
    pub(crate) coalesce: bool,
    pub(crate) fixed: Option<Need>,
    pub(crate) read: Reader,
}

impl<P> Service<P>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
{
    /// A service of the application. Plugins call it as `host.call` with `method: name`, and need the
    /// right `host.call:name` unless [`Service::capability`] says otherwise.
    #[must_use]
    pub fn new<R, F, Fut>(name: impl Into<String>, handler: F) -> Self
    where
        R: Serialize + JsonSchema + Send + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let name = name.into();
        let capability = format!("host.call:{name}");
        let need = Some(Need::new(Kind::HostCall, name.clone()));
        Self::make(name, Reach::HostCall, capability, need, handler)
    }

    /// A service that is a method of the protocol itself (`log`, `event.publish`). Takes no right
    /// unless [`Service::capability`] names one.
    #[must_use]
    pub fn method<R, F, Fut>(name: impl Into<String>, handler: F) -> Self
    where
        R: Serialize + JsonSchema + Send + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        Self::make(name.into(), Reach::Method, String::new(), None, handler)
    }

    fn make<R, F, Fut>(
        name: String,
        reach: Reach,
        capability: String,
        fixed: Option<Need>,
        handler: F,
    ) -> Self
    where
        R: Serialize + JsonSchema + Send + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let handler = Arc::new(move |cx: Context, params: P| {
            let running = handler(cx, params);
            let boxed: BoxFuture<'static, _> = Box::pin(async move { to_payload(&running.await?) });
            boxed
        });
        let info = ServiceInfo {
            name,
            reach,
            description: String::new(),
            capability,
            idempotent: false,
            deadline: DEFAULT_DEADLINE,
            max_params: DEFAULT_MAX_PARAMS,
            rate: None,
            params: schemars::schema_for!(P),
            result: schemars::schema_for!(R),
        };
        let same = fixed.clone();
        let needs: Needs<P> = Arc::new(move |_| same.iter().cloned().collect());
        Self { info, rate: None, coalesce: false, needs, fixed, handler }
    }

    /// Says what it does, for the reference.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.info.description = description.into();
        self
    }

    /// Computes the right that a request takes from its parameters; `None`: none. `in_words` is what
    /// the reference shows, `event.publish:SUBJECT` say.
    #[must_use]
    pub fn capability(
        self,
        in_words: impl Into<String>,
        needs: impl Fn(&P) -> Option<Need> + Send + Sync + 'static,
    ) -> Self {
        self.capabilities(in_words, move |params| needs(params).into_iter().collect())
    }

    /// As [`Service::capability`], for requests that take several rights: each must be allowed, and the
    /// record names the first.
    #[must_use]
    pub fn capabilities(
        mut self,
        in_words: impl Into<String>,
        needs: impl Fn(&P) -> Vec<Need> + Send + Sync + 'static,
    ) -> Self {
        self.info.capability = in_words.into();
        self.needs = Arc::new(needs);
        self.fixed = None;
        self
    }

    /// Says that doing it twice is as good as once. When a deadline passes, the asker is told then
    /// that it may simply ask again.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.info.idempotent = true;
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.info.deadline = deadline;
        self
    }

    /// Most bytes of parameters.
    #[must_use]
    pub fn max_params(mut self, bytes: usize) -> Self {
        self.info.max_params = bytes;
        self
    }

    /// Takes a token from this bucket too, besides the one for requests.
    #[must_use]
    pub fn rate(mut self, bucket: Bucket) -> Self {
        self.info.rate = Some(bucket.as_str());
        self.rate = Some(bucket);
        self
    }

    /// Lets the record count repetitions within a second instead of writing each.
    #[must_use]
    pub fn coalesce(mut self) -> Self {
        self.coalesce = true;
        self
    }

    /// The name and how it is reached.
    pub(crate) fn key(&self) -> (Reach, String) {
        (self.info.reach, self.info.name.clone())
    }

    /// Takes the parameter type away: what is left reads parameters and gives what the gate needs.
    pub(crate) fn erase(self) -> Registered {
        let Self { info, rate, coalesce, needs, fixed, handler } = self;
        let (shape, max) = (Shape::of(&info.params), info.max_params);
        let read: Reader = Box::new(move |payload| {
            let params: P = read_params(payload, max, &shape)?;
            let needs = needs(&params);
            let handler = Arc::clone(&handler);
            Ok(Prepared { needs, run: Box::new(move |cx| handler(cx, params)) })
        });
        Registered { info, rate, coalesce, fixed, read }
    }
}

/// A request whose parameters were read.
pub(crate) struct Prepared {
    pub(crate) needs: Vec<Need>,
    pub(crate) run: Box<dyn FnOnce(Context) -> BoxFuture<'static, Result<Payload, Failure>> + Send>,
}

/// Reads the parameters of one service.
pub(crate) type Reader = Box<dyn Fn(&Payload) -> Result<Prepared, Failure> + Send + Sync>;

fn to_payload<R: Serialize>(result: &R) -> Result<Payload, Failure> {
    let payload = Payload::json(result).map_err(|e| {
        Failure::new(ErrorCode::Internal, format!("the result cannot be written as JSON: {e}"))
    })?;
    if payload.len() > MAX_RESULT {
        let message = format!("the result has {} bytes, more than {MAX_RESULT}", payload.len());
        return Err(Failure::new(ErrorCode::LimitExceeded, message).hint("ask for less at a time"));
    }
    Ok(payload)
}

/// What a schema says about the top level of the parameters.
struct Shape {
    /// An object: `null` is read as `{}`.
    object: bool,
    /// The only names that may stand there, where the schema alone would let others pass.
    known: Option<Vec<String>>,
}

impl Shape {
    /// Types without `#[serde(deny_unknown_fields)]` would drop what they do not know in silence; the
    /// names are checked here then. A schema that is composed (flattened, tagged enums) or says itself
    /// what else may stand there is left to serde.
    fn of(schema: &Schema) -> Self {
        let is = |key: &str| schema.get(key).is_some();
        let object = schema.get("type").and_then(|t| t.as_str()) == Some("object");
        let composed = ["allOf", "anyOf", "oneOf", "$ref", "additionalProperties"]
            .into_iter()
            .chain(["patternProperties", "unevaluatedProperties"])
            .any(is);
        let names = || {
            let properties = schema.get("properties").and_then(|p| p.as_object());
            properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
        };
        Self { object, known: (object && !composed).then(names) }
    }
}

/// Reads the parameters, or says which one does not fit.
fn read_params<P: DeserializeOwned>(
    payload: &Payload,
    max: usize,
    shape: &Shape,
) -> Result<P, Failure> {
    let invalid = |message: String| Failure::new(ErrorCode::InvalidParams, message);
    if payload.encoding() != Encoding::Json {
        return Err(invalid("parameters are JSON".into()));
    }
    if payload.len() > max {
        let message = format!("parameters have {} bytes, at most {max} are taken", payload.len());
        return Err(Failure::new(ErrorCode::LimitExceeded, message).hint("send less at a time"));
    }
    let bytes: &[u8] = match payload.bytes().trim_ascii() {
        b"" | b"null" if shape.object => b"{}",
        other => other,
    };
    let params = serde_json::from_slice(bytes).map_err(|_| invalid(misfit::<P>(bytes)))?;
    if let Some(known) = &shape.known {
        let keys: Keys =
            serde_json::from_slice(bytes).map_err(|e| invalid(escape(&e.to_string(), 400)))?;
        if let Some(stray) = keys.0.iter().find(|key| !known.contains(key)) {
            let message = format!("unknown parameter {}", escape(stray, 80));
            let failure = invalid(message);
            return Err(match nearest(stray, known.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure.hint(format!("it takes: {}", known.join(", "))),
            });
        }
    }
    Ok(params)
}

/// Reads again, slowly, to name the field that does not fit.
fn misfit<P: DeserializeOwned>(bytes: &[u8]) -> String {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let error = match serde_path_to_error::deserialize::<_, P>(&mut json) {
        Ok(_) => match json.end() {
            Ok(()) => return "the parameters do not fit".into(),
            Err(e) => e.to_string(),
        },
        Err(e) => match e.path().to_string().as_str() {
            "." => e.into_inner().to_string(),
            path => format!("parameter {path}: {}", e.inner()),
        },
    };
    escape(&error, 400)
}

/// The names at the top level of a JSON object.
struct Keys(Vec<String>);

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, serde::de::IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }

            // A struct may be given as an array of its fields in order; there are no names then.
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Keys, A::Error> {
                while let Some(serde::de::IgnoredAny) = seq.next_element()? {}
                Ok(Keys(Vec::new()))
            }
        }
        d.deserialize_any(Visitor)
    }
}
