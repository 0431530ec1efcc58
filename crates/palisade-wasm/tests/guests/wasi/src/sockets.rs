//! What a program does with `std::net`, and what it tries beside that.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
};

use wasip2::sockets::{
    instance_network::instance_network,
    ip_name_lookup::resolve_addresses,
    network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
    tcp_create_socket::create_tcp_socket,
};

/// Does a task of this module; what it works on stands in lines.
pub fn run(task: &str, what: &str) {
    let (first, rest) = what.split_once('\n').unwrap_or((what, ""));
    let line = match task {
        "tcp" => told(talk(first, rest)),
        // A request for the page of a URL, in one line.
        "tcp-fetch" => {
            let to = first.trim_start_matches("http://").trim_end_matches('/');
            let request = format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n");
            told(talk(to, &request).map(|answer| answer.escape_default().to_string()))
        }
        "tcp-large" => told(large(first, rest.parse().unwrap())),
        "tcp-many" => many(first, rest.parse().unwrap()),
        "tcp-again" => again(first),
        "tcp-leave" => told(leave(first)),
        "tcp-hold" => hold(first),
        "tcp-addresses" => told(addresses(first)),
        "udp" => told(UdpSocket::bind("0.0.0.0:0").map(|_| "bound".into())),
        "listen" => told(TcpListener::bind(first).map(|_| "bound".into())),
        "bind" => bind(first.parse().unwrap()),
        "names" => names(first.parse().unwrap()),
        "flood" => told(flood(first)),
        _ => "no such task".into(),
    };
    println!("{line}");
}

fn told(result: io::Result<String>) -> String {
    match result {
        Ok(text) => format!("reached {text}"),
        Err(error) => format!("blocked {:?}", error.kind()),
    }
}

/// Says something, says no more, and reads to the end.
fn talk(to: &str, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// As many bytes to somebody who sends them back.
fn large(to: &str, count: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    let piece: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (mut sent, mut back, mut equal) = (0, vec![0; piece.len()], true);
    while sent < count {
        stream.write_all(&piece)?;
        stream.read_exact(&mut back)?;
        equal &= back == piece;
        sent += piece.len();
    }
    Ok(format!("{sent} equal {equal}"))
}

/// Connections that are all kept.
fn many(to: &str, count: usize) -> String {
    let mut kept = Vec::new();
    for _ in 0..count {
        match TcpStream::connect(to) {
            Ok(stream) => kept.push(stream),
            Err(error) => {
                let had = kept.len();
                drop(kept);
                let then = told(TcpStream::connect(to).map(|_| "again".into()));
                return format!("{had} then {:?}, and without them {then}", error.kind());
            }
        }
    }
    format!("{} connections", kept.len())
}

/// One connection after the other.
fn again(to: &str) -> String {
    let ok = (0..100).filter(|_| talk(to, "x").is_ok_and(|answer| answer == "x")).count();
    format!("{ok} of 100")
}

/// Says something and goes, without a word of farewell.
fn leave(to: &str) -> io::Result<String> {
    TcpStream::connect(to)?.write_all(b"the last word")?;
    Ok("gone".into())
}

/// Reads from somebody who says nothing.
fn hold(to: &str) -> String {
    told(TcpStream::connect(to).and_then(|mut stream| stream.read(&mut [0; 16]).map(|n| n.to_string())))
}

fn addresses(to: &str) -> io::Result<String> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_ttl(7)?;
    Ok(format!("from {} to {} ttl {}", stream.local_addr()?, stream.peer_addr()?, stream.ttl()?))
}

/// Binds a socket to an address before anything else.
fn bind(to: SocketAddr) -> String {
    let SocketAddr::V4(to) = to else { return "not of version 4".into() };
    let [a, b, c, d] = to.ip().octets();
    let address = Ipv4SocketAddress { port: to.port(), address: (a, b, c, d) };
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).unwrap();
    match socket.start_bind(&instance_network(), IpSocketAddress::Ipv4(address)) {
        Ok(()) => format!("reached {:?}", socket.finish_bind()),
        Err(error) => format!("blocked {}", error.name()),
    }
}

/// Asks for so many names, and for the first one again.
fn names(count: usize) -> String {
    let first = ("n0.example", 80).to_socket_addrs().unwrap().next().unwrap();
    for i in 1..count {
        if resolve_addresses(&instance_network(), &format!("n{i}.example")).is_err() {
            return format!("refused at {i}");
        }
    }
    let strange = ["", "a b", "0x7f.1", "2130706433", "-x.example", "a..b", "\u{0}"];
    let refused = strange.iter().all(|name| {
        matches!(resolve_addresses(&instance_network(), name), Err(ErrorCode::InvalidArgument))
    });
    let again = TcpStream::connect(first).map(|_| ()).map_err(|error| error.kind());
    format!("{first} strange refused {refused} then {again:?}")
}

/// Sends to somebody who does not read.
fn flood(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    loop {
        stream.write_all(&[7; 1 << 16])?;
    }
}
