//! A host's end with an echoing handler, and helpers for a plugin's end that is plain bytes.
// Each test binary uses some of it.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::Future,
    io::{IoSlice, Read},
    mem::MaybeUninit,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::{
    BoxFuture, CloseReason, Handler, Peer, PeerConfig, Request, RequestFuture,
};

/// Counts everything; answers `echo` with its parameters and never answers `never`.
#[derive(Default)]
pub struct Echo {
    requests: AtomicUsize,
    notifications: AtomicUsize,
    dropped: Arc<AtomicUsize>,
    closes: Mutex<Vec<CloseReason>>,
}

/// Counts its own end.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Echo {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    pub fn notifications(&self) -> usize {
        self.notifications.load(SeqCst)
    }

    pub fn closes(&self) -> Vec<CloseReason> {
        self.closes.lock().unwrap().clone()
    }

    /// Waits until `count` requests that never end were dropped.
    pub async fn dropped(&self, count: usize) {
        while self.dropped.load(SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.dropped.load(SeqCst), count);
    }
}

impl Handler for Echo {
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Payload, Failure>> {
        self.requests.fetch_add(1, SeqCst);
        // Made here and not in the future: a task may end before it is polled.
        let counted = (request.method == "never").then(|| Counted(Arc::clone(&self.dropped)));
        let text = |n: usize| Payload::from_json_text(format!("\"{}\"", "x".repeat(n)));
        Box::pin(async move {
            let _counted = counted;
            match request.method.as_str() {
                "echo" => Ok(request.params),
                "never" => std::future::pending().await,
                "megabyte" => Ok(text(1 << 20)),
                "five_megabytes" => Ok(text(5 << 20)),
                "no_json" => Ok(Payload::from_json_text("}")),
                "panic" => panic!("on purpose"),
                "denied" => Err(Failure::new(ErrorCode::Denied, "no").rule("grant")),
                _ => Err(Failure::new(ErrorCode::NotFound, "there is no such method")),
            }
        })
    }

    fn notification(&self, _: &str, _: &[u8]) {
        self.notifications.fetch_add(1, SeqCst);
    }

    fn closed(&self, reason: &CloseReason) {
        self.closes.lock().unwrap().push(reason.clone());
    }
}

pub fn peer(end: UnixStream, handler: Arc<Echo>, config: PeerConfig) -> Peer {
    Peer::spawn(end, handler, config).unwrap()
}

pub fn host_with(config: PeerConfig) -> (Peer, Arc<Echo>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let handler = Echo::new();
    (peer(ours, Arc::clone(&handler), config), handler, theirs)
}

pub fn host() -> (Peer, Arc<Echo>, UnixStream) {
    host_with(PeerConfig::default())
}

pub fn null() -> Payload {
    Payload::null()
}

pub fn request(peer: &Peer, method: &str) -> RequestFuture {
    peer.request(method, &null(), None)
}

/// Every wait of a test has an end.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("not within 20 s")
}

/// Reads one line and not a byte more, blocking.
pub fn read_line(stream: &mut UnixStream) -> Vec<u8> {
    use rustix::net::{RecvFlags, recv};
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let (_, there) = recv(&*stream, &mut buffer, RecvFlags::PEEK).unwrap();
        assert!(there > 0, "the stream ended within a line");
        let end = buffer[..there].iter().position(|b| *b == b'\n');
        let count = end.map_or(there, |end| end + 1);
        stream.read_exact(&mut buffer[..count]).unwrap();
        line.extend_from_slice(&buffer[..count]);
        if end.is_some() {
            line.pop();
            return line;
        }
    }
}

/// A line the host sent.
pub struct Line(pub String);

impl Line {
    /// Reads one without blocking the runtime.
    pub async fn of(stream: &mut UnixStream) -> Self {
        let mut stream = stream.try_clone().unwrap();
        let line = tokio::task::spawn_blocking(move || read_line(&mut stream)).await.unwrap();
        Self(String::from_utf8(line).unwrap())
    }

    pub fn expect(&self, expected: &str) {
        assert_eq!(self.0, expected);
    }
}

/// Sends one byte with `handles`.
pub fn send_handles(stream: &UnixStream, handles: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
    sendmsg(stream, &[IoSlice::new(b"{")], &mut control, SendFlags::empty()).unwrap();
}
