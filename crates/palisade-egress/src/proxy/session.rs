//! One connection of a plugin: what it asks for, whether it may, and the tunnel.

use std::{io, time::Duration};

use palisade_model::{Access, ErrorCode, Failure, Kind, text::escape};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::oneshot,
    time::timeout,
};

use super::{
    Client, Limits, TLS_PORT, hello,
    pump::{Side, Traffic, tunnel, watched},
    socks::{self, Reply},
    stream::ReadSide,
};
use crate::{
    Authority, Decide, EgressError, Entry, Guard, Names, Verdict,
    guard::{failure_of, refused},
    message::{self, Framing, RequestHead},
};

/// How long the rest of a refused request is read over, so that the answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of it.
const LINGER_BYTES: u64 = 256 * 1024;

/// One connection of a plugin.
pub(super) struct Session<'a> {
    pub(super) guard: &'a Guard,
    pub(super) limits: &'a Limits,
    pub(super) names: Option<&'a Names>,
    pub(super) decide: &'a dyn Decide,
    pub(super) client: Side,
}

/// Where it is told that there is a connection, or why there is none.
pub(super) type Told = oneshot::Sender<Result<(), Failure>>;

impl Session<'_> {
    /// Serves it to its end.
    pub(super) async fn run(mut self) -> Result<(), EgressError> {
        let Some(first) = self.first_byte().await? else { return Ok(()) };
        match first {
            socks::VERSION => {
                let asked = self.in_time(socks::request).await?;
                self.open(&asked, Asked::Socks).await
            }
            b'A'..=b'Z' | b'a'..=b'z' => self.requests(None).await,
            _ => Err(EgressError::BadRequest("it is neither HTTP nor SOCKS 5")),
        }
    }

    /// Serves a client that has connected to `asked` without saying so.
    pub(super) async fn run_direct(self, asked: &Authority) -> Result<(), EgressError> {
        self.open(asked, Asked::Direct).await
    }

    /// Serves a client that asked for `asked` in a call, and is told there.
    pub(super) async fn run_for(self, asked: &Authority, told: Told) -> Result<(), EgressError> {
        self.open(asked, Asked::Call(told)).await
    }

    /// What is meant by `asked`: the name, where an address stands for one.
    fn meant(&self, asked: &Authority) -> Authority {
        let name =
            asked.host().address().and_then(|address| self.names.and_then(|n| n.name_of(address)));
        match name.map(|name| Authority::new(name, asked.port())) {
            Some(Ok(named)) => named,
            _ => asked.clone(),
        }
    }

    /// Runs `read` on the client, for as long as a client may take to ask.
    async fn in_time<T>(
        &mut self,
        read: impl AsyncFnOnce(&mut Side) -> Result<T, EgressError>,
    ) -> Result<T, EgressError> {
        let limit = self.limits.request;
        timeout(limit, read(&mut self.client))
            .await
            .unwrap_or(Err(EgressError::Deadline { what: "the request", limit }))
    }

    /// The first byte of what the client says next, left where it is; `None` where it says no more.
    async fn first_byte(&mut self) -> Result<Option<u8>, EgressError> {
        self.in_time(async |side: &mut Side| Ok(side.read.fill_buf().await?.first().copied())).await
    }

    /// The next request's head; `None` where the client has no more.
    pub(super) async fn request_head(&mut self) -> Result<Option<RequestHead>, EgressError> {
        let head = self.in_time(async |side: &mut Side| read_head(&mut side.read).await).await?;
        head.map(|bytes| RequestHead::parse(&bytes)).transpose()
    }

    /// A `CONNECT` request.
    pub(super) async fn connect(mut self, head: &RequestHead) -> Result<(), EgressError> {
        let asked = match connect_target(head) {
            Ok(asked) => asked,
            Err(error) => return self.refuse(error).await,
        };
        self.open(&asked, Asked::Connect).await
    }

    /// Connects to `authority` and lets through what the right allows.
    async fn open(mut self, authority: &Authority, asked: Asked) -> Result<(), EgressError> {
        let authority = &self.meant(authority);
        let mut made = None;
        let kinds = kinds(self.decide, authority);
        for (i, kind) in kinds.iter().enumerate() {
            match self.guard.connect(self.decide, *kind, authority).await {
                Ok(connection) => {
                    made = Some((*kind, Side::from(Client::Tcp(connection.stream))));
                    break;
                }
                // A right of the other kind may name the very address.
                Err(EgressError::AddressRefused { .. }) if i + 1 < kinds.len() => {}
                Err(error) => {
                    return match asked {
                        Asked::Connect => self.refuse(error).await,
                        Asked::Direct => self.turn_away(error).await,
                        Asked::Socks => {
                            socks::reply(&mut self.client, Reply::to(&error)).await?;
                            Err(error)
                        }
                        Asked::Call(told) => {
                            // Whoever has stopped waiting need not be told.
                            let _ = told.send(Err(failure_of(&error)));
                            Err(error)
                        }
                    };
                }
            }
        }
        // There is at least one kind, and the last one does not go round again.
        let Some((kind, server)) = made else { return Ok(()) };
        match asked {
            Asked::Direct => {}
            Asked::Socks => socks::reply(&mut self.client, Reply::Succeeded).await?,
            Asked::Connect => {
                let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
                self.client.write.write_all(answer).await?;
            }
            Asked::Call(told) => {
                if told.send(Ok(())).is_err() {
                    return Ok(());
                }
            }
        }
        if kind == Kind::NetTcp && authority.port() != TLS_PORT {
            return self.tunnel(kind, authority, server, Vec::new()).await;
        }
        match self.first_byte().await? {
            None => Ok(()),
            Some(first) if first != hello::HANDSHAKE && authority.port() != TLS_PORT => {
                Box::pin(self.requests(Some((authority, server)))).await
            }
            Some(_) => match self.hello(kind, authority).await {
                Ok(bytes) => self.tunnel(kind, authority, server, bytes).await,
                Err(error) => {
                    let error = refused(self.decide, kind, authority, error);
                    farewell(&mut self.client, &hello::UNRECOGNIZED_NAME).await;
                    Err(error)
                }
            },
        }
    }

    /// Reads the TLS hello and compares the name in it with the host; gives the bytes it took.
    async fn hello(&mut self, kind: Kind, authority: &Authority) -> Result<Vec<u8>, EgressError> {
        let (bytes, hello) = self.in_time(read_hello).await?;
        match (hello.server_name(), authority.host().name()) {
            (Some(named), Some(_)) if named == authority.host() => Ok(bytes),
            (Some(_), Some(_)) => {
                Err(EgressError::Handshake("it names another server than was asked for"))
            }
            (None, Some(_)) => Err(EgressError::Handshake("it names no server")),
            (None, None) => Ok(bytes),
            // An address was asked for: the name in the handshake must be granted by itself.
            (Some(named), None) => {
                let named = Authority::new(named.clone(), authority.port())?.to_string();
                match self.decide.decide(&Access::new(kind, &named)) {
                    Ok(()) => Ok(bytes),
                    Err(_) => Err(EgressError::Handshake(
                        "it names a server that is not granted, and an address was asked for",
                    )),
                }
            }
        }
    }

    /// Passes `first` and then everything, both ways.
    async fn tunnel(
        mut self,
        kind: Kind,
        authority: &Authority,
        mut server: Side,
        first: Vec<u8>,
    ) -> Result<(), EgressError> {
        let traffic = Traffic::default();
        let Session { limits, decide, ref mut client, .. } = self;
        let work = async {
            server.write.write_all(&first).await?;
            traffic.sent.fetch_add(first.len() as u64, std::sync::atomic::Ordering::Relaxed);
            tunnel(client, &mut server, limits, &traffic).await
        };
        let open = Open::new(decide, kind, authority, &traffic);
        let ended = watched(work, limits, &traffic, decide, kind, authority).await;
        open.end(&ended);
        ended
    }

    /// Refuses a client that has not asked: in the words of the protocol that it begins to speak.
    async fn turn_away(mut self, error: EgressError) -> Result<(), EgressError> {
        match self.first_byte().await {
            Ok(Some(hello::HANDSHAKE)) => {
                farewell(&mut self.client, &hello::UNRECOGNIZED_NAME).await;
                Err(error)
            }
            Ok(Some(b'A'..=b'Z' | b'a'..=b'z')) => self.refuse(error).await,
            _ => Err(error),
        }
    }

    /// Answers a request with a refusal and ends the connection.
    pub(super) async fn refuse(&mut self, error: EgressError) -> Result<(), EgressError> {
        farewell(&mut self.client, &refusal(&error)).await;
        Err(error)
    }
}

/// How the client asked for a tunnel.
enum Asked {
    Connect,
    Socks,
    /// Not at all: by the address that it connected to.
    Direct,
    /// In a call of this process.
    Call(Told),
}

/// The kinds of right to ask for: `net.tcp` first where that is allowed, since it lets any bytes
/// through; `net.http` where it is allowed or nothing is.
fn kinds(decide: &dyn Decide, authority: &Authority) -> Vec<Kind> {
    let target = authority.to_string();
    let mut kinds = vec![Kind::NetTcp, Kind::NetHttp];
    kinds.retain(|kind| decide.decide(&Access::new(*kind, &target)).is_ok());
    if kinds.is_empty() { vec![Kind::NetHttp] } else { kinds }
}

/// A connection whose end is recorded, however it comes: one that is dropped was cut off with the plugin's end.
pub(super) struct Open<'a> {
    decide: &'a dyn Decide,
    kind: Kind,
    authority: &'a Authority,
    traffic: &'a Traffic,
    is_open: bool,
}

impl<'a> Open<'a> {
    pub(super) fn new(
        decide: &'a dyn Decide,
        kind: Kind,
        authority: &'a Authority,
        traffic: &'a Traffic,
    ) -> Self {
        Self { decide, kind, authority, traffic, is_open: true }
    }

    pub(super) fn end(mut self, ended: &Result<(), EgressError>) {
        self.closed(ended.as_ref().err().map(failure_of));
    }

    fn closed(&mut self, failure: Option<Failure>) {
        self.is_open = false;
        let Self { decide, kind, authority, traffic, .. } = *self;
        let verdict = Verdict::Closed {
            sent: traffic.sent.load(std::sync::atomic::Ordering::Relaxed),
            received: traffic.received.load(std::sync::atomic::Ordering::Relaxed),
            failure: failure.as_ref(),
        };
        decide.record(&Entry { kind, authority, verdict });
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_open {
            let cut = "it was cut off: the plugin's end is gone";
            self.closed(Some(Failure::new(ErrorCode::Unavailable, cut)));
        }
    }
}

/// Whom a `CONNECT` names. A `Host` beside it must name the same.
fn connect_target(head: &RequestHead) -> Result<Authority, EgressError> {
    let authority = Authority::parse(&head.target)?;
    if head.framing()? != Framing::Empty {
        return Err(EgressError::BadRequest("a CONNECT has no body"));
    }
    if let Some(host) = head.fields.host()?
        && Authority::parse_or(host, authority.port())? != authority
    {
        return Err(EgressError::BadRequest("its Host is another than it connects to"));
    }
    Ok(authority)
}

/// Reads bytes until a head is complete, and no byte more; `None` where the end comes first.
pub(super) async fn read_head(
    read: &mut BufReader<ReadSide>,
) -> Result<Option<Vec<u8>>, EgressError> {
    let mut head = Vec::new();
    loop {
        let bytes = read.fill_buf().await?;
        if bytes.is_empty() {
            return match head.is_empty() {
                true => Ok(None),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            };
        }
        let before = head.len();
        head.extend_from_slice(bytes);
        let arrived = bytes.len();
        // Looked at as a whole only where a line may have ended, and then at most once a line of its
        // 128, so that a head that trickles in costs no more than one that does not.
        let from = before.saturating_sub(3);
        let new = head.get(from..).unwrap_or_default();
        let ended = new.windows(4).any(|w| w == b"\r\n\r\n")
            || head.starts_with(b"\r\n")
            || new.windows(2).any(|w| {
                matches!(w, [a, b'\n'] if *a != b'\r') || matches!(w, [b'\r', b] if *b != b'\n')
            })
            || head.starts_with(b"\n")
            || new.contains(&0)
            || head.len() >= message::MAX_HEAD_LEN;
        if ended && let Some(len) = message::head_len(&head)? {
            read.consume(len.saturating_sub(before));
            head.truncate(len);
            return Ok(Some(head));
        }
        read.consume(arrived);
    }
}

/// Reads bytes until the hello is complete. What came with it is taken too and must be passed on.
async fn read_hello(side: &mut Side) -> Result<(Vec<u8>, hello::Hello), EgressError> {
    let mut taken = Vec::new();
    loop {
        let bytes = side.read.fill_buf().await?;
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        taken.extend_from_slice(bytes);
        let arrived = bytes.len();
        side.read.consume(arrived);
        if let Some(hello) = hello::parse(&taken)? {
            return Ok((taken, hello));
        }
    }
}

/// The answer that says why not.
fn refusal(error: &EgressError) -> Vec<u8> {
    let failure = match error {
        EgressError::TooLarge { what: "the head of the message" | "the head", .. } => None,
        error => Some(failure_of(error)),
    };
    let status = match failure.as_ref().map(|f| f.code) {
        None => "431 Request Header Fields Too Large",
        Some(ErrorCode::InvalidParams) => "400 Bad Request",
        Some(ErrorCode::Denied) => "403 Forbidden",
        Some(ErrorCode::RateLimited) => "429 Too Many Requests",
        Some(ErrorCode::LimitExceeded) => "413 Content Too Large",
        Some(ErrorCode::Deadline) => "504 Gateway Timeout",
        Some(_) => "502 Bad Gateway",
    };
    let failure =
        failure.unwrap_or_else(|| Failure::new(ErrorCode::LimitExceeded, error.to_string()));
    let mut text = format!("Palisade: {}\n", escape(&failure.message, 512));
    if let Some(rule) = &failure.rule {
        text.push_str(&format!("{}\n", escape(rule, 512)));
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{}\n", escape(hint, 512)));
    }
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Palisade-Error: {}\r\nConnection: close\r\n\r\n{text}",
        text.len(),
        failure.code,
    )
    .into_bytes()
}

/// Says `last`, ends our direction and reads over what is still on the way.
pub(super) async fn farewell(side: &mut Side, last: &[u8]) {
    let mut rest = (&mut side.read).take(LINGER_BYTES);
    let said = async {
        side.write.write_all(last).await?;
        side.write.shutdown().await?;
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The client may be gone already; nothing depends on it.
    let _ = timeout(LINGER, said).await;
}
