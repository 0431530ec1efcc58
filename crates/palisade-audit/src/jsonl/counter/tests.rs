use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::Duration,
};

use palisade_model::Principal;

use super::*;
use crate::{
    Clock, Decision, JsonLinesRecorder, Outcome, Phase, Record, RecordKind, Recorder, SystemClock,
    jsonl::Options,
};

fn call() -> Act {
    Act::new(RecordKind::Call, Arc::new(Principal::Application))
        .target("echo")
        .decision(Decision::Allow, Some("owner; target: tool:echo".into()))
}

fn open(path: &Path, each: u32, window: Duration) -> JsonLinesRecorder {
    let options = Options { each, coalesce: window, ..Options::default() };
    JsonLinesRecorder::open_with(path, options, Arc::new(SystemClock)).unwrap()
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    (dir, path)
}

fn read(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).expect(l)).collect()
}

/// Acts once, as the gate does.
async fn act(recorder: &JsonLinesRecorder, tally: &dyn Tally) {
    if tally.begin(Instant::now()) {
        tally.done();
    } else {
        let intent = recorder.intent(call()).await.unwrap();
        recorder.outcome(intent, Outcome::Done, None);
    }
}

fn calls(records: &[Record], phase: Phase) -> Vec<&Record> {
    records.iter().filter(|r| r.kind == RecordKind::Call && r.phase == phase).collect()
}

/// How many acts the record says were done.
fn total(records: &[Record]) -> u64 {
    calls(records, Phase::Outcome).iter().map(|r| r.repeats.unwrap_or(1)).sum()
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn few_acts_are_recorded_one_by_one_and_the_rest_is_counted() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 3, LONG);
    let tally = recorder.tally(&call()).unwrap();
    for _ in 0..10 {
        act(&recorder, &*tally).await;
    }
    drop(recorder);
    let records = read(&path);
    let done = calls(&records, Phase::Outcome);
    let repeats: Vec<_> = done.iter().map(|r| r.repeats).collect();
    assert_eq!(repeats.iter().filter(|r| r.is_none()).count(), 3, "{records:#?}");
    assert_eq!(repeats.iter().flatten().collect::<Vec<_>>(), [&7]);
    let counted = done.iter().find(|r| r.repeats.is_some()).unwrap();
    assert_eq!(counted.target.as_deref(), Some("echo"));
    assert_eq!(counted.rule.as_deref(), Some("owner; target: tool:echo"));
    assert_eq!(counted.decision, Some(Decision::Allow));
    assert_eq!((&counted.payload_sha256, counted.duration_us), (&None, None));
    assert!(counted.since.as_ref().unwrap() <= &counted.time, "{counted:#?}");
    assert_eq!(calls(&records, Phase::Intent).len(), 0);
}

#[tokio::test]
async fn each_window_begins_with_acts_that_are_recorded_one_by_one() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 2, LONG);
    let tally = recorder.tally(&call()).unwrap();
    let now = Instant::now();
    let counted = |at| tally.begin(at);
    assert_eq!([now; 4].map(counted), [false, false, true, true]);
    let next = now + LONG + Duration::from_secs(1);
    assert_eq!([next; 3].map(counted), [false, false, true]);
}

#[tokio::test]
async fn who_wants_each_act_recorded_gets_it() {
    let (_dir, path) = fresh();
    let recorder = open(&path, u32::MAX, LONG);
    let tally = recorder.tally(&call()).unwrap();
    for _ in 0..1000 {
        act(&recorder, &*tally).await;
    }
    drop(recorder);
    let records = read(&path);
    assert_eq!(calls(&records, Phase::Outcome).len(), 1000);
    assert!(records.iter().all(|r| r.repeats.is_none()));
}

#[test]
fn what_may_not_happen_without_its_record_is_never_counted() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 0, LONG);
    for kind in [RecordKind::Launch, RecordKind::Grant, RecordKind::Secret] {
        let act = Act::new(kind, Arc::new(Principal::Application));
        assert!(recorder.tally(&act).is_none(), "{kind:?}");
    }
}

#[tokio::test]
async fn counts_stand_before_what_somebody_waits_for() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 0, LONG);
    let tally = recorder.tally(&call()).unwrap();
    for _ in 0..5 {
        act(&recorder, &*tally).await;
    }
    let grant = Act::new(RecordKind::Grant, Arc::new(Principal::Application));
    let intent = recorder.intent(grant).await.unwrap();
    let so_far: Vec<_> = read(&path).iter().map(|r| (r.kind, r.repeats)).collect();
    let expected = [(RecordKind::Call, Some(5)), (RecordKind::Grant, None)];
    assert_eq!(so_far[1..], expected);
    recorder.outcome(intent, Outcome::Done, None);
    act(&recorder, &*tally).await;
    recorder.flush().await.unwrap();
    assert_eq!(total(&read(&path)), 6, "a flush writes counts");
}

#[tokio::test]
async fn counts_stand_before_what_ends_a_right_or_a_run() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 0, LONG);
    let tally = recorder.tally(&call()).unwrap();
    let of = |kind| Act::new(kind, Arc::new(Principal::Application));
    // Nobody waits for these lines, and a flush would have the counts written.
    let lines = async |number: usize| {
        let begun = Instant::now();
        while read(&path).len() < number {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:#?}", read(&path));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        read(&path).iter().skip(1).map(|r| (r.kind, r.phase, r.repeats)).collect::<Vec<_>>()
    };
    use {Phase as P, RecordKind as R};
    let revocation = recorder.intent(of(R::Grant)).await.unwrap();
    act(&recorder, &*tally).await;
    recorder.note(of(R::Registration), None);
    let mut expected = vec![(R::Grant, P::Intent, None), (R::Registration, P::Note, None)];
    assert_eq!(lines(3).await, expected, "other notes do not have counts written");

    act(&recorder, &*tally).await;
    recorder.outcome(revocation, Outcome::Done, None);
    expected.extend([(R::Call, P::Outcome, Some(2)), (R::Grant, P::Outcome, None)]);
    assert_eq!(lines(5).await, expected);
    for (number, kind) in [(7, R::Exit), (9, R::Breach)] {
        act(&recorder, &*tally).await;
        recorder.note(of(kind), None);
        expected.extend([(R::Call, P::Outcome, Some(1)), (kind, P::Note, None)]);
        assert_eq!(lines(number).await, expected);
    }
}

/// Takes its time in the thread that lists a counter first.
#[derive(Default)]
struct SlowToList(AtomicBool);

impl Clock for SlowToList {
    fn now(&self) -> Stamp {
        if std::thread::current().name() == Some("lister") {
            self.0.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
        }
        SystemClock.now()
    }
}

#[tokio::test]
async fn who_acts_while_another_lists_the_counter_is_counted_before_a_grant_that_follows() {
    let (_dir, path) = fresh();
    let clock = Arc::new(SlowToList::default());
    let options = Options { each: 0, coalesce: LONG, ..Options::default() };
    let recorder = JsonLinesRecorder::open_with(&path, options, clock.clone()).unwrap();
    let tally: Arc<dyn Tally> = recorder.tally(&call()).unwrap().into();
    let first = Arc::clone(&tally);
    let lister = std::thread::Builder::new().name("lister".into());
    let lister = lister.spawn(move || first.begin(Instant::now())).unwrap();
    while !clock.0.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(tally.begin(Instant::now()));
    tally.done();
    let grant = Act::new(RecordKind::Grant, Arc::new(Principal::Application));
    let intent = recorder.intent(grant).await.unwrap();
    assert_eq!(total(&read(&path)), 1, "{:#?}", read(&path));
    recorder.outcome(intent, Outcome::Done, None);
    assert!(lister.join().unwrap());
}

#[tokio::test]
async fn what_has_not_ended_stands_in_the_record_as_an_intent() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 0, LONG);
    let tally = recorder.tally(&call()).unwrap();
    assert!(tally.begin(Instant::now()));
    assert!(tally.begin(Instant::now()));
    recorder.flush().await.unwrap();
    let open: Vec<_> = calls(&read(&path), Phase::Intent).iter().map(|r| r.repeats).collect();
    assert_eq!(open, [Some(2)]);
    recorder.flush().await.unwrap();
    assert_eq!(calls(&read(&path), Phase::Intent).len(), 1, "told once");
    tally.done();
    tally.failed();
    recorder.flush().await.unwrap();
    assert_eq!(total(&read(&path)), 1, "what failed has a record of its own");
}

#[tokio::test]
async fn counts_are_written_without_further_traffic() {
    let (_dir, path) = fresh();
    let recorder = open(&path, 0, Duration::from_millis(30));
    let tally = recorder.tally(&call()).unwrap();
    // More than once: a counter that was left is listed again.
    for round in 1..=3 {
        assert!(tally.begin(Instant::now()));
        tally.done();
        let begun = Instant::now();
        while total(&read(&path)) < round {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", read(&path));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lines = read(&path).len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(read(&path).len(), lines, "nothing is written where nothing happens");
}

#[test]
fn nothing_is_lost_and_nothing_counted_twice_while_the_writer_looks() {
    let (_dir, path) = fresh();
    // Windows so short that counters are left and listed again all the time.
    let recorder = open(&path, 0, Duration::from_micros(50));
    let tally = recorder.tally(&call()).unwrap();
    let (begun, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (tally, begun, stop) = (&*tally, &begun, &stop);
            scope.spawn(move || {
                let mut n = thread;
                while !stop.load(Ordering::Relaxed) {
                    if tally.begin(Instant::now()) {
                        begun.fetch_add(1, Ordering::Relaxed);
                        tally.done();
                    }
                    n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if n >> 60 == 0 {
                        std::thread::sleep(Duration::from_micros(n >> 50 & 0xFF));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
    });
    drop(recorder);
    assert_eq!(total(&read(&path)), begun.into_inner());
}

const WINDOW: Duration = Duration::from_millis(200);

/// Acts until it is killed, and says how often it has.
#[test]
#[ignore = "the child of another test"]
fn child_that_counts() {
    let Some(path) = std::env::var_os("PALISADE_AUDIT_CHILD") else { return };
    let recorder = open(Path::new(&path), 10, WINDOW);
    let tally = recorder.tally(&call()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut out, start) = (std::io::stdout(), Instant::now());
    runtime.block_on(async {
        for n in 1u64.. {
            act(&recorder, &*tally).await;
            if n.is_multiple_of(20) {
                writeln!(out, "acted {n} {}", start.elapsed().as_millis()).unwrap();
                out.flush().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn kill_9_takes_no_more_than_the_last_window_of_counts() {
    let (_dir, path) = fresh();
    let name = "jsonl::counter::tests::child_that_counts";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("PALISADE_AUDIT_CHILD", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told: Vec<(u64, u128)> = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let Some(rest) = line.strip_prefix("acted ") else { continue };
        let (n, ms) = rest.split_once(' ').unwrap();
        told.push((n.parse().unwrap(), ms.parse().unwrap()));
        if told.last().unwrap().1 > 2500 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();

    drop(JsonLinesRecorder::open(&path).unwrap());
    let recorded = total(&read(&path));
    let (last, at) = *told.last().unwrap();
    // The window, and a second for a machine that has no time for the writer.
    let before = at - WINDOW.as_millis() - 1000;
    let (least, _) = told.iter().rfind(|(_, ms)| *ms <= before).unwrap();
    assert!(recorded >= *least, "{recorded} of {last} recorded, {least} were {WINDOW:?} old");
    assert!(recorded > 10 * 10, "most were counted");
}
