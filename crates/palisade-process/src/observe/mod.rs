//! Watching the system calls of one instance, for reports: `--explain` and `palisade learn`.
//!
//! The filter of an observed launch asks a listener about every call that it would refuse and about those
//! that name paths and addresses. The answer follows from the filter's own policy and from the registers
//! that the kernel copied, and from nothing else: what is read of the program's memory, which it can
//! change at any time, is only reported. So the program gets no right that it would not have unobserved;
//! where the listener is gone the kernel answers with `ENOSYS`.
//!
//! One thread serves one instance. It looks at nothing outside the walls, so that the time it takes tells
//! the program nothing, and it takes up at most [`MOST_IN_WINDOW`] questions in each [`WINDOW`]: a program
//! that asks more waits, and does not buy processor time of the host's.

mod calls;
mod memory;
mod notify;
mod place;
mod tier;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use palisade_model::text::escape;
use palisade_sandbox::{
    Observation, Observer,
    observe::{Outcome, PathAccess, Subject},
};
use palisade_seccomp::{Action, Arch, Policy, errno};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub(crate) use calls::watched;
use calls::{AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Call, Links, PathArgument, Use};
use memory::{Address, Memory};
use notify::{Answer, Listener, Question};
use place::Inside;
pub(crate) use place::{Tier, Visible};
pub(crate) use tier::of;

/// The time over which questions are counted, and how many are taken up in it.
const WINDOW: Duration = Duration::from_millis(100);
const MOST_IN_WINDOW: u32 = 2_500;
/// The working directory, where a folder handle is expected (openat(2)).
const AT_FDCWD: i32 = -100;

/// What it takes to watch an instance.
pub(crate) struct Observing {
    pub(crate) observer: Arc<dyn Observer>,
    /// What the filter answers where nobody watches.
    pub(crate) policy: Policy,
    pub(crate) arch: Arch,
    pub(crate) tier: Tier,
    /// User and group of the program, by their numbers out here.
    pub(crate) ids: (u32, u32),
    /// The port of the way out, where there is one.
    pub(crate) way_out: Option<u16>,
    /// The call, set before the program itself (not a process that it started) is ended for it.
    pub(crate) policy_kill: Arc<OnceLock<String>>,
}

impl Observing {
    /// Serves the listener on a thread of its own, until nobody is left who could ask.
    pub(crate) fn serve(self, listener: OwnedFd) -> io::Result<()> {
        std::thread::Builder::new().name("palisade-observe".into()).spawn(move || {
            let inside = Inside::new(self.tier.clone(), self.ids);
            let mut thread =
                Thread { listener: Listener(listener), with: self, inside, program: None };
            if let Err(error) = thread.run() {
                // The listener closes, and the program's calls fail with ENOSYS.
                tracing::warn!("the observer of an instance gave up: {error}");
            }
        })?;
        Ok(())
    }
}

struct Thread {
    listener: Listener,
    with: Observing,
    inside: Inside,
    /// The program's process, by its number out here: the first that asks.
    program: Option<u32>,
}

impl Thread {
    fn run(&mut self) -> io::Result<()> {
        let (mut since, mut taken) = (Instant::now(), 0u32);
        while self.listener.wait()? {
            if since.elapsed() >= WINDOW {
                (since, taken) = (Instant::now(), 0);
            } else if taken >= MOST_IN_WINDOW {
                std::thread::sleep(WINDOW.saturating_sub(since.elapsed()));
                continue;
            }
            taken += 1;
            if let Some(question) = self.listener.take()? {
                self.handle(&question)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, question: &Question) -> io::Result<()> {
        let action = self.with.policy.decide(&question.call, self.with.arch);
        if self.program.is_none() {
            // The helper's own exec of the program: part of the launch, in the helper's memory.
            self.program = process_of(question.thread);
        } else {
            let seen = self.look(question, action);
            if !self.listener.is_open(question) {
                // It was killed, or a signal interrupted it; then it asks again.
                return Ok(());
            }
            match seen {
                Ok(all) => all.into_iter().for_each(|one| self.with.observer.saw(one)),
                Err(()) => self.with.observer.missed(),
            }
        }
        let answer = match action {
            Action::Allow | Action::Log => Answer::Continue,
            Action::Errno(errno) => Answer::Errno(errno),
            Action::KillProcess => match self.kill(question) {
                Ok(()) => return Ok(()),
                Err(_) => Answer::Errno(errno::EPERM),
            },
            // No policy of ours gives these; what is not known is not done.
            Action::Trap | Action::UserNotify => Answer::Errno(errno::ENOSYS),
        };
        self.listener.answer(question, answer)
    }

    /// Ends the process whose thread asks. Its question is never answered.
    fn kill(&self, question: &Question) -> io::Result<()> {
        let process = process_of(question.thread).ok_or(io::ErrorKind::NotFound)?;
        let pid = Pid::from_raw(process.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        if !self.listener.is_open(question) {
            return Ok(());
        }
        // The thread still waits, so its process is the one that was opened.
        if self.program == Some(process) {
            let name = question.call.name(self.with.arch).into_owned();
            let _ = self.with.policy_kill.set(name);
        }
        pidfd_send_signal(handle, Signal::KILL)?;
        Ok(())
    }

    /// What there is to say about a call.
    fn look(&mut self, question: &Question, action: Action) -> Result<Vec<Observation>, ()> {
        // The same number means another call through another interface.
        let is_ours = question.call.is_of(self.with.arch);
        let name = self.with.arch.syscall_name(question.call.nr).filter(|_| is_ours);
        let call = question.call.name(self.with.arch);
        let refused = match action {
            Action::Errno(errno) => Some(Outcome::Refused(errno)),
            Action::KillProcess => Some(Outcome::Killed),
            _ => None,
        };
        // A call that is refused for what it is says more by its path or address than by its registers.
        let subjects = match name.and_then(calls::of) {
            Some(Call::Paths(paths)) => self.paths(question, paths),
            Some(Call::Address(at, len)) => self.address(question, at, len),
            Some(Call::Bind(at, len)) => self.bind(question, at, len),
            None => Ok(Vec::new()),
        };
        let subjects = match (subjects, refused) {
            (Ok(subjects), None) => subjects,
            (Err(()), None) => return Err(()),
            (Ok(subjects), Some(refused)) if !subjects.is_empty() => {
                subjects.into_iter().map(|(subject, _)| (subject, refused)).collect()
            }
            (_, Some(refused)) => vec![(Subject::Arguments(self.arguments(question)), refused)],
        };
        let observe = |(subject, outcome)| Observation { call: call.clone(), subject, outcome };
        Ok(subjects.into_iter().map(observe).collect())
    }

    fn paths(
        &mut self,
        question: &Question,
        paths: &[PathArgument],
    ) -> Result<Vec<(Subject, Outcome)>, ()> {
        let args = question.call.args;
        let arg = |at: usize| args.get(at).copied().unwrap_or(0);
        let memory = Memory::of(question.thread);
        let mut seen = Vec::new();
        // No path at all: the call is about the handle (utimensat(2)), or fails.
        for argument in paths.iter().filter(|p| arg(p.path) != 0) {
            let text = memory.text(arg(argument.path)).ok_or(())?;
            let folder = argument.folder.map(|at| arg(at) as u32 as i32);
            let folder = folder.filter(|handle| *handle != AT_FDCWD);
            let flags = match argument.what {
                Use::Open(at) => arg(at),
                _ => 0,
            };
            let follow = match argument.links {
                Links::Follow => flags & calls::open::NOFOLLOW == 0,
                Links::Keep => false,
                Links::FollowUnless(at) => arg(at) & AT_SYMLINK_NOFOLLOW == 0,
                Links::KeepUnless(at) => arg(at) & AT_SYMLINK_FOLLOW != 0,
            };
            let changes = matches!(argument.what, Use::Make | Use::Put | Use::Remove);
            let found = self.inside.find(question.thread, folder, &text, follow, changes)?;
            let Some(place) = found else { continue };
            let (access, outcome) = self.inside.judge(&place, argument.what, flags);
            seen.push((place.subject(access), outcome));
        }
        Ok(seen)
    }

    /// Only a name in a folder is anybody's business: addresses of the plugin's own network are its own.
    fn bind(
        &mut self,
        question: &Question,
        at: usize,
        len: usize,
    ) -> Result<Vec<(Subject, Outcome)>, ()> {
        let arg = |at: usize| question.call.args.get(at).copied().unwrap_or(0);
        let memory = Memory::of(question.thread);
        let Some(Address::Unix(path)) = memory.address(arg(at), arg(len)) else {
            return Ok(Vec::new());
        };
        Ok(match self.inside.find(question.thread, None, &path, false, true)? {
            Some(place) => {
                let (access, outcome) = self.inside.judge(&place, Use::Make, 0);
                vec![(place.subject(access), outcome)]
            }
            None => Vec::new(),
        })
    }

    fn address(
        &mut self,
        question: &Question,
        at: usize,
        len: usize,
    ) -> Result<Vec<(Subject, Outcome)>, ()> {
        let arg = |at: usize| question.call.args.get(at).copied().unwrap_or(0);
        let memory = Memory::of(question.thread);
        let Some(address) = memory.address(arg(at), arg(len)) else { return Ok(Vec::new()) };
        Ok(match address {
            Address::Internet(to) => {
                vec![(Subject::Address(to), self.reach(question.thread, to))]
            }
            Address::Unix(path) => {
                let what = Use::As(PathAccess::Connect);
                match self.inside.find(question.thread, None, &path, true, false)? {
                    Some(place) => {
                        let (access, outcome) = self.inside.judge(&place, what, 0);
                        vec![(place.subject(access), outcome)]
                    }
                    None => Vec::new(),
                }
            }
            // They belong to the network namespace, which is the plugin's own.
            Address::Abstract(name) => {
                let end = name.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
                let name = String::from_utf8_lossy(name.get(..end).unwrap_or_default());
                vec![(Subject::Socket(format!("@{}", escape(&name, 120))), Outcome::Passed)]
            }
            // AF_UNSPEC takes a connection back.
            Address::Other(0) => Vec::new(),
            Address::Other(family) => {
                vec![(Subject::Socket(format!("family {family}")), Outcome::Passed)]
            }
        })
    }

    /// Whether anything answers at an address: inside there is the way out, and what listens there itself.
    fn reach(&self, thread: u32, to: SocketAddr) -> Outcome {
        let is_way_out = self
            .with
            .way_out
            .is_some_and(|port| to == SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        let own = matches!(self.with.tier, Tier::NewRoot)
            && (to.ip().is_loopback() || to.ip().is_unspecified())
            && listens(thread, to.port());
        if is_way_out || own { Outcome::Passed } else { Outcome::NoRoute }
    }

    /// The arguments that the deciding rule looks at, with their values.
    fn arguments(&self, question: &Question) -> String {
        let Some(rule) = self.with.policy.matching_rule(&question.call, self.with.arch) else {
            return String::new();
        };
        let mut shown: Vec<String> = Vec::new();
        for condition in rule.conditions() {
            let at = usize::from(condition.index());
            let value = question.call.args.get(at).copied().unwrap_or(0) & condition.width().mask();
            let text = named(condition.name(), value);
            if !shown.contains(&text) {
                shown.push(text);
            }
        }
        shown.join(", ")
    }
}

/// An argument in words where it has some that people know.
fn named(argument: &str, value: u64) -> String {
    const FAMILIES: [(u64, &str); 9] = [
        (1, "AF_UNIX"),
        (2, "AF_INET"),
        (10, "AF_INET6"),
        (16, "AF_NETLINK"),
        (17, "AF_PACKET"),
        (29, "AF_CAN"),
        (38, "AF_ALG"),
        (40, "AF_VSOCK"),
        (44, "AF_XDP"),
    ];
    let known = FAMILIES.iter().find(|(number, _)| argument == "domain" && *number == value);
    match known {
        Some((_, name)) => format!("{argument}={name}"),
        None if value > 4096 => format!("{argument}={value:#x}"),
        None => format!("{argument}={value}"),
    }
}

/// The process of a thread.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether something in the thread's network listens on this TCP port (proc(5), `/proc/net/tcp`).
fn listens(thread: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{thread}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, state) = (words.next(), words.nth(1));
            state == Some(LISTEN) && local.is_some_and(|l| l.ends_with(&suffix))
        })
    })
}
