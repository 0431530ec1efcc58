//! 111 where the engine stands behind walls. The code is kept by the host, which never runs it: its MAC stands in the
//! name of its file, and says for which WebAssembly it was taken out of a compiling run. What is tried is to have
//! other code run in the place of a plugin's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::{
    Case,
    Control::{self, Careless},
    Verdict,
    compiled::{Attacks, RIGHT, both, compiled, run, swapped, without_mac},
    room::{Room, named_pipe, odd},
    succeeded,
};
use crate::trouble::Result;

const FOLDER: &str = "wasm+process";

/// The file is run where its MAC does not count.
const CONTROL: Control = Careless(|room| Box::pin(without_mac(put(room, How::RightName))));

pub(super) const CASES: &[Case] = &Attacks {
    forged: |room| Box::pin(put(room, How::RightName)),
    zeros: |room| Box::pin(put(room, How::Zeros)),
    another_host: |room| Box::pin(put(room, How::TheirTag)),
    swapped: |room| Box::pin(swapped(room, FOLDER, |right, other| beside(right, named(other)?.1))),
    link: |room| Box::pin(put(room, How::Link)),
    writable: |room| Box::pin(put(room, How::Writable)),
    pipe: |room| Box::pin(put(room, How::Pipe)),
    key: |room| Box::pin(known_key(room)),
}
.cases(CONTROL, true);

#[derive(PartialEq)]
enum How {
    RightName,
    Zeros,
    TheirTag,
    Link,
    Writable,
    Pipe,
}

/// What a file is called: what it was made from, and its MAC.
fn named(path: &Path) -> Result<(&str, &str)> {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once('-').map_or_else(|| odd(format!("a name without a MAC: {name}")), Ok)
}

/// The file with this MAC in the place of the right one.
fn beside(right: &Path, tag: &str) -> Result<PathBuf> {
    let (made_from, _) = named(right)?;
    Ok(right.with_file_name(format!("{made_from}-{tag}.cwasm")))
}

/// Puts other code in the place of the right one, and runs that once more.
async fn put(room: Room, how: How) -> Result<Verdict> {
    let (ours, theirs) = both(&room).await?;
    let (right, other) = (compiled(&ours, FOLDER)?, compiled(&theirs, FOLDER)?);
    let tag = match how {
        How::Zeros => "0".repeat(64),
        How::TheirTag => named(&other)?.1.to_owned(),
        _ => named(&right)?.1.to_owned(),
    };
    let path = beside(&right, &tag)?;
    fs::remove_file(&right)?;
    match how {
        How::Link => symlink(&other, &path)?,
        How::Pipe => named_pipe(&path)?,
        _ => drop(fs::copy(&other, &path)?),
    }
    if how == How::Writable {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    let seen = run(&room, &ours, 7).await?;
    let is_there = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
    if seen.0 == RIGHT && is_there && fs::read(&path)? == fs::read(&other)? {
        return Ok(succeeded("the forged file is still there"));
    }
    Ok(seen)
}

/// The attacker's key and what it signed with it, where the host left its key open to everybody.
async fn known_key(room: Room) -> Result<Verdict> {
    let (ours, theirs) = (room.folder.join("ours"), room.folder.join("theirs"));
    for folder in [&ours, &theirs] {
        fs::create_dir(folder)?;
        let _ = run(&room, folder, 7).await?;
    }
    let (right, other) = (compiled(&ours, FOLDER)?, compiled(&theirs, FOLDER)?);
    fs::remove_file(&right)?;
    let path = beside(&right, named(&other)?.1)?;
    fs::copy(&other, &path)?;
    let key = ours.join(FOLDER).join("key");
    fs::write(&key, fs::read(theirs.join(FOLDER).join("key"))?)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let seen = run(&room, &ours, 7).await?;
    let is_private = fs::metadata(&key)?.permissions().mode() & 0o077 == 0;
    if path.exists() || !is_private {
        return Ok(succeeded("what the known key signed is still there"));
    }
    Ok(seen)
}
