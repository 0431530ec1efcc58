//! The small parts of a plugin: what is said about its tools, commands and hooks, and what their handlers
//! get and give.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use crate::{args, error::PalisadeError};

/// What a plugin says about a tool. A name alone is one too: `plugin.tool("greet", …)`.
#[derive(Clone, Debug)]
pub struct Tool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) input_schema: Value,
}

impl Tool {
    /// A tool, 1 to 128 characters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None, input_schema: json!({ "type": "object" }) }
    }

    /// With what it does.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// With a JSON Schema of its arguments. It is announced; the manifest's is the one that the host checks.
    #[must_use]
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = schema;
        self
    }

    /// With the JSON Schema of a type.
    #[cfg(feature = "schemars")]
    #[must_use]
    pub fn params<A: schemars::JsonSchema>(self) -> Self {
        let mut schema = schemars::schema_for!(A);
        // Neither is wanted in a manifest: the draft is the default one, the title a name of Rust's.
        schema.remove("$schema");
        schema.remove("title");
        self.input_schema(schema.into())
    }
}

impl From<&str> for Tool {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// What a plugin says about a command. A name alone is one too.
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
}

impl Command {
    /// A command, 1 to 128 characters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None }
    }

    /// With what it does.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }
}

impl From<&str> for Command {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A handler's place in a hook. A name alone is one too, with priority 50.
#[derive(Clone, Debug)]
pub struct Hook {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

impl Hook {
    /// A hook, at priority 50.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), priority: 50 }
    }

    /// Of several handlers for one hook the lower one comes first; 0 to 1000.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }
}

impl From<&str> for Hook {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// An event as it is delivered. A repeated delivery has the same `delivery`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// What it is about, as `chat.room1.message`.
    pub subject: String,
    /// Names the delivery.
    pub delivery: String,
    /// How many publishers in a row led to it.
    pub hops: u64,
    /// W3C trace context, where there is one.
    pub traceparent: Option<String>,
    pub(crate) data: Box<RawValue>,
}

impl Event {
    /// What came with it, as any type that it fits.
    ///
    /// # Errors
    /// `PAL-PARAMS` where it does not fit.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, PalisadeError> {
        args::read(self.data.get(), "data")
    }
}

/// What a command gives: an exit status and the text to show. A text alone and a status alone are one too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CommandResult {
    /// 0: done.
    pub status: u8,
    /// The text to show.
    pub output: String,
}

impl From<String> for CommandResult {
    fn from(output: String) -> Self {
        Self { status: 0, output }
    }
}

impl From<&str> for CommandResult {
    fn from(output: &str) -> Self {
        output.to_owned().into()
    }
}

impl From<u8> for CommandResult {
    fn from(status: u8) -> Self {
        Self { status, output: String::new() }
    }
}

impl From<()> for CommandResult {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// A pattern of subjects: `*` stands for one token, a last `>` for one or more.
#[derive(Clone, Debug)]
pub(crate) struct Subject(Vec<String>);

impl Subject {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let tokens: Vec<String> = text.split('.').map(str::to_owned).collect();
        let last = tokens.len() - 1;
        let is_valid = |(i, token): (usize, &String)| {
            token == "*"
                || (token == ">" && i == last)
                || (!token.is_empty()
                    && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-$/:=".contains(&b)))
        };
        tokens.iter().enumerate().all(is_valid).then_some(Self(tokens))
    }

    pub(crate) fn fits(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for pattern in &self.0 {
            match (pattern.as_str(), tokens.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (pattern, Some(token)) if pattern == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn subjects_fit_by_tokens() {
        let fits = |pattern: &str, subject: &str| Subject::parse(pattern).unwrap().fits(subject);
        assert!(fits("chat.>", "chat.a") && fits("chat.>", "chat.a.b") && fits(">", "x"));
        assert!(!fits("chat.>", "chat") && !fits("chat.>", "Chat.a"));
        assert!(fits("a.*.c", "a.b.c") && !fits("a.*.c", "a.b.d") && !fits("a.*", "a.b.c"));
        for wrong in ["", "a..b", ">.a", "a b", "ä", "a.*b"] {
            assert!(Subject::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[cfg(feature = "schemars")]
    #[test]
    fn a_type_gives_its_schema() {
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct Greet {
            #[serde(default)]
            _name: String,
        }
        let tool = Tool::new("greet").params::<Greet>();
        assert_eq!(
            tool.input_schema,
            json!({
                "type": "object", "additionalProperties": false,
                "properties": { "_name": { "type": "string", "default": "" } },
            })
        );
    }
}
