//! The situations: which there are in which machine, and what is looked at in each.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    FOLDER, Result,
    doctor::{Doctor, Wall},
    escapes::Escapes,
    init,
    limits::Promise,
    machine::Machine,
    place::{CGROUPS, Place, Seen},
    refused,
    report::{Event, Finding, Port},
    tests,
};

/// Attacked by number 13.
pub(crate) const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// The root of the container that systemd-nspawn starts.
const CONTAINER: &str = "/run/palisade-container";
/// The ordinary user.
pub(crate) const USER: u32 = 1000;
const CONTROLLERS: &str = "+memory +pids +cpu";

/// Where the program under test is put.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    /// Root, in the cgroup at the top.
    Top,
    /// Root, alone in a cgroup, as a service is.
    Alone,
    /// Root, in a cgroup with somebody else, as in a shell's session.
    Beside,
    /// The user, in a cgroup of root's.
    User,
    /// The user, alone in a cgroup that was given to it with these controllers.
    Delegated(&'static str),
    /// The same with a second process there, as a shell in a scope; with or without systemd's mark.
    DelegatedShared { marked: bool },
    /// With a kernel setting, as root or as the user.
    Setting { file: &'static str, value: &'static str, user: bool },
    /// Root, seeing less of the cgroups.
    Sees(Seen),
    /// Root in a container, as an engine makes it.
    Container,
    /// What systemd starts.
    Systemd { user: bool, words: &'static [&'static str] },
}

/// What is looked at, beside doctor.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// `palisade-vm limits PROMISE`: whatever doctor says of this backend is exceeded or attacked.
    Limits(Wall),
    Escapes(Escapes),
    /// Test programs of this project, by the beginning of their names, without the tests named here.
    Tests {
        program: &'static str,
        without: &'static [&'static str],
    },
    /// Nothing can be used here: a plugin is not started.
    Refused,
}

/// One situation.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    pub(crate) place: Where,
    /// What doctor must say; looked at first.
    pub(crate) doctor: Doctor,
    pub(crate) steps: Vec<Step>,
}

/// Undoes what a place needed.
#[derive(Default)]
struct Undo {
    neighbour: Option<Child>,
    setting: Option<(&'static str, String)>,
    cgroups: Vec<PathBuf>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(neighbour) = &mut self.neighbour {
            let _ = neighbour.kill();
            let _ = neighbour.wait();
        }
        if let Some((file, before)) = &self.setting {
            let _ = fs::write(file, before);
        }
        for cgroup in &self.cgroups {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            for _ in 0..50 {
                if remove_tree(cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Removes a cgroup with all below it.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// A fresh cgroup below the top, with these controllers.
fn fresh(undo: &mut Undo, controllers: &str) -> Result<PathBuf> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let top = Path::new(CGROUPS);
    let step = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    fs::write(top.join("cgroup.subtree_control"), CONTROLLERS).map_err(|e| step(top, e))?;
    let outer = top.join(format!("outer-{number}"));
    fs::create_dir(&outer).map_err(|e| step(&outer, e))?;
    undo.cgroups.push(outer.clone());
    fs::write(outer.join("cgroup.subtree_control"), controllers).map_err(|e| step(&outer, e))?;
    let inner = outer.join("inner");
    fs::create_dir(&inner).map_err(|e| step(&inner, e))?;
    Ok(inner)
}

/// As systemd delegates one (cgroups(7), "Delegation").
fn give_away(cgroup: &Path) -> Result {
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        let path = cgroup.join(file);
        std::os::unix::fs::chown(&path, Some(USER), Some(USER))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Marks a cgroup as systemd does.
fn mark(cgroup: &Path) -> Result {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(cgroup, "user.delegate", b"1", flags)
        .map_err(|e| format!("{}: {e}", cgroup.display()))
}

/// A process that stays in a cgroup.
fn neighbour(cgroup: &Path) -> Result<Child> {
    let place = Place { cgroup: Some(cgroup.to_path_buf()), ..Place::default() };
    let mut command = place.command(&[&format!("{FOLDER}/attacker"), "hold"])?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = child.map_err(|e| format!("the neighbour: {e}"))?;
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|p| p.trim().is_empty()) {
        if Instant::now() > end {
            return Err("the neighbour did not arrive".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

impl Where {
    /// Whether a cgroup around the program counts what it and its plugins use, and it can read that.
    fn metered(&self) -> bool {
        matches!(self, Self::User | Self::DelegatedShared { .. } | Self::Sees(Seen::ReadOnly))
    }

    fn make(&self) -> Result<(Place, Undo)> {
        let mut undo = Undo::default();
        let mut place = Place::default();
        match self {
            Self::Top => {}
            Self::Alone => place.cgroup = Some(fresh(&mut undo, CONTROLLERS)?),
            Self::Beside => {
                let cgroup = fresh(&mut undo, CONTROLLERS)?;
                undo.neighbour = Some(neighbour(&cgroup)?);
                place.cgroup = Some(cgroup);
            }
            Self::User => {
                place.cgroup = Some(fresh(&mut undo, CONTROLLERS)?);
                place.uid = Some(USER);
            }
            Self::Delegated(_) | Self::DelegatedShared { .. } => {
                let controllers = match self {
                    Self::Delegated(some) => some,
                    _ => CONTROLLERS,
                };
                let cgroup = fresh(&mut undo, controllers)?;
                give_away(&cgroup)?;
                if !matches!(self, Self::DelegatedShared { marked: false }) {
                    mark(&cgroup)?;
                }
                if matches!(self, Self::DelegatedShared { .. }) {
                    undo.neighbour = Some(neighbour(&cgroup)?);
                }
                place.cgroup = Some(cgroup);
                place.uid = Some(USER);
            }
            Self::Setting { file, value, user } => {
                let before = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
                fs::write(file, value).map_err(|e| format!("{file}: {e}"))?;
                undo.setting = Some((file, before));
                place.cgroup = Some(fresh(&mut undo, CONTROLLERS)?);
                place.uid = user.then_some(USER);
            }
            Self::Sees(seen) => {
                place.cgroup = Some(fresh(&mut undo, CONTROLLERS)?);
                place.seen = *seen;
            }
            Self::Container => {
                place.cgroup = Some(fresh(&mut undo, CONTROLLERS)?);
                place.container = true;
            }
            Self::Systemd { user, words } => {
                place.through = words.iter().map(|w| (*w).to_owned()).collect();
                if *user {
                    place.uid = Some(USER);
                    let run = format!("/run/user/{USER}");
                    place.env = vec![
                        ("DBUS_SESSION_BUS_ADDRESS".into(), format!("unix:path={run}/bus")),
                        ("XDG_RUNTIME_DIR".into(), run),
                    ];
                }
            }
        }
        Ok((place, undo))
    }
}

/// A command that came to its end.
pub(crate) struct Ended {
    /// Its exit status; none where a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) printed: String,
}

/// Runs a command in a fresh place, and gives what it printed. An error where it failed.
fn run(place: &Where, command: &[String], input: &str, limit: Duration) -> Result<String> {
    let Ended { status, printed } = end_of(place, command, input, limit)?;
    match status {
        Some(0) => Ok(printed),
        other => Err(format!("{} ended with {other:?}: {printed}", command.join(" "))),
    }
}

/// Runs a command in a fresh place to its end.
pub(crate) fn end_of(
    place: &Where,
    command: &[String],
    input: &str,
    limit: Duration,
) -> Result<Ended> {
    let (place, undo) = place.make()?;
    let mut child = place
        .command(command)?
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|mut out| out.read_to_string(&mut text));
        if read.is_some_and(|r| r.is_ok()) { text } else { String::new() }
    });
    // Held open until the end: a runner whose stdin closes ends itself.
    let mut stdin = stdin.ok_or("no stdin")?;
    let _ = writeln!(stdin, "{input}");
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if Instant::now() > end {
            if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                let kill = rustix::process::Signal::KILL;
                let _ = rustix::process::kill_process_group(group, kill);
            }
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    drop(stdin);
    let printed = reader.join().unwrap_or_default();
    drop(undo);
    match status {
        Some(status) => Ok(Ended { status: status.code(), printed }),
        None => Err(format!("{} took longer than {limit:?}: {printed}", command.join(" "))),
    }
}

/// A program of ours inside, with its arguments.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    let (program, rest) = words.split_first().unwrap_or((&"", &[]));
    std::iter::once(format!("{FOLDER}/{program}"))
        .chain(rest.iter().map(|w| (*w).to_owned()))
        .collect()
}

impl Situation {
    fn doctor(&self) -> Result<Vec<Finding>> {
        let command = words(&["palisade", "doctor", "--json"]);
        self.doctor.judge(&run(&self.place, &command, "", Duration::from_secs(60))?)
    }

    fn step(&self, machine: &str, step: &Step) -> Result<Vec<Finding>> {
        let place = &self.place;
        match step {
            Step::Limits(wall) => {
                let promise = Promise {
                    wall: *wall,
                    levels: self.doctor.levels(*wall),
                    landlock: self.doctor.kernel.landlock,
                    metered: place.metered(),
                };
                let promise = serde_json::to_string(&promise).map_err(|e| e.to_string())?;
                let command = words(&["palisade-vm", "limits", &promise]);
                let printed = run(place, &command, "", Duration::from_secs(240))?;
                serde_json::from_str(printed.lines().last().unwrap_or_default())
                    .map_err(|e| format!("limits: {e}: {printed}"))
            }
            Step::Escapes(escapes) => {
                let command = Escapes::command()?;
                let task = escapes.task()?;
                let printed = run(place, &command, &task, escapes.limit())?;
                escapes.judge(&format!("{machine}/{}", self.name), &printed)
            }
            Step::Tests { program, without } => {
                let command = tests::command(program, without)?;
                tests::judge(program, run(place, &command, "", Duration::from_secs(600)))
            }
            Step::Refused => refused::look(place),
        }
    }
}

/// Runs everything that belongs to this machine, and ends the machine.
pub(crate) fn run_all() -> Result {
    let done = report_all();
    if let Err(message) = &done {
        eprintln!("palisade-vm: {message}");
    }
    init::power_off()
}

fn report_all() -> Result {
    let machine = Machine::read()?;
    let port = Port::open()?;
    if machine.disk {
        ready_for_users()?;
    }
    let mut all = crate::plan::of(&machine)?;
    all.retain(|s| machine.only.is_empty() || machine.only.iter().any(|only| s.name == only));
    let situations = all.iter().map(|s| s.name.to_owned()).collect();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let landlock = all.first().map_or(0, |s| s.doctor.kernel.landlock);
    port.send(&Event::Plan { situations, kernel, landlock });
    for situation in &all {
        let begun = Instant::now();
        let chosen = |step: &&Step| {
            let name = step.name();
            machine.steps.is_empty()
                || machine.steps.iter().any(|part| name.contains(part.as_str()))
        };
        let steps = situation.steps.iter().filter(chosen).map(Some);
        for step in std::iter::once(None).chain(steps) {
            let started = Instant::now();
            let name = step.map_or_else(|| "doctor".to_owned(), Step::name);
            let found = match step {
                None => situation.doctor(),
                Some(step) => situation.step(&machine.name, step),
            };
            let found = found.unwrap_or_else(|e| vec![Finding::new(name.clone(), false, e)]);
            let took = started.elapsed().as_secs_f64();
            eprintln!("{}/{}: {name} in {took:.1} s", machine.name, situation.name);
            for Finding { name, ok, detail, counts } in found {
                let situation = situation.name.to_owned();
                port.send(&Event::Check { situation, name, ok, detail, counts });
            }
        }
        let millis = begun.elapsed().as_millis() as u64;
        port.send(&Event::End { situation: situation.name.to_owned(), millis });
    }
    port.send(&Event::Done);
    Ok(())
}

impl Step {
    /// For the log, and for the table in the documentation.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Limits(wall) => format!("limits of {}", wall.name()),
            Self::Escapes(e) => e.name(),
            Self::Tests { program, .. } => format!("tests {program}"),
            Self::Refused => "refused".to_owned(),
        }
    }
}

/// Lets the ordinary user have a manager of its own without a login, and shows this system's files where a
/// container can use them.
fn ready_for_users() -> Result {
    // systemd would mount it for whoever looks, with a module that is not here.
    init::file_system("binfmt_misc", BINFMT, None)?;
    fs::create_dir_all(CONTAINER).map_err(|e| format!("{CONTAINER}: {e}"))?;
    rustix::mount::mount_bind("/", CONTAINER).map_err(|e| format!("{CONTAINER}: {e}"))?;
    let bus = format!("/run/user/{USER}/bus");
    let linger = Command::new("loginctl").args(["enable-linger", &USER.to_string()]).status();
    match linger {
        Ok(status) if status.success() => {}
        other => return Err(format!("loginctl enable-linger: {other:?}")),
    }
    let end = Instant::now() + Duration::from_secs(60);
    while !Path::new(&bus).exists() {
        if Instant::now() > end {
            return Err(format!("{bus} did not appear"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
