//! The suite: one runner for each launcher, their rows together.

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    attacker, command,
    expected::Matrix,
    families::{host, landlock, network, twins, wasm},
    meter::Meter,
    record::{Launcher, Row},
    runner::Task,
    scene,
    trouble::{Result, Trouble, While},
};

/// The unprivileged user of the suite when root starts it.
pub const USER: u32 = 1000;
/// In the runner's environment and arguments, and nowhere inside the walls.
pub(crate) const FORBIDDEN: &str = "forbidden-word-of-the-launcher";

/// Attempts that are made together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Most of them, several at a time.
    General,
    /// With a way out to the network.
    Network,
    /// Against the host itself, and between plugins.
    Host,
    /// From Python and Node.
    Twins,
    /// From inside the WebAssembly wall.
    Wasm,
    /// The same, with the engine behind the walls around processes.
    Walled,
    /// The weaker tier.
    Landlock,
    /// Granted paths.
    Paths,
    /// The conversation and the log.
    Channel,
    /// Not ending.
    Survive,
    /// Resources.
    Limits,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::General,
        Self::Network,
        Self::Host,
        Self::Twins,
        Self::Landlock,
        Self::Paths,
        Self::Channel,
        Self::Survive,
        Self::Limits,
        Self::Wasm,
        Self::Walled,
    ];

    /// The name in a [`Task`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Network => "network",
            Self::Host => "host",
            Self::Twins => "twins",
            Self::Wasm => "wasm",
            Self::Walled => "walled",
            Self::Landlock => "landlock",
            Self::Paths => "paths",
            Self::Channel => "channel",
            Self::Survive => "survive",
            Self::Limits => "limits",
        }
    }

    /// Whether nothing else of the suite may run meanwhile: it measures the machine.
    #[must_use]
    pub fn alone(self) -> bool {
        matches!(self, Self::Limits | Self::Channel | Self::Survive | Self::Wasm | Self::Walled)
    }

    /// Whether an attempt belongs to it, by number and variant.
    #[must_use]
    pub fn covers(self, number: u16, variant: &str) -> bool {
        let asks_only = variant.starts_with("raise-")
            || (number == 44 && !variant.starts_with("spin"))
            || (number == 49 && matches!(variant, "clear-pdeathsig" | "subreaper"));
        let family = match number {
            _ if variant.ends_with(wasm::WITH) => Self::Walled,
            _ if wasm::covers(number) => Self::Wasm,
            _ if variant.ends_with(landlock::WITH) => Self::Landlock,
            _ if twins::made(variant) => Self::Twins,
            _ if host::covers(number, variant) => Self::Host,
            _ if asks_only => Self::General,
            _ if network::only_with(number) || variant.ends_with(network::WITH) => Self::Network,
            3 | 66 => Self::Paths,
            34 | 47 | 58 | 59 => Self::Channel,
            48 | 49 => Self::Survive,
            42..=46 => Self::Limits,
            _ => Self::General,
        };
        self == family
    }

    /// Whether a launcher makes its attempts.
    #[must_use]
    pub fn is_for(self, launcher: Launcher) -> bool {
        launcher != Launcher::RootPoliced || self == Self::Limits
    }
}

/// The launchers that this process can provide. An ordinary user can only be itself.
#[must_use]
pub fn launchers() -> Vec<Launcher> {
    if rustix::process::geteuid().is_root() { Launcher::ALL.to_vec() } else { vec![Launcher::User] }
}

/// Whether this process can have an attempt made: only root can make the set-id copies that some try to run.
#[must_use]
pub fn can_make(number: u16, variant: &str) -> bool {
    let variant = variant.split(['+', '@']).next().unwrap_or_default();
    let needs_copies = matches!(
        (number, variant),
        (12, "suid" | "sgid") | (13, "file-caps") | (50, "recycled") | (60, "program-suid")
    );
    !needs_copies || rustix::process::geteuid().is_root()
}

/// Runs one family with one launcher. `runner` is the `escape` program.
///
/// # Errors
/// When the scene, the attacker or the walls cannot be built; never because of an outcome.
pub fn run(runner: &Path, launcher: Launcher, families: &[Family]) -> Result<Vec<Row>> {
    let program = attacker::build()?;
    let lock = fs::File::create(program.with_file_name("escape-suite-turn.lock"))?;
    if families.iter().any(|f| f.alone()) {
        lock.lock().doing("waiting for the machine")?;
    } else {
        lock.lock_shared().doing("waiting for the machine")?;
    }
    let folder = scene::open_folder()?;
    let copy = |from: &Path, name: &str| -> Result<PathBuf> {
        let to = folder.path().join(name);
        fs::copy(from, &to).doing("copying a program")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(to)
    };
    // Copies: the user may not be able to walk to the build folder.
    let (runner, attacker) = (copy(runner, "escape")?, copy(&program, "attacker")?);
    let command = families.contains(&Family::Host).then(command::build).transpose()?;
    let command = command.map(|built| copy(&built, "palisade")).transpose()?;
    let guests = folder.path().join("guests");
    let needs_guests = families.iter().any(|f| matches!(f, Family::Wasm | Family::Walled));
    let guests = needs_guests.then(|| wasm::build(&guests).map(|()| guests)).transpose()?;
    let is_root = rustix::process::geteuid().is_root();
    let mut privileged = None;
    if is_root {
        let rights = folder.path().join("rights");
        fs::create_dir(&rights)?;
        scene::make_privileged(&attacker, &rights)?;
        privileged = Some(rights);
    }
    let home = folder.path().join("home");
    fs::create_dir(&home)?;
    let as_user = is_root && launcher == Launcher::User;
    let uid = if as_user { USER } else { rustix::process::geteuid().as_raw() };
    if as_user {
        std::os::unix::fs::chown(&home, Some(USER), Some(USER))?;
    }
    let meter =
        if is_root && !launcher.cgroups() { Meter::make(launcher.key(), uid) } else { None };
    let task = Task {
        launcher,
        attacker,
        forbidden: vec![FORBIDDEN.into()],
        privileged,
        command,
        guests,
        meter: meter.as_ref().map(|m| m.path().to_path_buf()),
        families: families.iter().map(|f| f.name().to_owned()).collect(),
        only: Vec::new(),
        own_machine: false,
        whole_only: false,
        emulated: false,
    };
    let mut command = Command::new(&runner);
    careless(command.args(["runner", FORBIDDEN]), &home);
    if as_user {
        // The standard library gives up root's supplementary groups with the user id.
        command.uid(USER).gid(USER);
    }
    let child = command.spawn().doing("starting a runner")?;
    if let Some(meter) = &meter {
        meter.take(child.id())?;
    }
    tell(child, &task).map_err(|e| Trouble(format!("as {}: {e}", launcher.key())))
}

/// The environment of a runner: what a careless host hands on to its children is in it.
pub(crate) fn careless<'a>(runner: &'a mut Command, home: &Path) -> &'a mut Command {
    runner
        .env_clear()
        .envs([
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("PALISADE_ESCAPE_WORD", FORBIDDEN),
            ("PYTHONPATH", "/palisade/escape"),
            ("NODE_OPTIONS", "--palisade-escape"),
            ("GCONV_PATH", "/palisade/escape"),
            ("BASH_ENV", "/palisade/escape"),
        ])
        .env("HOME", home)
        .env("TMPDIR", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
}

/// Tells a runner its task and waits for its rows.
pub(crate) fn tell(mut runner: Child, task: &impl serde::Serialize) -> Result<Vec<Row>> {
    let mut stdin = runner.stdin.take().ok_or_else(|| Trouble("no stdin".into()))?;
    writeln!(stdin, "{}", serde_json::to_string(task)?)?;
    let out = runner.wait_with_output().doing("waiting for a runner")?;
    // Held open until here: a runner whose stdin closes ends itself.
    drop(stdin);
    if !out.status.success() {
        return Err(Trouble(format!("the runner ended: {}", out.status)));
    }
    serde_json::from_slice(&out.stdout).doing("reading a runner's rows")
}

/// Runs everything this process can, and gives every row with its layers. Says on standard error what is
/// being done.
///
/// # Errors
/// As [`run`].
pub fn matrix(runner: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let shared: Vec<Family> = Family::ALL.into_iter().filter(|f| !f.alone()).collect();
    let alone: Vec<Family> = Family::ALL.into_iter().filter(|f| f.alone()).collect();
    let parts = std::thread::scope(|scope| {
        let started: Vec<_> = launchers()
            .into_iter()
            .filter(|l| shared.iter().any(|f| f.is_for(*l)))
            .map(|launcher| {
                progress(launcher, &shared);
                scope.spawn({
                    let shared = &shared;
                    move || run(runner, launcher, shared)
                })
            })
            .collect();
        let ended = started.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Trouble("a runner's thread panicked".into())))
        });
        ended.collect::<Result<Vec<_>>>()
    })?;
    rows.extend(parts.into_iter().flatten());
    for launcher in launchers() {
        let families: Vec<Family> = alone.iter().copied().filter(|f| f.is_for(launcher)).collect();
        progress(launcher, &families);
        rows.extend(run(runner, launcher, &families)?);
    }
    Matrix::read()?.annotate(&mut rows);
    rows.sort_by(|a, b| {
        (a.number, &a.variant, a.launcher).cmp(&(b.number, &b.variant, b.launcher))
    });
    Ok(rows)
}

#[allow(clippy::print_stderr)]
fn progress(launcher: Launcher, families: &[Family]) {
    let names: Vec<&str> = families.iter().map(|f| f.name()).collect();
    eprintln!("escape: {} as {} …", names.join(", "), launcher.key());
}
