//! Heads of HTTP/1 messages, read strictly, for the proxy.
//!
//! Two readers that disagree on where a message ends can be made to see different requests (request
//! smuggling). So what RFC 9112 lets a reader repair is refused here: bare CR or LF, folded lines, space
//! before the colon, two `Content-Length` or `Host` headers, `Content-Length` beside
//! `Transfer-Encoding`, any transfer coding but `chunked`. And nothing is passed on as it came: the
//! proxy writes every head anew.

pub mod chunked;
#[cfg(test)]
mod tests;

use crate::EgressError;

/// Longest head, in bytes, with the empty line.
pub const MAX_HEAD_LEN: usize = 64 * 1024;
/// Most header fields.
pub const MAX_FIELDS: usize = 128;

/// One header field. The name is a token as it came; the value has no space around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: Vec<u8>,
}

impl Field {
    /// The name, in the case in which it came.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value: visible ASCII, space, tab and bytes from 0x80.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The header fields of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

/// Where a message's body ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// Where the connection ends; answers only.
    UntilClose,
}

/// Fields that belong to one connection and are not passed on (RFC 9110, 7.6.1), with those that only
/// proxies read.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Fields {
    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    /// The value of the one field with this name.
    ///
    /// # Errors
    /// `many` where there is more than one.
    fn only(&self, name: &str, many: &'static str) -> Result<Option<&[u8]>, EgressError> {
        let mut found = self.0.iter().filter(|f| f.is(name));
        let first = found.next().map(Field::value);
        match found.next() {
            None => Ok(first),
            Some(_) => Err(EgressError::BadRequest(many)),
        }
    }

    /// The value of the one `Host` field.
    ///
    /// # Errors
    /// [`EgressError::BadRequest`] where there are several, or the value is not ASCII.
    pub fn host(&self) -> Result<Option<&str>, EgressError> {
        let Some(value) = self.only("host", "it has more than one Host")? else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => Ok(Some(text)),
            _ => Err(EgressError::BadRequest("its Host is not ASCII")),
        }
    }

    /// Whether a list-valued field (`Connection`) has this token.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
    }

    fn tokens<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |f| f.is(name))
            .flat_map(|f| f.value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
    }

    /// Where the body ends, as far as the fields say: `None` where they say nothing.
    fn declared(&self, version: Version) -> Result<Option<Framing>, EgressError> {
        let length = self.only("content-length", "it has more than one Content-Length")?;
        let coding = self.only("transfer-encoding", "it has more than one Transfer-Encoding")?;
        match (length, coding) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(EgressError::BadRequest("it has both a Content-Length and a Transfer-Encoding"))
            }
            (Some(digits), None) => {
                let bad = EgressError::BadRequest("its Content-Length is not a number");
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(bad);
                }
                let text = std::str::from_utf8(digits).unwrap_or_default();
                text.parse().map(|n| Some(Framing::Length(n))).map_err(|_| bad)
            }
            (None, Some(coding)) if !coding.eq_ignore_ascii_case(b"chunked") => {
                Err(EgressError::BadRequest("its Transfer-Encoding is not chunked"))
            }
            (None, Some(_)) if version == Version::Http10 => {
                Err(EgressError::BadRequest("HTTP/1.0 has no Transfer-Encoding"))
            }
            (None, Some(_)) => Ok(Some(Framing::Chunked)),
        }
    }

    /// The fields to pass on: without those of the connection, those that `Connection` names, and those
    /// that the proxy writes itself (`Host`, `Content-Length`, `Expect`).
    pub fn forwarded(&self) -> impl Iterator<Item = &Field> {
        self.0.iter().filter(|f| {
            !HOP_BY_HOP.iter().any(|hop| f.is(hop))
                && !["host", "content-length", "expect"].iter().any(|own| f.is(own))
                && !self.tokens("connection").any(|t| t.eq_ignore_ascii_case(f.name.as_bytes()))
        })
    }
}

/// The version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, a token.
    pub method: String,
    /// The request target as it stands there, visible ASCII.
    pub target: String,
    /// The version.
    pub version: Version,
    /// The header fields.
    pub fields: Fields,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100..=999.
    pub status: u16,
    /// The reason phrase.
    pub reason: Vec<u8>,
    /// The version.
    pub version: Version,
    /// The header fields.
    pub fields: Fields,
}

/// How long the head at the start of `bytes` is, once it is complete.
///
/// # Errors
/// [`EgressError::TooLarge`] beyond [`MAX_HEAD_LEN`]; [`EgressError::BadRequest`] as soon as a bare line
/// end or a NUL stands there.
pub fn head_len(bytes: &[u8]) -> Result<Option<usize>, EgressError> {
    let head = bytes.get(..MAX_HEAD_LEN).unwrap_or(bytes);
    let mut line_len = 0;
    let mut rest = head.iter().copied().enumerate().peekable();
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'\r' => match rest.peek() {
                None => break,
                Some((_, b'\n')) => {
                    rest.next();
                    if line_len == 0 {
                        return Ok(Some(at + 2));
                    }
                    line_len = 0;
                }
                Some(_) => return Err(EgressError::BadRequest("it has a bare CR")),
            },
            b'\n' => return Err(EgressError::BadRequest("it has a bare LF")),
            0 => return Err(EgressError::BadRequest("it has a NUL")),
            _ => line_len += 1,
        }
    }
    if bytes.len() >= MAX_HEAD_LEN {
        let limit = MAX_HEAD_LEN as u64;
        return Err(EgressError::TooLarge {
            what: "the head of the message",
            limit,
            unit: "bytes",
        });
    }
    Ok(None)
}

/// The lines of a complete head without the empty one; each had CRLF behind it.
fn lines(head: &[u8]) -> Result<impl Iterator<Item = &[u8]>, EgressError> {
    if head_len(head)? != Some(head.len()) {
        return Err(EgressError::BadRequest("its head is not complete"));
    }
    let lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.take_while(|line| !line.is_empty()))
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Fields, EgressError> {
    let mut fields = Vec::new();
    for line in lines {
        if fields.len() == MAX_FIELDS {
            let limit = MAX_FIELDS as u64;
            return Err(EgressError::TooLarge { what: "the head", limit, unit: "header fields" });
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(EgressError::BadRequest("it has a folded header line"));
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = colon
            .and_then(|at| line.split_at_checked(at))
            .ok_or(EgressError::BadRequest("a header line has no colon"))?;
        if !is_token(name) {
            return Err(EgressError::BadRequest("the name of a header is not a token"));
        }
        let value = value.get(1..).unwrap_or_default();
        let fits = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
        if !value.iter().all(fits) {
            return Err(EgressError::BadRequest("a header has a control character"));
        }
        let name = String::from_utf8_lossy(name).into_owned();
        fields.push(Field { name, value: value.trim_ascii().to_vec() });
    }
    Ok(Fields(fields))
}

impl RequestHead {
    /// Reads a complete head (see [`head_len`]).
    ///
    /// # Errors
    /// [`EgressError::BadRequest`], [`EgressError::TooLarge`].
    pub fn parse(head: &[u8]) -> Result<Self, EgressError> {
        let mut lines = lines(head)?;
        let first = lines.next().ok_or(EgressError::BadRequest("it is empty"))?;
        let mut parts = first.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(EgressError::BadRequest("its first line is not METHOD TARGET VERSION"));
        };
        if !is_token(method) {
            return Err(EgressError::BadRequest("its method is not a token"));
        }
        if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(EgressError::BadRequest(
                "its target has a character that may not be there",
            ));
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(EgressError::BadRequest("it is neither HTTP/1.1 nor HTTP/1.0")),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self { method: text(method), target: text(target), version, fields: fields(lines)? })
    }

    /// Where the body ends.
    ///
    /// # Errors
    /// [`EgressError::BadRequest`] where that could be read in two ways.
    pub fn framing(&self) -> Result<Framing, EgressError> {
        Ok(match self.fields.declared(self.version)? {
            None | Some(Framing::Length(0)) => Framing::Empty,
            Some(framing) => framing,
        })
    }

    /// Whether the client will send another request after this one.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.version == Version::Http11
            && !self.fields.has_token("connection", "close")
            && !self.fields.has_token("proxy-connection", "close")
    }
}

impl ResponseHead {
    /// Reads a complete head (see [`head_len`]).
    ///
    /// # Errors
    /// [`EgressError::BadRequest`], [`EgressError::TooLarge`]: the caller says whose message it was.
    pub fn parse(head: &[u8]) -> Result<Self, EgressError> {
        let mut lines = lines(head)?;
        let first = lines.next().ok_or(EgressError::BadRequest("it is empty"))?;
        let bad = EgressError::BadRequest("its first line is not VERSION STATUS REASON");
        let mut parts = first.splitn(3, |b| *b == b' ');
        let (version, status) = (parts.next(), parts.next());
        let version = match version {
            Some(b"HTTP/1.1") => Version::Http11,
            Some(b"HTTP/1.0") => Version::Http10,
            _ => return Err(bad),
        };
        let status = match status.map(std::str::from_utf8) {
            Some(Ok(text)) if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) => text,
            _ => return Err(bad),
        };
        let status = status.parse().ok().filter(|s| *s >= 100).ok_or(bad)?;
        let reason = parts.next().unwrap_or_default().to_vec();
        if !reason.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..)) {
            return Err(EgressError::BadRequest("its reason has a control character"));
        }
        Ok(Self { status, reason, version, fields: fields(lines)? })
    }

    /// Where the body of the answer to a request with `method` ends.
    ///
    /// # Errors
    /// [`EgressError::BadRequest`] where that could be read in two ways.
    pub fn framing(&self, method: &str) -> Result<Framing, EgressError> {
        let declared = self.fields.declared(self.version)?;
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        Ok(declared.unwrap_or(Framing::UntilClose))
    }

    /// The `Content-Length` as it came, for answers that have one without a body (to `HEAD`, 304).
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        match self.fields.declared(self.version) {
            Ok(Some(Framing::Length(n))) => Some(n),
            _ => None,
        }
    }
}
