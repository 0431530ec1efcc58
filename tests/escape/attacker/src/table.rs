//! The table of attempts and what each is given.
//!
//! Numbers are those of the escape catalogue; a variant is one way to make the attempt. The table
//! says how the positive control is run, so that the harness needs no list of its own.

use crate::outcome::{Attempted, Outcome, Verdict, blocked, impossible};
use crate::sys;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How the positive control (outside the walls) is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// As any user, with nothing prepared.
    Run,
    /// As root.
    Root,
    /// As an ordinary user (root would prove nothing), with the things that the parameters name.
    UserParams,
    /// With the things that the parameters name; the harness makes them.
    Params,
    /// As root, with the things that the parameters name.
    RootParams,
    /// The attacker starts a victim of its own; parameters may name another.
    Victim,
    /// The attacker makes namespaces of its own first, so that the machine stays whole. Root.
    Namespace,
    /// Route lookup only: nothing is sent.
    Route,
    /// fd 3 must be a socket whose other end the harness holds.
    Channel,
    /// There is none, or not on every machine: what is blocked outside too counts as impossible,
    /// for the reason given.
    None(&'static str),
}

impl Control {
    fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Root => "root",
            Self::UserParams => "user+params",
            Self::Params => "params",
            Self::RootParams => "root+params",
            Self::Victim => "own victim",
            Self::Namespace => "own namespaces, root",
            Self::Route => "route lookup only",
            Self::Channel => "channel",
            Self::None(_) => "none",
        }
    }
}

/// One way to make one attempt of the catalogue.
pub struct Attempt {
    pub number: u16,
    pub variant: &'static str,
    pub name: &'static str,
    pub control: Control,
    /// The positive control could hurt the machine: it answers `impossible` outside unless the
    /// parameters say `"really": true`, and is bounded even then.
    pub harmful: bool,
    /// Only the host can tell whether the goal was reached; `succeeded` then means that the
    /// attacker's part was carried out whole.
    pub host_judges: bool,
    /// Parameters that it reads; an `!` at the end marks those it cannot do without.
    pub params: &'static [&'static str],
    pub run: fn(&Ctx) -> Attempted,
}

impl Attempt {
    /// An attempt that is harmless outside and judged by the attacker itself.
    pub const fn new(
        number: u16,
        variant: &'static str,
        name: &'static str,
        control: Control,
        params: &'static [&'static str],
        run: fn(&Ctx) -> Attempted,
    ) -> Self {
        Self { number, variant, name, control, harmful: false, host_judges: false, params, run }
    }

    /// See the field.
    pub const fn harmful(mut self) -> Self {
        self.harmful = true;
        self
    }

    /// See the field.
    pub const fn host_judges(mut self) -> Self {
        self.host_judges = true;
        self
    }

    /// The row as the harness reads it.
    pub fn to_json(&self) -> Value {
        let mut row = json!({
            "number": self.number, "variant": self.variant, "name": self.name,
            "control": self.control.word(), "harmful": self.harmful,
            "judge": if self.host_judges { "host" } else { "attacker" },
            "params": self.params,
        });
        if let Control::None(why) = self.control {
            row["control_reason"] = json!(why);
        }
        row
    }

    /// Makes the attempt. Many change the process for good (roots, filters, limits, signals), so
    /// that a plugin process should be asked for one attempt only. Outside the walls it always runs in a watched child; inside it runs in
    /// the plugin process itself, unless the parameters say `"fork": true`.
    pub fn make(&self, ctx: &Ctx) -> Outcome {
        if (ctx.outside() || ctx.elsewhere) && self.harmful && !ctx.flag("really") {
            return impossible("harmful outside the walls; needs {\"really\":true}");
        }
        let attempt = || (self.run)(ctx).unwrap_or_else(|outcome| outcome);
        let limit = Duration::from_millis(ctx.num("timeout_ms", 60_000).clamp(100, 600_000));
        let outcome = if ctx.outside() || ctx.flag("fork") {
            sys::supervise(limit, attempt)
        } else {
            attempt()
        };
        if ctx.outside() { outside_view(self, outcome) } else { outcome }
    }
}

/// Outside the walls some errors only say that this kernel lacks the thing.
fn outside_view(attempt: &Attempt, outcome: Outcome) -> Outcome {
    if outcome.verdict != Verdict::Blocked {
        return outcome;
    }
    if let Control::None(why) = attempt.control {
        return impossible(format!("{why} (here: {})", outcome.describe()));
    }
    let fixed_path = matches!(attempt.control, Control::Run | Control::Root | Control::Victim);
    match outcome.errno {
        Some(libc::ENOENT) if fixed_path => {
            impossible(format!("not on this machine: {}", outcome.describe()))
        }
        None if attempt.number == 10 => {
            impossible(format!("not on this machine: {}", outcome.describe()))
        }
        Some(libc::ENOSYS | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => {
            impossible(format!("this kernel has it not: {}", outcome.describe()))
        }
        _ => outcome,
    }
}

impl Outcome {
    fn describe(&self) -> String {
        let errno = self.errno.map_or_else(|| "no errno".to_owned(), crate::outcome::errno_name);
        format!("{errno} {}", self.detail).trim_end().to_owned()
    }
}

/// What an attempt is given.
pub struct Ctx {
    pub params: Value,
    /// Run as `attacker attempt …`, not as a plugin.
    pub outside: bool,
    /// Run as `attacker attempt … --elsewhere`: within walls that are not Palisade's, which may be thinner.
    pub elsewhere: bool,
    /// fd 3, where it is a socket.
    pub channel: Option<i32>,
    /// Descriptors that came over the channel unasked.
    pub received: RefCell<Vec<i32>>,
    /// Bytes read from the channel and not yet handled.
    pub pending: RefCell<Vec<u8>>,
    /// The id of the call being answered.
    pub call_id: RefCell<Value>,
    /// Number and variant of the attempt being made.
    pub current: Cell<(u16, &'static str)>,
    /// The answer has been sent already.
    pub answered: Cell<bool>,
}

impl Ctx {
    /// For `attacker attempt` (outside) or for the plugin loop.
    pub fn new(params: Value, outside: bool, channel: Option<i32>) -> Self {
        Self {
            params,
            outside,
            elsewhere: false,
            channel,
            received: RefCell::default(),
            pending: RefCell::default(),
            call_id: RefCell::new(Value::Null),
            current: Cell::new((0, "")),
            answered: Cell::new(false),
        }
    }

    /// Outside the walls?
    pub fn outside(&self) -> bool {
        self.outside
    }

    /// A text parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }

    /// A text parameter without which the attempt cannot be made.
    pub fn need(&self, name: &str) -> Result<&str, Outcome> {
        self.text(name).ok_or_else(|| impossible(format!("parameter {name:?} is missing")))
    }

    /// A number, or its default.
    pub fn num(&self, name: &str, default: u64) -> u64 {
        self.params.get(name).and_then(Value::as_u64).unwrap_or(default)
    }

    /// A number without which the attempt cannot be made.
    pub fn need_num(&self, name: &str) -> Result<u64, Outcome> {
        let value = self.params.get(name).and_then(Value::as_u64);
        value.ok_or_else(|| impossible(format!("parameter {name:?} is missing")))
    }

    /// A switch, off by default.
    pub fn flag(&self, name: &str) -> bool {
        self.params.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A list of texts.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let list = self.params.get(name).and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// How much of something to take: the parameter, and outside the walls never more than
    /// `outside_max` unless `really` is said.
    pub fn amount(&self, name: &str, default: u64, outside_max: u64) -> u64 {
        let asked = self.num(name, default);
        if self.outside() && !self.flag("really") { asked.min(outside_max) } else { asked }
    }

    /// True where bytes that were read are the secret (any bytes, where none is named).
    pub fn is_secret(&self, bytes: &[u8]) -> bool {
        match self.text("secret") {
            Some(secret) if !secret.is_empty() => contains(bytes, secret.as_bytes()),
            _ => !bytes.is_empty(),
        }
    }

    /// A directory of our own to work in, fresh.
    pub fn scratch(&self) -> Result<Scratch, Outcome> {
        let named = [self.text("scratch"), self.text("granted")];
        for base in named.into_iter().flatten().chain(["/tmp", "/dev/shm", "/data", "."]) {
            let path = format!("{base}/attacker-{}-{}", sys::pid(), self.current.get().0);
            if std::fs::create_dir(&path).is_ok() {
                return Ok(Scratch { path, unmount: self.outside() });
            }
        }
        Err(impossible("no directory to work in"))
    }

    /// Answers the call now; the attempt goes on misbehaving afterwards.
    pub fn answer_early(&self, outcome: &Outcome) {
        if self.outside() || self.answered.replace(true) {
            return;
        }
        if self.elsewhere {
            println!("{}", crate::wire::answer_json(self, outcome));
        } else {
            crate::wire::answer(self, outcome);
        }
    }

    /// The channel, or the reason why there is none.
    pub fn need_channel(&self) -> Result<i32, Outcome> {
        self.channel.ok_or_else(|| impossible("fd 3 is not a socket"))
    }
}

/// A working directory that is removed at the end.
pub struct Scratch {
    pub path: String,
    /// A control may have mounted something on it (in its own mount namespace).
    pub unmount: bool,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.unmount {
            let _ = sys!(libc::SYS_umount2, sys::c(&self.path).as_ptr(), libc::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// True where `needle` occurs in `hay`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && hay.windows(needle.len()).any(|w| w == needle)
}

/// What several targets of one attempt came to: succeeds with the first success, otherwise the
/// errno of the last target that exists decides and the detail lists them all.
#[derive(Default)]
pub struct Tally {
    lines: Vec<String>,
    errno: Option<i32>,
    won: bool,
}

impl Tally {
    /// Records one target.
    pub fn add<T>(&mut self, target: &str, result: crate::outcome::Sys<T>) {
        match result {
            Ok(_) => self.win(target),
            Err(e) => {
                self.lines.push(format!("{target}={}", crate::outcome::errno_name(e.0)));
                if self.errno.is_none() || e.0 != libc::ENOENT {
                    self.errno = Some(e.0);
                }
            }
        }
    }

    /// Records a success.
    pub fn win(&mut self, target: &str) {
        self.won = true;
        self.lines.push(format!("{target}=REACHED"));
    }

    /// The outcome of all.
    pub fn end(self, nothing: &str) -> Attempted {
        let detail = self.lines.join(" ");
        if self.won {
            Ok(crate::outcome::succeeded(detail))
        } else if self.lines.is_empty() {
            Ok(blocked(None, nothing))
        } else {
            Ok(blocked(self.errno, detail))
        }
    }
}

/// Every attempt, family by family.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    use crate::{
        bombs, channel, devices, disk, egress, env, exec, fds, files, filter, misc, mounts,
        namespaces, net, parser, proc, process, races, residue, resources, shared, sockets,
        survive, tls, tty,
    };
    [
        files::TABLE,
        fds::TABLE,
        proc::TABLE,
        devices::TABLE,
        exec::TABLE,
        mounts::TABLE,
        namespaces::TABLE,
        filter::TABLE,
        misc::TABLE,
        process::TABLE,
        tty::TABLE,
        sockets::TABLE,
        net::TABLE,
        egress::TABLE,
        parser::TABLE,
        tls::TABLE,
        channel::TABLE,
        resources::TABLE,
        bombs::TABLE,
        disk::TABLE,
        survive::TABLE,
        env::TABLE,
        residue::TABLE,
        races::TABLE,
        shared::TABLE,
    ]
    .into_iter()
    .flatten()
}

/// The attempt of that number and variant; the first variant where none is named.
pub fn find(number: u16, variant: Option<&str>) -> Option<&'static Attempt> {
    all().find(|a| a.number == number && variant.is_none_or(|v| v == a.variant))
}
