//! A program in the place of the engine, that somebody has taken over: it does all that an engine does before the
//! first call. Built by `tests/walled` with rustc alone.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::fd::FromRawFd as _,
    time::Duration,
};

fn main() {
    if std::env::args().nth(2).is_some() {
        // To compile: any code will do, since nobody looks at it.
        let mut wasm = Vec::new();
        std::io::stdin().read_to_end(&mut wasm).unwrap();
        std::io::stdout().write_all(b"\0code").unwrap();
        return;
    }
    // SAFETY: the lane, which nobody else in this program has.
    let lane = unsafe { File::from_raw_fd(3) };
    let mut lines = BufReader::new(lane);
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap_or(0) > 0 {
        let id = field(&line, "\"id\":").to_owned();
        let says = |text: &str| line.contains(&format!("\"{text}\""));
        let error = |code: &str| {
            let data = format!("{{\"code\":\"PAL-{code}\"}}");
            format!("\"error\":{{\"code\":-32000,\"message\":\"no\",\"data\":{data}}}")
        };
        let answer = match () {
            () if id.is_empty() => None,
            () if says("initialize") => {
                Some("\"result\":{\"protocol\":1,\"features\":[]}".to_owned())
            }
            () if !says("call") => Some("\"result\":{}".to_owned()),
            () if says("unavailable") => Some(error("UNAVAILABLE")),
            () if says("denied") => Some(error("DENIED")),
            () if says("conflict") => Some(error("CONFLICT")),
            () if says("close") => break,
            () if says("hello") => Some(format!("\"result\":{}", hello(&line).unwrap())),
            () => None,
        };
        if let Some(answer) = answer {
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{answer}}}\n");
            lines.get_mut().write_all(text.as_bytes()).unwrap();
        }
        let ends = says("shutdown");
        line.clear();
        if ends {
            return;
        }
    }
    drop(lines);
    std::thread::sleep(Duration::from_secs(600));
}

/// Asks for a tunnel to one host, and begins to speak TLS with another; what kind of record comes back (RFC 8446,
/// 5.1).
fn hello(line: &str) -> io::Result<u8> {
    let text = |name| field(line, name).trim_matches('"');
    let proxy = std::env::var("HTTP_PROXY").unwrap();
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let mut tunnel = TcpStream::connect(proxy)?;
    let to = text("\"connect\":");
    tunnel.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tunnel.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let sized = |body: &[u8]| [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let name = [&[0][..], &sized(text("\"name\":").as_bytes())].concat();
    let extensions = [&[0, 0][..], &sized(&sized(&name))].concat();
    // A version, a random number, no session, one suite, no compression.
    let suite = [0, 0, 2, 0x13, 0x01, 1, 0];
    let body = [&[3, 3][..], &[7; 32], &suite, &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    tunnel.write_all(&[&[22, 3, 1][..], &sized(&message)].concat())?;
    let mut kind = [0];
    tunnel.read_exact(&mut kind)?;
    Ok(kind[0])
}

/// What stands behind a name, to the next comma.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(name).map_or("", |(_, rest)| rest);
    rest.split([',', '}']).next().unwrap_or_default()
}
