//! What the walls refused, in words: what, how often, and which grant would allow it.

use std::path::Path;

use palisade_model::{Capability, Kind, text::escape};
use palisade_sandbox::observe::{Found, Outcome, PathAccess, Subject};
use serde::Serialize;

use crate::{
    noise,
    tally::{Entry, Seen},
};

/// Most characters of a path or text in a denial.
const MAX_SHOWN: usize = 400;
const ENOSYS: u16 = 38;

/// What has to be looked up outside the walls. Ask only when the program has ended: how long an answer
/// takes tells whether something is there.
pub struct World<'a> {
    /// What is at a path outside the walls, links followed.
    pub outside: &'a dyn Fn(&Path) -> Found,
    /// Why a right cannot be granted at all, or `None`.
    pub refuses: &'a dyn Fn(&Capability) -> Option<String>,
}

/// What would have to be done for a refused thing to go through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advice {
    /// This right allows it.
    Grant(Capability),
    /// Nothing does; says why.
    Nothing(String),
}

/// One refused thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// The path, address or arguments, escaped.
    pub what: String,
    /// What was to be done with it: `read`, `write`, `connect` …
    pub access: String,
    /// The system calls.
    pub calls: Vec<String>,
    /// What the walls had to say.
    pub answer: String,
    /// How often.
    pub count: u64,
    /// Larger: later.
    pub last: u64,
    /// What would allow it.
    pub advice: Advice,
    /// Runtimes look for it everywhere and do without it.
    pub probably_harmless: bool,
}

/// The refused things among what was seen: those that may be why something failed first, and of them the
/// latest first. What exists neither inside nor outside was not refused by anybody and is left out.
#[must_use]
pub fn denials(seen: &Seen, world: &World<'_>) -> Vec<Denial> {
    let mut all: Vec<Denial> = seen.entries.iter().filter_map(|e| denial(e, world)).collect();
    all.sort_by_key(|d| (d.probably_harmless, std::cmp::Reverse(d.last)));
    all
}

fn denial(entry: &Entry, world: &World<'_>) -> Option<Denial> {
    if entry.outcome.is_passed() {
        return None;
    }
    let (what, access, advice, probe) = match &entry.subject {
        Subject::Path { path, access, found, .. } => {
            let advice = about_path(path, *access, *found, entry.outcome, world)?;
            let what = escape(&path.to_string_lossy(), MAX_SHOWN);
            (what, access.as_str().to_owned(), advice, noise::is_probe(path, *access))
        }
        Subject::Address(address) => {
            let probe = address.port() == 53;
            (address.to_string(), "connect".to_owned(), about_address(entry, *address), probe)
        }
        Subject::Socket(name) => {
            let why = Advice::Nothing("sockets of the host are not shared".into());
            (escape(name, MAX_SHOWN), "connect".to_owned(), why, false)
        }
        Subject::Arguments(arguments) => {
            // Libraries try newer calls and fall back where they are absent.
            let probe = entry.outcome == Outcome::Refused(ENOSYS);
            (escape(arguments, MAX_SHOWN), "call".to_owned(), by_filter(), probe)
        }
    };
    Some(Denial {
        what,
        access,
        calls: entry.calls.iter().cloned().collect(),
        answer: answer(entry.outcome),
        count: entry.count,
        last: entry.last,
        advice,
        probably_harmless: probe && entry.outcome != Outcome::Killed,
    })
}

fn by_filter() -> Advice {
    Advice::Nothing("the system call filter refuses it to every plugin of this kind".into())
}

fn answer(outcome: Outcome) -> String {
    match outcome {
        Outcome::Passed => "allowed".into(),
        Outcome::NotThere => "not there inside".into(),
        Outcome::PartlyThere => "only some of what it holds is inside".into(),
        Outcome::ReadOnly => "read-only inside".into(),
        Outcome::NotExecutable => "not executable inside".into(),
        Outcome::Mode => "its mode bits keep the plugin's user out".into(),
        Outcome::NotGranted => "not granted".into(),
        Outcome::NoRoute => "no network leads there".into(),
        Outcome::Refused(errno) => format!("refused by the filter (errno {errno})"),
        Outcome::Killed => "the filter ends the process".into(),
    }
}

fn about_address(entry: &Entry, address: std::net::SocketAddr) -> Advice {
    if entry.outcome != Outcome::NoRoute {
        return by_filter();
    }
    let authority = address.to_string();
    match Capability::new(Kind::NetTcp, &authority) {
        Ok(right) => Advice::Grant(right),
        Err(_) => Advice::Nothing("it is no address that can be granted".into()),
    }
}

/// `None`: nothing was refused, for there is nothing outside either.
fn about_path(
    path: &Path,
    access: PathAccess,
    found: Found,
    outcome: Outcome,
    world: &World<'_>,
) -> Option<Advice> {
    match outcome {
        Outcome::Refused(_) | Outcome::Killed => return Some(by_filter()),
        Outcome::Mode => {
            let why =
                "the file's own mode bits keep the plugin's user out; change them, or its owner";
            return Some(Advice::Nothing(why.into()));
        }
        _ => {}
    }
    let outside = (world.outside)(path);
    let missing = matches!(outcome, Outcome::NotThere | Outcome::PartlyThere);
    if missing && access != PathAccess::Change && outside == Found::Nothing {
        return None;
    }
    let kind = if outside == Found::Nothing { found } else { outside };
    let wanted = match access {
        PathAccess::Connect => {
            return Some(Advice::Nothing("sockets of the host are not shared".into()));
        }
        PathAccess::Execute => right(Kind::Exec, path, false),
        PathAccess::Change => {
            let folder = path.parent()?;
            if outcome == Outcome::NotThere && (world.outside)(folder) != Found::Folder {
                return None;
            }
            right(Kind::FsWrite, folder, true)
        }
        _ if kind == Found::Other && path.starts_with("/dev") => right(Kind::Device, path, false),
        PathAccess::Write => right(Kind::FsWrite, path, kind == Found::Folder),
        PathAccess::Look | PathAccess::Read => right(Kind::FsRead, path, kind == Found::Folder),
    };
    Some(match wanted {
        None => Advice::Nothing("its path cannot be written as a capability".into()),
        Some(right) => match (world.refuses)(&right) {
            Some(why) => Advice::Nothing(why),
            None => Advice::Grant(right),
        },
    })
}

/// A right to a path, or to a folder with all that it holds.
pub(crate) fn right(kind: Kind, path: &Path, below: bool) -> Option<Capability> {
    let path = path.to_str()?;
    let scope = match (below, path) {
        (false, path) => path.to_owned(),
        (true, "/") => "/**".to_owned(),
        (true, path) => format!("{path}/**"),
    };
    let right = Capability::new(kind, &scope).ok()?;
    // A name that ends like a wildcard would mean more as a scope than it is.
    (right.path()?.path() == path && right.path()?.covers_below() == below).then_some(right)
}

#[cfg(test)]
mod tests {
    use palisade_sandbox::{Observation, Observer as _};

    use super::*;
    use crate::Tally;

    fn path(path: &str, access: PathAccess, outcome: Outcome) -> Observation {
        let subject =
            Subject::Path { path: path.into(), asked: None, access, found: Found::Nothing };
        Observation { call: "openat".into(), subject, outcome }
    }

    fn told(observations: Vec<Observation>) -> Vec<Denial> {
        let tally = Tally::of_denials();
        observations.into_iter().for_each(|o| tally.saw(o));
        let outside = |path: &Path| match path.to_str().unwrap() {
            "/etc/shadow" | "/etc/ld.so.preload" | "/usr/bin/git" => Found::File,
            "/srv" | "/srv/out" | "/home/ada" => Found::Folder,
            "/dev/kvm" => Found::Other,
            _ => Found::Nothing,
        };
        let refuses = |right: &Capability| {
            right.to_string().starts_with("fs.write:/plugin").then(|| "own".into())
        };
        denials(&tally.seen(), &World { outside: &outside, refuses: &refuses })
    }

    #[test]
    fn each_denial_names_the_right_that_would_allow_it() {
        use PathAccess::{Change, Connect, Execute, Look, Read};
        for (access, asked, outcome, advice) in [
            (Read, "/etc/shadow", Outcome::NotThere, Some("fs.read:/etc/shadow")),
            (Look, "/home/ada", Outcome::NotThere, Some("fs.read:/home/ada/**")),
            (Change, "/srv/out/new", Outcome::NotThere, Some("fs.write:/srv/out/**")),
            (Change, "/srv/new", Outcome::ReadOnly, Some("fs.write:/srv/**")),
            (Execute, "/usr/bin/git", Outcome::NotThere, Some("exec:/usr/bin/git")),
            (Read, "/home/ada", Outcome::PartlyThere, Some("fs.read:/home/ada/**")),
            (Read, "/dev/kvm", Outcome::NotThere, Some("device:/dev/kvm")),
            (Change, "/plugin/x", Outcome::ReadOnly, None),
            (Connect, "/srv", Outcome::NotThere, None),
            (Read, "/etc/shadow", Outcome::Mode, None),
        ] {
            let told = told(vec![path(asked, access, outcome)]);
            assert_eq!(told.len(), 1, "{asked}");
            let right = match &told[0].advice {
                Advice::Grant(right) => Some(right.to_string()),
                Advice::Nothing(_) => None,
            };
            assert_eq!(right.as_deref(), advice, "{access:?} {asked}");
        }
    }

    #[test]
    fn what_is_nowhere_was_refused_by_nobody() {
        let nowhere = path("/nowhere/x", PathAccess::Read, Outcome::NotThere);
        let no_folder = path("/nowhere/x", PathAccess::Change, Outcome::NotThere);
        assert_eq!(told(vec![nowhere, no_folder]), []);
    }

    #[test]
    fn the_latest_that_may_matter_stands_first() {
        let told = told(vec![
            path("/etc/shadow", PathAccess::Read, Outcome::NotThere),
            path("/usr/bin/git", PathAccess::Execute, Outcome::NotThere),
            path("/etc/ld.so.preload", PathAccess::Look, Outcome::NotThere),
        ]);
        let order: Vec<&str> = told.iter().map(|d| d.what.as_str()).collect();
        assert_eq!(order, ["/usr/bin/git", "/etc/shadow", "/etc/ld.so.preload"]);
        assert!(told[2].probably_harmless);
    }

    #[test]
    fn text_of_the_program_is_escaped() {
        let killed = Observation {
            call: "bpf".into(),
            subject: Subject::Arguments(String::new()),
            outcome: Outcome::Killed,
        };
        let told =
            told(vec![path("/srv/\u{1b}[2J", PathAccess::Change, Outcome::ReadOnly), killed]);
        assert_eq!(told[1].what, "/srv/\\u{1b}[2J");
        assert_eq!(told[0].calls, ["bpf"]);
        assert!(!told[0].probably_harmless);
    }
}
