//! The scene: everything on the host that an attacker could want, made by the suite itself.
//!
//! A [`Stage`] stands for one runner (secrets, services, a victim process, leaked handles); a
//! [`Ground`] is the set of folders that one attempt gets. Nothing of the machine's own is offered.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{
    attacker::Twin,
    services::Services,
    trouble::{Result, While},
};

/// Copies of the attacker with rights that only root can give.
pub const PRIVILEGED: [&str; 3] = ["suid", "sgid", "caps"];

/// What one runner shares between its attempts.
pub struct Stage {
    /// Everything lies below this folder, which is removed at the end.
    pub base: TempDir,
    /// The attacker's folder, shown as `/plugin` inside.
    pub plugin: PathBuf,
    /// What no plugin may read.
    pub secret: String,
    /// Words of the launcher's environment and arguments that no plugin may see.
    pub forbidden: Vec<String>,
    /// Set-id and capability copies of the attacker, where root made them.
    pub privileged: Option<PathBuf>,
    /// Nobody else uses this machine: controls that could hurt it are run too.
    pub own_machine: bool,
    /// Reached by nobody inside.
    pub services: Services,
    /// For the positive controls, so that their visits do not count.
    pub control_services: Services,
    victim: Mutex<Child>,
    /// Handles without close-on-exec, which a careless host would leak.
    leaks: Mutex<Vec<OwnedFd>>,
    counter: AtomicU32,
}

/// Where the scene is built: not `/tmp` if that can be helped, because the walls have a private `/tmp` that
/// would hide whether a write was refused.
fn ground_folder() -> PathBuf {
    let wanted = Path::new("/var/tmp");
    let probe = tempfile::Builder::new().prefix("palisade-escape-").tempdir_in(wanted);
    if probe.is_ok() { wanted.to_path_buf() } else { std::env::temp_dir() }
}

/// A folder that others may walk through, since plugins get users of their own.
///
/// # Errors
/// When it cannot be made.
pub fn open_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("palisade-escape-")
        .tempdir_in(ground_folder())
        .doing("making a scratch folder")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

impl Stage {
    /// Builds the stage for the calling user.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn build(
        attacker: &Path,
        forbidden: Vec<String>,
        privileged: Option<PathBuf>,
    ) -> Result<Self> {
        let base = open_folder()?;
        let plugin = base.path().join("plugin");
        fs::create_dir(&plugin)?;
        fs::copy(attacker, plugin.join("attacker")).doing("copying the attacker")?;
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let (uid, serial) =
            (rustix::process::geteuid().as_raw(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let tag = format!("{uid}-{}-{serial}", std::process::id());
        let sockets = base.path().join("sockets");
        let control_sockets = base.path().join("control-sockets");
        fs::create_dir(&sockets)?;
        fs::create_dir(&control_sockets)?;
        let services = Services::start(&sockets, &tag)?;
        let control_services = Services::start(&control_sockets, &format!("{tag}-control"))?;
        let victim = Mutex::new(victim(&plugin.join("attacker"))?);
        let secret = format!("secret-{tag}-{:x}", std::process::id().wrapping_mul(0x9e37_79b1));
        let stage = Self {
            base,
            plugin,
            secret,
            forbidden,
            privileged,
            own_machine: false,
            services,
            control_services,
            victim,
            leaks: Mutex::default(),
            counter: AtomicU32::new(0),
        };
        stage.leak()?;
        Ok(stage)
    }

    /// Handles that a careless host leaves open across exec: a folder, a secret file open for writing, the
    /// root, and both sides of a terminal that controls this process.
    fn leak(&self) -> Result<()> {
        let secret = self.base.path().join("leaked-secret");
        fs::write(&secret, &self.secret)?;
        let none = Mode::empty();
        let mut leaks = vec![
            open(self.base.path(), OFlags::RDONLY | OFlags::DIRECTORY, none)?,
            open("/", OFlags::RDONLY | OFlags::DIRECTORY, none)?,
            open(&secret, OFlags::RDWR, none)?,
        ];
        // A listener, as a careless proxy would have it.
        let listener = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        leaks.push(listener);
        // A session of our own, and a terminal that becomes its controlling one by being opened
        // (tty_ioctl(4)). Fails only for the leader of a process group, which a runner never is.
        if rustix::process::setsid().is_ok() {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let name = ptsname(&master, Vec::new())?;
            leaks.push(open(name.as_c_str(), OFlags::RDWR, none)?);
            // Closed only by this process' end: closing it would hang up the session, which we lead.
            std::mem::forget(master);
        }
        self.leaks.lock().unwrap_or_else(PoisonError::into_inner).extend(leaks);
        Ok(())
    }

    /// Folders for one attempt, owned by the launching user.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn ground(&self) -> Result<Ground> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let root = self.base.path().join(format!("ground-{number}"));
        let ground = Ground {
            granted: root.join("granted"),
            readonly: root.join("readonly"),
            outside: root.join("outside"),
            data: root.join("data"),
            slot: number % 60_000,
            root,
        };
        for folder in [&ground.granted, &ground.readonly, &ground.outside, &ground.data] {
            fs::create_dir_all(folder)?;
        }
        for folder in ["granted/.claude", "outside/.claude", "outside/ssh"] {
            fs::create_dir(ground.root.join(folder))?;
        }
        for file in ["outside/secret", "outside/file", "outside/ssh/id_ed25519", "readonly/file"] {
            fs::write(ground.root.join(file), format!("{}\n", self.secret))?;
        }
        Ok(ground)
    }

    /// The attacker's parameters for one attempt.
    #[must_use]
    pub fn params(&self, ground: &Ground, inside: bool) -> Map<String, Value> {
        use std::os::unix::fs::MetadataExt;
        let device = fs::metadata(&ground.outside).map_or(0, |m| m.dev());
        let mut params = json!({
            "granted": ground.granted, "dirs": [ground.granted], "readonly": ground.readonly,
            "readonly_file": ground.readonly.join("file"), "outside_dir": ground.outside,
            "outside_file": ground.outside.join("file"), "secret_path": ground.outside.join("secret"),
            "secret": self.secret, "ssh_dir": ground.outside.join("ssh"), "target": ground.outside,
            "protected": ground.granted.join(".claude/settings.json"), "host_dev": device,
            "forbidden_values": self.forbidden, "beacon": ground.granted.join("beacon"),
            "connect": true, "seconds": 1, "ms": 300, "max_pid": std::process::id() + 4096,
            "timeout_ms": 20_000,
        })
        .as_object()
        .cloned()
        .unwrap_or_default();
        if let Some(folder) = &self.privileged {
            for name in PRIVILEGED {
                params.insert(format!("{name}_path"), json!(folder.join(name)));
            }
        }
        let services = if inside { &self.services } else { &self.control_services };
        params.extend(services.params.clone());
        if inside {
            params.insert("host_pid".into(), json!(self.victim_pid()));
        } else {
            params.insert("scratch".into(), json!(ground.granted));
            params.insert("cleanup".into(), json!(true));
        }
        params
    }

    /// The program of a twin, in a folder of its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn twin(&self, twin: Twin) -> Result<PathBuf> {
        let folder = self.base.path().join(twin.interpreter());
        let path = folder.join(twin.file());
        if !path.exists() {
            fs::create_dir_all(&folder)?;
            fs::write(&path, twin.source()).doing("writing a twin")?;
        }
        Ok(path)
    }

    fn victim_pid(&self) -> u32 {
        self.victim.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// What became of the victim: `None` while it lives and runs. A dead one is replaced.
    pub fn victim_harmed(&self) -> Option<String> {
        let mut victim = self.victim.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Some(status)) = victim.try_wait() {
            if let Ok(new) = self::victim(&self.plugin.join("attacker")) {
                *victim = new;
            }
            return Some(format!("the host's process ended: {status}"));
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", victim.id())).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        matches!(state, Some('T' | 't')).then(|| "the host's process is stopped".to_owned())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut victim = self.victim.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = victim.kill();
        let _ = victim.wait();
    }
}

/// A process of the launching user that attacks are aimed at.
fn victim(attacker: &Path) -> Result<Child> {
    Command::new(attacker)
        .arg("hold")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .doing("starting the victim")
}

/// The folders of one attempt.
pub struct Ground {
    /// Above the others.
    pub root: PathBuf,
    /// Granted for reading and writing.
    pub granted: PathBuf,
    /// Granted for reading.
    pub readonly: PathBuf,
    /// Not granted; holds the secret.
    pub outside: PathBuf,
    /// The plugin's data folder.
    pub data: PathBuf,
    /// Slot of the launch, unique among those that run at once.
    pub slot: u32,
}

impl Ground {
    /// What the host finds afterwards that must not be: changed outside or read-only files, set-id bits.
    #[must_use]
    pub fn damage(&self, secret: &str) -> Option<String> {
        let wanted = format!("{secret}\n");
        for file in ["outside/secret", "outside/file", "outside/ssh/id_ed25519", "readonly/file"] {
            let found = fs::read_to_string(self.root.join(file)).unwrap_or_default();
            if found != wanted {
                return Some(format!("{file} was changed"));
            }
        }
        for (folder, entries) in [(&self.outside, 4), (&self.readonly, 1), (&self.root, 4)] {
            let count = fs::read_dir(folder).map_or(0, Iterator::count);
            if count != entries {
                return Some(format!("{count} entries in {}, not {entries}", folder.display()));
            }
        }
        [&self.granted, &self.data].into_iter().find_map(|folder| set_id_below(folder))
    }

    /// Removes the folders, closed ones and deep trees included.
    pub fn clear(&self) {
        if fs::remove_dir_all(&self.root).is_ok() {
            return;
        }
        let mut todo = vec![self.root.clone()];
        while let Some(folder) = todo.pop() {
            let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            todo.extend(inner.map(|e| e.path()));
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A set-id file or a set-id folder below `folder` (not followed through links).
fn set_id_below(folder: &Path) -> Option<String> {
    let mut todo = vec![folder.to_path_buf()];
    let mut looked = 0;
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            looked += 1;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.permissions().mode() & 0o6000 != 0 {
                return Some(format!(
                    "left behind with mode {:o}: {:?}",
                    meta.permissions().mode(),
                    entry.file_name()
                ));
            }
            if meta.is_dir() && looked < 10_000 {
                todo.push(entry.path());
            }
        }
    }
    None
}

/// Set-id and capability copies of the attacker. Only root can make them.
///
/// # Errors
/// When this process may not.
pub fn make_privileged(attacker: &Path, folder: &Path) -> Result<()> {
    for (name, mode) in [("suid", 0o4755), ("sgid", 0o2755), ("caps", 0o755)] {
        let path = folder.join(name);
        fs::copy(attacker, &path).doing("copying the attacker")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    // For the harness: it gives a process number that is free to somebody else (clone3 with set_tid).
    fs::copy(attacker, folder.join("recycler")).doing("copying the attacker")?;
    fs::set_permissions(folder.join("recycler"), fs::Permissions::from_mode(0o755))?;
    // struct vfs_cap_data, revision 2, effective: CAP_NET_RAW (13) and CAP_CHECKPOINT_RESTORE (40) permitted.
    for (name, words) in [
        ("caps", [0x0200_0001, 1u32 << 13, 0, 0, 0]),
        ("recycler", [0x0200_0001, 0, 0, 1 << (40 - 32), 0]),
    ] {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(folder.join(name), "security.capability", &bytes, flags)
            .doing("setting file capabilities")?;
    }
    Ok(())
}
