//! From values of a component to JSON text, along a [`Shape`].
//!
//! A value comes from a plugin: its text is bounded while it is written, and a value that does not fit its
//! own type is an error and no panic.

use data_encoding::BASE64;
use serde_json::Value;
use wasmtime::component::Val;

use super::shape::{Field, Shape};

/// Why a value could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Its text would be too long.
    #[error("the result is longer than {0} bytes as JSON")]
    TooLong(usize),
    /// The value is not of the type that the function has.
    #[error("the result does not have the type that the component declares")]
    NotOfType,
}

/// Writes `value` to the end of `out`, which grows to at most `most` bytes.
///
/// # Errors
/// [`WriteError`].
pub fn value(shape: &Shape, value: &Val, out: &mut Vec<u8>, most: usize) -> Result<(), WriteError> {
    Writer { out, most }.value(shape, value)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    most: usize,
}

impl Writer<'_> {
    fn put(&mut self, text: &[u8]) -> Result<(), WriteError> {
        if self.out.len() + text.len() > self.most {
            return Err(WriteError::TooLong(self.most));
        }
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), WriteError> {
        if self.out.len() + text.len() + 2 > self.most {
            return Err(WriteError::TooLong(self.most));
        }
        serde_json::to_writer(&mut *self.out, text).map_err(|_| WriteError::NotOfType)?;
        if self.out.len() > self.most { Err(WriteError::TooLong(self.most)) } else { Ok(()) }
    }

    fn number(&mut self, number: impl Into<Value>) -> Result<(), WriteError> {
        let text = number.into().to_string();
        self.put(text.as_bytes())
    }

    fn float(&mut self, value: f64) -> Result<(), WriteError> {
        if value.is_nan() {
            self.put(b"\"NaN\"")
        } else if value.is_infinite() {
            self.put(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })
        } else {
            self.number(value)
        }
    }

    fn items<'v>(
        &mut self,
        items: impl Iterator<Item = (&'v Shape, &'v Val)>,
    ) -> Result<(), WriteError> {
        self.put(b"[")?;
        for (at, (shape, value)) in items.enumerate() {
            if at > 0 {
                self.put(b",")?;
            }
            self.value(shape, value)?;
        }
        self.put(b"]")
    }

    fn member(
        &mut self,
        name: &str,
        shape: Option<&Shape>,
        value: Option<&Val>,
    ) -> Result<(), WriteError> {
        self.put(b"{")?;
        self.text(name)?;
        self.put(b":")?;
        match (shape, value) {
            (Some(shape), Some(value)) => self.value(shape, value)?,
            (None, None) => self.put(b"null")?,
            _ => return Err(WriteError::NotOfType),
        }
        self.put(b"}")
    }

    fn record(&mut self, fields: &[Field], values: &[(String, Val)]) -> Result<(), WriteError> {
        if fields.len() != values.len() {
            return Err(WriteError::NotOfType);
        }
        self.put(b"{")?;
        for (at, (field, (name, value))) in fields.iter().zip(values).enumerate() {
            if field.name != *name {
                return Err(WriteError::NotOfType);
            }
            if at > 0 {
                self.put(b",")?;
            }
            self.text(name)?;
            self.put(b":")?;
            self.value(&field.shape, value)?;
        }
        self.put(b"}")
    }

    fn value(&mut self, shape: &Shape, value: &Val) -> Result<(), WriteError> {
        match (shape, value) {
            (Shape::Bool, Val::Bool(value)) => self.put(if *value { b"true" } else { b"false" }),
            (Shape::Integer(_), Val::S8(value)) => self.number(*value),
            (Shape::Integer(_), Val::U8(value)) => self.number(*value),
            (Shape::Integer(_), Val::S16(value)) => self.number(*value),
            (Shape::Integer(_), Val::U16(value)) => self.number(*value),
            (Shape::Integer(_), Val::S32(value)) => self.number(*value),
            (Shape::Integer(_), Val::U32(value)) => self.number(*value),
            (Shape::Integer(_), Val::S64(value)) => self.number(*value),
            (Shape::Integer(_), Val::U64(value)) => self.number(*value),
            (Shape::F32, Val::Float32(value)) => {
                // In its own digits, not in those of the double that it becomes.
                if value.is_finite() {
                    let text = serde_json::to_string(value).map_err(|_| WriteError::NotOfType)?;
                    self.put(text.as_bytes())
                } else {
                    self.float(f64::from(*value))
                }
            }
            (Shape::F64, Val::Float64(value)) => self.float(*value),
            (Shape::Char, Val::Char(value)) => self.text(value.encode_utf8(&mut [0; 4])),
            (Shape::Text, Val::String(value)) => self.text(value),
            (Shape::Bytes, Val::List(values)) => {
                if BASE64.encode_len(values.len()) > self.most {
                    return Err(WriteError::TooLong(self.most));
                }
                let bytes: Option<Vec<u8>> = values
                    .iter()
                    .map(|value| if let Val::U8(byte) = value { Some(*byte) } else { None })
                    .collect();
                self.text(&BASE64.encode(&bytes.ok_or(WriteError::NotOfType)?))
            }
            (Shape::List(of), Val::List(values)) => {
                self.items(values.iter().map(|value| (&**of, value)))
            }
            (Shape::Tuple(shapes), Val::Tuple(values)) if shapes.len() == values.len() => {
                self.items(shapes.iter().zip(values))
            }
            (Shape::Record(fields), Val::Record(values)) => self.record(fields, values),
            (Shape::Option(_), Val::Option(None)) => self.put(b"null"),
            (Shape::Option(of), Val::Option(Some(value))) if of.may_be_null() => {
                self.member("some", Some(of), Some(value))
            }
            (Shape::Option(of), Val::Option(Some(value))) => self.value(of, value),
            (Shape::Variant(cases), Val::Variant(name, payload)) => {
                let case = cases.iter().find(|case| case.name == *name);
                match (case.ok_or(WriteError::NotOfType)?, payload) {
                    (case, None) if case.payload.is_none() => self.text(name),
                    (case, payload) => self.member(name, case.payload.as_ref(), payload.as_deref()),
                }
            }
            (Shape::Enum(names), Val::Enum(name)) if names.contains(name) => self.text(name),
            (Shape::Flags(_), Val::Flags(set)) => {
                self.put(b"[")?;
                for (at, name) in set.iter().enumerate() {
                    if at > 0 {
                        self.put(b",")?;
                    }
                    self.text(name)?;
                }
                self.put(b"]")
            }
            (Shape::Result { ok, .. }, Val::Result(Ok(value))) => {
                self.member("ok", ok.as_deref(), value.as_deref())
            }
            (Shape::Result { err, .. }, Val::Result(Err(value))) => {
                self.member("err", err.as_deref(), value.as_deref())
            }
            _ => Err(WriteError::NotOfType),
        }
    }
}
