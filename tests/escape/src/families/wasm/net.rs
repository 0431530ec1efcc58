//! Names and web servers of the suite's own, all on loopback.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use palisade_egress::{BoxFuture, Resolve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::trouble::{Result, While};

/// Names with the addresses of their first, second … lookup; the last ones stay.
#[derive(Clone, Default)]
pub(super) struct Names {
    answers: BTreeMap<&'static str, Vec<Vec<IpAddr>>>,
    lookups: Arc<AtomicUsize>,
}

impl Names {
    pub(super) fn with(mut self, name: &'static str, answers: &[&[&str]]) -> Self {
        let parse = |all: &&[&str]| all.iter().filter_map(|a| a.parse().ok()).collect();
        self.answers.insert(name, answers.iter().map(parse).collect());
        self
    }

    /// Names that lead to 127.0.0.1.
    pub(super) fn here(names: &[&'static str]) -> Self {
        names.iter().fold(Self::default(), |all, name| all.with(name, &[&["127.0.0.1"]]))
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let turn = self.lookups.fetch_add(1, Ordering::Relaxed);
        let found = self.answers.get(name).and_then(|all| all.get(turn).or(all.last()));
        let found = found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        Box::pin(std::future::ready(found))
    }
}

/// A web server; ends with the runtime.
pub(super) struct Web {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// On 127.0.0.1.
    pub(super) async fn start(
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST, 0, answer).await
    }

    /// Answers each head with what `answer` makes of it, and keeps the heads. Whatever stands behind the
    /// first head is a second request, and is kept too.
    pub(super) async fn start_on(
        address: Ipv4Addr,
        port: u16,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((address, port)).await.doing("a web server")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut had = Vec::new();
                    loop {
                        let text = String::from_utf8_lossy(&had).into_owned();
                        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                            let head = head.to_owned();
                            had = rest.as_bytes().to_vec();
                            let reply = answer(&head);
                            kept.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                            if stream.write_all(reply.as_bytes()).await.is_err() {
                                return;
                            }
                            continue;
                        }
                        match stream.read_buf(&mut had).await {
                            Ok(1..) => {}
                            _ => return,
                        }
                    }
                });
            }
        });
        Ok(Self { port, seen })
    }

    /// The heads of the requests that came.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A good answer with this body.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An answer that leads elsewhere.
pub(super) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}
