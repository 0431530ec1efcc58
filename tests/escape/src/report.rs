//! The matrix for people: a table for terminals, and the page of the documentation.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use crate::{
    expected::{Expected, Matrix},
    record::Row,
};

/// Rows as a table of text.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:>3} {:<26} {:<13} {:<24} {:<34} {}",
            row.number,
            row.variant,
            row.launcher.key(),
            row.outcome,
            row.stopped_by.join(", "),
            row.name
        );
    }
    text
}

/// Rows as `cargo xtask escape --json` prints them.
#[must_use]
pub fn json(rows: &[Row]) -> serde_json::Value {
    let row = |row: &Row| {
        serde_json::json!({
            "number": row.number, "name": row.name, "variant": row.variant, "backend": row.backend,
            "launcher": row.launcher.user(),
            "limits": if row.launcher.cgroups() { "kernel" } else { "policed" },
            "outcome": row.outcome, "stopped_by": row.stopped_by, "control": row.control,
            "without": row.without, "measured": row.measured, "detail": row.detail,
        })
    };
    serde_json::Value::Array(rows.iter().map(row).collect())
}

/// How many rows ended how, by launcher.
#[must_use]
pub fn summary(rows: &[Row]) -> String {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in rows {
        let kind = row.outcome.split(':').next().unwrap_or_default();
        *counts.entry((row.launcher.key(), kind)).or_default() += 1;
    }
    let mut text = String::new();
    for ((launcher, kind), count) in counts {
        let _ = writeln!(text, "{launcher:<13} {kind:<12} {count}");
    }
    text
}

/// The page that holds the table.
#[must_use]
pub fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/explanation/escapes.md")
}

const BEGIN: &str = "<!-- matrix: begin -->";
const END: &str = "<!-- matrix: end -->";

/// `page` with the table of the matrix between its marks; `None` where the marks are missing.
#[must_use]
pub fn with_table(page: &str, matrix: &Matrix) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{}\n{END}{tail}", markdown(matrix)))
}

fn markdown(matrix: &Matrix) -> String {
    let mut text =
        "| # | Way | Backend | Attempt | Root | User 1000 | Stopped by | Holds without |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in matrix.0.values() {
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} | {} | {} | {} |",
            row.number,
            row.variant,
            row.backend(),
            row.name.replace('|', "\\|"),
            root(row),
            outcome(row, "user"),
            row.stopped_by.join(", "),
            row.holds_without.iter().cloned().collect::<Vec<_>>().join(", ")
        );
    }
    text
}

fn outcome(row: &Expected, launcher: &str) -> String {
    row.launchers.get(launcher).map(|c| c.outcome.clone()).unwrap_or_default()
}

fn root(row: &Expected) -> String {
    let (with, policed) = (outcome(row, "root"), outcome(row, "root-policed"));
    if policed.is_empty() || policed == with {
        with
    } else {
        format!("{with} ({policed} without cgroups)")
    }
}
