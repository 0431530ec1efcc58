//! Requests to the web, which the host makes: `http.fetch`.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{args, error::PalisadeError, handle::Handle};

/// Requests to the web. A plugin has no network of its own: the host makes them, where the capability
/// `net.http:HOST:PORT` was granted.
#[derive(Debug)]
pub struct Http<'a>(&'a Handle);

/// A request. A URL alone is one too.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<bool>,
}

impl Request {
    /// A request of a URL: `GET`, with a body `POST`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            method: None,
            headers: Vec::new(),
            body: None,
            body_base64: None,
            timeout_ms: None,
            redirect: None,
        }
    }

    /// With a method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// With a header field more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body: at most 2 MiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        (self.body, self.body_base64) = match String::from_utf8(body.into()) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(base64(bytes.as_bytes()))),
        };
        self
    }

    /// Everything may take so long: at most 60 s. 30 s if not given.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Whether redirects are followed, as they are if this is not given.
    #[must_use]
    pub fn redirect(mut self, is_followed: bool) -> Self {
        self.redirect = Some(is_followed);
        self
    }
}

impl From<&str> for Request {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

/// An answer, whichever its status: 404 is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, unpacked.
    pub body: Vec<u8>,
    /// What was requested in the end.
    pub url: String,
    /// How many redirects led there.
    pub redirects: u8,
}

impl Response {
    /// The first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, as any type that it fits.
    ///
    /// # Errors
    /// `PAL-PARAMS` where it does not fit.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, PalisadeError> {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.body)
            .map_err(|e| PalisadeError::params(format!("body: not JSON: {e}")))?;
        args::read(&self.text(), "body")
    }
}

impl<'a> Http<'a> {
    pub(crate) fn new(handle: &'a Handle) -> Self {
        Self(handle)
    }

    /// Makes a request.
    ///
    /// ```no_run
    /// # fn f(call: &palisade_plugin::Call) -> palisade_plugin::Result<()> {
    /// let page = call.http().fetch("https://example.org/")?;
    /// assert_eq!(page.status, 200);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `PAL-DENIED` where the host and port are not granted, `PAL-UNAVAILABLE` where nobody answers,
    /// `PAL-DEADLINE`, `PAL-LIMIT` where the answer is too long.
    pub fn fetch(&self, request: impl Into<Request>) -> Result<Response, PalisadeError> {
        #[derive(Deserialize)]
        struct Answer {
            status: u16,
            headers: Vec<(String, String)>,
            #[serde(default)]
            body: Option<String>,
            #[serde(default)]
            body_base64: Option<String>,
            url: String,
            #[serde(default)]
            redirects: u8,
        }
        let request = request.into();
        // The host tells what took too long; this side only must not give up before it.
        let wait = request.timeout_ms.map(|ms| Duration::from_millis(ms) + Duration::from_secs(2));
        let handle = wait.map_or_else(|| self.0.clone(), |wait| self.0.timeout(wait));
        let answer: Answer = handle.request("http.fetch", &request)?;
        let body = match (answer.body, answer.body_base64) {
            (_, Some(text)) => from_base64(&text).ok_or_else(|| {
                PalisadeError::new("PAL-INTERNAL", "the answer to http.fetch: not base64")
            })?,
            (text, None) => text.unwrap_or_default().into_bytes(),
        };
        let Answer { status, headers, url, redirects, .. } = answer;
        Ok(Response { status, headers, body, url, redirects })
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * i) & 63).unwrap_or_default();
            let is_padding = i as usize > group.len();
            let digit = DIGITS.get(digit).copied().unwrap_or(b'=');
            text.push(char::from(if is_padding { b'=' } else { digit }));
        }
    }
    text
}

/// None where it is not base64.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = DIGITS.iter().position(|d| d == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bits <<= 6 * (4 - group.len());
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend([first, second, third].iter().take(group.len() - 1));
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_base64(&base64(&all)).unwrap(), all);
        for wrong in ["Zg", "Zg=", "====", "Z===", "Zm9v!A==", "Zm 9"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_body_is_text_where_it_can_be() {
        let text = Request::new("http://a/").body("é");
        assert_eq!((text.body.as_deref(), text.body_base64), (Some("é"), None));
        let bytes = Request::new("http://a/").body([0xff, 0]);
        assert_eq!((bytes.body, bytes.body_base64.as_deref()), (None, Some("/wA=")));
    }
}
