//! Whether the object in the cluster is the one of the backup, and what is different if not. Pure.
//!
//! Both sides are compared as [`prepare`](super::prepare) leaves them, without what controllers note on objects and
//! without the restore's label. What is null is not there. What is empty is not there either at the top and in metadata,
//! where taking things out leaves empty maps behind; elsewhere it may mean much: an empty peer of a network policy is
//! everybody.

use super::prepare::strip_noise;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A field that the object in the cluster and the one of the backup have differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: `.spec.ports[0].port`, `.metadata.labels["app.kubernetes.io/name"]`.
    pub path: String,
    /// What the cluster has.
    pub live: Option<Value>,
    /// What the backup has.
    pub backup: Option<Value>,
}

/// Takes from a normalised object what does not count when it is compared.
pub fn comparable(resource: &str, mut object: Value) -> Value {
    strip_noise(resource, &mut object);
    drop_nulls(&mut object);
    if let Value::Object(map) = &mut object {
        map.values_mut().for_each(drop_empty_metadata);
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            metadata.retain(|_, value| !is_empty(value));
        }
        map.retain(|_, value| !is_empty(value));
    }
    object
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Of the objects in an object, such as pod templates.
fn drop_empty_metadata(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value {
                    Value::Object(metadata) if key == "metadata" => {
                        metadata.retain(|_, value| !is_empty(value));
                    }
                    value => drop_empty_metadata(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(drop_empty_metadata),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What the object of the backup and the one in the cluster have differently, both [`comparable`].
pub fn differences(backup: &Value, live: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(Some(backup), Some(live), &mut String::new(), &mut found);
    found
}

fn compare(
    backup: Option<&Value>,
    live: Option<&Value>,
    path: &mut String,
    found: &mut Vec<Difference>,
) {
    let whole = path.len();
    match (backup, live) {
        (Some(Value::Object(wanted)), Some(Value::Object(there))) => {
            let only_there = there.keys().filter(|key| !wanted.contains_key(*key));
            for key in wanted.keys().chain(only_there) {
                push_key(path, key);
                compare(wanted.get(key), there.get(key), path, found);
                path.truncate(whole);
            }
        }
        (Some(Value::Array(wanted)), Some(Value::Array(there))) if wanted.len() == there.len() => {
            for (n, (wanted, there)) in wanted.iter().zip(there).enumerate() {
                path.push_str(&format!("[{n}]"));
                compare(Some(wanted), Some(there), path, found);
                path.truncate(whole);
            }
        }
        (backup, live) if backup == live => {}
        (backup, live) => found.push(Difference {
            path: path.clone(),
            live: live.cloned(),
            backup: backup.cloned(),
        }),
    }
}

/// As JSONPath of kubectl: a plain key after a dot, others in brackets.
fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain {
        path.push('.');
        path.push_str(key);
    } else {
        path.push_str(&format!("[{key:?}]"));
    }
}

/// The JSON merge patch (RFC 7386) that makes of the object in the cluster the one of the backup, both [`comparable`]:
/// what only the cluster has is removed, lists are replaced whole.
pub fn merge_patch(backup: &Value, live: &Value) -> Value {
    let (Value::Object(wanted), Value::Object(there)) = (backup, live) else {
        return backup.clone();
    };
    let mut patch = Map::new();
    for (key, wanted) in wanted {
        match there.get(key) {
            Some(there) if wanted == there => {}
            Some(there @ Value::Object(_)) if wanted.is_object() => {
                patch.insert(key.clone(), merge_patch(wanted, there));
            }
            _ => {
                patch.insert(key.clone(), wanted.clone());
            }
        }
    }
    for key in there.keys().filter(|key| !wanted.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// What stands for an object when it is compared with many.
pub type Digest = [u8; 16];

/// A digest of a [`comparable`] object: two objects without [`differences`] have the same one.
///
/// 128 bits of SHA-256 over the values in the order of their keys.
pub fn digest(object: &Value) -> Digest {
    let mut hasher = Sha256::new();
    feed(object, &mut hasher);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize()[..16]);
    short
}

/// Every value begins with what it is and how long it is, so that no two values are fed the same bytes.
fn feed(value: &Value, hasher: &mut Sha256) {
    let text = |kind: u8, text: &str, hasher: &mut Sha256| {
        hasher.update([kind]);
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            hasher.update([1]);
            hasher.update((entries.len() as u64).to_le_bytes());
            for (key, value) in entries {
                text(2, key, hasher);
                feed(value, hasher);
            }
        }
        Value::Array(list) => {
            hasher.update([3]);
            hasher.update((list.len() as u64).to_le_bytes());
            list.iter().for_each(|value| feed(value, hasher));
        }
        Value::String(string) => text(4, string, hasher),
        plain => text(5, &plain.to_string(), hasher),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn compared(object: Value) -> Value {
        comparable("things.example.org", object)
    }

    #[test]
    fn what_is_different_is_named_with_both_values() {
        let backup = compared(
            json!({"metadata": {"labels": {"a.b/c": "1", "gone": "x"}}, "spec": {"ports": [{"port": 1}]}}),
        );
        let live = compared(
            json!({"metadata": {"labels": {"a.b/c": "2"}, "annotations": {}}, "spec": {"ports": [{"port": 1}], "new": true, "nil": null}}),
        );
        let difference = |path: &str, live: Option<Value>, backup: Option<Value>| Difference {
            path: path.into(),
            live,
            backup,
        };
        assert_eq!(
            differences(&backup, &live),
            [
                difference(
                    r#".metadata.labels["a.b/c"]"#,
                    Some(json!("2")),
                    Some(json!("1"))
                ),
                difference(".metadata.labels.gone", None, Some(json!("x"))),
                difference(".spec.new", Some(json!(true)), None),
            ]
        );
    }

    #[test]
    fn nothing_and_empty_are_the_same_in_metadata_only() {
        let template = |metadata: Value| {
            compared(json!({"spec": {"template": {"metadata": metadata, "spec": {}}}}))
        };
        assert_eq!(
            template(json!({"creationTimestamp": null, "labels": {}})),
            template(json!({}))
        );
        assert_eq!(compared(json!({"data": {}})), compared(json!({})));
        let peer = |from: Value| compared(json!({"spec": {"ingress": [from]}}));
        assert_ne!(
            peer(json!({"from": [{"podSelector": {}}]})),
            peer(json!({"from": [{}]}))
        );
    }

    #[test]
    fn lists_of_another_length_are_one_difference() {
        let found = differences(&json!({"a": [1, 2]}), &json!({"a": [1]}));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, ".a");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i32).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[abc]", value(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_same_digest_means_no_difference(a in object(), b in object()) {
            let (a, b) = (compared(a), compared(b));
            prop_assert_eq!(differences(&a, &b).is_empty(), digest(&a) == digest(&b));
            prop_assert!(differences(&a, &a).is_empty());
        }

        #[test]
        fn the_patch_makes_the_difference_go(a in object(), b in object()) {
            let (a, b) = (compared(a), compared(b));
            let patch = merge_patch(&a, &b);
            let mut patched = b.clone();
            json_patch::merge(&mut patched, &patch);
            prop_assert!(differences(&a, &patched).is_empty(), "{} -> {}", patch, patched);
            prop_assert_eq!(differences(&a, &b).is_empty(), patch == json!({}));
        }
    }
}
