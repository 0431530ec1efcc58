//! Names for programs that know of no proxy: a name server that looks nothing up.
//!
//! It answers every name with an address of its own making, and remembers which name that was. A
//! connection to such an address is a connection to the name ([`crate::proxy::Proxy::serve_direct`]): it
//! is decided, looked up and checked then, like every other. Nothing that a program asks here leaves the
//! machine, so that names carry no secrets out; and what an answer says can be turned into no other
//! address by a server that changes its mind.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use simple_dns::{
    CLASS, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, RData},
};

use crate::Host;

/// Addresses for benchmarks between devices (RFC 2544), which belong to nobody on any network; those of
/// one instance are taken from here.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// The last of them.
const LAST: u32 = u32::from_be_bytes([198, 19, 255, 254]);
/// Most names that one instance has at a time. The one asked for longest ago makes room.
pub const MAX_NAMES: usize = 4096;
/// How long an answer may be kept, in seconds: less than the time in which [`MAX_NAMES`] can pass.
const TTL: u32 = 1;
/// Most queries of one instance that are answered in a second.
pub const MAX_ANSWERS: u32 = 1000;
/// Parts of a second.
const WINDOWS: u32 = 10;
/// Longest query that is read, in bytes: what fits a datagram without extensions (RFC 1035), and then
/// some.
pub const MAX_QUERY: usize = 1232;

/// The names that one instance has asked for.
#[derive(Debug, Default)]
pub struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<Host, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, Host>,
    /// In the order in which they were given away.
    order: VecDeque<Ipv4Addr>,
    given: u32,
}

impl Names {
    /// Nothing asked for yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether an address is one of those that stand for names.
    #[must_use]
    pub fn covers(address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => (FIRST..=LAST).contains(&u32::from(v4)),
            IpAddr::V6(_) => false,
        }
    }

    /// The name that an address stands for.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<Host> {
        let IpAddr::V4(address) = address.to_canonical() else { return None };
        self.table().by_address.get(&address).cloned()
    }

    /// The address that stands for a name from now on.
    pub fn address_of(&self, name: &Host) -> Ipv4Addr {
        let mut table = self.table();
        if let Some(address) = table.by_name.get(name) {
            return *address;
        }
        if table.order.len() >= MAX_NAMES
            && let Some(oldest) = table.order.pop_front()
            && let Some(name) = table.by_address.remove(&oldest)
        {
            table.by_name.remove(&name);
        }
        // There are many times more addresses than names, so the next one is free.
        let address = Ipv4Addr::from(FIRST + table.given % (LAST - FIRST + 1));
        table.given = table.given.wrapping_add(1);
        table.by_name.insert(name.clone(), address);
        table.by_address.insert(address, name.clone());
        table.order.push_back(address);
        address
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one query; `None` where it is none.
    ///
    /// Only host names have addresses here, and only of version 4; other questions are answered with
    /// nothing, what is no host name with "no such name".
    #[must_use]
    pub fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        if query.len() > MAX_QUERY {
            return None;
        }
        let asked = Packet::parse(query).ok()?;
        if asked.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let mut reply = Packet::new_reply(asked.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        // More than one question is asked by nobody, and answered by no server.
        let [question] = asked.questions.as_slice() else {
            *reply.rcode_mut() = RCODE::FormatError;
            return reply.build_bytes_vec().ok();
        };
        let host = Host::parse(&question.qname.to_string()).ok().filter(|h| h.name().is_some());
        let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        match (&host, question.qtype) {
            (Some(host), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) if internet => {
                let address = match host.is_localhost() {
                    true => Ipv4Addr::LOCALHOST,
                    false => self.address_of(host),
                };
                let data = RData::A(A { address: address.into() });
                reply.answers.push(ResourceRecord::new(
                    question.qname.clone(),
                    CLASS::IN,
                    TTL,
                    data,
                ));
            }
            (Some(_), _) => {}
            (None, _) => *reply.rcode_mut() = RCODE::NameError,
        }
        reply.questions.push(question.clone());
        reply.build_bytes_vec().ok()
    }

    /// Answers on `socket` until it fails, at most [`MAX_ANSWERS`] queries a second. Dropping the future
    /// ends it.
    pub async fn serve(&self, socket: tokio::net::UdpSocket) {
        let mut query = [0u8; MAX_QUERY + 1];
        // Each part of a second has its share. What comes beyond waits in the socket, and is lost where
        // that is full, as on every network; it costs the host no time.
        let (mut window, mut answers) = (tokio::time::Instant::now(), 0);
        loop {
            if answers >= MAX_ANSWERS / WINDOWS {
                tokio::time::sleep_until(window + std::time::Duration::from_secs(1) / WINDOWS)
                    .await;
                (window, answers) = (tokio::time::Instant::now(), 0);
            }
            if window.elapsed() >= std::time::Duration::from_secs(1) / WINDOWS {
                (window, answers) = (tokio::time::Instant::now(), 0);
            }
            answers += 1;
            match socket.recv_from(&mut query).await {
                Ok((len, from)) => {
                    let answer = query.get(..len).and_then(|query| self.answer(query));
                    if let Some(answer) = answer {
                        // A program that does not read its answers loses them.
                        let _ = socket.try_send_to(&answer, from);
                    }
                }
                // A datagram to a port that was closed meanwhile comes back as an error.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::debug!(%error, "the name server inside has ended");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::{Name, Question};

    use super::*;

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name).into_owned();
        packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    fn address(answer: &[u8]) -> Option<Ipv4Addr> {
        let packet = Packet::parse(answer).unwrap();
        assert_eq!(packet.id(), 7);
        packet.answers.iter().find_map(|record| match &record.rdata {
            RData::A(a) => Some(Ipv4Addr::from(a.address)),
            _ => None,
        })
    }

    #[test]
    fn a_name_has_an_address_that_leads_back_to_it() {
        let names = Names::new();
        let first = address(&names.answer(&query("Shop.Example.ORG", TYPE::A)).unwrap()).unwrap();
        let second = address(&names.answer(&query("other.example", TYPE::A)).unwrap()).unwrap();
        assert_ne!(first, second);
        assert!(Names::covers(first.into()) && Names::covers(second.into()));
        assert_eq!(names.name_of(first.into()).unwrap().to_string(), "shop.example.org");
        let again = address(&names.answer(&query("shop.example.org", TYPE::A)).unwrap()).unwrap();
        assert_eq!(again, first, "the same name, however it is written");
    }

    #[test]
    fn what_is_no_host_has_no_address() {
        let names = Names::new();
        for name in ["0x7f.1", "2130706433", "a b.c", "-x.example", "1.2.3.4"] {
            let Some(answer) = names.answer(&query(name, TYPE::A)) else { continue };
            assert_eq!(address(&answer), None, "{name}");
        }
        let other = names.answer(&query("example.org", TYPE::AAAA)).unwrap();
        let packet = Packet::parse(&other).unwrap();
        assert_eq!((packet.rcode(), packet.answers.len()), (RCODE::NoError, 0));
        assert_eq!(names.name_of(Ipv4Addr::new(198, 18, 0, 1).into()), None);
        assert!(names.answer(&[0; MAX_QUERY + 1]).is_none());
    }

    #[test]
    fn names_without_end_take_a_bounded_room() {
        let names = Names::new();
        let host = |i: usize| Host::parse(&format!("n{i}.example")).unwrap();
        let first = names.address_of(&host(0));
        for i in 1..3 * MAX_NAMES {
            names.address_of(&host(i));
        }
        assert_eq!(names.table().order.len(), MAX_NAMES);
        assert_eq!(names.table().by_name.len(), MAX_NAMES);
        assert_eq!(names.table().by_address.len(), MAX_NAMES);
        assert_eq!(names.name_of(first.into()), None, "the oldest made room");
    }

    proptest::proptest! {
        #[test]
        fn no_query_breaks_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let names = Names::new();
            if let Some(answer) = names.answer(&bytes) {
                proptest::prop_assert!(Packet::parse(&answer).is_ok());
            }
        }
    }
}
