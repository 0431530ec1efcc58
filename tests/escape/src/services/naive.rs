//! A proxy as it should not be: it lets everything through, and reads names, addresses, ports and requests
//! as loosely as proxies have done that were escaped from. The positive controls of attempts 37 to 41 go
//! through it: what not even it understands proves nothing about a stricter one.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::trouble::{Result, While};

/// How the proxy reads where two readings are possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// `Host` counts before the target.
    pub by_host: bool,
    /// `Content-Length` counts before `Transfer-Encoding`.
    pub by_length: bool,
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts one on a loopback port; counts who came.
///
/// # Errors
/// When the socket cannot be made.
pub fn start(reading: Reading, visits: &Arc<AtomicUsize>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("starting a naive proxy")?;
    let port = listener.local_addr()?.port();
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            visits.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || Conversation { client, had: Vec::new(), reading }.run());
        }
    });
    Ok(port)
}

/// Starts a name server on a loopback port, which knows what `look_up` knows; counts who came.
///
/// # Errors
/// When the socket cannot be made.
pub fn name_server(visits: &Arc<AtomicUsize>) -> Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).doing("starting a name server")?;
    let port = socket.local_addr()?.port();
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        let mut buffer = [0u8; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            visits.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = buffer.get(..n).and_then(named) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(port)
}

/// The answer to a query with one question (RFC 1035, 4.1): an address of version 4.
fn named(query: &[u8]) -> Option<Vec<u8>> {
    let (head, question) = query.split_at_checked(12)?;
    let (mut name, mut rest) = (Vec::new(), question);
    while let Some((length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, left) = after.split_at_checked(usize::from(*length))?;
        name.extend_from_slice(label);
        name.push(b'.');
        rest = left;
    }
    let IpAddr::V4(address) = look_up(&name)? else { return None };
    let answer = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4];
    let flags = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    Some([head.get(..2)?, &flags, question, &answer, &address.octets()].concat())
}

struct Conversation {
    client: TcpStream,
    /// Read and not yet used.
    had: Vec<u8>,
    reading: Reading,
}

impl Conversation {
    /// Until something is not understood at all.
    fn run(mut self) -> Option<()> {
        self.client.set_read_timeout(Some(PATIENCE)).ok()?;
        self.need(1)?;
        match self.had.first()? {
            5 => self.socks(),
            4 => self.socks4(),
            _ => while self.request().is_some() {},
        }
        let _ = self.client.shutdown(Shutdown::Write);
        Some(())
    }

    /// Reads until there are so many bytes.
    fn need(&mut self, count: usize) -> Option<()> {
        let mut buffer = [0u8; 4096];
        while self.had.len() < count {
            let n = self.client.read(&mut buffer).ok().filter(|n| *n > 0)?;
            self.had.extend_from_slice(buffer.get(..n)?);
        }
        Some(())
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        self.need(count)?;
        Some(self.had.drain(..count).collect())
    }

    /// A line without its end, whatever ends it.
    fn line(&mut self) -> Option<Vec<u8>> {
        let mut at = 0;
        loop {
            self.need(at + 1)?;
            if self.had.get(at) == Some(&b'\n') {
                let mut line = self.take(at + 1)?;
                line.pop();
                line.pop_if(|b| *b == b'\r');
                return Some(line);
            }
            at += 1;
        }
    }

    fn request(&mut self) -> Option<()> {
        let mut first = self.line()?;
        while first.is_empty() {
            first = self.line()?;
        }
        let mut head = [first.as_slice(), b"\r\n"].concat();
        let mut words = first.splitn(2, |b| *b == b' ');
        let (method, target) = (words.next()?.to_vec(), words.next()?.to_vec());
        // HTTP/0.9 has nothing behind its only line; this proxy waits for no more than an empty one.
        loop {
            let line = self.line().unwrap_or_default();
            head.extend_from_slice(&line);
            head.extend_from_slice(b"\r\n");
            if line.is_empty() {
                break;
            }
        }
        let fields = String::from_utf8_lossy(&head).to_ascii_lowercase();
        // Any line end, any space: the last one wins.
        let value = |name: &str| {
            let lines = fields.split(['\r', '\n']).filter_map(|l| l.split_once(':'));
            lines.filter(|(n, _)| n.trim() == name).map(|(_, v)| v.trim().to_owned()).next_back()
        };
        let first_length = fields.split("content-length:").nth(1).map(number);
        let to = match value("host").filter(|_| self.reading.by_host || target.starts_with(b"/")) {
            // A target of two slashes has the host itself.
            Some(_) if target.starts_with(b"//") => destination(target.get(2..)?)?,
            Some(host) => destination(host.as_bytes())?,
            None => destination(&target)?,
        };
        let mut server = TcpStream::connect(to).ok()?;
        if method.eq_ignore_ascii_case(b"connect") {
            self.client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            relay(&self.client, &server, &self.had);
            return None;
        }
        server.write_all(&head).ok()?;
        if fields.contains("chunked") && !(self.reading.by_length && first_length.is_some()) {
            loop {
                let line = self.line()?;
                let size = chunk_size(&line);
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    break;
                }
                self.take(size)?;
                self.line()?;
            }
        } else if let Some(length) = first_length {
            self.take(length)?;
        }
        // Bodies are not passed on: what is looked for is the next request.
        let mut answer = Vec::new();
        server.set_read_timeout(Some(PATIENCE)).ok()?;
        let _ = server.read_to_end(&mut answer);
        self.client.write_all(&answer).ok()
    }

    fn socks(&mut self) {
        let _ = self.socks5();
    }

    fn socks5(&mut self) -> Option<()> {
        let methods = usize::from(*self.take(2)?.last()?);
        let methods = self.take(methods)?;
        if methods.contains(&0) {
            self.client.write_all(&[5, 0]).ok()?;
        } else {
            self.client.write_all(&[5, 2]).ok()?;
            let name = usize::from(*self.take(2)?.last()?);
            self.take(name)?;
            let password = usize::from(*self.take(1)?.last()?);
            self.take(password)?;
            self.client.write_all(&[1, 0]).ok()?;
        }
        let head = self.take(4)?;
        let name = match head.get(3)? {
            1 => {
                let octets: [u8; 4] = self.take(4)?.try_into().ok()?;
                Ipv4Addr::from(octets).to_string().into_bytes()
            }
            4 => {
                let octets: [u8; 16] = self.take(16)?.try_into().ok()?;
                format!("[{}]", Ipv6Addr::from(octets)).into_bytes()
            }
            _ => {
                let length = usize::from(*self.take(1)?.last()?);
                self.take(length)?
            }
        };
        let port: [u8; 2] = self.take(2)?.try_into().ok()?;
        if head.get(1) == Some(&3) {
            return self.datagrams();
        }
        let to = SocketAddr::new(look_up(&name)?, u16::from_be_bytes(port));
        self.opened(to, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    }

    fn socks4(&mut self) {
        let _ = self.socks4a();
    }

    fn socks4a(&mut self) -> Option<()> {
        let head = self.take(8)?;
        while self.take(1)? != [0] {}
        let &[_, _, high, low, a, b, c, d] = head.as_slice() else { return None };
        let mut host = IpAddr::from([a, b, c, d]);
        if (a, b, c) == (0, 0, 0) && d != 0 {
            let mut name = Vec::new();
            loop {
                match self.take(1)?.first()? {
                    0 => break,
                    byte => name.push(*byte),
                }
            }
            host = look_up(&name)?;
        }
        let to = SocketAddr::new(host, u16::from_be_bytes([high, low]));
        self.opened(to, &[0, 90, 0, 0, 0, 0, 0, 0])
    }

    fn opened(&mut self, to: SocketAddr, yes: &[u8]) -> Option<()> {
        let server = TcpStream::connect(to).ok()?;
        self.client.write_all(yes).ok()?;
        relay(&self.client, &server, &self.had);
        Some(())
    }

    /// One datagram there and one back.
    fn datagrams(&mut self) -> Option<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let port = socket.local_addr().ok()?.port().to_be_bytes();
        self.client.write_all(&[&[5, 0, 0, 1, 127, 0, 0, 1], &port[..]].concat()).ok()?;
        let mut buffer = [0u8; 2048];
        let (n, from) = socket.recv_from(&mut buffer).ok()?;
        let (head, asked) = buffer.get(..n)?.split_at_checked(10)?;
        let &[_, _, _, _, a, b, c, d, high, low] = head else { return None };
        let to = SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])));
        let out = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        out.set_read_timeout(Some(PATIENCE)).ok()?;
        out.send_to(asked, to).ok()?;
        let mut answer = [0u8; 2048];
        let n = out.recv(&mut answer).ok()?;
        socket.send_to(&[head, answer.get(..n)?].concat(), from).ok()?;
        Some(())
    }
}

/// Both directions until both have ended.
fn relay(client: &TcpStream, server: &TcpStream, first: &[u8]) {
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { return };
    if to.write_all(first).is_err() {
        return;
    }
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = client.shutdown(Shutdown::Write);
    let _ = up.join();
}

/// As `atoi` of another age: space and sign before, whatever behind, and no look at overflow.
fn number(text: &str) -> usize {
    let text = text.trim_start().trim_start_matches('+');
    let digits = text.bytes().take_while(u8::is_ascii_digit);
    digits.fold(0usize, |n, b| n.wrapping_mul(10).wrapping_add(usize::from(b - b'0')))
}

/// As `strtol(…, 16)` into a word, with the sign dropped and the prefix read over.
fn chunk_size(line: &[u8]) -> usize {
    let text = String::from_utf8_lossy(line).to_ascii_lowercase();
    let text = text.trim_start().trim_start_matches('-');
    // A reader that knows no prefix stops at the x.
    let digits = text.chars().map_while(|c| c.to_digit(16));
    let size = digits.fold(0usize, |n, d| n.wrapping_mul(16).wrapping_add(d as usize));
    // A negative size was a large one, and a large one was none.
    if line.starts_with(b"-") { 0 } else { size }
}

/// Where a target leads, read as loosely as possible.
fn destination(target: &[u8]) -> Option<SocketAddr> {
    let text = unwidened(&unescaped(target));
    let text = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    // A NUL ends the host where C reads on, and the port stands behind the last colon all the same.
    let port = text.rsplit(':').next().map(|p| p.split(['/', '?', '#', ' ']).next().unwrap_or(p));
    let text = text.split(['/', '\\', '?', '#', '\0', '\r', '\n', '\t']).next()?;
    let (host, own_port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host.to_owned(), port.trim_start_matches(':').to_owned())
        }
        None if text.starts_with("::") => {
            let (host, port) = text.rsplit_once(':')?;
            (host.to_owned(), port.to_owned())
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), port.to_owned()),
            None => (text.to_owned(), port.unwrap_or_default().to_owned()),
        },
    };
    let port = if own_port.is_empty() { number(port?) } else { number(&own_port) };
    // Sixteen bits of it.
    let port = u16::try_from(port & 0xffff).ok()?;
    Some(SocketAddr::new(look_up(host.as_bytes())?, port))
}

/// `%41` is `A`.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Full-width letters and full stops as ASCII, as compatibility normalisation has it.
fn unwidened(bytes: &[u8]) -> String {
    let narrow = |c: char| match c {
        '\u{3002}' => '.',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        other => other,
    };
    String::from_utf8_lossy(bytes).chars().map(narrow).collect()
}

/// As a C resolver reads a host, with a table of names; what is not in it belongs to the attacker, whose
/// name server answers for everything.
fn look_up(host: &[u8]) -> Option<IpAddr> {
    let end = host.iter().position(|b| matches!(b, 0 | b'\r' | b'\n' | b' '));
    let text = unwidened(&unescaped(host.get(..end.unwrap_or(host.len()))?)).to_ascii_lowercase();
    let text = text.rsplit_once('@').map_or(text.as_str(), |(_, rest)| rest);
    let text = text.trim_matches(['[', ']']).trim_end_matches('.');
    let unzoned = text.split('%').next().unwrap_or(text);
    if let Ok(v6) = unzoned.parse::<Ipv6Addr>() {
        return Some(v6.to_ipv4().filter(|_| !v6.is_loopback()).map_or(v6.into(), IpAddr::from));
    }
    if let Some(v4) = numbers_and_dots(text) {
        return Some(v4.into());
    }
    let here = matches!(text, "granted.example" | "localhost")
        || (text.ends_with(".wild.example")
            && !matches!(text, "forbidden.wild.example" | "inner.wild.example"));
    Some(IpAddr::from(if here { [127, 0, 0, 1] } else { [127, 0, 0, 2] }))
}

/// `inet_aton(3)`: one to four parts, decimal, octal or hexadecimal; the last one fills the rest.
fn numbers_and_dots(text: &str) -> Option<Ipv4Addr> {
    let part = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    };
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() <= 3)?;
    let mut value = *last;
    for (i, part) in first.iter().enumerate() {
        value = value.wrapping_add(part.checked_shl(24 - 8 * u32::try_from(i).ok()?)?);
    }
    Some(Ipv4Addr::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_loose_as_it_has_to_be() {
        for text in [
            "127.0.0.2:80",
            "2130706434:80",
            "0177.0.0.2:80",
            "http://0x7f000002:80/",
            "127.2:80",
            "127.000.000.002:80",
            "granted.example:80@127.0.0.2:80",
            "127.0.0.2\0.wild.example:80",
            "http://127.0.0.2%00.wild.example:80/",
            "http://127.0.0.2:80#.wild.example:80/",
            "127.0.0.2:65616",
            "127.0.0.2:+80",
            "127.0.0.2: 80",
            "127%2e0%2e0%2e2:80",
            "127\u{3002}0\u{3002}0\u{3002}2:80",
            "[::ffff:127.0.0.2]:80",
            "[::127.0.0.2]:80",
            "FORBIDDEN.wild.Example.:80",
        ] {
            let found = destination(text.as_bytes()).map(|a| a.ip().to_string());
            assert_eq!(found.as_deref(), Some("127.0.0.2"), "{text:?}");
        }
        assert_eq!(destination(b"[::1%lo]:9"), Some("[::1]:9".parse().unwrap()));
        assert_eq!(destination(b"::1:9"), Some("[::1]:9".parse().unwrap()));
        assert_eq!(destination(b"127.0.0.2:65616").unwrap().port(), 80);
    }
}
