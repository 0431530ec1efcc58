//! Paths and programs that a manifest names.
//!
//! Purely lexical: whether a file is there, and what a symbolic link on the way leads to, is found out
//! by whoever opens it.

use std::fmt;

/// Longest path in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// A path inside the plugin's folder: relative, `/` between its parts, no `..`, no control character,
/// at most [`MAX_PATH_BYTES`]. `./` in front and between is taken out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(String);

impl RelPath {
    /// Checks `text`.
    ///
    /// # Errors
    /// What does not fit, as the end of a sentence that begins with the path.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with('/') {
            return Err("must be relative to the plugin's folder");
        }
        check(text)?;
        let parts: Vec<&str> = text.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err("may not lead out of the plugin's folder with \"..\"");
        }
        if text.contains('\\') {
            return Err("has \"/\" between its parts, not \"\\\"");
        }
        if parts.first().is_some_and(|first| first.contains(':')) {
            return Err("may not begin with a drive or a scheme");
        }
        if parts.is_empty() || text.ends_with('/') {
            return Err("must name a file");
        }
        Ok(Self(parts.join("/")))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for RelPath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_PATH_BYTES {
        return Err("is longer than 1024 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("may not hold control characters");
    }
    Ok(())
}

/// An absolute path without `..` and control characters, at most [`MAX_PATH_BYTES`].
fn absolute(text: &str) -> Result<String, &'static str> {
    check(text)?;
    palisade_model::capability::normalize_path(text).ok_or("may not hold \"..\"")
}

/// A program by its bare name: at most 64 of `A-Z a-z 0-9 . _ + -`, not beginning with `-` or `.`.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Program {
    /// A file in the plugin's folder.
    File(RelPath),
    /// A file of this machine.
    Absolute(String),
    /// A program of this machine, looked for on the host's `PATH`.
    Name(String),
}

impl Program {
    /// Whether it lies in the plugin's folder.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Reads a command: absolute with a leading `/`, inside the folder with any other `/`, a name on
    /// `PATH` without.
    ///
    /// # Errors
    /// What does not fit, as the end of a sentence that begins with the command.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with('/') {
            let path = absolute(text)?;
            if path == "/" { Err("must name a file") } else { Ok(Self::Absolute(path)) }
        } else if text.contains('/') {
            // `./tool` is the way to name a file at the top of the folder.
            RelPath::parse(text).map(Self::File)
        } else {
            check(text)?;
            if is_name(text) {
                Ok(Self::Name(text.to_owned()))
            } else {
                Err(
                    "is neither an absolute path, nor a path inside the plugin's folder with a \"/\", nor a program's name",
                )
            }
        }
    }
}

impl fmt::Display for Program {
    /// The form that [`Program::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) if path.0.contains('/') => write!(f, "{path}"),
            Self::File(path) => write!(f, "./{path}"),
            Self::Absolute(path) => f.write_str(path),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Which Python runs the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interpreter {
    /// A program on the host's `PATH`; `python3` where the manifest says nothing.
    Name(String),
    /// A file of this machine.
    Absolute(String),
    /// The Python of a virtual environment in the plugin's folder, written `venv:FOLDER`.
    Venv(RelPath),
}

impl Interpreter {
    /// Reads a name, an absolute path or `venv:FOLDER`.
    ///
    /// # Errors
    /// What does not fit, as the end of a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(folder) = text.strip_prefix("venv:") {
            return RelPath::parse(folder).map(Self::Venv);
        }
        match Program::parse(text)? {
            Program::Name(name) => Ok(Self::Name(name)),
            Program::Absolute(path) => Ok(Self::Absolute(path)),
            Program::File(_) => Err("is neither a name, nor an absolute path, nor venv:FOLDER"),
        }
    }
}

impl Default for Interpreter {
    fn default() -> Self {
        Self::Name("python3".into())
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Absolute(text) => f.write_str(text),
            Self::Venv(folder) => write!(f, "venv:{folder}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside_the_folder() {
        for (good, normal) in
            [("main.py", "main.py"), ("./src//main.py", "src/main.py"), ("a/..b/c..", "a/..b/c..")]
        {
            assert_eq!(RelPath::parse(good).map(|p| p.0), Ok(normal.to_owned()));
        }
        let long = "a/".repeat(512) + "b";
        for bad in [
            "",
            ".",
            "./",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "a\0b",
            "a\nb",
            "dir/",
            "..\\x",
            "C:/x",
            "file:x",
            "a\u{85}b",
            &long,
        ] {
            assert!(RelPath::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_program_is_read_and_written_alike() {
        for text in ["/usr/bin/env", "./tool", "bin/tool", "npx", "python3.12"] {
            assert_eq!(Program::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "-c", "a b", "rm;x", "/", "/../x", "../x", "a/../../b", "tool\n", ".hidden"]
        {
            assert!(Program::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for text in ["python3", "/opt/py/bin/python", "venv:.venv"] {
            assert_eq!(Interpreter::parse(text).unwrap().to_string(), text);
        }
        assert!(Interpreter::parse("bin/python").is_err());
        assert!(Interpreter::parse("venv:../x").is_err());
    }
}
