//! JSON Schema (draft 2020-12) of a type.

use serde_json::{Map, Value, json};

use super::shape::{Field, Shape};

/// The schema of the arguments of a function: an object with a member for each parameter.
#[must_use]
pub fn of_arguments(parameters: &[Field]) -> Value {
    object(parameters)
}

/// The schema of a type's values.
#[must_use]
pub fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Integer(width) => {
            let (least, most) = width.range();
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Shape::F32 | Shape::F64 => json!({"anyOf": [
            {"type": "number"},
            {"enum": ["NaN", "Infinity", "-Infinity"]}
        ]}),
        Shape::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
        Shape::Text => json!({"type": "string"}),
        Shape::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Shape::List(of_shape) => json!({"type": "array", "items": of(of_shape)}),
        // `prefixItems` has at least one (JSON Schema 2020-12, core, 10.3.1.1).
        Shape::Tuple(shapes) if shapes.is_empty() => json!({"type": "array", "maxItems": 0}),
        Shape::Tuple(shapes) => json!({
            "type": "array",
            "prefixItems": shapes.iter().map(of).collect::<Vec<_>>(),
            "minItems": shapes.len(),
            "maxItems": shapes.len(),
        }),
        Shape::Record(fields) => object(fields),
        Shape::Option(inner) => {
            let some = if inner.may_be_null() { single("some", of(inner)) } else { of(inner) };
            json!({"anyOf": [some, {"type": "null"}]})
        }
        Shape::Variant(cases) => {
            let bare: Vec<&str> =
                cases.iter().filter(|c| c.payload.is_none()).map(|c| c.name.as_str()).collect();
            let mut any: Vec<Value> = Vec::new();
            if !bare.is_empty() {
                any.push(json!({"enum": bare}));
            }
            for case in cases {
                if let Some(payload) = &case.payload {
                    any.push(single(&case.name, of(payload)));
                }
            }
            json!({"anyOf": any})
        }
        Shape::Enum(names) => json!({"enum": names}),
        Shape::Flags(names) => {
            json!({"type": "array", "items": {"enum": names}, "uniqueItems": true})
        }
        Shape::Result { ok, err } => {
            let side = |name: &str, shape: &Option<Box<Shape>>| {
                let value = shape.as_deref().map_or_else(|| json!({"type": "null"}), of);
                single(name, value)
            };
            json!({"anyOf": [side("ok", ok), side("err", err)]})
        }
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.clone(), of(&field.shape))).collect();
    let required: Vec<&str> =
        fields.iter().filter(|f| !f.shape.may_be_null()).map(|f| f.name.as_str()).collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema.insert("additionalProperties".into(), false.into());
    Value::Object(schema)
}

/// An object with one member.
fn single(name: &str, value: Value) -> Value {
    let mut properties = Map::new();
    properties.insert(name.to_owned(), value);
    json!({
        "type": "object",
        "properties": properties,
        "required": [name],
        "additionalProperties": false,
    })
}
