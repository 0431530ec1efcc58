//! Which right an import takes: the one table from interfaces to kinds of capability.
//!
//! The linker, `palisade check` and the reference ask here and nowhere else. What is not in the table is
//! unknown and is refused by name.

use palisade_model::{CapabilitySet, Kind};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// The version of `palisade:plugin` that this build knows.
pub const PLUGIN_VERSIONS: &[&str] = &["0.1.0"];

/// What an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is there for every component.
    Nothing,
    /// At least one right of one of these kinds. Without it nothing of the component runs. What exactly is
    /// allowed is decided at each use.
    Right(&'static [Kind]),
    /// Nothing, and it shows only what rights of these kinds grant; without any it is empty. For interfaces
    /// that compilers import into every program, whether it uses them or not.
    Shows(&'static [Kind]),
    /// It is never there.
    Refused,
    /// Nobody here knows it.
    Unknown,
}

impl Need {
    /// The kinds of right that it can use.
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Right(kinds) | Self::Shows(kinds) => kinds,
            Self::Nothing | Self::Refused | Self::Unknown => &[],
        }
    }

    /// Whether it can be had with `rights`.
    #[must_use]
    pub fn is_met(self, rights: &CapabilitySet) -> bool {
        match self {
            Self::Nothing | Self::Shows(_) => true,
            Self::Right(kinds) => kinds.iter().any(|kind| rights.of_kind(*kind).next().is_some()),
            Self::Refused | Self::Unknown => false,
        }
    }

    /// The name in `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Right(_) => "right",
            Self::Shows(_) => "shows",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl Serialize for Need {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("need", self.as_str())?;
        if !self.kinds().is_empty() {
            map.serialize_entry("kinds", self.kinds())?;
        }
        map.end()
    }
}

/// One row.
struct Row {
    /// `namespace:package`, or the module of a core module's import.
    package: &'static str,
    /// The interface, or the function of a core module's import; `*` is every one that no row before names.
    interface: &'static str,
    need: Need,
    why: &'static str,
}

const fn row(package: &'static str, interface: &'static str, need: Need, why: &'static str) -> Row {
    Row { package, interface, need, why }
}

const FILES: &[Kind] = &[Kind::FsRead, Kind::FsWrite];
const SOCKETS: &str = "names would be looked up and connections made outside of the guard: use wasi:http or palisade:plugin/http";
const GRANTED_FILES: &str = "shows only granted folders; without one there is nothing to open";

/// Interfaces of components.
const INTERFACES: &[Row] = &[
    row("palisade:plugin", "types", Need::Nothing, "types only"),
    row("palisade:plugin", "log", Need::Nothing, "the plugin's own log"),
    row("palisade:plugin", "clock", Need::Nothing, "what time it is"),
    row("palisade:plugin", "random", Need::Nothing, "random numbers"),
    row("palisade:plugin", "storage", Need::Right(&[Kind::StorageKv]), "the plugin's own storage"),
    row("palisade:plugin", "event-bus", Need::Right(&[Kind::EventPublish]), "events of its own"),
    row("palisade:plugin", "http", Need::Right(&[Kind::NetHttp]), "requests through the guard"),
    row(
        "palisade:plugin",
        "host-call",
        Need::Right(&[Kind::HostCall]),
        "the application's services",
    ),
    row(
        "palisade:plugin",
        "plugin-call",
        Need::Right(&[Kind::PluginCall]),
        "tools of other plugins",
    ),
    row("palisade:plugin", "secrets", Need::Right(&[Kind::Secret]), "secrets of the operator"),
    row("wasi:io", "*", Need::Nothing, "streams and waiting"),
    row("wasi:clocks", "*", Need::Nothing, "what time it is"),
    row("wasi:random", "*", Need::Nothing, "random numbers"),
    row(
        "wasi:cli",
        "environment",
        Need::Shows(&[Kind::Env]),
        "shows only granted variables, and no arguments",
    ),
    row("wasi:cli", "stdin", Need::Nothing, "is at its end"),
    row("wasi:cli", "stdout", Need::Nothing, "lines of the plugin's log"),
    row("wasi:cli", "stderr", Need::Nothing, "lines of the plugin's log"),
    row("wasi:cli", "exit", Need::Nothing, "ends the instance"),
    row("wasi:cli", "types", Need::Nothing, "types only"),
    row("wasi:cli", "terminal-input", Need::Nothing, "there is no terminal"),
    row("wasi:cli", "terminal-output", Need::Nothing, "there is no terminal"),
    row("wasi:cli", "terminal-stdin", Need::Nothing, "there is no terminal"),
    row("wasi:cli", "terminal-stdout", Need::Nothing, "there is no terminal"),
    row("wasi:cli", "terminal-stderr", Need::Nothing, "there is no terminal"),
    row("wasi:filesystem", "types", Need::Shows(FILES), GRANTED_FILES),
    row("wasi:filesystem", "preopens", Need::Shows(FILES), GRANTED_FILES),
    row("wasi:http", "types", Need::Nothing, "requests and answers as values"),
    row(
        "wasi:http",
        "outgoing-handler",
        Need::Right(&[Kind::NetHttp]),
        "requests through the guard",
    ),
    row("wasi:http", "client", Need::Right(&[Kind::NetHttp]), "requests through the guard"),
    row("wasi:sockets", "*", Need::Refused, SOCKETS),
];

/// Imports of core modules.
const MODULES: &[Row] = &[
    row(
        "extism:host/env",
        "http_request",
        // Kits import it into plugins that never call it.
        Need::Shows(&[Kind::NetHttp]),
        "requests through the guard, each with a right of its own",
    ),
    row(
        "extism:host/env",
        "*",
        Need::Nothing,
        "the plugin's own memory, input, output, variables and log",
    ),
    row("extism:host/user", "*", Need::Right(&[Kind::HostCall]), "the application's services"),
    row(
        "wasi_snapshot_preview1",
        "environ_get",
        Need::Shows(&[Kind::Env]),
        "shows only granted variables",
    ),
    row(
        "wasi_snapshot_preview1",
        "environ_sizes_get",
        Need::Shows(&[Kind::Env]),
        "shows only granted variables",
    ),
    row("wasi_snapshot_preview1", "fd_prestat_get", Need::Shows(FILES), GRANTED_FILES),
    row("wasi_snapshot_preview1", "fd_prestat_dir_name", Need::Shows(FILES), GRANTED_FILES),
    row("wasi_snapshot_preview1", "path_open", Need::Shows(FILES), GRANTED_FILES),
    row(
        "wasi_snapshot_preview1",
        "*",
        Need::Nothing,
        "streams, clocks, random numbers; files only through granted folders",
    ),
];

/// What an import needs, and why. `name` is as it stands in the component: `namespace:package/interface`,
/// with `@version` where it has one.
#[must_use]
pub fn of_import(name: &str) -> (Need, &'static str) {
    let Some(name) = Interface::parse(name) else {
        return (Need::Unknown, "it is no interface of a package that is known here");
    };
    let Some(row) = find(INTERFACES, name.package, name.interface) else {
        return (Need::Unknown, "no such interface is known here");
    };
    match (name.package, name.version) {
        ("palisade:plugin", Some(version)) if PLUGIN_VERSIONS.contains(&version) => {}
        ("palisade:plugin", _) => {
            return (Need::Unknown, "this build knows version 0.1.0 of palisade:plugin");
        }
        (_, Some(version)) if is_known_wasi(version) => {}
        _ => return (Need::Unknown, "of WASI the versions 0.2 and 0.3 are known here"),
    }
    (row.need, row.why)
}

/// What an import of a core module needs, and why.
#[must_use]
pub fn of_module_import(module: &str, name: &str) -> (Need, &'static str) {
    find(MODULES, module, name)
        .map_or((Need::Unknown, "no such import is known here"), |row| (row.need, row.why))
}

fn find(rows: &'static [Row], package: &str, interface: &str) -> Option<&'static Row> {
    rows.iter()
        .find(|row| row.package == package && (row.interface == interface || row.interface == "*"))
}

/// `0.2.0` and what came after it, and `0.3.0`; no drafts of either.
fn is_known_wasi(version: &str) -> bool {
    let Some(patch) = version.strip_prefix("0.2.").or_else(|| version.strip_prefix("0.3.")) else {
        return false;
    };
    !patch.is_empty() && patch.len() <= 4 && patch.bytes().all(|b| b.is_ascii_digit())
}

/// The parts of an interface's full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// `namespace:package`.
    pub package: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The version, without `@`.
    pub version: Option<&'a str>,
}

impl<'a> Interface<'a> {
    /// Takes a full name apart; `None` where it is none.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let (name, version) = match name.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (name, None),
        };
        let (package, interface) = name.split_once('/')?;
        let (namespace, short) = package.split_once(':')?;
        let word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        (word(namespace) && word(short) && word(interface)).then_some(Self {
            package,
            interface,
            version,
        })
    }

    /// Whether it is version 0.3 of WASI, which runs on the engine for concurrent components only.
    #[must_use]
    pub fn is_wasi_p3(&self) -> bool {
        self.package.starts_with("wasi:") && self.version.is_some_and(|v| v.starts_with("0.3."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_takes_the_right_of_its_family_and_nothing_else_does() {
        let need = |name| of_import(name).0;
        assert_eq!(need("palisade:plugin/storage@0.1.0"), Need::Right(&[Kind::StorageKv]));
        assert_eq!(need("palisade:plugin/log@0.1.0"), Need::Nothing);
        assert_eq!(need("wasi:http/outgoing-handler@0.2.4"), Need::Right(&[Kind::NetHttp]));
        assert_eq!(need("wasi:http/client@0.3.0"), Need::Right(&[Kind::NetHttp]));
        assert_eq!(need("wasi:filesystem/types@0.2.12"), Need::Shows(FILES));
        assert_eq!(need("wasi:sockets/tcp@0.2.0"), Need::Refused);
        assert_eq!(need("wasi:io/streams@0.2.6"), Need::Nothing);
    }

    #[test]
    fn what_only_looks_like_a_known_interface_is_unknown() {
        for name in [
            "palisade:plugin/log",
            "palisade:plugin/log@0.2.0",
            "palisade:plugin/log@0.1.0-rc",
            "palisade:plugin/logs@0.1.0",
            "palisade:plugins/log@0.1.0",
            "wasi:io/streams",
            "wasi:io/streams@0.2.0-rc-2023-11-10",
            "wasi:io/streams@1.0.0",
            "wasi:cli/run@0.2.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "log",
            "",
            "a/b",
        ] {
            assert_eq!(of_import(name).0, Need::Unknown, "{name}");
        }
        assert_eq!(of_module_import("env", "memory").0, Need::Unknown);
        assert_eq!(of_module_import("extism:host/env", "alloc").0, Need::Nothing);
        let http = of_module_import("extism:host/env", "http_request").0;
        assert_eq!(http, Need::Shows(&[Kind::NetHttp]));
    }

    #[test]
    fn a_right_of_the_kind_is_enough_and_none_is_not() {
        let set = |text: &str| -> CapabilitySet { [text.parse().unwrap()].into_iter().collect() };
        let need = of_import("palisade:plugin/http@0.1.0").0;
        assert!(need.is_met(&set("net.http:example.org:443")));
        assert!(!need.is_met(&set("storage.kv:*")));
        assert!(!need.is_met(&CapabilitySet::new()));
        assert!(
            !Need::Refused.is_met(&set("net.tcp:*:*"))
                && !Need::Unknown.is_met(&set("fs.read:/**"))
        );
    }
}
