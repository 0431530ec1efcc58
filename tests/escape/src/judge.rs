//! The host's judgement: what an attacker calls a success is one only where the host finds it so.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use palisade_process::Layer;
use serde_json::{Map, Value, json};

use crate::{
    attacker::Attempt,
    launch::Seen,
    scene::{Ground, Stage},
};

/// What the walls let happen on purpose, each with the bound that keeps it harmless. Anything else that
/// succeeds is an escape.
pub const CONTAINED: &[(u16, &str, &str)] = &[
    (6, "logs", "its own output pipe, which holds its own lines"),
    (27, "open-init", "a handle on its own pid 1 can only be waited for"),
    (32, "bind", "a name in its own network namespace; the host cannot connect to it"),
    (36, "inspector", "a port in its own network namespace; the host cannot connect to it"),
    (55, "wasm", "code made at run time stays behind the same walls; interpreters need it"),
    (36, "listen", "a port in its own network namespace; the host cannot connect to it"),
    (35, "netlink-route", "it shows the plugin's own, empty network namespace"),
    (39, "after-hello", INSIDE),
    (39, "hello-again", INSIDE),
    (39, "inside", INSIDE),
    (43, "raise-as", "memory is held by cgroup or samples, not by RLIMIT_AS"),
    (49, "clear-pdeathsig", "the pid namespace ends with its init, whatever its processes wish"),
    (49, "subreaper", "the pid namespace ends with its init, whoever reaps"),
    (53, "remap-pages", "an old call that the kernel carries out as mmap"),
    (55, "rwx", "code made at run time stays behind the same walls; interpreters need it"),
    (55, "wx", "code made at run time stays behind the same walls; interpreters need it"),
    (68, "bad-utf8-name", LEFT),
    (68, "bidi-name", LEFT),
    (68, "dash-name", LEFT),
    (68, "deep-tree", LEFT),
    (68, "envrc", LEFT),
    (68, "escape-name", LEFT),
    (68, "fifo", LEFT),
    (68, "git-hook", LEFT),
    (68, "newline-name", LEFT),
    (68, "shell-rc", LEFT),
    (68, "socket", LEFT),
    (68, "symlink-shadow", LEFT),
    (68, "symlink-up", LEFT),
];

const INSIDE: &str = "the handshake names the granted server, and the connection leads to its address; what that server does within the encryption for another name is not seen, and SECURITY.md says so";

const LEFT: &str = "it lies in the granted folder, belongs to the folder's owner, has no set-id bit, and its name is shown escaped";

/// Grants that an attempt needs beside its folders.
#[must_use]
pub fn grants(stage: &Stage, attempt: &Attempt) -> Vec<String> {
    let copy = match (attempt.number, attempt.variant.as_str()) {
        (12, name @ ("suid" | "sgid")) => name,
        (13, "file-caps") => "caps",
        _ => return Vec::new(),
    };
    // Granted for running, so that the set-id bits themselves are what is tried.
    let path = stage.privileged.as_ref().map(|folder| folder.join(copy));
    path.map(|p| format!("exec:{}", p.display())).into_iter().collect()
}

/// Parameters that differ from the usual ones.
#[must_use]
pub fn params(
    stage: &Stage,
    attempt: &Attempt,
    ground: &Ground,
    inside: bool,
) -> Map<String, Value> {
    let mut changed = Map::new();
    let mut put = |name: &str, value: Value| changed.insert(name.to_owned(), value);
    match (attempt.number, attempt.variant.as_str()) {
        // The protection that is promised: what is to be protected lies outside the grant. Inside of it
        // there are no protected names; see number 68.
        (4, _) if inside => {
            put("protected", json!(ground.outside.join(".claude/settings.json")));
        }
        (57, "auxv" | "exe-path" | "maps") => {
            let base = stage.base.path().file_name().unwrap_or_default().to_string_lossy();
            put("forbidden_values", json!([base]));
        }
        (57, "uname") => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            put("forbidden_values", json!([name]));
        }
        (57, "passwd") => {
            put("forbidden_values", json!(["root:", "daemon:", "nogroup:"]));
        }
        (57, "cgroup") => {
            put("forbidden_values", json!(["palisade-escape-"]));
        }
        (68, "deep-tree") => {
            put("count", json!(500));
        }
        _ => {}
    }
    changed
}

/// Beginning of a detail that the host's own look gave.
pub const HOST_FINDS: &str = "the host finds:";

/// What the host watches while an attempt is made.
pub struct Watch {
    visits: usize,
    prober: Option<(Arc<AtomicBool>, JoinHandle<bool>)>,
    services: Arc<std::sync::atomic::AtomicUsize>,
}

impl Watch {
    /// Begins; may add parameters.
    pub fn begin(stage: &Stage, attempt: &Attempt, params: &mut Map<String, Value>) -> Self {
        let knock: Option<Box<dyn Fn() -> bool + Send>> =
            match (attempt.number, attempt.variant.as_str()) {
                (36, "listen") => free_port().map(|port| {
                    params.insert("listen_port".into(), json!(port));
                    Box::new(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
                        as Box<dyn Fn() -> bool + Send>
                }),
                (32, "bind") => {
                    let name = format!(
                        "palisade-escape-knock-{}-{}",
                        std::process::id(),
                        params.get("granted").map_or(0, |g| g.to_string().len())
                    );
                    params.insert("abstract_free".into(), json!(name));
                    Some(Box::new(move || {
                        SocketAddr::from_abstract_name(&name)
                            .and_then(|a| UnixStream::connect_addr(&a))
                            .is_ok()
                    }) as Box<dyn Fn() -> bool + Send>)
                }
                _ => None,
            };
        let prober = knock.map(|knock| {
            params.insert("hold_ms".into(), json!(400));
            let over = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&over);
            let thread = std::thread::spawn(move || {
                let mut reached = false;
                while !seen.load(Ordering::Relaxed) {
                    reached |= knock();
                    std::thread::sleep(Duration::from_millis(20));
                }
                reached
            });
            (over, thread)
        });
        Self {
            visits: stage.services.visits(),
            prober,
            services: Arc::clone(&stage.services.visits),
        }
    }

    /// Ends; what reached the host, if something did.
    #[must_use]
    pub fn end(self) -> Option<String> {
        if let Some((over, thread)) = self.prober {
            over.store(true, Ordering::Relaxed);
            if thread.join().unwrap_or(true) {
                return Some("the host reached the plugin's listener".into());
            }
        }
        let visits = self.services.load(Ordering::Relaxed) - self.visits;
        (visits > 0).then(|| format!("{visits} visits to the host's services"))
    }
}

/// A port at which nobody listens, and below those that the kernel gives to others meanwhile.
fn free_port() -> Option<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..1000).find_map(|_| {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + (std::process::id() * 61 + step) % 10_000).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    })
}

/// Outcome and detail of one attempt, after the host has looked at its side; `missing` is the layer that its walls
/// lacked.
#[must_use]
pub fn judge(
    stage: &Stage,
    attempt: &Attempt,
    ground: &Ground,
    seen: &Seen,
    reached: Option<String>,
    missing: Option<Layer>,
) -> (String, String) {
    if let Some(harm) = harm(stage, attempt, ground, reached) {
        return ("SUCCEEDED".into(), format!("{HOST_FINDS} {harm}"));
    }
    // In the host's own network nothing is bounded by having one's own.
    if missing == Some(Layer::NetworkNamespace) && matches!(attempt.number, 32 | 35 | 36) {
        return (seen.outcome(), seen.detail());
    }
    bounded(attempt, seen.outcome(), seen.detail())
}

/// What the host finds on its side that must not be; `reached` is what its services saw.
#[must_use]
pub fn harm(
    stage: &Stage,
    attempt: &Attempt,
    ground: &Ground,
    reached: Option<String>,
) -> Option<String> {
    reached
        .or_else(|| stage.victim_harmed())
        .or_else(|| ground.damage(&stage.secret))
        .or_else(|| if attempt.number == 68 { left_behind(ground) } else { None })
        .or_else(|| if attempt.number == 67 { core_file(ground) } else { None })
}

/// The outcome, or `contained` where what happened is allowed within a bound.
#[must_use]
pub fn bounded(attempt: &Attempt, outcome: String, detail: String) -> (String, String) {
    if outcome == "SUCCEEDED"
        && let Some((_, _, bound)) =
            CONTAINED.iter().find(|c| (c.0, c.1) == (attempt.number, attempt.variant.as_str()))
    {
        return ("contained".into(), format!("{bound}; {detail}"));
    }
    // A plugin may crash; it must not leave a core behind, nor feed one to a helper of the host.
    if (67, true) == (attempt.number, outcome.starts_with("ended:signal ")) {
        return ("contained".into(), format!("its own end; no core: {detail}"));
    }
    (outcome, detail)
}

/// What the host finds in the granted folder after number 68: files of somebody else, and names that would
/// reach a terminal as they are.
fn left_behind(ground: &Ground) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(&ground.granted).map_or(0, |m| m.uid());
    for entry in std::fs::read_dir(&ground.granted).into_iter().flatten().flatten() {
        let meta = entry.metadata().ok()?;
        if meta.uid() != owner {
            return Some(format!("a file of uid {} was left", meta.uid()));
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let shown = palisade_model::text::escape(&name, 200);
        if shown.chars().any(|c| c.is_control() || palisade_model::text::is_deceptive(c)) {
            return Some(format!("the name is shown as {shown:?}"));
        }
    }
    None
}

/// A core file in what the plugin may write.
fn core_file(ground: &Ground) -> Option<String> {
    [&ground.granted, &ground.data].into_iter().find_map(|folder| {
        let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .any(|e| e.file_name().to_string_lossy().starts_with("core"))
            .then(|| "a core file was written".to_owned())
    })
}
