//! Capabilities and quantities in words. Everything here is safe to show.

use std::time::Duration;

use palisade_model::{Capability, Guarantee, Level, Limits, Risk, capability::Scope, text::escape};

use crate::terminal::Paint;

/// Longest scope that is shown, in characters.
const MAX_SCOPE: usize = 300;

/// What a right allows, as the end of a sentence that begins "may".
pub(crate) fn right(capability: &Capability) -> String {
    let scope = escape(&capability.scope().to_string(), MAX_SCOPE);
    let on = match capability.scope() {
        Scope::Path(path) if path.path() == "/" && path.covers_below() => {
            "anywhere on this machine".to_owned()
        }
        Scope::Path(path) if path.covers_below() => {
            format!("in {} and below", escape(path.path(), MAX_SCOPE))
        }
        Scope::Path(_) => scope,
        Scope::Authority(_) => format!("to {scope}"),
        Scope::Subject(_) => format!("of the subject {scope}"),
        Scope::Name(_) if scope == "*" => "of any name".to_owned(),
        Scope::Name(_) => format!("called {scope}"),
    };
    format!("{}: {on}", capability.kind().in_words())
}

/// A right as it is written, safe to show.
pub(crate) fn written(capability: &Capability) -> String {
    escape(&capability.to_string(), MAX_SCOPE)
}

/// The risk, coloured.
pub(crate) fn risk(risk: Risk, paint: Paint) -> String {
    match risk {
        Risk::Low => paint.good(risk),
        Risk::Medium => paint.warn(risk),
        Risk::High | Risk::Critical => paint.bad(risk),
    }
}

/// How firmly something holds, coloured; padded to the longest.
pub(crate) fn level(level: Level, paint: Paint) -> String {
    let text = format!("{:<7}", level.as_str());
    match level {
        Level::Kernel => paint.good(text),
        Level::Policed => paint.warn(text),
        Level::None => paint.dim(text),
    }
}

/// What a guarantee means, in a few words.
pub(crate) fn guarantee(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::FsIsolated => "sees no files but its own and what is granted",
        Guarantee::NetIsolated => "reaches no address but through the host",
        Guarantee::IpcIsolated => "reaches no socket or shared memory of this machine",
        Guarantee::PeersIsolated => "neither sees nor signals other processes",
        Guarantee::SyscallsFiltered => "makes no system call that is not on a list",
        Guarantee::OwnUid => "has a user id of its own",
        Guarantee::PidsCapped => "cannot fill the machine with processes",
        Guarantee::MemoryCapped => "cannot use up memory",
        Guarantee::CpuCapped => "cannot use up the processors",
        Guarantee::DiskCapped => "cannot fill the disk",
        Guarantee::DiesWithHost => "does not outlive Palisade",
        Guarantee::OwnKernel => "runs on a kernel of its own",
        Guarantee::EngineWalled => "its engine stands behind walls too",
        Guarantee::NoJit => "cannot turn what it writes into code",
        _ => "",
    }
}

/// Bytes with a unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if count >= size {
            let tenths = count.saturating_mul(10) / size;
            let (whole, rest) = (tenths / 10, tenths % 10);
            return if rest == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{rest} {unit}")
            };
        }
    }
    format!("{count} B")
}

/// A span of time with a unit: microseconds below a millisecond.
pub(crate) fn time(span: Duration) -> String {
    if span < Duration::from_millis(1) {
        format!("{} µs", span.as_micros())
    } else if span < Duration::from_secs(1) {
        format!("{:.1} ms", span.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

/// What a plugin may use, on one line.
pub(crate) fn limits(limits: &Limits) -> String {
    format!(
        "memory {}, cpu {}, processes {}, file handles {}, disk {}, log {}/s, a call {} s",
        bytes(limits.memory),
        limits.cpu,
        limits.pids,
        limits.files,
        bytes(limits.disk),
        bytes(limits.log_bytes_per_second),
        limits.call_timeout.as_secs_f64(),
    )
}

/// Seconds since 1970 as a date in UTC.
pub(crate) fn day(unix: u64) -> String {
    let (year, month, day) = palisade_audit::clock::civil(unix / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Seconds since 1970 as a date and time of day in UTC, to the minute.
pub(crate) fn date(unix: u64) -> String {
    let of_day = unix % 86_400;
    format!("{} {:02}:{:02} UTC", day(unix), of_day / 3600, of_day % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_a_date_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (1_795_209_157, "2026-11-20 21:12 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn every_form_of_scope_reads_as_a_sentence() {
        for (written, said) in [
            ("fs.read:/**", "read files: anywhere on this machine"),
            ("fs.read:/srv/texts/**", "read files: in /srv/texts and below"),
            ("fs.write:/srv/a", "read, change and delete files: /srv/a"),
            ("net.http:*.example.org", "make HTTP requests: to *.example.org"),
            ("event.publish:a.>", "publish events: of the subject a.>"),
            ("storage.kv:*", "keep data of its own: of any name"),
            ("secret:db", "use secrets: called db"),
        ] {
            let said_now = right(&written.parse().unwrap());
            assert!(said_now.starts_with(said), "{written}: {said_now}");
        }
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(128 << 20), "128 MiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(time(Duration::from_micros(420)), "420 µs");
        assert_eq!(time(Duration::from_millis(38)), "38.0 ms");
        assert_eq!(time(Duration::from_millis(1001)), "1.0 s");
    }

    #[test]
    fn every_guarantee_is_explained() {
        assert!(Guarantee::ALL.into_iter().all(|g| !guarantee(g).is_empty()));
    }
}
