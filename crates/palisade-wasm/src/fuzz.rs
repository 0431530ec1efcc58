//! What the fuzzer holds the kernel of Extism plugins to: whatever a plugin passes, its blocks lie apart from
//! each other within the memory, both sides of the allocator agree, and nothing else changes. Built for the
//! fuzzer and for this crate's own tests only.
//!
//! The bytes are not trusted to mean anything; they choose. What sockets are held to stands beside them
//! (`wasi/sockets/fuzz.rs`).

use std::{collections::BTreeMap, sync::OnceLock};

use wasmtime::{
    Engine, Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, WasmParams,
    WasmResults,
};

use crate::extism::{
    kernel::Kernel,
    link::{KERNEL, link},
};

/// Most bytes of one memory here, so that growing fails now and then.
const MAX_MEMORY: usize = 1 << 20;

/// Bytes as choices; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A length: mostly short, sometimes longer than any memory.
    fn length(&mut self) -> u64 {
        match self.byte() {
            0..=150 => u64::from(self.byte()),
            151..=220 => self.long() & 0xffff,
            221..=250 => self.long() & 0xf_ffff,
            _ => self.long(),
        }
    }

    /// A place: a block's, near one, or anywhere.
    fn place(&mut self, blocks: &BTreeMap<u64, u64>, size: u64) -> u64 {
        let near = u64::from(self.byte());
        let some = |choices: &mut Self| {
            let which = usize::from(choices.byte()) % blocks.len().max(1);
            blocks.keys().nth(which).copied().unwrap_or(16)
        };
        match self.byte() {
            0..=120 => some(self),
            121..=160 => some(self).wrapping_add(near).wrapping_sub(32),
            161..=190 => near,
            191..=220 => size.wrapping_add(near).wrapping_sub(16),
            221..=240 => u64::MAX - near,
            _ => self.long(),
        }
    }
}

/// One instance of the kernel.
struct Room {
    store: Store<StoreLimits>,
    instance: Instance,
    kernel: Kernel,
    data: Memory,
    state: Memory,
}

impl Room {
    fn new() -> Self {
        static CODE: OnceLock<(Engine, Module)> = OnceLock::new();
        let (engine, module) = CODE.get_or_init(|| {
            let engine = Engine::default();
            let module = Module::new(&engine, KERNEL).expect("the kernel");
            (engine, module)
        });
        let limits = StoreLimitsBuilder::new().memory_size(MAX_MEMORY).build();
        let mut store = Store::new(engine, limits);
        store.limiter(|limits| limits);
        let instance = Instance::new(&mut store, module, &[]).expect("an instance");
        let data = instance.get_memory(&mut store, "data").expect("its memory");
        let state = instance.get_memory(&mut store, "state").expect("its memory");
        Self { store, instance, kernel: Kernel::new(data, state), data, state }
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        params: P,
    ) -> wasmtime::Result<R> {
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, name);
        function.expect("an export").call(&mut self.store, params)
    }

    fn get<P: WasmParams, R: WasmResults>(&mut self, name: &str, params: P) -> R {
        self.call(name, params).unwrap_or_else(|trap| panic!("{name} trapped: {trap:?}"))
    }

    fn size(&self) -> u64 {
        self.data.data_size(&self.store) as u64
    }
}

/// Does the same to two kernels, in one as a plugin and in the other as the host, and to a model of them.
pub fn extism_kernel(input: &[u8]) {
    let mut choices = Choices(input);
    let (mut guest, mut host) = (Room::new(), Room::new());
    let mut blocks = BTreeMap::new();
    let mut written = BTreeMap::new();
    while !choices.0.is_empty() {
        step(&mut choices, &mut guest, &mut host, &mut blocks, &mut written);
        assert_eq!(
            guest.state.data(&guest.store),
            host.state.data(&host.store),
            "both sides know the same"
        );
        assert_eq!(guest.size(), host.size());
    }
    for (handle, length) in &blocks {
        let found = guest.get::<_, i64>("length", handle.cast_signed()).cast_unsigned();
        // Four bytes before it that the plugin has written over make it none; nothing makes it another.
        let spoiled = written.keys().any(|place| (handle - 8..handle - 4).contains(place));
        assert!(found == *length || (found == 0 && spoiled), "{handle}: {found} of {length}");
        let bytes = host.kernel.bytes(&host.store, *handle).map_or(0, <[u8]>::len);
        assert_eq!(bytes as u64, found);
    }
    for (place, byte) in written {
        let found = guest.get::<_, i32>("load_u8", u64::cast_signed(place));
        assert_eq!(found, i32::from(byte), "what a plugin writes stays");
    }
}

fn step(
    choices: &mut Choices<'_>,
    guest: &mut Room,
    host: &mut Room,
    blocks: &mut BTreeMap<u64, u64>,
    written: &mut BTreeMap<u64, u8>,
) {
    let size = guest.size();
    match choices.byte() % 16 {
        0..=3 => {
            let length = choices.length();
            let handle = guest.get::<_, i64>("alloc", length.cast_signed()).cast_unsigned();
            assert_eq!(host.kernel.alloc(&mut host.store, length).unwrap_or(0), handle);
            if handle == 0 {
                return;
            }
            assert!(length > 0 && handle >= 16 && handle + length <= guest.size());
            let before = blocks.range(..handle).next_back();
            let after = blocks.range(handle..).next();
            assert!(before.is_none_or(|(start, length)| start + length <= handle - 8));
            assert!(after.is_none_or(|(start, _)| handle + length <= start - 8));
            blocks.insert(handle, length);
            // The host writes its own block's beginning there.
            written.retain(|place, _| !(handle - 8..handle).contains(place));
        }
        4..=5 => {
            let handle = choices.place(blocks, size);
            let length = guest.get::<_, i64>("length", handle.cast_signed());
            guest.get::<_, ()>("free", handle.cast_signed());
            host.kernel.free(&mut host.store, handle);
            if length != 0 {
                assert_eq!(blocks.remove(&handle), Some(length.cast_unsigned()));
            }
        }
        6 => {
            let handle = choices.place(blocks, size);
            let length = guest.get::<_, i64>("length", handle.cast_signed());
            assert_eq!(guest.get::<_, i64>("length_unsafe", handle.cast_signed()), length);
            let bytes = host.kernel.bytes(&host.store, handle).map_or(0, <[u8]>::len);
            assert_eq!(length, bytes as i64);
            assert!(length == 0 || blocks.get(&handle) == Some(&length.cast_unsigned()));
        }
        7..=8 => {
            let which = usize::from(choices.byte()) % blocks.len().max(1);
            let Some((handle, length)) = blocks.iter().nth(which) else { return };
            let place = handle + choices.long() % length;
            let byte = choices.byte();
            for room in [&mut *guest, &mut *host] {
                room.get::<_, ()>("store_u8", (place.cast_signed(), i32::from(byte)));
            }
            written.insert(place, byte);
        }
        9 => {
            let place = choices.place(blocks, size);
            let there = place.checked_add(8).is_some_and(|end| end <= size);
            let value = choices.long();
            for room in [&mut *guest, &mut *host] {
                let stored =
                    room.call::<_, ()>("store_u64", (place.cast_signed(), value.cast_signed()));
                assert_eq!(stored.is_ok(), there, "{place}");
                let read = room.call::<_, i64>("load_u64", place.cast_signed());
                assert_eq!(read.ok(), there.then_some(value.cast_signed()));
            }
            if there {
                for (place, byte) in (place..).zip(value.to_le_bytes()) {
                    written.insert(place, byte);
                }
            }
        }
        10 => {
            let (place, length) = (choices.place(blocks, size), choices.length());
            for room in [&mut *guest, &mut *host] {
                room.get::<_, ()>("input_set", (place.cast_signed(), length.cast_signed()));
            }
            let offset = choices.length();
            let length = guest.get::<_, i64>("input_length", ()).cast_unsigned();
            let byte = guest.call::<_, i32>("input_load_u8", offset.cast_signed());
            if offset >= length {
                assert_eq!(byte.ok(), Some(0));
            } else {
                assert!(byte.is_ok());
            }
            let _ = guest.call::<_, i64>("input_load_u64", offset.cast_signed());
        }
        11 => {
            let (place, length) = (choices.place(blocks, size), choices.length());
            for room in [&mut *guest, &mut *host] {
                room.get::<_, ()>("output_set", (place.cast_signed(), length.cast_signed()));
            }
            let length = guest.get::<_, i64>("output_length", ());
            assert_eq!(host.kernel.output(&host.store).len() as i64, length, "it is all there");
        }
        12 => {
            let place = choices.place(blocks, size);
            for room in [&mut *guest, &mut *host] {
                room.get::<_, ()>("error_set", place.cast_signed());
            }
            let error = host.kernel.error(&host.store).map(<[u8]>::len);
            assert!(
                error.is_none_or(|length| blocks.values().any(|known| *known == length as u64))
            );
            let _ = guest.get::<_, i64>("error_get", ());
        }
        13 => {
            let input = vec![choices.byte(); usize::from(choices.byte())];
            host.kernel.begin(&mut host.store, &input).expect("room for the input");
            guest.get::<_, ()>("reset", ());
            let handle = guest.get::<_, i64>("alloc", input.len() as i64);
            guest.get::<_, ()>("input_set", (handle, input.len() as i64));
            blocks.clear();
            written.clear();
            for (place, byte) in (handle..).zip(&input) {
                guest.get::<_, ()>("store_u8", (place, i32::from(*byte)));
                assert_eq!(host.get::<_, i32>("input_load_u8", place - handle), i32::from(*byte));
            }
            if handle != 0 {
                assert_eq!(handle, 16, "where linked plugins read it");
                blocks.insert(16, input.len() as u64);
            }
        }
        14 => {
            for room in [&mut *guest, &mut *host] {
                room.get::<_, ()>("reset", ());
            }
            blocks.clear();
        }
        _ => {
            let bytes = guest.get::<_, i64>("memory_bytes", ());
            assert_eq!(bytes.cast_unsigned() + 16, guest.size());
        }
    }
}

/// Links what may or may not be a module: what comes out is one.
pub fn extism_link(input: &[u8]) {
    if let Ok(linked) = link(input) {
        let wrong = wasmparser::Validator::new().validate_all(&linked).err();
        assert!(wrong.is_none(), "the linked module is not valid: {wrong:?}");
    }
}

/// Makes a component of what may or may not be a module that stands for one: what comes out is valid, and can
/// be looked at.
pub fn componentize(input: &[u8]) {
    if let Ok(std::borrow::Cow::Owned(made)) = crate::componentize(input) {
        let wrong = wasmparser::Validator::new().validate_all(&made).err();
        assert!(wrong.is_none(), "the component is not valid: {wrong:?}");
        let _ = crate::inspect::inspect(&made);
    }
}

/// Signs compiled code and changes a byte of the file, or cuts it: only what was signed is believed. The first
/// four bytes choose, the rest is the code.
pub fn compiled(input: &[u8]) {
    let Some((choice, code)) = input.split_first_chunk::<4>() else { return };
    let choice = u32::from_le_bytes(*choice);
    let good = crate::cache::signed(code);
    assert_eq!(crate::cache::believed(good.clone()).as_deref(), Some(code));
    let place = (choice >> 8) as usize % good.len();
    let mut changed = good.clone();
    let how = choice as u8;
    match how {
        0 => changed.truncate(place),
        1 => changed.insert(place, 0),
        2 => changed.push(0),
        _ => {
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= how;
            }
        }
    }
    assert_eq!(crate::cache::believed(changed), None, "{how} at {place}");
    // As it came, it is nobody's.
    assert_eq!(crate::cache::believed(input.to_vec()), None);
}

/// Sockets of a guest, their names and their connections.
pub fn sockets(input: &[u8]) {
    crate::wasi::sockets::fuzz::drive(input);
}
