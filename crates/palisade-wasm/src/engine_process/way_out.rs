//! Connections from behind the walls: through the proxy that the host serves inside.
//!
//! The host decides on each one, looks its name up and checks the addresses, and looks once more at what
//! passes; here it is only asked for.

use std::time::Duration;

use palisade_model::{ErrorCode, Failure, text::escape};
use palisade_sandbox::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Where the walls say their proxy is.
const VARIABLE: &str = "HTTP_PROXY";
/// Most bytes of an answer.
const MAX_ANSWER: usize = 8 << 10;
/// What the guard takes at most until there is a connection: a lookup and four addresses.
const CONNECT: Duration = Duration::from_secs(30);

/// A connection to `authority` (`HOST:PORT`) on which this side speaks first.
pub(super) async fn connect(authority: String) -> Result<TcpStream, Failure> {
    let (stream, said) = opened(authority).await?;
    match said.is_empty() {
        true => Ok(stream),
        false => Err(Failure::new(ErrorCode::Unavailable, "the server spoke before it was asked")),
    }
}

/// A connection on which either side may speak first.
pub(super) async fn tunnel(authority: String) -> Result<impl Stream, Failure> {
    let (stream, said) = opened(authority).await?;
    let (read, write) = stream.into_split();
    Ok(tokio::io::join(std::io::Cursor::new(said).chain(read), write))
}

/// The connection, and what its other end has said already.
async fn opened(authority: String) -> Result<(TcpStream, Vec<u8>), Failure> {
    let none = || Failure::new(ErrorCode::Unavailable, "there is no way out to the network");
    let proxy = std::env::var(VARIABLE).map_err(|_| none())?;
    let proxy = proxy.strip_prefix("http://").ok_or_else(none)?.trim_end_matches('/').to_owned();
    let late = |_| Failure::new(ErrorCode::Deadline, "there was no connection in time");
    timeout(CONNECT, through(&proxy, &authority)).await.map_err(late)?
}

async fn through(proxy: &str, authority: &str) -> Result<(TcpStream, Vec<u8>), Failure> {
    let lost = |e: std::io::Error| {
        Failure::new(ErrorCode::Unavailable, format!("the way out to the network: {e}"))
    };
    if authority.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
        return Err(Failure::new(ErrorCode::InvalidParams, "that is no host"));
    }
    let mut stream = TcpStream::connect(proxy).await.map_err(lost)?;
    // Only slower where it is refused.
    let _ = stream.set_nodelay(true);
    let asked = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.map_err(lost)?;
    let mut answer = Vec::new();
    loop {
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = head
            && status(&answer) == Some(200)
        {
            return Ok((stream, answer.split_off(end + 4)));
        }
        let mut more = [0; 1024];
        let read = stream.read(&mut more).await.map_err(lost)?;
        if read == 0 || answer.len() > MAX_ANSWER {
            break;
        }
        answer.extend_from_slice(more.get(..read).unwrap_or_default());
    }
    Err(refusal(&answer))
}

/// The number in the first line.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

/// What a refusing answer says: its code, and the line behind `Palisade: `.
fn refusal(answer: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let named = head.lines().filter_map(|line| line.split_once(": "));
    let code = named
        .filter(|(name, _)| name.eq_ignore_ascii_case("X-Palisade-Error"))
        .find_map(|(_, code)| ErrorCode::parse(code.trim()));
    let said = body.lines().next().and_then(|line| line.strip_prefix("Palisade: "));
    let said = said.map_or_else(|| "the connection was refused".to_owned(), |s| escape(s, 512));
    Failure::new(code.unwrap_or(ErrorCode::Unavailable), said)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static str) -> Result<(TcpStream, Vec<u8>), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 256];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            (stream, String::from_utf8(asked[..read].to_vec()).unwrap())
        });
        let result = through(&proxy, "example.org:443").await;
        let (_stream, asked) = served.await.unwrap();
        assert_eq!(asked, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n");
        result
    }

    #[tokio::test]
    async fn a_connection_is_asked_for_and_a_refusal_keeps_its_code() {
        let made = "HTTP/1.1 200 Connection established\r\n\r\n";
        assert!(answering(made).await.unwrap().1.is_empty());
        let refused = "HTTP/1.1 403 Forbidden\r\nX-Palisade-Error: PAL-DENIED\r\n\
                       Connection: close\r\n\r\nPalisade: no right covers it\nrule\n";
        // The answer ends with its connection; here the test's end does.
        let failure = refusal(refused.as_bytes());
        assert_eq!(failure.code, ErrorCode::Denied);
        assert_eq!(failure.message, "no right covers it");
        // A server that speaks first is heard.
        let spoken = "HTTP/1.1 200 OK\r\n\r\nSSH-2.0";
        assert_eq!(answering(spoken).await.unwrap().1, b"SSH-2.0");
        for authority in ["a b:1", "a\r\nb:1", "a\tb:1"] {
            let failure = through("127.0.0.1:1", authority).await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::InvalidParams);
        }
    }
}
