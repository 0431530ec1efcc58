//! Which machine this is, as the outside wrote it into the initramfs.

use std::fs;

use serde::Deserialize;

use crate::{FOLDER, Result};

/// What the outside decided.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Machine {
    /// The name of the machine: it decides which situations are made.
    pub(crate) name: String,
    /// Only what must be looked at before every change.
    pub(crate) short: bool,
    /// Boots on into the system on the disk.
    pub(crate) disk: bool,
    /// Only the situations of these names; all where there is none.
    pub(crate) only: Vec<String>,
    /// Only the steps that have one of these in their name; all where there is none.
    pub(crate) steps: Vec<String>,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let path = format!("{FOLDER}/machine.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))
    }
}
