//! Reading a thread's memory while it waits. What is read is the program's, may change meanwhile, and is
//! only reported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use palisade_sandbox::observe::MAX_PATH;

const PAGE: u64 = 4096;
/// `struct sockaddr_storage`.
const MAX_ADDRESS: u64 = 128;

/// The memory of a thread's process.
pub(super) struct Memory(libc::pid_t);

/// A socket address, as far as it is looked at.
pub(super) enum Address {
    Internet(SocketAddr),
    Unix(Vec<u8>),
    Abstract(Vec<u8>),
    Other(u16),
}

impl Memory {
    pub(super) fn of(thread: u32) -> Self {
        Self(thread.cast_signed())
    }

    /// Reads at most `buffer.len()` bytes from `address`; how many were read. process_vm_readv(2) and not
    /// `/proc/PID/mem`, which a process that makes itself undumpable takes out of its own user's reach.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Option<usize> {
        let here = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let there = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(usize::try_from(address).ok()?),
            iov_len: buffer.len(),
        };
        // SAFETY: `here` is all of a buffer that is borrowed for the call; `there` is only looked up by
        // the kernel, in the other process.
        let n =
            unsafe { libc::process_vm_readv(self.0, &raw const here, 1, &raw const there, 1, 0) };
        usize::try_from(n).ok()
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
            let n = self.read(at, page.get_mut(..want)?)?;
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
        if self.read(address, bytes.get_mut(..want)?)? != want {
            return None;
        }
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
        let memory = Memory::of(std::process::id());
        let text = b"/etc/passwd\0after".to_vec();
        assert_eq!(memory.text(text.as_ptr() as u64).unwrap(), b"/etc/passwd");
        let long = vec![b'a'; 3 * MAX_PATH];
        assert!(memory.text(long.as_ptr() as u64).is_none(), "longer than PATH_MAX");
        assert!(memory.text(8).is_none(), "nothing is mapped there");
    }
}
