//! What a machine said: its lines as data, whether anything is missing, and a table for people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;

/// One line of a machine's, as `tests/vm` sends it.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Plan {
        situations: Vec<String>,
        kernel: String,
        landlock: u32,
    },
    Check {
        situation: String,
        name: String,
        ok: bool,
        detail: String,
        #[serde(default)]
        counts: Option<Counts>,
    },
    End {
        situation: String,
        millis: u64,
    },
    Done,
}

/// What came of the attempts of one run of the escape suite, as `tests/vm` counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) launcher: String,
    pub(super) stopped: u64,
    pub(super) not_applicable: u64,
    pub(super) succeeded: u64,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Check {
    pub(super) situation: String,
    name: String,
    pub(super) ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Counts>,
}

/// One machine's outcome.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) machine: String,
    /// Its release, and the ABI of its Landlock.
    pub(super) kernel: String,
    pub(super) landlock: u32,
    seconds: f64,
    /// Situations that were reported on to their end, with their seconds.
    pub(super) situations: Vec<(String, f64)>,
    pub(super) checks: Vec<Check>,
    /// What went wrong with the machine itself.
    trouble: Vec<String>,
}

fn events(text: &str) -> impl Iterator<Item = std::result::Result<Event, String>> {
    // A line that is not ended is still being written.
    let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
    whole
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).map_err(|e| format!("a line that is none ({e}): {l}")))
}

/// Shows what is new on standard error, and gives how many lines have been shown.
pub(super) fn progress(machine: &str, text: &str, shown: usize) -> usize {
    let mut count = 0;
    for event in events(text) {
        count += 1;
        if count <= shown {
            continue;
        }
        match event {
            Ok(Event::Check { situation, name, ok: false, detail, .. }) => {
                eprintln!("  FAILED {machine}/{situation}: {name}: {detail}");
            }
            Ok(Event::End { situation, millis }) => {
                eprintln!("  {machine}/{situation} {:.1} s", millis as f64 / 1000.0);
            }
            _ => {}
        }
    }
    count
}

impl Outcome {
    /// From what a machine said, and what became of it. `log` is asked for only where something is wrong.
    pub(super) fn read(
        machine: &str,
        text: &str,
        trouble: Option<String>,
        log: impl FnOnce() -> String,
        took: Duration,
    ) -> Self {
        let mut outcome = Self {
            machine: machine.to_owned(),
            kernel: String::new(),
            landlock: 0,
            seconds: took.as_secs_f64(),
            situations: Vec::new(),
            checks: Vec::new(),
            trouble: trouble.into_iter().collect(),
        };
        let (mut planned, mut done) = (Vec::new(), false);
        for event in events(text) {
            match event {
                Ok(Event::Plan { situations, kernel, landlock }) => {
                    planned = situations;
                    (outcome.kernel, outcome.landlock) = (kernel, landlock);
                }
                Ok(Event::Check { situation, name, ok, detail, counts }) => {
                    outcome.checks.push(Check { situation, name, ok, detail, counts });
                }
                Ok(Event::End { situation, millis }) => {
                    outcome.situations.push((situation, millis as f64 / 1000.0));
                }
                Ok(Event::Done) => done = true,
                Err(e) => outcome.trouble.push(e),
            }
        }
        if planned.is_empty() {
            outcome.trouble.push("it planned nothing".into());
        }
        for situation in &planned {
            let ended = outcome.situations.iter().any(|(name, _)| name == situation);
            let looked_at = outcome.checks.iter().any(|c| c.situation == *situation);
            if !ended || !looked_at {
                outcome.trouble.push(format!("{situation} was not looked at to its end"));
            }
        }
        if !done {
            outcome.trouble.push("it did not come to its end".into());
        }
        if !outcome.trouble.is_empty() {
            outcome.trouble.push(format!("the end of its log:\n{}", log()));
        }
        outcome
    }

    fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.checks.iter().filter(|c| !c.ok);
        let failed =
            failed.map(|c| format!("{}/{}: {}: {}", self.machine, c.situation, c.name, c.detail));
        failed.chain(self.trouble.iter().map(|t| format!("{}: {t}", self.machine)))
    }
}

/// Prints the outcomes. An error where anything is not as it should be.
pub(super) fn show(all: &[Outcome], json: bool) -> Result {
    if json {
        let text = serde_json::to_string_pretty(all).map_err(|e| e.to_string())?;
        println!("{text}");
    } else {
        print!("{}", table(all));
    }
    let failures: Vec<String> = all.iter().flat_map(Outcome::failures).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\nerror: ")) }
}

fn table(all: &[Outcome]) -> String {
    let mut text =
        format!("{:<44} {:>7} {:>7} {:>8}\n", "situation", "checks", "failed", "seconds");
    let mut line = |name: &str, checks: &[&Check], seconds: f64| {
        let failed = checks.iter().filter(|c| !c.ok).count();
        text.push_str(&format!("{name:<44} {:>7} {failed:>7} {seconds:>8.1}\n", checks.len()));
    };
    for outcome in all {
        for (situation, seconds) in &outcome.situations {
            let checks: Vec<&Check> =
                outcome.checks.iter().filter(|c| c.situation == *situation).collect();
            line(&format!("{}/{situation}", outcome.machine), &checks, *seconds);
        }
        line(&outcome.machine, &outcome.checks.iter().collect::<Vec<_>>(), outcome.seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "{\"event\":\"plan\",\"situations\":[\"a\"],\"kernel\":\"6.1\",\"landlock\":2}\n\
        {\"event\":\"check\",\"situation\":\"a\",\"name\":\"n\",\"ok\":true,\"detail\":\"\"}\n\
        {\"event\":\"end\",\"situation\":\"a\",\"millis\":5}\n{\"event\":\"done\"}\n";

    fn read(text: &str) -> Outcome {
        Outcome::read("m", text, None, String::new, Duration::ZERO)
    }

    #[test]
    fn a_whole_run_is_good() {
        assert_eq!(read(GOOD).failures().count(), 0);
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        let lines: Vec<&str> = GOOD.lines().collect();
        for left_out in 0..lines.len() {
            let mut some = lines.clone();
            some.remove(left_out);
            let text = some.join("\n") + "\n";
            assert!(read(&text).failures().count() > 0, "without line {left_out}");
        }
        assert!(read("").failures().count() > 0);
        assert!(read(&GOOD.replace("true", "false")).failures().any(|f| f.starts_with("m/a: n")));
        assert!(read(&format!("{GOOD}no json\n")).failures().count() > 0);
    }
}
