//! Reading a thread's memory while it waits. What is read is the program's, may change meanwhile, and is
//! only reported.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::FileExt as _,
};

use palisade_sandbox::observe::MAX_PATH;

const PAGE: u64 = 4096;
/// `struct sockaddr_storage`.
const MAX_ADDRESS: u64 = 128;

pub(super) struct Memory(File);

/// A socket address, as far as it is looked at.
pub(super) enum Address {
    Internet(SocketAddr),
    Unix(Vec<u8>),
    Abstract(Vec<u8>),
    Other(u16),
}

impl Memory {
    pub(super) fn of(thread: u32) -> io::Result<Self> {
        File::open(format!("/proc/{thread}/mem")).map(Self)
    }

    /// The text at `address` up to its NUL, which is not in it. `None` where it cannot be read or has no
    /// end within [`MAX_PATH`].
    pub(super) fn text(&self, address: u64) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut at = address;
        // Page by page: the next one may not be there, and need not be.
        while text.len() < MAX_PATH {
            let mut page = [0u8; PAGE as usize];
            let want = usize::try_from(PAGE - at % PAGE).ok()?;
            let n = self.0.read_at(page.get_mut(..want)?, at).ok()?;
            let piece = page.get(..n)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                text.extend_from_slice(piece.get(..end)?);
                return (text.len() < MAX_PATH).then_some(text);
            }
            if n == 0 {
                return None;
            }
            text.extend_from_slice(piece);
            at = at.checked_add(n as u64)?;
        }
        None
    }

    /// The socket address at `address`.
    pub(super) fn address(&self, address: u64, len: u64) -> Option<Address> {
        let mut bytes = [0u8; MAX_ADDRESS as usize];
        let want = usize::try_from((len & 0xffff_ffff).min(MAX_ADDRESS)).ok()?;
        self.0.read_exact_at(bytes.get_mut(..want)?, address).ok()?;
        parse_address(bytes.get(..want)?)
    }
}

/// unix(7), ip(7), ipv6(7).
fn parse_address(bytes: &[u8]) -> Option<Address> {
    const AF_UNIX: u16 = 1;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    match u16::from_ne_bytes(*family) {
        AF_UNIX => match rest.split_first() {
            Some((0, name)) => Some(Address::Abstract(name.to_vec())),
            _ => {
                let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
                Some(Address::Unix(rest.get(..end)?.to_vec()))
            }
        },
        AF_INET => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (ip, _) = rest.split_first_chunk::<4>()?;
            let ip = IpAddr::V4(Ipv4Addr::from(*ip));
            Some(Address::Internet(SocketAddr::new(ip, u16::from_be_bytes(*port))))
        }
        AF_INET6 => {
            let (port, rest) = rest.split_first_chunk::<2>()?;
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, _) = rest.split_first_chunk::<16>()?;
            let ip = Ipv6Addr::from(*ip).to_canonical();
            Some(Address::Internet(SocketAddr::new(ip, u16::from_be_bytes(*port))))
        }
        other => Some(Address::Other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let Some(Address::Internet(a)) = parse_address(&v4) else { panic!("no address") };
        assert_eq!(a.to_string(), "127.0.0.1:8080");
        let mut mapped = vec![10, 0, 0, 80, 0, 0, 0, 0];
        mapped.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        let Some(Address::Internet(a)) = parse_address(&mapped) else { panic!("no address") };
        assert_eq!(a.to_string(), "10.0.0.1:80", "a mapped address is its IPv4 address");
        let Some(Address::Unix(p)) = parse_address(b"\x01\x00/run/x\0junk") else { panic!("unix") };
        assert_eq!(p, b"/run/x");
        assert!(
            matches!(parse_address(b"\x01\x00\0name"), Some(Address::Abstract(n)) if n == b"name")
        );
        assert!(matches!(parse_address(&[17, 0]), Some(Address::Other(17))));
        assert!(parse_address(&[2, 0, 0]).is_none(), "cut short");
        assert!(parse_address(&[]).is_none());
    }

    #[test]
    fn text_ends_at_its_nul_and_has_a_bound() {
        let memory = Memory::of(std::process::id()).unwrap();
        let text = b"/etc/passwd\0after".to_vec();
        assert_eq!(memory.text(text.as_ptr() as u64).unwrap(), b"/etc/passwd");
        let long = vec![b'a'; 3 * MAX_PATH];
        assert!(memory.text(long.as_ptr() as u64).is_none(), "longer than PATH_MAX");
        assert!(memory.text(8).is_none(), "nothing is mapped there");
    }
}
