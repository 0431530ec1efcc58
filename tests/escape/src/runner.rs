//! A runner: the process that launches plugins, as one user. The suite starts one for each launcher, so
//! that each has the environment, the terminal and the user that it is about.

use std::{path::PathBuf, sync::Arc};

use crate::{
    attacker::{self, Twin},
    families::{channel, general, host, landlock, limits, network, paths, survive, twins, wasm},
    record::{Launcher, Row},
    scene::Stage,
    trouble::{Result, While},
};

/// What a runner is told.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// As whom; the process is that user already.
    pub launcher: Launcher,
    /// The built attacker.
    pub attacker: PathBuf,
    /// Words that no plugin may see.
    pub forbidden: Vec<String>,
    /// Set-id copies that root made.
    pub privileged: Option<PathBuf>,
    /// The built `palisade`, where the host itself is attacked.
    #[serde(default)]
    pub command: Option<PathBuf>,
    /// The built guests of the WebAssembly wall, where that is attacked.
    #[serde(default)]
    pub guests: Option<PathBuf>,
    /// The memory group around this runner, where there is one.
    pub meter: Option<PathBuf>,
    /// Families to run, by name.
    pub families: Vec<String>,
    /// Only these numbers; all where empty.
    pub only: Vec<u16>,
    /// Nobody else uses this machine: controls that could hurt it are run too.
    #[serde(default)]
    pub own_machine: bool,
    /// Leave out the attempts with a layer taken away.
    #[serde(default)]
    pub whole_only: bool,
    /// The processor is emulated: what is poured into lane and log is less.
    #[serde(default)]
    pub emulated: bool,
}

/// Runs a task in this process.
///
/// # Errors
/// When the scene or the walls cannot be built.
pub fn run(task: &Task) -> Result<Vec<Row>> {
    let mut stage = Stage::build(&task.attacker, task.forbidden.clone(), task.privileged.clone())?;
    stage.own_machine = task.own_machine;
    let stage = Arc::new(stage);
    let mut attempts = attacker::list(&task.attacker)?;
    attempts.retain(|a| task.only.is_empty() || task.only.contains(&a.number));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .doing("starting the runtime")?;
    runtime.block_on(async {
        let wants = |family: &str| task.families.iter().any(|f| f == family);
        let (launcher, mut rows) = (task.launcher, Vec::new());
        if wants(survive::DOOMED) {
            survive::doomed(&stage, task).await?;
        }
        if wants(survive::DOOMED_OUTSIDE) {
            survive::doomed_outside(&stage, &attempts).await?;
        }
        if wants("general") {
            rows.extend(general::run(&stage, launcher, &attempts, task.whole_only).await?);
        }
        if wants("landlock") {
            rows.extend(landlock::run(&stage, launcher, &attempts).await?);
        }
        if wants("network") {
            rows.extend(network::run(&stage, launcher, &attempts, task.whole_only).await?);
        }
        if wants("host") {
            let command = task.command.as_ref();
            rows.extend(host::run(&stage, launcher, &attempts, &task.only, command).await?);
        }
        if wants("twins") {
            rows.extend(twins::run(&stage, launcher, &Twin::ALL, task.whole_only).await?);
        }
        // In the machines of `cargo xtask vm`, which have no Node.js.
        if wants("python") {
            rows.extend(twins::run(&stage, launcher, &[Twin::Python], task.whole_only).await?);
        }
        if wants("wasm") {
            rows.extend(wasm::run(&stage, task, wasm::Wall::Host).await?);
        }
        if wants("walled") {
            rows.extend(wasm::run(&stage, task, wasm::Wall::Process).await?);
        }
        if wants("channel") {
            rows.extend(channel::run(&stage, launcher, &attempts, task.emulated).await?);
        }
        if wants("survive") {
            rows.extend(survive::run(&stage, task, &attempts).await?);
        }
        if wants("paths") {
            rows.extend(paths::run(&stage, launcher, &attempts).await?);
        }
        if wants("limits") {
            rows.extend(limits::run(&stage, task, &attempts).await?);
        }
        Ok(rows)
    })
}
