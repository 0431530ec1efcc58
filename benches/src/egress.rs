//! `egress_throughput` and `egress_connect_latency`: what the way out costs an allowed download, against
//! the same program without walls that goes to the same server directly.
//!
//! Through the guard there are one more program and one more connection: the client's to the host, in a
//! network namespace of its own, and the host's to the server. Every one is decided by real rules,
//! recorded to a file, looked up, checked. The rounds of all sides are interleaved, and the order
//! alternates.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use palisade_audit::{JsonLinesRecorder, SystemClock};
use palisade_broker::{Caller, Gate};
use palisade_egress::{
    AddressPolicy, Guard,
    proxy::{Limits, Sockets, serve_way_out},
};
use palisade_model::{CapabilitySet, Failure, Payload};
use palisade_policy::Rules;
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend, BoxFuture, HostCalls, HostRequest, Instance, KillReason, OutputStream, WayOut, Wire,
    stream::{ByteEnds, ByteWire},
};
use palisade_services::egress::Rights;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    process::Command,
};

use crate::{
    plugin::{Plugin, Result, Silent},
    report::{Row, Samples},
};

/// Bytes of one download.
const LENGTH: u64 = 512 << 20;
const ROUNDS: usize = 9;
const SHORT_ROUNDS: usize = 400;
const WARM_UP: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers `GET /N` with N bytes.
fn serve(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || -> std::io::Result<()> {
            stream.set_nodelay(true)?;
            let mut head = [0; 1024];
            let n = stream.read(&mut head)?;
            let text = String::from_utf8_lossy(head.get(..n).unwrap_or_default()).into_owned();
            let path = text.split(' ').nth(1).and_then(|p| p.strip_prefix('/'));
            let mut left: usize = path.and_then(|p| p.parse().ok()).unwrap_or(0);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n");
            // With the first bytes, as servers do.
            let chunk = vec![b'x'; 256 << 10];
            let first = chunk.get(..left.min(1024)).unwrap_or_default();
            stream.write_all(&[head.as_bytes(), first].concat())?;
            left -= first.len();
            while left > 0 {
                let part = chunk.get(..left.min(chunk.len())).unwrap_or_default();
                stream.write_all(part)?;
                left -= part.len();
            }
            Ok(())
        });
    }
}

/// Waits for the connection to be accepted at least once.
fn start_server() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || serve(&listener));
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    Ok(port)
}

/// The host's side of the way out, as `palisade-host` has it.
struct Host {
    guard: Guard,
    rights: Arc<Rights>,
}

impl HostCalls for Host {
    fn request(
        &self,
        request: HostRequest,
    ) -> BoxFuture<'static, std::result::Result<Payload, Failure>> {
        Silent.request(request)
    }
    fn output(&self, _stream: OutputStream, _line: &str) {}
    fn output_dropped(&self, _bytes: u64) {}
    fn egress(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let WayOut { proxy, names, direct } = way;
        let sockets = Sockets { proxy, names, direct };
        let rights = Arc::clone(&self.rights);
        Box::pin(serve_way_out(self.guard.clone(), Limits::default(), sockets, rights))
    }
}

/// What one download took.
struct Took {
    first: Duration,
    total: Duration,
}

/// The client, wherever it runs.
struct Client<W, R> {
    to: W,
    from: BufReader<R>,
}

impl<W: AsyncWrite + Unpin, R: AsyncRead + Unpin> Client<W, R> {
    async fn download(&mut self, how: char, port: u16, length: u64) -> Result<Took> {
        self.to.write_all(format!("{how} {port} {length}\n").as_bytes()).await?;
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, self.from.read_line(&mut line)).await??;
        let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        let &[first, total, bytes] = numbers.as_slice() else {
            return Err(format!("the client ended or said {line:?}").into());
        };
        if bytes < length {
            return Err(format!("{bytes} of {length} bytes came").into());
        }
        Ok(Took { first: Duration::from_nanos(first), total: Duration::from_nanos(total) })
    }
}

/// One way to the server, with what it took.
struct Side {
    how: char,
    inside: bool,
    speed: Samples,
    first: Samples,
}

impl Side {
    fn new(how: char, inside: bool) -> Self {
        Self { how, inside, speed: Samples::default(), first: Samples::default() }
    }
}

/// Measures both on one runtime.
pub(crate) fn run() -> Result<Vec<Row>> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Row>> {
    let plugin = Plugin::build_from("download.c")?;
    let port = start_server()?;
    let mut outside = Command::new(plugin.program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(to), Some(from)) = (outside.stdin.take(), outside.stdout.take()) else {
        return Err("no pipes to the client".into());
    };
    let mut free = Client { to, from: BufReader::new(from) };

    let records = tempfile::tempdir()?;
    let rights: CapabilitySet = [
        format!("net.http:127.0.0.1:{port}").parse()?,
        format!("net.tcp:127.0.0.1:{port}").parse()?,
    ]
    .into_iter()
    .collect();
    let mut spec = plugin.spec();
    spec.rights = Arc::new(rights.clone());
    let (wire, ends) = ByteWire::new();
    spec.wire = Wire::Bytes(wire);
    let recorder = Arc::new(JsonLinesRecorder::open(records.path().join("record"))?);
    let rules = Arc::new(Rules::new(rights, []));
    let clock = Arc::new(SystemClock);
    let caller = Caller::plugin(spec.instance.clone(), rules, &spec.limits, clock);
    let rights = Arc::new(Rights::new(Gate::new(recorder), caller));
    let host = Host { guard: Guard::new(AddressPolicy::new()), rights };
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let instance: Arc<dyn Instance> = prepared.launch(spec, Arc::new(host)).await?;
    let ByteEnds { to, from, finished } = ends.await?;
    let mut walled = Client { to, from: BufReader::new(from) };

    let mut sides = [Side::new('d', false), Side::new('c', true), Side::new('p', true)];
    for (rounds, length) in [(WARM_UP + SHORT_ROUNDS, 1), (1 + ROUNDS, LENGTH)] {
        for round in 0..rounds {
            let counted = round >= if length == 1 { WARM_UP } else { 1 };
            if round % 2 == 1 {
                sides.reverse();
            }
            for side in &mut sides {
                let took = match side.inside {
                    true => walled.download(side.how, port, length).await?,
                    false => free.download(side.how, port, length).await?,
                };
                match (counted, length) {
                    (false, _) => {}
                    (true, 1) => side.first.push_micros(took.first),
                    (true, _) => side.speed.push(length as f64 / took.total.as_secs_f64() / 1e6),
                }
            }
            if round % 2 == 1 {
                sides.reverse();
            }
        }
    }
    drop(finished);
    instance.kill(KillReason::Asked).await;

    let [direct, tunnel, plain] = &sides;
    Ok(vec![
        Row::new("egress_throughput", "MB/s", &tunnel.speed)
            .against(&direct.speed)
            .aim_at_least(0.8),
        Row::new("egress_throughput.plain_http", "MB/s", &plain.speed)
            .against(&direct.speed)
            .aim_at_least(0.8),
        Row::new("egress_connect_latency", "us", &tunnel.first).against(&direct.first),
        Row::new("egress_connect_latency.plain_http", "us", &plain.first).against(&direct.first),
    ])
}
