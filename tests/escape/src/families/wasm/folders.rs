//! 112: links and names that lead out of a granted folder, through WASI 0.2 and the older WASI. The folder is
//! granted for writing where the guest could make use of that, the secret lies beside it.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::{
    Case,
    Control::Careless,
    Verdict,
    guests::opening,
    room::{Room, Terms, blocked, of_call},
    succeeded,
};
use crate::trouble::Result;

pub(super) const TIME: Duration = Duration::from_secs(20);
/// How long a swapped path is read again and again.
pub(super) const RACE: Duration = Duration::from_millis(1500);

/// Reads a path below the granted folder; careless is whoever opens it as it is.
macro_rules! read {
    ($variant:expr, $name:expr, $path:expr) => {
        Case {
            number: 112,
            variant: $variant,
            name: $name,
            attack: |room| Box::pin(reading(room, "open", $path)),
            control: Careless(|room| Box::pin(careless(room, $path))),
            without: &[],
        }
    };
}

macro_rules! case {
    ($variant:expr, $name:expr, $attack:expr, $control:expr) => {
        Case {
            number: 112,
            variant: $variant,
            name: $name,
            attack: |room| Box::pin($attack(room)),
            control: Careless(|room| Box::pin($control(room))),
            without: &[],
        }
    };
}

pub(super) const CASES: &[Case] = &[
    read!("absolute", "a link to an absolute path", "absolute"),
    read!("relative", "a link with `..`", "relative"),
    read!("folder", "a file through a link to a folder outside", "away/secret"),
    read!("chain", "a link to a link to a link out", "chain"),
    read!("up-and-down", "a link down, and through it two folders up", "deep/link/../../secret"),
    read!("magic", "a link to /proc/self/root", "magic"),
    read!("descriptor", "a link to /proc/self/cwd, and up from there", "cwd"),
    case!("dotdot", "`..` in the path itself", raw_dotdot, |room| careless(
        room,
        "../outside/secret"
    )),
    case!("dotdot-deep", "`..` behind a folder that is there", raw_deep, |room| careless(
        room,
        "deep/../../outside/secret"
    )),
    case!("root", "an absolute path", raw_root, root_careless),
    case!("nul", "a path with a NUL in it", raw_nul, |room| careless(room, "../outside/secret")),
    case!("own-link", "a link of the guest's own", own_link, own_careless),
    case!("own-absolute", "an absolute link of the guest's own", own_absolute, own_careless),
    case!("create", "a new file through a dangling link", create, create_careless),
    case!("append", "more to a file outside, through a link", append, append_careless),
    case!("truncate", "a file outside cut off, through a link", truncate, append_careless),
    case!("remove", "a file outside removed, through a linked folder", remove, remove_careless),
    case!("rename-out", "a file moved out, through a linked folder", rename_out, rename_careless),
    case!("rename-in", "the secret moved in", rename_in, rename_careless),
    case!("hard-link", "a hard link to the secret", hard_link, link_careless),
    case!(
        "read-only",
        "a file made in a folder that is granted for reading",
        read_only,
        ro_careless
    ),
    case!(
        "read-only-link",
        "a link made in a folder that is granted for reading",
        ro_link,
        ro_careless
    ),
    case!("swap", "a folder that becomes a link while it is read", swapped, swap_careless),
    case!("swap-file", "a file that becomes a link while it is read", swapped_file, swap_careless),
    case!("extism", "a link with `..`, through the older WASI", extism_link, |room| careless(
        room, "relative"
    )),
    case!("extism-dotdot", "`..` in the path, through the older WASI", extism_dotdot, |room| {
        careless(room, "../outside/secret")
    }),
];

/// `granted` with links, `outside` with the secret.
pub(super) fn scene(room: &Room) -> Result<()> {
    let (granted, outside) = (room.folder.join("granted"), room.folder.join("outside"));
    fs::create_dir_all(granted.join("deep/inner"))?;
    fs::create_dir_all(&outside)?;
    fs::create_dir_all(outside.join("below"))?;
    fs::write(outside.join("secret"), "secret")?;
    fs::write(granted.join("file"), "here")?;
    fs::write(granted.join("deep/file"), "here")?;
    symlink(outside.join("secret"), granted.join("absolute"))?;
    symlink("../outside/secret", granted.join("relative"))?;
    symlink("../outside", granted.join("away"))?;
    symlink("chain2", granted.join("chain"))?;
    symlink("deep/chain3", granted.join("chain2"))?;
    symlink("../../outside/secret", granted.join("deep/chain3"))?;
    symlink("../../outside/below", granted.join("deep/link"))?;
    // Through the link, two folders up are the room's own.
    fs::write(room.folder.join("secret"), "secret")?;
    let inside = outside.join("secret");
    let below_root = inside.strip_prefix("/").unwrap_or(&inside);
    symlink(std::path::Path::new("/proc/self/root").join(below_root), granted.join("magic"))?;
    // Wherever this process stands: enough steps up lead to the root.
    let up = "../".repeat(20);
    let cwd = format!("/proc/self/cwd/{up}{}", below_root.display());
    symlink(cwd, granted.join("cwd"))?;
    symlink("../outside/made", granted.join("dangling"))?;
    Ok(())
}

/// What an attacker did outside outweighs what it says; and what it says may be about something inside.
pub(super) fn judged(room: &Room, seen: Verdict) -> Verdict {
    let outside = room.folder.join("outside");
    let secret = fs::read_to_string(outside.join("secret")).unwrap_or_default();
    if secret != "secret" {
        return succeeded(format!("the secret is {secret:?} now"));
    }
    let count = fs::read_dir(&outside).map_or(0, Iterator::count);
    if count != 2 {
        return succeeded(format!("there are {count} entries outside"));
    }
    let leaked = ["granted/in", "granted/linked"]
        .iter()
        .any(|name| fs::read_to_string(room.folder.join(name)).is_ok_and(|t| t == "secret"));
    if leaked {
        return succeeded("the secret is in the granted folder");
    }
    seen
}

async fn task(room: &Room, task: &str, what: &str, writes: bool) -> Result<Verdict> {
    let kind = if writes { "fs.write" } else { "fs.read" };
    let right = format!("{kind}:{}/granted/**", room.folder.display());
    let seen = room.command(Terms::task(task, what, &[right.as_str()]), TIME).await?;
    Ok(judged(room, seen))
}

async fn reading(room: Room, how: &str, path: &str) -> Result<Verdict> {
    scene(&room)?;
    let path = format!("{}/granted/{path}", room.folder.display());
    task(&room, how, &path, true).await
}

/// The same path, opened as it is.
pub(super) async fn careless(room: Room, path: &str) -> Result<bool> {
    scene(&room)?;
    let path = room.folder.join("granted").join(path);
    Ok(fs::read_to_string(path).is_ok_and(|text| text == "secret"))
}

async fn raw_dotdot(room: Room) -> Result<Verdict> {
    scene(&room)?;
    task(&room, "raw", "../outside/secret", true).await
}

async fn raw_deep(room: Room) -> Result<Verdict> {
    scene(&room)?;
    task(&room, "raw", "deep/../../outside/secret", true).await
}

async fn raw_root(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let path = room.folder.join("outside/secret").display().to_string();
    task(&room, "raw", &path, true).await
}

pub(super) async fn root_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    // An absolute path takes the place of what it is joined to.
    let path = room.folder.join("granted").join(room.folder.join("outside/secret"));
    Ok(fs::read_to_string(path).is_ok())
}

async fn raw_nul(room: Room) -> Result<Verdict> {
    scene(&room)?;
    task(&room, "raw", "../outside/secret\0/file", true).await
}

async fn own_link(room: Room) -> Result<Verdict> {
    scene(&room)?;
    task(&room, "own-link", "own\n../outside/secret", true).await
}

async fn own_absolute(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let to = room.folder.join("outside/secret");
    task(&room, "own-link", &format!("own\n{}", to.display()), true).await
}

pub(super) async fn own_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    symlink("../outside/secret", room.folder.join("granted/own"))?;
    careless_again(&room, "own")
}

fn careless_again(room: &Room, path: &str) -> Result<bool> {
    let path = room.folder.join("granted").join(path);
    Ok(fs::read_to_string(path).is_ok_and(|text| text == "secret"))
}

async fn create(room: Room) -> Result<Verdict> {
    // `create_new` follows no link anywhere; to open for writing does.
    scene(&room)?;
    let granted = room.folder.join("granted");
    symlink("../outside", granted.join("out"))?;
    let seen = task(&room, "create", &format!("{}/out/made", granted.display()), true).await?;
    if seen.0 == "SUCCEEDED" {
        return Ok(seen);
    }
    task(&room, "write-through", &format!("{}/dangling", granted.display()), true).await
}

pub(super) async fn create_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    fs::write(room.folder.join("granted/dangling"), "made")?;
    Ok(room.folder.join("outside/made").exists())
}

async fn append(room: Room) -> Result<Verdict> {
    reading(room, "append", "relative").await
}

async fn truncate(room: Room) -> Result<Verdict> {
    reading(room, "truncate", "relative").await
}

pub(super) async fn append_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    fs::write(room.folder.join("granted/relative"), "")?;
    Ok(judged(&room, blocked("not")).0 == "SUCCEEDED")
}

async fn remove(room: Room) -> Result<Verdict> {
    reading(room, "remove", "away/secret").await
}

pub(super) async fn remove_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    fs::remove_file(room.folder.join("granted/away/secret"))?;
    Ok(judged(&room, blocked("not")).0 == "SUCCEEDED")
}

async fn rename_out(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let granted = room.folder.join("granted").display().to_string();
    task(&room, "rename", &format!("{granted}/file\n{granted}/away/moved"), true).await
}

async fn rename_in(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let granted = room.folder.join("granted").display().to_string();
    task(&room, "rename", &format!("{granted}/away/secret\n{granted}/in"), true).await
}

pub(super) async fn rename_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    let granted = room.folder.join("granted");
    fs::rename(granted.join("away/secret"), granted.join("in"))?;
    Ok(judged(&room, blocked("not")).0 == "SUCCEEDED")
}

async fn hard_link(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let granted = room.folder.join("granted").display().to_string();
    task(&room, "hardlink", &format!("{granted}/away/secret\n{granted}/linked"), true).await
}

pub(super) async fn link_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    let granted = room.folder.join("granted");
    fs::hard_link(granted.join("away/secret"), granted.join("linked"))?;
    Ok(judged(&room, blocked("not")).0 == "SUCCEEDED")
}

async fn read_only(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let path = format!("{}/granted/new", room.folder.display());
    let seen = task(&room, "create", &path, false).await?;
    Ok(if room.folder.join("granted/new").exists() { succeeded("made") } else { seen })
}

async fn ro_link(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let seen = task(&room, "own-link", "new\nfile", false).await?;
    let made = fs::symlink_metadata(room.folder.join("granted/new")).is_ok();
    Ok(if made { succeeded("made") } else { seen })
}

pub(super) async fn ro_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    fs::write(room.folder.join("granted/new"), "made")?;
    Ok(room.folder.join("granted/new").exists())
}

/// Swaps `path` of the granted folder with a link out again and again, until it is dropped.
pub(super) struct Swapping(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

pub(super) fn swapping(room: &Room, path: &'static str, to: &'static str) -> Result<Swapping> {
    let granted = room.folder.join("granted");
    symlink(to, granted.join("swap"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let (here, there) = (granted.join(path), granted.join("swap"));
        while !stopped.load(Ordering::Relaxed) {
            // Both exchange their places, so that the path is never empty.
            let _ = rustix::fs::renameat_with(
                rustix::fs::CWD,
                &here,
                rustix::fs::CWD,
                &there,
                rustix::fs::RenameFlags::EXCHANGE,
            );
        }
    });
    Ok(Swapping(stop, Some(thread)))
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

async fn swapped(room: Room) -> Result<Verdict> {
    scene(&room)?;
    // The folder has a file of the name of the secret, so that reading it is right half of the time.
    fs::write(room.folder.join("granted/deep/secret"), "here")?;
    let swapping = swapping(&room, "deep", "../outside")?;
    let path = room.folder.join("granted/deep/secret").display().to_string();
    let seen = task(&room, "race", &format!("{path}\n{}", RACE.as_millis()), true).await?;
    drop(swapping);
    Ok(seen)
}

async fn swapped_file(room: Room) -> Result<Verdict> {
    scene(&room)?;
    let swapping = swapping(&room, "file", "../outside/secret")?;
    let path = room.folder.join("granted/file").display().to_string();
    let seen = task(&room, "race", &format!("{path}\n{}", RACE.as_millis()), true).await?;
    drop(swapping);
    Ok(seen)
}

pub(super) async fn swap_careless(room: Room) -> Result<bool> {
    scene(&room)?;
    let swapping = swapping(&room, "file", "../outside/secret")?;
    let path = room.folder.join("granted/file");
    let mut seen = false;
    for _ in 0..100_000 {
        // Opened as it is, it is the one half of the time and the other the rest.
        seen |= fs::read_to_string(&path).is_ok_and(|text| text == "secret");
        if seen {
            break;
        }
    }
    drop(swapping);
    Ok(seen)
}

async fn extism_link(room: Room) -> Result<Verdict> {
    extism(room, "relative").await
}

async fn extism_dotdot(room: Room) -> Result<Verdict> {
    extism(room, "../outside/secret").await
}

/// Opens a path of the first folder with the older WASI; gives the number of the error.
async fn extism(room: Room, path: &str) -> Result<Verdict> {
    scene(&room)?;
    let module = opening(path)?;
    let right = format!("fs.read:{}/granted/**", room.folder.display());
    let terms = Terms::extism(&[right.as_str()]);
    let seen = of_call(room.once(&module, terms, "f", json!({}), TIME).await?);
    Ok(judged(&room, seen))
}
