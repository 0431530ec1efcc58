//! Outgoing HTTP of `wasi:http`: requests over connections of the host's guard.
//!
//! What goes out is made anew here from the request's parts: the guard decides, looks up, checks and
//! connects ([`HostCalls::connect`]), the name in TLS and the `Host` field are the granted one, and no field
//! of the guest's says where a message ends. Redirects are answers like others; who follows one makes a new
//! request, which is decided anew.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use palisade_egress::{
    EgressError, Target,
    http::{Caps, Tls, send_over},
};
use palisade_model::{ErrorCode, Failure};
use palisade_sandbox::HostCalls;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until, timeout},
};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::WasmError;

/// Requests of one instance that are under way at once; others wait.
pub(super) const AT_ONCE: u32 = 8;
/// Longest time for a request, to the last byte of its answer.
const TOTAL: Duration = Duration::from_secs(60);
/// What the guard takes at most until there is a connection: a lookup and four addresses.
const CONNECT: Duration = Duration::from_secs(20);

/// Mozilla's roots; made once. An error is one of the TLS library with its own settings.
static TLS: LazyLock<Result<Tls, String>> = LazyLock::new(|| Tls::new().map_err(|e| e.to_string()));

/// Most bytes of roots that an application adds.
const MAX_ROOTS: usize = 1 << 20;

/// Most bytes of a request's body that are taken at once.
const CHUNK: usize = 64 << 10;

/// Fields that a guest cannot set, beside [`DEFAULT_FORBIDDEN_HEADERS`].
const FORBIDDEN: [HeaderName; 3] = [header::TE, header::TRAILER, header::EXPECT];

type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// Whom the requests of a backend trust: Mozilla's roots, and those that the application added when it made
/// the backend. Roots are only ever added, and nothing that a plugin, a manifest, a policy or the environment
/// says comes here.
#[derive(Clone, Default)]
pub(crate) struct Trust(Option<Tls>);

impl Trust {
    /// Trusts the certificates in `pem` beside Mozilla's roots; empty text adds none.
    pub(crate) fn with_roots(pem: &str) -> Result<Self, WasmError> {
        if pem.len() > MAX_ROOTS {
            let (what, limit) = ("bytes of certificates to trust", MAX_ROOTS as u64);
            return Err(WasmError::TooMany { what, limit });
        }
        if pem.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(Some(Tls::with_roots(pem)?)))
    }

    fn tls(&self) -> Result<&Tls, Error> {
        match &self.0 {
            Some(tls) => Ok(tls),
            None => TLS.as_ref().map_err(|why| Error::InternalError(Some(why.clone()))),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("adds_roots", &self.0.is_some()).finish()
    }
}

/// Makes the requests of one store.
pub(super) struct Hooks {
    host: Arc<dyn HostCalls>,
    trust: Trust,
    turns: Arc<Semaphore>,
}

impl Hooks {
    pub(super) fn new(host: Arc<dyn HostCalls>, trust: Trust) -> Self {
        Self { host, trust, turns: Arc::new(Semaphore::new(AT_ONCE as usize)) }
    }
}

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN.contains(name))
    }

    fn set_host_header(&mut self) -> bool {
        false
    }

    // A request that waits for its turn keeps a piece of its body here.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        // How the guest got on with the answer is of no interest here.
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let (host, turns) = (Arc::clone(&self.host), Arc::clone(&self.turns));
        let trust = self.trust.clone();
        Box::new(async move {
            let options = options.unwrap_or_default();
            let connect = options.connect_timeout.unwrap_or(CONNECT).min(CONNECT);
            let first_byte = options.first_byte_timeout.unwrap_or(TOTAL);
            let limit = connect.saturating_add(first_byte).min(TOTAL);
            let between_bytes = options.between_bytes_timeout;
            let sending = send(&*host, &trust, turns, request, connect, between_bytes);
            let response =
                timeout(limit, sending).await.unwrap_or(Err(Error::HttpResponseTimeout))?;
            let driven: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response, driven))
        })
    }
}

async fn send(
    host: &dyn HostCalls,
    trust: &Trust,
    turns: Arc<Semaphore>,
    request: http::Request<WasiBody>,
    connect: Duration,
    between_bytes: Option<Duration>,
) -> Result<http::Response<WasiBody>, Error> {
    let turn = turns.acquire_owned().await.map_err(|_| Error::ConnectionTerminated)?;
    let tls = trust.tls()?;
    let (mut parts, body) = request.into_parts();
    let target = Target::parse(&parts.uri.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let length = content_length(&parts.headers)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::HOST);
    let request = http::Request::from_parts(parts, Outgoing { body, length });
    let caps = Caps { total: TOTAL, ..Caps::default() };
    let connection = host.connect(&target.authority().to_string());
    let connection = async {
        let late = EgressError::Deadline { what: "the connection", limit: connect };
        let made = timeout(connect, connection).await.map_err(|_| late)?;
        made.map_err(|failure| EgressError::Denied(Box::new(failure)))
    };
    let response =
        send_over(connection, tls, &target, request, &caps).await.map_err(|e| error(&e))?;
    let next = between_bytes.map(|limit| (limit, Box::pin(sleep_until(Instant::now() + limit))));
    Ok(response.map(|body| Incoming { body, next, _turn: turn }.boxed_unsync()))
}

/// How long the guest says its body is. The length was checked to be one number before it came here, and is
/// held against the body while that is sent.
fn content_length(headers: &http::HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, more) = (values.next(), values.next());
    match (first, more) {
        (None, _) => Ok(None),
        (Some(length), None) => {
            let digits = length
                .to_str()
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse().ok());
            length.map(Some).ok_or(Error::HttpProtocolError)
        }
        (Some(_), Some(_)) => Err(Error::HttpProtocolError),
    }
}

/// A request's body that is exactly as long as was said.
struct Outgoing {
    body: WasiBody,
    length: Option<u64>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(left) = self.length else { return Poll::Ready(frame) };
        Poll::Ready(match frame {
            None if left > 0 => Some(Err(Error::HttpRequestBodySize(None))),
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(len) {
                    Some(left) => {
                        self.length = Some(left);
                        Some(Ok(frame))
                    }
                    None => Some(Err(Error::HttpRequestBodySize(None))),
                }
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.length.is_none_or(|left| left == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

/// Whoever sends drops the body with its last announced byte, and the guest's stream would be closed before the
/// guest has flushed or finished it: a request that arrived whole would look like one that did not. What is
/// left of it (nothing but its end) is awaited here instead; a guest that goes on beyond what it announced finds
/// its stream closed. The guest holds the other side, so that this ends when the guest finishes the body, drops
/// it or is gone.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.length != Some(0) || self.body.is_end_stream() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut body = std::mem::replace(&mut self.body, empty);
        runtime.spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                    return;
                }
            }
        });
    }
}

/// An answer's body, with the time that the guest allows between two pieces of it.
struct Incoming {
    body: palisade_egress::http::ResponseBody,
    next: Option<(Duration, Pin<Box<Sleep>>)>,
    _turn: OwnedSemaphorePermit,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((limit, sleep)) = &mut this.next {
                sleep.as_mut().reset(Instant::now() + *limit);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| error(&e))));
        }
        if let Some((_, sleep)) = &mut this.next
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the guest is told. Who was refused and why stands in the record.
fn error(error: &EgressError) -> Error {
    match error {
        EgressError::BadHost(_) | EgressError::BadUrl(_) => Error::HttpRequestUriInvalid,
        EgressError::BadRequest(_) => Error::HttpRequestDenied,
        EgressError::Denied(failure) => of_failure(failure),
        EgressError::AddressRefused { .. } => Error::DestinationIpProhibited,
        EgressError::NoAddress(_) | EgressError::Lookup { .. } => {
            Error::DnsError { rcode: None, info_code: None }
        }
        EgressError::Connect { .. } => Error::ConnectionRefused,
        EgressError::Tls { .. } if error.is_of_certificate() => Error::TlsCertificateError,
        EgressError::Tls { .. } | EgressError::Handshake(_) => Error::TlsProtocolError,
        EgressError::TooLarge { limit, .. } => Error::HttpResponseBodySize(Some(*limit)),
        EgressError::Deadline { .. } => Error::HttpResponseTimeout,
        EgressError::BadResponse(_) => Error::HttpProtocolError,
        _ => Error::ConnectionTerminated,
    }
}

fn of_failure(failure: &Failure) -> Error {
    match failure.code {
        ErrorCode::Denied => Error::HttpRequestDenied,
        ErrorCode::NotFound => Error::DnsError { rcode: None, info_code: None },
        ErrorCode::Deadline => Error::ConnectionTimeout,
        ErrorCode::InvalidParams => Error::HttpRequestUriInvalid,
        ErrorCode::RateLimited | ErrorCode::LimitExceeded => Error::ConnectionLimitReached,
        _ => Error::ConnectionRefused,
    }
}
