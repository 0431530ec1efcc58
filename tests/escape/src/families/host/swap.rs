//! Attempt 60: the program is another one when it is started than when it was looked at. A plugin whose manifest
//! does not name its files runs what its folder's owner puts there, and SECURITY.md says so; what must hold is
//! that the swap leads nowhere else. `sealed.rs` has those that do.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use palisade_process::Layer;
use palisade_sandbox::{Artifact, Content, Program, Runtime};
use tempfile::TempDir;

use crate::{
    careless,
    families::ablation,
    launch::{Terms, Walls},
    record::{Launcher, Row},
    scene::Stage,
    trouble::{Result, While},
};

/// Its number.
pub(super) const NUMBER: u16 = 60;

/// Swaps the plugin's folder or program between its preparation and its start.
type Swap = fn(&Stage, &Path) -> std::io::Result<()>;

const SWAPS: &[(&str, &str, Swap)] = &[
    ("folder-link", "the plugin's folder becomes a link to another", |_, folder| {
        fs::rename(folder, folder.with_extension("old"))?;
        symlink(folder.with_extension("old"), folder)
    }),
    ("parent-link", "a folder above it becomes a link", |_, folder| {
        let parent = folder.parent().unwrap_or(folder);
        fs::rename(parent, parent.with_extension("old"))?;
        symlink(parent.with_extension("old"), parent)
    }),
    ("program-link", "the program becomes a link to one of the host", |_, folder| {
        fs::remove_file(folder.join("attacker"))?;
        symlink("/bin/sh", folder.join("attacker"))
    }),
    (
        "program-link-out",
        "the program becomes a link to one beside the plugin's folder",
        |stage, folder| {
            fs::remove_file(folder.join("attacker"))?;
            symlink(stage.plugin.join("attacker"), folder.join("attacker"))
        },
    ),
    ("program-fifo", "the program becomes a FIFO", |_, folder| {
        fs::remove_file(folder.join("attacker"))?;
        let mode = rustix::fs::Mode::RWXU;
        let path = folder.join("attacker");
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
            .map_err(Into::into)
    }),
    ("program-gone", "the program is taken away", |_, folder| {
        fs::remove_file(folder.join("attacker"))
    }),
    ("program-suid", "the program becomes a set-id copy", |stage, folder| {
        let copy = stage.privileged.as_ref().map(|p| p.join("suid"));
        let copy = copy.ok_or_else(|| std::io::Error::other("only root can make the copy"))?;
        fs::rename(folder.join("attacker"), folder.join("old"))?;
        fs::copy(copy, folder.join("attacker"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
        fs::set_permissions(folder.join("attacker"), mode)
    }),
    ("program-other", "the program becomes another one of the same owner", |_, folder| {
        fs::copy(folder.join("attacker"), folder.join("new"))?;
        fs::rename(folder.join("new"), folder.join("attacker"))
    }),
];

pub(super) async fn run(stage: &Arc<Stage>, launcher: Launcher) -> Result<Vec<Row>> {
    let walls = |without| Walls::new(ablation::options(launcher, without), stage);
    let whole = walls(None).await?;
    let mut rows = Vec::new();
    for (variant, name, swap) in SWAPS {
        rows.push(one(stage, launcher, &whole, variant, name, *swap).await?);
    }
    // Where it is about the program's own rights, the layers that keep it from them are taken away, too.
    for row in rows.iter_mut().filter(|row| row.variant == "program-suid") {
        for (layer, name) in
            [(Layer::NoNewPrivileges, "no new privileges"), (Layer::Nosuid, "nosuid")]
        {
            let walls = walls(Some(layer)).await?;
            for (variant, about, swap) in SWAPS.iter().filter(|s| s.0 == row.variant) {
                let thin = one(stage, launcher, &walls, variant, about, *swap).await?;
                row.without.insert(name.to_owned(), thin.outcome);
            }
        }
    }
    Ok(rows)
}

/// A folder with the program, below one of its own.
fn laid(stage: &Stage) -> Result<(TempDir, PathBuf)> {
    let base = tempfile::Builder::new().prefix("swap-").tempdir_in(stage.base.path())?;
    fs::set_permissions(base.path(), Permissions::from_mode(0o755))?;
    let folder = base.path().join("above/plugin");
    fs::create_dir_all(&folder)?;
    fs::copy(stage.plugin.join("attacker"), folder.join("attacker")).doing("a copy")?;
    Ok((base, folder))
}

/// A host that looks at the program and then starts it by its path: whether it starts another file than the one
/// that it looked at, or is held up by it.
fn careless(stage: &Stage, swap: Swap) -> Result<String> {
    let (_base, folder) = laid(stage)?;
    let path = folder.join("attacker");
    let look = || -> std::io::Result<_> {
        let meta = fs::metadata(&path)?;
        Ok((fs::canonicalize(&path)?, meta.dev(), meta.ino()))
    };
    let looked = look()?;
    if let Err(why) = swap(stage, &folder) {
        return Ok(format!("impossible: {why}"));
    }
    let Ok(found) = look() else { return Ok("impossible: what is gone cannot be started".into()) };
    if fs::metadata(&path)?.file_type().is_fifo() {
        let is_held_up = careless::is_fooled(&folder, "look", &[&path.display().to_string()])?;
        return Ok(careless::said(is_held_up));
    }
    let mut program = Command::new(&path);
    program.arg("hold").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut program = program.spawn().doing("a host that takes no care")?;
    program.kill()?;
    program.wait()?;
    Ok(careless::said(found != looked))
}

async fn one(
    stage: &Stage,
    launcher: Launcher,
    walls: &Walls,
    variant: &str,
    name: &str,
    swap: Swap,
) -> Result<Row> {
    let mut row = Row::new(NUMBER, variant, name, launcher);
    row.control = careless(stage, swap)?;
    let (_base, folder) = laid(stage)?;
    let artifact = Artifact {
        content: Content { root: folder.clone(), digest: [0; 32] },
        program: Program {
            runtime: Runtime::Native,
            file: "attacker".into(),
            args: vec!["plugin".into()],
        },
        code: Vec::new(),
    };
    let walls = walls.with(walls.backend.prepare(&artifact).await?);
    if let Err(why) = swap(stage, &folder) {
        return Ok(row.seen(format!("impossible:{why}"), String::new()));
    }
    let ground = stage.ground()?;
    let row = match walls.launch(&ground, &Terms::default()).await {
        Err(e) => row.seen(format!("blocked:{}", e.code()), e.to_string()),
        Ok(boxed) => {
            let mut params = stage.params(&ground, true);
            params.insert("host_pid".into(), serde_json::json!(1));
            let deadline = Duration::from_secs(10);
            let secret = boxed.attempt(1, "secret", &params, deadline).await;
            let outcome = match secret.outcome().as_str() {
                "SUCCEEDED" => "SUCCEEDED".to_owned(),
                // It runs, as the plugin that it is the program of.
                "blocked:ENOENT" => "contained".to_owned(),
                other => other.to_owned(),
            };
            let ids = boxed.attempt(12, "clear-nnp", &params, deadline).await;
            let raised = ids.outcome() == "SUCCEEDED";
            boxed.end().await;
            let outcome = if raised { "SUCCEEDED".into() } else { outcome };
            row.seen(outcome, format!("it runs behind the same walls; {}", secret.detail()))
        }
    };
    ground.clear();
    Ok(row)
}
