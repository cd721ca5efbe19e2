//! What is kept of an operation in a ConfigMap in Ark's namespace, where storage does not have it: the last lines of a log,
//! and what else fits.
//!
//! It is for people: whatever goes wrong here is a warning of the caller's.

use crate::api::{EXCLUDE_LABEL, OPERATION_LABEL, PART_OF, PART_OF_LABEL, RUN_ANNOTATION};
use crate::cluster::{ClusterError, get};
use crate::context::Context;
use crate::identity::label_value;
use crate::records::request;
use http::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Bytes of a log that are kept. The last lines say why it failed; an object may have 1 MiB, and a hundred of these must not
/// burden etcd.
pub const TAIL_MAX: u64 = 256 << 10;

/// Something to keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Name of the ConfigMap.
    pub name: String,
    /// The kind of operation (`backup`, `restore`).
    pub operation: &'static str,
    /// The label with the operation's name, and that name.
    pub label: (&'static str, String),
    /// Texts, by key.
    pub data: BTreeMap<String, String>,
    /// What is no text, by key.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

impl Kept {
    /// Creates the ConfigMap, or replaces that of an earlier attempt: the last one is what people look for.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn write(self, context: &Context) -> Result<(), ClusterError> {
        let name = self.name.clone();
        let map = self.config_map(&context.namespace, context.run.id.as_str());
        let doing = format!("writing ConfigMap {name}");
        let collection = collection(context);
        let create = request(Method::POST, &collection, "application/json", &map);
        match context.cluster.request(&create, &doing).await {
            Err(error) if error.is_already_exists() => {}
            other => return other.map(drop),
        }
        let path = format!("{collection}/{name}");
        let replace = request(Method::PUT, &path, "application/json", &map);
        context.cluster.request(&replace, &doing).await.map(drop)
    }

    fn config_map(self, namespace: &str, run: &str) -> ConfigMap {
        let (key, subject) = self.label;
        let labels = [
            (PART_OF_LABEL, PART_OF.to_owned()),
            (OPERATION_LABEL, self.operation.to_owned()),
            (key, label_value(&subject)),
            (EXCLUDE_LABEL, "true".to_owned()),
        ];
        let binary: BTreeMap<String, ByteString> = self
            .binary_data
            .into_iter()
            .map(|(key, bytes)| (key, ByteString(bytes)))
            .collect();
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
                annotations: Some([(RUN_ANNOTATION.to_owned(), run.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(self.data),
            binary_data: (!binary.is_empty()).then_some(binary),
            ..ConfigMap::default()
        }
    }
}

/// Removes what was kept under this name, if anything was.
///
/// # Errors
/// What the API server has against it.
pub async fn remove(context: &Context, name: &str) -> Result<(), ClusterError> {
    let path = format!("{}/{name}", collection(context));
    let mut request = get(&path, "application/json");
    *request.method_mut() = Method::DELETE;
    let removed = context
        .cluster
        .request(&request, &format!("removing ConfigMap {name}"))
        .await;
    match removed {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The last lines of the log; empty, with a warning, when it cannot be read back.
pub fn log_tail(context: &Context) -> String {
    context.log.tail(TAIL_MAX).unwrap_or_else(|error| {
        context
            .log
            .warn(&format!("the log cannot be read back to be kept: {error}"));
        String::new()
    })
}

fn collection(context: &Context) -> String {
    format!("/api/v1/namespaces/{}/configmaps", context.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RESTORE_NAME_LABEL;

    #[test]
    fn a_kept_thing_says_whose_it_is_and_stays_out_of_backups() {
        let kept = Kept {
            name: "ark-results-r".into(),
            operation: "restore",
            label: (RESTORE_NAME_LABEL, "r".repeat(100)),
            data: [("log".to_owned(), "text".to_owned())].into(),
            binary_data: BTreeMap::new(),
        };
        let map = serde_json::to_value(kept.config_map("heptio-ark", "run")).unwrap();
        assert_eq!(
            map,
            serde_json::json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "ark-results-r",
                    "namespace": "heptio-ark",
                    "labels": {
                        "app.kubernetes.io/part-of": "kubectl-ark",
                        "ark.heptio.com/operation": "restore",
                        "ark.heptio.com/restore": label_value(&"r".repeat(100)),
                        "ark.heptio.com/exclude-from-backup": "true",
                    },
                    "annotations": {"ark.heptio.com/run": "run"},
                },
                "data": {"log": "text"},
            })
        );
    }
}
