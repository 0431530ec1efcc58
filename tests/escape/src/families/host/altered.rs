//! Attempt 64: changing the record afterwards, as whoever can write its file can.

use super::{Case, Desk, Naive, Verdict, desk, record::fault};
use crate::trouble::{Result, Trouble};

/// Changes `record` in one way. In all of them the lines stay numbered from 1 without a gap.
const CHANGE: &str = r#"
import hashlib, re, sys
how = sys.argv[1]
lines = open('record').read().splitlines()
at = next(n for n, line in enumerate(lines) if '"kind":"launch"' in line)
if how == 'edited':
    lines[at] = lines[at].replace('"kind":"launch"', '"kind":"stop"')
elif how == 'moved':
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
elif how == 'cut':
    del lines[-2:]
elif how == 'last':
    lines[-1] = lines[-1].replace('"phase":"note"', '"phase":"intent"')
else:
    del lines[at]
lines = [re.sub(r'^{"seq":\d+', '{"seq":%d' % (n + 1), line) for n, line in enumerate(lines)]
if how == 'anew':
    chain = '0' * 64
    for n, line in enumerate(lines):
        line = re.sub(r',"chain":"[0-9a-f]{64}"}$', '}', line)
        chain = hashlib.sha256((chain + line).encode()).hexdigest()
        lines[n] = line[:-1] + ',"chain":"%s"}' % chain
before, after = open('record').read(), ''.join(line + '\n' for line in lines)
assert before != after
open('record', 'w').write(after)
print('changed')
"#;

fn change(desk: &Desk, how: &str) -> Result<()> {
    let said = desk.python(CHANGE, &[how])?;
    if said.text().contains("changed") { Ok(()) } else { Err(Trouble(said.words())) }
}

/// A record of two starts, and its last `chain`.
fn recorded(desk: &Desk) -> Result<String> {
    desk.write("plugin/main.py", desk::program("open('/data/ran', 'a').write('x'); reply({})"))?;
    desk.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
    for _ in 0..2 {
        let said = desk.run(&["call", "plugin", "go", "--audit", "record"])?;
        if said.status != Some(0) {
            return Err(Trouble(said.words()));
        }
    }
    let said = desk.run(&["audit", "verify", "record", "--json"])?;
    let seen: serde_json::Value =
        serde_json::from_slice(&said.out).map_err(|_| Trouble(said.words()))?;
    let head = seen.get("head").and_then(serde_json::Value::as_str);
    head.map(str::to_owned).ok_or_else(|| Trouble(said.words()))
}

/// Whether the change is found; `noted`: by somebody who has kept the head elsewhere.
fn found(desk: &Desk, how: &str, noted: bool) -> Result<Verdict> {
    let head = recorded(desk)?;
    change(desk, how)?;
    let mut args = vec!["audit", "verify", "record", "--json"];
    if noted {
        args.extend(["--contains", &head]);
    }
    Ok(desk.run(&args)?.judge(desk, "SUCCEEDED"))
}

/// Whether a log of numbered lines shows nothing of the change.
fn unnoticed(desk: &Desk, how: &str) -> Result<bool> {
    let kinds = ["log-opened", "launch", "call", "stop", "exit", "log-closed"];
    let lines = kinds
        .iter()
        .enumerate()
        .map(|(n, kind)| format!("{{\"seq\":{},\"kind\":\"{kind}\",\"phase\":\"note\"}}\n", n + 1));
    desk.write("record", lines.collect::<String>())?;
    change(desk, how)?;
    Ok(fault(desk, "record")?.is_none())
}

/// A host that is to go on with a record whose last line was changed.
fn goes_on(desk: &Desk) -> Result<Verdict> {
    recorded(desk)?;
    change(desk, "last")?;
    let before = std::fs::read(desk.path("record"))?;
    let said = desk.run(&["call", "plugin", "go", "--json", "--audit", "record"])?;
    if std::fs::read(desk.path("record"))? != before {
        return Ok(("SUCCEEDED".into(), format!("it was written to; {}", said.words())));
    }
    Ok(said.judge(desk, "SUCCEEDED"))
}

pub(super) const CASES: &[Case] = &[
    Case {
        number: 64,
        variant: "altered-edited",
        name: "a launch becomes a stop in the record",
        attack: |d| found(d, "edited", false),
        control: Naive::Works(|d| unnoticed(d, "edited")),
    },
    Case {
        number: 64,
        variant: "altered-removed",
        name: "a launch is taken out of the record, and the rest is numbered anew",
        attack: |d| found(d, "removed", false),
        control: Naive::Works(|d| unnoticed(d, "removed")),
    },
    Case {
        number: 64,
        variant: "altered-moved",
        name: "a launch changes places with what follows it in the record",
        attack: |d| found(d, "moved", false),
        control: Naive::Works(|d| unnoticed(d, "moved")),
    },
    Case {
        number: 64,
        variant: "altered-cut",
        name: "the end of the record is cut off, and its last chain was noted elsewhere",
        attack: |d| found(d, "cut", true),
        control: Naive::Works(|d| unnoticed(d, "cut")),
    },
    Case {
        number: 64,
        variant: "altered-anew",
        name: "the record is written anew without a launch, and its last chain was noted elsewhere",
        attack: |d| found(d, "anew", true),
        control: Naive::Works(|d| unnoticed(d, "anew")),
    },
    Case {
        number: 64,
        variant: "altered-continued",
        name: "a host is to go on with a record whose last line was changed",
        attack: goes_on,
        control: Naive::Works(|d| unnoticed(d, "last")),
    },
];
