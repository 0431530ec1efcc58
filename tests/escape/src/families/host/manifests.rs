//! Attempt 72: a manifest that is not what it seems, or that costs whoever reads it.

use std::{fs, io::Write as _, os::unix::fs::symlink};

use super::{Case, Desk, Naive, Verdict, desk};
use crate::trouble::{Result, While};

const MANIFEST: &str = "plugin/plugin.yaml";

fn check(desk: &Desk) -> Result<Verdict> {
    Ok(desk.run(&["check", "plugin", "--json"])?.judge(desk, "SUCCEEDED"))
}

/// Whether a reader that takes no care tells the secret.
fn reads_secret(desk: &Desk, prepare: fn(&Desk) -> Result<()>) -> Result<bool> {
    prepare(desk)?;
    let bytes = fs::read(desk.path(MANIFEST)).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).contains(&desk.secret))
}

/// Whether a reader that takes no care is still at it after two seconds, or was handed this many bytes.
fn reader_is_held(desk: &Desk, bytes: usize) -> Result<bool> {
    let program = "import sys; n = 0\nwith open(sys.argv[1], 'rb') as f:\n  while True:\n    b = f.read(1 << 20)\n    n += len(b)\n    if not b or n > int(sys.argv[2]): break\nprint(n)";
    let mut python = desk.prepare("python3");
    python.args(["-c", program]).arg(desk.path(MANIFEST)).arg(bytes.to_string());
    let patience = std::time::Duration::from_secs(2);
    let said = desk.finish_within(&mut python, b"", patience)?;
    let read: usize = said.text().trim().parse().unwrap_or(0);
    Ok(said.status.is_none() || read >= bytes)
}

fn good() -> String {
    desk::manifest("victim", "")
}

fn link_secret(desk: &Desk) -> Result<()> {
    symlink(desk.path("outside/secret"), desk.path(MANIFEST)).doing("a link")
}

fn link_relative(desk: &Desk) -> Result<()> {
    symlink("../outside/secret", desk.path(MANIFEST)).doing("a link")
}

fn link_environ(desk: &Desk) -> Result<()> {
    symlink("/proc/self/environ", desk.path(MANIFEST)).doing("a link")
}

fn fifo(desk: &Desk) -> Result<()> {
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, desk.path(MANIFEST), kind, mode, 0).doing("a FIFO")
}

fn device(desk: &Desk) -> Result<()> {
    let kind = rustix::fs::FileType::CharacterDevice;
    let zero = rustix::fs::makedev(1, 5);
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, desk.path(MANIFEST), kind, mode, zero).doing("a device")
}

fn huge(desk: &Desk) -> Result<()> {
    let mut file = fs::File::create(desk.path(MANIFEST))?;
    file.write_all(good().as_bytes())?;
    file.write_all(b"# ")?;
    // Sparse: it takes no room.
    file.set_len(1 << 30).doing("a large file")
}

fn bomb() -> String {
    let mut text = "x-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("x-a{level}: &a{level} [{below}]\n"));
    }
    good() + &text
}

fn text(desk: &Desk, text: impl AsRef<[u8]>) -> Result<Verdict> {
    desk.write(MANIFEST, text)?;
    check(desk)
}

/// What Python makes of a JSON manifest: the later of two keys wins, in silence.
fn json_wins(desk: &Desk) -> Result<bool> {
    let said = desk.python(
        "import json; print(json.loads('{\"id\": \"good\", \"id\": \"evil\"}')['id'])",
        &[],
    )?;
    Ok(said.text().contains("evil"))
}

const NO_READER: &str = "no reader of this syntax is installed that takes no care";

pub(super) const CASES: &[Case] = &[
    Case {
        number: 72,
        variant: "link-secret",
        name: "the manifest is a link to a secret, to be quoted in the error",
        attack: |d| link_secret(d).and_then(|()| check(d)),
        control: Naive::Works(|d| reads_secret(d, link_secret)),
    },
    Case {
        number: 72,
        variant: "link-relative",
        name: "the same by a relative link",
        attack: |d| link_relative(d).and_then(|()| check(d)),
        control: Naive::Works(|d| reads_secret(d, link_relative)),
    },
    Case {
        number: 72,
        variant: "link-environ",
        name: "the manifest is a link to the host's environment",
        attack: |d| link_environ(d).and_then(|()| check(d)),
        control: Naive::Works(|d| {
            link_environ(d)?;
            Ok(fs::read(d.path(MANIFEST)).is_ok_and(|bytes| !bytes.is_empty()))
        }),
    },
    Case {
        number: 72,
        variant: "fifo",
        name: "the manifest is a FIFO that nobody writes",
        attack: |d| fifo(d).and_then(|()| check(d)),
        control: Naive::Works(|d| fifo(d).and_then(|()| reader_is_held(d, 1))),
    },
    Case {
        number: 72,
        variant: "device",
        name: "the manifest is a device that never ends",
        attack: |d| match device(d) {
            Ok(()) => check(d),
            Err(_) => Ok(("impossible:only root makes devices".into(), String::new())),
        },
        control: Naive::Works(|d| Ok(device(d).is_ok() && reader_is_held(d, 64 << 20)?)),
    },
    Case {
        number: 72,
        variant: "socket",
        name: "the manifest is a socket",
        attack: |d| {
            // The path of the folder is too long for a socket's address.
            let near = tempfile::tempdir()?;
            let path = near.path().join("s");
            let _socket = std::os::unix::net::UnixListener::bind(&path).doing("a socket")?;
            if fs::rename(&path, d.path(MANIFEST)).is_err() {
                symlink(&path, d.path(MANIFEST))?;
            }
            check(d)
        },
        control: Naive::None("a socket cannot be opened at all"),
    },
    Case {
        number: 72,
        variant: "folder",
        name: "the manifest is a folder",
        attack: |d| {
            fs::create_dir(d.path(MANIFEST))?;
            check(d)
        },
        control: Naive::None("a folder cannot be read at all"),
    },
    Case {
        number: 72,
        variant: "huge",
        name: "the manifest has 1 GiB",
        attack: |d| huge(d).and_then(|()| check(d)),
        control: Naive::Works(|d| huge(d).and_then(|()| reader_is_held(d, 1 << 28))),
    },
    Case {
        number: 72,
        variant: "aliases",
        name: "YAML aliases that unfold to billions",
        attack: |d| text(d, bomb()),
        control: Naive::None(NO_READER),
    },
    Case {
        number: 72,
        variant: "merge-key",
        name: "a YAML merge key that brings in rights",
        attack: |d| {
            text(
                d,
                good()
                    + "x-base: &b { required: ['fs.write:/srv/**'] }\ncapabilities: { <<: *b }\n",
            )
        },
        control: Naive::None(NO_READER),
    },
    Case {
        number: 72,
        variant: "tag",
        name: "a YAML tag that makes an object",
        attack: |d| text(d, good() + "x-run: !!python/object/apply:os.system ['id']\n"),
        control: Naive::None(NO_READER),
    },
    Case {
        number: 72,
        variant: "documents",
        name: "a second YAML document behind the first",
        attack: |d| text(d, good() + "---\ncapabilities: { required: ['fs.write:/srv/**'] }\n"),
        control: Naive::None(NO_READER),
    },
    Case {
        number: 72,
        variant: "deep",
        name: "lists nested 100,000 deep",
        attack: |d| text(d, good() + "x-deep: " + &"[".repeat(100_000)),
        control: Naive::Works(|d| {
            let said = d.python("import json; json.loads('[' * 100000)", &[])?;
            Ok(said.text().contains("RecursionError"))
        }),
    },
    Case {
        number: 72,
        variant: "deep-json",
        name: "the same in JSON",
        attack: |d| {
            d.write("plugin/plugin.json", "[".repeat(100_000))?;
            check(d)
        },
        control: Naive::Works(|d| {
            let said = d.python("import json; json.loads('[' * 100000)", &[])?;
            Ok(said.text().contains("RecursionError"))
        }),
    },
    Case {
        number: 72,
        variant: "duplicate-yaml",
        name: "a key twice: one for the person, one for the program (YAML)",
        attack: |d| text(d, good() + "id: other\n"),
        control: Naive::Works(json_wins),
    },
    Case {
        number: 72,
        variant: "duplicate-json",
        name: "the same in JSON, once with an escaped letter",
        attack: |d| {
            let entry = r#""entry": {"kind": "python", "file": "main.py"}"#;
            d.write(
                "plugin/plugin.json",
                format!(r#"{{"api": "palisade/1", "id": "good", "\u0069d": "evil", "version": "1.0.0", {entry}}}"#),
            )?;
            check(d)
        },
        control: Naive::Works(json_wins),
    },
    Case {
        number: 72,
        variant: "duplicate-toml",
        name: "the same in TOML",
        attack: |d| {
            d.write(
                "plugin/plugin.toml",
                "api = \"palisade/1\"\nid = \"good\"\n\"id\" = \"evil\"\nversion = \"1.0.0\"\nentry = { kind = \"python\", file = \"main.py\" }\n",
            )?;
            check(d)
        },
        control: Naive::Works(json_wins),
    },
    Case {
        number: 72,
        variant: "two",
        name: "two manifests in one folder",
        attack: |d| {
            d.write("plugin/plugin.json", "{}")?;
            text(d, good())
        },
        control: Naive::None("which of two a host reads is its own choice"),
    },
    Case {
        number: 72,
        variant: "not-utf8",
        name: "bytes that are no text",
        attack: |d| text(d, [good().as_bytes(), b"name: \"\xff\xfe\x1b[2J\"\n"].concat()),
        control: Naive::None("every reader refuses them in its own way"),
    },
    Case {
        number: 72,
        variant: "nul",
        name: "a NUL within a value",
        attack: |d| text(d, good().replace("main.py", "\"main.py\\0.txt\"")),
        control: Naive::Works(|d| {
            let said = d.python("import json; print(len(json.loads(r'\"a\\u0000b\"')))", &[])?;
            Ok(said.text().trim() == "3")
        }),
    },
    Case {
        number: 72,
        variant: "entry-up",
        name: "the program lies outside the plugin's folder",
        attack: |d| text(d, good().replace("main.py", "../outside/secret")),
        control: Naive::Works(|d| Ok(d.path("plugin/../outside/secret").exists())),
    },
    Case {
        number: 72,
        variant: "entry-link",
        name: "the program is a link to a secret",
        attack: |d| {
            symlink(d.path("outside/secret"), d.path("plugin/main.py"))?;
            d.write(MANIFEST, good())?;
            let said = d.run(&["call", "plugin", "go", "--json"])?;
            Ok(said.judge(d, "SUCCEEDED"))
        },
        control: Naive::Works(|d| {
            symlink(d.path("outside/secret"), d.path("plugin/main.py"))?;
            let said = d.finish(
                {
                    let mut python = d.prepare("python3");
                    python.arg("plugin/main.py");
                    python
                },
                b"",
            )?;
            // An interpreter quotes what it does not understand.
            Ok(said.holds(d.secret.as_bytes()) || said.text().contains("Error"))
        }),
    },
];
