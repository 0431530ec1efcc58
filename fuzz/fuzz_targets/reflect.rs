//! Arguments of a reflected component: any JSON against any type. What is taken is written back as JSON that
//! is taken again as the same, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_wasm::reflect::{
    read, schema,
    shape::{Case, Field, Shape, Width},
    write,
};
use serde_json::Value;

/// A type as the bytes choose it.
fn shape(bytes: &mut &[u8], depth: usize) -> Shape {
    let mut next = || {
        let Some((first, rest)) = bytes.split_first() else { return 0 };
        *bytes = rest;
        *first
    };
    let (kind, count) = (next(), usize::from(next() % 4) + 1);
    let name = |at: usize| char::from(b'a' + u8::try_from(at).unwrap_or(0)).to_string();
    let leaf = match kind % 16 {
        0 => Some(Shape::Bool),
        1 => Some(Shape::Integer(Width::U8)),
        2 => Some(Shape::Integer(Width::S32)),
        3 => Some(Shape::Integer(Width::U64)),
        4 => Some(Shape::F32),
        5 => Some(Shape::F64),
        6 => Some(Shape::Char),
        7 => Some(Shape::Text),
        8 => Some(Shape::Bytes),
        9 => Some(Shape::Enum((0..count).map(name).collect())),
        10 => Some(Shape::Flags((0..count).map(name).collect())),
        _ if depth == 0 => Some(Shape::Bool),
        _ => None,
    };
    if let Some(leaf) = leaf {
        return leaf;
    }
    let mut inner = || Box::new(shape(bytes, depth - 1));
    match kind % 16 {
        11 => Shape::List(inner()),
        12 => Shape::Option(inner()),
        13 => {
            Shape::Record((0..count).map(|at| Field { name: name(at), shape: *inner() }).collect())
        }
        14 => Shape::Variant(
            (0..count)
                .map(|at| Case { name: name(at), payload: (at % 2 == 1).then(|| *inner()) })
                .collect(),
        ),
        _ => Shape::Result { ok: Some(inner()), err: (count > 2).then(inner) },
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = input;
    let shape = shape(&mut bytes, 4);
    let _ = schema::of(&shape);
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(value) = read::value(&shape, &json) else { return };
    let mut text = Vec::new();
    write::value(&shape, &value, &mut text, 1 << 20).expect("what was read can be written");
    let again: Value = serde_json::from_slice(&text).expect("it is JSON");
    let value = read::value(&shape, &again).expect("it can be read again");
    let mut twice = Vec::new();
    write::value(&shape, &value, &mut twice, 1 << 20).expect("and written again");
    assert_eq!(text, twice);
});
