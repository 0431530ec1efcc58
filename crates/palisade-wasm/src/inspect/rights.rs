//! Which right an import takes: the one table from interfaces to kinds of capability.
//!
//! The linker, `palisade check` and the reference ask here and nowhere else. What is not in the table is
//! unknown and is refused by name.

mod table;

use palisade_model::{CapabilitySet, Kind};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

#[cfg(test)]
pub(crate) use table::MODULES;
pub(crate) use table::{INTERFACES, Versions};

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
    /// Nobody here knows it.
    Unknown,
}

impl Need {
    /// The kinds of right that it can use.
    #[must_use]
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Right(kinds) | Self::Shows(kinds) => kinds,
            Self::Nothing | Self::Unknown => &[],
        }
    }

    /// Those kinds for people: `net.tcp or net.http`.
    #[must_use]
    pub fn either(self) -> String {
        self.kinds().iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ")
    }

    /// Whether it can be had with `rights`.
    #[must_use]
    pub fn is_met(self, rights: &CapabilitySet) -> bool {
        match self {
            Self::Nothing | Self::Shows(_) => true,
            Self::Right(kinds) => kinds.iter().any(|kind| rights.of_kind(*kind).next().is_some()),
            Self::Unknown => false,
        }
    }

    /// The name in `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Right(_) => "right",
            Self::Shows(_) => "shows",
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

/// What an import needs, and why. `name` is as it stands in the component: `namespace:package/interface`,
/// with `@version` where it has one.
#[must_use]
pub fn of_import(name: &str) -> (Need, &'static str) {
    let Some(name) = Interface::parse(name) else {
        return (Need::Unknown, "it is no interface of a package that is known here");
    };
    let mut elsewhere: Option<Versions> = None;
    for row in INTERFACES.iter().filter(|row| row.is_about(name.package, name.interface)) {
        match name.generation() {
            Some(generation) if row.versions.contains(&generation) => return (row.need, row.why),
            _ => elsewhere = Some(row.versions),
        }
    }
    let why = match (elsewhere, name.package, name.generation()) {
        (None, ..) => "no such interface is known here",
        (_, "palisade:plugin", _) => "this build knows version 0.1.0 of palisade:plugin",
        (_, _, None) => "of WASI the versions 0.2 and 0.3 are known here",
        (Some(table::IN_2), ..) => "this interface is known here of WASI 0.2 only",
        (Some(table::IN_3), ..) => "this interface is known here of WASI 0.3 only",
        _ => "this version of the interface is not known here",
    };
    (Need::Unknown, why)
}

/// What an imported function of a core module needs, and why.
#[must_use]
pub fn of_module_import(module: &str, name: &str) -> (Need, &'static str) {
    let row = table::MODULES.iter().find(|row| row.are_about(module, name));
    row.map_or((Need::Unknown, "no such import is known here"), |row| (row.need, row.why))
}

/// `0.2` of `0.2.0` and what came after it, and so for `0.3`; nothing for drafts of either.
fn wasi_generation(version: &str) -> Option<&str> {
    let (generation, patch) = version.rsplit_once('.')?;
    let is_number = |text: &str| text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    (matches!(generation, "0.2" | "0.3") && !patch.is_empty() && is_number(patch))
        .then_some(generation)
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

    /// Its version as the table has it: that of `palisade:plugin` whole, that of WASI without its last number.
    /// Nothing for drafts, and where none stands there.
    fn generation(&self) -> Option<&'a str> {
        let version = self.version?;
        if self.package.starts_with("wasi:") { wasi_generation(version) } else { Some(version) }
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
        assert_eq!(need("wasi:filesystem/types@0.2.12"), Need::Shows(table::FILES));
        let network = Need::Right(&[Kind::NetTcp, Kind::NetHttp]);
        assert_eq!(need("wasi:sockets/tcp@0.2.0"), network);
        assert_eq!(need("wasi:sockets/types@0.3.0"), network);
        assert_eq!(need("wasi:sockets/network@0.2.0"), Need::Nothing);
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
            "wasi:clocks/timezone@0.2.0",
            "wasi:io/poll@0.3.0",
            "wasi:http/outgoing-handler@0.3.0",
            "wasi:http/client@0.2.0",
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
    fn an_interface_of_another_version_is_unknown_and_the_reason_says_of_which_it_is() {
        for (name, said) in [
            ("wasi:io/poll@0.3.0", "of WASI 0.2 only"),
            ("wasi:http/client@0.2.12", "of WASI 0.3 only"),
            ("wasi:random/random@0.4.0", "the versions 0.2 and 0.3"),
            ("wasi:random/random@0.3.0-rc-2026-01-01", "the versions 0.2 and 0.3"),
            ("palisade:plugin/log@0.2.0", "version 0.1.0 of palisade:plugin"),
            ("wasi:clocks/timezone@0.3.0", "no such interface"),
        ] {
            let (need, why) = of_import(name);
            assert!(need == Need::Unknown && why.contains(said), "{name}: {need:?}, {why}");
        }
    }

    #[test]
    fn a_right_of_the_kind_is_enough_and_none_is_not() {
        let set = |text: &str| -> CapabilitySet { [text.parse().unwrap()].into_iter().collect() };
        let need = of_import("palisade:plugin/http@0.1.0").0;
        assert!(need.is_met(&set("net.http:example.org:443")));
        assert!(!need.is_met(&set("storage.kv:*")));
        assert!(!need.is_met(&CapabilitySet::new()));
        assert!(!Need::Unknown.is_met(&set("fs.read:/**")));
    }
}
