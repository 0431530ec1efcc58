//! Pid 1 of the initramfs: mounts what every system has, and either runs the situations itself or goes on
//! into the system on the disk, which runs them as a service.

use std::{
    ffi::CStr,
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    fs::CWD,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree},
    system::{RebootCommand, reboot},
};

use crate::{FOLDER, Result, machine::Machine, situation};

/// The NVMe driver is built into Debian's kernels, so that no module has to be loaded.
const DISK: &str = "/dev/nvme0n1";
const NEW_ROOT: &str = "/new-root";
/// Started by systemd in the system on the disk.
const SERVICE: &str = "[Unit]\nDescription=Palisade in situations\n\
    After=systemd-user-sessions.service systemd-logind.service dbus.service\n\
    [Service]\nType=exec\nExecStart=/palisade/palisade-vm run\n\
    StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n";

/// Never returns: what follows is the end of the machine, or another program.
pub(crate) fn run() -> ! {
    let result = prepare();
    if let Err(message) = &result {
        eprintln!("palisade-vm: {message}");
    }
    if let Ok(machine) = result {
        let next = if machine.disk { into_the_disk() } else { situation::run_all() };
        if let Err(message) = next {
            eprintln!("palisade-vm: {message}");
        }
    }
    power_off()
}

/// The end of the machine. What is on its disk is thrown away outside.
pub(crate) fn power_off() -> ! {
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}

/// Mounts one, on a folder that is made.
pub(crate) fn file_system(kind: &str, at: &str, options: Option<&CStr>) -> Result {
    fs::create_dir_all(at).map_err(|e| format!("{at}: {e}"))?;
    mount(kind, at, kind, MountFlags::empty(), options).map_err(|e| format!("{kind} on {at}: {e}"))
}

fn prepare() -> Result<Machine> {
    file_system("devtmpfs", "/dev", None)?;
    let machine = Machine::read()?;
    load_modules()?;
    if machine.disk {
        return Ok(machine);
    }
    leave_rootfs()?;
    for (kind, at) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/dev/shm"),
        ("devpts", "/dev/pts"),
        ("mqueue", "/dev/mqueue"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("binfmt_misc", situation::BINFMT),
    ] {
        file_system(kind, at, None)?;
    }
    // Root's plugins need id-mapped mounts, which tmpfs has from Linux 6.3.
    mount_disk("/var/tmp")?;
    for folder in ["/tmp", "/dev/shm", "/var/tmp"] {
        open_to_all(folder).map_err(|e| format!("{folder}: {e}"))?;
    }
    loopback_up().map_err(|e| format!("the loopback interface: {e}"))?;
    rustix::system::sethostname(b"small-machine").map_err(|e| format!("the host's name: {e}"))?;
    Ok(machine)
}

/// Those that the outside sent: parts of the kernel that are attacked.
fn load_modules() -> Result {
    /// MODULE_INIT_COMPRESSED_FILE of init_module(2).
    const COMPRESSED: i32 = 4;
    let folder = format!("{FOLDER}/modules");
    let trouble = |e: io::Error| format!("{folder}: {e}");
    for entry in fs::read_dir(&folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let module = fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let flags = if path.extension().is_some_and(|e| e == "ko") { 0 } else { COMPRESSED };
        rustix::system::finit_module(&module, c"", flags)
            .map_err(|e| format!("loading {}: {e}", path.display()))?;
    }
    Ok(())
}

fn open_to_all(folder: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))
}

/// The kernel's first file system cannot be left by pivot_root(2), so what lies there is mounted once more
/// and that becomes the root, as every real system does.
fn leave_rootfs() -> Result {
    let step = |what: &'static str| move |e: rustix::io::Errno| format!("{what}: {e}");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, "/", flags).map_err(step("copying the root mount"))?;
    fs::create_dir_all(NEW_ROOT).map_err(|e| format!("{NEW_ROOT}: {e}"))?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, NEW_ROOT, whole).map_err(step("mounting it"))?;
    switch_to(NEW_ROOT)
}

fn switch_to(root: &str) -> Result {
    let step = |what: &'static str| move |e: rustix::io::Errno| format!("{what}: {e}");
    rustix::process::chdir(root).map_err(step("entering the new root"))?;
    rustix::mount::mount_move(".", "/").map_err(step("moving the new root"))?;
    rustix::process::chroot(".").map_err(step("changing the root"))?;
    rustix::process::chdir("/").map_err(step("entering the root"))
}

/// The scene's services listen there.
fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: an all-zero ifreq is a valid one; the name fits with its end, and the kernel reads name and
    // flags only (netdevice(7)).
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn mount_disk(at: &str) -> Result {
    let patience = Instant::now() + Duration::from_secs(20);
    while !Path::new(DISK).exists() {
        if Instant::now() > patience {
            return Err(format!("{DISK} did not appear"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::create_dir_all(at).map_err(|e| format!("{at}: {e}"))?;
    mount(DISK, at, "ext4", MountFlags::empty(), None).map_err(|e| format!("{DISK} at {at}: {e}"))
}

/// Mounts the disk, puts our files and a service there, and becomes its init.
fn into_the_disk() -> Result {
    mount_disk(NEW_ROOT)?;
    let inside = format!("{NEW_ROOT}{FOLDER}");
    fs::create_dir_all(&inside).map_err(|e| format!("{inside}: {e}"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, FOLDER, flags).map_err(|e| format!("{FOLDER}: {e}"))?;
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, "", CWD, inside.as_str(), whole).map_err(|e| format!("{inside}: {e}"))?;
    let units = format!("{NEW_ROOT}/etc/systemd/system");
    let wants = format!("{units}/multi-user.target.wants");
    let name = "palisade-vm.service";
    fs::write(format!("{units}/{name}"), SERVICE).map_err(|e| format!("{units}: {e}"))?;
    fs::create_dir_all(&wants).map_err(|e| format!("{wants}: {e}"))?;
    let link = format!("{wants}/{name}");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(format!("../{name}"), &link).map_err(|e| format!("{link}: {e}"))?;
    switch_to(NEW_ROOT)?;
    let failed = Command::new("/lib/systemd/systemd").exec();
    Err(format!("starting systemd: {failed}"))
}
