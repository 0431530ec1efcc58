//! The way out to the network, plain byte conversations, and installed software inside the walls.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Runtime, Wire,
    stream::{ByteEnds, ByteWire, End},
};
use serde_json::json;
use support::{Bench, EVAL, bench, eval};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn python() -> Bench {
    bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

/// Connects and reads; gives what was read, or the error's name.
const TRY: &str = r#"
import errno
def attempt(address, port, kind=socket.SOCK_STREAM, family=socket.AF_INET):
    s = socket.socket(family, kind)
    s.settimeout(3)
    try:
        s.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b"x")
            return "sent"
        return s.recv(100).decode()
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
    finally:
        s.close()
result = None
"#;

#[tokio::test]
async fn a_right_to_the_network_opens_one_port_and_nothing_else() {
    let mut bench = python();
    bench.grant("net.http:example.org:443");
    let instance = bench.launch(&process()).await.unwrap();
    eval(&instance, TRY).await.unwrap();
    let said = eval(&instance, "attempt('127.0.0.1', 3128)").await.unwrap();
    assert_eq!(said, json!("connection 0\n"));
    let said = eval(&instance, "attempt('127.0.0.1', 3128)").await.unwrap();
    assert_eq!(said, json!("connection 1\n"), "the same host serves the next");
    for (code, expected) in [
        // Landlock where it knows ports, and otherwise nobody who listens.
        ("attempt('127.0.0.1', 80)", &["EACCES", "ECONNREFUSED"][..]),
        ("attempt('127.0.0.2', 3129)", &["EACCES", "ECONNREFUSED"]),
        ("attempt('192.0.2.1', 3128)", &["ENETUNREACH"]),
        ("attempt('169.254.169.254', 80)", &["EACCES", "ENETUNREACH"]),
        ("attempt('192.0.2.1', 53, socket.SOCK_DGRAM)", &["ENETUNREACH"]),
        ("attempt('2001:db8::1', 3128, family=socket.AF_INET6)", &["ENETUNREACH", "EAFNOSUPPORT"]),
    ] {
        let got = eval(&instance, code).await.unwrap();
        assert!(expected.contains(&got.as_str().unwrap()), "{code}: {got}");
    }
    let variables = "[os.environ[v] for v in ('HTTP_PROXY', 'https_proxy', 'ALL_PROXY')]";
    assert_eq!(eval(&instance, variables).await.unwrap(), json!(vec!["http://127.0.0.1:3128"; 3]));
    let interfaces = "[i[1] for i in socket.if_nameindex()]";
    assert_eq!(eval(&instance, interfaces).await.unwrap(), json!(["lo"]));
    // The kernel keeps little for each connection: the settings of this network are ours.
    let buffers = "socket.socket().getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)";
    assert_eq!(eval(&instance, buffers).await.unwrap(), json!(131_072));
    assert!(instance.stop(Duration::from_secs(5)).await.is_clean());
}

/// What the groups of this process's plugins let their sockets hold, where version 1 of cgroups counts that.
fn socket_caps() -> Option<Vec<u64>> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.split_once(":memory:"))?.1;
    let ours = format!("/sys/fs/cgroup/memory{own}/palisade-{}", std::process::id());
    let caps = fs::read_dir(ours).ok()?.flatten().filter_map(|group| {
        let cap = fs::read_to_string(group.path().join("memory.kmem.tcp.limit_in_bytes")).ok()?;
        cap.trim().parse().ok()
    });
    Some(caps.collect())
}

#[tokio::test]
async fn the_cap_on_sockets_moves_with_the_limits() {
    const MIB: u64 = 1 << 20;
    let mut bench = python();
    bench.grant("net.http:example.org:443");
    bench.spec.limits.memory = 208 * MIB;
    let instance = bench.launch(&process()).await.unwrap();
    let Some(before) = socket_caps() else {
        // Version 2 counts sockets with all other memory, and a user may have no groups at all.
        assert!(
            !fs::exists("/sys/fs/cgroup/memory").unwrap() || !rustix::process::geteuid().is_root()
        );
        return;
    };
    assert!(before.contains(&(52 * MIB)), "{before:?}");
    bench.spec.limits.memory = 136 * MIB;
    instance.set_limits(&bench.spec.limits).await.unwrap();
    let after = socket_caps().unwrap();
    assert!(after.contains(&(34 * MIB)) && !after.contains(&(52 * MIB)), "{after:?}");
    instance.kill(palisade_sandbox::KillReason::Asked).await;
}

#[tokio::test]
async fn without_such_a_right_there_is_no_port_and_no_loopback() {
    let bench = python();
    let instance = bench.launch(&process()).await.unwrap();
    eval(&instance, TRY).await.unwrap();
    let got = eval(&instance, "attempt('127.0.0.1', 3128)").await.unwrap();
    assert!(["EACCES", "ENETUNREACH"].contains(&got.as_str().unwrap()), "{got}");
    let names = "[v for v in os.environ if 'PROXY' in v.upper()]";
    assert_eq!(eval(&instance, names).await.unwrap(), json!([]));
    assert_eq!(eval(&instance, "os.path.exists('/etc/ssl/certs')").await.unwrap(), json!(false));
    // It may wait on a port of its own network, where nobody comes; programs do that for parts of
    // themselves.
    let listen = "(lambda s: (s.bind(('127.0.0.1', 0)), s.listen(), s.close()))(socket.socket())";
    assert_eq!(eval(&instance, listen).await.unwrap(), json!([null, null, null]));
}

#[tokio::test]
async fn each_plugin_has_a_way_out_of_its_own() {
    let (mut one, mut other) = (python(), python());
    one.grant("net.http:example.org:443");
    other.grant("net.http:example.org:443");
    other.spec.slot = 8;
    let (first, second) =
        (one.launch(&process()).await.unwrap(), other.launch(&process()).await.unwrap());
    for instance in [&first, &second] {
        eval(instance, TRY).await.unwrap();
        // Each host counts its own: neither sees the other's connection.
        let said = eval(instance, "attempt('127.0.0.1', 3128)").await.unwrap();
        assert_eq!(said, json!("connection 0\n"));
    }
}

async fn ends(waiting: tokio::sync::oneshot::Receiver<ByteEnds>) -> ByteEnds {
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap()
}

#[tokio::test]
async fn bytes_pass_as_they_are_and_the_end_of_stdin_ends_the_program() {
    let mut bench = bench(Runtime::Native, "unused", b"");
    bench.artifact.program.file = "/bin/cat".into();
    let (wire, waiting) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    let instance = bench.launch(&process()).await.unwrap();
    let ByteEnds { mut to, mut from, finished } = ends(waiting).await;
    let text = b"{\"b\":1e400, \"a\":\x00\xff}\n\n  [";
    to.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    from.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
    finished.send(End::Local).unwrap();
    drop(to);
    let exit = tokio::time::timeout(Duration::from_secs(5), instance.wait()).await.unwrap();
    assert!(exit.is_clean(), "{exit}");
    // The same wire cannot be launched again: its ends are gone.
    assert!(bench.launch(&process()).await.is_err());
}

#[tokio::test]
async fn whoever_holds_the_ends_can_call_it_a_breach() {
    let mut bench = bench(Runtime::Native, "unused", b"");
    bench.artifact.program.file = "/bin/cat".into();
    let (wire, waiting) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    let instance = bench.launch(&process()).await.unwrap();
    let held = ends(waiting).await;
    held.finished.send(End::Breach("it told a lie".into())).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(5), instance.wait()).await.unwrap();
    assert!(exit.to_string().contains("it told a lie"), "{exit}");
}

#[tokio::test]
async fn installed_software_is_shown_where_it_lies_and_cannot_be_changed() {
    let mut bench = python();
    let code = bench.dir.path().canonicalize().unwrap().join("software");
    fs::create_dir(&code).unwrap();
    fs::write(code.join("tool"), "#!/bin/sh\necho ran in $PWD\n").unwrap();
    fs::set_permissions(code.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    // Its owner's alone, as in a home folder.
    fs::set_permissions(&code, fs::Permissions::from_mode(0o700)).unwrap();
    bench.artifact.code = vec![code.clone()];
    bench.spec.workdir = Some("/data".into());
    bench.grant("exec:/bin/sh");
    let instance = bench.launch(&process()).await.unwrap();
    assert_eq!(eval(&instance, "os.getcwd()").await.unwrap(), json!("/data"));
    let run =
        format!("__import__('subprocess').check_output(['{}/tool']).decode()", code.display());
    assert_eq!(eval(&instance, &run).await.unwrap(), json!("ran in /data\n"));
    let write = format!("open('{}/tool', 'a')", code.display());
    let failure = eval(&instance, &write).await.unwrap_err();
    assert!(
        failure.message.contains("Read-only") || failure.message.contains("Permission"),
        "{failure}"
    );
    for reserved in ["/", "/proc", "/etc", "/data"] {
        bench.artifact.code = vec![reserved.into()];
        assert!(bench.launch(&process()).await.is_err(), "{reserved}");
    }
}
