//! The host's side of the kernel: the same allocator as in `kernel.wat`, for the blocks that the host makes,
//! reads and gives back. Works on the two memories directly, so that the host never calls into the guest for
//! them; tests hold both sides to the same results.
//!
//! Bytes of `data` are the plugin's to change at any time, and those of `state` are not, but nothing here
//! relies on either: every read is checked.

use wasmtime::{AsContext, AsContextMut, Memory};

/// Where the first block's handle is.
const FIRST: u32 = 16;
/// Bytes before a handle that belong to its block.
const HEAD: u32 = 8;
/// Longest block.
const MAX_LENGTH: u32 = 0x7fff_fff0;

const BUMP: usize = 0;
const RECORDS: usize = 4;
const INPUT: usize = 8;
const OUTPUT: usize = 24;
const ERROR: usize = 40;
const LISTS: usize = 64;
const TABLE: usize = 512;
const RECORD: usize = 16;

/// There is no memory for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The memories of one instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    data: Memory,
    state: Memory,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let long = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    long.map_or(0, |long| u64::from_le_bytes(*long))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

fn put_word(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

fn put_long(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_le_bytes());
}

/// Numbers of a 64-bit machine; what does not fit is nowhere.
fn place(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Rounds a need of 9 to 2^31 bytes up; gives the capacity and its class.
fn round(need: u32) -> (u32, usize) {
    if need <= 64 {
        let capacity = (need + 15) & !15;
        return (capacity, (capacity as usize >> 4) - 1);
    }
    let shift = 32 - (need - 1).leading_zeros();
    let eighths = ((need - 1) >> (shift - 3)) + 1;
    (eighths << (shift - 3), ((shift << 2) + eighths - 29) as usize)
}

fn record(number: u32) -> usize {
    TABLE + (number as usize - 1) * RECORD
}

/// The number of the record of a handle that stands for a block.
fn find(data: &[u8], state: &[u8], handle: u64) -> Option<u32> {
    if handle < u64::from(FIRST) || handle > u64::from(word(state, BUMP)) {
        return None;
    }
    let number = word(data, place(handle) - HEAD as usize);
    if number == 0 || number > word(state, RECORDS) {
        return None;
    }
    let at = record(number);
    let live = u64::from(word(state, at)) == handle && word(state, at + 8) != 0;
    live.then_some(number)
}

impl Kernel {
    pub(crate) fn new(data: Memory, state: Memory) -> Self {
        Self { data, state }
    }

    /// Forgets all blocks, as `reset` does.
    pub(crate) fn reset(&self, mut store: impl AsContextMut) {
        if let Some(state) = self.state.data_mut(&mut store).get_mut(..TABLE) {
            state.fill(0);
        }
    }

    /// Begins a call: forgets all blocks, and makes `input` the input.
    pub(crate) fn begin(&self, mut store: impl AsContextMut, input: &[u8]) -> Result<(), Full> {
        self.reset(&mut store);
        let handle = self.block(&mut store, input)?;
        let state = self.state.data_mut(&mut store);
        put_long(state, INPUT, handle);
        put_long(state, INPUT + 8, input.len() as u64);
        Ok(())
    }

    /// A block with a copy of `bytes`; without any it is 0, which stands for none.
    pub(crate) fn block(&self, mut store: impl AsContextMut, bytes: &[u8]) -> Result<u64, Full> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let handle = self.alloc(&mut store, bytes.len() as u64).ok_or(Full)?;
        put(self.data.data_mut(&mut store), place(handle), bytes);
        Ok(handle)
    }

    /// A block of so many bytes, as `alloc` gives it.
    pub(crate) fn alloc(&self, mut store: impl AsContextMut, length: u64) -> Option<u64> {
        let length = u32::try_from(length).ok().filter(|l| (1..=MAX_LENGTH).contains(l))?;
        let (capacity, class) = round(length + HEAD);
        let state = self.state.data_mut(&mut store);
        let list = LISTS + 4 * class;
        let mut number = word(state, list);
        let handle;
        if number == 0 {
            let bump = word(state, BUMP);
            number = word(state, RECORDS).checked_add(1)?;
            let at = record(number);
            let missing = (u64::from(bump) + u64::from(capacity) + u64::from(HEAD))
                .saturating_sub(self.data.data_size(&store) as u64);
            if missing > 0 {
                self.data.grow(&mut store, missing.div_ceil(1 << 16)).ok()?;
            }
            if at + RECORD > self.state.data_size(&store) {
                self.state.grow(&mut store, 1).ok()?;
            }
            handle = bump + FIRST;
            let state = self.state.data_mut(&mut store);
            put_word(state, BUMP, bump + capacity);
            put_word(state, RECORDS, number);
            put_word(state, at, handle);
            put_word(state, at + 4, capacity);
        } else {
            let at = record(number);
            let next = word(state, at + 12);
            put_word(state, list, next);
            handle = word(state, at);
        }
        put_word(self.state.data_mut(&mut store), record(number) + 8, length);
        put_word(self.data.data_mut(&mut store), (handle - HEAD) as usize, number);
        Some(u64::from(handle))
    }

    /// Gives a block back, as `free` does. What is not a block's handle is passed over.
    pub(crate) fn free(&self, mut store: impl AsContextMut, handle: u64) {
        let Some(number) = find(self.data.data(&store), self.state.data(&store), handle) else {
            return;
        };
        let at = record(number);
        let state = self.state.data_mut(&mut store);
        put_word(state, at + 8, 0);
        if handle == long(state, INPUT) {
            put_long(state, INPUT + 8, 0);
        }
        let capacity = word(state, at + 4);
        if number == word(state, RECORDS) {
            put_word(state, RECORDS, number - 1);
            let bump = word(state, BUMP).saturating_sub(capacity);
            put_word(state, BUMP, bump);
            return;
        }
        let list = LISTS + 4 * round(capacity).1;
        let next = word(state, list);
        put_word(state, at + 12, next);
        put_word(state, list, number);
    }

    /// A block's bytes; none for 0, and `None` for what is no handle.
    pub(crate) fn bytes<'a>(&self, store: &'a impl AsContext, handle: u64) -> Option<&'a [u8]> {
        if handle == 0 {
            return Some(&[]);
        }
        let (data, state) = (self.data.data(store), self.state.data(store));
        let length = word(state, record(find(data, state, handle)?) + 8);
        data.get(place(handle)..)?.get(..length as usize)
    }

    /// What the call has set as its output.
    pub(crate) fn output<'a>(&self, store: &'a impl AsContext) -> &'a [u8] {
        let (data, state) = (self.data.data(store), self.state.data(store));
        let (offset, length) = (long(state, OUTPUT), long(state, OUTPUT + 8));
        data.get(place(offset)..).and_then(|rest| rest.get(..place(length))).unwrap_or_default()
    }

    /// The error that the call has set. One without text, or whose block is gone, is none.
    pub(crate) fn error<'a>(&self, store: &'a impl AsContext) -> Option<&'a [u8]> {
        let handle = long(self.state.data(store), ERROR);
        self.bytes(store, handle).filter(|error| !error.is_empty())
    }
}
