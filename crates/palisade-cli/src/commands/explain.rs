//! `--explain`: what the walls refused, and which grant would allow it.

use std::{path::Path, sync::Arc};

use palisade_host::Plugin;
use palisade_learn::{Advice, Denial, Seen, Tally, World, denials};
use palisade_model::{Capability, CapabilitySet, Failure};
use palisade_sandbox::observe::Found;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use serde_json::json;

use crate::{
    cli::native::Explain,
    terminal::{self, Paint},
};

/// Most denials that are told one by one, and most of those that are probably harmless.
const MOST: usize = 40;
const MOST_HARMLESS: usize = 10;
/// Most denials in JSON.
const MOST_JSON: usize = 500;

/// Watches a plugin, where that was asked for.
pub(crate) struct Explaining(Option<(Arc<Tally>, Option<CapabilitySet>)>);

impl Explaining {
    /// From the next start of the plugin on. `by_manifest`: only what its manifest asks for can be granted.
    pub(crate) fn of(args: &Explain, plugin: &Plugin, by_manifest: bool) -> Result<Self, Failure> {
        if !args.explain {
            return Ok(Self(None));
        }
        let tally = Arc::new(Tally::of_denials());
        plugin.observe(Arc::clone(&tally) as _)?;
        let requested = plugin.manifest().requested();
        let mut asked = requested.required;
        asked.extend(requested.optional.iter().cloned());
        Ok(Self(Some((tally, by_manifest.then_some(asked)))))
    }

    /// Tells it: to people on stderr; as JSON one object a line on stdout. Call it when the plugin has ended.
    pub(crate) fn tell(&self, as_json: bool) {
        let Some((tally, asked)) = &self.0 else { return };
        let seen = tally.seen();
        let all = refused(&seen);
        if as_json {
            for denial in all.iter().take(MOST_JSON) {
                terminal::json_line(&to_json(denial));
            }
            let left_out = all.len().saturating_sub(MOST_JSON);
            terminal::json_line(&json!({
                "event": "explained", "denied": all.len(), "left_out": left_out,
                "not_kept": seen.dropped, "not_readable": seen.missed,
            }));
        } else {
            terminal::err(text(&all, &seen, asked.as_ref(), Paint::stderr()));
        }
    }
}

/// What is at a path of this machine. The path is the program's: nothing is mounted for its sake, and no
/// server is asked that the kernel need not ask.
fn outside(path: &Path) -> Found {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::TYPE) {
        Err(_) => Found::Nothing,
        Ok(found) => match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::RegularFile => Found::File,
            FileType::Directory => Found::Folder,
            _ => Found::Other,
        },
    }
}

/// What was refused, with what there is outside the walls looked up now.
pub(crate) fn refused(seen: &Seen) -> Vec<Denial> {
    let refuses = |right: &Capability| palisade_process::refuses(right);
    denials(seen, &World { outside: &outside, refuses: &refuses })
}

fn to_json(denial: &Denial) -> serde_json::Value {
    let (grant, why) = match &denial.advice {
        Advice::Grant(right) => (Some(right.to_string()), None),
        Advice::Nothing(why) => (None, Some(why.as_str())),
    };
    json!({
        "event": "denied", "what": denial.what, "access": denial.access, "calls": denial.calls,
        "answer": denial.answer, "count": denial.count, "grant": grant, "nothing_allows": why,
        "probably_harmless": denial.probably_harmless,
    })
}

/// The report for people. `asked`: what the manifest asks for, where there is one.
pub(crate) fn text(
    all: &[Denial],
    seen: &Seen,
    asked: Option<&CapabilitySet>,
    paint: Paint,
) -> String {
    let (harmless, told): (Vec<&Denial>, Vec<&Denial>) =
        all.iter().partition(|d| d.probably_harmless);
    let mut lines = Vec::new();
    if told.is_empty() {
        lines.push("the walls refused nothing that matters".to_owned());
    } else {
        lines.push(format!("{}, the latest first:", paint.bold("refused by the walls")));
    }
    for denial in told.iter().take(MOST) {
        lines.push(format!("  {}", one(denial)));
        lines.push(format!("    {}", advice(&denial.advice, asked)));
    }
    if told.len() > MOST {
        lines.push(format!("  … and {} more", told.len() - MOST));
    }
    if !harmless.is_empty() {
        let heading = format!("probably harmless ({} more):", harmless.len());
        lines.push(paint.dim(heading));
        for denial in harmless.iter().take(MOST_HARMLESS) {
            lines.push(paint.dim(format!("  {}", one(denial))));
        }
        if harmless.len() > MOST_HARMLESS {
            lines.push(paint.dim("  …"));
        }
    }
    if seen.dropped > 0 {
        lines.push(format!("{} further observations were not kept", seen.dropped));
    }
    if seen.missed > 0 {
        lines.push(format!("{} system calls could not be looked at", seen.missed));
    }
    lines.join("\n")
}

fn one(denial: &Denial) -> String {
    let times = if denial.count == 1 { String::new() } else { format!(", {} times", denial.count) };
    let calls = denial.calls.join(", ");
    match (denial.access.as_str(), denial.what.is_empty()) {
        ("call", true) => format!("{calls}: {}{times}", denial.answer),
        ("call", false) => format!("{calls}({}): {}{times}", denial.what, denial.answer),
        (access, _) => format!("{access} {}: {} ({calls}{times})", denial.what, denial.answer),
    }
}

fn advice(advice: &Advice, asked: Option<&CapabilitySet>) -> String {
    match advice {
        Advice::Nothing(why) => format!("nothing would allow this: {why}"),
        Advice::Grant(right) => {
            let option = palisade_policy::grant_option(right)
                .unwrap_or_else(|| "it cannot be written as an option".to_owned());
            match asked {
                Some(asked) if !asked.iter().any(|a| right.is_subset_of(a)) => {
                    format!("{option}, once the manifest asks for it")
                }
                _ => option,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(what: &str, advice: Advice, probably_harmless: bool) -> Denial {
        Denial {
            what: what.into(),
            access: "read".into(),
            calls: vec!["openat".into()],
            answer: "not there inside".into(),
            count: 2,
            last: 1,
            advice,
            probably_harmless,
        }
    }

    #[test]
    fn each_denial_is_told_with_its_grant_and_noise_apart() {
        let right: Capability = "fs.read:/srv/a b".parse().unwrap();
        let all = [
            denial("/srv/a b", Advice::Grant(right.clone()), false),
            denial("", Advice::Nothing("no".into()), false),
            denial("/etc/ld.so.preload", Advice::Nothing("no".into()), true),
        ];
        let asked: CapabilitySet = [right].into_iter().collect();
        let shown = text(&all, &Seen::default(), Some(&asked), Paint::NONE);
        assert_eq!(
            shown,
            "refused by the walls, the latest first:\n  \
             read /srv/a b: not there inside (openat, 2 times)\n    --grant 'fs.read:/srv/a b'\n  \
             read : not there inside (openat, 2 times)\n    nothing would allow this: no\n\
             probably harmless (1 more):\n  read /etc/ld.so.preload: not there inside (openat, 2 times)"
        );
        let not_asked = text(&all, &Seen::default(), Some(&CapabilitySet::new()), Paint::NONE);
        assert!(not_asked.contains("once the manifest asks for it"), "{not_asked}");
    }
}
