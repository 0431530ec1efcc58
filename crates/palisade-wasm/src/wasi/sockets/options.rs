//! What a guest sets of its sockets. The connections are the host's, so that nothing here changes one: it is
//! kept and given back.

use super::Trouble;

/// With the values that Linux begins with (`tcp(7)`); times in nanoseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) keep_alive: bool,
    pub(super) keep_alive_idle: u64,
    pub(super) keep_alive_interval: u64,
    pub(super) keep_alive_count: u32,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_alive: false,
            keep_alive_idle: 7_200_000_000_000,
            keep_alive_interval: 75_000_000_000,
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer: 64 << 10,
            send_buffer: 64 << 10,
        }
    }
}

/// A value that must not be zero, as the interfaces say of all but one of them.
pub(super) fn set<T: Default + PartialEq>(field: &mut T, value: T) -> Result<(), Trouble> {
    if value == T::default() {
        return Err(Trouble::InvalidArgument);
    }
    *field = value;
    Ok(())
}
