//! One value, and how each kind of it is read.

use std::{fmt, vec};

use serde::{
    de::{self, Deserializer, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use super::{
    Mismatch, Path,
    inside::{Choice, Fields, Items},
    short,
};

/// Serde's name for "take the text as it is"; serde_json's own deserializer knows what to do then.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// One value: its text, without spaces around it.
#[derive(Clone, Copy)]
pub(super) struct Node<'de, 'p> {
    pub(super) text: &'de str,
    pub(super) path: &'p Path<'p>,
}

pub(super) type Entry<'de> = (String, &'de RawValue);

impl<'de> Node<'de, '_> {
    fn kind(&self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'"') => "string",
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b't' | b'f') => "boolean",
            Some(b'n') => "null",
            Some(_) if self.whole().is_some() => "integer",
            _ => "number",
        }
    }

    fn wrong(&self, expected: &str) -> Mismatch {
        Mismatch { path: None, text: format!("expected {expected}, got {}", self.kind()) }
            .at(self.path)
    }

    fn need(&self, kind: &str) -> Result<(), Mismatch> {
        if self.kind() == kind { Ok(()) } else { Err(self.wrong(kind)) }
    }

    /// A whole number, also one written as `2.0` or `1e3`: JSON does not tell them apart.
    fn whole(&self) -> Option<Whole> {
        let digits = self.text.strip_prefix('-').unwrap_or(self.text);
        if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
            return Some(self.text.parse().map_or(Whole::Beyond, Whole::Fits));
        }
        let number: f64 = self.text.parse().ok()?;
        // Up to 2^53 a float is exactly the number that was written.
        (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0)
            .then_some(Whole::Fits(number as i128))
    }

    fn json<T: de::Deserialize<'de>>(&self) -> Result<T, Mismatch> {
        serde_json::from_str(self.text).map_err(|e| self.unreadable(&e))
    }

    fn unreadable(&self, error: &serde_json::Error) -> Mismatch {
        let text = error.to_string();
        // The position is one in a text that nobody saw.
        let text = text.split(" at line ").next().unwrap_or_default();
        Mismatch { path: None, text: text.to_owned() }.at(self.path)
    }

    fn entries(&self) -> Result<vec::IntoIter<Entry<'de>>, Mismatch> {
        self.need("object")?;
        let mut parser = serde_json::Deserializer::from_str(self.text);
        let entries = parser.deserialize_map(Entries).map_err(|e| self.unreadable(&e))?;
        Ok(entries.into_iter())
    }
}

enum Whole {
    Fits(i128),
    /// More than 128 bits.
    Beyond,
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<Entry<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            let number = match self.whole() {
                Some(Whole::Fits(number)) => <$type>::try_from(number).ok(),
                Some(Whole::Beyond) => None,
                None => return Err(self.wrong("integer")),
            };
            let Some(number) = number else {
                let range = format!("an integer from {} to {}", <$type>::MIN, <$type>::MAX);
                return Err(Mismatch { path: None, text: format!("expected {range}") }.at(self.path));
            };
            visitor.$visit(number).map_err(|e: Mismatch| e.at(self.path))
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de, '_> {
    type Error = Mismatch;

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let mut parser = serde_json::Deserializer::from_str(self.text);
        parser.deserialize_any(visitor).map_err(|e| self.unreadable(&e))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.need("boolean")?;
        visitor.visit_bool(self.text == "true").map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if !matches!(self.kind(), "integer" | "number") {
            return Err(self.wrong("number"));
        }
        visitor.visit_f64(self.json()?).map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.need("string")?;
        let inside = self.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let read = match inside {
            Some(text) if !text.contains('\\') => visitor.visit_borrowed_str(text),
            _ => visitor.visit_string(self.json()?),
        };
        read.map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.kind() == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
            .map_err(|e: Mismatch| e.at(self.path))
    }

    /// `null`, and an object without fields: a tool that takes nothing has `()` as its arguments.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.kind() == "object" {
            if let Some((name, _)) = self.entries()?.next() {
                let text = format!("there is no {:?}", short(&name));
                return Err(Mismatch { path: None, text }.at(self.path));
            }
        } else {
            self.need("null")?;
        }
        visitor.visit_unit().map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if name == RAW_VALUE {
            let mut parser = serde_json::Deserializer::from_str(self.text);
            return parser
                .deserialize_newtype_struct(name, visitor)
                .map_err(|e| self.unreadable(&e));
        }
        visitor.visit_newtype_struct(self).map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.need("array")?;
        let items: Vec<&'de RawValue> = self.json()?;
        visitor
            .visit_seq(Items { items: items.into_iter(), index: 0, path: self.path })
            .map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let fields = Fields { entries: self.entries()?, value: None, path: self.path };
        visitor.visit_map(fields).map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let (variant, content) = match self.kind() {
            "string" => (self.json::<String>()?, None),
            "object" => {
                let mut entries = self.entries()?;
                match (entries.next(), entries.next()) {
                    (Some((variant, content)), None) => (variant, Some(content)),
                    _ => return Err(self.wrong("an object with one field")),
                }
            }
            _ => return Err(self.wrong("string")),
        };
        if !variants.contains(&variant.as_str()) {
            let choice: Vec<String> = variants.iter().map(|v| format!("{v:?}")).collect();
            let text = format!("expected one of {}", choice.join(", "));
            return Err(Mismatch { path: None, text }.at(self.path));
        }
        visitor
            .visit_enum(Choice { variant, content, path: self.path })
            .map_err(|e: Mismatch| e.at(self.path))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf }
}
