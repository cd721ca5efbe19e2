//! The objects of the snapshot API: their types, requests that may be repeated, and what their fields say.
//!
//! What the fields mean is in kubernetes-csi/external-snapshotter (pkg/common-controller and pkg/sidecar-controller, v8).

use crate::cluster::apply::{self, Created};
use crate::cluster::discover::ResourceType;
use crate::cluster::pace::Pace;
use crate::cluster::{Cluster, ClusterError, encode, get};
use crate::identity::hash_of;
use crate::volumes::{ClaimName, Owner, identity};
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// API group of volumeSnapshots.
pub(super) const GROUP: &str = "snapshot.storage.k8s.io";
/// API group of volumeGroupSnapshots.
pub const GROUP_OF_GROUPS: &str = "groupsnapshot.storage.k8s.io";
/// Its versions, the best first. Their fields that are used here are the same.
pub const GROUP_VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];
/// The data stays when the objects go.
pub(super) const RETAIN: &str = "Retain";
/// The data goes with the objects.
pub(super) const DELETE: &str = "Delete";
/// Annotation of the sidecar on a content: the driver may be at work on it, whatever the error in the status says.
pub(super) const BEING_CREATED: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// Objects of a page of a list.
const PAGE: u32 = 500;
/// First and longest pause between two looks. Snapshots take from a fraction of a second to minutes.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Writes under way of one operation: each is about one volume, and a controller answers each with several of its own.
const IN_FLIGHT: usize = 4;

/// volumeSnapshots and their contents, or volumeGroupSnapshots and theirs: the controllers treat them alike.
pub(super) struct Types {
    pub(super) snapshots: ResourceType,
    pub(super) contents: ResourceType,
    /// Annotation of the controller on a content whose snapshot is being deleted: without it the sidecar does nothing
    /// about a content that was made for a snapshot.
    pub(super) being_deleted: &'static str,
    /// Finalizer on contents: the sidecar takes it off when it has deleted the data, or has nothing to delete.
    pub(super) finalizer: &'static str,
    /// Where the status of a content has the handle. Only data whose handle it tells is deleted by the sidecar.
    pub(super) handle: &'static str,
    /// Where a snapshot names its content.
    bound: &'static str,
    /// What its name begins with; the UID of the snapshot follows.
    prefix: &'static str,
    /// Where a content has the UID of its snapshot.
    reference: &'static str,
}

impl Types {
    /// volumeSnapshots and volumeSnapshotContents.
    pub(super) fn single() -> Types {
        let of = |resource, kind, namespaced| {
            ResourceType::known(GROUP, "v1", resource, kind, namespaced)
        };
        Types {
            snapshots: of("volumesnapshots", "VolumeSnapshot", true),
            contents: of("volumesnapshotcontents", "VolumeSnapshotContent", false),
            being_deleted: "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted",
            finalizer: "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection",
            handle: "/status/snapshotHandle",
            bound: "/status/boundVolumeSnapshotContentName",
            prefix: "snapcontent-",
            reference: "/spec/volumeSnapshotRef/uid",
        }
    }

    /// volumeGroupSnapshots and volumeGroupSnapshotContents, in a version that is served.
    pub(super) fn groups(version: &str) -> Types {
        let of = |resource, kind, namespaced| {
            ResourceType::known(GROUP_OF_GROUPS, version, resource, kind, namespaced)
        };
        Types {
            snapshots: of("volumegroupsnapshots", "VolumeGroupSnapshot", true),
            contents: of(
                "volumegroupsnapshotcontents",
                "VolumeGroupSnapshotContent",
                false,
            ),
            being_deleted: "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted",
            finalizer: "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection",
            handle: "/status/volumeGroupSnapshotHandle",
            bound: "/status/boundVolumeGroupSnapshotContentName",
            prefix: "groupsnapcontent-",
            reference: "/spec/volumeGroupSnapshotRef/uid",
        }
    }

    /// The name of the content of a snapshot: the recorded one, else that which controllers make up.
    pub(super) fn content_name(&self, snapshot: &Value) -> String {
        text(snapshot, self.bound).map_or_else(
            || format!("{}{}", self.prefix, uid_of(snapshot)),
            str::to_owned,
        )
    }

    /// Whether a content was made for the snapshot with that UID.
    pub(super) fn is_content_of(&self, content: &Value, uid: &str) -> bool {
        text(content, self.reference) == Some(uid)
    }
}

/// The API server, for objects of the snapshot API.
pub(super) struct Api<'a> {
    cluster: &'a Cluster,
    pace: Pace,
    /// volumeSnapshots and their contents.
    pub(super) single: Types,
}

impl<'a> Api<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Api<'a> {
        Api {
            cluster,
            pace: Pace::new(IN_FLIGHT, None),
            single: Types::single(),
        }
    }

    /// The object, if it is there.
    pub(super) async fn read(
        &self,
        of: &ResourceType,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        apply::read(self.cluster, of, namespace, name).await
    }

    /// Creates the object; one of its name that is there already is as good.
    pub(super) async fn create(
        &self,
        of: &ResourceType,
        object: &Value,
    ) -> Result<(), ClusterError> {
        let namespace = object["metadata"]["namespace"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let body = object.to_string().into();
        match apply::create(self.cluster, &self.pace, of, namespace, name, body, false).await? {
            Created::New { .. } | Created::Exists { .. } => Ok(()),
        }
    }

    /// Changes the object; `None` when it has gone.
    pub(super) async fn patch(
        &self,
        of: &ResourceType,
        object: &Value,
        patch: &Value,
    ) -> Result<Option<Value>, ClusterError> {
        let (namespace, name) = (text(object, "/metadata/namespace"), name_of(object));
        let patch = patch.to_string().into();
        match apply::merge_patch(self.cluster, &self.pace, of, namespace, name, patch, false).await
        {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for the deletion of this very object; another of its name stays.
    ///
    /// What it owns goes with it: a volumeGroupSnapshot owns the volumeSnapshots that it is made of.
    pub(super) async fn delete(
        &self,
        of: &ResourceType,
        object: &Value,
    ) -> Result<(), ClusterError> {
        let (namespace, name) = (text(object, "/metadata/namespace"), name_of(object));
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": object["metadata"]["uid"]},
            "propagationPolicy": "Background",
        });
        let path = format!("{}/{name}", of.path(namespace));
        let mut request = get(&path, "application/json");
        *request.method_mut() = Method::DELETE;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        *request.body_mut() = options.to_string().into_bytes();
        let doing = format!("deleting {}", describe(of, namespace, name));
        match self.cluster.request(&request, &doing).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The objects with these labels, of all namespaces or one; none when there is no such type.
    pub(super) async fn list(
        &self,
        of: &ResourceType,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<Value>, ClusterError> {
        let doing = format!("listing {}", of.resource);
        let selector = selector.map_or_else(String::new, |selector| {
            format!("&labelSelector={}", encode(selector))
        });
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("{}?limit={PAGE}{selector}{next}", of.path(namespace));
            let mut page: Value = match self.cluster.get(&path, &doing).await {
                Ok(page) => page,
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                // The revision of the first page is no more: from the beginning.
                Err(error) if error.is_expired() && !next.is_empty() => {
                    items.clear();
                    next.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(page) = page["items"].as_array_mut() {
                items.append(page);
            }
            match text(&page, "/metadata/continue") {
                Some(token) => next = format!("&continue={}", encode(token)),
                None => return Ok(items),
            }
        }
    }

    /// Whether the cluster serves volumeSnapshots.
    pub(super) async fn is_served(&self) -> Result<bool, ClusterError> {
        Ok(self
            .versions(GROUP)
            .await?
            .iter()
            .any(|version| version == "v1"))
    }

    /// volumeGroupSnapshots, if the cluster serves them.
    pub(super) async fn groups(&self) -> Result<Option<Types>, ClusterError> {
        let served = self.versions(GROUP_OF_GROUPS).await?;
        let version = GROUP_VERSIONS
            .into_iter()
            .find(|version| served.iter().any(|one| one == version));
        Ok(version.map(Types::groups))
    }

    async fn versions(&self, group: &str) -> Result<Vec<String>, ClusterError> {
        let path = format!("/apis/{group}");
        let doing = format!("asking for the versions of {group}");
        let found: Value = match self.cluster.get(&path, &doing).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let versions = found["versions"].as_array();
        Ok(versions
            .into_iter()
            .flatten()
            .filter_map(|one| text(one, "/version").map(str::to_owned))
            .collect())
    }

    /// Whether the cluster has that volumeSnapshotClass, and it is the driver's.
    pub(super) async fn has_class(&self, name: &str, driver: &str) -> Result<bool, ClusterError> {
        let classes = classes_type();
        let class = self.read(&classes, None, name).await?;
        Ok(class.is_some_and(|class| text(&class, "/driver") == Some(driver)))
    }
}

/// Looks at a condition again and again, until a moment.
pub(super) struct Poll {
    until: Instant,
    pause: Duration,
}

impl Poll {
    pub(super) fn until(until: Instant) -> Poll {
        Poll {
            until,
            pause: PAUSES[0],
        }
    }

    /// Waits before another look; false when the time is over. There is a last look at its very end.
    pub(super) async fn again(&mut self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 3 / 2).min(PAUSES[1]);
        true
    }
}

/// The type of volumeSnapshotClasses.
pub(super) fn classes_type() -> ResourceType {
    ResourceType::known(
        GROUP,
        "v1",
        "volumesnapshotclasses",
        "VolumeSnapshotClass",
        false,
    )
}

/// `volumesnapshots ns/name`
pub(super) fn describe(of: &ResourceType, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{} {namespace}/{name}", of.resource),
        None => format!("{} {name}", of.resource),
    }
}

/// A name that follows from the parts, valid for every object: 44 characters.
pub(super) fn hashed_name(parts: &[&str]) -> String {
    format!("ark-{}", &hash_of(parts)[..40])
}

/// The labels of what is made for a volume in a backup. Velero leaves them out of its backups, too.
pub(super) fn labels(owner: &Owner, persistent_volume: &str) -> BTreeMap<String, String> {
    let mut labels = owner.labels(persistent_volume);
    labels.insert(crate::api::VELERO_EXCLUDE_LABEL.into(), "true".into());
    labels
}

/// What is at that JSON pointer, if it is a text that is not empty.
pub(super) fn text<'o>(object: &'o Value, pointer: &str) -> Option<&'o str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

pub(super) fn name_of(object: &Value) -> &str {
    text(object, "/metadata/name").unwrap_or_default()
}

pub(super) fn uid_of(object: &Value) -> &str {
    text(object, "/metadata/uid").unwrap_or_default()
}

pub(super) fn claim_name(object: &Value) -> Option<ClaimName> {
    Some(ClaimName {
        namespace: text(object, "/metadata/namespace")?.to_owned(),
        name: text(object, "/metadata/name")?.to_owned(),
    })
}

pub(super) fn labels_of(object: &Value) -> BTreeMap<String, String> {
    texts(&object["metadata"]["labels"])
}

pub(super) fn annotation<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object["metadata"]["annotations"][key].as_str()
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    map.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The annotations of a content that name Secrets: how the driver is allowed to delete it.
pub(super) fn secrets_of(content: &Value) -> BTreeMap<String, String> {
    let mut annotations = texts(&content["metadata"]["annotations"]);
    annotations.retain(|key, _| {
        ["snapshot", "groupsnapshot"]
            .iter()
            .filter_map(|prefix| {
                key.strip_prefix(prefix)?
                    .strip_prefix(".storage.kubernetes.io/")
            })
            .any(|name| name.ends_with("-secret-name") || name.ends_with("-secret-namespace"))
    });
    annotations
}

pub(super) fn created_at(object: &Value) -> Option<Timestamp> {
    text(object, "/metadata/creationTimestamp")?.parse().ok()
}

/// The handle of a content: what the driver has given, or is asked about.
pub(super) fn handle_of(content: &Value) -> Option<&str> {
    text(content, "/status/snapshotHandle").or_else(|| text(content, "/spec/source/snapshotHandle"))
}

/// The error in the status, of whatever kind of object.
pub(super) fn error_of(object: &Value) -> Option<&str> {
    text(object, "/status/error/message")
}

/// Whether an object carries our label. Others' are never touched, whatever their names.
pub(super) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][identity::LOCATION].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_tell_everything_apart() {
        let name = hashed_name(&["a", "bc"]);
        assert_eq!(name.len(), 44);
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        );
        assert_eq!(name, hashed_name(&["a", "bc"]));
        assert_ne!(name, hashed_name(&["ab", "c"]));
    }

    #[test]
    fn of_the_annotations_of_a_content_those_of_secrets_are_kept() {
        let content = json!({"metadata": {"annotations": {
            "snapshot.storage.kubernetes.io/deletion-secret-name": "storage",
            "snapshot.storage.kubernetes.io/deletion-secret-namespace": "system",
            "snapshot.storage.kubernetes.io/volumesnapshot-being-created": "yes",
            "example.com/deletion-secret-name": "other",
        }}});
        let kept = [
            (
                "snapshot.storage.kubernetes.io/deletion-secret-name",
                "storage",
            ),
            (
                "snapshot.storage.kubernetes.io/deletion-secret-namespace",
                "system",
            ),
        ];
        assert_eq!(
            secrets_of(&content),
            kept.map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        );
    }

    #[test]
    fn the_content_of_a_snapshot_is_known_before_the_controller_says_it() {
        let mut snapshot = json!({"metadata": {"uid": "u"}});
        assert_eq!(Types::single().content_name(&snapshot), "snapcontent-u");
        assert_eq!(
            Types::groups("v1").content_name(&snapshot),
            "groupsnapcontent-u"
        );
        snapshot["status"] = json!({"boundVolumeSnapshotContentName": "other"});
        assert_eq!(Types::single().content_name(&snapshot), "other");
    }
}
