use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use palisade_model::{
    Access, Generation, InstanceId, Kind, NodeId, Origin, Payload, PluginId, PluginRef,
};
use proptest::prelude::*;

use super::*;
use crate::{Decision, Phase, Record};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn app() -> Arc<Principal> {
    Arc::new(Principal::Application)
}

fn plugin() -> Arc<Principal> {
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("counter").unwrap(), origin });
    let node = NodeId::local();
    Arc::new(Principal::Plugin(InstanceId { node, plugin, generation: Generation(2), serial: 7 }))
}

fn read(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the record ends with a whole line");
    text.lines().map(|l| serde_json::from_str(l).expect(l)).collect()
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    (dir, path)
}

#[test]
fn a_fail_closed_intent_is_in_the_file_when_its_future_resolves() {
    let (_dir, path) = fresh();
    runtime().block_on(async {
        let recorder = JsonLinesRecorder::open(&path).unwrap();
        let act = Act::new(RecordKind::Grant, app()).target("fs.read:/srv/**");
        let intent = recorder.intent(act).await.unwrap();
        let so_far = read(&path);
        let last = so_far.last().unwrap();
        assert_eq!((last.kind, last.phase), (RecordKind::Grant, Phase::Intent));
        assert_eq!(last.correlation, intent.correlation());
        recorder.outcome(intent, Outcome::Failed(ErrorCode::Conflict), Some("exists"));
    });
    let records = read(&path);
    let outcome = records.iter().find(|r| r.phase == Phase::Outcome).unwrap();
    assert_eq!(outcome.code, Some(ErrorCode::Conflict));
    assert_eq!(outcome.detail.as_deref(), Some("exists"));
    assert!(outcome.duration_us.is_some());
    assert_eq!(records.last().unwrap().kind, RecordKind::LogClosed);
}

#[test]
fn a_record_names_the_plugin_its_run_and_the_payload_by_hash_only() {
    let (_dir, path) = fresh();
    runtime().block_on(async {
        let recorder = JsonLinesRecorder::open(&path).unwrap();
        for size in [3, 100_000] {
            let secret = Payload::octets("s".repeat(size));
            let act = Act::new(RecordKind::Request, plugin())
                .access(&Access::new(Kind::EventPublish, "a.b"))
                .decision(Decision::Allow, Some("event.publish:a.*".into()))
                .payload(&secret)
                .trace(Some("00-x".into()));
            let intent = recorder.intent(act).await.unwrap();
            recorder.outcome(intent, Outcome::Done, None);
        }
        recorder.flush().await.unwrap();
    });
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("sss"), "contents never stand in the record");
    let records = read(&path);
    let of: Vec<_> = records.iter().filter(|r| r.kind == RecordKind::Request).collect();
    assert_eq!(of[0].payload_bytes, Some(3));
    // printf sss | sha256sum
    let sss = "a871c47a7f48a12b38a994e48a9659fab5d6376f3dbce37559bcb617efe8662d";
    assert_eq!(of[0].payload_sha256.as_deref(), Some(sss));
    assert_eq!(of.last().unwrap().payload_bytes, Some(100_000));
    assert_eq!(of[0].plugin.as_deref(), Some("counter"));
    assert_eq!((of[0].generation, of[0].serial), (Some(2), Some(7)));
    assert_eq!(of[0].origin.as_deref(), Some("folder /srv/p (uid 1000)"));
    assert_eq!(of[0].capability.as_deref(), Some("event.publish"));
    assert_eq!(of[0].rule.as_deref(), Some("event.publish:a.*"));
}

#[test]
fn seq_is_gapless_and_each_senders_order_is_kept_under_concurrency() {
    let (_dir, path) = fresh();
    let recorder = Arc::new(JsonLinesRecorder::open(&path).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let recorder = &recorder;
            scope.spawn(move || {
                runtime().block_on(async {
                    for i in 0..200 {
                        let name = format!("{thread}/{i}");
                        let kind = if i % 50 == 0 { RecordKind::Launch } else { RecordKind::Call };
                        let act = Act::new(kind, app()).target(&name);
                        let intent = recorder.intent(act).await.unwrap();
                        recorder.outcome(intent, Outcome::Done, None);
                    }
                });
            });
        }
    });
    drop(recorder);
    let records = read(&path);
    for (i, r) in records.iter().enumerate() {
        assert_eq!(r.seq, i as u64 + 1);
    }
    for thread in 0..4 {
        let done: Vec<u64> = records
            .iter()
            .filter(|r| r.phase == Phase::Outcome)
            .filter_map(|r| r.target.as_deref()?.strip_prefix(&format!("{thread}/")))
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(done, (0..200).collect::<Vec<_>>(), "thread {thread}");
    }
    for launch in records.iter().filter(|r| r.kind == RecordKind::Launch) {
        let phases = records.iter().filter(|r| r.correlation == launch.correlation).count();
        assert_eq!(phases, 2, "a fail-closed act has an intent and an outcome of its own");
    }
}

/// The child of the test below: records grants for ever and names each one that was confirmed.
#[test]
#[ignore = "runs as a child process of the test that kills it"]
fn child_that_is_killed() {
    let path = std::env::var_os("PALISADE_AUDIT_CHILD").expect("started by its parent");
    runtime().block_on(async {
        let recorder = JsonLinesRecorder::open(path).unwrap();
        loop {
            let intent = recorder.intent(Act::new(RecordKind::Grant, app())).await.unwrap();
            let mut out = std::io::stdout();
            writeln!(out, "confirmed {}", intent.correlation()).unwrap();
            out.flush().unwrap();
            recorder.outcome(intent, Outcome::Done, None);
        }
    });
}

#[test]
fn what_was_confirmed_survives_kill_9_and_the_record_goes_on() {
    let (_dir, path) = fresh();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jsonl::tests::child_that_is_killed", "--ignored", "--nocapture"])
        .env("PALISADE_AUDIT_CHILD", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let confirmed: Vec<u64> = lines
        .map(|l| l.unwrap())
        .filter_map(|l| l.strip_prefix("confirmed ").and_then(|n| n.parse().ok()))
        .take(40)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(confirmed.len(), 40);

    // The lock went with the process; whatever it was writing is complete or removed.
    drop(JsonLinesRecorder::open(&path).unwrap());
    let records = read(&path);
    for correlation in confirmed {
        let found = records.iter().any(|r| {
            r.correlation == correlation && r.phase == Phase::Intent && r.kind == RecordKind::Grant
        });
        assert!(found, "the confirmed grant {correlation} is not in the record");
    }
    for (i, r) in records.iter().enumerate() {
        assert_eq!(r.seq, i as u64 + 1, "seq goes on after the crash");
    }
}

#[test]
fn a_cut_tail_is_removed_and_noted() {
    let (_dir, path) = fresh();
    drop(JsonLinesRecorder::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(b"{\"seq\":3,\"boot\":\"x");
    std::fs::write(&path, torn).unwrap();
    drop(JsonLinesRecorder::open(&path).unwrap());
    let records = read(&path);
    assert_eq!(records.len(), 4, "opened, closed, opened, closed");
    assert_eq!(records[2].seq, 3);
    let detail = records[2].detail.as_deref().unwrap();
    assert!(detail.contains("18 bytes of an unfinished line were removed"), "{detail}");
}

#[test]
fn a_crash_in_the_very_first_line_is_mended() {
    let (_dir, path) = fresh();
    std::fs::write(&path, b"{\"seq\":1,\"bo").unwrap();
    drop(JsonLinesRecorder::open(&path).unwrap());
    assert_eq!(read(&path)[0].seq, 1);
}

#[test]
fn a_file_that_is_no_record_is_left_alone() {
    let (_dir, path) = fresh();
    for text in ["dear diary", "dear diary\n", "{\"a\":1}\n{\"seq\":1", "\n\n"] {
        std::fs::write(&path, text).unwrap();
        let error = JsonLinesRecorder::open(&path).map(|_| ()).unwrap_err();
        assert_eq!(error, RecordError::NotARecord, "{text:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[cfg(unix)]
#[test]
fn the_file_is_private_not_a_link_and_has_one_writer() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let (dir, path) = fresh();
    let first = JsonLinesRecorder::open(&path).unwrap();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let second = JsonLinesRecorder::open(&path).map(|_| ()).unwrap_err();
    assert_eq!(second, RecordError::InUse);
    drop(first);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(JsonLinesRecorder::open(&path).unwrap());
    assert_eq!(mode(), 0o600, "an existing record is made private");

    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(JsonLinesRecorder::open(&link).is_err(), "a link was followed");
    assert_eq!(
        JsonLinesRecorder::open("/dev/null").map(|_| ()).unwrap_err(),
        RecordError::NotARecord
    );
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_fail_closed_acts_are_refused_and_bulk_ones_are_not() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    runtime().block_on(async {
        let recorder = JsonLinesRecorder::on_file(full, Options::default());
        let error = recorder.intent(Act::new(RecordKind::Launch, app())).await.unwrap_err();
        assert!(matches!(&error, RecordError::Io { .. }), "{error}");
        assert_eq!(palisade_model::Failure::from(error).code, ErrorCode::RecordFailed);
        let intent = recorder.intent(Act::new(RecordKind::Call, app())).await.unwrap();
        recorder.outcome(intent, Outcome::Done, None);
        assert!(recorder.flush().await.is_err());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn what_could_not_be_written_is_counted_once_writing_works_again() {
    // RLIMIT_FSIZE would raise SIGXFSZ in this process, so the file itself is made to refuse: writing
    // through a read-only handle fails with EBADF.
    let (_dir, path) = fresh();
    std::fs::write(&path, "").unwrap();
    let shared = JsonLinesRecorder::shared(Options::default(), Arc::new(SystemClock));
    let read_only = std::fs::File::open(&path).unwrap();
    let mut log = file::Log::new(read_only, 0);
    assert!(log.append(b"x\n").is_err());
    let mut writer = writer::Writer::new(Arc::clone(&shared), log, Head::default());
    let note =
        |n: &str| Entry::Note(shared.stamped(Act::new(RecordKind::Exit, app()).target(n)), None);
    writer.commit([note("a"), note("b")].into(), false);
    writer.replace_file(std::fs::OpenOptions::new().append(true).open(&path).unwrap());
    writer.commit([note("c")].into(), false);
    let records = read(&path);
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].kind, records[0].repeats), (RecordKind::RecordsDropped, Some(2)));
    assert_eq!((records[1].seq, records[1].target.as_deref()), (2, Some("c")));
}

#[test]
fn a_full_queue_drops_counts_and_says_so() {
    let (_dir, path) = fresh();
    let options = Options { queue: 8, group_commit: Duration::from_secs(60), ..Options::default() };
    let recorder = JsonLinesRecorder::open_with(&path, options, Arc::new(SystemClock)).unwrap();
    for i in 0..100_000 {
        recorder.note(Act::new(RecordKind::Exit, app()).target(&i.to_string()), None);
    }
    drop(recorder);
    let records = read(&path);
    let written = records.iter().filter(|r| r.kind == RecordKind::Exit).count() as u64;
    let dropped: u64 = records
        .iter()
        .filter(|r| r.kind == RecordKind::RecordsDropped)
        .map(|r| r.repeats.unwrap())
        .sum();
    assert!(dropped > 0);
    assert_eq!(written + dropped, 100_000, "every record is written or counted");
}

#[test]
fn equal_denials_are_counted_instead_of_written() {
    let (_dir, path) = fresh();
    let recorder = JsonLinesRecorder::open(&path).unwrap();
    for i in 0..1000 {
        let subject = if i % 10 == 0 { "other" } else { "secret" };
        let act = Act::new(RecordKind::Request, plugin())
            .access(&Access::new(Kind::EventPublish, subject))
            .decision(Decision::Deny, None);
        recorder.note(act, Some(ErrorCode::Denied));
    }
    drop(recorder);
    let records = read(&path);
    for (subject, n) in [("secret", 900), ("other", 100)] {
        let of: Vec<_> = records.iter().filter(|r| r.target.as_deref() == Some(subject)).collect();
        let total: u64 = of.iter().map(|r| r.repeats.unwrap_or(1)).sum();
        assert_eq!(total, n, "{subject}");
        assert!(of.len() < 20, "{} lines for {n} equal denials", of.len());
        assert!(of.iter().all(|r| r.decision == Some(Decision::Deny)));
    }
}

#[test]
fn who_varies_the_target_does_not_fill_the_record() {
    let (_dir, path) = fresh();
    let recorder = JsonLinesRecorder::open(&path).unwrap();
    for i in 0..5000 {
        let act = Act::new(RecordKind::Request, plugin())
            .access(&Access::new(Kind::EventPublish, &format!("try{i}")))
            .decision(Decision::Deny, None);
        recorder.note(act, Some(ErrorCode::Denied));
    }
    let other = Act::new(RecordKind::Request, app()).decision(Decision::Deny, None);
    recorder.note(other.target("x"), Some(ErrorCode::Denied));
    drop(recorder);
    let records = read(&path);
    let of: Vec<_> = records.iter().filter(|r| r.plugin.is_some()).collect();
    let total: u64 = of.iter().map(|r| r.repeats.unwrap_or(1)).sum();
    assert_eq!(total, 5000);
    assert!(of.len() < 400, "{} lines", of.len());
    let sum = of.iter().find(|r| r.repeats.is_some()).unwrap();
    assert_eq!(
        (sum.target.as_deref(), sum.detail.as_deref()),
        (None, Some("on different targets"))
    );
    assert!(
        records.iter().any(|r| r.target.as_deref() == Some("x")),
        "others are still told apart"
    );
}

#[test]
fn what_was_counted_is_written_when_its_time_is_over_without_further_traffic() {
    let (_dir, path) = fresh();
    let options = Options { coalesce: Duration::from_millis(30), ..Options::default() };
    let recorder = JsonLinesRecorder::open_with(&path, options, Arc::new(SystemClock)).unwrap();
    for _ in 0..5 {
        recorder.note(Act::new(RecordKind::Event, app()).target("t").coalesce(), None);
    }
    let begun = std::time::Instant::now();
    while !read(&path).iter().any(|r| r.repeats == Some(4)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", read(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(recorder);
}

#[test]
fn an_intent_whose_asker_left_is_followed_by_cancelled() {
    let (_dir, path) = fresh();
    runtime().block_on(async {
        let recorder = JsonLinesRecorder::open(&path).unwrap();
        let mut asked = recorder.intent(Act::new(RecordKind::Stop, app()));
        // Polled once, so that it is queued, and then dropped.
        let waker = std::task::Waker::noop();
        let polled = asked.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
        drop(asked);
        recorder.flush().await.unwrap();
    });
    let phases: Vec<_> = read(&path)
        .into_iter()
        .filter(|r| r.kind == RecordKind::Stop)
        .map(|r| (r.phase, r.code))
        .collect();
    let expected = [(Phase::Intent, None), (Phase::Outcome, Some(ErrorCode::Cancelled))];
    assert_eq!(phases, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a plugin puts into the text fields: one record is one line, says what it is about,
    /// and steers no terminal.
    #[test]
    fn text_of_a_plugin_stays_inside_its_field(
        target in "(\\PC|\n|\r|\x1b\\[31m|\u{202e}|\u{2028}|\"|\\\\|\\}){0,700}",
        detail in any::<String>(),
        trace in "(\n|[ -~]){0,300}",
    ) {
        let (_dir, path) = fresh();
        let recorder = JsonLinesRecorder::open(&path).unwrap();
        let act = Act::new(RecordKind::Request, plugin())
            .target(&target).detail(&detail).trace(Some(trace.as_str().into()));
        recorder.note(act, None);
        drop(recorder);
        let text = std::fs::read_to_string(&path).unwrap();
        prop_assert_eq!(text.lines().count(), 3);
        prop_assert!(text.chars().all(|c| c == '\n' || !palisade_model::text::is_deceptive(c)));
        let records = read(&path);
        prop_assert_eq!(records[1].kind, RecordKind::Request);
        prop_assert_eq!(records[1].plugin.as_deref(), Some("counter"));
        prop_assert!(text.len() < 64 << 10, "{} bytes", text.len());
    }
}

#[test]
fn a_line_break_cannot_forge_a_record() {
    let (_dir, path) = fresh();
    let forged =
        "x\"}\n{\"seq\":99,\"kind\":\"grant\",\"actor\":\"operator root\",\"phase\":\"note\"}\n";
    let recorder = JsonLinesRecorder::open(&path).unwrap();
    recorder.note(Act::new(RecordKind::Breach, plugin()).target(forged).detail(forged), None);
    drop(recorder);
    let records = read(&path);
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|r| r.kind != RecordKind::Grant));
    assert_eq!(records[1].actor, "plugin counter@local#2.7");
}

#[test]
fn a_record_that_was_changed_is_left_as_it_is() {
    use crate::{VerifyError, verify, verify::Fault};
    let (_dir, path) = fresh();
    let recorder = JsonLinesRecorder::open(&path).unwrap();
    for n in 0..8000 {
        recorder.note(Act::new(RecordKind::Exit, app()).target(&format!("number {n} ")), None);
    }
    drop(recorder);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.len() as u64 > file::TAIL_BYTES, "more than is looked at");
    let last = text.lines().last().unwrap();
    let seq = serde_json::from_str::<Record>(last).unwrap().seq;
    for (changed, at, fault) in [
        (text.replace("number 7998 ", "number 9998 "), 8000, Fault::Chain),
        (text.replace(last, &last.replace("log-closed", "log-opened")), seq, Fault::Chain),
        (text.replace(last, &last.replace("chain", "change")), seq, Fault::NoChain),
    ] {
        assert_ne!(changed, text);
        std::fs::write(&path, &changed).unwrap();
        let error = JsonLinesRecorder::open(&path).map(|_| ()).unwrap_err();
        assert_eq!(error, RecordError::Altered { seq: Some(at), fault });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), changed);
        let failure = palisade_model::Failure::from(error);
        assert!(failure.message.contains("is not as it was written: "), "{failure}");
    }
    let seen = || verify(BufReader::new(std::fs::File::open(&path).unwrap()), &[]);
    // What lies further back is for `verify` to find; it goes on where it ended.
    let changed = text.replace("number 3 ", "number 4 ");
    std::fs::write(&path, changed).unwrap();
    drop(JsonLinesRecorder::open(&path).unwrap());
    assert_eq!(seen(), Err(VerifyError::Altered { line: 5, fault: Fault::Chain }));
    std::fs::write(&path, &text).unwrap();
    let recorder = JsonLinesRecorder::open(&path).unwrap();
    assert_eq!(recorder.head().seq, seq + 1);
    drop(recorder);
    assert_eq!(seen().unwrap().records, seq + 2);
}
