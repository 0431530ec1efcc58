//! A program in the place of the engine, that tries to get at what is beyond the walls. Built by
//! `tests/engine.rs` with rustc alone; the calls that the standard library has no words for are made by hand.

use std::{
    ffi::{CString, c_char, c_int, c_long, c_void},
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        off: i64,
    ) -> *mut c_void;
    fn mprotect(at: *mut c_void, len: usize, prot: c_int) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn fork() -> c_int;
    fn vfork() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
    fn chmod(path: *const c_char, mode: u32) -> c_int;
}

/// The numbers of x86_64 and aarch64.
fn nr(x86_64: c_long, aarch64: c_long) -> c_long {
    if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 }
}

fn say(name: &str, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{name}: done"),
        Err(error) => println!("{name}: refused, {error}"),
    }
}

fn done(value: c_long) -> io::Result<()> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn text(path: &str) -> CString {
    CString::new(path).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| arguments.get(at).map(String::as_str).unwrap_or_default();
    match word(0) {
        "look" => look(),
        "attack" => attack(word(1).parse().unwrap()),
        "folders" => folders(word(1), word(2)),
        "hold" => hold(word(1)),
        // LINUX_REBOOT_MAGIC1, MAGIC2, and a command that does nothing where it is let through.
        "reboot" => unsafe {
            syscall(nr(169, 142), 0xfee1_deadu64, 672274793u64, 0u64, 0u64);
        },
        "signal" => unsafe { (8 as *mut u8).write_volatile(1) },
        other => println!("what: is {other}"),
    }
}

fn look() {
    // proc_pid_mountinfo(5): the fifth field is where something is mounted.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    println!("mounts: {}", places.join(" "));
    let there = |path: &&&str| fs::symlink_metadata(path).is_ok();
    let asked = [
        "/tmp",
        "/data",
        "/dev/shm",
        "/home",
        "/root",
        "/var",
        "/srv",
        "/usr/bin",
        "/bin",
        "/bin/sh",
        "/sbin",
        "/usr/share",
        "/etc/ld.so.cache",
        "/etc/ssl",
        "/etc/resolv.conf",
        "/sys",
        "/run",
        "/boot",
        "/proc/sys",
    ];
    let there: Vec<&str> = asked.iter().filter(there).copied().collect();
    println!("there: {}", there.join(" "));
    println!("content: {}", fs::read_to_string("/plugin/module.wasm").unwrap());
    let variables: Vec<String> =
        std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    println!("environment: {}", variables.join(" "));
}

fn folders(read: &str, write: &str) {
    for (number, folder) in [(1, read), (2, write)] {
        println!("read {number}: {}", fs::read_to_string(format!("{folder}/file")).unwrap());
        say(&format!("write {number}"), fs::write(format!("{folder}/new"), "new"));
    }
    let program = format!("{write}/program");
    let _ = fs::copy(std::env::current_exe().unwrap(), &program);
    say("run 2", exec(&program));
}

/// Works for a while with the file open.
fn hold(path: &str) {
    let file = fs::File::open(path).unwrap();
    println!("held: {}", file.metadata().unwrap().len());
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        std::hint::black_box(&file);
    }
    println!("links: {}", std::os::unix::fs::MetadataExt::nlink(&file.metadata().unwrap()));
}

/// In this process, since there can be no other.
fn exec(path: &str) -> io::Result<()> {
    let none: *const *const c_char = [std::ptr::null()].as_ptr();
    let path = text(path);
    done(unsafe { syscall(nr(59, 221), path.as_ptr(), none, none) })
}

fn attack(port: u16) {
    for (name, path) in [
        ("write the content", "/plugin/new"),
        ("write /tmp", "/tmp/new"),
        ("write /data", "/data/new"),
        ("write /dev/shm", "/dev/shm/new"),
        ("write /etc/passwd", "/etc/passwd"),
    ] {
        say(name, fs::write(path, "x"));
    }
    let own = std::env::current_exe().unwrap();
    say("write itself", fs::OpenOptions::new().append(true).open(&own).map(drop));
    say("read /etc/shadow", fs::read("/etc/shadow").map(drop));
    say("read /proc/1/mem", fs::read("/proc/1/mem").map(drop));
    say("read the content", fs::read("/plugin/module.wasm").map(drop));
    say("chmod", done(unsafe { chmod(text("/plugin/module.wasm").as_ptr(), 0o777) }.into()));
    let name = text("code");
    say("make a memory file", done(unsafe { syscall(nr(319, 279), name.as_ptr(), 8u64) }));
    let how = [0u64; 3];
    let root = text("/");
    say("openat2", done(unsafe { syscall(437, -100i64, root.as_ptr(), how.as_ptr(), 24u64) }));

    say("run the content", exec("/plugin/module.wasm"));
    say("run /bin/sh", Command::new("/bin/sh").arg("-c").arg("true").spawn().map(drop));
    for (name, made) in [("fork", unsafe { fork() }), ("vfork", unsafe { vfork() })] {
        if made == 0 {
            unsafe { _exit(0) }
        }
        say(name, done(made.into()));
    }
    say("a thread", std::thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join())));
    say("signal pid 1", done(unsafe { kill(1, 9) }.into()));
    // PTRACE_ATTACH.
    say("trace pid 1", done(unsafe { syscall(nr(101, 117), 16u64, 1u64, 0u64, 0u64) }));

    const READ: c_int = 1;
    const WRITE: c_int = 2;
    const EXEC: c_int = 4;
    const PRIVATE_ANONYMOUS: c_int = 0x22;
    let map = |prot| unsafe { mmap(std::ptr::null_mut(), 4096, prot, PRIVATE_ANONYMOUS, -1, 0) };
    let mapped = |at: *mut c_void| done(if at as isize == -1 { -1 } else { 0 });
    say("memory to write and run", mapped(map(READ | WRITE | EXEC)));
    let page = map(READ | WRITE);
    say(
        "make memory to write and run",
        done(unsafe { mprotect(page, 4096, READ | WRITE | EXEC) }.into()),
    );
    let file = fs::File::open(&own).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let code = unsafe { mmap(std::ptr::null_mut(), 4096, READ | EXEC, 2, fd, 0) };
    say("code from a file's pages", mapped(code));

    let host: SocketAddr = ([127, 0, 0, 1], port).into();
    say("connect to the host", TcpStream::connect_timeout(&host, Duration::from_secs(2)).map(drop));
    say("listen", TcpListener::bind("127.0.0.1:0").map(drop));
    let mut pair = [0; 2];
    say("a socket pair", done(unsafe { socketpair(1, 1, 0, pair.as_mut_ptr()) }.into()));
    // AF_UNIX, AF_INET with SOCK_DGRAM, NETLINK_ROUTE, NETLINK_NETFILTER, AF_PACKET.
    say("unix socket", done(unsafe { socket(1, 1, 0) }.into()));
    say("datagram socket", done(unsafe { socket(2, 2, 0) }.into()));
    say("netlink", done(unsafe { socket(16, 3, 0) }.into()));
    say("netlink of another kind", done(unsafe { socket(16, 3, 12) }.into()));
    say("packet socket", done(unsafe { socket(17, 3, 0) }.into()));
    let none = text("none");
    let place = text("/plugin");
    let nothing = std::ptr::null::<c_void>();
    say(
        "mount",
        done(unsafe {
            syscall(nr(165, 40), none.as_ptr(), place.as_ptr(), none.as_ptr(), 0u64, nothing)
        }),
    );
    // CLONE_NEWUSER.
    say("user namespace", done(unsafe { syscall(nr(272, 97), 0x1000_0000u64) }));
    let parameters = [0u64; 32];
    say("io_uring", done(unsafe { syscall(425, 1u64, parameters.as_ptr()) }));
    // KEYCTL_GET_KEYRING_ID of the session's.
    say("keyring", done(unsafe { syscall(nr(250, 219), 0u64, -3i64, 0u64) }));
    // SECCOMP_SET_MODE_FILTER.
    say("bpf of one's own filter", done(unsafe { syscall(nr(317, 277), 1u64, 0u64, nothing) }));
    let queue = text("/queue");
    say(
        "message queue",
        done(unsafe { syscall(nr(240, 180), queue.as_ptr(), 0o102u64, 0o600u64, nothing) }),
    );
    // IPC_PRIVATE, IPC_CREAT.
    say("shared memory", done(unsafe { syscall(nr(29, 194), 0u64, 4096u64, 0o1600u64) }));
}
