//! What is told to the outside: one JSON object a line on the second serial port.

use std::{fs::File, io::Write, sync::Mutex};

use serde::{Deserialize, Serialize};

use crate::Result;

const PORT: &str = "/dev/ttyS1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// Everything that will be reported on, in order, and on which kernel. First.
    Plan { situations: Vec<String>, kernel: String, landlock: u32 },
    /// One thing that was looked at.
    Check {
        situation: String,
        name: String,
        ok: bool,
        detail: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counts: Option<Counts>,
    },
    /// A situation is over.
    End { situation: String, millis: u64 },
    /// Nothing more comes. Last.
    Done,
}

/// The port.
pub(crate) struct Port(Mutex<File>);

impl Port {
    /// Opens it raw, so that no byte is changed on the way.
    pub(crate) fn open() -> Result<Self> {
        let port = File::options().read(true).write(true).open(PORT);
        let port = port.map_err(|e| format!("{PORT}: {e}"))?;
        let raw = rustix::termios::tcgetattr(&port).and_then(|mut settings| {
            settings.make_raw();
            rustix::termios::tcsetattr(&port, rustix::termios::OptionalActions::Now, &settings)
        });
        raw.map_err(|e| format!("{PORT}: {e}"))?;
        Ok(Self(Mutex::new(port)))
    }

    /// Sends one line.
    pub(crate) fn send(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        if let Ok(mut port) = self.0.lock() {
            // Where nothing can be said, the outside sees that the end is missing.
            let _ = port.write_all(&line);
            let _ = rustix::termios::tcdrain(&*port);
        }
    }
}

/// What came of the attempts of one run of the escape suite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Who started the plugins.
    pub(crate) launcher: String,
    /// Blocked, killed, contained, or refused at the launch.
    pub(crate) stopped: u64,
    /// What is attacked is not there, or cannot be tried here, or is not promised by this backend.
    pub(crate) not_applicable: u64,
    pub(crate) succeeded: u64,
}

/// What one step found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) ok: bool,
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) counts: Option<Counts>,
}

impl Finding {
    pub(crate) fn new(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok, detail: detail.into(), counts: None }
    }

    /// A comparison: what is, and what should be.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
        name: impl Into<String>,
        is: &T,
        wanted: &T,
    ) -> Self {
        let ok = is == wanted;
        let detail = if ok { format!("{is:?}") } else { format!("{is:?}, expected {wanted:?}") };
        Self::new(name, ok, detail)
    }
}

/// Prints a step's findings, for the process that started it.
pub(crate) fn print(findings: &[Finding]) -> Result {
    println!("{}", serde_json::to_string(findings).map_err(|e| e.to_string())?);
    Ok(())
}
