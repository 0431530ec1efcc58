//! Attempts 31, 32 and 35: Unix sockets of the host, and sockets of odd families.
//!
//! A connection to a socket that the harness made counts when it echoes what is sent; one to a
//! well-known service counts when it is accepted, and nothing is sent to it.

use crate::outcome::{At, Attempted, Errno, Sys, blocked, succeeded};
use crate::sys::{self, close};
use crate::table::{Attempt, Control, Ctx, Tally, contains};
use std::time::{Duration, Instant};

const STREAM: i32 = libc::SOCK_STREAM;
const DGRAM: i32 = libc::SOCK_DGRAM;
const RAW: i32 = libc::SOCK_RAW;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(31, "path", "connect to the harness' Unix socket", Control::Params, &["unix_path!"], |x| unix_echo(&address(x.need("unix_path")?.as_bytes()), STREAM)),
    Attempt::new(31, "path-seqpacket", "the same, SOCK_SEQPACKET", Control::Params, &["unix_seqpacket_path!"], |x| unix_echo(&address(x.need("unix_seqpacket_path")?.as_bytes()), libc::SOCK_SEQPACKET)),
    Attempt::new(31, "path-dgram", "send to the harness' datagram socket without connecting", Control::Params, &["unix_dgram_path!"], |x| unix_send(&address(x.need("unix_dgram_path")?.as_bytes()))).host_judges(),
    Attempt::new(31, "path-symlink", "connect through a symlink in the grant", Control::Params, &["unix_path!", "granted!"], through_symlink),
    Attempt::new(31, "containers", "connect to docker, containerd, podman, cri-o", Control::None("no such service on this machine"), &[], |_| services(&["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/crio/crio.sock"])),
    Attempt::new(31, "dbus", "connect to the system and session buses", Control::None("no such service on this machine"), &[], |_| services(&session(&["/run/dbus/system_bus_socket"], "bus"))),
    Attempt::new(31, "systemd", "connect to systemd", Control::None("no such service on this machine"), &[], |_| services(&session(&["/run/systemd/private", "/run/systemd/notify", "/run/systemd/journal/socket", "/run/systemd/journal/stdout", "/run/systemd/io.systemd.ManagedOOM"], "systemd/private"))),
    Attempt::new(31, "display", "connect to X11 and Wayland", Control::None("no such service on this machine"), &[], |_| services(&session(&["/tmp/.X11-unix/X0", "/tmp/.X11-unix/X1"], "wayland-0"))),
    Attempt::new(31, "agents", "connect to ssh-agent and gpg-agent", Control::None("no such service on this machine"), &[], |_| services(&session(&[], "gnupg/S.gpg-agent"))),
    Attempt::new(31, "any", "connect to any socket below /run, /tmp and /var", Control::Run, &[], any_socket).harmful(),
    Attempt::new(32, "stream", "connect to the harness' abstract socket", Control::Params, &["abstract!"], |x| unix_echo(&abstract_address(x)?, STREAM)),
    Attempt::new(32, "dgram", "send to the harness' abstract datagram socket", Control::Params, &["abstract_dgram!"], |x| unix_send(&abstract_named(x.need("abstract_dgram")?))).host_judges(),
    Attempt::new(32, "bind", "take an abstract name that a host service would use", Control::Params, &["abstract_free!"], bind_abstract).host_judges(),
    Attempt::new(32, "x11", "connect to the abstract X11 socket", Control::None("no such service on this machine"), &[], |_| unix_connect(&abstract_named("/tmp/.X11-unix/X0"), STREAM).at("connect").map(|fd| { close(fd); succeeded("connected") })),
    Attempt::new(35, "raw", "raw IPv4 socket", Control::Root, &[], |_| family(libc::AF_INET, RAW, 1)),
    Attempt::new(35, "raw6", "raw IPv6 socket", Control::Root, &[], |_| family(libc::AF_INET6, RAW, 58)),
    Attempt::new(35, "ping", "unprivileged ICMP socket", Control::None("net.ipv4.ping_group_range of this machine allows nobody"), &[], |_| family(libc::AF_INET, DGRAM, 1)),
    Attempt::new(35, "packet", "packet socket", Control::Root, &[], |_| family(libc::AF_PACKET, RAW, 0x0300)),
    Attempt::new(35, "packet-dgram", "packet socket, cooked", Control::Root, &[], |_| family(libc::AF_PACKET, DGRAM, 0x0300)),
    Attempt::new(35, "inet-packet", "SOCK_PACKET on IPv4", Control::Root, &[], |_| family(libc::AF_INET, 10, 0x0300)),
    Attempt::new(35, "alg", "AF_ALG", Control::Run, &[], |_| family(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    Attempt::new(35, "vsock", "AF_VSOCK", Control::Run, &[], |_| family(libc::AF_VSOCK, STREAM, 0)),
    Attempt::new(35, "netlink-route", "rtnetlink (may be allowed: it shows only our own network)", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 0)),
    Attempt::new(35, "netlink-netfilter", "nf_tables by netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 12)),
    Attempt::new(35, "netlink-audit", "audit by netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 9)),
    Attempt::new(35, "netlink-uevent", "uevents by netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 15)),
    Attempt::new(35, "netlink-generic", "generic netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 16)),
    Attempt::new(35, "netlink-sockdiag", "socket list by netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 4)),
    Attempt::new(35, "netlink-xfrm", "IPsec by netlink", Control::Run, &[], |_| family(libc::AF_NETLINK, RAW, 6)),
    Attempt::new(35, "bluetooth", "bluetooth", Control::Run, &[], |_| family(libc::AF_BLUETOOTH, RAW, 1)),
    Attempt::new(35, "can", "CAN bus", Control::Run, &[], |_| family(libc::AF_CAN, RAW, 1)),
    Attempt::new(35, "xdp", "AF_XDP", Control::Root, &[], |_| family(libc::AF_XDP, RAW, 0)),
    Attempt::new(35, "tipc", "TIPC", Control::Run, &[], |_| family(libc::AF_TIPC, STREAM, 0)),
    Attempt::new(35, "rds", "RDS", Control::Run, &[], |_| family(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)),
    Attempt::new(35, "key", "PF_KEY", Control::Root, &[], |_| family(libc::AF_KEY, RAW, 2)),
    Attempt::new(35, "smc", "SMC", Control::Run, &[], |_| family(43, STREAM, 0)),
    Attempt::new(35, "kcm", "KCM", Control::Run, &[], |_| family(41, DGRAM, 0)),
    Attempt::new(35, "sctp", "SCTP", Control::Run, &[], |_| family(libc::AF_INET, STREAM, 132)),
    Attempt::new(35, "dccp", "DCCP", Control::Run, &[], |_| family(libc::AF_INET, 6, 33)),
    Attempt::new(35, "mptcp", "MPTCP", Control::Run, &[], |_| family(libc::AF_INET, STREAM, 262)),
    Attempt::new(35, "pair-alg", "socketpair of a forbidden family", Control::None("the kernel makes pairs of AF_UNIX only"), &[], |_| pair()),
];

/// What is sent to be echoed.
const NONCE: &[u8] = b"attacker-echo-7f3a\n";

/// A Unix address: the bytes of `sockaddr_un` as far as they count.
pub struct Address {
    raw: libc::sockaddr_un,
    len: usize,
}

fn address(name: &[u8]) -> Address {
    let mut raw = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in raw.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Address { raw, len: 2 + name.len().min(108) }
}

fn abstract_named(name: &str) -> Address {
    address(&[&[0], name.as_bytes()].concat())
}

pub fn abstract_address(ctx: &Ctx) -> Result<Address, crate::outcome::Outcome> {
    Ok(abstract_named(ctx.need("abstract")?))
}

fn unix_connect(to: &Address, kind: i32) -> Sys<i32> {
    let fd = sys!(libc::SYS_socket, libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0)? as i32;
    match sys!(libc::SYS_connect, fd, &raw const to.raw, to.len) {
        Ok(_) => Ok(fd),
        Err(e) => {
            close(fd);
            Err(e)
        }
    }
}

pub fn unix_echo(to: &Address, kind: i32) -> Attempted {
    let fd = unix_connect(to, kind).at("connect")?;
    echo(fd)
}

/// Sends the nonce on a connected socket and waits up to 2 s for it to come back.
pub fn echo(fd: i32) -> Attempted {
    let end = Instant::now() + Duration::from_secs(2);
    let sent = sys::write_all(fd, NONCE, end);
    let mut got = Vec::new();
    while sent.is_ok() && Instant::now() < end && !contains(&got, NONCE) {
        if !sys::poll(fd, libc::POLLIN, Duration::from_millis(100)) {
            continue;
        }
        match sys::read_fd(fd) {
            Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
            _ => break,
        }
    }
    close(fd);
    sent.map_err(|e| e.0).at("connected; send")?;
    if contains(&got, NONCE) {
        Ok(succeeded("connected and echoed"))
    } else {
        Ok(blocked(None, format!("connected, {} bytes came back", got.len())))
    }
}

fn unix_send(to: &Address) -> Attempted {
    let fd = sys!(libc::SYS_socket, libc::AF_UNIX, DGRAM | libc::SOCK_CLOEXEC, 0).at("socket")?;
    let flags = libc::MSG_DONTWAIT;
    let sent =
        sys!(libc::SYS_sendto, fd, NONCE.as_ptr(), NONCE.len(), flags, &raw const to.raw, to.len);
    close(fd as i32);
    sent.at("sendto")?;
    Ok(succeeded("sent; the harness sees whether it arrived"))
}

fn through_symlink(ctx: &Ctx) -> Attempted {
    let link = format!("{}/sock-{}", ctx.need("granted")?, sys::pid());
    std::os::unix::fs::symlink(ctx.need("unix_path")?, &link).setup("symlink")?;
    let outcome = unix_echo(&address(link.as_bytes()), STREAM);
    let _ = std::fs::remove_file(&link);
    outcome
}

/// Adds the sockets of the user's session: from the environment and /run/user.
fn session(fixed: &[&str], name: &str) -> Vec<String> {
    let mut all: Vec<String> = fixed.iter().map(|p| (*p).to_owned()).collect();
    // SAFETY: no arguments.
    let uid = unsafe { libc::getuid() };
    all.push(format!("/run/user/{uid}/{name}"));
    all.push(format!("/run/user/1000/{name}"));
    let var = match name {
        "bus" => "DBUS_SESSION_BUS_ADDRESS",
        "gnupg/S.gpg-agent" => "SSH_AUTH_SOCK",
        "wayland-0" => "WAYLAND_DISPLAY",
        _ => return all,
    };
    all.extend(std::env::var(var).ok().map(|v| v.trim_start_matches("unix:path=").to_owned()));
    all
}

fn services<S: AsRef<str>>(paths: &[S]) -> Attempted {
    let mut tally = Tally::default();
    for path in paths {
        let to = address(path.as_ref().as_bytes());
        // The type is not known: a wrong one is told by EPROTOTYPE, which is reached all the same.
        let result = match unix_connect(&to, STREAM) {
            Err(Errno(libc::EPROTOTYPE)) => unix_connect(&to, DGRAM),
            other => other,
        };
        tally.add(path.as_ref(), result.map(close));
    }
    tally.end("")
}

fn any_socket(_: &Ctx) -> Attempted {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    let mut folders: Vec<(String, u32)> =
        ["/run", "/tmp", "/var"].iter().map(|p| ((*p).to_owned(), 0)).collect();
    let mut looked = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            looked += 1;
            let path = entry.path().display().to_string();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < 4 && looked < 20_000 => {
                    folders.push((path, depth + 1));
                }
                Ok(kind) if kind.is_socket() && found.len() < 32 => found.push(path),
                _ => {}
            }
        }
    }
    if found.is_empty() {
        return Ok(blocked(None, format!("no socket among {looked} entries")));
    }
    services(&found)
}

fn bind_abstract(ctx: &Ctx) -> Attempted {
    let to = abstract_named(ctx.need("abstract_free")?);
    let fd = sys!(libc::SYS_socket, libc::AF_UNIX, STREAM | libc::SOCK_CLOEXEC, 0).at("socket")?;
    let bound = sys!(libc::SYS_bind, fd, &raw const to.raw, to.len);
    let listening = bound.and_then(|_| sys!(libc::SYS_listen, fd, 1));
    // Held open for a moment, so that the harness can try whether it reaches us.
    sys::sleep(Duration::from_millis(ctx.num("hold_ms", 0).min(10_000)));
    close(fd as i32);
    listening.at("bind or listen")?;
    Ok(succeeded("listening on that name; the harness sees whether it is the host's"))
}

fn family(domain: i32, kind: i32, protocol: i32) -> Attempted {
    let fd = sys!(libc::SYS_socket, domain, kind | libc::SOCK_CLOEXEC, protocol).at("socket")?;
    close(fd as i32);
    Ok(succeeded("the socket was made"))
}

fn pair() -> Attempted {
    let mut fds = [0i32; 2];
    let made = sys!(libc::SYS_socketpair, libc::AF_ALG, STREAM, 0, fds.as_mut_ptr());
    made.at("socketpair")?;
    Ok(succeeded("a pair was made"))
}
