//! `palisade demo`, end to end, as root and as a user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Launcher, Place, launchers};

#[test]
fn the_good_ones_work_and_the_hostile_one_achieves_nothing() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let (status, out, err) = place.run(&["demo", "--json"]);
        let report: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{launcher:?}: {e}: {out}{err}"));
        assert_eq!((status, &report["ok"]), (0, &true.into()), "{launcher:?}: {out}");
        assert!(report["work"].as_array().unwrap().len() >= 9);
        let attempts = report["attempts"].as_array().unwrap();
        assert!(attempts.len() >= 16);
        for attempt in attempts {
            assert_eq!(attempt["achieved"], Value::Array(vec![]), "{launcher:?}");
            assert!(attempt["neighbour_micros"].is_u64(), "{launcher:?}");
        }
    }
}

#[test]
fn nothing_is_left_behind() {
    let place = Place::new(Launcher::Me);
    let folder = place.path("tmp");
    std::fs::create_dir(&folder).unwrap();
    let output = place.palisade(&["demo"]).env("TMPDIR", &folder).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.contains("achieved nothing") && !out.contains('\x1b'), "{out}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn where_the_walls_are_missing_it_says_so() {
    let place = Place::new(Launcher::Me);
    let (status, out, err) = place.run(&["demo", "--backend", "landlock"]);
    assert_eq!((status, out.as_str()), (4, ""));
    assert!(err.contains("fs-isolated is demanded") && err.contains("palisade doctor"), "{err}");
}

/// What `docker run` leaves root of its rights (moby, `oci/caps/defaults.go`).
const DOCKERS: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,\
    +setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write";

/// Root as it is in containers: what it says that it holds, it holds, and what it cannot do it does not begin.
#[test]
fn root_without_all_of_its_rights_has_the_walls_that_it_can_have() {
    if !rustix::process::geteuid().is_root() {
        // It has no rights to lose, and is what the other tests here are about.
        return;
    }
    let place = Place::new(Launcher::Me);
    let with = |rights: &str, args: &[&str]| {
        let bounding = format!("--bounding-set={rights}");
        place.run_through(&["setpriv", &bounding, "--inh-caps=-all", "--"], args)
    };
    let with_sys_admin = format!("{DOCKERS},+sys_admin");
    let without_dac_override = with_sys_admin.replace(",+dac_override", "");
    for rights in [
        with_sys_admin.as_str(),
        without_dac_override.as_str(),
        DOCKERS,
        "-sys_ptrace",
        "-chown",
        "-setuid",
        "-all,+setfcap",
        "-all,+setfcap,+dac_override",
    ] {
        let (_, out, err) = with(rights, &["doctor", "--json"]);
        let doctor: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let process = &doctor["backends"].as_array().unwrap()[0];
        // Processes of root are not counted: only a cgroup bounds their number, and it may have none.
        let holds = process["facts"]["guarantees"]["pids-capped"] == "kernel";
        let (status, out, err) = with(rights, &["demo"]);
        if holds {
            assert_eq!(status, 0, "{rights}: {out}{err}");
        } else {
            assert_eq!(status, 4, "{rights}: {out}{err}");
            assert!(err.contains("pids-capped is demanded"), "{rights}: {err}");
        }
    }
    let (status, out, err) = with("-all", &["demo"]);
    assert_eq!((status, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("SETFCAP"), "{err}");
}

/// Limits of the shell, a service or a container: a plugin has them beside its own, and the lower one counts.
#[test]
fn lower_limits_of_the_launcher_stay_and_do_no_harm() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        // Kernels before 5.16 begin with 64 KiB that can be locked in memory.
        let lower =
            ["prlimit", "--fsize=20000000", "--memlock=65536", "--core=1", "--nofile=512", "--"];
        let (status, out, err) = place.run_through(&lower, &["demo"]);
        assert_eq!(status, 0, "{launcher:?}: {out}{err}");
        let few = ["prlimit", "--nofile=128", "--"];
        let (status, _, err) = place.run_through(&few, &["demo"]);
        assert_eq!(status, 1, "{launcher:?}: {err}");
        assert!(err.contains("ulimit -Hn 512"), "{launcher:?}: {err}");
    }
}
