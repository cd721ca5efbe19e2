//! Decodes an object without its managed fields. They are half of the maps in a small object, nobody restores or
//! compares them, and a map costs more than anything else in decoding.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Types of which managed fields tell who has chosen something: a user, or the cluster itself.
const NEEDED_OF: [&str; 3] = ["endpoints", "endpointslices.discovery.k8s.io", "services"];

/// The object of type `resource` that this JSON is; without `metadata.managedFields`, but of the types for which these
/// are looked at.
///
/// # Errors
/// When it is not JSON.
pub fn decode(resource: &str, json: &[u8]) -> Result<Value, serde_json::Error> {
    if !NEEDED_OF.contains(&resource)
        && let Ok(Top(object)) = serde_json::from_slice(json)
    {
        return Ok(Value::Object(object));
    }
    // Odd ones too: they are for others to judge.
    serde_json::from_slice(json)
}

struct Top(Map<String, Value>);
struct Metadata(Value);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Top, D::Error> {
        deserializer.deserialize_map(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == "metadata" {
                map.next_value::<Metadata>()?.0
            } else {
                map.next_value()?
            };
            object.insert(key, value);
        }
        Ok(Top(object))
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "managedFields" {
                map.next_value::<IgnoredAny>()?;
            } else {
                object.insert(key, map.next_value()?);
            }
        }
        Ok(Metadata(Value::Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_managed_fields_of_the_object_are_left_out() {
        let object = json!({
            "kind": "A", "metadata": {"name": "x", "managedFields": [{"fieldsV1": {"f:data": {}}}], "labels": null},
            "spec": {"metadata": {"managedFields": [1]}, "managedFields": 1.50, "big": 18446744073709551615u64},
            "managedFields": {},
        });
        let mut lean = object.clone();
        lean["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        let bytes = object.to_string().into_bytes();
        assert_eq!(decode("configmaps", &bytes).unwrap(), lean);
        assert_eq!(decode("services", &bytes).unwrap(), object);
        for odd in [
            "{}",
            "[]",
            "null",
            "1",
            r#"{"metadata":null}"#,
            r#"{"metadata":[1]}"#,
        ] {
            let plain: Value = serde_json::from_str(odd).unwrap();
            assert_eq!(decode("configmaps", odd.as_bytes()).unwrap(), plain);
        }
        for bad in ["", "{\"a\":1}}", "{\"metadata\":{\"managedFields\":[}}"] {
            assert!(decode("configmaps", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
