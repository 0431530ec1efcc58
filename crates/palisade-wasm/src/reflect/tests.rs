//! JSON to values and back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    read::{self, MAX_VALUES},
    schema,
    shape::{Case, Field, Shape, Width},
    write::{self, WriteError},
};

fn field(name: &str, shape: Shape) -> Field {
    Field { name: name.into(), shape }
}

fn back(shape: &Shape, json: &Value) -> Value {
    let value = read::value(shape, json).unwrap_or_else(|e| panic!("{shape} from {json}: {e}"));
    let mut text = Vec::new();
    write::value(shape, &value, &mut text, 1 << 20).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn wrong(shape: &Shape, json: Value) -> String {
    read::value(shape, &json).unwrap_err().to_string()
}

fn point() -> Shape {
    Shape::Record(vec![
        field("x", Shape::Integer(Width::S32)),
        field("label", Shape::Option(Box::new(Shape::Text))),
    ])
}

fn event() -> Shape {
    Shape::Variant(vec![
        Case { name: "quit".into(), payload: None },
        Case { name: "key".into(), payload: Some(Shape::Char) },
        Case { name: "moved".into(), payload: Some(Shape::List(Box::new(point()))) },
    ])
}

#[test]
fn values_of_every_type_come_back_as_they_were() {
    let twice = Shape::Option(Box::new(Shape::Option(Box::new(Shape::Bool))));
    let result = Shape::Result { ok: Some(Box::new(Shape::Text)), err: None };
    let cases = [
        (Shape::Bool, json!(true)),
        (Shape::Integer(Width::U64), json!(u64::MAX)),
        (Shape::Integer(Width::S64), json!(i64::MIN)),
        (Shape::Integer(Width::S8), json!(-128)),
        (Shape::F64, json!(0.1)),
        (Shape::F32, json!(0.1)),
        (Shape::F64, json!("NaN")),
        (Shape::F32, json!("-Infinity")),
        (Shape::Char, json!("é")),
        (Shape::Text, json!("a\u{0}\"\n")),
        (Shape::Bytes, json!("AAH/")),
        (Shape::Tuple(vec![Shape::Bool, Shape::Text]), json!([false, ""])),
        (point(), json!({"x": 1, "label": "a"})),
        (point(), json!({"x": 1, "label": null})),
        (event(), json!("quit")),
        (event(), json!({"key": "k"})),
        (event(), json!({"moved": [{"x": 1, "label": null}]})),
        (Shape::Enum(vec!["red".into(), "green".into()]), json!("green")),
        (Shape::Flags(vec!["r".into(), "w".into()]), json!(["w"])),
        (twice.clone(), json!(null)),
        (twice.clone(), json!({"some": null})),
        (twice, json!({"some": true})),
        (result.clone(), json!({"ok": "x"})),
        (result, json!({"err": null})),
    ];
    for (shape, json) in cases {
        assert_eq!(back(&shape, &json), json, "{shape}");
    }
    // What may be missing, and whole numbers that are written as fractions.
    assert_eq!(back(&point(), &json!({"x": 2.0})), json!({"x": 2, "label": null}));
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let list = Shape::Record(vec![field("points", Shape::List(Box::new(point())))]);
    assert_eq!(
        wrong(&list, json!({"points": [{"x": 1}, {"x": "2"}]})),
        "points[1].x: must be a whole number, and is a string"
    );
    assert_eq!(wrong(&list, json!({})), "\"points\" is missing");
    assert_eq!(
        wrong(&list, json!({"points": [], "point": 1})),
        "there is no member \"point\"; did you mean \"points\"?"
    );
    assert_eq!(wrong(&Shape::Integer(Width::U8), json!(256)), "must be from 0 to 255, and is 256");
    assert_eq!(
        wrong(&Shape::Integer(Width::U64), json!(-1)),
        format!("must be from 0 to {}, and is -1", u64::MAX)
    );
    assert_eq!(
        wrong(&Shape::Integer(Width::S32), json!(1.5)),
        "must be a whole number, and is 1.5"
    );
    assert_eq!(wrong(&Shape::F32, json!(1e300)), "is greater than what an f32 holds");
    assert_eq!(wrong(&Shape::Char, json!("ab")), "must be a string of exactly one character");
    assert!(wrong(&Shape::Bytes, json!("a")).contains("base64"));
    assert_eq!(
        wrong(&event(), json!("key")),
        "the case key carries a value: write {\"key\": value}"
    );
    assert_eq!(
        wrong(&event(), json!({"quit": 1})),
        "the case quit carries nothing: write \"quit\""
    );
    assert_eq!(
        wrong(&event(), json!("stop")),
        "there is no case \"stop\"; there is quit, key, moved"
    );
    assert_eq!(
        wrong(&Shape::Flags(vec!["r".into()]), json!(["r", "r"])),
        "[1]: stands there twice"
    );
    assert_eq!(
        wrong(&Shape::Tuple(vec![Shape::Bool]), json!([])),
        "must be an array of 1 items, and has 0"
    );
    assert_eq!(
        wrong(&Shape::Result { ok: None, err: None }, json!({"ok": 1})),
        "ok: must be null, and is a number"
    );
    // Names of a caller's are escaped.
    assert!(!wrong(&point(), json!({"x": 1, "\u{1b}[31m": 1})).contains('\u{1b}'));
}

#[test]
fn there_is_an_end_to_how_many_values_a_text_may_become() {
    let list = Shape::List(Box::new(Shape::Bool));
    let many = Value::Array(vec![Value::Bool(true); MAX_VALUES]);
    assert!(wrong(&list, many).contains("more than 1048576 values"));
    let bytes = "AAAA".repeat(MAX_VALUES / 3 + 1);
    assert!(wrong(&Shape::Bytes, json!(bytes)).contains("more than"));
}

#[test]
fn a_result_is_bounded_while_it_is_written_and_one_of_another_type_is_refused() {
    let value = read::value(&Shape::Text, &json!("\u{1}".repeat(100))).unwrap();
    let mut out = Vec::new();
    assert_eq!(write::value(&Shape::Text, &value, &mut out, 300), Err(WriteError::TooLong(300)));
    out.clear();
    write::value(&Shape::Text, &value, &mut out, 602).unwrap();
    out.clear();
    assert_eq!(write::value(&Shape::Bool, &value, &mut out, 300), Err(WriteError::NotOfType));
    let list = Shape::List(Box::new(Shape::Integer(Width::U8)));
    let value = read::value(&list, &json!([1, 2, 3])).unwrap();
    out.clear();
    assert_eq!(write::value(&list, &value, &mut out, 6), Err(WriteError::TooLong(6)));
}

#[test]
fn the_schema_says_what_is_taken() {
    let schema = schema::of_arguments(&[field("where", point()), field("what", event())]);
    assert_eq!(schema["required"], json!(["where", "what"]));
    assert_eq!(schema["properties"]["where"]["required"], json!(["x"]));
    assert_eq!(schema["properties"]["what"]["anyOf"][0], json!({"enum": ["quit"]}));
    assert_eq!(schema["additionalProperties"], json!(false));
}

fn shapes() -> impl Strategy<Value = Shape> {
    let width = prop::sample::select(vec![
        Width::S8,
        Width::U8,
        Width::S16,
        Width::U16,
        Width::S32,
        Width::U32,
        Width::S64,
        Width::U64,
    ]);
    let names = || {
        prop::collection::btree_set("[a-z]{1,4}", 1..5)
            .prop_map(|s| s.into_iter().collect::<Vec<String>>())
    };
    let leaf = prop_oneof![
        Just(Shape::Bool),
        width.prop_map(Shape::Integer),
        Just(Shape::F32),
        Just(Shape::F64),
        Just(Shape::Char),
        Just(Shape::Text),
        Just(Shape::Bytes),
        names().prop_map(Shape::Enum),
        names().prop_map(Shape::Flags),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            // `list<u8>` is bytes, as `inspect` makes it.
            inner.clone().prop_map(|of| match of {
                Shape::Integer(Width::U8) => Shape::Bytes,
                of => Shape::List(Box::new(of)),
            }),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Shape::Tuple),
            (names(), prop::collection::vec(inner.clone(), 5)).prop_map(|(names, shapes)| {
                Shape::Record(
                    names
                        .into_iter()
                        .zip(shapes)
                        .map(|(n, shape)| Field { name: n, shape })
                        .collect(),
                )
            }),
            boxed.clone().prop_map(Shape::Option),
            (names(), prop::collection::vec(prop::option::of(inner.clone()), 5)).prop_map(
                |(names, payloads)| {
                    Shape::Variant(
                        names
                            .into_iter()
                            .zip(payloads)
                            .map(|(name, payload)| Case { name, payload })
                            .collect(),
                    )
                }
            ),
            (prop::option::of(boxed.clone()), prop::option::of(boxed))
                .prop_map(|(ok, err)| Shape::Result { ok, err }),
        ]
    })
}

/// Some value of a type, as JSON, made from `seed`.
fn some(shape: &Shape, seed: &mut u64) -> Value {
    let mut next = |most: u64| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % most
    };
    match shape {
        Shape::Bool => json!(next(2) == 1),
        Shape::Integer(width) => {
            let (least, most) = width.range();
            match next(3) {
                0 => json!(least),
                1 => json!(most),
                _ => json!(next(100)),
            }
        }
        Shape::F32 => json!(f32::from(u16::try_from(next(60_000)).unwrap()) / 4.0),
        Shape::F64 => match next(4) {
            0 => json!("NaN"),
            1 => json!("Infinity"),
            _ => json!(f64::from(u32::try_from(next(1 << 30)).unwrap()) / 3.0),
        },
        Shape::Char => json!(char::from_u32(u32::try_from(next(0xd7ff)).unwrap()).unwrap()),
        Shape::Text => json!("x\u{1}é".repeat(usize::try_from(next(4)).unwrap())),
        Shape::Bytes => json!(["", "AA==", "/+8=", "AAEC"][usize::try_from(next(4)).unwrap()]),
        Shape::List(of) => (0..next(4)).map(|_| some(of, seed)).collect(),
        Shape::Tuple(shapes) => shapes.iter().map(|shape| some(shape, seed)).collect(),
        Shape::Record(fields) => {
            Value::Object(fields.iter().map(|f| (f.name.clone(), some(&f.shape, seed))).collect())
        }
        Shape::Option(of) => match next(3) {
            0 => Value::Null,
            _ if of.may_be_null() => json!({"some": some(of, seed)}),
            _ => some(of, seed),
        },
        Shape::Variant(cases) => {
            let case = &cases[usize::try_from(next(cases.len() as u64)).unwrap()];
            match &case.payload {
                None => json!(case.name),
                Some(payload) => json!({case.name.as_str(): some(payload, seed)}),
            }
        }
        Shape::Enum(names) => json!(names[usize::try_from(next(names.len() as u64)).unwrap()]),
        Shape::Flags(names) => {
            names.iter().filter(|_| next(2) == 1).map(|name| json!(name)).collect()
        }
        Shape::Result { ok, err } => {
            let (name, side) = if next(2) == 1 { ("ok", ok) } else { ("err", err) };
            json!({name: side.as_deref().map_or(Value::Null, |side| some(side, seed))})
        }
    }
}

/// Any JSON at all, small.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_read_is_written_back_the_same(shape in shapes(), mut seed in any::<u64>()) {
        let json = some(&shape, &mut seed);
        prop_assert_eq!(back(&shape, &json), json, "{}", shape);
    }

    #[test]
    fn whatever_is_taken_can_be_written_and_taken_again(shape in shapes(), json in anything()) {
        if let Ok(value) = read::value(&shape, &json) {
            let mut text = Vec::new();
            write::value(&shape, &value, &mut text, 1 << 20).unwrap();
            let again: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(back(&shape, &again), again, "{}", shape);
        }
    }

    #[test]
    fn the_schema_takes_what_the_reader_takes(shape in shapes(), mut seed in any::<u64>(), other in anything()) {
        let validator = jsonschema::validator_for(&schema::of(&shape)).unwrap();
        let json = some(&shape, &mut seed);
        prop_assert!(validator.is_valid(&json), "{} refuses {}", shape, json);
        // And what the schema refuses, the reader refuses; only the form of base64 and the width of an f32
        // are not in the schema, which takes more there.
        if !validator.is_valid(&other) {
            prop_assert!(read::value(&shape, &other).is_err(), "{} takes {}", shape, other);
        }
    }
}
