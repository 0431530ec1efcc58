//! Plain HTTP requests, one after the other, each to a connection of its own.
//!
//! A request is written anew from what was understood of it: the host in its first line is the host that
//! was decided about and looked up, and `Host` says the same.

use std::{
    io,
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use palisade_model::Kind;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{
    Client, Limits,
    pump::{Side, Traffic, pump, watched},
    session::{Open, Session, farewell, read_head},
    stream::{ReadSide, WriteSide},
};
use crate::{
    Authority, EgressError, Scheme, Target,
    message::{
        Fields, Framing, RequestHead, ResponseHead, Version,
        chunked::{Decoder, Step},
    },
};

/// Most interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 16;

impl Session<'_> {
    /// Serves requests until the client has no more. Within a tunnel they may go to its host only, and
    /// the first of them over the connection that was made for it.
    pub(super) async fn requests(
        mut self,
        tunnel: Option<(&Authority, Side)>,
    ) -> Result<(), EgressError> {
        let (only, mut made) = tunnel.map_or((None, None), |(a, side)| (Some(a), Some(side)));
        loop {
            let head = match self.request_head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(()),
                Err(error @ (EgressError::BadRequest(_) | EgressError::TooLarge { .. })) => {
                    return self.refuse(error).await;
                }
                Err(error) => return Err(error),
            };
            if head.method == "CONNECT" && only.is_none() {
                return self.connect(&head).await;
            }
            let request = match Request::read(&head, only) {
                Ok(request) => request,
                Err(error) => return self.refuse(error).await,
            };
            let authority = request.target.authority();
            let server = match made.take() {
                Some(server) => server,
                None => match self.guard.connect(self.decide, Kind::NetHttp, authority).await {
                    Ok(connection) => Side::from(Client::Tcp(connection.stream)),
                    Err(error) => return self.refuse(error).await,
                },
            };
            if !self.exchange(&request, server).await? {
                farewell(&mut self.client, b"").await;
                return Ok(());
            }
        }
    }

    /// One request and its answer. Whether another may follow.
    async fn exchange(
        &mut self,
        request: &Request<'_>,
        mut server: Side,
    ) -> Result<bool, EgressError> {
        let traffic = Traffic::default();
        let mut progress = Progress::default();
        let Session { limits, decide, ref mut client, .. } = *self;
        let authority = request.target.authority();
        let work = relay(request, client, &mut server, limits, &traffic, &mut progress);
        let open = Open::new(decide, Kind::NetHttp, authority, &traffic);
        let ended = watched(work, limits, &traffic, decide, Kind::NetHttp, authority).await;
        open.end(&ended);
        match ended {
            Ok(()) => Ok(progress.keep),
            Err(error) if progress.answering => Err(error),
            Err(error) => self.refuse(error).await.map(|()| false),
        }
    }
}

/// How far an exchange has come.
#[derive(Default)]
struct Progress {
    /// A part of the answer was sent to the client.
    answering: bool,
    /// The client may send another request.
    keep: bool,
}

/// A request that was understood.
struct Request<'a> {
    head: &'a RequestHead,
    target: Target,
    framing: Framing,
}

impl<'a> Request<'a> {
    /// `only` is the host of the tunnel that it came through.
    fn read(head: &'a RequestHead, only: Option<&Authority>) -> Result<Self, EgressError> {
        if matches!(head.method.as_str(), "CONNECT" | "TRACE") {
            return Err(EgressError::BadRequest("this method is not passed on"));
        }
        if head.target.contains('#') {
            return Err(EgressError::BadRequest("its target has a fragment"));
        }
        let target = match only {
            Some(authority) if head.target.starts_with('/') => {
                Target::parse(&format!("http://{authority}"))?.with_path(&head.target)?
            }
            _ => Target::parse(&head.target)?,
        };
        if target.scheme() != Scheme::Http {
            return Err(EgressError::BadRequest("https is asked for with CONNECT"));
        }
        if only.is_some_and(|authority| authority != target.authority()) {
            return Err(EgressError::BadRequest("the tunnel leads to another host"));
        }
        match head.fields.host()? {
            Some(host)
                if Authority::parse_or(host, Scheme::Http.default_port())?
                    == *target.authority() => {}
            Some(_) => return Err(EgressError::BadRequest("its Host is another than its target")),
            None if head.version == Version::Http10 => {}
            None => return Err(EgressError::BadRequest("it has no Host")),
        }
        Ok(Self { head, target, framing: head.framing()? })
    }

    fn written(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.head.method,
            self.target.path(),
            self.target.host_header()
        );
        write_fields(&mut out, &self.head.fields);
        // An empty body is said to be one where the client said so.
        let framing = match self
            .head
            .fields
            .iter()
            .any(|f| f.name().eq_ignore_ascii_case("content-length"))
        {
            true if self.framing == Framing::Empty => Framing::Length(0),
            _ => self.framing,
        };
        write_framing(&mut out, framing);
        out.extend_from_slice(b"Connection: close\r\n\r\n");
        out
    }
}

fn write_fields(out: &mut Vec<u8>, fields: &Fields) {
    for field in fields.forwarded() {
        out.extend_from_slice(field.name().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value());
        out.extend_from_slice(b"\r\n");
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Length(n) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "Content-Length: {n}\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// The request to the server and the answer to the client. The body is sent while the answer is awaited,
/// since a server may answer without reading it.
async fn relay(
    request: &Request<'_>,
    client: &mut Side,
    server: &mut Side,
    limits: &Limits,
    traffic: &Traffic,
    progress: &mut Progress,
) -> Result<(), EgressError> {
    server.write.write_all(&request.written()).await?;
    if request.framing != Framing::Empty
        && request.head.version == Version::Http11
        && request.head.fields.has_token("expect", "100-continue")
    {
        client.write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut sent = false;
    let head = {
        let upload = body(
            &mut client.read,
            &mut server.write,
            request.framing,
            true,
            limits.sent_bytes,
            &traffic.sent,
            "the body of the request",
        );
        let answer = answer_head(&mut server.read);
        tokio::pin!(upload, answer);
        loop {
            tokio::select! {
                head = &mut answer => break head?,
                done = &mut upload, if !sent => match done {
                    Ok(()) => sent = true,
                    // The server closed its end while it answers: what it says is more telling.
                    Err(EgressError::Io(error)) if is_gone(&error) => break answer.await?,
                    Err(error) => return Err(error),
                },
            }
        }
    };
    let declared = head.framing(&request.head.method).map_err(theirs)?;
    // HTTP/1.0 knows no chunks.
    let rechunk = request.head.version == Version::Http11;
    let framing = match declared {
        Framing::Chunked if !rechunk => Framing::UntilClose,
        framing => framing,
    };
    progress.keep = sent && request.head.keeps_alive() && framing != Framing::UntilClose;
    let mut out = Vec::with_capacity(1024);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} ", head.status);
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    write_fields(&mut out, &head.fields);
    match (framing, head.content_length()) {
        // To HEAD: how long it would be.
        (Framing::Empty, Some(n)) if head.status != 204 => {
            write_framing(&mut out, Framing::Length(n))
        }
        (framing, _) => write_framing(&mut out, framing),
    }
    if !progress.keep {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    progress.answering = true;
    client.write.write_all(&out).await?;
    body(
        &mut server.read,
        &mut client.write,
        declared,
        rechunk,
        limits.received_bytes,
        &traffic.received,
        "the body of the answer",
    )
    .await
    .map_err(theirs)?;
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// A server's message that was read as strictly as a request.
fn theirs(error: EgressError) -> EgressError {
    match error {
        EgressError::BadRequest(what) => EgressError::BadResponse(what.to_owned()),
        other => other,
    }
}

/// The head of the final answer.
async fn answer_head(read: &mut BufReader<ReadSide>) -> Result<ResponseHead, EgressError> {
    for _ in 0..MAX_INTERIM {
        let bytes = read_head(read).await.map_err(theirs)?;
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let head = ResponseHead::parse(&bytes).map_err(theirs)?;
        match head.status {
            101 => return Err(EgressError::BadResponse("it switches protocols".into())),
            100..=199 => {}
            _ => return Ok(head),
        }
    }
    Err(EgressError::BadResponse("it has too many interim answers".into()))
}

/// Moves one body to its end.
async fn body(
    from: &mut BufReader<ReadSide>,
    to: &mut WriteSide,
    framing: Framing,
    rechunk: bool,
    most: u64,
    passed: &AtomicU64,
    what: &'static str,
) -> Result<(), EgressError> {
    let too_large = || EgressError::TooLarge { what, limit: most, unit: "bytes" };
    match framing {
        Framing::Empty => Ok(()),
        Framing::Length(n) if n > most => Err(too_large()),
        Framing::Length(n) => match pump(from, to, n, passed).await? {
            moved if moved == n => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        },
        Framing::UntilClose => {
            let moved = pump(from, to, most, passed).await?;
            if moved == most && !from.fill_buf().await?.is_empty() {
                return Err(too_large());
            }
            Ok(())
        }
        Framing::Chunked => {
            let mut decoder = Decoder::new();
            let mut chunk = Vec::new();
            while !decoder.is_done() {
                let bytes = from.fill_buf().await?;
                if bytes.is_empty() {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                let n = match decoder.step(bytes)? {
                    Step::Done => 0,
                    Step::Skip(n) => n,
                    Step::Data(n) => {
                        let data = bytes.get(..n).unwrap_or_default();
                        chunk.clear();
                        if rechunk {
                            // Writing to a Vec cannot fail.
                            let _ = write!(chunk, "{n:x}\r\n");
                        }
                        chunk.extend_from_slice(data);
                        if rechunk {
                            chunk.extend_from_slice(b"\r\n");
                        }
                        if passed.fetch_add(n as u64, Relaxed) + n as u64 > most {
                            return Err(too_large());
                        }
                        to.write_all(&chunk).await?;
                        n
                    }
                };
                from.consume(n);
            }
            if rechunk {
                to.write_all(b"0\r\n\r\n").await?;
            }
            Ok(())
        }
    }
}
