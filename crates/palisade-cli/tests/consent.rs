//! Consent on a terminal, end to end: Python's `pty` plays the person.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use support::{Launcher, Place};

/// Runs the command on a terminal; types each answer once its question is on the screen. Prints the screen
/// and exits with the command's status.
const PERSON: &str = r#"
import json, os, pty, select, sys, time
answers, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(command[0], command)
screen, seen, deadline = b"", 0, time.time() + 60
while time.time() < deadline:
    if terminal in select.select([terminal], [], [], 0.2)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        screen += part
    if answers and answers[0][0].encode() in screen[seen:]:
        seen = len(screen)
        os.write(terminal, answers.pop(0)[1].encode() + b"\n")
sys.stdout.buffer.write(screen)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn person(place: &Place, answers: &[(&str, &str)], args: &[&str]) -> (i32, String) {
    let command = place.std_command();
    let mut python = std::process::Command::new("python3");
    python.arg("-c").arg(PERSON).arg(serde_json::to_string(answers).unwrap());
    python.arg(command.get_program()).args(args).current_dir(place.dir.path());
    python
        .env("PALISADE_STATE_DIR", place.path("state"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    let output = python.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_person_narrows_what_is_asked_and_is_not_asked_again() {
    let place = Place::new(Launcher::Me);
    let path = format!(r#"{{"path":"{}"}}"#, place.text("texts"));
    let call = ["call", "plugins/word-counter", "count", &path];
    let answers = [("Allow?", "y"), ("Allow?", "s"), ("only on", "texts/**")];
    let (status, screen) = person(&place, &answers, &call);
    assert_eq!(status, 0, "{screen}");
    assert!(
        screen.contains("The folder of texts you choose.") && screen.contains("\"words\": 3"),
        "{screen}"
    );
    assert!(
        screen.contains("Not an answer"),
        "yes to all of the machine must not be possible: {screen}"
    );
    let (status, screen) = person(&place, &[], &call);
    assert_eq!(status, 0, "{screen}");
    assert!(!screen.contains("Allow?"), "{screen}");
}

#[test]
fn no_is_no() {
    let place = Place::new(Launcher::Me);
    let call = ["call", "plugins/word-counter", "count", r#"{"path":"/"}"#];
    let (status, screen) = person(&place, &[("Allow?", "")], &call);
    assert_eq!(status, 3, "{screen}");
    assert!(screen.contains("PAL-DENIED"), "{screen}");
}

#[test]
fn where_the_policy_forbids_consent_nobody_is_asked() {
    let place = Place::new(Launcher::Me);
    std::fs::write(place.path("policy.toml"), "allow-consent = false\n").unwrap();
    let call = ["call", "plugins/word-counter", "count", "{}", "--policy", "policy.toml"];
    let (status, screen) = person(&place, &[], &call);
    assert_eq!(status, 3, "{screen}");
    assert!(
        screen.contains("does not let people consent") && !screen.contains("Allow?"),
        "{screen}"
    );
}
