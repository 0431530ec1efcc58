//! Both sides read a plan alike.

use super::Choices;
use crate::plan::{Bind, PlanBuilder, format};

/// A record as it was written, to be compared with what is read.
#[derive(Debug, PartialEq)]
enum Part {
    U32(u32),
    U64(u64),
    Text(String),
    Rest(Vec<u8>),
}

/// How many kinds of records there are: the tags are numbered without a gap.
const KINDS: u8 = 19;

/// What a record is made of.
struct Stuff {
    a: String,
    b: String,
    n: u64,
    m: u8,
}

/// Writes a record of a kind with the host's writer; its tag, and what the helper must read.
fn write(plan: &mut PlanBuilder, kind: u8, stuff: Stuff) -> (u16, Vec<Part>) {
    let Stuff { a, b, n, m } = stuff;
    let small = u32::from(m);
    let text = Part::Text;
    match kind {
        0 => {
            plan.dir(&a, small);
            (format::TAG_DIR, vec![Part::U32(small), text(a)])
        }
        1 => {
            plan.symlink(&a, &b);
            (format::TAG_SYMLINK, vec![text(a), text(b)])
        }
        2 => {
            // The content ends with the record, and may hold anything.
            plan.file(&a, small, &b);
            (format::TAG_FILE, vec![Part::U32(small), text(a), Part::Rest(b.into_bytes())])
        }
        3 => {
            plan.tmpfs(&a, n, n >> 3, small, 7);
            let parts = vec![Part::U64(n), Part::U64(n >> 3), Part::U32(small), Part::U32(7)];
            (format::TAG_TMPFS, parts.into_iter().chain([text(a)]).collect())
        }
        4 => {
            let idmap = (m & 1 != 0).then_some(usize::from(m >> 1));
            let flags = n & 0xf;
            let (source, target) = (a.clone(), b.clone());
            let identity = (n, n ^ 1);
            plan.bind(&Bind { source, target, attributes: n, flags, identity, idmap });
            let map = idmap.map_or(0, |i| i as u64 + 1) << format::bind::IDMAP_SHIFT;
            let parts = [n, flags | map, n, n ^ 1].map(Part::U64);
            (format::TAG_BIND, parts.into_iter().chain([text(a), text(b)]).collect())
        }
        5 => {
            plan.idmap(small, 1, 2, 3);
            (format::TAG_IDMAP, [small, 1, 2, 3].map(Part::U32).into())
        }
        6 => {
            plan.exe(&a);
            (format::TAG_EXE, vec![text(a)])
        }
        7 => {
            plan.arg(&a);
            (format::TAG_ARG, vec![text(a)])
        }
        8 => {
            plan.env(&a, &b);
            (format::TAG_ENV, vec![text(format!("{a}={b}"))])
        }
        9 => {
            plan.cwd(&a);
            (format::TAG_CWD, vec![text(a)])
        }
        10 => {
            plan.rlimit("limit", u64::from(m), n);
            (format::TAG_RLIMIT, [u64::from(m), n, n].map(Part::U64).into())
        }
        11 => {
            plan.seccomp(b.as_bytes());
            (format::TAG_SECCOMP, vec![Part::Rest(b.into_bytes())])
        }
        12 => {
            plan.landlock(n, 1, 2);
            (format::TAG_LANDLOCK, [n, 1, 2].map(Part::U64).into())
        }
        13 => {
            plan.landlock_rule(n, &a);
            (format::TAG_LANDLOCK_RULE, vec![Part::U64(n), text(a)])
        }
        14 => {
            plan.sysctl(&a, &b);
            (format::TAG_SYSCTL, vec![text(a), text(b)])
        }
        15 => {
            let words = std::array::from_fn(|index| n.rotate_left(8 * index as u32));
            plan.config(words);
            (format::TAG_CONFIG, words.map(Part::U64).into())
        }
        16 => {
            plan.egress(small, n as u16);
            (format::TAG_EGRESS, vec![Part::U32(small), Part::U32(u32::from(n as u16))])
        }
        17 => {
            plan.landlock_port(n as u16);
            (format::TAG_LANDLOCK_PORT, vec![Part::U64(u64::from(n as u16))])
        }
        _ => {
            plan.hostname(&a);
            (format::TAG_HOSTNAME, vec![text(a)])
        }
    }
}

/// Writes records chosen by `input` with the host's writer, and reads them with the helper's reader.
///
/// # Panics
/// Where the two disagree.
pub fn plan(input: &[u8]) {
    read_anything(input);
    let mut choices = Choices(input);
    let mut plan = PlanBuilder::new();
    let mut written: Vec<(u16, Vec<Part>)> = Vec::new();
    while !choices.0.is_empty() {
        let (a, b) = (choices.text(), choices.text());
        let (n, m) = (choices.number(), choices.byte());
        let kind = choices.byte() % KINDS;
        written.push(write(&mut plan, kind, Stuff { a, b, n, m }));
    }
    // A text with a NUL in a place that cannot have one, or too much of all, is refused as a whole.
    let has_nul = written.iter().flat_map(|(_, parts)| parts).any(|part| match part {
        Part::Text(text) => text.contains('\0'),
        _ => false,
    });
    let plan = match plan.finish() {
        Err(_) => return assert!(has_nul || input.len() > 8192, "a good plan was refused"),
        Ok(plan) => plan,
    };
    assert!(!has_nul, "a text that ends early for the helper was written");
    let mut records = format::Records::new(&plan.bytes);
    for (index, (tag, parts)) in written.iter().enumerate() {
        let (read, body) = records.next().expect("as many records as were written");
        assert_eq!((read, records.index as usize), (*tag, index));
        let mut body = format::Body(body);
        for part in parts {
            let read = match part {
                Part::U32(_) => Part::U32(body.u32().expect("a number")),
                Part::U64(_) => Part::U64(body.u64().expect("a number")),
                Part::Text(_) => {
                    let text = body.text().expect("a text");
                    assert_eq!(text.last(), Some(&0), "the kernel is handed it where it lies");
                    Part::Text(String::from_utf8(text[..text.len() - 1].to_vec()).expect("UTF-8"))
                }
                Part::Rest(_) => Part::Rest(std::mem::take(&mut body.0).to_vec()),
            };
            assert_eq!(&read, part);
        }
        assert!(body.0.is_empty(), "nothing more in the record");
    }
    assert!(records.next().is_none() && records.complete());
}

/// Reads bytes that nobody wrote, in every way in which the helper reads.
fn read_anything(input: &[u8]) {
    let mut records = format::Records::new(input);
    let mut consumed = 0;
    for (_, bytes) in records.by_ref() {
        consumed += 8 + bytes.len();
        assert!(consumed <= input.len(), "read past the end");
        for first in 0..3 {
            let mut body = format::Body(bytes);
            loop {
                let more = match first {
                    0 => body.u32().is_some(),
                    1 => body.u64().is_some(),
                    _ => body
                        .text()
                        .is_some_and(|t| t.last() == Some(&0) && !t[..t.len() - 1].contains(&0)),
                };
                if !more {
                    break;
                }
            }
        }
    }
    assert_eq!(records.complete(), consumed == input.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_record_is_written() {
        let stuff = || Stuff { a: "a".into(), b: "b".into(), n: 1, m: 1 };
        let mut tags: Vec<u16> =
            (0..KINDS).map(|kind| write(&mut PlanBuilder::new(), kind, stuff()).0).collect();
        tags.sort_unstable();
        assert_eq!(tags, (1..=u16::from(KINDS)).collect::<Vec<_>>());
        // A tag that this page does not know would be one more.
        let source = include_str!("../../helper/plan.rs");
        let known = source.lines().filter(|line| line.starts_with("pub const TAG_")).count();
        assert_eq!(known, usize::from(KINDS));
    }
}
