//! How fast an allowed download is through the proxy, over how fast it is without it, on loopback.
//!
//! `cargo run --release -p palisade-egress --example throughput`; 1 GiB each, the median of five.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Instant,
};

use palisade_egress::{
    AddressPolicy, Decide, Entry, Guard, Standing,
    proxy::{Limits, Proxy},
};
use palisade_model::{Access, Failure};

const BYTES: usize = 1 << 30;

/// Allows everything and records nothing, so that only the way through the proxy is measured.
struct Everything;

impl Decide for Everything {
    fn decide(&self, _: &Access<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn standing(&self, _: &Access<'_>) -> Standing {
        Standing::Named
    }

    fn record(&self, _: &Entry<'_>) {}
}

/// As a plugin does: a blocking program of its own threads.
fn download(mut stream: TcpStream) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let begin = Instant::now();
    stream.write_all(b"go")?;
    let (mut buffer, mut got) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => got += n,
        }
    }
    if got != BYTES {
        return Err(format!("{got} of {BYTES} bytes").into());
    }
    Ok(BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9)
}

fn tunnel(proxy: SocketAddr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.write_all(format!("CONNECT {server} HTTP/1.1\r\n\r\n").as_bytes())?;
    let mut answer = [0; 39];
    stream.read_exact(&mut answer)?;
    Ok(stream)
}

/// Sends the bytes to everyone who asks.
fn serve(listener: &TcpListener) -> std::io::Result<()> {
    let chunk = vec![b'x'; 256 * 1024];
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut go = [0; 2];
        if stream.read_exact(&mut go).is_ok() {
            for _ in 0..BYTES / chunk.len() {
                stream.write_all(&chunk)?;
            }
        }
    }
}

fn measure(proxy: SocketAddr, server: SocketAddr) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut direct, mut through, mut connects, mut tunnels) = (vec![], vec![], vec![], vec![]);
    for _ in 0..5 {
        direct.push(download(TcpStream::connect(server)?)?);
        through.push(download(tunnel(proxy, server)?)?);
    }
    for _ in 0..200 {
        let begin = Instant::now();
        drop(TcpStream::connect(server)?);
        connects.push(begin.elapsed().as_secs_f64() * 1e6);
        let begin = Instant::now();
        drop(tunnel(proxy, server)?);
        tunnels.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    let (direct, through) = (median(direct), median(through));
    println!("direct  {direct:.2} GB/s, connect {:.0} us", median(connects));
    println!("through {through:.2} GB/s, connect {:.0} us", median(tunnels));
    println!("egress_throughput {:.2}", through / direct);
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    std::thread::spawn(move || serve(&listener));
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy = front.local_addr()?;
    let guard = Guard::new(AddressPolicy::new());
    tokio::spawn(async move {
        Proxy::new(guard, Limits::default()).serve(front, Arc::new(Everything)).await;
    });
    tokio::task::spawn_blocking(move || measure(proxy, server)).await?
}
