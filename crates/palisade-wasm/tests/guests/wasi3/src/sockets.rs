//! Connections of WASI 0.3, and what is tried beside them.

use wasip3::{
    sockets::{
        ip_name_lookup::resolve_addresses,
        types::{
            ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket,
            UdpSocket,
        },
    },
    wit_stream,
};

use crate::both;

/// Does a task of this module; what it works on stands in lines.
pub async fn run(task: &str, what: &str) -> String {
    let (first, rest) = what.split_once('\n').unwrap_or((what, ""));
    match task {
        "tcp" => talk(first, rest.as_bytes().to_vec()).await,
        // A request for the page of a URL.
        "tcp-fetch" => {
            let to = first.trim_start_matches("http://").trim_end_matches('/');
            talk(to, format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()).await
        }
        "tcp-large" => {
            let bytes: Vec<u8> = (0..=255).cycle().take(rest.parse().unwrap()).collect();
            talk(first, bytes).await
        }
        "tcp-many" => many(first, rest.parse().unwrap()).await,
        "tcp-twice" => twice(first).await,
        "udp" => match UdpSocket::create(IpAddressFamily::Ipv4) {
            Ok(_) => "reached".into(),
            Err(error) => format!("blocked {error:?}"),
        },
        "listen" => {
            let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
            let bound = socket.bind(address((0, 0, 0, 0), 0));
            match socket.listen() {
                Ok(_) => format!("reached {bound:?}"),
                Err(error) => format!("{bound:?} blocked {error:?}"),
            }
        }
        "bind" => {
            let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
            format!("{:?}", socket.bind(address((127, 0, 0, 1), rest.parse().unwrap_or(0))))
        }
        _ => "no such task".into(),
    }
}

fn address(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

/// A connection to `HOST:PORT`; the name of the error where there is none.
async fn connect(to: &str) -> Result<TcpSocket, String> {
    let (host, port) = to.rsplit_once(':').unwrap();
    let word = |text: String| text.trim_start_matches("ErrorCode::").to_owned();
    let found = resolve_addresses(host.to_owned()).await.map_err(|e| word(format!("{e:?}")))?;
    let Some(IpAddress::Ipv4(found)) = found.first() else { return Err("no address".into()) };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(|e| word(format!("{e:?}")))?;
    let remote = address(*found, port.parse().unwrap());
    socket.connect(remote).await.map_err(|e: ErrorCode| word(format!("{e:?}")))?;
    Ok(socket)
}

/// Sends all of it, and takes what comes back meanwhile.
async fn talk(to: &str, bytes: Vec<u8>) -> String {
    let socket = match connect(to).await {
        Ok(socket) => socket,
        Err(why) => return format!("blocked {why}"),
    };
    let expected = bytes.clone();
    let (mut writer, data) = wit_stream::new::<u8>();
    let sent = socket.send(data);
    let (received, how) = socket.receive();
    let writing = async {
        let left = writer.write_all(bytes).await;
        drop(writer);
        (left.len(), sent.await)
    };
    let ((left, sent), back) = both(writing, received.collect()).await;
    let text = match back == expected {
        true => format!("{} bytes the same", back.len()),
        false => format!("{:?}", String::from_utf8_lossy(&back[..back.len().min(60)])),
    };
    format!("reached {text} left {left} sent {sent:?} received {:?}", how.await)
}

/// Connections that are all kept.
async fn many(to: &str, count: usize) -> String {
    let mut kept = Vec::new();
    for _ in 0..count {
        match connect(to).await {
            Ok(socket) => kept.push(socket),
            Err(why) => return format!("{} then {why}", kept.len()),
        }
    }
    format!("{} connections", kept.len())
}

/// Takes the streams of one connection twice, and connects it again.
async fn twice(to: &str) -> String {
    let socket = connect(to).await.unwrap();
    let first = socket.receive();
    let (_second, how) = socket.receive();
    let (_writer, data) = wit_stream::new::<u8>();
    let _sending = socket.send(data);
    let (_writer, data) = wit_stream::new::<u8>();
    let sent = socket.send(data).await;
    let again = socket.connect(address((198, 18, 0, 1), 80)).await;
    drop(first);
    format!("{:?} {sent:?} {again:?}", how.await)
}
