//! Attempt 64: changing what the record says, or acting without one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_audit::{
    Act, Clock, JsonLinesRecorder, Options, Outcome, RecordKind, Recorder, Stamp,
};
use palisade_model::Principal;
use serde_json::{Value, json};

use super::{Case, Desk, Naive, Verdict, desk};
use crate::{
    careless,
    trouble::{Result, Trouble, While},
};

/// A record that nobody wrote, on a line of its own.
const FORGED: &str = r#"X\n{\"seq\":9,\"boot\":\"b\",\"time\":\"2020-01-01T00:00:00Z\",\"unix_ns\":1,\"monotonic_ns\":1,\"correlation\":1,\"kind\":\"grant\",\"phase\":\"outcome\",\"actor\":\"forged\",\"plugin\":\"forged\"}\n"#;

/// What is wrong with a record, if something is: every line one record, numbered without gaps from 1, and
/// none by an actor that does not exist.
pub(super) fn fault(desk: &Desk, name: &str) -> Result<Option<String>> {
    let text = fs::read_to_string(desk.path(name)).doing("reading the record")?;
    let mut wanted = None;
    for line in text.lines() {
        let Ok(record) = serde_json::from_str::<Value>(line) else {
            return Ok(Some(format!("a line that is no record: {line:?}")));
        };
        let field = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
        if field("actor") == "forged" || field("plugin") == "forged" {
            return Ok(Some(format!("a forged record: {line}")));
        }
        let seq = record.get("seq").and_then(Value::as_u64);
        if wanted.is_some() && seq != wanted {
            return Ok(Some(format!("record {seq:?}, not {wanted:?}")));
        }
        wanted = seq.map(|s| s + 1);
    }
    Ok(if wanted.is_none() { Some("nothing was recorded".into()) } else { None })
}

fn whole(desk: &Desk, said: &desk::Said) -> Result<Verdict> {
    Ok(match fault(desk, "record")? {
        Some(fault) => ("SUCCEEDED".into(), format!("{fault}; {}", said.words())),
        None => ("contained".into(), format!("in the record, as text; {}", said.words())),
    })
}

/// A plugin whose tool runs `body`, with the forged line as `text`, and a record of it.
fn recorded(desk: &Desk, body: &str, arguments: &str) -> Result<Verdict> {
    let body = format!("text = '{FORGED}'\n{body}");
    desk.write("plugin/main.py", desk::program(&body))?;
    desk.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
    let said = desk.run(&["call", "plugin", "go", arguments, "--audit", "record"])?;
    whole(desk, &said)
}

/// A log that is written by joining texts.
fn joined(desk: &Desk) -> Result<bool> {
    let program = format!("open('record', 'w').write('INFO plugin said: {FORGED}')");
    desk.python(&program, &[])?;
    Ok(fault(desk, "record")?.is_some())
}

/// A clock that runs backwards.
#[derive(Default)]
struct Backwards(AtomicU64);

impl Clock for Backwards {
    fn now(&self) -> Stamp {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        Stamp { unix_ns: 2_000_000_000_000_000_000 - turn * 3_600_000_000_000, monotonic_ns: turn }
    }
}

fn clock(desk: &Desk) -> Result<Verdict> {
    let recorder = JsonLinesRecorder::open_with(
        desk.path("record"),
        Options::default(),
        Arc::new(Backwards::default()),
    )
    .doing("opening a record")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().doing("a runtime")?;
    runtime.block_on(async {
        for turn in 0..50 {
            let act = Act::new(RecordKind::Grant, Arc::new(Principal::Application))
                .target(&format!("turn {turn}"));
            let intent = recorder.intent(act).await.doing("an intent")?;
            recorder.outcome(intent, Outcome::Done, None);
        }
        Ok::<_, Trouble>(())
    })?;
    drop(recorder);
    let text = fs::read_to_string(desk.path("record"))?;
    let numbers = |name: &str| -> Vec<u64> {
        let records = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        records.filter_map(|r| r.get(name).and_then(Value::as_u64)).collect()
    };
    let ascending = |n: &[u64]| n.is_sorted() && n.len() >= 100;
    Ok(match (fault(desk, "record")?, ascending(&numbers("monotonic_ns"))) {
        (None, true) => ("contained".into(), "numbered and timed in the order of events".into()),
        (fault, ordered) => ("SUCCEEDED".into(), format!("{fault:?}, in order: {ordered}")),
    })
}

/// Ends the host as soon as the plugin runs.
fn killed(desk: &Desk) -> Result<Verdict> {
    let body = "reply({})";
    let start = "import sys\nprint('UP', file=sys.stderr, flush=True)\n";
    desk.write("plugin/main.py", start.to_owned() + &desk::program(body))?;
    desk.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
    let mut child = desk
        .palisade(&["run", "plugin", "--audit", "record"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing("starting the command")?;
    let stderr = child.stderr.take().ok_or_else(|| Trouble("no stderr".into()))?;
    let (sender, up) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
            if line.contains("UP") {
                let _ = sender.send(());
                break;
            }
        }
    });
    let ran = up.recv_timeout(Duration::from_secs(30)).is_ok();
    child.kill()?;
    child.wait()?;
    if !ran {
        return Ok(("impossible:the plugin did not come up".into(), String::new()));
    }
    let text = fs::read_to_string(desk.path("record")).unwrap_or_default();
    let launched = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).any(|r| {
        r.get("kind").and_then(Value::as_str) == Some("launch")
            && r.get("phase").and_then(Value::as_str) == Some("intent")
    });
    Ok(match (launched, fault(desk, "record")?) {
        (true, None) => ("contained".into(), "the launch was on disk before it happened".into()),
        (launched, fault) => ("SUCCEEDED".into(), format!("launch: {launched}, {fault:?}")),
    })
}

/// A host that acts and writes it down afterwards, ended in between.
fn killed_before_its_log(desk: &Desk) -> Result<bool> {
    let mut host = careless::host(&desk.root, "late", &["acted", "log"]).spawn()?;
    let begun = Instant::now();
    while !desk.path("acted").exists() && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    host.kill()?;
    host.wait()?;
    Ok(desk.path("acted").exists() && !desk.path("log").exists())
}

/// A record that cannot be written.
fn unwritable(desk: &Desk, record: &str) -> Result<Verdict> {
    desk.write("plugin/main.py", desk::program("open('/data/ran', 'w').close(); reply({})"))?;
    desk.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
    let said = desk.run(&["call", "plugin", "go", "--json", "--audit", record])?;
    Ok(said.judge(desk, "SUCCEEDED"))
}

pub(super) const CASES: &[Case] = &[
    Case {
        number: 64,
        variant: "arguments",
        name: "a forged record within a call's arguments",
        attack: |d| {
            let arguments = json!({"a\n{\"actor\":\"forged\"}\n": FORGED.replace("\\n", "\n")});
            recorded(d, "reply({})", &arguments.to_string())
        },
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "answer",
        name: "a forged record within an answer",
        attack: |d| recorded(d, "reply(text)", "{}"),
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "failure",
        name: "a forged record within an error message",
        attack: |d| recorded(d, "fail(text)", "{}"),
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "log",
        name: "a forged record within log lines",
        attack: |d| {
            recorded(
                d,
                "print(text, flush=True); say({'jsonrpc': '2.0', 'method': 'log', 'params': {'level': 'error', 'message': text}}); reply({})",
                "{}",
            )
        },
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "method",
        name: "a forged record within the name of a method",
        attack: |d| {
            recorded(
                d,
                "say({'jsonrpc': '2.0', 'id': 9, 'method': text, 'params': {'path': text}}); reply({})",
                "{}",
            )
        },
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "trace",
        name: "a forged record within a request's parameters and trace",
        attack: |d| {
            recorded(
                d,
                "say({'jsonrpc': '2.0', 'id': 9, 'method': 'http.fetch', 'params': {'url': 'http://' + text, 'trace': text}, 'trace': text}); reply({})",
                "{}",
            )
        },
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "folder",
        name: "a forged record within the name of the plugin's folder",
        attack: |d| {
            // A name has at most 255 bytes, and no slash.
            let name = "p\n{\"seq\":9,\"actor\":\"forged\",\"plugin\":\"forged\"}\n";
            d.write(&format!("{name}/main.py"), desk::program("reply({})"))?;
            d.write(&format!("{name}/plugin.yaml"), desk::manifest("talker", ""))?;
            let said = d.run(&["call", name, "go", "--audit", "record"])?;
            whole(d, &said)
        },
        control: Naive::Works(joined),
    },
    Case {
        number: 64,
        variant: "torn",
        name: "half a line at the end of the record, as a crash leaves it",
        attack: |d| {
            recorded(d, "reply({})", "{}")?;
            let mut text = fs::read_to_string(d.path("record"))?;
            let lines = text.lines().count();
            text.push_str(&format!("{{\"seq\":{},\"boot\":\"to", lines + 1));
            d.write("record", &text)?;
            let said = d.run(&["call", "plugin", "go", "--audit", "record"])?;
            let after = fs::read_to_string(d.path("record"))?;
            // Torn goes away; what follows is whole.
            let parsed = after.lines().filter(|l| serde_json::from_str::<Value>(l).is_ok()).count();
            Ok(if parsed > lines && said.status == Some(0) {
                ("contained".into(), format!("{parsed} whole records after {lines}"))
            } else {
                said.judge(d, "SUCCEEDED")
            })
        },
        control: Naive::Works(|d| {
            d.write("record", "{\"seq\":1,\"bo")?;
            d.python("open('record', 'a').write('{\"seq\":2}\\n')", &[])?;
            Ok(fault(d, "record")?.is_some())
        }),
    },
    Case {
        number: 64,
        variant: "kill",
        name: "end the host between a launch and its record",
        attack: killed,
        control: Naive::Works(killed_before_its_log),
    },
    Case {
        number: 64,
        variant: "full",
        name: "launch where the record cannot be written",
        attack: |d| unwritable(d, "/dev/full"),
        control: Naive::Works(|d| {
            let said = d.python("print('ran'); open('/dev/full', 'w').write('x' * 9000)", &[])?;
            Ok(said.text().contains("ran"))
        }),
    },
    Case {
        number: 64,
        variant: "record-link",
        name: "the record's file is a link to another",
        attack: |d| {
            std::os::unix::fs::symlink(d.path("outside/target"), d.path("record"))?;
            let begun = Instant::now();
            let verdict = unwritable(d, "record")?;
            // Whose link it is decides: the operator named the file.
            let (there, time) = (d.path("outside/target").exists(), begun.elapsed());
            Ok(match verdict.0.as_str() {
                "SUCCEEDED" => {
                    ("contained".into(), format!("the operator named it: {there}, {time:?}"))
                }
                _ => verdict,
            })
        },
        control: Naive::Works(|d| {
            std::os::unix::fs::symlink(d.path("outside/target"), d.path("record"))?;
            fs::write(d.path("record"), "x")?;
            Ok(d.path("outside/target").exists())
        }),
    },
    Case {
        number: 64,
        variant: "write",
        name: "open the record from inside, and the store of grants",
        attack: |d| {
            let names =
                json!({"paths": [d.text("record"), d.text("state/host.db"), d.text("state")]});
            let body = "n = 0\nfor p in args['paths']:\n    try:\n        open(p, 'ab'); n += 1\n    except OSError as e: why = e.strerror\nreply({'opened': n} if n else why)";
            let shown = {
                d.write("plugin/main.py", desk::program(body))?;
                d.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
                d.run(&["call", "plugin", "go", &names.to_string(), "--json", "--audit", "record"])?
            };
            Ok(if shown.text().contains("No such file") {
                ("blocked:ENOENT".into(), shown.words())
            } else {
                ("SUCCEEDED".into(), shown.words())
            })
        },
        control: Naive::Works(|d| {
            d.write("record", "")?;
            Ok(fs::OpenOptions::new().append(true).open(d.path("record")).is_ok())
        }),
    },
    Case {
        number: 64,
        variant: "clock",
        name: "a clock that is set back between records",
        attack: clock,
        control: Naive::Works(|_| {
            let clock = Backwards::default();
            Ok(clock.now().unix_ns > clock.now().unix_ns)
        }),
    },
];
