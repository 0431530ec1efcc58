//! The record as it stands in a file: any bytes are read without a panic, and a record that was written whole is no
//! longer itself after any change. The input is a record, or the texts of one and what becomes of its lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_audit::{Chain, VerifyError, verify};

fuzz_target!(|input: &[u8]| {
    let _ = verify(input, &[]);
    let Some((change, texts)) = input.split_first_chunk::<4>() else { return };
    let (whole, head) = written(texts);
    let seen = verify(&*whole, &[head]).expect("as it was written");
    assert!(seen.head == head && seen.unfinished == 0);
    let changed = changed(&whole, *change);
    if changed == whole {
        return;
    }
    match verify(&*changed, &[head]) {
        Err(VerifyError::Altered { .. } | VerifyError::Missing(_)) => {}
        // What was noted is all there: only something unfinished can have come behind it.
        Ok(seen) => assert!(
            seen.head == head && changed.starts_with(&whole[..whole.len() - 1]),
            "{change:?}"
        ),
        other => panic!("{other:?}"),
    }
});

/// A record with these texts, and its last `chain`.
fn written(texts: &[u8]) -> (Vec<u8>, Chain) {
    let (mut whole, mut head) = (String::new(), Chain::START);
    for (n, text) in texts.split(|b| *b == 0).take(8).enumerate() {
        let target = serde_json::Value::from(&*String::from_utf8_lossy(text));
        let line = format!(
            "{{\"seq\":{},\"boot\":\"b\",\"time\":\"t\",\"unix_ns\":1,\"monotonic_ns\":1,\"correlation\":1,\
             \"kind\":\"breach\",\"phase\":\"note\",\"actor\":\"application\",\"target\":{target}}}",
            n + 1
        );
        head = head.then(line.as_bytes());
        whole.push_str(&format!("{},\"chain\":\"{head}\"}}\n", &line[..line.len() - 1]));
    }
    (whole.into_bytes(), head)
}

/// One change: of a byte, or of lines.
fn changed(whole: &[u8], [how, at, to, value]: [u8; 4]) -> Vec<u8> {
    if how % 4 == 0 {
        let mut bytes = whole.to_vec();
        let place = (usize::from(at) << 8 | usize::from(to)) % bytes.len();
        bytes[place] = value;
        return bytes;
    }
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
    let (at, to) = (usize::from(at) % lines.len(), usize::from(to) % lines.len());
    match how % 4 {
        1 => lines.swap(at, to),
        2 => drop(lines.remove(at)),
        _ => lines.insert(to, lines[at]),
    }
    lines.concat()
}
