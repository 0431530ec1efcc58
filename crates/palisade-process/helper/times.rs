// Processor time of the plugin's processes, from what /proc says of each in turn.
//
// What a process has used is added from sample to sample, so that nothing is lost when one ends. What it
// used after the last sample comes to light with whoever waits for it; but where its parent ignores SIGCHLD
// nobody does, and the kernel adds it to nobody's time. So young processes are also counted as a profiler
// does: each that runs at a sample stands for the time since the last one. The larger of both counts.

/// Clock ticks a second in /proc/<pid>/stat are USER_HZ, 100.
const TICK_MICROS: u64 = 10_000;
/// Ticks for which a process is young: what it used is too little to be seen in ticks.
const YOUNG_TICKS: u64 = 2;
/// A share of one.
pub const WHOLE: u64 = 256;
/// Most processes that are remembered. The others count as young for ever.
const REMEMBERED: usize = 1024;

/// What /proc says of one process.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u64,
    /// Clock ticks from boot to its start.
    pub start: u64,
    /// Microseconds that it used.
    pub own: u64,
    /// Microseconds that those used that it has waited for.
    pub waited: u64,
    /// It runs, or is ready to.
    pub ready: bool,
    /// Of the time that it was ready, how much it ran, in parts of [`WHOLE`].
    pub share: u64,
}

impl Process {
    const NONE: Self = Self { pid: 0, start: 0, own: 0, waited: 0, ready: false, share: 0 };

    /// Whether it is young `now`, in clock ticks since boot.
    pub fn is_young(&self, now: u64) -> bool {
        self.start + YOUNG_TICKS > now
    }
}

/// Untouched pages of it take no memory.
pub struct Tables([[Process; REMEMBERED]; 2]);

impl Tables {
    pub const EMPTY: Self = Self([[Process::NONE; REMEMBERED]; 2]);
}

/// What was used, added up.
pub struct Times<'a> {
    tables: &'a mut Tables,
    /// The table of the last sample, and how many are in it.
    last: usize,
    known: usize,
    /// What is looked at now: next of the last sample, next to be written, sums.
    at: usize,
    written: usize,
    now_ticks: u64,
    elapsed: u64,
    own: u64,
    waited: u64,
    ended: u64,
    young_own: u64,
    /// Microseconds that young processes seem to have run, a processor at a time.
    ready: u64,
    cpus: u64,
    exact: u64,
    young: u64,
    young_exact: u64,
}

impl<'a> Times<'a> {
    pub fn new(tables: &'a mut Tables, cpus: u64) -> Self {
        Times {
            tables,
            last: 0,
            known: 0,
            at: 0,
            written: 0,
            now_ticks: 0,
            elapsed: 0,
            own: 0,
            waited: 0,
            ended: 0,
            young_own: 0,
            ready: 0,
            cpus,
            exact: 0,
            young: 0,
            young_exact: 0,
        }
    }

    /// A sample begins, `elapsed` microseconds after the last one, at `now_ticks` since boot.
    pub fn begin(&mut self, now_ticks: u64, elapsed: u64) {
        (self.at, self.written) = (0, 0);
        (self.own, self.waited, self.ended, self.young_own, self.ready) = (0, 0, 0, 0, 0);
        (self.now_ticks, self.elapsed) = (now_ticks, elapsed);
    }

    /// The next process. They come by rising number, as /proc lists them.
    pub fn see(&mut self, process: Process) {
        let before = self.before(process.pid, process.start);
        let is_young = process.is_young(self.now_ticks);
        if self.written == REMEMBERED {
            self.count_ready(&process);
            return;
        }
        let own = process.own.saturating_sub(before.own);
        self.own += own;
        self.waited += process.waited.saturating_sub(before.waited);
        if is_young {
            self.young_own += own;
            self.count_ready(&process);
        }
        self.tables.0[1 - self.last][self.written] = process;
        self.written += 1;
    }

    fn count_ready(&mut self, process: &Process) {
        if process.ready {
            self.ready += self.elapsed * process.share / WHOLE;
        }
    }

    /// The same process at the last sample. Those passed on the way have ended.
    fn before(&mut self, pid: u64, start: u64) -> Process {
        while self.at < self.known {
            let old = self.tables.0[self.last][self.at];
            if old.pid > pid {
                break;
            }
            self.at += 1;
            if old.pid == pid && old.start == start {
                return old;
            }
            self.ended += old.own + old.waited;
        }
        Process::NONE
    }

    /// The sample is over. `reaped`: microseconds of those that pid 1 has waited for since the last one.
    pub fn finish(&mut self, reaped: u64) {
        self.before(u64::MAX, 0);
        // What came to light only when somebody waited.
        let late = (self.waited + reaped).saturating_sub(self.ended);
        self.exact += self.own + late;
        self.young_exact += self.young_own + late;
        self.young += self.ready.min(self.cpus * self.elapsed);
        (self.last, self.known) = (1 - self.last, self.written);
    }

    /// Microseconds used since [`Times::restart`].
    pub fn used(&self) -> u64 {
        self.exact + self.young.saturating_sub(self.young_exact)
    }

    /// Begins a new window.
    pub fn restart(&mut self) {
        (self.exact, self.young, self.young_exact) = (0, 0, 0);
    }
}

/// Microseconds in clock ticks.
pub const fn micros(ticks: u64) -> u64 {
    ticks.saturating_mul(TICK_MICROS)
}

/// Clock ticks in nanoseconds.
pub const fn ticks(nanos: u64) -> u64 {
    nanos / (TICK_MICROS * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;
    /// Milliseconds between samples.
    const STEP: u64 = 5;

    fn old(pid: u64, own: u64, waited: u64) -> Process {
        Process { pid, start: 0, own: own * MS, waited: waited * MS, ready: true, share: WHOLE }
    }

    fn times() -> Times<'static> {
        Times::new(Box::leak(Box::new(Tables::EMPTY)), 2)
    }

    /// One sample, `now` milliseconds after boot. Microseconds used in all.
    fn sample(times: &mut Times<'_>, now: u64, all: &[Process], reaped: u64) -> u64 {
        times.begin(now / 10, STEP * MS);
        all.iter().for_each(|process| times.see(*process));
        times.finish(reaped * MS);
        times.used()
    }

    #[test]
    fn what_each_used_is_added_and_nothing_is_lost_or_counted_twice_when_one_ends() {
        let mut times = times();
        sample(&mut times, 1000, &[old(2, 100, 0), old(3, 50, 0)], 0);
        times.restart();
        assert_eq!(sample(&mut times, 1005, &[old(2, 110, 0), old(3, 60, 0)], 0), 20 * MS);
        // 3 ends, 4 ms later than it was last seen, and 2 has waited for it.
        assert_eq!(sample(&mut times, 1010, &[old(2, 110, 64)], 0), 24 * MS);
        // 2 ends, and pid 1 has waited for it and for all that it had waited for.
        assert_eq!(sample(&mut times, 1015, &[], 175), 25 * MS);
    }

    #[test]
    fn what_nobody_waits_for_is_not_taken_off_the_others() {
        let mut times = times();
        sample(&mut times, 1000, &[old(2, 100, 0), old(3, 50, 0)], 0);
        times.restart();
        assert_eq!(sample(&mut times, 1005, &[old(2, 105, 0)], 0), 5 * MS);
    }

    #[test]
    fn the_young_that_nobody_waits_for_count_as_a_profiler_counts() {
        let mut times = times();
        let child = |pid, now| Process { start: now / 10, ..old(pid, 0, 0) };
        for turn in 0..20 {
            let now = 1000 + turn * STEP;
            let parent = Process { ready: false, ..old(2, 10, 0) };
            let all = [
                parent,
                child(10 + 3 * turn, now),
                child(11 + 3 * turn, now),
                child(12 + 3 * turn, now),
            ];
            sample(&mut times, now, &all, 0);
        }
        // Three are ready, two processors can run them: 20 samples of 5 ms, and the 10 ms of the parent.
        assert_eq!(times.used(), (10 + 20 * STEP * 2) * MS);
    }

    #[test]
    fn the_young_that_somebody_waits_for_count_once() {
        let mut times = times();
        sample(&mut times, 1000, &[old(2, 10, 0)], 0);
        times.restart();
        for turn in 1..=20 {
            let now = 1000 + turn * STEP;
            let child = Process { start: now / 10, ..old(10 + turn, 0, 0) };
            sample(&mut times, now, &[old(2, 10, turn * STEP), child], 0);
        }
        assert_eq!(times.used(), 20 * STEP * MS);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut times = times();
        sample(&mut times, 1000, &[old(2, 100, 0)], 0);
        times.restart();
        let other = Process { start: 50, ..old(2, 30, 0) };
        assert_eq!(sample(&mut times, 1005, &[other], 0), 30 * MS);
    }
}
