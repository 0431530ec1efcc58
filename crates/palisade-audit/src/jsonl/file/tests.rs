use super::*;
use crate::{
    Chain, VerifyError,
    chain::tests::{chained, line},
    verify,
    verify::Fault,
};

/// What opening a file with this content gives: where it goes on, and how much of it stays.
fn opened(content: &[u8]) -> Result<(Head, usize), RecordError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    std::fs::write(&path, content).unwrap();
    let opened = open(&path);
    let left = std::fs::read(&path).unwrap();
    match opened {
        Ok(opened) => {
            assert_eq!(left, content[..left.len()], "something was written");
            Ok((opened.head, left.len()))
        }
        Err(error) => {
            assert!(left == content, "{error}, and the file was changed");
            Err(error)
        }
    }
}

fn lines(count: u64) -> Vec<u8> {
    chained((1..=count).map(|seq| line(seq, "")))
}

fn whole(content: &[u8]) -> Head {
    let seen = verify(content, &[]).unwrap();
    Head { seq: seen.records, chain: seen.head }
}

#[test]
fn what_a_crash_leaves_of_a_line_is_removed_wherever_it_was_cut() {
    let all = lines(3);
    let two = lines(2).len();
    for cut in two..all.len() {
        assert_eq!(opened(&all[..cut]).unwrap(), (whole(&all[..two]), two), "{cut}");
        // Zeros are what a file system leaves that lost its power.
        let zeros = [&all[..cut], &[0; 100]].concat();
        assert_eq!(opened(&zeros).unwrap(), (whole(&all[..two]), two), "{cut}");
    }
    for cut in 1..line(1, "").len() {
        assert_eq!(opened(&all[..cut]).unwrap(), (Head::default(), 0), "{cut}");
    }
}

#[test]
fn what_no_crash_leaves_is_not_removed() {
    let all = lines(3);
    let altered = |content: &[u8]| match (opened(content), verify(content, &[])) {
        (
            Err(RecordError::Altered { seq, fault }),
            Err(VerifyError::Altered { line, fault: seen }),
        ) => {
            assert_eq!((seq, &fault), (Some(line), &seen), "the host and `verify` differ");
            (line, fault)
        }
        other => panic!("{other:?}"),
    };
    let with = |end: &[u8]| [&all, end].concat();
    for end in ["dear diary", " ", "{\"seq\":5,\"boot", "{\"seq\":3", "{ \"seq\":4", "x\0\0", "\0x"]
    {
        assert_eq!(altered(&with(end.as_bytes())), (4, Fault::Ending), "{end}");
    }
    let longer = all.iter().map(|b| if *b == b'\n' { b' ' } else { *b }).collect::<Vec<_>>();
    let (first, rest) = longer.split_at(lines(1).len());
    assert_eq!(altered(&[&lines(1), rest].concat()), (2, Fault::Ending));
    for unended in [&longer, first, b"dear diary", b"{\"seq\":2,", b"\n\n", &[b'\n', 0]] {
        assert_eq!(opened(unended), Err(RecordError::NotARecord));
    }
    // The last line break is another byte: nothing of the line is taken away.
    let mut last = all.clone();
    *last.last_mut().unwrap() = b' ';
    assert_eq!(altered(&last), (3, Fault::Ending));
}

#[test]
fn a_host_goes_on_only_where_verify_finds_nothing() {
    let at = |seqs: &[u64]| chained(seqs.iter().map(|seq| line(*seq, "")));
    let number = |expected, found| Fault::Number { expected, found };
    let other = String::from_utf8(lines(2)).unwrap();
    let second = other.split_once('\n').unwrap().1.replace("\"seq\":2", "\"seq\":1");
    for (content, expected) in [
        (at(&[1, 77]), (2, number(2, 77))),
        (at(&[1, 1]), (2, number(2, 1))),
        (at(&[5, 6]), (1, number(1, 5))),
        (at(&[0]), (1, number(1, 0))),
        (at(&[1, u64::MAX]), (2, Fault::NoRecord)),
        (chained([&line(1, ""), "{\"a\":1}"]), (2, Fault::NoRecord)),
        (chained([line(1, ""), line(2, ",\"seq\":2")]), (2, Fault::NoRecord)),
        (format!("{}\n", line(1, "")).into_bytes(), (1, Fault::NoChain)),
        (second.into_bytes(), (1, Fault::Chain)),
    ] {
        let (line, fault) = expected;
        let seen = Err(VerifyError::Altered { line, fault: fault.clone() });
        assert_eq!(verify(&*content, &[]), seen);
        assert_eq!(opened(&content), Err(RecordError::Altered { seq: Some(line), fault }));
    }
    let newer = chained([line(1, ""), line(2, ",\"later\":[1]").replace("exit", "of-later")]);
    assert_eq!(opened(&newer).unwrap(), (whole(&newer), newer.len()));
}

/// Lines of 1024 bytes: as many as are looked at, and some more.
fn long() -> Vec<u8> {
    let room = 1024 - 76 - line(1000, ",\"detail\":\"\"").len();
    let detail =
        |seq: u64| format!(",\"detail\":\"{}\"", "x".repeat(room + 4 - seq.to_string().len()));
    let all = chained((1..=2100).map(|seq| line(seq, &detail(seq))));
    assert_eq!((all.len(), TAIL_BYTES), (2100 * 1024, 2048 * 1024));
    all
}

#[test]
fn wherever_in_a_line_the_end_begins_that_is_looked_at() {
    let all = long();
    let next = chained([line(2101, ",\"detail\":\"of a line that is cut\"")]);
    let head = whole(&all);
    for more in (0..next.len()).step_by(3).chain([1, next.len() - 1]) {
        let content = [&all, &next[..more]].concat();
        assert_eq!(opened(&content).unwrap(), (head, all.len()), "{more}");
    }
    // And in its chain, where the line before ends, and with its line break.
    for less in [0, 1, 2, 60, 64, 66, 67, 70, 76, 77, 78, 500, 1022, 1023] {
        let two = all.len() - 1024;
        let expected = if less == 0 { (head, all.len()) } else { (whole(&all[..two]), two) };
        assert_eq!(opened(&all[..all.len() - less]).unwrap(), expected, "{less}");
    }
}

#[test]
fn in_the_middle_of_a_record_each_line_but_the_first_has_to_fit() {
    let all = long();
    let changed = |seq: usize| {
        let mut content = all.clone();
        let at = (seq - 1) * 1024 + 900;
        assert_eq!(std::mem::replace(&mut content[at], b'y'), b'x');
        content
    };
    // The window begins with the 53rd line, of which nothing is known.
    let fits = [1, 52];
    assert!(fits.iter().all(|seq| opened(&changed(*seq)).is_ok()));
    for seq in [55, 1000, 2100] {
        let altered = RecordError::Altered { seq: Some(seq as u64), fault: Fault::Chain };
        assert_eq!(opened(&changed(seq)), Err(altered));
    }
    let foreign = [&b"precious data\n".repeat(200_000)[..], b"{\"seq\":"].concat();
    assert_eq!(opened(&foreign), Err(RecordError::NotARecord));
    let one = [&foreign[..], &b"x".repeat(3 << 20)].concat();
    assert_eq!(opened(&one), Err(RecordError::NotARecord));
    assert_ne!(whole(&all).chain, Chain::START);
}
