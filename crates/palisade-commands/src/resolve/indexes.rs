//! How pip and uv are configured: which indexes, and whom they trust.
//!
//! uv and pip do not read each other's configuration. Here that of the client that runs comes
//! first, and where that says nothing, the other; then PyPI. Files and variables are those of their
//! documentation ("Configuration" of pip, "Package indexes" of uv).

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use http::{HeaderMap, HeaderValue, header};
use palisade_egress::Target;

use super::npmrc::without_user;
use crate::{CommandError, Context};

/// Where pip and uv look if nothing is configured.
const DEFAULT: &str = "https://pypi.org/simple";
const MAX_FILE: u64 = 256 * 1024;

/// The indexes that packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Indexes {
    /// The first is the main one. As configured, perhaps with a password.
    pub(super) urls: Vec<String>,
    /// Certificates to trust, link resolved.
    pub(super) certificates: Option<PathBuf>,
}

/// One index, ready to be asked.
pub(super) struct Index {
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
}

impl Indexes {
    /// The indexes, taken apart.
    pub(super) fn parsed(&self) -> Result<Vec<Index>, CommandError> {
        self.urls.iter().map(|url| index(url)).collect()
    }

    /// For people and for keys: without passwords.
    pub(super) fn shown(&self) -> Vec<String> {
        self.urls.iter().map(|url| without_user(url)).collect()
    }
}

fn index(url: &str) -> Result<Index, CommandError> {
    let mut headers = HeaderMap::new();
    let mut plain = url.to_owned();
    if let Some((scheme, rest)) = url.split_once("://")
        && let Some((authority, path)) = Some(rest.split_once('/').unwrap_or((rest, "")))
        && let Some((user, host)) = authority.rsplit_once('@')
    {
        plain = format!("{scheme}://{host}/{path}");
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let credentials = format!("{}:{}", percent_decoded(name), percent_decoded(password));
        let mut value = HeaderValue::from_str(&format!("Basic {}", base64(credentials.as_bytes())))
            .map_err(|_| bad(url, "its user name cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    if !plain.ends_with('/') {
        plain.push('/');
    }
    let target = Target::parse(&plain).map_err(|error| bad(url, &error.to_string()))?;
    Ok(Index { target, headers })
}

fn bad(url: &str, why: &str) -> CommandError {
    CommandError::Configuration {
        what: format!("the package index {} cannot be used: {why}", without_user(url)),
        hint: "see `pip config list`, or UV_DEFAULT_INDEX and uv.toml".into(),
    }
}

/// Reads the configuration. `uv_first`: uv is the client. `registry` and `more` are what the command line
/// names itself.
pub(super) fn read(
    context: &Context,
    prefix: &Path,
    uv_first: bool,
    registry: Option<&str>,
    more: &[String],
) -> Result<Indexes, CommandError> {
    let (uv, pip) = (of_uv(context), of_pip(context, prefix)?);
    let (first, second) = if uv_first { (&uv, &pip) } else { (&pip, &uv) };
    let chosen = if first.main.is_some() || !first.more.is_empty() { first } else { second };
    let main = registry.map(str::to_owned).or_else(|| chosen.main.clone());
    let mut urls = vec![main.unwrap_or_else(|| DEFAULT.to_owned())];
    for url in more.iter().chain(&chosen.more) {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    let trusted = [
        first.certificates.clone(),
        second.certificates.clone(),
        context.var("REQUESTS_CA_BUNDLE").map(str::to_owned),
        context.var("SSL_CERT_FILE").map(str::to_owned),
    ];
    let certificates =
        trusted.into_iter().flatten().find_map(|file| context.absolute(&file).canonicalize().ok());
    Ok(Indexes { urls, certificates })
}

#[derive(Default)]
struct Configured {
    main: Option<String>,
    more: Vec<String>,
    certificates: Option<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn of_uv(context: &Context) -> Configured {
    let mut found = Configured::default();
    let user = context
        .var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(context.home.as_ref()?.join(".config")));
    let own = context.var("UV_CONFIG_FILE").map(|file| context.absolute(file));
    let files = match own {
        Some(file) => vec![file],
        None => [Some(PathBuf::from("/etc/uv/uv.toml")), user.map(|dir| dir.join("uv/uv.toml"))]
            .into_iter()
            .flatten()
            .collect(),
    };
    for file in files {
        let Some(table) = text_of(&file).and_then(|text| text.parse::<toml::Table>().ok()) else {
            continue;
        };
        let pip = table.get("pip").and_then(toml::Value::as_table);
        let text = |key: &str| {
            let value = table.get(key).or_else(|| pip?.get(key))?;
            value.as_str().map(str::to_owned)
        };
        found.main = text("index-url").or(found.main);
        for url in
            table.get("extra-index-url").and_then(toml::Value::as_array).into_iter().flatten()
        {
            found.more.extend(url.as_str().map(str::to_owned));
        }
        for index in table.get("index").and_then(toml::Value::as_array).into_iter().flatten() {
            let Some(url) = index.get("url").and_then(toml::Value::as_str) else { continue };
            if index.get("default").and_then(toml::Value::as_bool) == Some(true) {
                found.main = Some(url.to_owned());
            } else if index.get("explicit").and_then(toml::Value::as_bool) != Some(true) {
                found.more.push(url.to_owned());
            }
        }
    }
    let bare = |url: &str| match url.split_once('=') {
        Some((name, url)) if !name.contains([':', '/']) => url.to_owned(),
        _ => url.to_owned(),
    };
    if let Some(url) = context.var("UV_DEFAULT_INDEX").or_else(|| context.var("UV_INDEX_URL")) {
        found.main = Some(bare(url));
    }
    if let Some(urls) = context.var("UV_INDEX").or_else(|| context.var("UV_EXTRA_INDEX_URL")) {
        found.more = words(urls).iter().map(|url| bare(url)).collect();
    }
    found.certificates = context.var("SSL_CERT_FILE").map(str::to_owned);
    found
}

fn of_pip(context: &Context, prefix: &Path) -> Result<Configured, CommandError> {
    let mut settings = BTreeMap::new();
    let home = context.home.as_deref();
    let config_home =
        context.var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
    let own = context.var("PIP_CONFIG_FILE").map(|file| context.absolute(file));
    let files = [
        Some(PathBuf::from("/etc/xdg/pip/pip.conf")),
        Some(PathBuf::from("/etc/pip.conf")),
        home.map(|h| h.join(".pip/pip.conf")),
        config_home.map(|dir| dir.join("pip/pip.conf")),
        Some(prefix.join("pip.conf")),
        own,
    ];
    for file in files.into_iter().flatten() {
        ini(&text_of(&file).unwrap_or_default(), &mut settings);
    }
    let get = |key: &str| {
        let variable = format!("PIP_{}", key.to_ascii_uppercase().replace('-', "_"));
        context.var(&variable).map(str::to_owned).or_else(|| settings.get(key).cloned())
    };
    if get("proxy").is_some() {
        return Err(CommandError::Configuration {
            what: "pip is configured with a proxy, which the resolve step does not go through".into(),
            hint: "install the package yourself (pipx install PACKAGE) and write the name of its command".into(),
        });
    }
    Ok(Configured {
        main: get("index-url"),
        more: get("extra-index-url").map(|urls| words(&urls)).unwrap_or_default(),
        certificates: get("cert"),
    })
}

/// The sections that count for an installation: `[global]`, over it `[install]`. A value may go on in
/// indented lines.
fn ini(text: &str, settings: &mut BTreeMap<String, String>) {
    let mut sections: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut last) = ("", None::<String>);
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
            (section, last) = (name.trim(), None);
        } else if line.starts_with([' ', '\t'])
            && let Some(key) = &last
        {
            if let Some(value) = sections.entry(section).or_default().get_mut(key) {
                value.push(' ');
                value.push_str(bare);
            }
        } else if let Some((key, value)) = bare.split_once(['=', ':']) {
            let key = key.trim().to_ascii_lowercase().replace('_', "-");
            sections.entry(section).or_default().insert(key.clone(), value.trim().to_owned());
            last = Some(key);
        }
    }
    for section in ["global", "install"] {
        settings.extend(sections.remove(section).unwrap_or_default());
    }
}

fn text_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match (first, digits.and_then(|d| u8::from_str_radix(d, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let part = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let all = part(0) << 16 | part(1) << 8 | part(2);
        for i in 0..4 {
            let letter =
                LETTERS.get(((all >> (18 - 6 * i)) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_the_command_line_comes_first_and_then_the_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".config/pip")).unwrap();
        std::fs::create_dir_all(dir.path().join(".config/uv")).unwrap();
        std::fs::write(
            dir.path().join(".config/pip/pip.conf"),
            "[global]\nindex_url = https://pip.test/simple\nextra-index-url =\n    https://a.test/\n    https://b.test/\n[list]\nindex-url = https://no.test\n",
        )
        .unwrap();
        let mut context =
            Context { directory: "/".into(), home: Some(dir.path().into()), env: BTreeMap::new() };
        let read =
            |context: &Context, uv| read(context, Path::new("/none"), uv, None, &[]).unwrap().urls;
        let pip = ["https://pip.test/simple", "https://a.test/", "https://b.test/"];
        assert_eq!(read(&context, true), pip);
        std::fs::write(
            dir.path().join(".config/uv/uv.toml"),
            "[[index]]\nurl = \"https://uv.test/simple\"\ndefault = true\n[[index]]\nname = \"x\"\nurl = \"https://x.test\"\n",
        )
        .unwrap();
        assert_eq!(read(&context, true), ["https://uv.test/simple", "https://x.test"]);
        assert_eq!(read(&context, false), pip);
        context.env.insert("UV_INDEX_URL".into(), "https://env.test".into());
        assert_eq!(read(&context, true)[0], "https://env.test");
        context.env.insert("PIP_PROXY".into(), "http://proxy.test".into());
        assert!(super::read(&context, Path::new("/none"), true, None, &[]).is_err());
    }

    #[test]
    fn a_password_becomes_a_header() {
        let index = index("https://me:p%40ss@h.test/simple").unwrap();
        assert_eq!(index.target.to_string(), "https://h.test/simple/");
        assert_eq!(index.headers["authorization"], "Basic bWU6cEBzcw==");
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
