//! Attempt 60 against a plugin whose manifest names its files: another one is put there before it is loaded, and
//! while a person reads what they are asked. What answers must be what was approved, or nothing.

use std::{fs, path::Path};

use serde_json::json;

use super::{Case, Desk, Naive, Verdict, desk};
use crate::{
    careless,
    trouble::{Result, Trouble},
};

/// The tool says which program it is: `word`, or what its module says.
fn says(word: &str) -> String {
    desk::program(&format!("reply({word})"))
}

/// Its module lies beside it.
const BY_MODULE: &str = "sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\nimport module\nreply(module.SAYS)";

/// What is put into the place of that.
const SWAPPED: &str = "SAYS = 'swapped'\n";

/// What a person is asked for.
fn asks(desk: &Desk) -> String {
    let texts = desk.text("texts");
    format!(
        "capabilities:\n  required:\n    - {{ capability: 'fs.read:{texts}/**', reason: Counts. }}\n"
    )
}

/// A sealed plugin that answers "approved".
fn laid(desk: &Desk, rest: &str) -> Result<()> {
    desk.write("plugin/main.py", desk::program(BY_MODULE))?;
    desk.write("plugin/module.py", "SAYS = 'approved'\n")?;
    desk.write("plugin/plugin.yaml", desk::manifest("sealed", rest))?;
    let said = desk.run(&["seal", "plugin"])?;
    match said.status {
        Some(0) => Ok(()),
        _ => Err(Trouble(format!("it cannot be sealed: {}", said.words()))),
    }
}

/// What came of it: nothing else than the approved program may have answered.
fn judged(desk: &Desk, said: &desk::Said) -> Verdict {
    if said.holds(b"swapped") && said.status == Some(0) {
        return ("SUCCEEDED".into(), said.words());
    }
    let approved = said.holds(b"approved");
    said.judge(desk, if approved { "contained" } else { "impossible:it says nothing" })
}

/// A file is another one when the plugin is loaded. It had run before.
fn before(desk: &Desk, change: impl FnOnce(&Desk) -> Result<()>) -> Result<Verdict> {
    laid(desk, "")?;
    let first = desk.run(&["call", "plugin", "go"])?;
    if judged(desk, &first).0 != "contained" {
        return Err(Trouble(format!("an honest plugin is refused: {}", first.words())));
    }
    change(desk)?;
    Ok(judged(desk, &desk.run(&["call", "plugin", "go"])?))
}

/// A file is another one when the person has answered.
fn meanwhile(desk: &Desk, file: &str, next: &str) -> Result<Verdict> {
    laid(desk, &asks(desk))?;
    desk.write("next", next)?;
    let answers = json!([["Allow?", "y", [desk.path("next"), desk.path(file)]]]);
    let said = desk.person(&answers, &["call", "plugin", "go"])?;
    if fs::read_to_string(desk.path(file))? != next {
        return Ok(("impossible:nobody was asked".into(), said.words()));
    }
    Ok(judged(desk, &said))
}

/// A host that compares the program with what was agreed to, and then starts it by its path. The swapped file comes
/// to `place` before it looks, or after.
fn compared(desk: &Desk, place: &str, when: &str) -> Result<bool> {
    desk.write("plugin/main.py", "import module; print(module.SAYS)\n")?;
    desk.write("plugin/module.py", "SAYS = 'approved'\n")?;
    desk.write("next", if place.ends_with("main.py") { "print('swapped')\n" } else { SWAPPED })?;
    let place = desk.text(place);
    fs::create_dir_all(Path::new(&place).parent().unwrap_or(&desk.root))?;
    careless::is_fooled(&desk.root, "start", &["plugin/main.py", "next", &place, when])
}

pub(super) const CASES: &[Case] = &[
    Case {
        number: 60,
        variant: "sealed-program",
        name: "the program of a sealed plugin becomes another one",
        attack: |d| before(d, |d| d.write("plugin/main.py", says("'swapped'"))),
        control: Naive::Works(|d| compared(d, "plugin/main.py", "after")),
    },
    Case {
        number: 60,
        variant: "sealed-module",
        name: "a module of a sealed plugin becomes another one",
        attack: |d| before(d, |d| d.write("plugin/module.py", SWAPPED)),
        control: Naive::Works(|d| compared(d, "plugin/module.py", "before")),
    },
    Case {
        number: 60,
        variant: "sealed-more",
        name: "a sealed plugin gets one more module, which comes first",
        attack: |d| {
            before(d, |d| {
                fs::create_dir(d.path("plugin/module"))?;
                d.write("plugin/module/__init__.py", SWAPPED)
            })
        },
        control: Naive::Works(|d| compared(d, "plugin/module/__init__.py", "before")),
    },
    Case {
        number: 60,
        variant: "sealed-at-prompt",
        name: "the program of a sealed plugin is swapped while the person reads the question",
        attack: |d| meanwhile(d, "plugin/main.py", &says("'swapped'")),
        control: Naive::Works(|d| compared(d, "plugin/main.py", "after")),
    },
    Case {
        number: 60,
        variant: "sealed-module-at-prompt",
        name: "a module of a sealed plugin is swapped while the person reads the question",
        attack: |d| meanwhile(d, "plugin/module.py", SWAPPED),
        control: Naive::Works(|d| compared(d, "plugin/module.py", "after")),
    },
];
