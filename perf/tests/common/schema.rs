//! Checks JSON against `schema/report-1.json`: the words of JSON Schema that the file uses, and a
//! panic for any other, so that the file can't ask for what is not looked at.

use serde_json::{Map, Value};

/// Panics where `report` is not as documented.
pub fn check(report: &Value) {
    let failures = failures(report);
    assert!(failures.is_empty(), "{failures:#?}\n{report:#}");
}

/// What the schema says against `report`.
pub fn failures(report: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("../../schema/report-1.json")).unwrap();
    let mut failures = Vec::new();
    one(&schema, &schema, report, "report", &mut failures);
    failures
}

fn one(root: &Value, schema: &Value, value: &Value, at: &str, failures: &mut Vec<String>) {
    let schema = schema.as_object().expect("a schema is an object");
    for (word, wanted) in schema {
        let holds = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let path = wanted
                    .as_str()
                    .unwrap()
                    .strip_prefix('#')
                    .expect("a local reference");
                let target = root.pointer(path).expect("a reference to something");
                one(root, target, value, at, failures);
                true
            }
            "type" => is_type(wanted, value),
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= count(wanted)),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 <= count(wanted)),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    one(root, wanted, item, &format!("{at}[{index}]"), failures);
                }
                true
            }
            "required" => {
                for name in wanted.as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    if value
                        .as_object()
                        .is_some_and(|object| !object.contains_key(name))
                    {
                        failures.push(format!("{at} has no {name}"));
                    }
                }
                true
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = wanted.get(name) {
                        one(root, schema, inner, &format!("{at}.{name}"), failures);
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(wanted, &Value::Bool(false), "only false is known here");
                undocumented(schema, value, at, failures);
                true
            }
            other => panic!("the schema uses {other:?}, which this test does not know"),
        };
        if !holds {
            failures.push(format!("{at} is {value}, and {word} wants {wanted}"));
        }
    }
}

fn undocumented(schema: &Map<String, Value>, value: &Value, at: &str, failures: &mut Vec<String>) {
    for name in value.as_object().into_iter().flat_map(Map::keys) {
        if schema["properties"].get(name).is_none() {
            failures.push(format!("{at}.{name} is not documented"));
        }
    }
}

fn count(wanted: &Value) -> u64 {
    wanted.as_u64().unwrap()
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    if let Some(several) = wanted.as_array() {
        return several.iter().any(|one| is_type(one, value));
    }
    match wanted.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        // JSON has no infinity: serde writes null for it, which this refuses.
        "number" => value.is_number(),
        other => panic!("an unknown type {other}"),
    }
}
