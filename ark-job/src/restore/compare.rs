//! Whether the object in the cluster is the one of the backup. Pure.

use super::prepare::remove_keys;
use crate::api::RESTORE_LABEL;
use serde_json::Value;

/// Where the object in the cluster differs from the one of the backup, both normalised: the path of the first
/// difference, or `None` when the cluster's is the same but for what the API server and controllers added.
pub fn difference(backup: &Value, live: &Value) -> Option<String> {
    let keys = backup.as_object().into_iter().flatten();
    for (key, wanted) in keys {
        let found = live.get(key).unwrap_or(&Value::Null);
        let different = match key.as_str() {
            // Nothing is ever added here by defaulting: what is more was put there by somebody.
            "data" | "binaryData" | "rules" | "subjects" => {
                (!same(wanted, found)).then(|| format!(".{key}"))
            }
            "metadata" => {
                let (mut wanted, mut found) = (wanted.clone(), found.clone());
                for side in [&mut wanted, &mut found] {
                    remove_keys(side, "", "labels", &[RESTORE_LABEL]);
                }
                lacking(&wanted, &found, ".metadata")
            }
            key => lacking(wanted, found, &format!(".{key}")),
        };
        if different.is_some() {
            return different;
        }
    }
    let strict = ["data", "binaryData", "rules", "subjects"].into_iter();
    strict
        .filter(|key| backup.get(key).is_none())
        .find(|key| live.get(key).is_some_and(|found| !is_empty(found)))
        // An aggregated role's rules are not compared.
        .map(|key| format!(".{key}"))
}

/// Equal, where nothing and empty are the same.
fn same(a: &Value, b: &Value) -> bool {
    a == b || is_empty(a) && is_empty(b)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

/// The path of the first thing of `wanted` that `found` lacks or has otherwise.
fn lacking(wanted: &Value, found: &Value, path: &str) -> Option<String> {
    match (wanted, found) {
        (wanted, Value::Null) if is_empty(wanted) => None,
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, value)| {
            lacking(
                value,
                found.get(key).unwrap_or(&Value::Null),
                &format!("{path}.{key}"),
            )
        }),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .find_map(|(n, (wanted, found))| lacking(wanted, found, &format!("{path}[{n}]")))
        }
        (wanted, found) => (!same(wanted, found)).then(|| path.to_owned()),
    }
}
