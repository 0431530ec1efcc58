//! What was seen, as a table for people and as JSON for programs.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle,
};
use palisade_model::{Guarantee, GuaranteeSet, Level};
use serde_json::{Value, json};

use super::{attempts::Attempted, good::Work};
use crate::{terminal::Paint, words};

/// A line below the heading and nothing else.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Everything that was seen.
pub(super) struct Report {
    pub(super) backend: &'static str,
    pub(super) guarantees: GuaranteeSet,
    pub(super) good: Vec<Work>,
    pub(super) attempts: Vec<Attempted>,
    pub(super) seconds: f64,
}

impl Report {
    /// The good ones did all their work, and the hostile one achieved nothing.
    pub(super) fn is_good(&self) -> bool {
        self.good.iter().all(|w| w.ok) && self.attempts.iter().all(Attempted::is_contained)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "ok": self.is_good(), "backend": self.backend, "guarantees": self.guarantees, "work": self.good,
            "attempts": self.attempts, "seconds": self.seconds,
        })
    }

    pub(super) fn to_text(&self, paint: Paint) -> String {
        let level = |wanted: Level| {
            let names = Guarantee::ALL.into_iter().filter(|g| self.guarantees.level(*g) == wanted);
            names.map(Guarantee::as_str).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("{} ({})\n", paint.bold("Walls"), self.backend);
        text.push_str(&format!("  by the kernel: {}\n", level(Level::Kernel)));
        if !level(Level::Policed).is_empty() {
            text.push_str(&format!("  sampled:       {}\n", level(Level::Policed)));
        }
        text.push_str(&format!("\n{}\n", self.work_table(paint).trim_fmt()));
        text.push_str(&format!("\n{}\n\n", self.attempt_table(paint).trim_fmt()));
        let done = self.good.iter().filter(|w| w.ok).count();
        let contained = self.attempts.iter().filter(|a| a.is_contained()).count();
        let good = format!("The good plugins did {done} of {} pieces of work.", self.good.len());
        text.push_str(&if done == self.good.len() { paint.good(good) } else { paint.bad(good) });
        text.push('\n');
        let hostile = if contained == self.attempts.len() {
            paint.good(format!("The hostile plugin tried {contained} things and achieved nothing."))
        } else {
            let count = self.attempts.len() - contained;
            paint.bad(format!(
                "The hostile plugin achieved something in {count} of {} attempts.",
                self.attempts.len()
            ))
        };
        text.push_str(&hostile);
        text.push_str(&paint.dim(format!(
            "\nAfter each attempt a neighbour answered ({}). {:.1} s in all.",
            self.neighbour(),
            self.seconds
        )));
        text
    }

    /// The slowest answer of the neighbour.
    fn neighbour(&self) -> String {
        let all: Option<Vec<u64>> = self.attempts.iter().map(|a| a.neighbour_micros).collect();
        match all.and_then(|times| times.into_iter().max()) {
            Some(most) => format!("within {}", words::time(std::time::Duration::from_micros(most))),
            None => "not always".to_owned(),
        }
    }

    fn work_table(&self, paint: Paint) -> Table {
        let mut table = table(paint, ["Plugin", "Work", "What came of it", "Time"]);
        let mut last = "";
        for work in &self.good {
            let name = if work.plugin == last { "" } else { work.plugin };
            last = work.plugin;
            let result =
                if work.ok { work.result.clone() } else { format!("WRONG: {}", work.result) };
            table.add_row([
                Cell::new(name),
                Cell::new(work.task),
                mark(Cell::new(result), work.ok),
                time(work.micros),
            ]);
        }
        table
    }

    fn attempt_table(&self, paint: Paint) -> Table {
        let mut table =
            table(paint, ["", "The hostile plugin tried to", "What came of it", "Time"]);
        for (number, attempt) in self.attempts.iter().enumerate() {
            let mut result = attempt.answer.clone();
            if !attempt.achieved.is_empty() {
                result = format!("ACHIEVED: {} ({result})", attempt.achieved.join("; "));
            } else if attempt.neighbour_micros.is_none() {
                result.push_str(", but a neighbour no longer answers");
            }
            table.add_row([
                Cell::new(number + 1).set_alignment(CellAlignment::Right),
                Cell::new(attempt.tried),
                mark(Cell::new(result), attempt.is_contained()),
                time(attempt.micros),
            ]);
        }
        table
    }
}

fn mark(cell: Cell, good: bool) -> Cell {
    if good { cell.fg(Color::Green) } else { cell.fg(Color::Red).add_attribute(Attribute::Bold) }
}

fn time(micros: u64) -> Cell {
    Cell::new(words::time(std::time::Duration::from_micros(micros)))
        .set_alignment(CellAlignment::Right)
}

fn table(paint: Paint, head: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    if !paint.is_on() {
        table.force_no_tty().set_width(120);
    }
    table.set_header(head.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool, achieved: Vec<String>, neighbour: Option<u64>) -> Report {
        Report {
            backend: "process",
            guarantees: GuaranteeSet::default_floor(),
            good: vec![Work {
                plugin: "checksum",
                task: "SHA-256",
                ok,
                result: "ba78…".into(),
                micros: 90,
            }],
            attempts: vec![Attempted {
                what: "read-file",
                tried: "read /etc/shadow",
                answer: "ENOENT".into(),
                achieved,
                ended: false,
                micros: 1500,
                neighbour_micros: neighbour,
            }],
            seconds: 1.0,
        }
    }

    #[test]
    fn one_failure_of_any_kind_is_enough_to_fail() {
        assert!(report(true, vec![], Some(100)).is_good());
        assert!(!report(false, vec![], Some(100)).is_good(), "wrong work");
        assert!(
            !report(true, vec!["it knows the secret".into()], Some(100)).is_good(),
            "an escape"
        );
        assert!(!report(true, vec![], None).is_good(), "a neighbour that no longer answers");
    }

    #[test]
    fn the_report_shows_what_went_well_and_what_did_not() {
        insta::assert_snapshot!("demo-good", report(true, vec![], Some(100)).to_text(Paint::NONE));
        insta::assert_snapshot!(
            "demo-bad",
            report(false, vec!["it knows the secret".into()], None).to_text(Paint::NONE)
        );
    }
}
