//! `resources` and `guarantees`: how much the plugin needs, and how firm its walls must be.

use std::time::Duration;

use palisade_model::{Guarantee, GuaranteeSet, Level, text::nearest};

use super::reader::{Field, Reader};
use crate::{
    error::{Rule, quoted},
    manifest::Resources,
    tree::Value,
};

/// Least and most share of a CPU.
pub(crate) const CPU: (f64, f64) = (0.01, 1024.0);
/// Least memory.
pub(crate) const MIN_MEMORY: u64 = 4 << 20;
/// Most memory and most disk: 16 TiB.
pub(crate) const MAX_BYTES: u64 = 16 << 40;
/// Most processes: the most that Linux can count (PID_MAX_LIMIT, proc_sys_kernel(5)).
pub(crate) const MAX_PIDS: u32 = 4_194_304;
/// Least and most file handles (RLIMIT_NOFILE; the most is Linux's default fs.nr_open).
pub(crate) const FILES: (u32, u32) = (16, 1_048_576);
/// Longest timeout.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_hours(24);
/// Shortest and longest life.
pub(crate) const LIFETIME: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_hours(365 * 24));
/// Highest rate a second.
pub(crate) const MAX_RATE: u32 = 10_000_000;
/// Least and most log a second.
pub(crate) const LOG: (u64, u64) = (1 << 10, 1 << 30);

pub(super) fn read(field: &Field<'_>, reader: &mut Reader) -> Resources {
    let mut out = Resources::default();
    let Some(mut fields) = reader.fields(field) else { return out };
    out.cpu = fields.take("cpu").and_then(|f| reader.number(&f, CPU.0, CPU.1));
    out.memory = fields.take("memory").and_then(|f| reader.size(&f, MIN_MEMORY, MAX_BYTES));
    out.pids = fields.take("pids").and_then(|f| reader.whole32(&f, 1, MAX_PIDS));
    out.files = fields.take("files").and_then(|f| reader.whole32(&f, FILES.0, FILES.1));
    out.disk = fields.take("disk").and_then(|f| reader.size(&f, 0, MAX_BYTES));
    out.log_bytes_per_second = fields.take("log").and_then(|f| reader.size(&f, LOG.0, LOG.1));
    if let Some(field) = fields.take("timeouts")
        && let Some(mut times) = reader.fields(&field)
    {
        let mut timeout = |key| {
            times.take(key).and_then(|f| reader.duration(&f, Duration::from_millis(1), MAX_TIMEOUT))
        };
        out.start_timeout = timeout("start");
        out.call_timeout = timeout("call");
        out.stop_timeout = timeout("stop");
        out.max_lifetime =
            times.take("lifetime").and_then(|f| reader.duration(&f, LIFETIME.0, LIFETIME.1));
        times.finish(reader);
    }
    if let Some(field) = fields.take("rates")
        && let Some(mut rates) = reader.fields(&field)
    {
        let mut rate = |key| rates.take(key).and_then(|f| reader.rate(&f, 1, MAX_RATE));
        out.requests_per_second = rate("requests");
        out.events_per_second = rate("events");
        out.calls_per_second = rate("calls");
        rates.finish(reader);
    }
    fields.finish(reader);
    out
}

/// Whether a guarantee comes at levels; the others hold or do not.
pub(crate) fn has_levels(guarantee: Guarantee) -> bool {
    matches!(
        guarantee,
        Guarantee::PidsCapped
            | Guarantee::MemoryCapped
            | Guarantee::CpuCapped
            | Guarantee::DiskCapped
    )
}

pub(super) fn guarantees(field: &Field<'_>, reader: &mut Reader) -> GuaranteeSet {
    let mut out = GuaranteeSet::new();
    if matches!(field.node.value, Value::List(_)) {
        for item in reader.list(field, 64) {
            let Some(name) = reader.str(&item) else { continue };
            let Some(guarantee) = guarantee(name, &item, reader) else { continue };
            if out.level(guarantee) > Level::None {
                reader.wrong(Rule::Duplicate, &item, format!("{guarantee} stands twice"));
            }
            out.raise(guarantee, Level::Kernel);
        }
        return out;
    }
    let Some(fields) = reader.fields(field) else { return out };
    for (key, mut value) in fields.all() {
        let node = value.node;
        // The name is what is wrong, where something is wrong with the name.
        let at_key = crate::tree::Node { value: Value::Null, span: key.span };
        let place = Field { node: &at_key, path: value.path.clone() };
        let Some(guarantee) = guarantee(&key.text, &place, reader) else { continue };
        value.node = node;
        if let Some(level) = level(guarantee, &value, reader) {
            out.raise(guarantee, level);
        }
    }
    out
}

fn guarantee(name: &str, field: &Field<'_>, reader: &mut Reader) -> Option<Guarantee> {
    let found = Guarantee::parse(name);
    if found.is_none() {
        let names = Guarantee::ALL.iter().map(|g| g.as_str());
        let hint = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known: {}", names.collect::<Vec<_>>().join(", ")),
        };
        reader.wrong_hint(
            Rule::Guarantee,
            field,
            format!("{} is not a guarantee", quoted(name)),
            hint,
        );
    }
    found
}

fn level(guarantee: Guarantee, field: &Field<'_>, reader: &mut Reader) -> Option<Level> {
    match &field.node.value {
        Value::Bool(true) => Some(Level::Kernel),
        Value::Str(word) if word == "kernel" => Some(Level::Kernel),
        Value::Str(word) if word == "policed" && has_levels(guarantee) => Some(Level::Policed),
        Value::Str(word) if word == "policed" => {
            reader.wrong_hint(
                Rule::Guarantee,
                field,
                format!("{guarantee} holds or does not, it cannot be policed"),
                "write true",
            );
            None
        }
        Value::Bool(false) => {
            reader.wrong_hint(
                Rule::Guarantee,
                field,
                "a manifest can only add guarantees, never take one away",
                "leave the line out",
            );
            None
        }
        _ => {
            let levels =
                if has_levels(guarantee) { "true, kernel or policed" } else { "true or kernel" };
            reader.wrong(Rule::Guarantee, field, format!("must be {levels}"));
            None
        }
    }
}
