//! The JSON Schema of the configuration, from the types and their doc comments.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::layer::Layers;
use super::section::Config;
use super::shape::Shape;

/// The JSON Schema (2020-12) of a configuration file, for editors and for the chart. Secrets are `writeOnly`;
/// nothing is required, as a file states only what differs from the defaults, which the schema carries.
pub fn schema() -> Value {
    let mut schema = without_defaults();
    let shape = Shape::of_config();
    for leaf in Layers::over_reference(&shape).leaves.values() {
        let mut place = &mut schema;
        for name in &leaf.path {
            place = &mut place["properties"][name];
        }
        place["default"] = json!(leaf.value);
    }
    schema
}

/// The schema as the sections' types give it, in a form that is easy to walk: inlined, without `null`, which TOML
/// does not have, and without `required`.
pub(super) fn without_defaults() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    simplify(&mut schema);
    schema
}

fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    object.remove("default");
    drop_null(object);
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
    for nested in ["additionalProperties", "items"] {
        object.get_mut(nested).map(simplify);
    }
}

/// Turns `T or null` into `T`.
fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.remove("anyOf") {
        let given = choices.into_iter().find(|choice| choice["type"] != "null");
        if let Some(Value::Object(given)) = given {
            for (name, value) in given {
                object.entry(name).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_accepts_the_reference_and_refuses_an_unknown_key() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let mut reference: Value = toml::from_str(super::super::REFERENCE).unwrap();
        assert_eq!(validator.iter_errors(&reference).map(|e| e.to_string()).collect::<Vec<_>>(), [""; 0]);
        reference["dashdoc"]["tokn"] = json!("x");
        assert!(!validator.is_valid(&reference));
    }

    #[test]
    fn every_key_has_a_description_and_a_default_where_the_reference_has_one() {
        let schema = schema();
        let prefetch = &schema["properties"]["source"]["properties"]["rabbitmq"]["properties"]["prefetch"];
        assert_eq!((&prefetch["default"], &prefetch["maximum"]), (&json!(256), &json!(10_000)));
        assert!(prefetch["description"].as_str().is_some_and(|text| !text.is_empty()));
    }
}
