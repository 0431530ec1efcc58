//! The kinds of capability: name, scope form, risk and point of enforcement of each, in one table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What shape the scope of a kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeForm {
    /// An absolute path, or one followed by `/**`.
    Path,
    /// `host:port`.
    Authority,
    /// A subject of dot-separated tokens with `*` and `>`.
    Subject,
    /// A name, a prefix with a trailing `*`, or `*`.
    Name,
}

impl ScopeForm {
    /// The form in words, for error messages.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Path => "an absolute path, or a folder followed by /**",
            Self::Authority => "host:port, where the host may begin with *. and the port may be *",
            Self::Subject => {
                "a subject like a.b.c, where * stands for one token and a last > for one or more"
            }
            Self::Name => "a name, a prefix followed by *, or *",
        }
    }
}

/// Who makes a kind of capability true. A backend or host without that point refuses the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// The wall: what is not mounted, passed or set at launch does not exist inside.
    Mount,
    /// The gate: each request is decided by the broker.
    Broker,
    /// The egress guard: each connection is decided there.
    Egress,
    /// Linking: an ungranted import does not exist for the module.
    Link,
    /// Registration: an undeclared contribution is not registered.
    Registration,
}

impl Enforcement {
    /// The name used in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Broker => "broker",
            Self::Egress => "egress",
            Self::Link => "link",
            Self::Registration => "registration",
        }
    }
}

/// How much harm a right can do in the wrong hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// The plugin's own things only.
    Low,
    /// Can read or change something of the user's, within a scope.
    Medium,
    /// Can leak or destroy what the user values.
    High,
    /// Amounts to trusting the plugin.
    Critical,
}

impl Risk {
    /// One step up, at most [`Risk::Critical`].
    #[must_use]
    pub const fn raised(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }

    /// The name used in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $form:ident, $risk:ident, $enforcement:ident, $what:literal; )*) => {
        /// What a capability allows. The text form is the part before the `:`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Kind { $( $(#[$doc])* $variant, )* }

        impl Kind {
            /// Every kind, in the order of the reference.
            pub const ALL: &'static [Kind] = &[ $( Kind::$variant, )* ];

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $( Kind::$variant => $name, )* } }

            /// The form of the kind's scopes.
            #[must_use]
            pub const fn scope_form(self) -> ScopeForm { match self { $( Kind::$variant => ScopeForm::$form, )* } }

            /// How much harm the kind can do within a narrow scope.
            #[must_use]
            pub const fn risk(self) -> Risk { match self { $( Kind::$variant => Risk::$risk, )* } }

            /// Who makes it true.
            #[must_use]
            pub const fn enforcement(self) -> Enforcement { match self { $( Kind::$variant => Enforcement::$enforcement, )* } }

            /// What it allows, in words that end a sentence beginning "may".
            #[must_use]
            pub const fn in_words(self) -> &'static str { match self { $( Kind::$variant => $what, )* } }

            /// The kind with this name. Exact: kinds are lower case.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> { match name { $( $name => Some(Kind::$variant), )* _ => None } }
        }
    };
}

kinds! {
    /// Read files.
    FsRead = "fs.read", Path, Medium, Mount, "read files";
    /// Read, create, change and delete files.
    FsWrite = "fs.write", Path, High, Mount, "read, change and delete files";
    /// HTTP requests through the egress guard.
    NetHttp = "net.http", Authority, Medium, Egress, "make HTTP requests";
    /// TCP connections through the egress guard.
    NetTcp = "net.tcp", Authority, High, Egress, "open TCP connections";
    /// Receive events.
    EventSubscribe = "event.subscribe", Subject, Low, Broker, "receive events";
    /// Publish events.
    EventPublish = "event.publish", Subject, Medium, Broker, "publish events";
    /// The plugin's own key-value storage.
    StorageKv = "storage.kv", Name, Low, Broker, "keep data of its own";
    /// Read from a database.
    DbRead = "db.read", Name, Medium, Broker, "read from a database";
    /// Write to a database.
    DbWrite = "db.write", Name, High, Broker, "write to a database";
    /// See an environment variable of the host.
    Env = "env", Name, Medium, Mount, "see environment variables";
    /// Be given a secret.
    Secret = "secret", Name, High, Broker, "use secrets";
    /// Start a program of the host's inside the plugin's walls.
    Exec = "exec", Path, Medium, Mount, "run a program of this machine inside its walls";
    /// Use a device node.
    Device = "device", Path, High, Mount, "use a device";
    /// Use a GPU.
    Gpu = "gpu", Name, High, Mount, "use a GPU";
    /// Receive video or audio frames.
    FramesIn = "frames.in", Name, Medium, Broker, "receive frames";
    /// Hand over video or audio frames.
    FramesOut = "frames.out", Name, Low, Broker, "hand over frames";
    /// Call a service that the application offers.
    HostCall = "host.call", Name, Medium, Broker, "call the application's services";
    /// Call another plugin.
    PluginCall = "plugin.call", Name, Medium, Broker, "call other plugins";
    /// Offer a tool.
    Tool = "tool", Name, Low, Registration, "offer tools";
    /// Offer a command.
    Command = "command", Name, Low, Registration, "offer commands";
    /// Offer a channel.
    Channel = "channel", Name, Low, Registration, "offer channels";
    /// Offer a service.
    Service = "service", Name, Low, Registration, "offer services";
    /// Take part in a hook.
    Hook = "hook", Name, Medium, Registration, "take part in hooks";
    /// Ask an MCP client's model to complete text.
    McpSampling = "mcp.sampling", Name, High, Broker, "ask the client's model";
    /// Ask an MCP client's user for input.
    McpElicitation = "mcp.elicitation", Name, High, Broker, "ask the client's user for input";
    /// Learn an MCP client's roots.
    McpRoots = "mcp.roots", Name, Low, Broker, "learn the client's root folders";
}

impl Kind {
    /// Whether a wider scope of this kind is a greater risk. Where the plugin can only reach its own
    /// things, it is not.
    #[must_use]
    pub const fn scope_matters(self) -> bool {
        !matches!(
            self,
            Self::StorageKv
                | Self::Tool
                | Self::Command
                | Self::Channel
                | Self::Service
                | Self::FramesOut
                | Self::McpSampling
                | Self::McpElicitation
                | Self::McpRoots
        )
    }

    /// The kind whose name is nearest to `given`, if one is within three edits.
    #[must_use]
    pub fn nearest(given: &str) -> Option<&'static str> {
        crate::text::nearest(given, Self::ALL.iter().map(|k| k.as_str()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("unknown capability kind"))
    }
}
