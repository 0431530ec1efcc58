//! The first message of TLS: which server the client names, in the clear.
//!
//! Reads the `ClientHello` (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2) as far as is needed for its
//! `server_name` (RFC 6066, 3), over several records where it was split. Bounded, strict, and without a
//! second opinion: two names, a name that is none, an encrypted inner hello, trailing bytes are refused.

use crate::{EgressError, Host};

/// Longest `ClientHello` with the headers of its records, in bytes. Those of browsers with
/// post-quantum key shares have under 3 KiB.
pub const MAX_HELLO_LEN: usize = 32 * 1024;
/// Longest plaintext of a record (RFC 8446, 5.1).
const MAX_RECORD_LEN: usize = 1 << 14;
/// Most records that one hello may be split into.
const MAX_RECORDS: usize = 64;
/// The content type of a handshake record.
pub const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const HOST_NAME: u8 = 0;

/// A fatal alert `unrecognized_name` (RFC 6066, 3), with which a client can say what went wrong.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What a `ClientHello` says about the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    server_name: Option<Host>,
}

impl Hello {
    /// The name in the handshake, where there is one.
    #[must_use]
    pub fn server_name(&self) -> Option<&Host> {
        self.server_name.as_ref()
    }
}

/// Reads the hello at the start of `bytes`: `None` where it is not complete yet.
///
/// # Errors
/// [`EgressError::Handshake`] where it is not a `ClientHello`, is broken, too long, names several
/// servers, or hides the name (encrypted client hello).
pub fn parse(bytes: &[u8]) -> Result<Option<Hello>, EgressError> {
    let Some(message) = message(bytes)? else { return Ok(None) };
    let mut hello = Reader(&message);
    let _version = hello.take(2)?;
    let _random = hello.take(32)?;
    let _session = hello.vec8()?;
    let suites = hello.vec16()?;
    let compressions = hello.vec8()?;
    if suites.0.len() < 2 || suites.0.len() % 2 != 0 || compressions.0.is_empty() {
        return Err(BROKEN);
    }
    if hello.0.is_empty() {
        // Before TLS 1.2 extensions could be absent altogether.
        return Ok(Some(Hello { server_name: None }));
    }
    let mut extensions = hello.vec16()?;
    hello.end()?;
    let mut server_name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vec16()?;
        match kind {
            ENCRYPTED_CLIENT_HELLO => {
                return Err(EgressError::Handshake("it hides the server's name (ECH)"));
            }
            SERVER_NAME if server_name.is_some() => {
                return Err(EgressError::Handshake("it names the server twice"));
            }
            SERVER_NAME => server_name = Some(name(body)?),
            _ => {}
        }
    }
    Ok(Some(Hello { server_name }))
}

const BROKEN: EgressError = EgressError::Handshake("it is not a valid ClientHello");
const TOO_LONG: EgressError = EgressError::Handshake("its ClientHello is too long");

/// The body of the first handshake message, put together from its records.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, EgressError> {
    let mut message: Vec<u8> = Vec::new();
    let mut rest = bytes;
    for _ in 0..MAX_RECORDS {
        match rest.first() {
            None => break,
            Some(&HANDSHAKE) => {}
            Some(_) if message.is_empty() => {
                return Err(EgressError::Handshake("it does not begin with TLS"));
            }
            Some(_) => return Err(BROKEN),
        }
        // The version of the record says nothing, but its first byte is 3 since SSL 3.0.
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Err(BROKEN);
        }
        let Some((header, after)) = rest.split_at_checked(5) else { break };
        let &[_, _, _, high, low] = header else { return Err(BROKEN) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 || len > MAX_RECORD_LEN {
            return Err(BROKEN);
        }
        let complete = after.len() >= len;
        let body = after.get(..len).unwrap_or(after);
        message.extend_from_slice(body);
        // The length stands in the first four bytes, so that one that is too long is known early.
        if let Some((&[kind, a, b, c], body)) = message.split_first_chunk::<4>() {
            let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if kind != CLIENT_HELLO {
                return Err(BROKEN);
            }
            if len > MAX_HELLO_LEN {
                return Err(TOO_LONG);
            }
            if body.len() > len {
                // Nothing may follow a ClientHello before the server has answered.
                return Err(BROKEN);
            }
            if body.len() == len && complete {
                return Ok(Some(body.to_vec()));
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(BROKEN);
        }
        if !complete {
            return if bytes.len() > MAX_HELLO_LEN { Err(TOO_LONG) } else { Ok(None) };
        }
        rest = after.get(len..).unwrap_or_default();
    }
    if bytes.len() > MAX_HELLO_LEN || rest.len() >= 5 { Err(TOO_LONG) } else { Ok(None) }
}

/// The body of the `server_name` extension.
fn name(mut body: Reader<'_>) -> Result<Host, EgressError> {
    let mut list = body.vec16()?;
    body.end()?;
    let kind = list.u8()?;
    let name = list.vec16()?;
    if kind != HOST_NAME {
        return Err(BROKEN);
    }
    if !list.0.is_empty() {
        return Err(EgressError::Handshake("it names several servers"));
    }
    // Without a trailing dot, and never an address (RFC 6066, 3).
    let bad = EgressError::Handshake("the name in it is not a host name");
    match Host::parse_bytes(name.0) {
        Ok(host) if host.name().is_some() && !name.0.ends_with(b".") => Ok(host),
        _ => Err(bad),
    }
}

/// Takes from the front; what is not there is an error, since the message is complete.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], EgressError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, EgressError> {
        self.take(1)?.first().copied().ok_or(BROKEN)
    }

    fn u16(&mut self) -> Result<u16, EgressError> {
        match self.take(2)? {
            &[high, low] => Ok(u16::from_be_bytes([high, low])),
            _ => Err(BROKEN),
        }
    }

    fn vec8(&mut self) -> Result<Reader<'a>, EgressError> {
        let len = self.u8()?;
        self.take(len.into()).map(Reader)
    }

    fn vec16(&mut self) -> Result<Reader<'a>, EgressError> {
        let len = self.u16()?;
        self.take(len.into()).map(Reader)
    }

    fn end(&self) -> Result<(), EgressError> {
        if self.0.is_empty() { Ok(()) } else { Err(BROKEN) }
    }
}

#[cfg(test)]
mod tests;
