//! 112 once more, through WASI 0.3: the scene and the controls are those of `folders.rs`. Its calls are other ones,
//! which the engine makes as tasks, and its `open-at` is guarded apart from that of WASI 0.2.

use std::fs;

use super::{
    Case,
    Control::Careless,
    Verdict,
    folders::{
        RACE, TIME, append_careless, careless, create_careless, judged, link_careless,
        own_careless, remove_careless, rename_careless, ro_careless, root_careless, scene,
        swap_careless, swapping,
    },
    room::{Room, Terms, outcome},
    succeeded,
};
use crate::trouble::Result;

/// Reads a path of the granted folder; careless is whoever opens it as it is.
macro_rules! read {
    ($variant:expr, $name:expr, $path:expr) => {
        case!($variant, $name, |room| tried(room, "raw", $path), |room| careless(room, $path), READ)
    };
}

/// An attack, what a careless host does, and the same with what lies inside and is allowed: that has to work too,
/// or else the guest is stopped by its own clumsiness.
macro_rules! case {
    ($variant:expr, $name:expr, $attack:expr, $careless:expr, $allowed:expr) => {
        Case {
            number: 112,
            variant: $variant,
            name: concat!($name, ", through WASI 0.3"),
            attack: |room| Box::pin($attack(room)),
            control: Careless(|room| {
                Box::pin(async move {
                    Ok($careless(room.clone()).await? && allowed(&room, $allowed).await?)
                })
            }),
            without: &[],
        }
    };
}

/// A task, and what with.
type Allowed = (&'static str, &'static str);

const READ: Allowed = ("raw", "deep/file");
const LINK: Allowed = ("own-link", "inner\ndeep/file");
const CREATE: Allowed = ("create", "deep/new");
const RENAME: Allowed = ("rename", "deep/file\ndeep/moved");

pub(super) const CASES: &[Case] = &[
    read!("wasi-0.3", "a link with `..`", "relative"),
    read!("wasi-0.3-absolute", "a link to an absolute path", "absolute"),
    read!("wasi-0.3-folder", "a file through a link to a folder outside", "away/secret"),
    read!("wasi-0.3-chain", "a link to a link to a link out", "chain"),
    read!(
        "wasi-0.3-up-and-down",
        "a link down, and through it two folders up",
        "deep/link/../../secret"
    ),
    read!("wasi-0.3-magic", "a link to /proc/self/root", "magic"),
    read!("wasi-0.3-descriptor", "a link to /proc/self/cwd, and up from there", "cwd"),
    read!("wasi-0.3-dotdot", "`..` in the path itself", "../outside/secret"),
    read!(
        "wasi-0.3-dotdot-deep",
        "`..` behind a folder that is there",
        "deep/../../outside/secret"
    ),
    case!("wasi-0.3-root", "an absolute path", root, root_careless, READ),
    case!(
        "wasi-0.3-nul",
        "a path with a NUL in it",
        |room| tried(room, "raw", "../outside/secret\0/file"),
        |room| careless(room, "../outside/secret"),
        READ
    ),
    case!(
        "wasi-0.3-own-link",
        "a link of the guest's own",
        |room| tried(room, "own-link", "own\n../outside/secret"),
        own_careless,
        LINK
    ),
    case!(
        "wasi-0.3-own-absolute",
        "an absolute link of the guest's own",
        own_absolute,
        own_careless,
        LINK
    ),
    case!(
        "wasi-0.3-create",
        "a new file through a dangling link",
        create,
        create_careless,
        ("write-through", "deep/new")
    ),
    case!(
        "wasi-0.3-append",
        "more to a file outside, through a link",
        |room| tried(room, "append", "relative"),
        append_careless,
        ("append", "deep/file")
    ),
    case!(
        "wasi-0.3-truncate",
        "a file outside cut off, through a link",
        |room| tried(room, "truncate", "relative"),
        append_careless,
        ("truncate", "deep/file")
    ),
    case!(
        "wasi-0.3-remove",
        "a file outside removed, through a linked folder",
        |room| tried(room, "remove", "away/secret"),
        remove_careless,
        ("remove", "deep/file")
    ),
    case!(
        "wasi-0.3-rename-out",
        "a file moved out, through a linked folder",
        |room| tried(room, "rename", "file\naway/moved"),
        rename_careless,
        RENAME
    ),
    case!(
        "wasi-0.3-rename-in",
        "the secret moved in",
        |room| tried(room, "rename", "away/secret\nin"),
        rename_careless,
        RENAME
    ),
    case!(
        "wasi-0.3-hard-link",
        "a hard link to the secret",
        |room| tried(room, "hardlink", "away/secret\nlinked"),
        link_careless,
        ("hardlink", "deep/file\ndeep/other")
    ),
    case!(
        "wasi-0.3-read-only",
        "a file made in a folder that is granted for reading",
        |room| read_only(room, "create", "new"),
        ro_careless,
        CREATE
    ),
    case!(
        "wasi-0.3-read-only-link",
        "a link made in a folder that is granted for reading",
        |room| read_only(room, "own-link", "new\nfile"),
        ro_careless,
        LINK
    ),
    case!(
        "wasi-0.3-swap",
        "a folder that becomes a link while it is read",
        swapped,
        swap_careless,
        READ
    ),
    case!(
        "wasi-0.3-swap-file",
        "a file that becomes a link while it is read",
        swapped_file,
        swap_careless,
        READ
    ),
];

/// One task of the guest, in a scene that is there.
async fn task(room: &Room, task: &str, what: &str, writes: bool) -> Result<Verdict> {
    let kind = if writes { "fs.write" } else { "fs.read" };
    let right = format!("{kind}:{}/granted/**", room.folder.display());
    let wasm = room.guests().wasi3.clone();
    Ok(match room.start(&wasm, Terms::task(task, what, &[right.as_str()])).await? {
        Ok(running) => running.task(TIME).await,
        Err(refused) => outcome(&refused),
    })
}

/// Whether the guest does what it may.
async fn allowed(room: &Room, (how, what): Allowed) -> Result<bool> {
    Ok(task(room, how, what, true).await?.0 == "SUCCEEDED")
}

async fn tried(room: Room, how: &str, what: &str) -> Result<Verdict> {
    scene(&room)?;
    let seen = task(&room, how, what, true).await?;
    Ok(judged(&room, seen))
}

async fn root(room: Room) -> Result<Verdict> {
    let path = room.folder.join("outside/secret").display().to_string();
    tried(room, "raw", &path).await
}

async fn own_absolute(room: Room) -> Result<Verdict> {
    let what = format!("own\n{}", room.folder.join("outside/secret").display());
    tried(room, "own-link", &what).await
}

async fn create(room: Room) -> Result<Verdict> {
    // `create` follows no link at the end of its path; to open for writing does.
    scene(&room)?;
    let seen = judged(&room, task(&room, "create", "away/made", true).await?);
    if seen.0 == "SUCCEEDED" {
        return Ok(seen);
    }
    let seen = task(&room, "write-through", "dangling", true).await?;
    Ok(judged(&room, seen))
}

async fn read_only(room: Room, how: &str, what: &str) -> Result<Verdict> {
    scene(&room)?;
    let seen = task(&room, how, what, false).await?;
    let made = fs::symlink_metadata(room.folder.join("granted/new")).is_ok();
    Ok(if made { succeeded("made") } else { seen })
}

async fn swapped(room: Room) -> Result<Verdict> {
    scene(&room)?;
    // What is read inside has the name of the secret.
    fs::write(room.folder.join("granted/deep/secret"), "here")?;
    race(&room, ("deep", "../outside"), "deep/secret").await
}

async fn swapped_file(room: Room) -> Result<Verdict> {
    scene(&room)?;
    race(&room, ("file", "../outside/secret"), "file").await
}

async fn race(room: &Room, swap: (&'static str, &'static str), path: &str) -> Result<Verdict> {
    let swapping = swapping(room, swap.0, swap.1)?;
    let seen = task(room, "race", &format!("{path}\n{}", RACE.as_millis()), true).await?;
    drop(swapping);
    Ok(seen)
}
