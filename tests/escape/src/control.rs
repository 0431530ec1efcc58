//! Positive controls: the same attempt outside the walls. What does not even work there proves nothing
//! about the walls.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    attacker::Attempt,
    launch::Answer,
    scene::Stage,
    trouble::{Result, While},
};

/// What the control says when it worked.
pub const WORKS: &str = "works";
/// What the ordinary user's runner says of controls that need root.
pub const BY_ROOT: &str = "by root";

/// Runs the control of one attempt as the calling user, or as the table says.
///
/// # Errors
/// When the attacker cannot be started or prints no answer.
pub fn run(stage: &Stage, attempt: &Attempt) -> Result<String> {
    let is_root = rustix::process::geteuid().is_root();
    if attempt.harmful || attempt.number == 9 || attempt.number == 51 {
        return Ok("vm: could hurt this machine".into());
    }
    let needs_root = matches!(
        attempt.control.as_str(),
        "root" | "root+params" | "own namespaces, root"
    );
    if needs_root && !is_root {
        return Ok(BY_ROOT.into());
    }
    let ground = stage.ground()?;
    let mut params = stage.params(&ground, false);
    params.insert("ms".into(), json!(100));
    let program = stage.plugin.join("attacker");
    let mut command = Command::new(&program);
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
