//! 111: compiled code that this host did not compile. The folder is the host's own; what is tried is what
//! somebody does who can write into it, but cannot read its key.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use palisade_wasm::ablation::Layer;
use serde_json::json;

use super::{
    Case,
    Control::{self, Careless},
    Made, Verdict,
    guests::text,
    room::{Room, Terms, named_pipe, odd, outcome},
    succeeded,
};
use crate::trouble::{Result, While};

const FOLDER: &str = "wasm";
const TIME: Duration = Duration::from_secs(10);
/// What was put there was not run: the right code was compiled anew, and ran.
pub(super) const RIGHT: &str = "blocked:refused";
/// Bytes before the code: what the file is, and its MAC.
const HEAD: usize = 48;

/// The file is run where its MAC does not count.
const CONTROL: Control =
    Careless(|room| Box::pin(without_mac(forged(room, |good, other| Ok(joined(good, other))))));

/// How the attempts are made that there are wherever the engine stands.
pub(super) struct Attacks {
    pub(super) forged: fn(Room) -> Made,
    pub(super) zeros: fn(Room) -> Made,
    pub(super) another_host: fn(Room) -> Made,
    pub(super) swapped: fn(Room) -> Made,
    pub(super) link: fn(Room) -> Made,
    pub(super) writable: fn(Room) -> Made,
    pub(super) pipe: fn(Room) -> Made,
    pub(super) key: fn(Room) -> Made,
}

impl Attacks {
    /// `names_tell`: the MAC stands in the name of a file, and is all that tells whose code it is.
    pub(super) const fn cases(self, control: Control, names_tell: bool) -> [Case; 8] {
        const MAC: &[Layer] = &[Layer::Mac];
        let swapped: &[Layer] = if names_tell { MAC } else { &[] };
        [
            case(
                "forged",
                "other code behind the MAC of the right code",
                self.forged,
                control,
                MAC,
            ),
            case("zeros", "other code behind a MAC of zeros", self.zeros, control, MAC),
            case(
                "another-host",
                "other code as another host signed it",
                self.another_host,
                control,
                MAC,
            ),
            case(
                "swapped",
                "code of another plugin of this host under this one's name",
                self.swapped,
                control,
                swapped,
            ),
            case("link", "a link to other code", self.link, control, &[]),
            case("writable", "a file that everybody may write", self.writable, control, &[]),
            case("pipe", "a named pipe in the place of a file", self.pipe, control, &[]),
            case(
                "key",
                "a key that the attacker knows, which everybody may read",
                self.key,
                control,
                &[],
            ),
        ]
    }
}

const fn case(
    variant: &'static str,
    name: &'static str,
    attack: fn(Room) -> Made,
    control: Control,
    without: &'static [Layer],
) -> Case {
    Case { number: 111, variant, name, attack, control, without }
}

/// Whether an attempt succeeds without the MAC.
pub(super) async fn without_mac(attack: impl Future<Output = Result<Verdict>>) -> Result<bool> {
    let away = palisade_wasm::ablation::without(Layer::Mac);
    let seen = attack.await?;
    drop(away);
    Ok(seen.0 == "SUCCEEDED")
}

pub(super) const CASES: &[Case] = &Attacks {
    forged: |room| Box::pin(forged(room, |good, other| Ok(joined(good, other)))),
    zeros: |room| {
        Box::pin(forged(room, |good, other| {
            let mut file = good.get(..16).unwrap_or_default().to_vec();
            file.extend_from_slice(&[0; 32]);
            file.extend_from_slice(other.get(HEAD..).unwrap_or_default());
            Ok(file)
        }))
    },
    another_host: |room| Box::pin(forged(room, |_, other| Ok(other.to_vec()))),
    swapped: |room| Box::pin(swapped(room, FOLDER, |right, _| Ok(right.to_owned()))),
    link: |room| Box::pin(replaced(room, How::Link)),
    writable: |room| Box::pin(replaced(room, How::Writable)),
    pipe: |room| Box::pin(replaced(room, How::Pipe)),
    key: |room| Box::pin(known_key(room)),
}
.cases(CONTROL, false);

/// What only the engine in the host writes.
pub(super) const BARE: &[Case] = &[case(
    "bare",
    "other code as the engine writes it",
    |room| Box::pin(forged(room, |_, other| Ok(other.get(HEAD..).unwrap_or_default().to_vec()))),
    CONTROL,
    &[],
)];

/// A component that answers with a number.
fn answering(number: u32) -> Result<Vec<u8>> {
    text(&format!(
        r#"(component
            (core module $m (func (export "f") (result i32) (i32.const {number})))
            (core instance $i (instantiate $m))
            (func (export "f") (result u32) (canon lift (core func $i "f"))))"#
    ))
}

fn joined(good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut file = good.get(..HEAD).unwrap_or_default().to_vec();
    file.extend_from_slice(other.get(HEAD..).unwrap_or_default());
    file
}

/// The one compiled file of a host's folder.
pub(super) fn compiled(folder: &Path, backend: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder.join(backend)).doing("the folder of compiled code")?.flatten();
    let mut found = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "cwasm"));
    match found.next() {
        Some(path) => Ok(path),
        None => odd("nothing was compiled"),
    }
}

/// Runs the right code (7) with a host whose folder this is.
pub(super) async fn run(room: &Room, folder: &Path, number: u32) -> Result<Verdict> {
    let backend = room.backend(folder);
    let wasm = answering(number)?;
    let running = match room.start_behind(&*backend, &wasm, Terms::new(&[])).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    Ok(match running.call("f", &json!({}), TIME).await {
        Ok(answer) if answer == number => (RIGHT.into(), "what runs is the right code".into()),
        Ok(answer) => succeeded(format!("it answered {answer}")),
        Err(failure) => outcome(&failure),
    })
}

/// Two hosts, each with its folder: the one that is attacked (7), and the attacker's own (666).
pub(super) async fn both(room: &Room) -> Result<(PathBuf, PathBuf)> {
    let (ours, theirs) = (room.folder.join("ours"), room.folder.join("theirs"));
    for (folder, number) in [(&ours, 7), (&theirs, 666)] {
        fs::create_dir(folder)?;
        let seen = run(room, folder, number).await?;
        if seen.0 != RIGHT {
            return odd(format!("the right code does not run: {seen:?}"));
        }
    }
    Ok((ours, theirs))
}

/// Puts a file in the place of the right one, and runs that once more.
async fn forged(room: Room, forge: impl Fn(&[u8], &[u8]) -> Result<Vec<u8>>) -> Result<Verdict> {
    let (ours, theirs) = both(&room).await?;
    let path = compiled(&ours, FOLDER)?;
    let forged = forge(&fs::read(&path)?, &fs::read(compiled(&theirs, FOLDER)?)?)?;
    fs::write(&path, &forged)?;
    let seen = run(&room, &ours, 7).await?;
    if seen.0 == RIGHT && fs::read(&path)? == forged {
        return Ok(succeeded("the forged file is still there"));
    }
    Ok(seen)
}

/// Puts the file of another plugin's code where `place` says, given the right file and the other, and runs the
/// right code once more.
pub(super) async fn swapped(
    room: Room,
    backend: &'static str,
    place: fn(&Path, &Path) -> Result<PathBuf>,
) -> Result<Verdict> {
    let ours = room.folder.join("ours");
    fs::create_dir(&ours)?;
    let _ = run(&room, &ours, 7).await?;
    let right = compiled(&ours, backend)?;
    fs::rename(&right, room.folder.join("aside"))?;
    let _ = run(&room, &ours, 666).await?;
    let other = compiled(&ours, backend)?;
    fs::rename(&other, place(&right, &other)?)?;
    run(&room, &ours, 7).await
}

enum How {
    Link,
    Writable,
    Pipe,
}

async fn replaced(room: Room, how: How) -> Result<Verdict> {
    let (ours, theirs) = both(&room).await?;
    let (path, other) = (compiled(&ours, FOLDER)?, compiled(&theirs, FOLDER)?);
    fs::remove_file(&path)?;
    match how {
        How::Link => symlink(&other, &path)?,
        How::Writable => {
            fs::copy(&other, &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        }
        How::Pipe => named_pipe(&path)?,
    }
    run(&room, &ours, 7).await
}

/// The attacker's key and what it signed with it, where the host left its key open to everybody.
async fn known_key(room: Room) -> Result<Verdict> {
    let ours = room.folder.join("ours");
    fs::create_dir(&ours)?;
    let _ = run(&room, &ours, 7).await?;
    let path = compiled(&ours, FOLDER)?;
    let name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    // The attacker compiles the same component with a key of its own and changes what it then signs; here the
    // signature of the right code under that key stands for it.
    let theirs = room.folder.join("theirs");
    fs::create_dir(&theirs)?;
    let _ = run(&room, &theirs, 7).await?;
    let signed = fs::read(theirs.join("wasm").join(&name))?;
    let key = ours.join("wasm/key");
    fs::write(&key, fs::read(theirs.join("wasm/key"))?)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    fs::write(&path, &signed)?;
    let seen = run(&room, &ours, 7).await?;
    let is_private = fs::metadata(&key)?.permissions().mode() & 0o077 == 0;
    if fs::read(&path)? == signed || !is_private {
        return Ok(succeeded("what the known key signed is still there"));
    }
    Ok(seen)
}
