use super::*;
use std::time::Duration;

#[test]
fn only_the_leaf_of_a_host_leads_to_the_group_above() {
    let above = |own| above_leaf(Path::new(own));
    assert_eq!(above("/c/a.scope/palisade-12-host"), Some(PathBuf::from("/c/a.scope")));
    for other in ["/c/a.scope", "/c/palisade-12", "/c/palisade-x-host", "/c/x-12-host", "/"] {
        assert_eq!(above(other), None, "{other}");
    }
}

#[test]
fn a_child_is_ours_and_the_parent_is_not() {
    let mut child = std::process::Command::new("/bin/sleep").arg("30").spawn().unwrap();
    let (ours, parent) = (is_own(&child.id().to_string()), std::os::unix::process::parent_id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ours);
    assert!(is_own(&std::process::id().to_string()));
    assert!(!is_own(&parent.to_string()));
    assert!(!is_own("1"));
}

/// What CI has by being root: groups of version 1 or 2, and a tree of version 2.
#[allow(clippy::print_stderr)]
fn skipped(what: &str, hierarchy: &Hierarchy) {
    let in_ci = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!in_ci, "in CI nothing may be skipped, and {what}: {}", hierarchy.note);
    eprintln!("SKIPPED: {what}: {}", hierarchy.note);
}

#[test]
fn version_2_counts_and_kills_also_where_the_controllers_are_version_1s() {
    let cgroups = of_this_process();
    let Some(group) = cgroups.create(&Limits::default()).unwrap() else {
        return skipped("there are no cgroups for this process here", &cgroups.hierarchy);
    };
    let Some(second) = &cgroups.hierarchy.second else {
        return skipped("no version 2 tree may be used here", &cgroups.hierarchy);
    };
    assert!(group.folders().iter().any(|folder| folder.starts_with(second)));
    assert_eq!(cgroups.hierarchy.time.as_ref(), Some(second));
    let more = group.folders().len() - 1;
    assert_eq!(cgroups.hierarchy.has_more(), more > 0);
    assert_eq!(group.entries().unwrap().len(), 1 + more);
    let mut child = In::spinning(&group);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while group.cpu_time().unwrap() < Duration::from_millis(50) {
        assert!(std::time::Instant::now() < end, "its time is not counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    group.kill_all();
    let ended = child.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
}

/// A child in a group, until this is dropped.
pub(crate) struct In(std::process::Child);

impl In {
    pub(crate) fn group(group: &Group, command: &mut std::process::Command) -> Self {
        let child = Self(command.spawn().unwrap());
        for folder in group.folders() {
            fs::write(folder.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        }
        child
    }

    /// One that computes for ever.
    fn spinning(group: &Group) -> Self {
        let mut shell = std::process::Command::new("/bin/sh");
        Self::group(group, shell.args(["-c", "while :; do :; done"]))
    }
}

impl Drop for In {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Group {
    /// Whether its processor time is weighed at all.
    pub(crate) fn has_weight(&self) -> bool {
        let files = ["cpu.weight", "cpu.shares"];
        self.folders().iter().any(|folder| files.iter().any(|file| folder.join(file).exists()))
    }

    /// Whether it can be idle.
    pub(crate) fn has_idle(&self) -> bool {
        self.folders().iter().any(|folder| folder.join("cpu.idle").exists())
    }
}

/// What a group weighs, as a part of what is ordinary; none where it is idle.
pub(crate) fn weight(group: &Group) -> Option<f64> {
    let read = |file: &str| {
        let mut texts = group.folders().into_iter().map(|f| fs::read_to_string(f.join(file)));
        texts.find_map(Result::ok).map(|text| text.trim().parse::<f64>().unwrap())
    };
    if read("cpu.idle").is_some_and(|idle| idle > 0.0) {
        return None;
    }
    Some(read("cpu.weight").map_or_else(|| read("cpu.shares").unwrap() / 1024.0, |w| w / 100.0))
}

#[test]
fn a_light_group_gets_the_smaller_part_of_a_processor_that_another_wants() {
    let cgroups = of_this_process();
    let make = || cgroups.create(&Limits::default()).unwrap().filter(Group::has_weight);
    let (Some(light), Some(ordinary)) = (make(), make()) else {
        return skipped("no group has processor time here", &cgroups.hierarchy);
    };
    light.stand(Standing::Ordinary, Standing::Light).unwrap();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..rustix::thread::CpuSet::MAX_CPU).find(|&c| allowed.is_set(c)).unwrap());
    let _children = [&light, &ordinary].map(|group| {
        let child = In::spinning(group);
        let pid = rustix::process::Pid::from_child(&child.0);
        rustix::thread::sched_setaffinity(Some(pid), &one).unwrap();
        child
    });
    let times = || [&light, &ordinary].map(|group| group.cpu_time().unwrap());
    let before = times();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    let used = loop {
        let now = times();
        let used = [now[0] - before[0], now[1] - before[1]];
        if used[1] > Duration::from_millis(500) {
            break used;
        }
        assert!(std::time::Instant::now() < end, "nothing of it ran: {used:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(used[0] * 4 < used[1], "it had {:?} beside {:?}", used[0], used[1]);
}

#[test]
fn a_leftover_has_no_standing() {
    let cgroups = of_this_process();
    let limits = Limits::default();
    for standing in [Standing::Light, Standing::Behind] {
        let name = format!("palisade-leftover-{standing:?}");
        let make = || Group::make(Arc::clone(&cgroups), name.clone(), &limits);
        if cgroups.create(&limits).unwrap().filter(Group::has_weight).is_none() {
            return skipped("no group has processor time here", &cgroups.hierarchy);
        }
        let left = make().unwrap();
        left.stand(Standing::Ordinary, standing).unwrap();
        assert_ne!(weight(&left), Some(1.0));
        let again = make().unwrap();
        assert_eq!(weight(&again), Some(1.0), "{standing:?}");
    }
}

#[test]
fn a_group_goes_from_each_standing_to_each() {
    use Standing::{Behind, Light, Ordinary};
    let cgroups = of_this_process();
    let Some(group) = cgroups.create(&Limits::default()).unwrap().filter(Group::has_weight) else {
        return skipped("no group has processor time here", &cgroups.hierarchy);
    };
    let has_idle = group.folders().iter().any(|folder| folder.join("cpu.idle").exists());
    let way = [Ordinary, Light, Ordinary, Behind, Ordinary, Light, Behind, Light, Ordinary];
    for pair in way.windows(2) {
        group.stand(pair[0], pair[1]).unwrap();
        let weight = weight(&group);
        match pair[1] {
            Ordinary => assert_eq!(weight, Some(1.0), "{pair:?}"),
            Behind if has_idle => assert_eq!(weight, None, "{pair:?}"),
            Behind | Light => {
                assert!(weight.is_some_and(|w| (0.05..0.07).contains(&w)), "{pair:?}");
            }
        }
    }
}

#[test]
fn a_group_that_was_in_use_when_it_was_dropped_is_removed_with_the_next_launch() {
    // Numbers apart from those of this process's own groups.
    let next = AtomicU64::new(1 << 40);
    let cgroups = Arc::new(Cgroups { hierarchy: find(), next, left: Mutex::default() });
    let make = || cgroups.create(&Limits::default()).unwrap();
    let Some(group) = make() else {
        return skipped("there are no cgroups for this process here", &cgroups.hierarchy);
    };
    let folders = group.folders();
    let there = || folders.iter().filter(|f| f.exists()).count();
    let mut child = std::process::Command::new("/bin/sleep").arg("30").spawn().unwrap();
    for folder in &folders {
        fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    drop(group);
    assert_eq!(there(), folders.len(), "a process is in it");
    child.kill().unwrap();
    child.wait().unwrap();
    // A dead process leaves its groups a moment after it was waited for.
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while there() > 0 {
        drop(make());
        assert!(std::time::Instant::now() < end, "{folders:?} stay");
    }
    assert!(cgroups.left.lock().unwrap().is_empty());
}
