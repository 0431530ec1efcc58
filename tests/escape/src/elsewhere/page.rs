//! The comparison for people: who stops what, as the table of docs/explanation/comparison.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
};

use crate::{
    control::WORKS,
    elsewhere::{limits, tools::Tool},
    record::Row,
    trouble::{Result, Trouble, While},
};

/// The page that holds the table.
#[must_use]
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/explanation/comparison.md")
}

const BEGIN: &str = "<!-- comparison: begin -->";
const END: &str = "<!-- comparison: end -->";
const OURS: &str = "palisade";

/// When and with what the rows were made, in one sentence.
///
/// # Errors
/// When a tool cannot be asked for its version.
pub fn made(tools: &[Tool]) -> Result<String> {
    let out = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().doing("asking the date")?;
    let date = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let mut with = Vec::new();
    for tool in tools {
        with.push(format!("{} {}", tool.name(), tool.version()?));
    }
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy().into_owned();
    Ok(format!("Made on {date} by `cargo xtask compare`: {}; Linux {kernel}.", with.join(", ")))
}

/// Writes the table between the marks of the page.
///
/// # Errors
/// When the page cannot be read or written, or has no marks.
pub fn write(rows: &[Row], made: &str) -> Result<()> {
    let path = path();
    let page = fs::read_to_string(&path).doing(path.display())?;
    let marks = || Trouble(format!("{} has no marks", path.display()));
    let (head, rest) = page.split_once(BEGIN).ok_or_else(marks)?;
    let (_, tail) = rest.split_once(END).ok_or_else(marks)?;
    let text = format!("{head}{BEGIN}\n\n{}\n{END}{tail}", markdown(rows, made));
    fs::write(&path, text).doing(path.display())
}

/// Whether what is reached lies outside of the grant: files, handles, names, memory, keys, the network, or
/// something that is left behind for others. All else that is let through is a part of the kernel that a
/// program has no need of, or the plugin's own processes.
fn reaches_outside(number: u16, variant: &str) -> bool {
    match number {
        1..=7 | 28 | 31 | 32 | 36 | 40 | 41 | 49 | 56 | 57 | 68 => true,
        8 => variant.ends_with("environ"),
        10 => variant == "sys" || variant == "efivars",
        22 => variant.starts_with("chmod"),
        26 | 27 => variant.ends_with("host"),
        35 => variant == "netlink-route",
        52 => variant == "link-session" || variant == "read",
        _ => false,
    }
}

/// What the numbers of the catalogue are about, as far as they are compared.
#[rustfmt::skip]
const TITLES: &[(u16, &str)] = &[
    (1, "read secrets of the host"),
    (2, "write outside of the grant"),
    (4, "create a missing protected file"),
    (5, "climb from a kept directory"),
    (6, "find leaked handles"),
    (7, "overwrite the launcher"),
    (8, "/proc of init, parent and host"),
    (10, "/sys and devices"),
    (11, "make devices"),
    (12, "set-id programs"),
    (13, "capabilities"),
    (14, "chroot"),
    (15, "old mount calls"),
    (16, "new mount calls"),
    (17, "user namespaces"),
    (18, "clone3"),
    (19, "setns, time namespaces"),
    (20, "the i386 entry"),
    (21, "the x32 entry"),
    (22, "high bits of arguments"),
    (23, "io_uring"),
    (24, "listeners and filters of one's own"),
    (25, "rewriting what an observer reads"),
    (26, "steer other processes"),
    (27, "take handles of others"),
    (28, "signals to the host"),
    (29, "the terminal"),
    (31, "Unix sockets of the host"),
    (32, "abstract sockets"),
    (35, "odd socket families"),
    (36, "the network of the host"),
    (40, "around a proxy"),
    (41, "what another plugin may reach"),
    (42, "lift the process limit"),
    (43, "lift the memory limit"),
    (44, "priority"),
    (45, "lift the file limit"),
    (46, "lift the handle limit"),
    (49, "outlive the end"),
    (50, "choose a process number"),
    (52, "keyrings"),
    (53, "rare system calls"),
    (54, "file handles"),
    (55, "run or map what was written"),
    (56, "variables that steer programs"),
    (57, "what the host's names and environment say"),
    (67, "cores"),
    (68, "leave something behind"),
    (70, "see and stop the spawner"),
];

/// One way of one attempt, behind everybody.
#[derive(Default)]
struct Way<'a> {
    name: &'a str,
    works_outside: bool,
    /// By tool; several rows of ours where it is ended in several ways.
    through: BTreeMap<&'a str, bool>,
}

fn ways(rows: &[Row]) -> BTreeMap<(u16, &str), Way<'_>> {
    let mut ways: BTreeMap<(u16, &str), Way<'_>> = BTreeMap::new();
    for row in rows.iter().filter(|r| !r.outcome.starts_with("impossible")) {
        let variant = row.variant.split('+').next().unwrap_or_default();
        let way = ways.entry((row.number, variant)).or_default();
        way.name = &row.name;
        way.works_outside |= row.control == WORKS;
        *way.through.entry(&row.backend).or_default() |= row.succeeded();
    }
    ways
}

/// The tables.
#[must_use]
pub fn markdown(rows: &[Row], made: &str) -> String {
    let (resources, rows): (Vec<Row>, Vec<Row>) =
        rows.iter().cloned().partition(|r| limits::is_one(r.number, &r.variant));
    let ways = ways(&rows);
    let mut tools: Vec<&str> = ways
        .values()
        .flat_map(|w| w.through.keys().copied())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    tools.sort_by_key(|tool| (*tool != OURS, *tool));
    // What fails without any walls says nothing about walls, unless some of them let it through.
    let shown = |way: &Way<'_>| way.works_outside || way.through.values().any(|t| *t);
    let rest = ways.values().filter(|w| !shown(w)).count();
    let mut text = format!("{made}\n\n");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "| # | What | Ways | {} |\n|---|---|---|---|{}",
        tools.join(" | "),
        "---|".repeat(tools.len())
    );
    let numbers: BTreeSet<u16> = ways.iter().filter(|(_, w)| shown(w)).map(|(k, _)| k.0).collect();
    let mut totals: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for number in numbers {
        let of: Vec<&Way<'_>> =
            ways.iter().filter(|(k, w)| k.0 == number && shown(w)).map(|(_, w)| w).collect();
        let title = TITLES.iter().find(|t| t.0 == number).map_or("", |t| t.1);
        let cells: Vec<String> = tools.iter().map(|tool| cell(tool, &of, &mut totals)).collect();
        let _ = writeln!(text, "| {number} | {title} | {} | {} |", of.len(), cells.join(" | "));
    }
    let sums: Vec<String> = tools
        .iter()
        .map(|t| {
            totals.get(t).map_or_else(String::new, |(stopped, all)| format!("{stopped} of {all}"))
        })
        .collect();
    let _ = writeln!(text, "| all | | | {} |", sums.join(" | "));
    let _ = writeln!(
        text,
        "\n{rest} more ways fail for an ordinary user without any walls (or cannot be made here), and behind all of these.\n"
    );
    for (title, outside) in [
        ("Let through, and outside of the grant", true),
        (
            "Let through: a part of the kernel that was not needed, or the plugin's own processes",
            false,
        ),
    ] {
        let _ = writeln!(text, "### {title}\n\n| # | Way | Attempt | By |\n|---|---|---|---|");
        for ((number, variant), way) in &ways {
            let through = way.through.iter().filter(|(_, through)| **through);
            let by: Vec<&str> = through.map(|(tool, _)| *tool).collect();
            if !by.is_empty() && reaches_outside(*number, variant) == outside {
                let name = way.name.replace('|', "\\|");
                let _ = writeln!(text, "| {number} | `{variant}` | {name} | {} |", by.join(", "));
            }
        }
        text.push('\n');
    }
    text.push_str(&resources_table(&resources));
    text
}

/// What came of the attacks on limits, behind those that have limits.
fn resources_table(rows: &[Row]) -> String {
    let tools: BTreeSet<&str> = rows.iter().map(|r| r.backend.as_str()).collect();
    let mut tools: Vec<&str> = tools.into_iter().collect();
    tools.sort_by_key(|tool| (*tool != OURS, *tool));
    let mut text = format!(
        "### Taking more than the limits\n\n| # | Way | Attempt | {} |\n|---|---|---|{}\n",
        tools.join(" | "),
        "---|".repeat(tools.len())
    );
    let mut held: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let ways: BTreeMap<(u16, &str), &str> =
        rows.iter().map(|r| ((r.number, r.variant.as_str()), r.name.as_str())).collect();
    for ((number, variant), name) in ways {
        let cells: Vec<&str> = tools
            .iter()
            .map(|tool| {
                let is_it = |r: &&Row| {
                    (r.number, r.variant.as_str(), r.backend.as_str()) == (number, variant, *tool)
                };
                let Some(row) = rows.iter().find(is_it) else { return "not made" };
                let sum = held.entry(tool).or_default();
                *sum = (sum.0 + usize::from(!row.succeeded()), sum.1 + 1);
                match row.outcome.as_str() {
                    _ if row.succeeded() => "**let through**",
                    // Without an answer: the attacker, or who confines it, came to an end by it.
                    outcome if outcome.starts_with("ended:") => "ended",
                    _ => "held",
                }
            })
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {number} | `{variant}` | {} | {} |",
            name.replace('|', "\\|"),
            cells.join(" | ")
        );
    }
    let sums: Vec<String> = tools
        .iter()
        .map(|t| held.get(t).map_or_else(String::new, |(held, all)| format!("{held} of {all}")))
        .collect();
    let _ = writeln!(text, "| all | | | {} |", sums.join(" | "));
    text
}

fn cell<'a>(
    tool: &'a str,
    of: &[&Way<'_>],
    totals: &mut BTreeMap<&'a str, (usize, usize)>,
) -> String {
    let made: Vec<bool> = of.iter().filter_map(|w| w.through.get(tool).copied()).collect();
    let stopped = made.iter().filter(|through| !**through).count();
    let sum = totals.entry(tool).or_default();
    *sum = (sum.0 + stopped, sum.1 + made.len());
    match (stopped, made.len()) {
        (_, 0) => "not made".into(),
        (stopped, all) if stopped == all => "all".into(),
        (stopped, all) => format!("**{stopped} of {all}**"),
    }
}
