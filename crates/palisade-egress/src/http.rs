//! HTTP requests that the host makes for a plugin: HTTP/1.1, in the clear or within TLS.
//!
//! [`Client::send`] makes one request over one connection and gives the body as it comes; it follows no
//! redirect and unpacks nothing. [`Client::fetch`] is made of it: redirects, each decided anew, and
//! decompression, all within [`Caps`]. There are no cookies, no cache, no connections kept, and no proxy
//! of the host's is used.

mod body;
mod decode;
mod fetch;
mod headers;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use palisade_model::Kind;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{Decide, EgressError, Guard, Scheme, Target};

pub use body::ResponseBody;
pub use tls::{Tls, TlsError};

/// The only `User-Agent` that is sent.
pub const USER_AGENT: &str = concat!("palisade/", env!("CARGO_PKG_VERSION"));

/// Bounds of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most bytes of the request's body.
    pub request_bytes: u64,
    /// Most bytes of the answer's body as it comes over the wire.
    pub response_bytes: u64,
    /// Most bytes of the answer's body after decompression.
    pub decompressed_bytes: u64,
    /// How many times its compressed size a body of more than 1 MiB may have.
    pub decompression_ratio: u64,
    /// Most header fields, in the request and in the answer.
    pub headers: usize,
    /// Most bytes of headers, in the request and in the answer; 8192 or more.
    pub header_bytes: usize,
    /// Most redirects that are followed.
    pub redirects: u8,
    /// How long everything may take, with redirects, to the last byte.
    pub total: Duration,
}

impl Default for Caps {
    /// 8 MiB out, 32 MiB in, 64 MiB and 200 times after decompression, 100 headers of 64 KiB, 10
    /// redirects, 60 s.
    fn default() -> Self {
        Self {
            request_bytes: 8 << 20,
            response_bytes: 32 << 20,
            decompressed_bytes: 64 << 20,
            decompression_ratio: 200,
            headers: 100,
            header_bytes: 64 << 10,
            redirects: 10,
            total: Duration::from_secs(60),
        }
    }
}

/// A request with a body that is in memory.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method; not `CONNECT` or `TRACE`.
    pub method: Method,
    /// What is requested.
    pub target: Target,
    /// Header fields. Those that say whom the request is for, where it ends, or what becomes of the
    /// connection are written by the client and refused here; `User-Agent` is replaced.
    pub headers: HeaderMap,
    /// The body; empty means none for methods that have none.
    pub body: Bytes,
}

impl Request {
    /// A `GET` without further headers.
    #[must_use]
    pub fn get(target: Target) -> Self {
        Self { method: Method::GET, target, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// An answer, complete and unpacked.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The header fields; where the body was unpacked, without `Content-Encoding` and
    /// `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What was requested in the end.
    pub target: Target,
    /// How many redirects led there.
    pub redirects: u8,
}

/// Makes requests through the guard. Cloning shares it.
#[derive(Clone)]
pub struct Client {
    guard: Guard,
    tls: Tls,
}

impl Client {
    /// A client that goes out through `guard` and trusts what `tls` trusts.
    #[must_use]
    pub fn new(guard: Guard, tls: Tls) -> Self {
        Self { guard, tls }
    }

    /// Makes one request with a right `net.http` and gives the answer with its body as it comes. Of the
    /// request's URI nothing counts; whom it goes to and what is requested says `target`. How long the
    /// body is says the body itself (its size hint; in chunks where that is not exact), so that a
    /// `Content-Length` of the caller's is taken out beforehand. `caps.total` runs until
    /// the last byte of the body.
    ///
    /// # Errors
    /// Those of [`Guard::connect`], of TLS, and where a bound is exceeded.
    pub async fn send<B>(
        &self,
        decide: &dyn Decide,
        target: &Target,
        request: http::Request<B>,
        caps: &Caps,
    ) -> Result<http::Response<ResponseBody>, EgressError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let deadline = Instant::now() + caps.total;
        self.send_by(decide, target, request, caps, deadline).await
    }

    async fn send_by<B>(
        &self,
        decide: &dyn Decide,
        target: &Target,
        request: http::Request<B>,
        caps: &Caps,
        deadline: Instant,
    ) -> Result<http::Response<ResponseBody>, EgressError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connect = async {
            let authority = target.authority();
            Ok(self.guard.connect(decide, Kind::NetHttp, authority).await?.stream)
        };
        exchange(connect, &self.tls, target, request, caps, deadline).await
    }
}

/// [`Client::send`] over a connection that the guard has made before: `connection` gives it, and leads to
/// `target`.
///
/// # Errors
/// Those of `connection` and of TLS, and where a bound is exceeded.
pub async fn send_over<B>(
    connection: impl Future<Output = Result<TcpStream, EgressError>> + Send,
    tls: &Tls,
    target: &Target,
    request: http::Request<B>,
    caps: &Caps,
) -> Result<http::Response<ResponseBody>, EgressError>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    exchange(connection, tls, target, request, caps, Instant::now() + caps.total).await
}

async fn exchange<B>(
    connection: impl Future<Output = Result<TcpStream, EgressError>> + Send,
    tls: &Tls,
    target: &Target,
    request: http::Request<B>,
    caps: &Caps,
    deadline: Instant,
) -> Result<http::Response<ResponseBody>, EgressError>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    headers::check_request(&parts.method, &parts.headers, caps)?;
    parts.uri = target.path().parse().map_err(|_| EgressError::BadUrl("its path is not valid"))?;
    parts.version = http::Version::HTTP_11;
    let host = HeaderValue::from_str(&target.host_header())
        .map_err(|_| EgressError::BadUrl("its host is not valid"))?;
    parts.headers.insert(header::HOST, host);
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let body = body::RequestBody::new(body, caps.request_bytes)?;
    let request = http::Request::from_parts(parts, body);

    let exchange = async {
        let connection = connection.await?;
        let stream = match target.scheme() {
            Scheme::Http => tls::Stream::Plain(connection),
            Scheme::Https => tls.connect(target.authority().host(), connection).await?,
        };
        let (mut sender, driver) = http1::Builder::new()
            .max_headers(caps.headers)
            .max_buf_size(caps.header_bytes.max(8192))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(hyper_error)?;
        // Ends with the answer's body, or when that is dropped.
        let driver = body::Driver(tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        }));
        let response = sender.send_request(request).await.map_err(hyper_error)?;
        Ok((response, driver))
    };
    let late = EgressError::Deadline { what: "the request", limit: caps.total };
    let (response, driver) = timeout_at(deadline, exchange).await.unwrap_or(Err(late))?;
    let (parts, body) = response.into_parts();
    headers::check_response(&parts.headers, caps)?;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(EgressError::BadResponse("it switches protocols".into()));
    }
    let body = ResponseBody::new(body, driver, caps, deadline)?;
    Ok(http::Response::from_parts(parts, body))
}

/// What hyper says, with the bounds that it knows told apart.
fn hyper_error(error: hyper::Error) -> EgressError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(body::TooLarge(limit)) = cause.downcast_ref() {
            return EgressError::TooLarge {
                what: "the body of the request",
                limit: *limit,
                unit: "bytes",
            };
        }
        source = cause.source();
    }
    if error.is_parse() {
        return EgressError::BadResponse(palisade_model::text::escape(&error.to_string(), 120));
    }
    EgressError::Io(std::io::Error::other(error))
}

/// Reads a body to its end, within its caps.
async fn collect(body: ResponseBody) -> Result<Bytes, EgressError> {
    Ok(body.collect().await?.to_bytes())
}
