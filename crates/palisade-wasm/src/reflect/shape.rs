//! The types of the component model that have a form in JSON, as a tree.
//!
//! A tree is made once from a component's own types ([`crate::inspect`]) and is of bounded size; schemas and
//! both directions of conversion follow it. What has no form in JSON (handles, streams, futures) never gets
//! into a tree.

use std::fmt;

/// Most nodes of the types of one function, with its parameters. Types in a component share parts, and a
/// tree does not: a few bytes could stand for a tree of any size.
pub const MAX_NODES: usize = 4096;
/// How deep types may be nested.
pub const MAX_DEPTH: usize = 48;

/// The whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// `s8`.
    S8,
    /// `u8`.
    U8,
    /// `s16`.
    S16,
    /// `u16`.
    U16,
    /// `s32`.
    S32,
    /// `u32`.
    U32,
    /// `s64`.
    S64,
    /// `u64`.
    U64,
}

impl Width {
    /// The smallest and the greatest value.
    #[must_use]
    pub const fn range(self) -> (i64, u64) {
        match self {
            Self::S8 => (i8::MIN as i64, i8::MAX as u64),
            Self::U8 => (0, u8::MAX as u64),
            Self::S16 => (i16::MIN as i64, i16::MAX as u64),
            Self::U16 => (0, u16::MAX as u64),
            Self::S32 => (i32::MIN as i64, i32::MAX as u64),
            Self::U32 => (0, u32::MAX as u64),
            Self::S64 => (i64::MIN, i64::MAX as u64),
            Self::U64 => (0, u64::MAX),
        }
    }
}

/// A named part of a record, or a named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name as WIT writes it.
    pub name: String,
    /// Its type.
    pub shape: Shape,
}

/// A case of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name as WIT writes it.
    pub name: String,
    /// What it carries.
    pub payload: Option<Shape>,
}

/// A type that has a form in JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `bool`: `true` or `false`.
    Bool,
    /// A whole number.
    Integer(Width),
    /// `f32`: a number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
    F32,
    /// `f64`, likewise.
    F64,
    /// `char`: a string of one character (a Unicode scalar value).
    Char,
    /// `string`.
    Text,
    /// `list<u8>`: a string in base64 (RFC 4648, 4).
    Bytes,
    /// `list`: an array.
    List(Box<Shape>),
    /// `tuple`: an array of exactly these.
    Tuple(Vec<Shape>),
    /// `record`: an object with exactly these members; one that is an option may be missing.
    Record(Vec<Field>),
    /// `option`: `null` or the value; where the value itself may be `null`, `{"some": value}`.
    Option(Box<Shape>),
    /// `variant`: the case's name, or `{"name": payload}`.
    Variant(Vec<Case>),
    /// `enum`: the case's name.
    Enum(Vec<String>),
    /// `flags`: an array of names.
    Flags(Vec<String>),
    /// `result`: `{"ok": value}` or `{"err": value}`, `null` where there is none.
    Result {
        /// Where it went well.
        ok: Option<Box<Shape>>,
        /// Where it did not.
        err: Option<Box<Shape>>,
    },
}

impl Shape {
    /// Whether `null` is a value of it.
    #[must_use]
    pub fn may_be_null(&self) -> bool {
        matches!(self, Self::Option(_))
    }
}

impl fmt::Display for Shape {
    /// As WIT writes it; named types are written out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, shapes: &[Shape]| {
            for (at, shape) in shapes.iter().enumerate() {
                write!(f, "{}{shape}", if at == 0 { "" } else { ", " })?;
            }
            Ok(())
        };
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Integer(width) => write!(f, "{}", format!("{width:?}").to_lowercase()),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::Text => f.write_str("string"),
            Self::Bytes => f.write_str("list<u8>"),
            Self::List(of) => write!(f, "list<{of}>"),
            Self::Tuple(of) => {
                f.write_str("tuple<")?;
                list(f, of)?;
                f.write_str(">")
            }
            Self::Record(fields) => {
                f.write_str("record { ")?;
                for (at, field) in fields.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", field.name, field.shape)?;
                }
                f.write_str(" }")
            }
            Self::Option(of) => write!(f, "option<{of}>"),
            Self::Variant(cases) => {
                f.write_str("variant { ")?;
                for (at, case) in cases.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { ", " }, case.name)?;
                    if let Some(payload) = &case.payload {
                        write!(f, "({payload})")?;
                    }
                }
                f.write_str(" }")
            }
            Self::Enum(names) => write!(f, "enum {{ {} }}", names.join(", ")),
            Self::Flags(names) => write!(f, "flags {{ {} }}", names.join(", ")),
            Self::Result { ok, err } => match (ok, err) {
                (None, None) => f.write_str("result"),
                (Some(ok), None) => write!(f, "result<{ok}>"),
                (None, Some(err)) => write!(f, "result<_, {err}>"),
                (Some(ok), Some(err)) => write!(f, "result<{ok}, {err}>"),
            },
        }
    }
}
