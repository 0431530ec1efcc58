//! A registry on the loopback interface, as small as one can be: npm packages and a Python index.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read as _, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

/// What it answers for a path: content type and body.
type Pages = BTreeMap<String, (&'static str, Vec<u8>)>;

#[derive(Default)]
struct State {
    pages: Pages,
    packuments: BTreeMap<String, Value>,
    /// Path, and the `Authorization` that came with it.
    seen: Vec<(String, Option<String>)>,
    /// Wait before each answer.
    delay: std::time::Duration,
}

/// The registry. Its thread ends with the test's process.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&registry.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        registry
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were asked for.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Every `Authorization` that came.
    pub(crate) fn credentials(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.iter().filter_map(|(_, auth)| auth.clone()).collect()
    }

    pub(crate) fn slow(&self, delay: std::time::Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub(crate) fn page(&self, path: &str, kind: &'static str, body: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().pages.insert(path.to_owned(), (kind, body.into()));
    }

    /// Publishes an npm package: `files` beside a `package.json` that is `manifest` with name and version.
    pub(crate) fn npm(&self, name: &str, version: &str, manifest: Value, files: &[(&str, &str)]) {
        self.npm_at(name, version, manifest, files, &self.url());
    }

    /// The same, with the archive said to be on another server.
    pub(crate) fn npm_at(
        &self,
        name: &str,
        version: &str,
        mut manifest: Value,
        files: &[(&str, &str)],
        server: &str,
    ) {
        manifest["name"] = json!(name);
        manifest["version"] = json!(version);
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<(String, String)> =
            files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        all.push(("package.json".to_owned(), manifest.to_string()));
        for (path, text) in all {
            let path = dir.path().join("package").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let archive = dir.path().join("x.tgz");
        let status = Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .arg("package")
            .status();
        assert!(status.unwrap().success());
        let path = format!("/{name}/-/{}-{version}.tgz", name.rsplit('/').next().unwrap());
        self.page(&path, "application/octet-stream", std::fs::read(&archive).unwrap());
        manifest["dist"] = json!({"tarball": format!("{server}{path}")});
        if manifest["scripts"].get("postinstall").is_some()
            || files.iter().any(|(p, _)| *p == "binding.gyp")
        {
            manifest["hasInstallScript"] = json!(true);
        }
        let mut state = self.state.lock().unwrap();
        let packument = state
            .packuments
            .entry(format!("/{}", name.replace('/', "%2f")))
            .or_insert_with(|| json!({"name": name, "dist-tags": {}, "versions": {}}));
        packument["versions"][version] = manifest;
        packument["dist-tags"]["latest"] = json!(version);
    }

    /// Publishes a wheel with one module and one command.
    pub(crate) fn wheel(&self, name: &str, version: &str, code: &str, requires: &[&str]) {
        let module = name.replace('-', "_");
        let dir = tempfile::tempdir().unwrap();
        let file = format!("{module}-{version}-py3-none-any.whl");
        let info = format!("{module}-{version}.dist-info");
        let requires: String = requires.iter().map(|r| format!("Requires-Dist: {r}\n")).collect();
        let files = json!({
            format!("{module}.py"): code,
            format!("{info}/METADATA"): format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\n"),
            format!("{info}/WHEEL"): "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            format!("{info}/entry_points.txt"): format!("[console_scripts]\n{name} = {module}:main\n"),
            format!("{info}/RECORD"): format!("{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/entry_points.txt,,\n{info}/RECORD,,\n"),
        });
        let make = "import json, sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\nfor n, t in json.loads(sys.argv[2]).items(): z.writestr(n, t)\nz.close()";
        let path = dir.path().join(&file);
        let status =
            Command::new("python3").args(["-c", make]).arg(&path).arg(files.to_string()).status();
        assert!(status.unwrap().success());
        self.file(name, &file, &path);
    }

    /// Publishes a file of a Python package.
    pub(crate) fn file(&self, name: &str, file: &str, path: &Path) {
        self.page(
            &format!("/files/{file}"),
            "application/octet-stream",
            std::fs::read(path).unwrap(),
        );
        let at = format!("/simple/{name}/");
        let mut state = self.state.lock().unwrap();
        let (_, page) = state.pages.entry(at).or_insert(("text/html", Vec::new()));
        page.extend_from_slice(format!("<a href=\"../../files/{file}\">{file}</a>\n").as_bytes());
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        // Through a proxy the whole address may stand there.
        let path = path
            .strip_prefix("http://")
            .and_then(|p| p.find('/').map(|at| p[at..].to_owned()))
            .unwrap_or(path);
        let (mut auth, mut length) = (None, 0usize);
        loop {
            let mut header = String::new();
            if !matches!(reader.read_line(&mut header), Ok(1..)) || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            match name.to_ascii_lowercase().as_str() {
                "authorization" => auth = Some(value.trim().to_owned()),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        let _ = reader.read_exact(&mut body);
        let (status, kind, body, delay) = {
            let mut state = state.lock().unwrap();
            state.seen.push((path.clone(), auth));
            let plain = path.split('?').next().unwrap();
            let found = state
                .packuments
                .get(&plain.replace("%2F", "%2f"))
                .map(|p| ("application/json", p.to_string().into_bytes()))
                .or_else(|| state.pages.get(plain).cloned());
            match found {
                Some((kind, body)) => ("200 OK", kind, body, state.delay),
                None => ("404 Not Found", "text/plain", Vec::new(), state.delay),
            }
        };
        std::thread::sleep(delay);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}
