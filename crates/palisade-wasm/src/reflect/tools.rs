//! Exported functions as tools: how they are called, what they take and give.

use std::collections::HashMap;

use palisade_model::text::escape;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

use super::{
    schema,
    shape::{Field, Shape},
};
use crate::inspect::rights::Interface;

/// Longest name of a tool, in bytes.
const MAX_NAME: usize = 128;

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Its parameters; the arguments of the tool are an object with a member for each.
    pub parameters: Vec<Field>,
    /// Its result.
    pub result: Option<Shape>,
    /// Whether it is an `async func`.
    pub asynchronous: bool,
}

/// An exported function as it was found.
pub(crate) struct Found {
    /// The full name of the interface that it belongs to.
    pub(crate) interface: Option<String>,
    /// Its name there.
    pub(crate) function: String,
    /// What it takes and gives, or why that has no form in JSON.
    pub(crate) signature: Result<Signature, String>,
}

/// A tool that an exported function can be.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// What it is called.
    pub name: String,
    /// The full name of the interface that the function belongs to.
    pub interface: Option<String>,
    /// The function's name there.
    pub function: String,
    /// What it takes and gives; why it cannot be called, where it cannot.
    pub signature: Result<Signature, String>,
}

impl Tool {
    /// JSON Schema of the arguments; `None` where it cannot be called.
    #[must_use]
    pub fn input_schema(&self) -> Option<Value> {
        self.signature.as_ref().ok().map(|s| schema::of_arguments(&s.parameters))
    }

    /// JSON Schema of the result: of a `result` the one of its good side, since the other is a failure.
    #[must_use]
    pub fn output_schema(&self) -> Option<Value> {
        let null = || serde_json::json!({"type": "null"});
        let signature = self.signature.as_ref().ok()?;
        Some(match &signature.result {
            None | Some(Shape::Result { ok: None, .. }) => null(),
            Some(Shape::Result { ok: Some(ok), .. }) => schema::of(ok),
            Some(shape) => schema::of(shape),
        })
    }

    /// The function as WIT writes it, types written out.
    #[must_use]
    pub fn wit(&self) -> Option<String> {
        let signature = self.signature.as_ref().ok()?;
        let parameters: Vec<String> =
            signature.parameters.iter().map(|p| format!("{}: {}", p.name, p.shape)).collect();
        let result =
            signature.result.as_ref().map_or_else(String::new, |shape| format!(" -> {shape}"));
        let word = if signature.asynchronous { "async func" } else { "func" };
        Some(format!("{}: {word}({}){result}", self.function, parameters.join(", ")))
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        if let Some(interface) = &self.interface {
            map.serialize_entry("interface", interface)?;
        }
        map.serialize_entry("function", &self.function)?;
        match &self.signature {
            Ok(_) => {
                map.serialize_entry("wit", &self.wit())?;
                map.serialize_entry("input", &self.input_schema())?;
                map.serialize_entry("output", &self.output_schema())?;
            }
            Err(why) => map.serialize_entry("refused", why)?,
        }
        map.end()
    }
}

/// Names what was found, in its order. `wasi:cli/run` is `run`; a function of the world itself has its own
/// name; one of an interface is `interface.function`, and where two would be called the same, each is
/// `namespace.package.interface.function`, with the version between where that is the only difference.
/// Names have the characters that a tool's may have: dots, and no `:`, `/` or `@`.
pub(crate) fn tools(found: Vec<Found>) -> Vec<Tool> {
    let short: Vec<String> = found.iter().map(|f| name(f, Length::Short)).collect();
    let long: Vec<String> = found.iter().map(|f| name(f, Length::Long)).collect();
    let mut shorts: HashMap<&str, usize> = HashMap::new();
    let mut longs: HashMap<&str, usize> = HashMap::new();
    for (short, long) in short.iter().zip(&long) {
        *shorts.entry(short).or_default() += 1;
        *longs.entry(long).or_default() += 1;
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(found.len());
    let mut taken: HashMap<String, ()> = HashMap::new();
    for ((found, short), long) in found.into_iter().zip(&short).zip(&long) {
        let unique = |counts: &HashMap<&str, usize>, name: &String| {
            counts.get(name.as_str()).is_some_and(|count| *count == 1)
        };
        let name = if unique(&shorts, short) {
            short.clone()
        } else if unique(&longs, long) {
            long.clone()
        } else {
            name(&found, Length::Full)
        };
        let Found { interface, function, signature } = found;
        let signature = if function.starts_with('[') {
            Err("it belongs to a resource, and handles have no form in JSON".to_owned())
        } else if name.len() > MAX_NAME {
            Err(format!("its name is longer than {MAX_NAME} bytes"))
        } else if taken.insert(name.clone(), ()).is_some() {
            Err("another function is called the same".to_owned())
        } else {
            signature
        };
        tools.push(Tool { name: escape(&name, 2 * MAX_NAME), interface, function, signature });
    }
    tools
}

#[derive(Clone, Copy, PartialEq)]
enum Length {
    Short,
    Long,
    Full,
}

fn name(found: &Found, length: Length) -> String {
    let Some(full) = &found.interface else { return found.function.clone() };
    let Some(parts) = Interface::parse(full) else {
        // An interface without a package.
        return format!("{}.{}", full.replace(['/', ':', '@'], "."), found.function);
    };
    let package = parts.package.replace(':', ".");
    match (length, parts.version) {
        (Length::Short, _)
            if parts.package == "wasi:cli"
                && parts.interface == "run"
                && found.function == "run" =>
        {
            "run".to_owned()
        }
        (Length::Short, _) => format!("{}.{}", parts.interface, found.function),
        (Length::Full, Some(version)) => {
            format!("{package}.{}.{version}.{}", parts.interface, found.function)
        }
        _ => format!("{package}.{}.{}", parts.interface, found.function),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(interface: Option<&str>, function: &str) -> Found {
        let signature = Ok(Signature { parameters: Vec::new(), result: None, asynchronous: false });
        Found { interface: interface.map(str::to_owned), function: function.to_owned(), signature }
    }

    fn names(all: Vec<Found>) -> Vec<(String, bool)> {
        tools(all).into_iter().map(|tool| (tool.name, tool.signature.is_ok())).collect()
    }

    #[test]
    fn names_are_short_where_that_is_clear_and_longer_where_it_is_not() {
        let all = vec![
            found(None, "top"),
            found(Some("docs:adder/add@0.1.0"), "add"),
            found(Some("a:x/store@1.0.0"), "get"),
            found(Some("b:x/store@1.0.0"), "get"),
            found(Some("c:y/api@1.0.0"), "go"),
            found(Some("c:y/api@2.0.0"), "go"),
            found(Some("wasi:cli/run@0.2.3"), "run"),
            found(Some("a:x/store@1.0.0"), "[method]thing.get"),
        ];
        let expected = [
            ("top", true),
            ("add.add", true),
            ("a.x.store.get", true),
            ("b.x.store.get", true),
            ("c.y.api.1.0.0.go", true),
            ("c.y.api.2.0.0.go", true),
            ("run", true),
            ("store.[method]thing.get", false),
        ];
        let expected: Vec<(String, bool)> =
            expected.into_iter().map(|(name, ok)| (name.to_owned(), ok)).collect();
        assert_eq!(names(all), expected);
    }

    #[test]
    fn of_two_functions_with_one_name_only_one_can_be_called() {
        let all = vec![found(Some("plain"), "x"), found(Some("plain"), "x")];
        let names = names(all);
        assert_eq!(names.iter().filter(|(_, ok)| *ok).count(), 1, "{names:?}");
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!(!names(vec![found(None, &"a".repeat(129))])[0].1);
        assert!(names(vec![found(None, &"a".repeat(128))])[0].1);
    }
}
