//! The operator's secrets: a file each in `secrets/` of the host's folder, which nobody else may enter.
//!
//! A file's name is the hash of the secret's, so that any name fits any file system; its first line is a
//! header, the rest the value. Values leave here through the gate only: `secret.get`, the environment of
//! a launch, and the operator's own control. They are not encrypted: whoever can read the host's folder
//! as its owner, or as root, has them.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use palisade_audit::{BoxFuture, RecordKind};
use palisade_broker::{Action, Caller};
use palisade_model::{Access, CapabilitySet, ErrorCode, Failure, Kind, text::escape};
use palisade_services::secret::{self, MAX_SECRET, SecretValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    control::Control,
    host::{HostInner, blocking},
    state_dir,
};

/// Most secrets that one host keeps.
pub const MAX_SECRETS: usize = 4096;
/// Longest first line of a file, in bytes: a name has at most 256.
const MAX_HEADER: usize = 1024;
/// How files that are being written begin; they are removed by the next writer if they are left over.
const UNFINISHED: &str = "new-";

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SecretInfo {
    /// Its name.
    pub name: String,
    /// When it was first set, in seconds since 1970.
    pub created: u64,
    /// When its value was set last, in seconds since 1970.
    pub changed: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SecretStore {
    dir: PathBuf,
}

fn io_failure(what: &str, error: &io::Error) -> Failure {
    let message = format!("the secrets folder: {what}: {}", escape(&error.to_string(), 200));
    Failure::new(ErrorCode::Internal, message)
        .hint("see whether the state folder's disk is full or read-only")
}

fn damaged(what: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("a stored secret is damaged: {what}"))
        .hint("set it again with: palisade secret set NAME")
}

impl SecretStore {
    /// The secrets of the host whose folder is `state`. Nothing is created before something is set.
    pub(crate) fn new(state: &Path) -> Self {
        Self { dir: state.join("secrets") }
    }

    fn file(&self, name: &str) -> PathBuf {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(name) {
            hex.push_str(&format!("{byte:02x}"));
        }
        self.dir.join(hex)
    }

    /// Sets a value; says whether there was one before. Durable when it returns: the old value or the
    /// new one is there after a crash, never a part. Blocks.
    fn set(&self, name: &str, value: &SecretValue, now: u64) -> Result<bool, Failure> {
        let _writing = self.lock()?;
        let old = self.info(&self.file(name))?;
        if old.is_none() && self.list()?.len() >= MAX_SECRETS {
            let message = format!("this host keeps {MAX_SECRETS} secrets, which is the most");
            return Err(Failure::new(ErrorCode::LimitExceeded, message)
                .hint("remove some with: palisade secret remove NAME"));
        }
        let created = old.as_ref().map_or(now, |info| info.created);
        let info = SecretInfo { name: name.to_owned(), created, changed: now };
        let header = serde_json::to_string(&info).map_err(|e| damaged(&e.to_string()))?;
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", std::process::id()));
        let write = || {
            let mut file = options().write(true).create_new(true).open(&unfinished)?;
            file.write_all(header.as_bytes())?;
            file.write_all(b"\n")?;
            file.write_all(value.expose().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, self.file(name))?;
            self.sync()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            io_failure("the value cannot be written", &error)
        })?;
        Ok(old.is_some())
    }

    /// The value, if there is one. Blocks.
    fn get(&self, name: &str) -> Result<Option<SecretValue>, Failure> {
        let Some(mut file) = self.open(&self.file(name))? else { return Ok(None) };
        let (info, mut rest) = header(&mut file)?;
        if info.name != name {
            return Err(damaged("it is another one's file"));
        }
        // One byte more than a value may have, so that a longer file is told apart; all at once, so that
        // no copy is left behind where the buffer grows.
        let left = MAX_SECRET.saturating_add(1).saturating_sub(rest.len());
        rest.reserve_exact(left);
        file.take(u64::try_from(left).unwrap_or(0))
            .read_to_end(&mut rest)
            .map_err(|e| io_failure("a value cannot be read", &e))?;
        let text = std::str::from_utf8(&rest).map_err(|_| damaged("it is not UTF-8 text"))?;
        SecretValue::new(text).map(Some).map_err(|failure| damaged(&failure.message))
    }

    /// Every secret, by name. Blocks.
    fn list(&self) -> Result<Vec<SecretInfo>, Failure> {
        let unreadable = |e: &io::Error| io_failure("it cannot be read", e);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unreadable(&e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| unreadable(&e))?;
            let name = entry.file_name();
            if name.len() == 64
                && let Some(info) = self.info(&entry.path())?
            {
                found.push(info);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a secret; says whether there was one. Blocks.
    fn remove(&self, name: &str) -> Result<bool, Failure> {
        let _writing = self.lock()?;
        match fs::remove_file(self.file(name)).and_then(|()| self.sync()) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io_failure("the secret cannot be removed", &e)),
        }
    }

    fn info(&self, path: &Path) -> Result<Option<SecretInfo>, Failure> {
        match self.open(path)? {
            Some(mut file) => header(&mut file).map(|(info, _)| Some(info)),
            None => Ok(None),
        }
    }

    /// Opens a file of a secret for reading. A link, or a file that somebody else may read, was not put
    /// there by this host.
    fn open(&self, path: &Path) -> Result<Option<File>, Failure> {
        let file = match options().read(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_failure("a secret cannot be opened", &e)),
        };
        let meta = file.metadata().map_err(|e| io_failure("a secret cannot be opened", &e))?;
        if !meta.is_file() || !private(&meta) {
            return Err(damaged("its file is not a plain one that only its owner can read"));
        }
        Ok(Some(file))
    }

    /// One writer at a time, over all processes; what a writer that crashed has left is removed.
    fn lock(&self) -> Result<File, Failure> {
        state_dir::create_private(&self.dir, false)
            .map_err(|e| io_failure("it cannot be created", &e))?;
        let failed = |e: io::Error| io_failure("it cannot be locked", &e);
        let lock = options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        for entry in fs::read_dir(&self.dir).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(lock)
    }

    /// Makes a rename or removal durable.
    fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

/// Opens for the owner alone, and never through a link.
fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes of files are of Unix"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
        if let Ok(flags) = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()) {
            options.custom_flags(flags);
        }
    }
    options
}

#[cfg(unix)]
fn private(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    meta.mode() & 0o077 == 0 && meta.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn private(_: &fs::Metadata) -> bool {
    true
}

/// Reads the first line, and gives what was read of the value besides.
fn header(file: &mut File) -> Result<(SecretInfo, Zeroizing<Vec<u8>>), Failure> {
    let mut start = Zeroizing::new(vec![0; MAX_HEADER]);
    let mut length = 0;
    while let Some(free) = start.get_mut(length..).filter(|free| !free.is_empty()) {
        match file.read(free) {
            Ok(0) => break,
            Ok(count) => length = length.saturating_add(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_failure("a secret cannot be read", &e)),
        }
    }
    start.truncate(length);
    let end = start.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no header"))?;
    let (line, rest) = start.split_at(end);
    let info = serde_json::from_slice(line).map_err(|_| damaged("its header cannot be read"))?;
    let rest = Zeroizing::new(rest.get(1..).unwrap_or_default().to_vec());
    Ok((info, rest))
}

impl secret::Secrets for SecretStore {
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SecretValue>, Failure>> {
        let (store, name) = (self.clone(), name.to_owned());
        Box::pin(async move { blocking(move || store.get(&name)).await? })
    }
}

impl HostInner {
    /// The environment variables that an instance gets from secrets: those of `wanted` (variable to
    /// secret) on whose secrets it has a right. Read in the instance's name, so that its record has them.
    pub(crate) async fn secret_environment(
        &self,
        caller: &Caller,
        rights: &CapabilitySet,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let mut environment = BTreeMap::new();
        for (variable, name) in wanted {
            let access = Access::new(Kind::Secret, name);
            if rights.allows(&access).is_none() {
                continue;
            }
            let action =
                Action::new(RecordKind::Secret).access(access).detail("for the environment");
            let value = self
                .gate()
                .run(caller, action, || async {
                    let value = secret::Secrets::read(&self.secrets, name).await?;
                    value.ok_or_else(|| secret::not_set(name))
                })
                .await?;
            environment.insert(variable.clone(), value.expose().to_owned());
        }
        Ok(environment)
    }
}

/// Checks an environment variable that is to be set from a secret.
pub(crate) fn check_variable(variable: &str, name: &str) -> Result<(), Failure> {
    secret::check_name(name)?;
    let shown = escape(variable, 80);
    let mut bytes = variable.bytes();
    let is_name = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && variable.len() <= 256;
    if !is_name {
        let message = format!("{shown} is no name of an environment variable");
        return Err(Failure::new(ErrorCode::InvalidParams, message)
            .hint("A-Z a-z 0-9 and _, not beginning with a digit"));
    }
    if let Some(group) = palisade_manifest::environment::foreign_code(variable) {
        let message = format!("the environment variable {shown} cannot be set for a plugin");
        return Err(Failure::new(ErrorCode::Denied, message)
            .rule(format!("{group} lets loaders run code that is not the plugin's")));
    }
    Ok(())
}

/// The operator's secrets. Each operation is recorded before it happens; values are never in the record.
impl Control {
    fn secret_action(name: &str) -> Action<'_> {
        Action::new(RecordKind::Secret).name(name)
    }

    /// Sets a secret, in place of the value that it may have. Says whether it had one.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParams`] for a name that is none (see [`secret::check_name`]),
    /// [`ErrorCode::LimitExceeded`] above [`MAX_SECRETS`], [`ErrorCode::Denied`] for callers that are
    /// not owners, what the record refuses, and errors of the file system.
    pub async fn set_secret(&self, name: &str, value: SecretValue) -> Result<bool, Failure> {
        self.owner()?;
        secret::check_name(name)?;
        let (store, now, own) = (self.host().secrets.clone(), self.host().now(), name.to_owned());
        let action = Self::secret_action(name).detail("set");
        let set = || async move { blocking(move || store.set(&own, &value, now)).await? };
        self.host().gate().run(self.caller(), action, set).await
    }

    /// The secrets that are set, by name, without their values.
    ///
    /// # Errors
    /// As [`Control::set_secret`].
    pub async fn secrets(&self) -> Result<Vec<SecretInfo>, Failure> {
        self.owner()?;
        let store = self.host().secrets.clone();
        let action = Action::new(RecordKind::Secret).detail("list");
        let list = || async move { blocking(move || store.list()).await? };
        self.host().gate().run(self.caller(), action, list).await
    }

    /// The value of a secret, if it is set.
    ///
    /// # Errors
    /// As [`Control::set_secret`].
    pub async fn secret(&self, name: &str) -> Result<Option<SecretValue>, Failure> {
        self.owner()?;
        secret::check_name(name)?;
        let store = &self.host().secrets;
        let action = Self::secret_action(name).detail("read");
        let read = || async { secret::Secrets::read(store, name).await };
        self.host().gate().run(self.caller(), action, read).await
    }

    /// Removes a secret. Plugins that have read it keep what they read.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it is not set, and as [`Control::set_secret`].
    pub async fn remove_secret(&self, name: &str) -> Result<(), Failure> {
        self.owner()?;
        secret::check_name(name)?;
        let (store, own) = (self.host().secrets.clone(), name.to_owned());
        let action = Self::secret_action(name).detail("remove");
        let remove = || async move {
            match blocking(move || store.remove(&own)).await?? {
                true => Ok(()),
                false => {
                    let message = format!("there is no secret {name}");
                    Err(Failure::new(ErrorCode::NotFound, message)
                        .hint("palisade secret list shows those that are set"))
                }
            }
        };
        self.host().gate().run(self.caller(), action, remove).await
    }
}

#[cfg(test)]
mod tests;
