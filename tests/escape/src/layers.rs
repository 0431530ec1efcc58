//! The layers by name, and a first guess at which of them stops a new attempt. The guess is written to the
//! expectations once; from then on a person owns it, and the ablation keeps it honest.

use crate::{families::ablation, record::Row};

/// Layers beside seccomp and Landlock that stop the attempts of a number.
fn usual(row: &Row) -> &'static [&'static str] {
    let policed = !row.launcher.cgroups();
    if row.backend == "landlock" {
        return match row.outcome.as_str() {
            o if o.starts_with("not-guaranteed") => &["nothing that is promised"],
            "blocked:EACCES" | "blocked:ENOENT" => &["landlock"],
            o if o.starts_with("blocked:E") || o.starts_with("killed") => &["seccomp"],
            _ => &["handle list"],
        };
    }
    let variant = row.variant.split('@').next().unwrap_or_default();
    // What is asked for by its whole name, and what belongs to the attempt whoever makes it.
    let is_bare = super::families::twins::made(&row.variant)
        || row.variant.ends_with(super::families::wasm::WITH);
    let variant = if is_bare { variant } else { &row.variant };
    match (row.number, variant) {
        (3 | 66, _) => &["path check", "identity check"],
        (6, "logs") => &["own pipe"],
        (6, _) | (33, _) => &["handle list"],
        (5, "fds") => &["handle list"],
        (5, _) => &["mount namespace", "landlock"],
        (7 | 8, _) if row.outcome.ends_with("EACCES") => &["undumpable init", "landlock"],
        (8, "thread-self") => &["mount namespace", "landlock"],
        (8, _) => &["own proc", "landlock"],
        (9, _) => &["proc subset", "read-only proc"],
        (2, v) if v.starts_with("ro-") => &["mount namespace"],
        (1 | 2 | 4, _) => &["mount namespace", "landlock"],
        (7 | 10 | 31 | 51, _) | (40, "proxy-unix") => &["mount namespace"],
        (11, _) => &["no capabilities", "nodev"],
        (12, "suid" | "sgid") | (13, "file-caps") => &["no new privileges", "nosuid"],
        (12, "setuid") => &["user namespace"],
        (12, "clear-nnp") => &["kernel"],
        (12, _) => &["user namespace"],
        (13, "binfmt") => &["proc subset"],
        (13, _) => &["no capabilities"],
        (14..=16 | 19, _) => &["no capabilities"],
        (17 | 18, _) if row.outcome.ends_with("EPERM") || row.variant.contains("user") => {
            &["namespace limit", "no capabilities"]
        }
        (17 | 18, _) => &["namespace limit"],
        (20 | 22 | 53, _) => &["no capabilities"],
        (21, _) | (24, _) => &["kernel"],
        (23, "openat") => &["mount namespace"],
        (25, "clone-flags") => &["kernel"],
        (25, _) => &["mount namespace"],
        (30, _) => &["escaped output"],
        (50, "choose-number") => &["no capabilities"],
        (50, _) => &["pidfd"],
        (60, "program-suid") => &["no new privileges", "nosuid"],
        (60, "program-other") => &["all the others"],
        (60, v) if v.starts_with("sealed") => &["digest of the files"],
        (60, _) => &["path check", "mount namespace"],
        (63, _) => &["consent by digest and origin"],
        (64, v) if v.starts_with("altered-") => &["chained record"],
        (64, _) => &["structured record"],
        (69, "link" | "swap") => &["mount namespace"],
        (69, _) => &["all the others"],
        (71, _) => &["relay"],
        (72, _) => &["manifest checks"],
        (73, _) => &["schema bounds"],
        (74, _) => &["manifest checks", "escaped output"],
        (26..=28 | 70, _) => &["pid namespace"],
        (29, _) => &["no terminal"],
        (41, v) if v.starts_with("inherited") => &["handle list"],
        (41, v) if v.starts_with("abstract") => &["network namespace", "landlock"],
        (37, "dns-udp" | "dns-tcp" | "dns-servers") => &["network namespace"],
        (37..=39, _) => &["egress guard"],
        (40 | 41, v) if v.ends_with("@way-out") && !row.outcome.starts_with("blocked:E") => {
            &["egress guard"]
        }
        (32, "stream" | "dgram") => &["network namespace", "landlock"],
        (32 | 36 | 40 | 41, _) => &["network namespace"],
        (34 | 47 | 58 | 59, _) => &["framing"],
        (35, "netlink-route") => &["network namespace"],
        (35, _) => &["kernel"],
        (42, _) => {
            if policed {
                &["rlimit"]
            } else {
                &["cgroup", "rlimit"]
            }
        }
        (43, "tmp" | "shm") => &["tmpfs size", "file size limit"],
        (43, "mlock" | "raise-as") | (45, "raise-fsize") => &["rlimit"],
        (43, "tcp" | "many-tcp") => &["landlock"],
        (43, "memfd") => &["file size limit"],
        (43, _) => &["cgroup", "memory samples"],
        (44, v) if v.starts_with("spin") => &["cgroup", "processor samples"],
        (44 | 46, _) => &["rlimit"],
        (45, v) if v.ends_with("/data") && row.outcome == "killed:disk" => &["disk samples"],
        (45, v) if v.ends_with("/data") => &["file size limit"],
        (45, _) => &["tmpfs size"],
        (48 | 49, _) => &["pid namespace"],
        (52, _) => &["own session keyring"],
        (54, _) => &["no capabilities"],
        (55, "interpreter" | "shell" | "spawn-binding") => &["mount namespace", "landlock"],
        (55, "wx" | "rwx" | "wasm") => &["all the others"],
        (55, _) => &["noexec mounts", "landlock"],
        (56 | 57, _) => &["clean environment"],
        (101, v) if v.starts_with("scope") => &["gate"],
        (101, "environment" | "extism-config") => &["clean environment"],
        (101, _) => &["import check"],
        (102, "shared" | "many-instances" | "globals") => &["engine limits"],
        (102, _) => &["memory count"],
        (103, "wait" | "wasi-wait" | "http" | "loop-log") => &["call deadline"],
        (103, _) => &["epoch"],
        (104, "answer") => &["answer check"],
        (104, "types") => &["type bounds"],
        (104, _) => &["stack limit"],
        (105, v) if v.contains("random") || v == "wasi-insecure" => &["random limit"],
        (105, "wasi-poll") => &["resource count"],
        (105, "headers" | "header" | "wasi-header") => &["header limit"],
        (105, "outside" | "wrapped" | "utf-8" | "room") => &["engine checks"],
        (105, "answer") => &["answer check"],
        (105, "wasi-path") => &["kernel"],
        (105, "wasi-read") => &["read size"],
        (105, _) => &["host call bytes"],
        (106, "files" | "extism-files") => &["file count"],
        (106, v) if v.starts_with("pipe") => &["file types"],
        (106, "fields") => &["header limit", "resource count"],
        (106, "bodies") => &["body pieces", "resource count"],
        (106, "traps") => &["instance end"],
        (106, "log" | "stdout") => &["log rate"],
        (106, "extism-variables") => &["variable size"],
        (106, _) => &["resource count"],
        (107..=110, _) => &["egress guard"],
        (111, "link" | "writable" | "pipe") => &["private folder", "mac"],
        (111, "key") => &["private folder"],
        (111, _) => &["mac"],
        (112, v) if v.starts_with("read-only") => &["folder rights"],
        (112, _) => &["path resolution"],
        (113, "deadline" | "trap") => &["own store"],
        (113, "memory") => &["memory count"],
        (113, "instances") => &["instance count"],
        (113, "lock") => &["call deadline"],
        (113, "share") => &["epoch", "processor samples"],
        (113, _) => &["epoch"],
        (67, "pattern") => &["proc subset"],
        (67, _) => &["core limit"],
        (68, _) => &["own folder"],
        _ => &["mount namespace"],
    }
}

/// The layers that stop a row, as far as the ablation shows and the number suggests.
#[must_use]
pub fn first_guess(row: &Row) -> Vec<String> {
    let mut layers: Vec<&str> = Vec::new();
    let mut alone = false;
    for layer in ablation::LAYERS.iter().map(|l| l.name) {
        if let Some(thin) = row.without.get(layer)
            && *thin != row.outcome
        {
            layers.push(layer);
            alone |= thin.starts_with("SUCCEEDED");
        }
    }
    if !alone {
        for layer in usual(row) {
            if !layers.contains(layer) {
                layers.push(layer);
            }
        }
    }
    layers.into_iter().map(str::to_owned).collect()
}

/// Why a row without a working control needs none of the filter: empty where a person has to say it.
#[must_use]
pub fn first_proof(row: &Row) -> String {
    if super::families::host::covers(row.number, &row.variant) {
        "no system call in question: the host itself decides".into()
    } else if super::families::twins::made(&row.variant) {
        "the static attacker makes the same attempt, with a control or a proof of its own".into()
    } else if row.backend.starts_with("wasm") && row.control != crate::control::WORKS {
        "no system call in question: nobody provides the interface".into()
    } else if row.backend == "landlock" {
        "the same attempt behind the stronger tier: the filter is the same".into()
    } else {
        String::new()
    }
}
