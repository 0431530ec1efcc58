//! Hosts that take no care, as positive controls of what is attempted against ours. What they do is Python's part
//! (`careless.py`); an attempt that works there shows that the care is what stops it here.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    control::WORKS,
    scene::Stage,
    trouble::{Result, While},
};

const PROGRAM: &str = include_str!("careless.py");
/// Where an attempt does not even work there.
const NEITHER: &str = "impossible: it does not work without care either";

/// One of them, to be started in `folder`.
pub(crate) fn host(folder: &Path, what: &str, args: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.arg("-c").arg(PROGRAM).arg(what).args(args).current_dir(folder);
    python.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    python
}

/// Whether the attempt works on one of them.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn is_fooled(folder: &Path, what: &str, args: &[&str]) -> Result<bool> {
    let ended = host(folder, what, args).output().doing("a host that takes no care")?;
    Ok(ended.status.success())
}

/// The control of an attempt of the attacker's own.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn works(stage: &Stage, what: &str, args: &[&str]) -> Result<String> {
    let attacker = stage.plugin.join("attacker").display().to_string();
    let args = [&[attacker.as_str()], args].concat();
    Ok(said(is_fooled(stage.base.path(), what, &args)?))
}

/// In the words of a row.
pub(crate) fn said(works: bool) -> String {
    if works { WORKS } else { NEITHER }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is no control that says yes to everything.
    #[test]
    fn who_was_not_agreed_to_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let file = file.to_str().unwrap();
        let asks = |id: &str, right: &str| {
            let plugin = folder.path().join("plugin");
            std::fs::create_dir_all(&plugin).unwrap();
            let text = format!("id: {id}\n  - {{ capability: 'fs.read:{right}', reason: Ok. }}\n");
            std::fs::write(plugin.join("plugin.yaml"), text).unwrap();
        };
        let call = || is_fooled(folder.path(), "call", &["id", "plugin", file]).unwrap();
        asks("one", file);
        assert!(is_fooled(folder.path(), "agree", &["id", "plugin"]).unwrap());
        assert!(call());
        asks("one", "/other/*");
        assert!(!call(), "it does not ask for it");
        asks("two", file);
        assert!(!call(), "it was not agreed to");
    }
}
