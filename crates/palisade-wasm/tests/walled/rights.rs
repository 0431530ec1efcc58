//! What is granted, through the walls: folders, variables, streams and requests.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use palisade_egress::{
    Guard,
    proxy::{Limits as ProxyLimits, Sockets, serve_way_out},
};
use palisade_model::{ErrorCode as C, Failure, Payload};
use palisade_sandbox::{BoxFuture, Calls, HostCalls, HostRequest, OutputStream, WayOut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    TIME, Walled,
    net::{Rights, guard_for, ok, rights, server, web_server},
    support::{built::build, initialize, tool},
    walled,
};

/// A host whose way out is served by a guard.
pub(super) struct Net {
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) guard: Guard,
    pub(super) rights: Arc<Rights>,
}

impl HostCalls for Net {
    fn request(&self, _request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(std::future::ready(Err(Failure::new(C::Denied, "no"))))
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn output_dropped(&self, _bytes: u64) {}

    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let sockets = Sockets { proxy: way.proxy, names: way.names, direct: way.direct };
        let rights = Arc::clone(&self.rights) as _;
        Box::pin(serve_way_out(self.guard.clone(), ProxyLimits::default(), sockets, rights))
    }
}

/// The WASI program of the tests, as `src/testing.rs` builds it.
pub(super) fn wasi_guest() -> Vec<u8> {
    build("wasi", "wasm32-wasip2", "wasi-guest.wasm").unwrap()
}

/// What the WASI program writes when it does one thing.
pub(super) async fn does(
    walled: &mut Walled,
    net: &Arc<Net>,
    task: &str,
    what: &str,
) -> Vec<String> {
    walled.bench.spec.env =
        BTreeMap::from([("TASK", task), ("WHAT", what), ("LD_PRELOAD", "/none.so")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    let instance = walled.launch_for(Arc::clone(net) as _).await.unwrap_or_else(|e| panic!("{e}"));
    initialize(&instance, "{}").await.unwrap();
    let answer = tool(&instance, "run", "{}", TIME).await;
    assert_eq!(answer.as_deref(), Ok("null"), "{:?}", net.lines.lock().unwrap());
    // Lines come by a pipe of their own: all are there when none has come for half a second.
    instance.stop(Duration::from_secs(5)).await;
    let (mut lines, mut quiet) = (Vec::new(), 0);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let more = std::mem::take(&mut *net.lines.lock().unwrap());
        quiet = if more.is_empty() { quiet + 1 } else { 0 };
        lines.extend(more);
        if quiet == 5 && !lines.is_empty() {
            break;
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_variables_streams_and_requests_work_through_the_walls() {
    let (port, heads) = web_server(|_| ok("hello")).await;
    let granted = format!("net.http:shop.example:{port}");
    let mut walled = walled(&wasi_guest(), Calls::Stateful);
    walled.bench.spec.limits.memory = 64 << 20;
    let root = walled.bench.dir.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("texts/inner")).unwrap();
    fs::create_dir(root.join("out")).unwrap();
    fs::write(root.join("texts/one"), "first").unwrap();
    fs::write(root.join("private"), "secret").unwrap();
    std::os::unix::fs::symlink("../private", root.join("texts/link")).unwrap();
    std::os::unix::fs::symlink("one", root.join("texts/within")).unwrap();
    let at = |name: &str| root.join(name).display().to_string();
    let (reads, writes) =
        (format!("fs.read:{}/**", at("texts")), format!("fs.write:{}/**", at("out")));
    let mail = "net.tcp:mail.example:*";
    walled.bench.rights(&[&granted, mail, &reads, &writes]);
    let net = Arc::new(Net {
        lines: Mutex::default(),
        guard: guard_for(&["shop.example", "other.example", "mail.example"]),
        rights: rights(&[&granted, mail]),
    });

    let net = &net;
    let mut walled = walled;
    let mut does = async |task: &str, what: &str| does(&mut walled, net, task, what).await;
    let seen = does("environment", "").await;
    assert!(seen[0].contains("(\"TASK\", \"environment\")"), "{seen:?}");
    assert!(seen[0].contains("LD_PRELOAD") && !seen[0].contains("PALISADE"), "{seen:?}");
    assert_eq!(seen[2], "stdin Ok(0)");
    assert_eq!(does("read", &at("texts/one")).await, ["Ok(\"first\")"]);
    assert_eq!(does("read", &at("texts/within")).await, ["Ok(\"first\")"]);
    for path in
        [at("texts/link"), at("private"), "/etc/passwd".into(), "/plugin/plugin.wasm".into()]
    {
        let seen = does("read", &path).await;
        assert!(seen[0].starts_with("Err("), "{path}: {seen:?}");
    }
    assert_eq!(does("write", &at("out/new")).await, ["Ok(())"]);
    assert_eq!(fs::read_to_string(root.join("out/new")).unwrap(), "written");
    let seen = does("write", &at("texts/new")).await;
    assert!(seen[0].starts_with("Err("), "{seen:?}");

    let url = format!("http://shop.example:{port}/a?b=c");
    assert_eq!(does("get", &url).await, ["status 200 body 5 \"hello\" whole true"]);
    assert_eq!(net.rights.recorded("allow net.http:shop.example"), 1);
    let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: shop.example:{port}\r\n")), "{head}");
    let seen = does("get", &format!("http://other.example:{port}/")).await;
    assert!(seen[0].contains("HttpRequestDenied"), "{seen:?}");
    assert_eq!(net.rights.recorded("deny net.http:other.example"), 1);
    // Connections of its own: by the same way out, and with what the right lets pass.
    let request =
        format!("shop.example:{port}\nGET /c HTTP/1.1\r\nHost: shop.example:{port}\r\n\r\n");
    let seen = does("tcp", &request).await;
    assert!(seen[0].starts_with("reached HTTP/1.1 200 OK"), "{seen:?}");
    assert!(heads.lock().unwrap().pop().unwrap().starts_with("GET /c "), "{seen:?}");
    let said = format!("other.example:{port}\nhello");
    assert_eq!(does("tcp", &said).await, ["blocked PermissionDenied"]);
    assert_eq!(net.rights.recorded("deny net.http:other.example"), 2);
    let said = format!("127.0.0.1:{port}\nhello");
    assert_eq!(does("tcp", &said).await, ["blocked PermissionDenied"]);
    // A server that speaks before it is spoken to.
    let (mail, _) = server(|mut stream| async move {
        let _ = stream.write_all(b"220 hello").await;
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let said = does("tcp-hold", &format!("mail.example:{mail}")).await;
    assert_eq!(said, ["reached 9"]);
    assert_eq!(does("udp", "").await, ["blocked PermissionDenied"]);
    assert_eq!(does("listen", "127.0.0.1:0").await, ["blocked PermissionDenied"]);
    // An address of the machine itself, past the guard: there is no network to reach it by.
    let seen = does("get", &format!("http://127.0.0.1:{port}/")).await;
    assert!(!seen[0].starts_with("status"), "{seen:?}");
    assert!(heads.lock().unwrap().is_empty());
}
