//! Positive controls: the same attempt outside the walls. What does not even work there proves nothing
//! about the walls.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::{
    attacker::Attempt,
    expected::Key,
    judge,
    launch::Answer,
    record::Row,
    scene::Stage,
    trouble::{Result, While},
};

/// What the control says when it worked.
pub const WORKS: &str = "works";
/// What the ordinary user's runner says of controls that need root.
pub const BY_ROOT: &str = "by root";

/// Controls that run while the attempts are made behind the walls.
pub struct Controls(Vec<(Key, JoinHandle<Result<String>>)>);

impl Controls {
    /// Starts the controls of all `attempts`, a few at a time.
    pub fn start<'a>(stage: &Arc<Stage>, attempts: impl Iterator<Item = &'a Attempt>) -> Self {
        let turns = Arc::new(Semaphore::new(3));
        let start = |attempt: &Attempt| {
            let (stage, attempt, turns) = (Arc::clone(stage), attempt.clone(), Arc::clone(&turns));
            let key = (attempt.number, attempt.variant.clone());
            let task = tokio::spawn(async move {
                let _turn = turns.acquire_owned().await.doing("a control's turn")?;
                let control = tokio::task::spawn_blocking(move || run(&stage, &attempt));
                control.await.doing("a control")?
            });
            (key, task)
        };
        Self(attempts.map(start).collect())
    }

    /// Waits for them all, and tells each row about its own. A row's variant may have `+` or `@` and more
    /// behind the attempt's.
    ///
    /// # Errors
    /// Those of the controls.
    pub async fn tell(self, rows: &mut [Row]) -> Result<()> {
        for ((number, variant), task) in self.0 {
            let control = task.await.doing("a control")??;
            for row in rows.iter_mut().filter(|r| r.number == number) {
                if row.variant.split(['+', '@']).next() == Some(variant.as_str()) {
                    row.control.clone_from(&control);
                }
            }
        }
        Ok(())
    }
}

/// How often a control may try that measures processor time, whose children have so many seconds, or that has to win a
/// race: on a busy machine others take what it wants to use up, and one side of a race may not run at all.
const MOST_TRIES: usize = 6;

/// Runs the control of one attempt as the calling user, or as the table says.
///
/// # Errors
/// When the attacker cannot be started or prints no answer.
pub fn run(stage: &Stage, attempt: &Attempt) -> Result<String> {
    let mut said = try_once(stage, attempt)?;
    for _ in 1..MOST_TRIES {
        let of_children = attempt.number == 43 && attempt.variant.starts_with("many-");
        let by_chance = attempt.number == 44 || of_children || said.contains(" rounds, ");
        if !by_chance || !said.starts_with("impossible: blocked outside too") {
            break;
        }
        said = try_once(stage, attempt)?;
    }
    Ok(said)
}

/// The program with debugfs where it belongs. Not every machine has mounted it; then it is there for this program only.
fn with_debugfs(program: &Path) -> Command {
    const AT: &str = "/sys/kernel/debug";
    if fs::read_dir(AT).is_ok_and(|mut entries| entries.next().is_some()) {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    let script = format!("mount -t debugfs debugfs {AT}; exec \"$0\" \"$@\"");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(program);
    command
}

fn try_once(stage: &Stage, attempt: &Attempt) -> Result<String> {
    let is_root = rustix::process::geteuid().is_root();
    let key = (attempt.number, attempt.variant.as_str());
    // It makes a pid namespace of its own first, and checks that it is there.
    let own_pids = key == (28, "kill-all");
    let could_hurt = (attempt.harmful && !own_pids) || attempt.number == 9 || attempt.number == 51;
    if could_hurt && !stage.own_machine {
        return Ok("vm: could hurt this machine".into());
    }
    let needs_root =
        matches!(attempt.control.as_str(), "root" | "root+params" | "own namespaces, root");
    if needs_root && !is_root {
        return Ok(BY_ROOT.into());
    }
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, false);
    params.insert("ms".into(), json!(100));
    // Nothing is shown by how fast it is, and an emulated processor is slow.
    params.insert("timeout_ms".into(), json!(60_000));
    params.insert("really".into(), json!(own_pids || could_hurt));
    params.extend(judge::params(stage, attempt, &ground, false));
    let mut command = match attempt.twin {
        None if key == (10, "debugfs") && is_root => with_debugfs(&stage.plugin.join("attacker")),
        None => Command::new(stage.plugin.join("attacker")),
        Some(twin) => twin.command(&stage.twin(twin)?),
    };
    command
        .arg("attempt")
        .arg(attempt.number.to_string())
        .arg(&attempt.variant)
        .arg("--params")
        .arg(Value::Object(params).to_string())
        .current_dir(&ground.granted)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    if attempt.control == "user+params" && is_root {
        if stage.privileged.is_none() {
            return Ok("impossible: no set-id copies".into());
        }
        // Root gains nothing by a set-id program.
        command.uid(1000).gid(1000);
    }
    let out = command.output().doing("running a control")?;
    ground.clear();
    let answer: Answer = match serde_json::from_slice(&out.stdout) {
        Ok(answer) => answer,
        Err(e) => return Ok(format!("impossible: no answer ({e}; {})", out.status)),
    };
    Ok(match (answer.outcome.as_str(), &answer.errno) {
        ("succeeded", _) => WORKS.into(),
        ("impossible", _) => format!("impossible: {}", answer.detail),
        (_, Some(errno)) => format!("impossible: blocked outside too: {errno} {}", answer.detail),
        _ => format!("impossible: blocked outside too: {}", answer.detail),
    })
}
