//! What one request costs against a raw ping-pong over the same kind of socket.
//!
//! `cargo run --release -p palisade-protocol --example pingpong [ROUNDS]`. A thread answers with
//! blocking reads and writes on the other end in both cases; rounds are interleaved and medians
//! printed. Inside the measured side: encode, write, the driver's read, parse and hand-over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::{
    BoxFuture, CloseReason, Deadline, Handler, Peer, PeerConfig, Request, methods,
};

struct Nothing;

impl Handler for Nothing {
    fn request(&self, _: Request) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async { Err(Failure::new(ErrorCode::NotFound, "nothing here")) })
    }

    fn notification(&self, _: &str, _: &[u8]) {}

    fn closed(&self, _: &CloseReason) {}
}

const BATCH: u32 = 500;

/// Answers every line of `stream` with `{"jsonrpc":"2.0","id":N,"result":64 bytes}`.
fn answer_requests(mut stream: UnixStream) {
    let mut buffer = vec![0; 64 << 10];
    let mut reply = Vec::new();
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return;
        }
        // One request at a time, so a read is a line; its id stands between `"id":` and `,`.
        let line = &buffer[..count];
        let start = line.windows(5).position(|w| w == b"\"id\":").unwrap() + 5;
        let end = start + line[start..].iter().position(|b| *b == b',').unwrap();
        reply.clear();
        reply.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        reply.extend_from_slice(&line[start..end]);
        reply.extend_from_slice(b",\"result\":\"");
        reply.resize(reply.len() + 62, b'x');
        reply.extend_from_slice(b"\"}\n");
        stream.write_all(&reply).unwrap();
    }
}

/// Sends `size` bytes back for `size` bytes.
fn answer_raw(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 || stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn raw_batch(stream: &mut UnixStream) -> Duration {
    let mut buffer = [b'x'; 64];
    let start = Instant::now();
    for _ in 0..BATCH {
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
    }
    start.elapsed() / BATCH
}

async fn peer_batch(peer: &Peer, params: &Payload) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        let deadline = Deadline::after(Duration::from_secs(30));
        peer.request(methods::CALL, params, Some(deadline)).await.unwrap();
    }
    start.elapsed() / BATCH
}

fn median(mut values: Vec<Duration>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(40, |n| n.parse().expect("a number"));
    let params = Payload::from_json_text(format!("\"{}\"", "y".repeat(62)));
    let kinds = [
        ("current-thread, block_on", tokio::runtime::Builder::new_current_thread(), false),
        ("multi-thread, block_on", tokio::runtime::Builder::new_multi_thread(), false),
        ("multi-thread, task", tokio::runtime::Builder::new_multi_thread(), true),
    ];
    for (name, mut builder, as_task) in kinds {
        let runtime = builder.enable_all().worker_threads(2).build().unwrap();
        let (mut raw, raw_end) = UnixStream::pair().unwrap();
        let (ours, peer_end) = UnixStream::pair().unwrap();
        std::thread::spawn(|| answer_raw(raw_end));
        std::thread::spawn(|| answer_requests(peer_end));
        let peer = {
            let _guard = runtime.enter();
            Peer::spawn(ours, Arc::new(Nothing), PeerConfig::default()).unwrap()
        };
        let (mut raws, mut peers) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let one = raw_batch(&mut raw);
            let (peer, params) = (peer.clone(), params.clone());
            let two = if as_task {
                let task = runtime.spawn(async move { peer_batch(&peer, &params).await });
                runtime.block_on(task).unwrap()
            } else {
                runtime.block_on(peer_batch(&peer, &params))
            };
            // The first round warms up.
            if round > 0 {
                raws.push(one);
                peers.push(two);
            }
        }
        let (raw, peer) = (median(raws), median(peers));
        println!("{name}: raw {raw:.2} us, request {peer:.2} us, ratio {:.2}", peer / raw);
    }
}
