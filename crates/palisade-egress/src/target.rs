//! URLs that can be requested: `http` and `https`, nothing else.
//!
//! Stricter than browsers are, so that no two readers of one URL can disagree (RFC 3986): no user, no
//! backslash, no control character, no space, nothing but ASCII. A fragment is cut off; it never leaves.

use std::fmt;

use crate::{Authority, EgressError};

/// Longest URL, in bytes.
pub const MAX_URL_LEN: usize = 8 * 1024;

/// How to speak to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Within TLS.
    Https,
}

impl Scheme {
    /// The port where none is written.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What is requested: scheme, authority, and path with query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: Scheme,
    authority: Authority,
    path: Box<str>,
}

impl Target {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// [`EgressError::BadUrl`], [`EgressError::BadHost`].
    pub fn parse(url: &str) -> Result<Self, EgressError> {
        check_characters(url)?;
        let no_scheme = EgressError::BadUrl("it must begin with http:// or https://");
        let Some((scheme, rest)) = url.split_once("://") else { return Err(no_scheme) };
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err(no_scheme);
        };
        Self::after_scheme(scheme, rest)
    }

    /// Reads what follows `scheme://`.
    fn after_scheme(scheme: Scheme, rest: &str) -> Result<Self, EgressError> {
        let rest = without_fragment(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(EgressError::BadUrl("it must not carry a user name"));
        }
        let authority = Authority::parse_or(authority, scheme.default_port())?;
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        Ok(Self { scheme, authority, path })
    }

    /// Reads a reference relative to this URL, as a `Location` header may have it (RFC 3986, 5.2).
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn join(&self, reference: &str) -> Result<Self, EgressError> {
        check_characters(reference)?;
        let reference = without_fragment(reference);
        if has_scheme(reference) {
            return Self::parse(reference);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::after_scheme(self.scheme, rest);
        }
        let path = self.path.split('?').next().unwrap_or("/");
        let joined = match reference.chars().next() {
            None => self.path.to_string(),
            Some('?') => format!("{path}{reference}"),
            Some('/') => without_dots(reference),
            Some(_) => {
                let folder = path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or("/");
                without_dots(&format!("{folder}{reference}"))
            }
        };
        if joined.len() > MAX_URL_LEN {
            return Err(EgressError::BadUrl("it is longer than 8 KiB"));
        }
        Ok(Self { path: joined.into(), ..self.clone() })
    }

    /// The same server with another path and query, which is taken as it is.
    ///
    /// # Errors
    /// [`EgressError::BadUrl`], also where it does not begin with `/`.
    pub fn with_path(&self, path: &str) -> Result<Self, EgressError> {
        check_characters(path)?;
        if !path.starts_with('/') {
            return Err(EgressError::BadUrl("its path does not begin with /"));
        }
        Ok(Self { path: without_fragment(path).into(), ..self.clone() })
    }

    /// How to speak to the server.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whom to speak to.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Path and query; begins with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The `Host` header.
    #[must_use]
    pub fn host_header(&self) -> String {
        self.authority.host_header(self.scheme.default_port())
    }

    /// Whether credentials for one may be sent to the other: scheme, host and port are the same.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.host_header(), self.path)
    }
}

fn check_characters(url: &str) -> Result<(), EgressError> {
    if url.len() > MAX_URL_LEN {
        return Err(EgressError::BadUrl("it is longer than 8 KiB"));
    }
    if url.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\".contains(&b)) {
        Ok(())
    } else {
        Err(EgressError::BadUrl("it has a character that must be percent-encoded"))
    }
}

fn without_fragment(text: &str) -> &str {
    text.split('#').next().unwrap_or(text)
}

/// Whether it begins as an absolute URL does: `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ) ":"`.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Takes `.` and `..` out of an absolute path, leaving the query alone (RFC 3986, 5.2.4).
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at_checked(at).unwrap_or((path_and_query, "")),
        None => (path_and_query, ""),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests;
