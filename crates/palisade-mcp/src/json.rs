//! JSON as text: objects and lists whose parts keep their spelling, and one canonical spelling to hash.
//!
//! Other parsers read the same lines, and not all read alike: some take the last of two equal keys, some
//! the first, some do not mind upper case. Where a key decides something, [`Object::read`] refuses every
//! object that two of them could read differently.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Why a text cannot be taken for what it is meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// It is something else: no object, no list.
    Shape,
    /// A key stands twice. Escaped.
    Twice(String),
    /// A key is one that counts, but for the case of its letters. Escaped.
    Almost(String),
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => f.write_str("it is no object, or its keys are not sound text"),
            Self::Twice(key) => write!(f, "the key {key:?} stands twice"),
            Self::Almost(key) => {
                write!(f, "the key {key:?} differs from one that counts in case only")
            }
        }
    }
}

fn shown(key: &str) -> String {
    palisade_model::text::escape(key, 64)
}

/// A key with the difference of case taken out, as Go's `encoding/json` does it: the long s and the
/// Kelvin sign fold to letters of ASCII.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// An object whose members keep their spelling.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    text: &'a str,
    members: Vec<(Cow<'a, str>, &'a str)>,
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            members.push((key, map.next_value::<&RawValue>()?.get()));
        }
        Ok(members)
    }
}

/// serde copies a `Cow` out unless it is told to borrow.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&RawValue>()? {
            items.push(item.get());
        }
        Ok(items)
    }
}

/// The items of the list `text`, as they are spelled; `None` where it is no list.
pub(crate) fn items(text: &str) -> Option<Vec<&str>> {
    let mut from = serde_json::Deserializer::from_str(text);
    let items = from.deserialize_seq(Items).ok()?;
    from.end().ok()?;
    Some(items)
}

/// The text that `raw` stands for, where it is one.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.starts_with('"') {
        return None;
    }
    serde_json::from_str::<Key<'_>>(raw).ok().map(|key| key.0)
}

/// Where `part`, which lies in `text`, begins and ends.
fn span(text: &str, part: &str) -> Option<(usize, usize)> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= text.len()).then_some((start, end))
}

impl<'a> Object<'a> {
    /// Reads an object. No key may stand twice, and none may be one of `counts` but for its case.
    pub(crate) fn read(text: &'a str, counts: &[&str]) -> Result<Self, Unclear> {
        let mut from = serde_json::Deserializer::from_str(text);
        let members = from.deserialize_map(Members).map_err(|_| Unclear::Shape)?;
        from.end().map_err(|_| Unclear::Shape)?;
        let mut keys: Vec<&str> = members.iter().map(|(key, _)| &**key).collect();
        keys.sort_unstable();
        for pair in keys.windows(2) {
            if let [a, b] = pair
                && a == b
            {
                return Err(Unclear::Twice(shown(a)));
            }
        }
        for key in keys {
            let low = folded(key);
            if counts.iter().any(|count| *count != key && folded(count) == low) {
                return Err(Unclear::Almost(shown(key)));
            }
        }
        Ok(Self { text, members })
    }

    /// The value of `key`, as it is spelled.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.members.iter().find(|(k, _)| k == key).map(|(_, value)| *value)
    }

    /// The members in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|(key, value)| (&**key, *value))
    }

    /// The text without the members whose key is in `unwanted`; the others keep their spelling. `None`
    /// where there is nothing to take out.
    pub(crate) fn without(&self, unwanted: &[&str]) -> Option<String> {
        if !self.members.iter().any(|(key, _)| unwanted.contains(&&**key)) {
            return None;
        }
        let spans: Option<Vec<_>> = self.members.iter().map(|(_, v)| span(self.text, v)).collect();
        let spans = spans?;
        let open = self.text.find('{')?;
        let mut out = String::with_capacity(self.text.len());
        out.push_str(self.text.get(..=open)?);
        let (mut from, mut is_first) = (open + 1, true);
        for ((key, _), (_, end)) in self.members.iter().zip(&spans) {
            // From behind the comma (or the brace) in front of the key to the end of the value.
            let member = self.text.get(from..*end)?;
            let member = if from == open + 1 { member } else { member.split_once(',')?.1 };
            from = *end;
            if unwanted.contains(&&**key) {
                continue;
            }
            if !is_first {
                out.push(',');
            }
            is_first = false;
            out.push_str(member);
        }
        out.push_str(self.text.get(from..)?);
        Some(out)
    }

    /// The text with `new` in place of the value of `key`. `None` where there is no such key.
    pub(crate) fn with(&self, key: &str, new: &str) -> Option<String> {
        replace(self.text, self.get(key)?, new)
    }
}

/// `text` with `new` in place of `part`, which lies in it.
pub(crate) fn replace(text: &str, part: &str, new: &str) -> Option<String> {
    let (start, end) = span(text, part)?;
    Some([text.get(..start)?, new, text.get(end..)?].concat())
}

/// The list `text` with only those items that `keep` says, in their spelling.
pub(crate) fn filtered(text: &str, items: &[&str], keep: &[bool]) -> Option<String> {
    let kept: Vec<&str> =
        items.iter().zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| *item).collect();
    let open = text.find('[')?;
    let close = text.rfind(']')?;
    Some([text.get(..=open)?, &kept.join(","), text.get(close..)?].concat())
}

/// The one spelling of a value: keys sorted by their bytes, no space between tokens, texts escaped only
/// where they must be. Numbers keep their spelling: what two parsers may read differently is different.
/// `text` must be nested within bounds; this goes as deep as it does.
pub(crate) fn canonical(text: &str) -> Result<String, Unclear> {
    let mut out = String::with_capacity(text.len());
    write_canonical(text.trim(), &mut out)?;
    Ok(out)
}

fn write_string(text: &str, out: &mut String) {
    // A text always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn write_canonical(text: &str, out: &mut String) -> Result<(), Unclear> {
    match text.as_bytes().first() {
        Some(b'{') => {
            let object = Object::read(text, &[])?;
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (n, (key, value)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_canonical(value, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            out.push('[');
            for (n, item) in items(text).ok_or(Unclear::Shape)?.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(item, out)?;
            }
            out.push(']');
        }
        Some(b'"') => write_string(&string(text).ok_or(Unclear::Shape)?, out),
        Some(_) => out.push_str(text),
        None => return Err(Unclear::Shape),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_other_parsers_could_read_differently_are_refused() {
        let read = |text: &str| Object::read(text, &["name", "method", "tasks"]).map(|_| ());
        assert_eq!(read(r#"{"name":1,"n\u0061me":2}"#), Err(Unclear::Twice("name".into())));
        assert_eq!(read(r#"{"x":1,"y":2,"x":3}"#), Err(Unclear::Twice("x".into())));
        for almost in ["Name", "NAME", "tas\u{212a}s", "ta\u{17f}ks"] {
            let text = format!("{{{almost:?}:1}}");
            assert_eq!(read(&text), Err(Unclear::Almost(almost.into())), "{text}");
        }
        for shape in ["[]", "1", "", "{} {}", r#"{"\ud800":1}"#, r#"{"a":1"#, "{\"a\u{0}\":1}"] {
            assert_eq!(read(shape), Err(Unclear::Shape), "{shape}");
        }
        assert_eq!(read(r#" {"name": {"name":1,"Name":2}, "x": 1} "#), Ok(()));
    }

    #[test]
    fn members_are_taken_out_and_the_rest_keeps_its_spelling() {
        let text = "{ \"a\" : 1.0e2 ,\n \"b\":{\"a\":2} , \"c\":\"},\\\"{\"  }";
        let object = Object::read(text, &[]).unwrap();
        assert_eq!(object.without(&["z"]), None);
        assert_eq!(object.without(&["a"]).unwrap(), "{\n \"b\":{\"a\":2}, \"c\":\"},\\\"{\"  }");
        assert_eq!(object.without(&["b"]).unwrap(), "{ \"a\" : 1.0e2, \"c\":\"},\\\"{\"  }");
        assert_eq!(object.without(&["c"]).unwrap(), "{ \"a\" : 1.0e2,\n \"b\":{\"a\":2}  }");
        assert_eq!(object.without(&["a", "b", "c"]).unwrap(), "{  }");
        assert_eq!(
            object.with("b", "[]").unwrap(),
            "{ \"a\" : 1.0e2 ,\n \"b\":[] , \"c\":\"},\\\"{\"  }"
        );
        assert_eq!(
            filtered("[ 1, [2] ,3 ]", &["1", "[2]", "3"], &[true, false, true]).unwrap(),
            "[1,3]"
        );
        assert_eq!(filtered("[1]", &["1"], &[false]).unwrap(), "[]");
    }

    #[test]
    fn one_value_has_one_spelling() {
        let one = canonical(r#"{ "b" : [1.0, "\u0041\/"], "a": {"y":null,"x":true} }"#).unwrap();
        assert_eq!(one, r#"{"a":{"x":true,"y":null},"b":[1.0,"A/"]}"#);
        assert_ne!(canonical("1.0").unwrap(), canonical("1").unwrap());
        assert_eq!(canonical(r#"{"a":{"x":1,"x":1}}"#), Err(Unclear::Twice("x".into())));
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(serde_json::Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_says_the_same(value in value()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let canonical_text = canonical(&pretty).unwrap();
            prop_assert_eq!(&canonical(&value.to_string()).unwrap(), &canonical_text);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&canonical_text).unwrap(), value);
        }

        #[test]
        fn taking_out_a_member_is_what_a_parser_would_do(
            map in prop::collection::btree_map("[a-e]", value(), 0..5), unwanted in "[a-e]",
        ) {
            let text = serde_json::to_string_pretty(&map).unwrap();
            let object = Object::read(&text, &[]).unwrap();
            let mut expected = map.clone();
            match object.without(&[&unwanted]) {
                Some(text) => {
                    expected.remove(&unwanted).unwrap();
                    let read: std::collections::BTreeMap<String, serde_json::Value> =
                        serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(read, expected);
                }
                None => prop_assert!(!map.contains_key(&unwanted)),
            }
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            let _ = Object::read(&text, &["a"]).map(|o| o.without(&["a"]));
            let _ = items(&text);
        }
    }
}
