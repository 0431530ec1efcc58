//! Which header fields may be sent, how many, and what a redirect changes about them.

use http::{HeaderMap, HeaderName, Method, header};

use super::Caps;
use crate::EgressError;

/// Fields that the client writes itself: they say whom the request is for, where it ends, and what
/// becomes of the connection. In a plugin's hands they are means to smuggle.
const OURS: &[HeaderName] = &[
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];
const OURS_TOO: &[&str] = &["keep-alive", "proxy-connection", "http2-settings"];

/// Fields that are for one server only.
const CREDENTIALS: &[HeaderName] = &[header::AUTHORIZATION, header::COOKIE];

pub(super) fn check_request(
    method: &Method,
    headers: &HeaderMap,
    caps: &Caps,
) -> Result<(), EgressError> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(EgressError::BadRequest("its method is CONNECT or TRACE"));
    }
    let ours = OURS.iter().any(|name| headers.contains_key(name))
        || OURS_TOO.iter().any(|name| headers.contains_key(*name));
    if ours {
        return Err(EgressError::BadRequest(
            "Host, Content-Length, Transfer-Encoding, Connection, Upgrade, Keep-Alive, TE, Trailer, Expect and Proxy-* cannot be set",
        ));
    }
    within(headers, caps, "the headers of the request")
}

pub(super) fn check_response(headers: &HeaderMap, caps: &Caps) -> Result<(), EgressError> {
    within(headers, caps, "the headers of the answer")
}

fn within(headers: &HeaderMap, caps: &Caps, what: &'static str) -> Result<(), EgressError> {
    if headers.len() > caps.headers {
        return Err(EgressError::TooLarge { what, limit: caps.headers as u64, unit: "fields" });
    }
    // With colon, space and line end.
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if bytes > caps.header_bytes {
        return Err(EgressError::TooLarge { what, limit: caps.header_bytes as u64, unit: "bytes" });
    }
    Ok(())
}

/// Takes out what another origin must not see.
pub(super) fn strip_credentials(headers: &mut HeaderMap) {
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// Takes out what describes a body that is no longer sent.
pub(super) fn strip_body(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LOCATION,
    ] {
        headers.remove(name);
    }
}
