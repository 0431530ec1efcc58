//! What the fuzzer holds the sockets to: whatever a guest does and in whichever order, the host is asked for
//! the names and addresses that it named and for nothing else, for no more connections than it may have, and
//! what comes back is what was sent. Built for the fuzzer and for this crate's own tests only.
//!
//! The bytes are not trusted to mean anything; they choose.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use palisade_model::Payload;
use palisade_sandbox::{BoxFuture, HostRequest, OutputStream, Stream};
use tokio::io::DuplexStream;

use super::{
    carry::{CHUNK, Receiving, Sending},
    *,
};

/// Most steps of one input.
const MOST_STEPS: usize = 400;
const NAMES: [&str; 6] =
    ["a.example", "A.Example.", "b.example", "localhost", "198.18.0.1", "2001:db8::1"];

/// A host that notes who is asked for, refuses some, and sends back what the others are told.
#[derive(Default)]
struct Echo {
    asked: Mutex<Vec<String>>,
}

impl HostCalls for Echo {
    fn request(&self, _: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async { Err(Failure::new(ErrorCode::Denied, "no")) })
    }

    fn output(&self, _: OutputStream, _: &str) {}

    fn output_dropped(&self, _: u64) {}

    fn tunnel(&self, authority: &str) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(authority.to_owned());
        if authority.starts_with("b.") {
            return Box::pin(async { Err(Failure::new(ErrorCode::Denied, "no")) });
        }
        let (here, there): (DuplexStream, DuplexStream) = tokio::io::duplex(1000);
        Box::pin(async move {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(there);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            });
            Ok(Box::new(here) as Box<dyn Stream>)
        })
    }
}

/// A socket with what the guest took of it.
struct Held {
    socket: Socket,
    receiving: Option<Receiving>,
    sending: Option<Sending>,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Held {
    /// Whether it takes a place: it is being made, or made and not closed.
    fn counts(&self) -> bool {
        let open = match &self.socket.state {
            State::Connecting { .. } => true,
            State::Connected { receiving, sending, .. } => receiving.is_some() || sending.is_some(),
            _ => false,
        };
        open || self.receiving.is_some() || self.sending.is_some()
    }
}

/// Does what the bytes say.
pub(crate) fn drive(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(steps(input));
}

async fn steps(input: &[u8]) {
    let host = Arc::new(Echo::default());
    let net = Net::new(Arc::clone(&host) as Arc<dyn HostCalls>);
    let mut known: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut expected: Vec<String> = Vec::new();
    let mut held: Vec<Held> = Vec::new();
    let mut bytes = input.iter().copied();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for _ in 0..MOST_STEPS {
        let Some(step) = bytes.next() else { break };
        let mut byte = || bytes.next().unwrap_or_default();
        let which = usize::from(byte());
        match step % 9 {
            0 => {
                let made: String = (0..which % 40).map(|_| char::from(byte())).collect();
                let name = NAMES.get(which / 40).map_or(made, |name| (*name).to_owned());
                if let Ok(address) = net.address_of(&name)
                    && let Ok(host) = Host::parse(&name)
                    && host.address().is_none()
                {
                    assert!(Names::covers(address), "{name} is {address}");
                    if let Some(before) = known.insert(address, host.to_string()) {
                        assert_eq!(before, host.to_string(), "one address for two names");
                    }
                }
            }
            1 if held.len() < 2 * AT_ONCE as usize => {
                let family = if which % 4 == 0 { Family::V6 } else { Family::V4 };
                let (sent, received) = (Vec::new(), Vec::new());
                let socket = Socket::new(family);
                held.push(Held { socket, receiving: None, sending: None, sent, received });
            }
            2 => {
                let address: IpAddr = match byte() % 4 {
                    0 => Ipv4Addr::from_bits(u32::from_le_bytes(std::array::from_fn(|_| byte())))
                        .into(),
                    1 => Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|_| byte())).into(),
                    _ => match known.keys().nth(usize::from(byte()) % known.len().max(1)) {
                        Some(address) => *address,
                        None => Ipv4Addr::new(198, 18, 0, 1).into(),
                    },
                };
                let to = SocketAddr::new(address, u16::from(byte()));
                let count = held.len().max(1);
                if let Some(one) = held.get_mut(which % count)
                    && one.socket.start_connect(&net, to).is_ok()
                {
                    let host = known.get(&address).cloned();
                    let host = host.unwrap_or_else(|| match address {
                        IpAddr::V4(v4) => v4.to_string(),
                        IpAddr::V6(v6) => format!("[{v6}]"),
                    });
                    assert!(!Names::covers(address) || known.contains_key(&address));
                    expected.push(format!("{host}:{}", to.port()));
                }
            }
            3 => {
                for _ in 0..which % 8 {
                    tokio::task::yield_now().await;
                }
            }
            4 => {
                let count = held.len().max(1);
                if let Some(one) = held.get_mut(which % count)
                    && one.socket.poll_connected(&mut cx) == Poll::Ready(Ok(()))
                {
                    // Each direction is given away once.
                    if let Ok(receiving) = one.socket.take_receiving() {
                        assert!(one.receiving.replace(receiving).is_none());
                    }
                    if let Ok(sending) = one.socket.take_sending() {
                        assert!(one.sending.replace(sending).is_none());
                    }
                }
            }
            5 => {
                let count = held.len().max(1);
                if let Some(one) = held.get_mut(which % count)
                    && let Some(sending) = &mut one.sending
                    && sending.poll_ready(&mut cx).map(|ready| ready.is_ok()) == Poll::Ready(true)
                {
                    let piece = vec![byte(); 1 + usize::from(byte()) * 64 % CHUNK];
                    if sending.send(piece.clone().into()).is_ok() {
                        one.sent.extend(piece);
                    }
                }
            }
            6 => {
                let count = held.len().max(1);
                if let Some(one) = held.get_mut(which % count)
                    && let Some(receiving) = &mut one.receiving
                    && receiving.poll_ready(&mut cx).is_ready()
                    && let Ok(piece) = receiving.take(usize::from(byte()) * 64)
                {
                    one.received.extend(&piece);
                    let same = one.sent.get(..one.received.len()) == Some(&one.received[..]);
                    assert!(same, "something came back that was not sent");
                }
            }
            7 => {
                let count = held.len().max(1);
                if let Some(one) = held.get_mut(which % count) {
                    match byte() % 4 {
                        0 => one.sending.iter_mut().for_each(Sending::shut),
                        1 => one.receiving.iter_mut().for_each(Receiving::shut),
                        2 => one.sending = None,
                        _ => one.receiving = None,
                    }
                }
            }
            _ if !held.is_empty() => drop(held.swap_remove(which % held.len())),
            _ => {}
        }
        let most = AT_ONCE as usize;
        if held.iter().filter(|one| one.counts()).count() > most {
            // An attempt that failed has given its place back before its guest looks.
            for one in &mut held {
                let _ = one.socket.poll_connected(&mut cx);
            }
            let count = held.iter().filter(|one| one.counts()).count();
            assert!(count <= most, "{count} at once");
        }
    }
    let mut asked = host.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    asked.retain(|authority| {
        let found = expected.iter().position(|one| one == authority);
        found.map(|at| expected.swap_remove(at)).is_none()
    });
    assert!(asked.is_empty(), "nobody connected to {asked:?}");
}

#[cfg(test)]
proptest::proptest! {
    #[test]
    fn whatever_a_guest_does_the_host_is_asked_for_that_alone(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)
    ) {
        drive(&bytes);
    }
}
