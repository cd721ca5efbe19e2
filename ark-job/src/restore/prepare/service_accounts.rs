//! Service accounts and their tokens, which the token controller makes; and what an account that exists already is given.

use super::{list_mut, remove_keys};
use crate::api::RESTORE_LABEL;
use serde_json::{Map, Value, json};

/// The token controller fills a token secret again, for the account's new UID.
pub(super) fn token_secret(object: &mut Value) {
    if object["type"] != "kubernetes.io/service-account-token" {
        return;
    }
    remove_keys(
        object,
        "/metadata",
        "annotations",
        &["kubernetes.io/service-account.uid"],
    );
    remove_keys(
        object,
        "/metadata",
        "labels",
        &["kubernetes.io/legacy-token-last-used"],
    );
    remove_keys(object, "", "data", &["token", "ca.crt", "namespace"]);
}

/// Its old tokens are not restored.
pub(super) fn service_account(object: &mut Value) {
    let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str) else {
        return;
    };
    let prefix = format!("{name}-token-");
    if let Some(secrets) = list_mut(object, "/secrets") {
        secrets.retain(|secret| {
            !secret["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&prefix))
        });
        if secrets.is_empty()
            && let Some(account) = object.as_object_mut()
        {
            account.remove("secrets");
        }
    }
}

/// What an account that exists already lacks of the one that is restored, as a JSON merge patch; `None` when nothing.
/// Accounts are the one type that controllers make in every namespace and people add to, so the two become one: what the
/// cluster has comes first, and wins.
pub fn merge_service_account(live: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = Map::new();
    for list in ["secrets", "imagePullSecrets"] {
        if let Some(union) = union(&live[list], &wanted[list]) {
            patch.insert(list.to_owned(), union);
        }
    }
    let mut metadata = Map::new();
    for map in ["labels", "annotations"] {
        let missing = missing(&live["metadata"][map], &wanted["metadata"][map]);
        // The mark of a restore alone is no reason to write.
        if missing.keys().any(|key| key != RESTORE_LABEL)
            || !missing.is_empty() && !patch.is_empty()
        {
            metadata.insert(map.to_owned(), missing.into());
        }
    }
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    (!patch.is_empty()).then_some(patch.into())
}

/// The references of both by name, `live`'s first; `None` when that is what `live` has.
fn union(live: &Value, wanted: &Value) -> Option<Value> {
    let mut all: Vec<Value> = live.as_array().cloned().unwrap_or_default();
    let before = all.len();
    for reference in wanted.as_array().into_iter().flatten() {
        if !all.iter().any(|one| one["name"] == reference["name"]) {
            all.push(reference.clone());
        }
    }
    (all.len() > before).then(|| json!(all))
}

/// What `wanted` has and `live` has not, by key.
fn missing(live: &Value, wanted: &Value) -> Map<String, Value> {
    let wanted = wanted.as_object().into_iter().flatten();
    wanted
        .filter(|(key, _)| live.get(key.as_str()).is_none())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
