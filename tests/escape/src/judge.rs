//! The host's judgement: what an attacker calls a success is one only where the host finds it so.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    attacker::Attempt,
    launch::Seen,
    scene::{Ground, Stage},
};

/// What the walls let happen on purpose, each with the bound that keeps it harmless. Anything else that
/// succeeds is an escape.
pub const CONTAINED: &[(u16, &str, &str)] = &[];

/// Grants that an attempt needs beside its folders.
#[must_use]
pub fn grants(_stage: &Stage, _attempt: &Attempt) -> Vec<String> {
    Vec::new()
}

/// What the host watches while an attempt is made.
pub struct Watch {
    visits: usize,
    prober: Option<(Arc<AtomicBool>, JoinHandle<bool>)>,
    services: Arc<std::sync::atomic::AtomicUsize>,
}

impl Watch {
    /// Begins; may add parameters.
    pub fn begin(stage: &Stage, attempt: &Attempt, params: &mut Map<String, Value>) -> Self {
        let knock: Option<Box<dyn Fn() -> bool + Send>> =
            match (attempt.number, attempt.variant.as_str()) {
                (36, "listen") => free_port().map(|port| {
                    params.insert("listen_port".into(), json!(port));
                    Box::new(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
                        as Box<dyn Fn() -> bool + Send>
                }),
                (32, "bind") => {
                    let name = format!(
                        "palisade-escape-knock-{}-{}",
                        std::process::id(),
                        params.get("granted").map_or(0, |g| g.to_string().len())
                    );
                    params.insert("abstract_free".into(), json!(name));
                    Some(Box::new(move || {
                        SocketAddr::from_abstract_name(&name)
                            .and_then(|a| UnixStream::connect_addr(&a))
                            .is_ok()
                    }) as Box<dyn Fn() -> bool + Send>)
                }
                _ => None,
            };
        let prober = knock.map(|knock| {
            params.insert("hold_ms".into(), json!(400));
            let over = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&over);
            let thread = std::thread::spawn(move || {
                let mut reached = false;
                while !seen.load(Ordering::Relaxed) {
                    reached |= knock();
                    std::thread::sleep(Duration::from_millis(20));
                }
                reached
            });
            (over, thread)
        });
        Self { visits: stage.services.visits(), prober, services: Arc::clone(&stage.services.visits) }
    }

    /// Ends; what reached the host, if something did.
    #[must_use]
    pub fn end(self) -> Option<String> {
        if let Some((over, thread)) = self.prober {
            over.store(true, Ordering::Relaxed);
            if thread.join().unwrap_or(true) {
                return Some("the host reached the plugin's listener".into());
            }
        }
        let visits = self.services.load(Ordering::Relaxed) - self.visits;
        (visits > 0).then(|| format!("{visits} visits to the host's services"))
    }
}

fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    listener.local_addr().ok().map(|a| a.port())
}

/// Outcome and detail of one attempt, after the host has looked at its side.
#[must_use]
pub fn judge(
    stage: &Stage,
    attempt: &Attempt,
    ground: &Ground,
    seen: &Seen,
    reached: Option<String>,
) -> (String, String) {
    let harm = reached
        .or_else(|| stage.victim_harmed())
        .or_else(|| ground.damage(&stage.secret));
    if let Some(harm) = harm {
        return ("SUCCEEDED".into(), format!("the host finds: {harm}"));
    }
    let outcome = seen.outcome();
    if outcome == "SUCCEEDED"
        && let Some((_, _, bound)) =
            CONTAINED.iter().find(|c| (c.0, c.1) == (attempt.number, attempt.variant.as_str()))
    {
        return ("contained".into(), format!("{bound}; {}", seen.detail()));
    }
    (outcome, seen.detail())
}
