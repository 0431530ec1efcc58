//! The thread that writes: gathers a group, renders it, appends it, answers those who wait.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};

use palisade_model::Principal;

use super::{Entry, Reply, Shared, coalesce::Coalescer, counter::Counter, file::Log};
use crate::{
    Act, Class, Head, Outcome, Phase, Record, RecordError, RecordKind,
    act::Stamped,
    clock::{boot_id, rfc3339},
    record::{Finish, render},
};

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    /// The last line that is on disk.
    head: Head,
    boot: String,
    coalescer: Coalescer,
    /// Counters at which something happens.
    counters: Vec<Arc<Counter>>,
    /// Records that were dropped or could not be written and are not yet accounted for on disk.
    lost: u64,
}

/// Lines of one group, not yet on disk.
struct Group {
    lines: Vec<u8>,
    /// The last of them.
    head: Head,
    /// How many of the lines nobody waits for.
    unattended: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, head: Head) -> Self {
        *shared.head() = head;
        Self {
            shared,
            log,
            head,
            boot: boot_id(),
            coalescer: Coalescer::default(),
            counters: Vec::new(),
            lost: 0,
        }
    }

    /// Writes one note and waits for the disk; before the thread runs.
    pub(super) fn write_at_once(&mut self, stamped: &Arc<Stamped>) -> Result<(), RecordError> {
        let mut group = self.group();
        self.line(&mut group, stamped, &Finish::plain(Phase::Note, stamped, None), None);
        self.log.append(&group.lines)?;
        self.is_at(group.head);
        Ok(())
    }

    /// All lines up to this one are on disk.
    fn is_at(&mut self, head: Head) {
        self.head = head;
        *self.shared.head() = head;
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: std::fs::File) {
        self.log = Log::new(file, 0);
    }

    pub(super) fn run(mut self) {
        // What follows from a group's answers, to be written with the next one.
        let mut carried = VecDeque::new();
        loop {
            let (mut entries, closing) = self.gather(carried.is_empty());
            carried.append(&mut entries);
            let group = std::mem::take(&mut carried);
            carried = self.commit(group, closing);
            if closing && carried.is_empty() {
                break;
            }
        }
        let act = Act::new(RecordKind::LogClosed, Arc::new(Principal::Application));
        let stamped = self.shared.stamped(act);
        self.commit(VecDeque::from([Entry::Note(stamped, None)]), true);
    }

    /// Waits for entries and lets a group come together, unless somebody waits for the disk.
    fn gather(&mut self, may_wait: bool) -> (VecDeque<Entry>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        while may_wait
            && queue.entries.is_empty()
            && queue.listed.is_empty()
            && queue.dropped == 0
            && !queue.closing
        {
            queue.idle = true;
            if self.coalescer.is_empty() && self.counters.is_empty() && self.lost == 0 {
                queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else {
                let wait = self.until_due().max(Duration::from_millis(1));
                let (back, timeout) =
                    shared.wake.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner);
                queue = back;
                if timeout.timed_out() {
                    break;
                }
            }
        }
        queue.idle = false;
        if may_wait && !queue.entries.is_empty() {
            let pause = shared.options.group_commit;
            let (back, _) = shared
                .wake
                .wait_timeout_while(queue, pause, |q| !q.urgent && !q.closing)
                .unwrap_or_else(PoisonError::into_inner);
            queue = back;
        }
        queue.urgent = false;
        self.lost += std::mem::take(&mut queue.dropped);
        self.counters.append(&mut queue.listed);
        (std::mem::take(&mut queue.entries), queue.closing)
    }

    /// How long until the first counter is to be looked at; a window where there is none.
    fn until_due(&self) -> Duration {
        let (now, window_ns) = (self.shared.clock.now(), self.window_ns());
        let due = self.counters.iter().map(|c| window_ns.saturating_sub(c.age_ns(now))).min();
        due.map_or(self.shared.options.coalesce, Duration::from_nanos)
    }

    fn window_ns(&self) -> u64 {
        u64::try_from(self.shared.options.coalesce.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes one group and answers those who wait. Gives back what must be written next: outcomes of
    /// acts whose askers had gone before they could be answered.
    pub(super) fn commit(&mut self, entries: VecDeque<Entry>, closing: bool) -> VecDeque<Entry> {
        let ended: HashSet<u64> = entries
            .iter()
            .filter_map(|e| match e {
                Entry::Outcome(s, ..) => Some(s.correlation),
                _ => None,
            })
            .collect();
        let mut group = self.group();
        let mut waiting: Vec<(Reply, Option<Arc<Stamped>>)> = Vec::new();
        if self.lost > 0 {
            let act = Act::new(RecordKind::RecordsDropped, Arc::new(Principal::Application));
            let stamped = self.shared.stamped(act);
            let finish = Finish::plain(Phase::Note, &stamped, None);
            self.line(&mut group, &stamped, &finish, Some(self.lost));
        }
        self.write_counts(&mut group, closing || entries.iter().any(follows_counts));
        let now_ns = self.shared.clock.monotonic_ns();
        for entry in entries {
            match entry {
                Entry::FailClosedIntent(stamped, reply) => {
                    let finish = Finish::plain(Phase::Intent, &stamped, None);
                    self.line(&mut group, &stamped, &finish, None);
                    waiting.push((reply, Some(stamped)));
                }
                Entry::Flush(reply) => waiting.push((reply, None)),
                // The outcome says all that the intent would.
                Entry::Intent(stamped)
                    if stamped.act.coalesce || ended.contains(&stamped.correlation) => {}
                Entry::Intent(stamped) => {
                    let finish = Finish::plain(Phase::Intent, &stamped, None);
                    self.unattended(&mut group, &stamped, &finish);
                }
                Entry::Outcome(stamped, at, outcome, detail) => {
                    let finish = Finish::outcome(&stamped, at, outcome, detail.as_deref());
                    if self.is_due(&stamped, &finish, now_ns) {
                        self.unattended(&mut group, &stamped, &finish);
                    }
                }
                Entry::Note(stamped, code) => {
                    let finish = Finish::plain(Phase::Note, &stamped, code);
                    if self.is_due(&stamped, &finish, now_ns) {
                        self.unattended(&mut group, &stamped, &finish);
                    }
                }
            }
        }
        let window = if closing { Duration::ZERO } else { self.shared.options.coalesce };
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        for summary in self.coalescer.expire(now_ns, window_ns) {
            let finish = Finish::plain(summary.phase, &summary.stamped, summary.code);
            let repeats = Some(summary.repeats);
            if summary.mixed {
                self.edited_line(&mut group, &summary.stamped, &finish, |record| Record {
                    repeats,
                    capability: None,
                    target: None,
                    rule: None,
                    detail: Some("on different targets".into()),
                    ..without_payload(record)
                });
            } else {
                self.line(&mut group, &summary.stamped, &finish, repeats);
            }
            group.unattended += summary.repeats;
        }
        let result = if group.lines.is_empty() { Ok(()) } else { self.log.append(&group.lines) };
        match &result {
            Ok(()) => {
                self.is_at(group.head);
                self.lost = if group.lines.is_empty() { self.lost } else { 0 };
            }
            Err(error) => {
                self.lost += group.unattended;
                tracing::error!(%error, lost = self.lost, "audit records could not be written");
            }
        }
        self.answer(waiting, &result)
    }

    /// Writes what was counted: of every counter, or of those whose window is over.
    fn write_counts(&mut self, group: &mut Group, all: bool) {
        if self.counters.is_empty() {
            return;
        }
        let (now, window) = (self.shared.clock.now(), self.window_ns());
        let mut counters = std::mem::take(&mut self.counters);
        counters.retain(|counter| {
            if !all && counter.age_ns(now) < window {
                return true;
            }
            let Some(change) = counter.look(now) else { return false };
            let since = Some(rfc3339(change.since.unix_ns));
            for (phase, number) in [(Phase::Outcome, change.done), (Phase::Intent, change.open)] {
                if number == 0 {
                    continue;
                }
                let stamped = self.shared.stamped(counter.act.clone());
                let finish = Finish::plain(phase, &stamped, None);
                self.edited_line(group, &stamped, &finish, |record| Record {
                    repeats: Some(number),
                    since: since.clone(),
                    ..without_payload(record)
                });
                group.unattended += number;
            }
            true
        });
        self.counters = counters;
    }

    fn is_due(&mut self, stamped: &Arc<Stamped>, finish: &Finish<'_>, now_ns: u64) -> bool {
        !stamped.act.may_coalesce()
            || self.coalescer.is_first(stamped, finish.phase, finish.code, now_ns)
    }

    fn answer(
        &self,
        waiting: Vec<(Reply, Option<Arc<Stamped>>)>,
        result: &Result<(), RecordError>,
    ) -> VecDeque<Entry> {
        let mut follow = VecDeque::new();
        for (reply, stamped) in waiting {
            let gone = reply.send(result.clone()).is_err();
            if let (true, Ok(()), Some(stamped)) = (gone, result, stamped) {
                let at = self.shared.clock.now();
                let why = Some("the asker gave up before the act began".into());
                follow.push_back(Entry::Outcome(stamped, at, Outcome::Cancelled, why));
            }
        }
        follow
    }

    fn group(&self) -> Group {
        Group { lines: Vec::new(), head: self.head, unattended: 0 }
    }

    fn unattended(&self, group: &mut Group, stamped: &Arc<Stamped>, finish: &Finish<'_>) {
        self.line(group, stamped, finish, None);
        group.unattended += 1;
    }

    fn line(
        &self,
        group: &mut Group,
        stamped: &Arc<Stamped>,
        finish: &Finish<'_>,
        repeats: Option<u64>,
    ) {
        self.edited_line(group, stamped, finish, |record| match repeats {
            // It stands for many, whose payloads differ.
            Some(_) => Record { repeats, ..without_payload(record) },
            None => record,
        });
    }

    fn edited_line(
        &self,
        group: &mut Group,
        stamped: &Arc<Stamped>,
        finish: &Finish<'_>,
        edit: impl FnOnce(Record) -> Record,
    ) {
        let seq = group.head.seq + 1;
        let record = edit(render(seq, &self.boot, stamped, finish));
        let start = group.lines.len();
        let rendered = serde_json::to_writer(&mut group.lines, &record).ok();
        let chain = rendered.and_then(|()| group.head.chain.end_line(&mut group.lines, start));
        match chain {
            Some(chain) => {
                group.lines.push(b'\n');
                group.head = Head { seq, chain };
            }
            // Cannot happen for a record (string keys, finite numbers); half a line must not stay.
            None => group.lines.truncate(start),
        }
    }
}

/// Whether it stands behind all that was counted before it: what somebody waits for, and what changes what
/// may happen from then on.
fn follows_counts(entry: &Entry) -> bool {
    match entry {
        Entry::FailClosedIntent(..) | Entry::Flush(_) => true,
        Entry::Outcome(stamped, ..) => stamped.act.kind.class() == Class::FailClosed,
        Entry::Note(stamped, _) => {
            matches!(stamped.act.kind, RecordKind::Exit | RecordKind::Breach)
        }
        Entry::Intent(_) => false,
    }
}

fn without_payload(record: Record) -> Record {
    Record { payload_sha256: None, payload_bytes: None, ..record }
}
