//! How npm is configured: which registry, whom it trusts, what it says to it.
//!
//! The files are read here as npm reads them (its documentation, "npmrc"): `key = value` lines, `${NAME}`
//! from the environment; later sources win: npm's own file, the global file, the user's, then variables
//! `npm_config_…`. A project's own `.npmrc` is not read: whoever wrote the project wrote it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use palisade_egress::{Authority, Target};
use palisade_model::text::escape;

use crate::{CommandError, Context, analyse::SHOWN};

/// npm's own default (`npm config get registry` where nothing is configured).
const DEFAULT: &str = "https://registry.npmjs.org/";
/// Longest file that is read.
const MAX_FILE: u64 = 256 * 1024;
/// Settings that are handed on beside those of registries.
const HANDED_ON: [&str; 7] = [
    "strict-ssl",
    "before",
    "min-release-age",
    "replace-registry-host",
    "ca",
    "ca[]",
    "always-auth",
];

/// What the resolve step is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Npmrc {
    /// The registry for packages without a scope of its own.
    pub(super) registry: String,
    /// An `.npmrc` with the settings that matter. Holds secrets.
    pub(super) text: String,
    /// The servers of all registries in it.
    pub(super) authorities: BTreeSet<Authority>,
    /// Certificates and keys that it names, links resolved.
    pub(super) files: Vec<PathBuf>,
}

/// Reads the configuration. `npm` is npm's own folder, `node` the interpreter; `registry` replaces the
/// configured one.
pub(super) fn read(
    context: &Context,
    node: &Path,
    npm: &Path,
    registry: Option<&str>,
) -> Result<Npmrc, CommandError> {
    let mut settings = BTreeMap::new();
    file(&npm.join("npmrc"), context, &mut settings);
    let user = variable(context, "userconfig")
        .map(PathBuf::from)
        .or_else(|| Some(context.home.as_ref()?.join(".npmrc")));
    let mut of_user = BTreeMap::new();
    if let Some(user) = user {
        file(&user, context, &mut of_user);
    }
    let global = variable(context, "globalconfig").map(PathBuf::from).unwrap_or_else(|| {
        let prefix = variable(context, "prefix")
            .or_else(|| of_user.get("prefix").cloned())
            .or_else(|| settings.get("prefix").cloned())
            .map(PathBuf::from)
            .or_else(|| Some(node.parent()?.parent()?.to_path_buf()));
        prefix.unwrap_or_else(|| PathBuf::from("/usr")).join("etc/npmrc")
    });
    file(&global, context, &mut settings);
    settings.extend(of_user);
    for (name, value) in &context.env {
        if let Some(key) = name.to_ascii_lowercase().strip_prefix("npm_config_")
            && !value.is_empty()
        {
            settings.insert(key.replace('_', "-"), value.clone());
        }
    }
    if let Some(registry) = registry {
        settings.insert("registry".into(), registry.to_owned());
    }
    compose(settings, context)
}

fn compose(settings: BTreeMap<String, String>, context: &Context) -> Result<Npmrc, CommandError> {
    for key in ["proxy", "https-proxy", "http-proxy"] {
        if settings.get(key).is_some_and(|v| !v.is_empty() && v != "null" && v != "false") {
            return Err(CommandError::Configuration {
                what: format!("npm is configured with a proxy ({key}), which the resolve step does not go through"),
                hint: "install the package yourself (npm install --prefix DIR PACKAGE) and write node DIR/node_modules/PACKAGE/SCRIPT".into(),
            });
        }
    }
    let mut registry = settings.get("registry").cloned().unwrap_or_else(|| DEFAULT.to_owned());
    if !registry.ends_with('/') {
        registry.push('/');
    }
    let mut npmrc = Npmrc {
        registry: registry.clone(),
        text: format!("registry={registry}\n"),
        authorities: BTreeSet::from([authority(&registry)?]),
        files: Vec::new(),
    };
    let mut line = |key: &str, value: &str| {
        npmrc.text.push_str(&format!("{key}={value}\n"));
    };
    let mut files = Vec::new();
    let mut scoped = Vec::new();
    for (key, value) in &settings {
        if value.contains(['\n', '\r']) && key != "ca" {
            continue;
        }
        let is_file = key == "cafile"
            || (key.starts_with("//") && (key.ends_with(":certfile") || key.ends_with(":keyfile")));
        if is_file {
            // Paths count from where npm runs; the real one is shown and named.
            if let Ok(real) = context.absolute(value).canonicalize() {
                line(key, &real.to_string_lossy());
                files.push(real);
            }
        } else if key.starts_with('@') && key.ends_with(":registry") {
            line(key, value);
            scoped.push(value.clone());
        } else if key.starts_with("//") || HANDED_ON.contains(&key.as_str()) {
            line(key, value);
        }
    }
    for url in scoped {
        npmrc.authorities.insert(authority(&url)?);
    }
    npmrc.files = files;
    Ok(npmrc)
}

fn authority(url: &str) -> Result<Authority, CommandError> {
    Target::parse(url).map(|target| target.authority().clone()).map_err(|error| {
        CommandError::Configuration {
            what: format!("npm's registry {} cannot be used: {error}", without_user(url)),
            hint:
                "see `npm config get registry`; user names and tokens belong in //HOST/:_authToken"
                    .into(),
        }
    })
}

/// A URL for people: without what may be a password.
pub(super) fn without_user(url: &str) -> String {
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    };
    escape(&shown, SHOWN)
}

/// A variable `npm_config_NAME`, in any case.
fn variable(context: &Context, name: &str) -> Option<String> {
    let wanted = format!("npm_config_{name}");
    let found = context
        .env
        .iter()
        .find(|(key, value)| key.eq_ignore_ascii_case(&wanted) && !value.is_empty());
    found.map(|(_, value)| value.clone())
}

/// Adds the settings of one file; a file that is not there has none.
fn file(path: &Path, context: &Context, settings: &mut BTreeMap<String, String>) {
    let mut text = String::new();
    if File::open(path).and_then(|f| f.take(MAX_FILE).read_to_string(&mut text)).is_err() {
        return;
    }
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        let value = value.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .or_else(|| value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')))
            .unwrap_or(value);
        settings.insert(expand(key.trim(), context), expand(bare, context));
    }
}

/// `${NAME}` and `${NAME?}`; an unknown one stays as it is (npm's env-replace).
fn expand(text: &str, context: &Context) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        match (context.env.get(name.trim_end_matches('?')), name.ends_with('?')) {
            (Some(value), _) => out.push_str(value),
            (None, true) => {}
            (None, false) => out.push_str(&format!("${{{name}}}")),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_merged_and_only_what_matters_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir_all(dir.path().join("usr/etc")).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(
            dir.path().join("usr/etc/npmrc"),
            "registry=https://global.test/\nfund=false\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("ca.pem"), "x").unwrap();
        std::fs::write(
            home.join(".npmrc"),
            format!(
                "; mine\n@acme:registry = http://127.0.0.1:4873\n//user.test/:_authToken=${{TOKEN}}\nregistry=\"https://user.test/npm\"\ncafile={}\neditor=vi\n",
                dir.path().join("ca.pem").display()
            ),
        )
        .unwrap();
        let mut context = Context {
            directory: "/".into(),
            home: Some(home),
            env: [("TOKEN".to_owned(), "s3cret".to_owned())].into(),
        };
        let node = dir.path().join("usr/bin/node");
        let read = |context: &Context, registry| read(context, &node, Path::new("/none"), registry);
        let npmrc = read(&context, None).unwrap();
        assert_eq!(npmrc.registry, "https://user.test/npm/");
        let names: Vec<String> = npmrc.authorities.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["user.test:443", "127.0.0.1:4873"]);
        assert!(npmrc.text.contains("//user.test/:_authToken=s3cret\n"));
        assert!(npmrc.text.contains("@acme:registry=http://127.0.0.1:4873\n"));
        assert!(!npmrc.text.contains("editor") && !npmrc.text.contains("fund"));
        assert_eq!(npmrc.files, [dir.path().join("ca.pem").canonicalize().unwrap()]);

        context.env.insert("NPM_CONFIG_REGISTRY".into(), "https://env.test".into());
        assert_eq!(read(&context, None).unwrap().registry, "https://env.test/");
        assert_eq!(read(&context, Some("https://arg.test")).unwrap().registry, "https://arg.test/");
        context.env.insert("npm_config_https_proxy".into(), "http://proxy.test:1".into());
        assert!(matches!(read(&context, None), Err(CommandError::Configuration { .. })));
    }

    #[test]
    fn nothing_configured_is_the_default_of_npm() {
        let context = Context { directory: "/".into(), home: None, env: BTreeMap::new() };
        let npmrc = read(&context, Path::new("/none/bin/node"), Path::new("/none"), None).unwrap();
        assert_eq!(npmrc.text, format!("registry={DEFAULT}\n"));
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(without_user("https://u:p@h/x"), "https://…@h/x");
    }
}
