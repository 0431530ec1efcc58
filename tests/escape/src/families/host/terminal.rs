//! Attempt 30, the terminal's half: bytes that command a terminal, by every way on which a plugin's words
//! reach one.

use serde_json::json;

use super::{Case, Desk, Naive, Verdict, consent, desk};
use crate::trouble::Result;

/// Clears the screen, sets the title, hides, writes the clipboard, asks the terminal to type, and moves up;
/// 7-bit and 8-bit.
const PYTHON_TEXT: &str = r#"'X\x1b[2J\x1b]0;owned\x07\x1b[8m\x1b]52;c;cm0=\x07\x1b[6n\x9b2J\x9d0;own\x07\rZ\x08\x08\u202eY\x7f'"#;
/// None of which may reach the terminal as it is.
const BAD: [&str; 9] = [
    "\u{1b}[2J",
    "\u{1b}]0;",
    "\u{1b}[8m",
    "\u{1b}]52;",
    "\u{1b}[6n",
    "\u{9b}2J",
    "\u{9d}0;",
    "\rZ",
    "\u{202e}",
];

/// A plugin whose tool runs `body` with `text` at hand, called on a terminal.
fn call(desk: &Desk, body: &str) -> Result<Verdict> {
    let body = format!("text = {PYTHON_TEXT}\n{body}");
    desk.write("plugin/main.py", desk::program(&body))?;
    desk.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
    let mut verdict = None;
    for options in [&[][..], &["--json"], &["-vvv"]] {
        let said = desk.person(&json!([]), &[&["call", "plugin", "go"], options].concat())?;
        let next = consent::clean(&said, &BAD);
        // An X without what follows shows that the words came at all.
        if next.0 == "contained" && !said.holds(b"X") {
            return Ok((
                "absent".into(),
                format!("its words do not reach the terminal; {}", next.1),
            ));
        }
        if next.0.starts_with("SUCCEEDED") {
            return Ok(next);
        }
        verdict = Some(next);
    }
    Ok(verdict.unwrap_or_default())
}

/// A host that prints what it is told.
fn naive(desk: &Desk) -> Result<bool> {
    let words = ["python3", "-c", &format!("print({PYTHON_TEXT})")].map(str::to_owned);
    let said = desk.on_terminal(&json!([]), &words)?;
    Ok(BAD.iter().all(|bad| said.holds(bad.as_bytes())))
}

macro_rules! spoken {
    ($variant:literal, $name:literal, $body:literal) => {
        Case {
            number: 30,
            variant: $variant,
            name: $name,
            attack: |d| call(d, $body),
            control: Naive::Works(naive),
        }
    };
}

pub(super) const CASES: &[Case] = &[
    spoken!(
        "stdout",
        "command the terminal by stdout",
        "sys.stdout.reconfigure(encoding='utf-8')\nprint(text, flush=True); time.sleep(0.2); reply('X')"
    ),
    spoken!(
        "stderr",
        "command the terminal by stderr",
        "sys.stderr.reconfigure(encoding='utf-8')\nprint(text, file=sys.stderr, flush=True); time.sleep(0.2); reply('X')"
    ),
    spoken!(
        "stderr-bytes",
        "the same with bytes that are no UTF-8",
        "os.write(2, b'X\\x9b2J\\xc2\\x9b2J\\x1b[2J\\xff\\x1b]0;owned\\x07\\n'); time.sleep(0.2); reply('X')"
    ),
    spoken!("answer", "command the terminal by a tool's answer", "reply(text)"),
    spoken!("answer-key", "the same by a key of the answer", "reply({text: 1})"),
    spoken!("failure", "command the terminal by an error message", "fail(text)"),
    spoken!(
        "log",
        "command the terminal by the log method",
        "say({'jsonrpc': '2.0', 'method': 'log', 'params': {'level': 'warn', 'message': text}}); time.sleep(0.2); reply('X')"
    ),
    spoken!(
        "log-fields",
        "the same by fields of a log line",
        "say({'jsonrpc': '2.0', 'method': 'log', 'params': {'level': 'error', 'message': 'X', 'fields': {text: text}}}); time.sleep(0.2); reply('X')"
    ),
    spoken!(
        "breach",
        "command the terminal by a message that is none",
        "answers.write('X' + text + '\\n'); answers.flush(); time.sleep(5)"
    ),
    spoken!(
        "method",
        "command the terminal by the name of a method",
        "print('X', file=sys.stderr, flush=True); time.sleep(0.5); say({'jsonrpc': '2.0', 'id': 9, 'method': text, 'params': {}}); time.sleep(0.2); reply('X')"
    ),
    Case {
        number: 30,
        variant: "folder",
        name: "command the terminal by the name of the plugin's folder",
        attack: |d| {
            let name = "X\u{1b}[2J\u{1b}]0;own\u{7}\u{202e}";
            // Named in the error, because there is no manifest.
            d.write(&format!("{name}/readme"), "")?;
            let said = d.person(&json!([]), &["check", name])?;
            let verdict = consent::clean(&said, &BAD);
            Ok(if said.holds(b"X\\u{1b}") { verdict } else { ("absent".into(), verdict.1) })
        },
        control: Naive::Works(naive),
    },
    Case {
        number: 30,
        variant: "excerpt",
        name: "command the terminal by the excerpt of a faulty manifest",
        attack: |d| {
            let text = format!(
                "{}unknown-key: \"X\u{1b}[2J\u{9b}2J\u{202e}\"\n",
                desk::manifest("talker", "")
            );
            d.write("plugin/plugin.yaml", text)?;
            let said = d.person(&json!([]), &["check", "plugin"])?;
            Ok(consent::clean(&said, &BAD))
        },
        control: Naive::Works(naive),
    },
    Case {
        number: 30,
        variant: "record",
        name: "command the terminal of whoever reads the record",
        attack: |d| {
            d.write("plugin/main.py", desk::program(&format!("fail({PYTHON_TEXT})")))?;
            d.write("plugin/plugin.yaml", desk::manifest("talker", ""))?;
            d.run(&["call", "plugin", "go", "--audit", "record"])?;
            let said = d.on_terminal(&json!([]), &["cat".to_owned(), d.text("record")])?;
            Ok(consent::clean(&said, &BAD))
        },
        control: Naive::Works(naive),
    },
];
