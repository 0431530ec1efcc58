//! Requests to the web, which the host makes: `http.fetch`.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{args, error::PalisadeError, handle::Handle, transport::services};

/// Requests to the web. A plugin has no network of its own: the host makes them, where the capability
/// `net.http:HOST:PORT` was granted.
#[derive(Debug)]
pub struct Http<'a>(&'a Handle);

/// A request. A URL alone is one too.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) url: String,
    pub(crate) method: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) redirect: Option<bool>,
}

impl Request {
    /// A request of a URL: `GET`, with a body `POST`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            method: None,
            headers: Vec::new(),
            body: None,
            timeout: None,
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
        self.body = Some(body.into());
        self
    }

    /// Everything may take so long: at most 60 s. 30 s if not given.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
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
        services::http_fetch(self.0, request.into())
    }
}
