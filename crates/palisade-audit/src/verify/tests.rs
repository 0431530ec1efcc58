use std::{io::Cursor, path::PathBuf, sync::Arc};

use palisade_model::Principal;
use proptest::prelude::*;

use super::*;
use crate::{
    Act, JsonLinesRecorder, Record, RecordKind, Recorder,
    chain::tests::{chained, line},
};

/// A record of two hosts after each other, with what each says was its last line.
fn written() -> (String, [crate::Head; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("audit.jsonl");
    let heads = [0, 1].map(|host| {
        let recorder = JsonLinesRecorder::open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for turn in 0..3 {
                let act = Act::new(RecordKind::Grant, Arc::new(Principal::Application));
                recorder.note(act.target(&format!("{host} {turn}")), None);
            }
            recorder.flush().await.unwrap();
        });
        recorder.head()
    });
    (std::fs::read_to_string(&path).unwrap(), heads)
}

fn look(text: &str, noted: &[Chain]) -> Result<Verified, VerifyError> {
    verify(Cursor::new(text), noted)
}

/// All of it written anew, so that it fits.
fn anew<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let renumbered = lines.enumerate().map(|(n, line)| {
        let said = line.rsplit_once(",\"chain\"").unwrap().0.split_once(',').unwrap().1;
        format!("{{\"seq\":{},{said}}}", n + 1)
    });
    String::from_utf8(chained(renumbered)).unwrap()
}

#[test]
fn a_record_is_as_it_was_written_across_hosts() {
    let (text, heads) = written();
    let seen = look(&text, &heads.map(|head| head.chain)).unwrap();
    assert_eq!((seen.records, seen.closed, seen.unfinished), (10, true, 0));
    assert_eq!(seen.first.as_ref().map(|place| place.seq), Some(1));
    assert_eq!(seen.last.as_ref().map(|place| place.seq), Some(10));
    let last: Record = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last.chain, Some(seen.head));
    // Each was told before its host wrote that it closes the record.
    let at = |n: usize| serde_json::from_str::<Record>(text.lines().nth(n).unwrap()).unwrap().chain;
    assert_eq!([at(3), at(8)], heads.map(|head| Some(head.chain)));
    assert_eq!(heads.map(|head| head.seq), [4, 9]);
    // Nothing but what an empty file can show.
    let empty = look("", &[]).unwrap();
    assert_eq!((empty.records, empty.closed, empty.head), (0, false, Chain::START));
    assert_eq!(look(&text, &[Chain::START]).unwrap(), look(&text, &[]).unwrap());
    assert_eq!(look("", &[seen.head]), Err(VerifyError::Missing(seen.head)));
}

#[test]
fn lines_that_are_changed_taken_out_put_in_or_moved_are_found() {
    let (text, _) = written();
    let lines: Vec<&str> = text.lines().collect();
    let together =
        |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let altered = |text: &str| match look(text, &[]) {
        Err(VerifyError::Altered { line, fault }) => (line, fault),
        other => panic!("{other:?}"),
    };
    for n in 0..lines.len() {
        let at = n as u64 + 1;
        let mut changed = lines.clone();
        let line = lines[n].replace("\"unix_ns\":1", "\"unix_ns\":2");
        changed[n] = &line;
        assert_eq!(altered(&together(&changed)), (at, Fault::Chain));
        let mut fewer = lines.clone();
        fewer.remove(n);
        if n + 1 < lines.len() {
            let number = Fault::Number { expected: at, found: at + 1 };
            assert_eq!(altered(&together(&fewer)), (at, number));
        }
        let mut twice = lines.clone();
        twice.insert(n, lines[n]);
        let number = Fault::Number { expected: at + 1, found: at };
        assert_eq!(altered(&together(&twice)), (at + 1, number));
        // With other numbers, in lines that are each as it was.
        let renumbered: Vec<String> = fewer
            .iter()
            .enumerate()
            .map(|(k, line)| {
                let rest = line.split_once(',').unwrap().1;
                format!("{{\"seq\":{},{rest}", k + 1)
            })
            .collect();
        let renumbered: Vec<&str> = renumbered.iter().map(String::as_str).collect();
        if n + 1 < lines.len() {
            assert_eq!(altered(&together(&renumbered)), (at, Fault::Chain));
        }
    }
    let unchained = lines[0].split(",\"chain\"").next().unwrap().to_owned() + "}";
    for (line, fault) in
        [("dear diary", Fault::NoRecord), ("", Fault::NoRecord), (&unchained, Fault::NoChain)]
    {
        let mut changed = lines.clone();
        changed[0] = line;
        assert_eq!(altered(&together(&changed)), (1, fault));
    }
    let long = format!("{}{}\n", "x".repeat(MAX_LINE), text);
    assert_eq!(altered(&long), (1, Fault::TooLong));
    assert_eq!(altered(&text.replace('\n', "\r\n")), (1, Fault::NoChain));
    assert_eq!(altered(&format!("{text}dear diary")), (11, Fault::Ending));
    assert_eq!(altered(&text.replace('\n', " ")), (1, Fault::Ending));
}

#[test]
fn one_that_was_written_anew_or_cut_off_lacks_what_was_noted() {
    let (text, heads) = written();
    let changed = text.replace("0 1", "9 9");
    let forged = anew(changed.lines());
    assert!(forged.contains("9 9"));
    assert_eq!(look(&forged, &[]).unwrap().records, 10, "the file alone does not show it");
    assert_eq!(look(&forged, &[heads[1].chain]), Err(VerifyError::Missing(heads[1].chain)));
    // What was noted of lines before the change still proves those, and nothing more.
    let forged = anew(text.replace("1 1", "9 9").lines());
    assert!(look(&forged, &[heads[0].chain]).is_ok());
    assert_eq!(look(&forged, &[heads[1].chain]), Err(VerifyError::Missing(heads[1].chain)));
    let cut: String = text.lines().take(8).map(|line| format!("{line}\n")).collect();
    let seen = look(&cut, &[heads[0].chain]).unwrap();
    assert!(!seen.closed);
    assert_eq!(
        look(&cut, &[heads[0].chain, heads[1].chain]),
        Err(VerifyError::Missing(heads[1].chain))
    );
    // Cut within a line, as a crash does.
    let seen = look(&text[..text.len() - 7], &[]).unwrap();
    assert_eq!((seen.records, seen.closed), (9, false));
    assert!(seen.unfinished > 100);
}

#[test]
fn what_a_later_version_writes_fits_too() {
    let text =
        chained([line(1, ""), line(2, ",\"new\":7").replace("exit", "new-kind"), line(3, "")]);
    assert_eq!(verify(&*text, &[]).unwrap().records, 3);
}

#[test]
fn the_longest_line_is_read_and_the_next_is_not() {
    for (more, fault) in [(0, None), (1, Some(Fault::TooLong))] {
        // 76 bytes of chain and the line break come to it.
        let room = MAX_LINE - 76 - line(1, ",\"detail\":\"\"").len();
        let detail = format!(",\"detail\":\"{}\"", "x".repeat(room + more));
        let text = chained([line(1, &detail)]);
        assert_eq!(text.len(), MAX_LINE + more);
        let found = match verify(&*text, &[]) {
            Err(VerifyError::Altered { line: 1, fault }) => Some(fault),
            found => found.map(|_| None).unwrap(),
        };
        assert_eq!(found, fault);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever single byte is changed, it is seen, or the record ends before.
    #[test]
    fn no_byte_can_be_changed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| written().0);
        let mut bytes = TEXT.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok(seen) = verify(&*bytes, &[]) {
            // As if the last line had not been written to its end when the power went.
            prop_assert!(at == bytes.len() - 1 && to == 0 && seen.unfinished > 0, "{at} {to}");
        }
    }

    /// Whatever bytes there are: nothing panics.
    #[test]
    fn any_bytes_are_read(bytes in any::<Vec<u8>>()) {
        let _ = verify(&*bytes, &[Chain::START.then(b"x")]);
    }
}
