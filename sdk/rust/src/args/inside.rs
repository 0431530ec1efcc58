//! What is inside of a value: items, fields, and the content of a variant.

use std::vec;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::value::RawValue;

use super::{
    Mismatch, Path,
    node::{Entry, Node},
};

pub(super) struct Items<'de, 'p> {
    pub(super) items: vec::IntoIter<&'de RawValue>,
    pub(super) index: usize,
    pub(super) path: &'p Path<'p>,
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

pub(super) struct Fields<'de, 'p> {
    pub(super) entries: vec::IntoIter<Entry<'de>>,
    pub(super) value: Option<Entry<'de>>,
    pub(super) path: &'p Path<'p>,
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

pub(super) struct Choice<'de, 'p> {
    pub(super) variant: String,
    pub(super) content: Option<&'de RawValue>,
    pub(super) path: &'p Path<'p>,
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

pub(super) struct Content<'de, 'p> {
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
