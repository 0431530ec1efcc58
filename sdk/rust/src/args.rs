//! Reads JSON into an author's types, and says in JSON's words where it does not fit:
//! `args.size.width: expected integer, got string`.
//!
//! Not serde_json's own errors: they name Rust's types and a column of a text that the caller never saw.
//! Values are read from their text, so integers up to 128 bits and `RawValue`s keep what was written.

use std::{fmt, vec};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use crate::error::PalisadeError;

/// Serde's name for "take the text as it is"; serde_json's own deserializer knows what to do then.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Reads a value; `root` is what the path of an error begins with.
pub(crate) fn read<T: DeserializeOwned>(text: &str, root: &str) -> Result<T, PalisadeError> {
    T::deserialize(Node { text: text.trim(), path: &Path::Root(root) })
        .map_err(|e| PalisadeError::params(e.message(root)))
}

enum Path<'p> {
    Root(&'p str),
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{}", short(name)),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

fn short(name: &str) -> &str {
    name.char_indices().nth(80).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// What does not fit, and where once that is known.
#[derive(Debug)]
struct Mismatch {
    path: Option<String>,
    text: String,
}

impl Mismatch {
    fn at(mut self, path: &Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }

    fn message(self, root: &str) -> String {
        format!("{}: {}", self.path.as_deref().unwrap_or(root), self.text)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { path: None, text: text.to_string() }
    }
}

/// One value: its text, without spaces around it.
#[derive(Clone, Copy)]
struct Node<'de, 'p> {
    text: &'de str,
    path: &'p Path<'p>,
}

type Entry<'de> = (String, &'de RawValue);

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

struct Items<'de, 'p> {
    items: vec::IntoIter<&'de RawValue>,
    index: usize,
    path: &'p Path<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.path, self.index);
        self.index += 1;
        seed.deserialize(Node { text: item.get(), path: &path }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'de, 'p> {
    entries: vec::IntoIter<Entry<'de>>,
    value: Option<Entry<'de>>,
    path: &'p Path<'p>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        self.value = self.entries.next();
        let Some((name, _)) = &self.value else { return Ok(None) };
        seed.deserialize(de::value::StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let Some((name, value)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its name"));
        };
        seed.deserialize(Node { text: value.get(), path: &Path::Field(self.path, &name) })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

struct Choice<'de, 'p> {
    variant: String,
    content: Option<&'de RawValue>,
    path: &'p Path<'p>,
}

impl<'de, 'p> EnumAccess<'de> for Choice<'de, 'p> {
    type Error = Mismatch;
    type Variant = Content<'de, 'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Mismatch> {
        let variant = seed.deserialize(de::value::StrDeserializer::new(&self.variant))?;
        Ok((variant, Content { content: self.content, path: self.path }))
    }
}

struct Content<'de, 'p> {
    content: Option<&'de RawValue>,
    path: &'p Path<'p>,
}

impl<'de, 'p> Content<'de, 'p> {
    /// A missing content reads as `null`.
    fn node(&self) -> Node<'de, 'p> {
        Node { text: self.content.map_or("null", RawValue::get), path: self.path }
    }
}

impl<'de> VariantAccess<'de> for Content<'de, '_> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        self.content.map_or(Ok(()), |_| de::Deserialize::deserialize(self.node()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mismatch> {
        seed.deserialize(self.node())
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.node().deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.node().deserialize_map(visitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        A,
        B(i32),
        C { x: bool },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct All {
        n: i64,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        map: BTreeMap<String, u8>,
        #[serde(default)]
        any: Value,
        #[serde(default)]
        pair: Option<(f64, char)>,
    }

    fn all(value: &Value) -> Result<All, String> {
        read(&value.to_string(), "args").map_err(|e| e.message)
    }

    #[test]
    fn what_fits_is_read() {
        let read = all(&json!({
            "n": -3, "kind": {"b": 4}, "tags": ["x", "\n\"é"], "map": {"k\n": 255},
            "any": [{"a": 1.5}], "pair": [2, "é"],
        }));
        assert_eq!(
            read.unwrap(),
            All {
                n: -3,
                kind: Some(Kind::B(4)),
                tags: vec!["x".into(), "\n\"é".into()],
                map: [("k\n".to_owned(), 255)].into(),
                any: json!([{"a": 1.5}]),
                pair: Some((2.0, 'é')),
            }
        );
        assert_eq!(all(&json!({"n": 0, "kind": "a"})).unwrap().kind, Some(Kind::A));
        let c = all(&json!({"n": 0, "kind": {"c": {"x": true}}}));
        assert_eq!(c.unwrap().kind, Some(Kind::C { x: true }));
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_path() {
        for (value, message) in [
            (json!([1]), "args: expected object, got array"),
            (json!({}), "args: missing field `n`"),
            (json!({"n": "1"}), "args.n: expected integer, got string"),
            (json!({"n": 1.5}), "args.n: expected integer, got number"),
            (json!({"n": true}), "args.n: expected integer, got boolean"),
            (json!({"n": null}), "args.n: expected integer, got null"),
            (json!({"n": 0, "kind": "d"}), r#"args.kind: expected one of "a", "b", "c""#),
            (json!({"n": 0, "kind": {"b": "x"}}), "args.kind: expected integer, got string"),
            (
                json!({"n": 0, "kind": {"c": {"x": 0}}}),
                "args.kind.x: expected boolean, got integer",
            ),
            (json!({"n": 0, "kind": 3}), "args.kind: expected string, got integer"),
            (json!({"n": 0, "tags": ["x", 1]}), "args.tags[1]: expected string, got integer"),
            (json!({"n": 0, "tags": {}}), "args.tags: expected array, got object"),
            (json!({"n": 0, "map": {"k": 256}}), "args.map.k: expected an integer from 0 to 255"),
            (
                json!({"n": 0, "pair": [1]}),
                "args.pair: invalid length 1, expected a tuple of size 2",
            ),
        ] {
            assert_eq!(all(&value).unwrap_err(), message);
        }
        let unknown = all(&json!({"n": 0, "m": 1})).unwrap_err();
        assert!(unknown.starts_with("args: unknown field `m`"), "{unknown}");
    }

    #[test]
    fn numbers_keep_their_value() {
        let number = |text: &str| read::<i128>(text, "args").map_err(|e| e.message);
        assert_eq!(
            number("123456789012345678901234567890"),
            Ok(123_456_789_012_345_678_901_234_567_890)
        );
        assert_eq!(number("2.0"), Ok(2));
        assert_eq!(number("-1e3"), Ok(-1000));
        let long = "7".repeat(1000);
        assert!(number(&long).unwrap_err().starts_with("args: expected an integer from -170"));
        assert!(number("1e999").unwrap_err().contains("expected integer, got number"));
        assert!(read::<f64>("1e999", "args").unwrap_err().message.contains("out of range"));
        assert_eq!(read::<Box<RawValue>>(&long, "args").unwrap().get(), long);
        #[derive(Deserialize)]
        struct Inner {
            raw: Option<Box<RawValue>>,
        }
        let inner: Inner = read(r#"{"raw": 1.00}"#, "args").unwrap();
        assert_eq!(inner.raw.unwrap().get(), "1.00");
    }

    #[test]
    fn nothing_is_an_object_without_fields() {
        let nothing = |text: &str| read::<()>(text, "args").map_err(|e| e.message);
        assert_eq!(nothing("{}"), Ok(()));
        assert_eq!(nothing("null"), Ok(()));
        assert_eq!(nothing(r#"{"a":1}"#), Err("args: there is no \"a\"".to_owned()));
        assert_eq!(nothing("[]"), Err("args: expected null, got array".to_owned()));
    }
}
