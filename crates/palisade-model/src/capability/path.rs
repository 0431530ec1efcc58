//! Path scopes: an absolute path, or a folder with everything below it (`/srv/texts/**`).
//!
//! These two forms and no others, because a mount can hold exactly them. Purely lexical: the file
//! system is not asked, and `.` and `..` are refused rather than resolved.

use std::{borrow::Cow, fmt};

/// Longest path in bytes (Linux PATH_MAX less the terminating NUL).
const MAX_PATH: usize = 4095;

/// One path, or a folder and everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathScope {
    /// Normalised: absolute, no empty, `.` or `..` component, no trailing slash but for `/` itself.
    path: String,
    below: bool,
}

/// Checks that `path` is absolute and holds no `..`, and gives it with repeated slashes, `.` and the
/// trailing slash taken out. `None` where it is not, or where it holds a NUL, a control character or is
/// too long.
#[must_use]
pub fn normalize_path(path: &str) -> Option<String> {
    canonical(path).map(Cow::into_owned)
}

/// [`normalize_path`] that copies only where something has to be taken out.
pub(super) fn canonical(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') || path.len() > MAX_PATH || has_control(path) {
        return None;
    }
    let mut kept = 0;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => kept += 1 + part.len(),
        }
    }
    if kept.max(1) == path.len() {
        return Some(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(kept.max(1));
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    Some(Cow::Owned(out))
}

fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().any(|b| b.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

impl PathScope {
    pub(super) fn parse(scope: &str) -> Result<Self, String> {
        if scope.is_empty() {
            return Err("the scope is empty".into());
        }
        let (path, below) = match scope.strip_suffix("/**") {
            Some("") => ("/", true),
            Some(folder) => (folder, true),
            None => (scope, false),
        };
        if path.contains('*') {
            return Err(
                "a wildcard is allowed only as a last /**, because only that can be mounted".into(),
            );
        }
        let path = normalize_path(path).ok_or_else(|| {
            "the path must be absolute, without '..' and without control characters".to_owned()
        })?;
        Ok(Self { path, below })
    }

    /// The path (the folder itself, where the scope ends in `/**`).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether everything below the path is meant too.
    #[must_use]
    pub fn covers_below(&self) -> bool {
        self.below
    }

    /// The same scope with another path; used once the path's symlinks were resolved.
    ///
    /// # Errors
    /// When `path` is not a normal absolute path.
    pub fn with_path(&self, path: &str) -> Result<Self, String> {
        let path = normalize_path(path).ok_or("not an absolute path")?;
        Ok(Self { path, below: self.below })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.below && self.path == "/"
    }

    pub(super) fn matches(&self, target: &str) -> bool {
        canonical(target).is_some_and(|t| self.contains(&t))
    }

    fn contains(&self, normal: &str) -> bool {
        if normal == self.path {
            return true;
        }
        self.below
            && (self.path == "/"
                || normal
                    .strip_prefix(self.path.as_str())
                    .is_some_and(|rest| rest.starts_with('/')))
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        other.contains(&self.path) && (!self.below || other.below)
    }
}

impl fmt::Display for PathScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.below, self.path.as_str()) {
            (true, "/") => f.write_str("/**"),
            (true, path) => write!(f, "{path}/**"),
            (false, path) => f.write_str(path),
        }
    }
}
