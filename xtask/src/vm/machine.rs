//! One machine: started, listened to, ended.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Plan,
    fetch::Files,
    outcome::{self, Outcome},
    payload::Payload,
};
use crate::Result;

/// Between two looks at what the machine has said.
const LOOK: Duration = Duration::from_millis(100);
/// What the machines have, in MiB. The attacks ask for 1 GiB and are stopped long before; every page that
/// is used for the first time has to come from the host.
const MEMORY: &str = "1536";
/// Ticks of the machine's time stamp counter in a millisecond. It counts nanoseconds of the machine's own clock.
const COUNTER_KHZ: u32 = 1_000_000;

/// How to start it.
pub(super) struct Boot<'a> {
    pub(super) plan: &'a Plan,
    pub(super) kernel: &'a Files,
    /// What it finds as its first NVMe disk; stays as it is.
    pub(super) disk: &'a Path,
    pub(super) short: bool,
    /// Only the situations of these names; all where there is none.
    pub(super) only: &'a [String],
    /// Only the steps that have one of these in their name; all where there is none.
    pub(super) steps: &'a [String],
    pub(super) limit: Duration,
    /// Told what there is after each situation, so that a run that is cut off has not run for nothing.
    pub(super) keep: &'a dyn Fn(&Outcome) -> Result,
}

fn trouble(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// Runs it to its end, and gives what it said.
pub(super) fn run(folder: &Path, payload: &Payload, boot: &Boot<'_>) -> Result<Outcome> {
    let name = boot.plan.name;
    // Some situations of a machine can be run beside others of it.
    let logs = folder.join([&[name.to_owned()], boot.only].concat().join("-"));
    fs::create_dir_all(&logs).map_err(trouble(&logs))?;
    let (console, said) = (logs.join("console.log"), logs.join("results.jsonl"));
    for old in [&console, &said] {
        let _ = fs::remove_file(old);
    }
    let initramfs = logs.join("initramfs");
    let machine = serde_json::json!({
        "name": name, "short": boot.short, "disk": boot.plan.disk, "only": boot.only,
        "steps": boot.steps,
    });
    payload.initramfs(&initramfs, boot.plan, &machine.to_string(), &boot.kernel.module)?;
    let words = format!(
        // Told the clock's speed, the kernel does not measure it. No mitigations: nothing here is secret,
        // and emulation pays for each. Of the clocks only the counter of instructions: on a busy host an event
        // of the emulated HPET that comes late is lost until its counter has gone round, 21 s later.
        "console=ttyS0 quiet loglevel=4 panic=-1 tsc_early_khz={COUNTER_KHZ} tsc=reliable hpet=disable mitigations=off nokaslr random.trust_cpu=on {}",
        boot.plan.boot
    );
    let mut qemu = Command::new("qemu-system-x86_64");
    // One processor, so that a busy host is asked for one only. Its clock counts instructions, 8 ns each, while
    // it works, and goes with the host's while it waits: a busy host makes a machine slow, but not late. With the
    // host's clock, deadlines passed inside while the host ran something else, and timers that came late were lost
    // for tens of seconds. Without the features that make the kernel
    // clear and copy pages byte by byte, which emulation is slow at.
    qemu.args([
        "-accel",
        "tcg,thread=single",
        "-icount",
        "shift=3,sleep=on",
        "-cpu",
        "max,-erms,-fsrm",
        "-smp",
        "1",
    ])
    .args(["-m", MEMORY])
    .args(["-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"])
    .arg("-kernel")
    .arg(&boot.kernel.image)
    .arg("-initrd")
    .arg(&initramfs)
    .args(["-append", words.trim_end()])
    .arg("-serial")
    .arg(format!("file:{}", console.display()))
    .arg("-serial")
    .arg(format!("file:{}", said.display()));
    // Written to a scratch file only.
    qemu.arg("-drive")
        .arg(format!("if=none,id=disk,format=raw,snapshot=on,file={}", boot.disk.display()))
        .args(["-device", "nvme,serial=palisade,drive=disk"]);
    eprintln!("$ vm {name}");
    let begun = Instant::now();
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("QEMU cannot be started: {e}"))?;
    let (mut shown, mut kept) = (0, 0);
    let ended = loop {
        let ended = child.try_wait().map_err(|e| format!("QEMU: {e}"))?;
        let text = fs::read_to_string(&said).unwrap_or_default();
        shown = outcome::progress(name, &text, shown);
        let so_far = Outcome::read(name, &text, None, String::new, begun.elapsed());
        if so_far.situations.len() > kept {
            kept = so_far.situations.len();
            if let Err(e) = (boot.keep)(&so_far) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(e);
            }
        }
        if ended.is_some() {
            break ended;
        }
        if begun.elapsed() > boot.limit {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let _ = fs::remove_file(&initramfs);
    let text = fs::read_to_string(&said).unwrap_or_default();
    let trouble = match ended {
        None => Some(format!("ended after {:?} without an answer", boot.limit)),
        Some(status) if !status.success() => Some(format!("QEMU failed ({status})")),
        Some(_) => None,
    };
    let tail = || {
        let log = fs::read(&console).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    };
    eprintln!("  {:.1} s; its log is {}", begun.elapsed().as_secs_f64(), console.display());
    Ok(Outcome::read(name, &text, trouble, tail, begun.elapsed()))
}
