//! Attempts 3 and 66: changing what a granted path leads to, while or before the host mounts it. No host
//! interface takes a path from a plugin, so the grants themselves are what is attacked.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_process::Options;

use crate::{
    attacker::Attempt,
    careless,
    control::Controls,
    launch::{Terms, Walls},
    record::{Launcher, Row},
    scene::{Ground, Stage},
    trouble::Result,
};

/// Launches during one race.
const LAUNCHES: usize = 200;

/// Runs the family.
///
/// # Errors
/// When the walls cannot be built.
pub async fn run(stage: &Arc<Stage>, launcher: Launcher, attempts: &[Attempt]) -> Result<Vec<Row>> {
    let options = Options { cgroups: launcher.cgroups(), ..Options::default() };
    let walls = Walls::new(options, stage).await?;
    let controls = Controls::start(stage, attempts.iter().filter(|a| a.number == 3));
    let mut rows = Vec::new();
    for attempt in attempts.iter().filter(|a| a.number == 3) {
        rows.push(race(stage, launcher, &walls, attempt).await?);
    }
    controls.tell(&mut rows).await?;
    if !attempts.is_empty() {
        rows.extend(grants(stage, launcher, &walls).await?);
    }
    Ok(rows)
}

/// The attacker swaps a granted folder (or file) for a link to the secret, as fast as it can, while the
/// host launches another plugin that was granted it. That plugin says whether it sees the secret.
async fn race(stage: &Stage, launcher: Launcher, walls: &Walls, attempt: &Attempt) -> Result<Row> {
    let folder = attempt.variant == "swap-dir";
    let (ground, second) = (stage.ground()?, stage.ground()?);
    let swapped = ground.granted.join("swapped");
    let secret = if folder { swapped.join("secret") } else { swapped.clone() };
    if folder {
        fs::create_dir(&swapped)?;
    } else {
        fs::write(&swapped, "bait\n")?;
    }
    let mut params = stage.params(&ground, true);
    let target = if folder { ground.outside.clone() } else { ground.outside.join("secret") };
    params.insert("target".into(), serde_json::json!(target));
    params.insert("seconds".into(), serde_json::json!(60));
    let attacker = walls.launch(&ground, &Terms::default()).await?;
    let below = if folder { "/**" } else { "" };
    let terms = Terms {
        folders: false,
        // Its mount point lies in the attacker's hands as well: the grant around it comes first.
        grants: vec![
            format!("fs.read:{}/**", ground.granted.display()),
            format!("fs.read:{}{below}", swapped.display()),
        ],
        ..Terms::default()
    };
    let mut reading = stage.params(&second, true);
    reading.insert("secret_path".into(), serde_json::json!(secret));
    let attack =
        attacker.attempt(attempt.number, &attempt.variant, &params, Duration::from_secs(90));
    let launches = async {
        let (mut refused, mut mounted, mut seen) = (0, 0, 0);
        for turn in 0..LAUNCHES {
            // Alternates where in the attacker's cycle the launch falls.
            tokio::time::sleep(Duration::from_micros((turn % 7) as u64 * 300)).await;
            match walls.launch(&second, &terms).await {
                Err(_) => refused += 1,
                Ok(boxed) => {
                    mounted += 1;
                    let answer = boxed.attempt(1, "secret", &reading, Duration::from_secs(5)).await;
                    seen += usize::from(answer.outcome() == "SUCCEEDED");
                    boxed.end().await;
                }
            }
        }
        fs::write(ground.granted.join("stop"), "")?;
        Ok::<_, std::io::Error>((refused, mounted, seen))
    };
    let begun = Instant::now();
    let (answer, counts) = tokio::join!(attack, launches);
    let (refused, mounted, seen) = counts?;
    attacker.end().await;
    let row = Row::new(attempt.number, &attempt.variant, &attempt.name, launcher);
    let detail = format!(
        "{LAUNCHES} launches in {:?}: {refused} refused, {mounted} with the honest one; {}",
        begun.elapsed(),
        answer.detail()
    );
    let harm = ground.damage(&stage.secret).filter(|h| !h.contains("entries"));
    let row = match (seen, harm, refused) {
        (0, None, 1..) => row.seen("contained", detail),
        (0, None, _) => row.seen("impossible:no launch met a link", detail),
        (0, Some(harm), _) => row.seen("SUCCEEDED", format!("{harm}; {detail}")),
        (n, ..) => row.seen("SUCCEEDED", format!("the secret was seen {n} times; {detail}")),
    };
    ground.clear();
    second.clear();
    Ok(row)
}

type Prepare = fn(&Ground) -> std::io::Result<String>;

/// What a host that takes no care does with a path that was granted, and what the attempt gains by it.
#[derive(Clone, Copy)]
enum Careless {
    /// Follows it somewhere else.
    Follows,
    /// Shows what is there, which nobody should be given.
    Shows,
    /// Makes it, as some container engines do.
    Makes,
    Nothing(&'static str),
}

impl Careless {
    fn control(self, grant: &str) -> String {
        let path = grant.split_once(':').map_or(grant, |(_, path)| path);
        let path = Path::new(path.strip_suffix("/**").unwrap_or(path));
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        careless::said(match self {
            Self::Follows => match fs::canonicalize(path) {
                Ok(there) => there != path,
                // What is open and has no name.
                Err(_) => fs::read_link(path).is_ok(),
            },
            Self::Shows => fs::read_dir(path).is_ok_and(|mut found| found.next().is_some()),
            Self::Makes => !path.exists() && fs::create_dir_all(path).is_ok(),
            Self::Nothing(why) => return format!("impossible: {why}"),
        })
    }
}

use Careless as C;

const NO_FOLDER: &str = "outside a plugin is shown no folder in another place";

/// Grants that lead somewhere else. Each must be refused before anything is mounted.
const GRANTS: &[(&str, &str, Careless, Prepare)] = &[
    ("link", "a grant of a symbolic link", C::Follows, |g| {
        let link = g.granted.join("link");
        symlink(&g.outside, &link)?;
        Ok(format!("fs.read:{}/**", link.display()))
    }),
    ("link-in-path", "a grant through a symbolic link", C::Follows, |g| {
        symlink(&g.root, g.granted.join("up"))?;
        Ok(format!("fs.read:{}/up/outside/**", g.granted.display()))
    }),
    ("link-to-file", "a grant of a link to a file", C::Follows, |g| {
        let link = g.granted.join("link");
        symlink(g.outside.join("secret"), &link)?;
        Ok(format!("fs.write:{}", link.display()))
    }),
    ("proc-root", "a grant below /proc/self/root", C::Follows, |g| {
        Ok(format!("fs.read:/proc/self/root{}/**", g.outside.display()))
    }),
    ("proc-cwd", "a grant of /proc/self/cwd", C::Follows, |_| {
        Ok("fs.read:/proc/self/cwd/**".into())
    }),
    ("proc-fd", "a grant of a handle of the host", C::Follows, |_| {
        Ok("fs.read:/proc/self/fd/3".into())
    }),
    ("magic-link", "a link to a magic link", C::Follows, |g| {
        let link = g.granted.join("magic");
        symlink("/proc/self/root", &link)?;
        Ok(format!("fs.read:{}{}/**", link.display(), g.outside.display()))
    }),
    ("root", "a grant of /", C::Shows, |_| Ok("fs.read:/**".into())),
    ("proc", "a grant of /proc", C::Shows, |_| Ok("fs.write:/proc/**".into())),
    ("sys", "a grant below /sys", C::Shows, |_| Ok("fs.write:/sys/fs/cgroup/**".into())),
    ("dev", "a grant of /dev", C::Shows, |_| Ok("fs.write:/dev/**".into())),
    ("run", "a grant of /run", C::Shows, |_| Ok("fs.read:/run/**".into())),
    ("missing", "a grant of what is not there", C::Makes, |g| {
        Ok(format!("fs.read:{}/missing/**", g.granted.display()))
    }),
    ("over-plugin", "a grant over the plugin's own folder", C::Nothing(NO_FOLDER), |_| {
        Ok("fs.write:/plugin/**".into())
    }),
];

async fn grants(stage: &Stage, launcher: Launcher, walls: &Walls) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (variant, name, careless, prepare) in GRANTS {
        let ground = stage.ground()?;
        let grant = prepare(&ground)?;
        let terms = Terms { grants: vec![grant.clone()], ..Terms::default() };
        let row = Row::new(66, variant, name, launcher);
        rows.push(match walls.launch(&ground, &terms).await {
            Err(e) => row.seen(format!("blocked:{}", kind(&e)), e.to_string()),
            Ok(boxed) => {
                let params = stage.params(&ground, true);
                let seen = boxed.attempt(1, "secret", &params, Duration::from_secs(5)).await;
                boxed.end().await;
                row.seen("SUCCEEDED", format!("it was launched; the secret: {}", seen.outcome()))
            }
        });
        // Afterwards: it may change what is there.
        if let Some(row) = rows.last_mut() {
            row.control = careless.control(&grant);
        }
        ground.clear();
    }
    Ok(rows)
}

/// Which error refused it.
fn kind(error: &palisade_sandbox::SandboxError) -> &'static str {
    use palisade_sandbox::SandboxError as E;
    match error {
        E::Path { .. } => "path",
        E::Unsupported { .. } => "unsupported",
        E::Artifact { .. } => "malformed",
        _ => "error",
    }
}
