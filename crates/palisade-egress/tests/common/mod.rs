//! Rights, names and servers for the tests: all real but the DNS.
#![allow(dead_code, reason = "each test file uses a part")]

mod tls;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use palisade_egress::{
    AddressPolicy, Authority, BoxFuture, Decide, Entry, Guard, Resolve, Standing, Verdict,
    decide::names,
    proxy::{Limits, Proxy},
};
use palisade_model::{Access, Capability, ErrorCode, Failure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use tls::tls_server;

/// Rights of one plugin, with a record of what was decided.
#[derive(Default)]
pub(crate) struct Rights {
    granted: Mutex<Vec<Capability>>,
    forbidden: Vec<Capability>,
    withdrawn: AtomicBool,
    pub(crate) record: Mutex<Vec<String>>,
}

pub(crate) fn rights(granted: &[&str]) -> Arc<Rights> {
    rights_without(granted, &[])
}

pub(crate) fn rights_without(granted: &[&str], forbidden: &[&str]) -> Arc<Rights> {
    let parse = |all: &[&str]| all.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>();
    Arc::new(Rights {
        granted: Mutex::new(parse(granted)),
        forbidden: parse(forbidden),
        ..Rights::default()
    })
}

impl Rights {
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, SeqCst);
    }

    pub(crate) fn recorded(&self, what: &str) -> usize {
        self.record.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

impl Decide for Rights {
    fn decide(&self, access: &Access<'_>) -> Result<(), Failure> {
        let covered = |all: &[Capability]| all.iter().any(|c| c.covers(access));
        if covered(&self.granted.lock().unwrap())
            && !covered(&self.forbidden)
            && !self.withdrawn.load(SeqCst)
        {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::Denied, format!("{access} is not granted"))
            .rule("no right covers it")
            .hint("grant it"))
    }

    fn standing(&self, access: &Access<'_>) -> Standing {
        let authority = Authority::parse(access.target).unwrap();
        if self.forbidden.iter().any(|c| c.covers(access)) {
            return Standing::Forbidden;
        }
        match self.granted.lock().unwrap().iter().any(|c| names(c, access.kind, &authority)) {
            true => Standing::Named,
            false => Standing::Silent,
        }
    }

    fn record(&self, entry: &Entry<'_>) {
        let (kind, authority) = (entry.kind, entry.authority);
        let line = match entry.verdict {
            Verdict::Allowed { address } => format!("allow {kind}:{authority} at {address}"),
            Verdict::Refused { failure } => format!("deny {kind}:{authority}: {failure}"),
            Verdict::Closed { sent, received, failure } => {
                let why = failure.map(ToString::to_string).unwrap_or_default();
                format!("closed {kind}:{authority} {sent} {received} {why}")
            }
            other => panic!("an unknown verdict {other:?}"),
        };
        self.record.lock().unwrap().push(line);
    }
}

/// Names with the answers to their first, second ... lookup; the last one stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: HashMap<&'static str, Vec<Vec<IpAddr>>>,
    pub(crate) lookups: AtomicUsize,
}

impl Names {
    pub(crate) fn with(mut self, name: &'static str, answers: &[&[&str]]) -> Self {
        let parse = |all: &&[&str]| all.iter().map(|a| a.parse().unwrap()).collect();
        self.answers.insert(name, answers.iter().map(parse).collect());
        self
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let n = self.lookups.fetch_add(1, SeqCst);
        let found = self.answers.get(name).map(|a| a[n.min(a.len() - 1)].clone());
        Box::pin(async { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

/// A guard where these names lead to 127.0.0.1, which the operator allows.
pub(crate) fn guard_for(names: &[&'static str]) -> Guard {
    let all = names.iter().fold(Names::default(), |all, n| all.with(n, &[&["127.0.0.1"]]));
    let policy = AddressPolicy::new().allow("127.0.0.1/32".parse().unwrap());
    Guard::with_resolver(policy, Arc::new(all))
}

/// A server whose connections `serve` handles; counts them.
pub(crate) async fn server<F>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (u16, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (port, count)
}

/// How many connected, once those on their way have arrived.
pub(crate) async fn settled(count: &AtomicUsize) -> usize {
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    count.load(SeqCst)
}

pub(crate) async fn echo_server() -> (u16, Arc<AtomicUsize>) {
    server(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Reads a head.
pub(crate) async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A web server that answers each connection's one request with what `answer` makes of its head, and
/// keeps the heads.
pub(crate) async fn web_server(
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (Arc::clone(&heads), Arc::new(answer));
    let (port, _) = server(move |mut stream| {
        let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
        async move {
            let head = head(&mut stream).await;
            let reply = answer(&head);
            kept.lock().unwrap().push(head);
            let _ = stream.write_all(&reply).await;
            let _ = stream.shutdown().await;
            // Until the client has gone, so that no reset eats the answer.
            let _ = stream.read(&mut [0; 1024]).await;
        }
    })
    .await;
    (port, heads)
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A proxy for one plugin on a loopback port.
pub(crate) async fn proxy(guard: Guard, rights: Arc<Rights>, limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { Proxy::new(guard, limits).serve(listener, rights).await });
    address
}

/// Sends `request` and gives everything that comes back.
pub(crate) async fn talk(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), read)
        .await
        .expect("the proxy ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A tunnel by `CONNECT`; the answer's first line where there is none.
pub(crate) async fn connect(proxy: SocketAddr, to: &str) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    if head.starts_with("HTTP/1.1 200 ") { Ok(stream) } else { Err(head) }
}

/// A SOCKS request with a name; the reply code where it is refused.
pub(crate) async fn socks(proxy: SocketAddr, name: &[u8], port: u16) -> Result<TcpStream, u8> {
    let mut address = vec![3, u8::try_from(name.len()).unwrap()];
    address.extend(name);
    socks_raw(proxy, 1, &address, port).await
}

pub(crate) async fn socks_raw(
    proxy: SocketAddr,
    command: u8,
    address: &[u8],
    port: u16,
) -> Result<TcpStream, u8> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.unwrap();
    assert_eq!(method, [5, 0]);
    let mut request = vec![5, command, 0];
    request.extend(address);
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await.unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.unwrap();
    if reply[1] == 0 { Ok(stream) } else { Err(reply[1]) }
}

/// Whether what is sent through comes back.
pub(crate) async fn echoes(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
) -> bool {
    if stream.write_all(b"ping").await.is_err() {
        return false;
    }
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.is_ok() && &back == b"ping"
}
