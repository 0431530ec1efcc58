//! Attempts 10 and 11: kernel interfaces in the file system, and device nodes.
//!
//! Devices are opened, at most one block is read, nothing is written.

use crate::outcome::{At, Attempted, Errno, Sys, blocked, succeeded};
use crate::sys::{CWD, c, close, open, read_fd};
use crate::table::{Attempt, Control, Ctx, Tally};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(10, "sys", "list /sys/kernel and /sys/class", Control::Run, &[], |_| list(&["/sys/kernel", "/sys/class", "/sys/devices"])),
    Attempt::new(10, "debugfs", "list debugfs and tracefs", Control::Root, &[], |_| list(&["/sys/kernel/debug", "/sys/kernel/tracing"])),
    Attempt::new(10, "efivars", "list EFI variables", Control::Root, &[], |_| list(&["/sys/firmware/efi/efivars", "/sys/firmware"])),
    Attempt::new(10, "mem", "open /dev/mem or /dev/port", Control::Root, &[], |_| devices(&["/dev/mem", "/dev/port"], libc::O_RDONLY)),
    Attempt::new(10, "kmsg", "open /dev/kmsg", Control::Root, &[], |_| devices(&["/dev/kmsg"], libc::O_RDONLY)),
    Attempt::new(10, "kvm", "open /dev/kvm, /dev/fuse, /dev/net/tun, /dev/vhost-*", Control::Root, &[], |_| devices(&["/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/userfaultfd", "/dev/uinput"], libc::O_RDWR)),
    Attempt::new(10, "blocks", "open any block device in /dev", Control::Root, &[], blocks),
    Attempt::new(10, "extra-nodes", "any device in /dev beyond the minimal ones", Control::Root, &[], extra_nodes),
    Attempt::new(11, "mknod-block", "make the node of the root disk and read it", Control::Root, &["dev"], |x| node(x, Node::Block, 0)),
    Attempt::new(11, "mknod-char", "make a character device and read it", Control::Root, &[], |x| node(x, Node::Char, 0)),
    Attempt::new(11, "mknod-zero-zero", "make a whiteout (0:0), which needs no capability", Control::Run, &[], whiteout),
    Attempt::new(22, "mknod-high", "mknod with bits set above the 16 of umode_t", Control::Root, &[], |x| node(x, Node::Char, 1 << 16)),
    Attempt::new(22, "mknod-bit32", "mknod with bit 32 of the mode set", Control::Root, &[], |x| node(x, Node::Char, 1 << 32)),
];

fn list(paths: &[&str]) -> Attempted {
    let mut tally = Tally::default();
    for path in paths {
        match std::fs::read_dir(path) {
            Err(e) => tally.add::<()>(path, Err(Errno(e.raw_os_error().unwrap_or(0)))),
            Ok(mut entries) => {
                if entries.next().is_some() {
                    tally.win(path);
                }
            }
        }
    }
    tally.end("the directories are empty")
}

fn devices(paths: &[&str], flags: i32) -> Attempted {
    let mut tally = Tally::default();
    for path in paths {
        tally.add(path, open(path, flags | libc::O_NONBLOCK, 0).map(close));
    }
    tally.end("")
}

/// Every node below /dev, two levels deep: (path, is a block device).
fn nodes() -> Vec<(String, bool)> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    let mut folders = vec![("/dev".to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path().display().to_string();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < 2 {
                folders.push((path, depth + 1));
            } else if kind.is_block_device() || kind.is_char_device() {
                found.push((path, kind.is_block_device()));
            }
        }
    }
    found.truncate(1024);
    found
}

fn blocks(_: &Ctx) -> Attempted {
    let mut tally = Tally::default();
    for (path, _) in nodes().iter().filter(|n| n.1).take(32) {
        tally.add(path, open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).map(close));
    }
    tally.end("no block device in /dev")
}

fn extra_nodes(_: &Ctx) -> Attempted {
    const MINIMAL: [&str; 8] =
        ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"];
    let nodes = nodes();
    let extra: Vec<&str> = nodes
        .iter()
        .map(|n| n.0.as_str())
        .filter(|p| !p.starts_with("/dev/pts/"))
        .filter(|p| !MINIMAL.contains(&p.trim_start_matches("/dev/")))
        .collect();
    if extra.is_empty() {
        Ok(blocked(None, format!("{} nodes, all of the minimal set", nodes.len())))
    } else {
        Ok(succeeded(format!("{} more: {}", extra.len(), extra[..extra.len().min(12)].join(" "))))
    }
}

#[derive(Clone, Copy)]
enum Node {
    Block,
    Char,
}

fn node(ctx: &Ctx, kind: Node, high: u64) -> Attempted {
    let scratch = ctx.scratch()?;
    let path = format!("{}/node", scratch.path);
    let (mode, dev) = match kind {
        Node::Block => (libc::S_IFBLK, root_device(ctx)?),
        // urandom: reading it is harmless everywhere.
        Node::Char => (libc::S_IFCHR, libc::makedev(1, 9)),
    };
    let mode = u64::from(mode | 0o600) | high;
    sys!(libc::SYS_mknodat, CWD, c(&path).as_ptr(), mode, dev).at("mknodat")?;
    let mut opened = open(&path, libc::O_RDONLY | libc::O_NONBLOCK, 0);
    if let (Node::Block, Err(_), true) = (kind, &opened, ctx.outside()) {
        // A device control group may keep the disk from root too: a loop device shows the call.
        let spare = format!("{path}2");
        sys!(libc::SYS_mknodat, CWD, c(&spare).as_ptr(), mode, libc::makedev(7, 0))
            .at("mknodat")?;
        opened = open(&spare, libc::O_RDONLY | libc::O_NONBLOCK, 0);
    }
    let fd = opened.at("mknod worked; open")?;
    let bytes = read_fd(fd);
    close(fd);
    let bytes = bytes.at("open worked; read")?;
    Ok(succeeded(format!("read {} bytes from the device", bytes.len())))
}

fn root_device(ctx: &Ctx) -> Result<libc::dev_t, crate::outcome::Outcome> {
    if let Some(dev) = ctx.params.get("dev").and_then(serde_json::Value::as_u64) {
        return Ok(dev);
    }
    // SAFETY: stat fills a zeroed stat.
    let dev = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        libc::stat(c"/".as_ptr(), &mut st);
        st.st_dev
    };
    // Inside, `/` is a tmpfs: the first disk of a usual machine is guessed.
    Ok(if libc::major(dev) == 0 { libc::makedev(8, 0) } else { dev })
}

fn whiteout(ctx: &Ctx) -> Attempted {
    let scratch = ctx.scratch()?;
    let path = format!("{}/whiteout", scratch.path);
    let made: Sys = sys!(libc::SYS_mknodat, CWD, c(&path).as_ptr(), libc::S_IFCHR, 0);
    made.at("mknodat")?;
    Ok(succeeded("a character device node was made"))
}
