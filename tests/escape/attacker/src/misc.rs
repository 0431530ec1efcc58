//! Attempts 52 to 54: keyrings, calls that no plugin needs, and file handles.
//!
//! Nothing is changed in the kernel: most calls carry arguments that it refuses, and the errno
//! tells whether it was the kernel that refused them or a wall before it.

use crate::files::judge_secret;
use crate::filter::{self, reached};
use crate::outcome::{At, Attempted, Errno, blocked, impossible, succeeded};
use crate::sys::{self, CWD, c, close, open, read_fd};
use crate::table::{Attempt, Control, Ctx, contains};

use libc::{EBADF, EFAULT, EINVAL, ENOENT, ENOEXEC, ENOTBLK};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(52, "add-key", "add a key to the process keyring", Control::Run, &[], |_| add_key(-2)),
    Attempt::new(52, "join-session", "join a new session keyring", Control::Run, &[], |_| join_session()),
    Attempt::new(52, "link-session", "link the user keyring to the session keyring", Control::Run, &[], |_| link_session()),
    Attempt::new(52, "read-key", "find and read a key of another plugin", Control::Run, &["key_description", "secret"], read_key),
    Attempt::new(52, "request-key", "request_key, which may start a helper on the host", Control::Run, &[], |_| request_key()),
    Attempt::new(53, "userfaultfd", "userfaultfd", Control::Root, &[], |_| fd_call(sys!(libc::SYS_userfaultfd, libc::O_CLOEXEC), "userfaultfd")),
    Attempt::new(53, "userfaultfd-user", "userfaultfd of user faults only", Control::Run, &[], |_| fd_call(sys!(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1), "userfaultfd")),
    Attempt::new(53, "bpf", "bpf with an unknown command", Control::Root, &[], |_| reached(sys!(libc::SYS_bpf, 0xffff, 0, 0), &[EINVAL, EFAULT], "bpf")),
    Attempt::new(53, "bpf-map", "bpf map creation", Control::Root, &[], |_| bpf_map()),
    Attempt::new(53, "perf", "perf_event_open on ourselves", Control::Root, &[], |_| perf()),
    Attempt::new(53, "kexec-load", "kexec_load with wrong flags", Control::Root, &[], |_| reached(sys!(libc::SYS_kexec_load, 0, 99, 0, 0xffff), &[EINVAL], "kexec_load")),
    Attempt::new(53, "kexec-file-load", "kexec_file_load of no file", Control::Root, &[], |_| kexec_file()),
    Attempt::new(53, "init-module", "init_module of nothing", Control::Root, &[], |_| reached(sys!(libc::SYS_init_module, 0, 0, c"".as_ptr()), &[ENOEXEC, EINVAL, EFAULT], "init_module")),
    Attempt::new(53, "finit-module", "finit_module of no file", Control::Root, &[], |_| reached(sys!(libc::SYS_finit_module, -1, c"".as_ptr(), 0), &[EBADF], "finit_module")),
    Attempt::new(53, "delete-module", "delete_module of a name that no module has", Control::Root, &[], |_| reached(sys!(libc::SYS_delete_module, c"palisade_no_such".as_ptr(), libc::O_NONBLOCK), &[ENOENT], "delete_module")),
    Attempt::new(53, "personality", "personality(READ_IMPLIES_EXEC)", Control::Run, &[], |_| filter::personality(0)),
    Attempt::new(53, "prctl-set-mm", "PR_SET_MM", Control::Run, &[], |_| filter::set_mm(0)),
    Attempt::new(53, "prctl-ptracer", "PR_SET_PTRACER", Control::Run, &[], |_| filter::set_ptracer(0)),
    Attempt::new(53, "modify-ldt", "modify_ldt (read)", Control::Run, &[], |_| ldt()),
    Attempt::new(53, "iopl", "iopl(3) and ioperm", Control::Root, &[], |_| ports()),
    Attempt::new(53, "quotactl", "quotactl on no device", Control::Root, &[], |_| reached(sys!(libc::SYS_quotactl, 0x8000_0400_u64, c"/dev/palisade".as_ptr(), 0, 0), &[ENOENT, EINVAL, ENOTBLK, libc::ENODEV], "quotactl")),
    Attempt::new(53, "acct", "acct on a missing file", Control::Root, &[], |_| reached(sys!(libc::SYS_acct, c"/palisade/no/such".as_ptr()), &[ENOENT, EINVAL], "acct")),
    Attempt::new(53, "syslog", "read the kernel log", Control::Root, &[], |_| kernel_log()),
    Attempt::new(53, "reboot", "reboot with wrong magic", Control::Root, &[], |_| reached(sys!(libc::SYS_reboot, 0, 0, 0, 0), &[EINVAL], "reboot")),
    Attempt::new(53, "swapon", "swapon of a missing file", Control::Root, &[], |_| reached(sys!(libc::SYS_swapon, c"/palisade/no/such".as_ptr(), 0), &[ENOENT], "swapon")),
    Attempt::new(53, "clock-settime", "clock_settime with a wrong time", Control::Root, &[], |_| clock_settime()),
    Attempt::new(53, "settimeofday", "settimeofday with a wrong time", Control::Root, &[], |_| settimeofday()),
    Attempt::new(53, "sethostname", "set the host name to what it is", Control::Root, &[], |_| hostname()),
    Attempt::new(53, "fanotify", "fanotify_init", Control::Run, &[], |_| fd_call(sys!(libc::SYS_fanotify_init, 0x201, 0), "fanotify_init")),
    Attempt::new(53, "kcmp", "kcmp of ourselves", Control::Run, &[], |_| reached(sys!(libc::SYS_kcmp, sys::pid(), sys::pid(), 0, 0, 0), &[], "kcmp")),
    Attempt::new(53, "move-pages", "move_pages of ourselves", Control::Run, &[], |_| reached(sys!(libc::SYS_move_pages, 0, 0, 0, 0, 0, 0), &[], "move_pages")),
    Attempt::new(53, "migrate-pages", "migrate_pages of ourselves", Control::Run, &[], |_| migrate_pages()),
    Attempt::new(53, "lookup-dcookie", "lookup_dcookie, long removed", Control::None("removed from the kernel"), &[], |_| reached(sys!(dcookie(), 0, 0, 0), &[EINVAL], "lookup_dcookie")),
    Attempt::new(53, "remap-pages", "remap_file_pages", Control::Run, &[], |_| remap()),
    Attempt::new(54, "name-to-handle", "name_to_handle_at of /", Control::Run, &[], |_| handle_of("/").map(|_| succeeded("a handle of /"))),
    Attempt::new(54, "open-by-handle", "open_by_handle_at of a file whose handle is known", Control::RootParams, &["secret_path!", "secret", "handle"], open_by_handle),
    Attempt::new(54, "brute-force", "open_by_handle_at of the file system's root inode", Control::Root, &[], |_| brute_force()),
];

fn fd_call(result: Result<i64, Errno>, what: &str) -> Attempted {
    let fd = result.at(what)?;
    close(fd as i32);
    Ok(succeeded(format!("{what} gave a descriptor")))
}

fn add_key(ring: i64) -> Attempted {
    let (kind, name) = (c"user", c"palisade-attacker");
    let key = sys!(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), b"x".as_ptr(), 1, ring)
        .at("add_key")?;
    // KEYCTL_UNLINK
    let _ = sys!(libc::SYS_keyctl, 9, key, ring, 0, 0);
    Ok(succeeded(format!("key {key} was added")))
}

fn join_session() -> Attempted {
    let ring = sys!(libc::SYS_keyctl, 1, 0, 0, 0, 0).at("keyctl JOIN_SESSION_KEYRING")?;
    Ok(succeeded(format!("session keyring {ring}")))
}

fn link_session() -> Attempted {
    // KEYCTL_LINK of the user keyring (-4) to the session keyring (-3), in a session of our own
    // where the session could be joined.
    let _ = sys!(libc::SYS_keyctl, 1, 0, 0, 0, 0);
    sys!(libc::SYS_keyctl, 8, -4, -3, 0, 0).at("keyctl LINK")?;
    Ok(succeeded("the user keyring is linked to the session"))
}

/// Searches the user and session keyrings. Outside, the key is put in the user keyring first.
fn read_key(ctx: &Ctx) -> Attempted {
    let name = ctx.text("key_description").unwrap_or("palisade-control-key");
    let (kind, name_c) = (c"user", c(name));
    let planted = if ctx.outside() && ctx.text("key_description").is_none() {
        let secret = b"victim-key-material";
        let ring = -4;
        sys!(libc::SYS_add_key, kind.as_ptr(), name_c.as_ptr(), secret.as_ptr(), secret.len(), ring)
            .ok()
    } else {
        None
    };
    // The session first links the user keyring: possession is what gives the right to read.
    let _ = sys!(libc::SYS_keyctl, 1, 0, 0, 0, 0);
    let _ = sys!(libc::SYS_keyctl, 8, -4, -3, 0, 0);
    let mut last = Errno(0);
    let mut got = None;
    for ring in [-3i64, -4, -5] {
        let found = sys!(libc::SYS_keyctl, 10, ring, kind.as_ptr(), name_c.as_ptr(), 0);
        let mut buf = [0u8; 256];
        match found.and_then(|key| sys!(libc::SYS_keyctl, 11, key, buf.as_mut_ptr(), buf.len(), 0))
        {
            Ok(n) => got = Some(buf[..(n as usize).min(256)].to_vec()),
            Err(e) => last = e,
        }
    }
    if let Some(key) = planted {
        let _ = sys!(libc::SYS_keyctl, 9, key, -4, 0, 0);
    }
    match got {
        Some(bytes) if planted.is_some() && bytes == b"victim-key-material" => {
            Ok(succeeded("the key of the control was read"))
        }
        Some(bytes) => judge_secret(ctx, &bytes, "key"),
        None => Ok(blocked(last.0, "no keyring gave it")),
    }
}

fn request_key() -> Attempted {
    let (kind, name) = (c"user", c"palisade-attacker-missing");
    // No callout information: the kernel starts no helper, and says ENOKEY.
    let answer = sys!(libc::SYS_request_key, kind.as_ptr(), name.as_ptr(), 0, -2);
    reached(answer, &[libc::ENOKEY], "request_key")
}

fn bpf_map() -> Attempted {
    // BPF_MAP_CREATE: type ARRAY, key 4 bytes, value 4 bytes, 1 entry.
    let attr: [u32; 32] = std::array::from_fn(|i| [2, 4, 4, 1].get(i).copied().unwrap_or(0));
    fd_call(sys!(libc::SYS_bpf, 0, attr.as_ptr(), 128), "bpf")
}

fn perf() -> Attempted {
    // PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, attribute size 64 (version 0).
    let mut attr = [0u64; 16];
    attr[0] = 1 | 64 << 32;
    fd_call(sys!(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 0), "perf_event_open")
}

fn kexec_file() -> Attempted {
    #[cfg(target_arch = "x86_64")]
    return reached(
        sys!(libc::SYS_kexec_file_load, -1, -1, 0, 0, 0),
        &[EBADF, EINVAL],
        "kexec_file_load",
    );
    #[cfg(not(target_arch = "x86_64"))]
    return Ok(impossible("not an x86_64 machine"));
}

fn dcookie() -> i64 {
    if cfg!(target_arch = "x86_64") { 212 } else { 18 }
}

fn ldt() -> Attempted {
    #[cfg(target_arch = "x86_64")]
    {
        let mut buf = [0u8; 64];
        reached(sys!(libc::SYS_modify_ldt, 0, buf.as_mut_ptr(), buf.len()), &[], "modify_ldt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    Ok(impossible("not an x86_64 machine"))
}

fn ports() -> Attempted {
    #[cfg(target_arch = "x86_64")]
    {
        let ioperm = sys!(libc::SYS_ioperm, 0x80, 1, 1);
        let iopl = sys!(libc::SYS_iopl, 3);
        let _ = sys!(libc::SYS_ioperm, 0x80, 1, 0);
        let _ = sys!(libc::SYS_iopl, 0);
        reached(iopl.or(ioperm), &[], "iopl or ioperm")
    }
    #[cfg(not(target_arch = "x86_64"))]
    Ok(impossible("not an x86_64 machine"))
}

fn kernel_log() -> Attempted {
    let mut buf = [0u8; 1024];
    // SYSLOG_ACTION_READ_ALL: reads without clearing.
    let n = sys!(libc::SYS_syslog, 3, buf.as_mut_ptr(), buf.len()).at("syslog")?;
    Ok(succeeded(format!("read {n} bytes of the kernel log")))
}

fn clock_settime() -> Attempted {
    let wrong = [0i64, 2_000_000_000];
    reached(sys!(libc::SYS_clock_settime, 0, wrong.as_ptr()), &[EINVAL], "clock_settime")
}

fn settimeofday() -> Attempted {
    let wrong = [0i64, 2_000_000_000];
    reached(sys!(libc::SYS_settimeofday, wrong.as_ptr(), 0), &[EINVAL], "settimeofday")
}

fn hostname() -> Attempted {
    // struct utsname: the node name is the second of six texts of 65 bytes.
    let mut names = [0u8; 65 * 6];
    sys!(libc::SYS_uname, names.as_mut_ptr()).setup("uname")?;
    let name = c(&names[65..130]);
    sys!(libc::SYS_sethostname, name.as_ptr(), name.as_bytes().len()).at("sethostname")?;
    Ok(succeeded("the host name can be set"))
}

fn migrate_pages() -> Attempted {
    let nodes = [1u64];
    reached(
        sys!(libc::SYS_migrate_pages, 0, 64, nodes.as_ptr(), nodes.as_ptr()),
        &[],
        "migrate_pages",
    )
}

fn remap() -> Attempted {
    reached(sys!(libc::SYS_remap_file_pages, 1, 0, 1, 0, 0), &[EINVAL], "remap_file_pages")
}

/// `struct file_handle` with room: bytes, type, then up to 128 bytes.
type Handle = [u32; 34];

fn handle_of(path: &str) -> Result<Handle, crate::outcome::Outcome> {
    let mut handle: Handle = [0; 34];
    handle[0] = 128;
    let mut mount_id = 0i32;
    let (path, buf) = (c(path), handle.as_mut_ptr());
    sys!(libc::SYS_name_to_handle_at, CWD, path.as_ptr(), buf, &raw mut mount_id, 0)
        .at("name_to_handle_at")?;
    Ok(handle)
}

/// Any handle on the file system will do: the root, or (where that cannot be opened) the working directory.
fn any_mount() -> i32 {
    open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap_or(CWD)
}

/// The handle is given by the harness (words of 32 bits: bytes, type, then the handle), or asked
/// for here.
fn open_by_handle(ctx: &Ctx) -> Attempted {
    let path = ctx.need("secret_path")?;
    let given = ctx.params.get("handle").and_then(serde_json::Value::as_array);
    let handle = match given {
        Some(words) => {
            let word = |i| words.get(i).and_then(serde_json::Value::as_u64).unwrap_or(0) as u32;
            std::array::from_fn(word)
        }
        None => handle_of(path)?,
    };
    let mount = any_mount();
    let opened = sys!(libc::SYS_open_by_handle_at, mount, handle.as_ptr(), libc::O_RDONLY);
    close(mount);
    let fd = opened.at("open_by_handle_at")? as i32;
    judge_secret(ctx, &read_fd(fd).at("read")?, "by handle")
}

/// The way of "shocker": inode 2 is the root of an ext4 (128 of an xfs, 256 of a btrfs).
fn brute_force() -> Attempted {
    let mount = any_mount();
    let mut last = Errno(0);
    for inode in [2u32, 128, 256, 1] {
        let mut handle: Handle = [0; 34];
        // FILEID_INO32_GEN: 8 bytes, type 1, inode, generation 0.
        handle[..4].copy_from_slice(&[8, 1, inode, 0]);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        match sys!(libc::SYS_open_by_handle_at, mount, handle.as_ptr(), flags) {
            Ok(fd) => {
                let shadow = sys::openat(fd as i32, "etc/shadow", libc::O_RDONLY).and_then(read_fd);
                let read = shadow.is_ok_and(|b| contains(&b, b":"));
                return Ok(succeeded(format!("inode {inode} is open (etc/shadow read: {read})")));
            }
            Err(e) => last = e,
        }
    }
    close(mount);
    if last.0 == libc::ESTALE {
        return Ok(impossible("allowed, but no such inode on this file system"));
    }
    Err(blocked(last.0, "open_by_handle_at"))
}
