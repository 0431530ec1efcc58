//! From JSON to values of a component, along a [`Shape`].
//!
//! What does not fit is told with the place where it stands, as `list[3].name`. How many values the JSON
//! text may become is bounded: one takes 40 bytes, however short it is written.

use std::fmt;

use data_encoding::BASE64;
use palisade_model::text::escape;
use serde_json::{Number, Value};
use wasmtime::component::Val;

use super::shape::{Field, Shape, Width};

/// Most values that one call's arguments may become, and that its result may have.
pub const MAX_VALUES: usize = 1 << 20;

/// Why JSON is no value of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", At(.path))]
pub struct Mismatch {
    /// Where it stands; empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// One step into a value; the way back is only put into words where something is wrong.
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

struct Reader<'a> {
    path: Vec<Step<'a>>,
    left: usize,
}

/// The values of a function's parameters from an object with a member for each.
///
/// # Errors
/// Where it does not fit, and how.
pub fn arguments(parameters: &[Field], arguments: &Value) -> Result<Vec<Val>, Mismatch> {
    let mut reader = Reader { path: Vec::new(), left: MAX_VALUES };
    let fields = reader.fields(parameters, arguments)?;
    Ok(fields.into_iter().map(|(_, value)| value).collect())
}

/// One value.
///
/// # Errors
/// Where it does not fit, and how.
pub fn value(shape: &Shape, json: &Value) -> Result<Val, Mismatch> {
    Reader { path: Vec::new(), left: MAX_VALUES }.value(shape, json)
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, problem: impl Into<String>) -> Result<T, Mismatch> {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Member(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&escape(name, 80));
                }
                Step::Item(at) => path.push_str(&format!("[{at}]")),
            }
        }
        Err(Mismatch { path, problem: problem.into() })
    }

    fn expected<T>(&self, what: &str, found: &Value) -> Result<T, Mismatch> {
        self.wrong(format!("must be {what}, and is {}", kind(found)))
    }

    fn spend(&mut self, values: usize) -> Result<(), Mismatch> {
        match self.left.checked_sub(values) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.wrong(format!("the arguments have more than {MAX_VALUES} values")),
        }
    }

    fn inside(
        &mut self,
        step: Step<'a>,
        shape: &'a Shape,
        json: &'a Value,
    ) -> Result<Val, Mismatch> {
        self.path.push(step);
        let value = self.value(shape, json)?;
        self.path.pop();
        Ok(value)
    }

    fn value(&mut self, shape: &'a Shape, json: &'a Value) -> Result<Val, Mismatch> {
        self.spend(1)?;
        match shape {
            Shape::Bool => match json {
                Value::Bool(value) => Ok(Val::Bool(*value)),
                other => self.expected("true or false", other),
            },
            Shape::Integer(width) => self.integer(*width, json),
            Shape::F32 => {
                let value = self.float(json)?;
                #[expect(clippy::cast_possible_truncation, reason = "checked below")]
                let single = value as f32;
                if value.is_finite() && !single.is_finite() {
                    return self.wrong("is greater than what an f32 holds");
                }
                Ok(Val::Float32(single))
            }
            Shape::F64 => Ok(Val::Float64(self.float(json)?)),
            Shape::Char => {
                let Value::String(text) = json else {
                    return self.expected("a string of one character", json);
                };
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(only), None) => Ok(Val::Char(only)),
                    _ => self.wrong("must be a string of exactly one character"),
                }
            }
            Shape::Text => match json {
                Value::String(text) => Ok(Val::String(text.clone())),
                other => self.expected("a string", other),
            },
            Shape::Bytes => {
                let Value::String(text) = json else {
                    return self.expected("a string of bytes in base64", json);
                };
                match BASE64.decode(text.as_bytes()) {
                    Ok(bytes) => {
                        self.spend(bytes.len())?;
                        Ok(Val::List(bytes.into_iter().map(Val::U8).collect()))
                    }
                    Err(why) => self.wrong(format!("must be bytes in base64: {why}")),
                }
            }
            Shape::List(of) => {
                let Value::Array(items) = json else { return self.expected("an array", json) };
                let mut values = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    values.push(self.inside(Step::Item(at), of, item)?);
                }
                Ok(Val::List(values))
            }
            Shape::Tuple(shapes) => {
                let Value::Array(items) = json else { return self.expected("an array", json) };
                if items.len() != shapes.len() {
                    return self.wrong(format!(
                        "must be an array of {} items, and has {}",
                        shapes.len(),
                        items.len()
                    ));
                }
                let mut values = Vec::new();
                for (at, (item, shape)) in items.iter().zip(shapes).enumerate() {
                    values.push(self.inside(Step::Item(at), shape, item)?);
                }
                Ok(Val::Tuple(values))
            }
            Shape::Record(fields) => Ok(Val::Record(self.fields(fields, json)?)),
            Shape::Option(_) if json.is_null() => Ok(Val::Option(None)),
            Shape::Option(of) if of.may_be_null() => {
                let some = match json {
                    Value::Object(members) if members.len() == 1 => members.get("some"),
                    _ => None,
                };
                let Some(some) = some else {
                    return self.expected("null or an object with the one member \"some\"", json);
                };
                Ok(Val::Option(Some(Box::new(self.inside(Step::Member("some"), of, some)?))))
            }
            Shape::Option(of) => Ok(Val::Option(Some(Box::new(self.value(of, json)?)))),
            Shape::Variant(cases) => {
                let (name, payload) = match json {
                    Value::String(name) => (name, None),
                    Value::Object(members) => match (members.iter().next(), members.len()) {
                        (Some((name, payload)), 1) => (name, Some(payload)),
                        _ => return self.wrong("must be an object with exactly one member"),
                    },
                    other => {
                        return self.expected(
                            "a case's name, or an object with the case's name as its one member",
                            other,
                        );
                    }
                };
                let Some(case) = cases.iter().find(|case| case.name == *name) else {
                    return self.no_such("case", name, cases.iter().map(|c| c.name.as_str()));
                };
                match (&case.payload, payload) {
                    (None, None) => Ok(Val::Variant(case.name.clone(), None)),
                    (Some(shape), Some(json)) => {
                        let value = self.inside(Step::Member(&case.name), shape, json)?;
                        Ok(Val::Variant(case.name.clone(), Some(Box::new(value))))
                    }
                    (Some(_), None) => self.wrong(format!(
                        "the case {0} carries a value: write {{\"{0}\": value}}",
                        case.name
                    )),
                    (None, Some(_)) => self
                        .wrong(format!("the case {0} carries nothing: write \"{0}\"", case.name)),
                }
            }
            Shape::Enum(names) => {
                let Value::String(name) = json else {
                    return self.expected("a case's name", json);
                };
                match names.iter().find(|known| *known == name) {
                    Some(known) => Ok(Val::Enum(known.clone())),
                    None => self.no_such("case", name, names.iter().map(String::as_str)),
                }
            }
            Shape::Flags(names) => {
                let Value::Array(items) = json else {
                    return self.expected("an array of names", json);
                };
                let mut set: Vec<String> = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    self.path.push(Step::Item(at));
                    let Value::String(name) = item else {
                        return self.expected("a flag's name", item);
                    };
                    if !names.contains(name) {
                        return self.no_such("flag", name, names.iter().map(String::as_str));
                    }
                    if set.contains(name) {
                        return self.wrong("stands there twice");
                    }
                    self.path.pop();
                    set.push(name.clone());
                }
                Ok(Val::Flags(set))
            }
            Shape::Result { ok, err } => {
                let one = match json {
                    Value::Object(members) if members.len() == 1 => members.iter().next(),
                    _ => None,
                };
                match one.map(|(name, value)| (name.as_str(), value)) {
                    Some(("ok", value)) => Ok(Val::Result(Ok(self.side("ok", ok, value)?))),
                    Some(("err", value)) => Ok(Val::Result(Err(self.side("err", err, value)?))),
                    _ => self.expected("an object with the one member \"ok\" or \"err\"", json),
                }
            }
        }
    }

    fn side(
        &mut self,
        name: &'static str,
        shape: &'a Option<Box<Shape>>,
        json: &'a Value,
    ) -> Result<Option<Box<Val>>, Mismatch> {
        match shape {
            Some(shape) => Ok(Some(Box::new(self.inside(Step::Member(name), shape, json)?))),
            None if json.is_null() => Ok(None),
            None => {
                self.path.push(Step::Member(name));
                self.expected("null", json)
            }
        }
    }

    fn fields(
        &mut self,
        fields: &'a [Field],
        json: &'a Value,
    ) -> Result<Vec<(String, Val)>, Mismatch> {
        let Value::Object(members) = json else { return self.expected("an object", json) };
        let mut values = Vec::with_capacity(fields.len());
        let mut found = 0;
        for field in fields {
            let value = match members.get(&field.name) {
                Some(json) => {
                    found += 1;
                    self.inside(Step::Member(&field.name), &field.shape, json)?
                }
                None if field.shape.may_be_null() => Val::Option(None),
                None => return self.wrong(format!("\"{}\" is missing", field.name)),
            };
            values.push((field.name.clone(), value));
        }
        if found != members.len() {
            let known = |name: &String| fields.iter().any(|field| field.name == *name);
            let unknown = members.keys().find(|name| !known(name)).map_or("", String::as_str);
            return self.no_such("member", unknown, fields.iter().map(|f| f.name.as_str()));
        }
        Ok(values)
    }

    fn no_such<'n, T>(
        &self,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<T, Mismatch> {
        let mut problem = format!("there is no {what} \"{}\"", escape(name, 80));
        if let Some(near) = palisade_model::text::nearest(name, known.clone().take(256)) {
            problem.push_str(&format!("; did you mean \"{near}\"?"));
        } else {
            let names: Vec<&str> = known.take(12).collect();
            if names.is_empty() {
                problem.push_str(", there is none");
            } else {
                problem.push_str(&format!("; there is {}", names.join(", ")));
            }
        }
        self.wrong(problem)
    }

    fn float(&self, json: &Value) -> Result<f64, Mismatch> {
        match json {
            Value::Number(number) => match number.as_f64() {
                Some(value) => Ok(value),
                None => self.wrong("is not a number that an f64 holds"),
            },
            Value::String(text) => match text.as_str() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => self.wrong("must be a number, \"NaN\", \"Infinity\" or \"-Infinity\""),
            },
            other => self.expected("a number", other),
        }
    }

    fn integer(&self, width: Width, json: &Value) -> Result<Val, Mismatch> {
        let Value::Number(number) = json else {
            return self.expected("a whole number", json);
        };
        let Some(value) = whole(number) else {
            return self.wrong(format!("must be a whole number, and is {number}"));
        };
        let fits = match width {
            Width::S8 => i8::try_from(value).ok().map(Val::S8),
            Width::U8 => u8::try_from(value).ok().map(Val::U8),
            Width::S16 => i16::try_from(value).ok().map(Val::S16),
            Width::U16 => u16::try_from(value).ok().map(Val::U16),
            Width::S32 => i32::try_from(value).ok().map(Val::S32),
            Width::U32 => u32::try_from(value).ok().map(Val::U32),
            Width::S64 => i64::try_from(value).ok().map(Val::S64),
            Width::U64 => u64::try_from(value).ok().map(Val::U64),
        };
        match fits {
            Some(value) => Ok(value),
            None => {
                let (least, most) = width.range();
                self.wrong(format!("must be from {least} to {most}, and is {value}"))
            }
        }
    }
}

/// The whole number that a JSON number is; `2.0` is one (JSON Schema 2020-12, 6.1.1).
fn whole(number: &Number) -> Option<i128> {
    if let Some(value) = number.as_i64() {
        return Some(value.into());
    }
    if let Some(value) = number.as_u64() {
        return Some(value.into());
    }
    // Beyond 2^53 a double does not tell whole numbers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i128)
}

/// What a JSON value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
