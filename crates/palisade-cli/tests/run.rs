//! `palisade run`, end to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest, program};

#[test]
fn it_runs_until_it_is_interrupted_and_ends_in_order() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let mut child = place
            .std_command()
            .args(["run", "plugins/markov-chatter", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut events = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == "started" {
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            }
            events.push(event);
        }
        let status = child.wait().unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(status.code(), Some(0), "{launcher:?}: {err} {events:?}");
        let names: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
        assert!(names.contains(&"log") && names.contains(&"started"), "{names:?}");
        let last = events.last().unwrap();
        assert_eq!(
            (&last["event"], &last["how"]),
            (&"ended".into(), &"exited with status 0".into()),
            "{launcher:?}"
        );
    }
}

#[test]
fn a_plugin_that_ends_by_itself_ends_the_command() {
    let place = Place::new(Launcher::Me);
    let end = |status| {
        program("reply(1)").replace("for line in lane:", &format!("ready = False\nfor line in lane:\n    if ready: sys.exit({status})"))
        .replace("reply({\"protocol\": 1})", "reply({\"protocol\": 1}); print('bye\\x1b[31m'); sys.stdout.flush(); time.sleep(0.3); sys.exit(STATUS)".replace("STATUS", status).as_str())
    };
    place.plugin("done", &manifest("done", ""), &end("0"));
    place.plugin("broken", &manifest("broken", ""), &end("3"));
    let (status, out, err) = place.run(&["run", "plugins/done"]);
    assert_eq!((status, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("done | bye\\u{1b}[31m"), "{err}");
    let (status, _, err) = place.run(&["run", "plugins/broken"]);
    assert_eq!(status, 6, "{err}");
    assert!(err.contains("exited with status 3"), "{err}");
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["run", "plugins/word-counter"]);
    assert_eq!((status, out.as_str()), (3, ""));
    assert!(err.contains("--grant 'fs.read:") && !err.contains("Allow?"), "{err}");
    let (status, out, _) = place.run(&["run", "plugins/word-counter", "--json"]);
    let event: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &event["event"], &event["error"]["code"]),
        (3, &"failed".into(), &"PAL-DENIED".into())
    );
}
