//! What the host offers on this machine while the attacker tries to reach it: echo services on loopback
//! and on Unix sockets. Each counts who came, so that the host can judge for itself.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Map, Value, json};

use crate::trouble::{Result, While};

pub mod naive;
pub mod web;

/// Running services. They live in detached threads and end with the process.
pub struct Services {
    /// The attacker's parameters that name them.
    pub params: Map<String, Value>,
    /// Connections and datagrams that arrived at any of them.
    pub visits: Arc<AtomicUsize>,
    /// What only a neighbour of the attacker is granted.
    pub neighbours: Neighbours,
}

/// A service with a count of its own.
pub struct Neighbours {
    /// Where it is, on 127.0.0.1.
    pub port: u16,
    visits: Arc<AtomicUsize>,
}

impl Neighbours {
    fn start() -> Result<Self> {
        let visits = Arc::new(AtomicUsize::new(0));
        Ok(Self { port: web::neighbours(&visits)?, visits })
    }

    /// How many came so far.
    #[must_use]
    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::Relaxed)
    }
}

fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0u8; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else { break };
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
}

fn serve_tcp(address: SocketAddr, visits: &Arc<AtomicUsize>) -> Option<u16> {
    let listener = TcpListener::bind(address).ok()?;
    let port = listener.local_addr().ok()?.port();
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            visits.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || echo(stream));
        }
    });
    Some(port)
}

fn serve_udp(address: SocketAddr, visits: &Arc<AtomicUsize>) -> Option<u16> {
    let socket = UdpSocket::bind(address).ok()?;
    let port = socket.local_addr().ok()?.port();
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        let mut buffer = [0u8; 4096];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            visits.fetch_add(1, Ordering::Relaxed);
            let _ = socket.send_to(buffer.get(..n).unwrap_or_default(), from);
        }
    });
    Some(port)
}

fn serve_unix(listener: UnixListener, visits: &Arc<AtomicUsize>) {
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            visits.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || echo(stream));
        }
    });
}

fn serve_datagrams(socket: UnixDatagram, visits: &Arc<AtomicUsize>) {
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        let mut buffer = [0u8; 4096];
        while socket.recv(&mut buffer).is_ok() {
            visits.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// `SOCK_SEQPACKET` is not in the standard library.
fn serve_seqpacket(path: &Path, visits: &Arc<AtomicUsize>) -> Result<()> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
    };
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 8)?;
    let visits = Arc::clone(visits);
    thread::spawn(move || {
        while let Ok(peer) = accept(&socket) {
            visits.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let mut buffer = [0u8; 4096];
                while let Ok(n @ 1..) = rustix::io::read(&peer, &mut buffer) {
                    if rustix::io::write(&peer, buffer.get(..n).unwrap_or_default()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(())
}

/// The name servers of this machine; where it has none, an address that belongs to nobody (RFC 5737). They
/// are only looked for, never asked.
fn resolvers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut found: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    if found.is_empty() {
        found.push("192.0.2.53".into());
    }
    found
}

impl Services {
    /// Starts them all. Socket files go to `folder`; `tag` makes the abstract names this run's own.
    ///
    /// # Errors
    /// When a socket cannot be made. IPv6 is left out where the machine has none.
    pub fn start(folder: &Path, tag: &str) -> Result<Self> {
        let visits = Arc::new(AtomicUsize::new(0));
        let mut params = Map::new();
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let tcp = serve_tcp(v4, &visits);
        for (name, port) in [
            ("tcp_port", tcp),
            ("relay_port", tcp),
            ("udp_port", serve_udp(v4, &visits)),
            ("tcp6_port", serve_tcp(v6, &visits)),
            ("udp6_port", serve_udp(v6, &visits)),
        ] {
            if let Some(port) = port {
                params.insert(name.into(), json!(port));
            }
        }
        params.insert("host_address".into(), json!("127.0.0.1"));
        for (name, by_host, by_length) in [
            ("proxy_port", false, false),
            ("proxy_by_host", true, false),
            ("proxy_by_length", false, true),
        ] {
            let port = naive::start(naive::Reading { by_host, by_length }, &visits)?;
            params.insert(name.into(), json!(port));
        }
        let own = params.get("proxy_port").cloned().unwrap_or_default();
        params.insert("proxy_own".into(), own);
        params.insert("names_port".into(), json!(naive::name_server(&visits)?));
        params.insert("resolvers".into(), json!(resolvers()));
        params.extend(web::start(&visits)?);
        let neighbours = Neighbours::start()?;
        params.insert("neighbour_port".into(), json!(neighbours.port));
        let proxy_path = folder.join("proxy");
        let proxy_unix = UnixListener::bind(&proxy_path).doing("starting the proxy's socket")?;
        let relay = params.get("proxy_port").and_then(Value::as_u64).unwrap_or(0);
        let relay_visits = Arc::clone(&visits);
        thread::spawn(move || {
            for client in proxy_unix.incoming().flatten() {
                relay_visits.fetch_add(1, Ordering::Relaxed);
                let port = u16::try_from(relay).unwrap_or(0);
                let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                    continue;
                };
                let (Ok(mut back), Ok(mut out)) = (client.try_clone(), upstream.try_clone()) else {
                    continue;
                };
                let (mut client, mut upstream) = (client, upstream);
                thread::spawn(move || std::io::copy(&mut client, &mut out));
                thread::spawn(move || std::io::copy(&mut upstream, &mut back));
            }
        });
        params.insert("proxy_path".into(), json!(proxy_path));

        let stream = folder.join("stream");
        serve_unix(UnixListener::bind(&stream).doing("binding a socket")?, &visits);
        params.insert("unix_path".into(), json!(stream));
        let datagrams = folder.join("datagrams");
        serve_datagrams(UnixDatagram::bind(&datagrams).doing("binding a socket")?, &visits);
        params.insert("unix_dgram_path".into(), json!(datagrams));
        let packets = folder.join("packets");
        serve_seqpacket(&packets, &visits).doing("binding a socket")?;
        params.insert("unix_seqpacket_path".into(), json!(packets));

        let name = format!("palisade-escape-{tag}-stream");
        let address = UnixAddr::from_abstract_name(&name)?;
        serve_unix(UnixListener::bind_addr(&address).doing("binding an abstract name")?, &visits);
        params.insert("abstract".into(), json!(name));
        let name = format!("palisade-escape-{tag}-datagrams");
        let address = UnixAddr::from_abstract_name(&name)?;
        let socket = UnixDatagram::bind_addr(&address).doing("binding an abstract name")?;
        serve_datagrams(socket, &visits);
        params.insert("abstract_dgram".into(), json!(name));
        params.insert("abstract_free".into(), json!(format!("palisade-escape-{tag}-free")));
        Ok(Self { params, visits, neighbours })
    }

    /// How many came so far.
    #[must_use]
    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::Relaxed)
    }
}
