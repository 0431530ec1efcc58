//! Reading a policy from TOML. Unknown keys are refused, and every error names its line and column.

use std::ops::Range;

use palisade_model::{
    Capability, Guarantee, GuaranteeSet, Level,
    capability::{PortPattern, Scope},
    text::{escape, nearest},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    Ceilings, MAX_FORBIDS, MAX_PLUGINS, MAX_POLICY_LEN, OperatorPolicy, PluginFloor, PolicyError,
};

const KEYS: [&str; 7] =
    ["floor", "plugins", "forbid", "allow-consent", "require-seal", "max", "backends"];
const PLUGIN_KEYS: [&str; 1] = ["floor"];
const MAX_KEYS: [&str; 7] =
    ["cpu", "memory", "pids", "files", "disk", "log-bytes-per-second", "rates"];
const RATE_KEYS: [&str; 3] = ["requests-per-second", "events-per-second", "calls-per-second"];

/// Reads the operator's policy. The empty text is the default policy.
///
/// # Errors
/// [`PolicyError`], with line and column of the first thing that does not fit.
pub fn parse(text: &str) -> Result<OperatorPolicy, PolicyError> {
    if text.len() > MAX_POLICY_LEN {
        return Err(PolicyError::TooLong { len: text.len() });
    }
    let reader = Reader { text };
    let document = DeTable::parse(text).map_err(|e| {
        let (line, column) = reader.position(e.span().map_or(0, |s| s.start));
        PolicyError::Syntax { line, column, message: escape(e.message(), 400) }
    })?;
    let mut policy = OperatorPolicy::default();
    for (key, value) in document.get_ref() {
        match key.get_ref().as_ref() {
            "floor" => policy.floor = reader.floor(value, "floor")?,
            "plugins" => policy.plugin_floors = reader.plugins(value)?,
            "forbid" => policy.forbids = reader.forbids(value)?,
            "allow-consent" => policy.allow_consent = reader.switch(value, "allow-consent")?,
            "require-seal" => policy.require_seal = reader.switch(value, "require-seal")?,
            "max" => policy.ceilings = reader.ceilings(value)?,
            "backends" => policy.backends = Some(reader.backends(value)?),
            other => return Err(reader.unknown(key.span(), other, "in the policy", &KEYS)),
        }
    }
    Ok(policy)
}

impl std::str::FromStr for OperatorPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        parse(text)
    }
}

struct Reader<'t> {
    text: &'t str,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl Reader<'_> {
    /// Line and column of a byte offset, both from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = before.get(line_start..).map_or(0, |l| l.chars().count()) + 1;
        (before.matches('\n').count() + 1, column)
    }

    fn bad(&self, at: Range<usize>, key: &str, why: impl Into<String>) -> PolicyError {
        let (line, column) = self.position(at.start);
        PolicyError::BadValue { line, column, key: key.to_owned(), why: why.into() }
    }

    fn unknown(
        &self,
        at: Range<usize>,
        given: &str,
        place: &'static str,
        known: &[&'static str],
    ) -> PolicyError {
        let (line, column) = self.position(at.start);
        PolicyError::UnknownKey {
            line,
            column,
            given: escape(given, 40),
            place,
            nearest: nearest(given, known.iter().copied()),
        }
    }

    fn table<'v, 't>(
        &self,
        value: &'v Value<'t>,
        key: &str,
    ) -> Result<&'v DeTable<'t>, PolicyError> {
        value.get_ref().as_table().ok_or_else(|| self.bad(value.span(), key, "a table is expected"))
    }

    fn switch(&self, value: &Value<'_>, key: &str) -> Result<bool, PolicyError> {
        let switch = value.get_ref().as_bool();
        switch.ok_or_else(|| self.bad(value.span(), key, "it is true or false"))
    }

    fn strings<'v>(
        &self,
        value: &'v Value<'_>,
        key: &str,
    ) -> Result<Vec<(&'v str, Range<usize>)>, PolicyError> {
        let list = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.bad(value.span(), key, "a list of strings is expected"))?;
        list.iter()
            .map(|item| {
                let text = item
                    .get_ref()
                    .as_str()
                    .ok_or_else(|| self.bad(item.span(), key, "a list of strings is expected"))?;
                Ok((text, item.span()))
            })
            .collect()
    }

    /// A table of guarantees; `path` is its place in the policy.
    fn floor(&self, value: &Value<'_>, path: &str) -> Result<GuaranteeSet, PolicyError> {
        let mut floor = GuaranteeSet::new();
        for (key, level) in self.table(value, path)? {
            let name = key.get_ref().as_ref();
            let Some(guarantee) = Guarantee::parse(name) else {
                let known = Guarantee::ALL.map(Guarantee::as_str);
                return Err(self.unknown(key.span(), name, "in floor: not a guarantee", &known));
            };
            let place = format!("{path}.{guarantee}");
            // Only a cap can be policed by sampling; everything else holds or does not.
            let is_cap = guarantee.as_str().ends_with("-capped");
            let level = match level.get_ref().as_str() {
                Some("kernel") => Level::Kernel,
                Some("policed") if is_cap => Level::Policed,
                Some("none") => Level::None,
                _ if is_cap => {
                    let why = "the level is \"kernel\", \"policed\" or \"none\"";
                    return Err(self.bad(level.span(), &place, why));
                }
                _ => {
                    let why = "it holds or does not: \"kernel\" or \"none\"";
                    return Err(self.bad(level.span(), &place, why));
                }
            };
            floor.raise(guarantee, level);
        }
        Ok(floor)
    }

    fn plugins(&self, value: &Value<'_>) -> Result<Vec<PluginFloor>, PolicyError> {
        let table = self.table(value, "plugins")?;
        if table.len() > MAX_PLUGINS {
            let why = format!("at most {MAX_PLUGINS} patterns are allowed");
            return Err(self.bad(value.span(), "plugins", why));
        }
        let mut floors = Vec::with_capacity(table.len());
        for (pattern, of_it) in table {
            let at = pattern.span();
            let pattern = pattern.get_ref().as_ref();
            // The pattern first: it is named in what is said of the rest.
            let mut rule =
                PluginFloor::of(pattern).map_err(|why| self.bad(at.clone(), "plugins", why))?;
            let path = format!("plugins.\"{pattern}\"");
            let mut floor = None;
            for (key, value) in self.table(of_it, &path)? {
                match key.get_ref().as_ref() {
                    "floor" => floor = Some(self.plugin_floor(value, &format!("{path}.floor"))?),
                    other => {
                        let place = "in what the policy says of a plugin";
                        return Err(self.unknown(key.span(), other, place, &PLUGIN_KEYS));
                    }
                }
            }
            rule.floor = floor
                .ok_or_else(|| self.bad(at, &path, "it has no floor, so it would be no rule"))?;
            floors.push(rule);
        }
        Ok(floors)
    }

    /// The floor of single plugins, which says something and only adds.
    fn plugin_floor(&self, value: &Value<'_>, path: &str) -> Result<GuaranteeSet, PolicyError> {
        let floor = self.floor(value, path)?;
        let table = self.table(value, path)?;
        if table.is_empty() {
            return Err(self.bad(value.span(), path, "it demands nothing, so it would be no rule"));
        }
        for (key, level) in table {
            if level.get_ref().as_str() == Some("none") {
                let place = format!("{path}.{}", key.get_ref());
                let why = "a plugin's floor only adds to the one of every plugin: \"none\" takes nothing away";
                return Err(self.bad(level.span(), &place, why));
            }
        }
        Ok(floor)
    }

    fn forbids(&self, value: &Value<'_>) -> Result<Vec<Capability>, PolicyError> {
        let list = self.strings(value, "forbid")?;
        if list.len() > MAX_FORBIDS {
            let why = format!("at most {MAX_FORBIDS} forbids are allowed");
            return Err(self.bad(value.span(), "forbid", why));
        }
        list.into_iter()
            .map(|(text, span)| {
                let rule: Capability = match text.parse() {
                    Ok(rule) => rule,
                    Err(e) => return Err(self.bad(span, "forbid", format!("{e}"))),
                };
                if leaves_port_out(&rule, text) {
                    let why = format!("a forbid names its port: {text}:* for every port");
                    return Err(self.bad(span, "forbid", why));
                }
                Ok(rule)
            })
            .collect()
    }

    fn backends(&self, value: &Value<'_>) -> Result<Vec<String>, PolicyError> {
        let mut names: Vec<String> = Vec::new();
        for (name, span) in self.strings(value, "backends")? {
            let fits = (1..=32).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !fits {
                let why = "a backend's name has 1 to 32 characters of a-z, 0-9 and '-'";
                return Err(self.bad(span, "backends", why));
            }
            if names.iter().any(|n| n == name) {
                return Err(self.bad(span, "backends", format!("{name} stands twice")));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn ceilings(&self, value: &Value<'_>) -> Result<Ceilings, PolicyError> {
        let mut max = Ceilings::default();
        for (key, value) in self.table(value, "max")? {
            match key.get_ref().as_ref() {
                "cpu" => max.cpu = Some(self.cpu(value)?),
                "memory" => max.memory = Some(self.size(value, "max.memory")?),
                "pids" => max.pids = Some(self.count(value, "max.pids")?),
                "files" => max.files = Some(self.count(value, "max.files")?),
                "disk" => max.disk = Some(self.size(value, "max.disk")?),
                "log-bytes-per-second" => {
                    max.log_bytes_per_second = Some(self.size(value, "max.log-bytes-per-second")?);
                }
                "rates" => {
                    for (key, value) in self.table(value, "max.rates")? {
                        let name = key.get_ref().as_ref();
                        let ceiling = match name {
                            "requests-per-second" => &mut max.requests_per_second,
                            "events-per-second" => &mut max.events_per_second,
                            "calls-per-second" => &mut max.calls_per_second,
                            _ => {
                                return Err(self.unknown(
                                    key.span(),
                                    name,
                                    "in max.rates",
                                    &RATE_KEYS,
                                ));
                            }
                        };
                        *ceiling = Some(self.count(value, &format!("max.rates.{name}"))?);
                    }
                }
                other => return Err(self.unknown(key.span(), other, "in max", &MAX_KEYS)),
            }
        }
        Ok(max)
    }

    fn cpu(&self, value: &Value<'_>) -> Result<f64, PolicyError> {
        let share = match value.get_ref() {
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            DeValue::Integer(_) => integer(value.get_ref()).map(|n| n.min(2000) as f64),
            _ => None,
        };
        share.filter(|s| (0.01..=1024.0).contains(s)).ok_or_else(|| {
            let why = "a share of CPUs from 0.01 to 1024 is expected; 1.0 is one whole core";
            self.bad(value.span(), "max.cpu", why)
        })
    }

    fn count(&self, value: &Value<'_>, key: &str) -> Result<u32, PolicyError> {
        integer(value.get_ref()).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(
            || self.bad(value.span(), key, format!("a number from 1 to {} is expected", u32::MAX)),
        )
    }

    fn size(&self, value: &Value<'_>, key: &str) -> Result<u64, PolicyError> {
        let bytes = match value.get_ref() {
            DeValue::String(text) => size_in_bytes(text),
            other => integer(other),
        };
        bytes.filter(|n| *n > 0).ok_or_else(|| {
            let why = "a size is expected: bytes as a number above 0, or text like \"512MiB\" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)";
            self.bad(value.span(), key, why)
        })
    }
}

/// Whether `text` means port 443 only because it names none. In a grant that is the narrow reading; a
/// forbid of a host that left every other port open would not be what anybody meant.
fn leaves_port_out(rule: &Capability, text: &str) -> bool {
    match rule.scope() {
        Scope::Authority(authority) => match authority.port() {
            PortPattern::Any => false,
            PortPattern::Exact(port) => !text.ends_with(&format!(":{port}")),
        },
        _ => false,
    }
}

/// An integer of TOML, in any of its bases.
fn integer(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(n) = value else { return None };
    u64::from_str_radix(n.as_str(), n.radix()).ok()
}

/// A whole number and a unit, binary (IEC 80000-13) or decimal.
fn size_in_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.strip_prefix(' ').unwrap_or(unit) {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
