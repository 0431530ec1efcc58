//! Services behind the proxy: one that may be reached, one that may not, and one that has both kinds of
//! sites. Each says which it is in its answer; the forbidden ones count who came.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Map, json};

use crate::trouble::{Result, While};

/// What a service says that nobody inside may reach.
pub const REACHED: &str = "you-have-reached-the-forbidden-service";
/// What the granted one says.
pub const GRANTED: &str = "the-granted-service";
/// The granted service, which needs the port of the forbidden one.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Not granted to anybody.
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A request is taken as complete when nothing came for so long.
const QUIET: Duration = Duration::from_millis(150);
/// How long the first byte may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The extension that hides the name in a TLS handshake.
const ECH: [u8; 2] = [0xfe, 0x0d];

/// Everything that a client says until it is quiet or ends, at most 256 KiB.
fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let (mut got, mut buffer) = (Vec::new(), [0u8; 16 << 10]);
    while got.len() < 256 << 10 {
        let wait = if got.is_empty() { PATIENCE } else { QUIET };
        if stream.set_read_timeout(Some(wait)).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => got.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    got
}

fn answer(stream: &mut TcpStream, text: &str) {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
    // The client may be gone.
    let _ = stream.write_all(format!("{head}: {}\r\n\r\n{text}", text.len()).as_bytes());
}

fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + 'static) {
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = Arc::clone(&each);
            thread::spawn(move || each(stream));
        }
    });
}

/// Two listeners on one port of two addresses.
fn pair() -> Result<(TcpListener, TcpListener, u16)> {
    for _ in 0..100 {
        let here = TcpListener::bind((HERE, 0)).doing("binding a service")?;
        let port = here.local_addr()?.port();
        if let Ok(there) = TcpListener::bind((THERE, port)) {
            return Ok((here, there, port));
        }
    }
    TcpListener::bind((THERE, 0)).doing("binding two services on one port").map(|_| ())?;
    Err(crate::trouble::Trouble("no port is free on two addresses".into()))
}

/// The message of a TLS handshake without the headers of its records; other bytes as they are.
fn without_records(bytes: &[u8]) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), bytes);
    while let [22, _, _, high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (body, left) = after.split_at(len);
        message.extend_from_slice(body);
        rest = left;
    }
    message.extend_from_slice(rest);
    message
}

/// What a server chooses its site by: the first message of a handshake, or everything.
fn chosen_by(heard: &[u8]) -> Vec<u8> {
    let mut message = without_records(heard);
    if let (Some(22), &[_, a, b, c, ..]) = (heard.first(), message.as_slice()) {
        let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        message.truncate(len.saturating_add(4));
    }
    message
}

/// Whether a server of many names would show the forbidden site to who said this.
fn wants_other_site(heard: &[u8], message: &[u8]) -> bool {
    let message = message.to_ascii_lowercase();
    let has = |what: &[u8]| message.windows(what.len()).any(|w| w == what);
    let is_tls = heard.first() == Some(&22);
    has(b"forbidden.example") || !has(b"granted.example") || (is_tls && has(&ECH))
}

/// Starts them; gives their parameters. `visits` counts those at the forbidden ones, and `shared` those at
/// what only the neighbour may reach.
///
/// # Errors
/// When a socket cannot be made.
pub fn start(visits: &Arc<AtomicUsize>) -> Result<Map<String, serde_json::Value>> {
    let mut params = Map::new();
    params.insert("reached".into(), json!(REACHED));
    let (here, there, port) = pair()?;
    params.insert("web_port".into(), json!(port));
    serve(here, |mut stream| {
        hear(&mut stream);
        answer(&mut stream, GRANTED);
    });
    let forbidden = {
        let visits = Arc::clone(visits);
        move |mut stream: TcpStream| {
            visits.fetch_add(1, Ordering::Relaxed);
            hear(&mut stream);
            answer(&mut stream, REACHED);
        }
    };
    serve(there, forbidden.clone());
    if let Ok(listener) = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))) {
        params.insert("web6_port".into(), json!(listener.local_addr()?.port()));
        serve(listener, forbidden.clone());
    }
    let sites = TcpListener::bind((HERE, 0)).doing("binding a service")?;
    params.insert("tls_port".into(), json!(sites.local_addr()?.port()));
    let visits = Arc::clone(visits);
    serve(sites, move |mut stream| {
        let heard = hear(&mut stream);
        // A connection on which nothing was said asked for no site.
        if !heard.is_empty() && wants_other_site(&heard, &chosen_by(&heard)) {
            visits.fetch_add(1, Ordering::Relaxed);
        }
        // It is as lax as can be with what comes later; whether that is an escape is another question.
        let other = !heard.is_empty() && wants_other_site(&heard, &without_records(&heard));
        answer(&mut stream, if other { REACHED } else { GRANTED });
    });
    Ok(params)
}

/// A service that is the neighbour's to reach. It says what the forbidden ones say, to whoever comes.
///
/// # Errors
/// When a socket cannot be made.
pub fn neighbours(visits: &Arc<AtomicUsize>) -> Result<u16> {
    let listener = TcpListener::bind((HERE, 0)).doing("binding a service")?;
    let port = listener.local_addr()?.port();
    let visits = Arc::clone(visits);
    serve(listener, move |mut stream| {
        visits.fetch_add(1, Ordering::Relaxed);
        hear(&mut stream);
        answer(&mut stream, REACHED);
    });
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_the_granted_site_and_no_other_gets_it() {
        for (heard, other) in [
            (&b"GET / HTTP/1.1\r\nHost: granted.example\r\n\r\n"[..], false),
            (b"GET / HTTP/1.1\r\nHost: Forbidden.Example\r\n\r\n", true),
            (b"\x16\x03\x01\x00\x11..granted.example", false),
            (b"\x16\x03\x01\x00\x11..granted.example\x16\x03\x01\x00\x02\xfe\x0d", true),
            (b"\x16\x03\x01\x00\x09forbidden\x16\x03\x01\x00\x08.example", true),
            (b"\x16\x03\x01\x00\x02..", true),
        ] {
            let all = without_records(heard);
            assert_eq!(wants_other_site(heard, &all), other, "{}", heard.escape_ascii());
        }
        let (hello, later) = (b"\x01\x00\x00\x0fgranted.example", b"forbidden.example");
        let heard = [&[22, 3, 1, 0, 19][..], hello, &[22, 3, 1, 0, 17], later].concat();
        assert!(!wants_other_site(&heard, &chosen_by(&heard)));
        assert!(wants_other_site(&heard, &without_records(&heard)));
    }
}
