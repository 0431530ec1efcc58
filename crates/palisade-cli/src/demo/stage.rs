//! The stage of the demo: temptations in a temporary folder, and looking at it for harm.
//!
//! Every check has a control first: the secret can be read and the servers answer on this side of the walls,
//! so that "nothing was achieved" does not mean that there was nothing to achieve.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

/// Names, contents: what there is to count.
const TEXTS: [(&str, &str); 3] = [
    ("fence.txt", "A good fence does not bark. A good fence stands where you put it.\n"),
    ("gate.txt", "The neighbour who knocks at the gate is given cherries.\n"),
    ("more/tree.txt", "The gardener puts a net over the tree, and the gate stays open.\n"),
];
/// Words in [`TEXTS`].
pub(super) const TEXT_WORDS: u64 = 37;

/// See the module. Dropping it removes everything.
pub(super) struct Stage {
    folder: TempDir,
    secret: String,
    port: u16,
    /// Connections that the servers have seen, those of the controls left out.
    visitors: Arc<AtomicUsize>,
}

impl Stage {
    /// Builds the stage and tries every control.
    pub(super) fn build() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("palisade-demo-").tempdir()?;
        let secret = format!("secret-{:016x}", RandomState::new().hash_one("palisade"));
        let at = |name: &str| folder.path().join(name);
        for name in ["plugins", "texts/more", "inbox", "outside", "state"] {
            fs::create_dir_all(at(name))?;
        }
        fs::set_permissions(at("state"), fs::Permissions::from_mode(0o700))?;
        super::plugins::unpack(&at("plugins"))?;
        for (name, text) in TEXTS {
            fs::write(at("texts").join(name), text)?;
        }
        fs::write(at("secret.txt"), &secret)?;

        let visitors = Arc::new(AtomicUsize::new(0));
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        serve(secret.clone(), Arc::clone(&visitors), move || tcp.accept().map(|(s, _)| s))?;
        let socket = at("host.sock");
        let unix = UnixListener::bind(&socket)?;
        serve(secret.clone(), Arc::clone(&visitors), move || unix.accept().map(|(s, _)| s))?;
        let name = SocketAddr::from_abstract_name(socket.as_os_str().as_encoded_bytes())?;
        let hidden = UnixListener::bind_addr(&name)?;
        serve(secret.clone(), Arc::clone(&visitors), move || hidden.accept().map(|(s, _)| s))?;

        let stage = Self { folder, secret, port, visitors };
        stage.control(TcpStream::connect(("127.0.0.1", port))?)?;
        stage.control(UnixStream::connect(&socket)?)?;
        stage.control(UnixStream::connect_addr(&name)?)?;
        if fs::read_to_string(stage.at("secret.txt"))? != stage.secret {
            return Err(io::Error::other("the secret cannot be read on this side either"));
        }
        stage.visitors.store(0, Ordering::SeqCst);
        Ok(stage)
    }

    /// A server that answers this side.
    fn control(&self, mut stream: impl io::Read) -> io::Result<()> {
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        if said == self.secret {
            Ok(())
        } else {
            Err(io::Error::other("a server of the demo does not answer"))
        }
    }

    /// A path on the stage.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text. The temporary folder's name is ASCII, and the folder above it was given to us.
    pub(super) fn text(&self, name: &str) -> String {
        self.at(name).to_string_lossy().into_owned()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What somebody has achieved who should have achieved nothing. `said` is all that the plugin answered.
    pub(super) fn harm(&self, said: &str) -> io::Result<Vec<String>> {
        let mut harm = Vec::new();
        if said.contains(&self.secret) {
            harm.push("it knows the secret".to_owned());
        }
        if let Some((name, _)) = leaked_variable(said) {
            harm.push(format!("it knows the host's environment variable {name}"));
        }
        let visitors = self.visitors.load(Ordering::SeqCst);
        if visitors > 0 {
            harm.push(format!("it reached a server of the host, {visitors} times"));
        }
        if fs::read_dir(self.at("outside"))?.next().is_some() {
            harm.push("it wrote into a folder that was not granted".to_owned());
        }
        for entry in walk(&self.at("inbox"))? {
            let meta = fs::symlink_metadata(&entry)?;
            if meta.permissions().mode() & 0o6000 != 0 {
                harm.push("it left a set-id file in the granted folder".to_owned());
            }
            if meta.is_symlink() {
                harm.push("it left a symbolic link in the granted folder".to_owned());
            }
        }
        let program = fs::read(self.at("plugins/hostile/main.py"))?;
        if program != include_bytes!("../../../../plugins/hostile/main.py") {
            harm.push("it changed its own program".to_owned());
        }
        let status = fs::read_to_string("/proc/self/status")?;
        if !status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|t| t.trim() == "0")) {
            harm.push("it traces the host".to_owned());
        }
        Ok(harm)
    }

    /// Bytes in the data folders of all plugins.
    pub(super) fn data_bytes(&self) -> io::Result<u64> {
        walk(&self.at("state/data"))?.iter().map(|p| Ok(fs::symlink_metadata(p)?.len())).sum()
    }
}

/// A variable of this process that `said` shows with its value. Those that the walls set for every plugin do
/// not count: they may happen to have the same value here.
fn leaked_variable(said: &str) -> Option<(String, String)> {
    const GIVEN: [&str; 11] = [
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "LC_ALL",
        "LC_CTYPE",
        "PWD",
        "PALISADE",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
    ];
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| !GIVEN.contains(&name.as_str()) && !value.is_empty())
        .find(|(name, value)| said.lines().any(|line| line == format!("{name}={value}")))
}

/// Answers everybody with the secret, and counts them.
fn serve<S: io::Write>(
    secret: String,
    visitors: Arc<AtomicUsize>,
    accept: impl Fn() -> io::Result<S> + Send + 'static,
) -> io::Result<()> {
    std::thread::Builder::new().name("demo-server".into()).spawn(move || {
        while let Ok(mut stream) = accept() {
            visitors.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(secret.as_bytes());
        }
    })?;
    Ok(())
}

/// Everything below `folder`; links are not followed.
fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harm_is_noticed() {
        let stage = Stage::build().unwrap();
        assert!(stage.harm("all quiet").unwrap().is_empty());
        assert_eq!(stage.harm(&format!("ha: {}", stage.secret)).unwrap().len(), 1);

        stage.control(TcpStream::connect(("127.0.0.1", stage.port)).unwrap()).unwrap();
        fs::write(stage.at("outside/x"), "").unwrap();
        fs::write(stage.at("inbox/x"), "").unwrap();
        fs::set_permissions(stage.at("inbox/x"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink("/etc", stage.at("inbox/y")).unwrap();
        fs::write(stage.at("plugins/hostile/main.py"), "").unwrap();
        assert_eq!(stage.harm("").unwrap().len(), 5);
    }

    #[test]
    fn a_variable_of_the_host_is_recognised() {
        let (name, value) = std::env::vars()
            .find(|(n, v)| n.starts_with("CARGO_") && !v.is_empty() && !v.contains('\n'))
            .expect("cargo sets variables for tests");
        assert!(leaked_variable(&format!("A=b\n{name}={value}\n")).is_some());
        assert!(leaked_variable("PATH=/usr/bin\nHOME=/data").is_none());
    }
}
