//! Snapshots of several volumes at one instant, by the objects of `groupsnapshot.storage.k8s.io`.
//!
//! A volumeGroupSnapshot selects its claims by labels. Claims are not labelled for it: that would change what users own,
//! and what is in the archive. Where no labels of theirs select exactly the claims that are wanted, there is no group.

use super::classes::Classes;
use super::objects::{
    Api, DELETE, GROUP_OF_GROUPS, Poll, RETAIN, Types, claim_name, describe, error_of, hashed_name,
    is_ours, labels, labels_of, name_of, secrets_of, text, uid_of,
};
use super::remove::{Deletion, Objects, remove};
use super::take::{keep, log_left, record};
use super::{CsiClaim, CsiError, Owned};
use crate::cluster::Cluster;
use crate::cluster::discover::ResourceType;
use crate::log::Log;
use crate::volumes::{CsiSnapshot, Owner, identity};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long the objects of a group may take to go whose data stays.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// Finalizer on volumeGroupSnapshots.
const GROUP_BOUND: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection";
/// How long what failed is waited for to go.
const TAKEN_AWAY_WITHIN: Duration = Duration::from_secs(30);
/// What a member's content is called by its group.
const HANDLE: &str = "/status/volumeGroupSnapshotHandle";

/// Snapshots several claims of one namespace and driver at once, as a volumeGroupSnapshot, in the claims' order; `None`
/// when that is not possible, as the log then says: the cluster or driver has no group snapshots, or no labels select
/// exactly these claims.
///
/// # Errors
/// [`CsiError`]; what was made for it is taken away again.
pub async fn snapshot_group(
    cluster: &Cluster,
    log: &Log,
    owner: &Owner,
    claims: &[CsiClaim],
    within: Duration,
) -> Result<Option<Vec<CsiSnapshot>>, CsiError> {
    let [first, _, ..] = claims else {
        return Ok(None);
    };
    let namespace = &*first.claim.namespace;
    let alike = claims
        .iter()
        .all(|claim| claim.claim.namespace == namespace && claim.driver == first.driver);
    let api = Api::new(cluster);
    let Some(types) = api.groups().await?.filter(|_| alike) else {
        return Ok(None);
    };
    let version = &types.snapshots.version;
    let of_classes = ResourceType::known(
        GROUP_OF_GROUPS,
        version,
        "volumegroupsnapshotclasses",
        "VolumeGroupSnapshotClass",
        false,
    );
    let classes = Classes::of(&api.list(&of_classes, None, None).await?);
    // A driver without group snapshots has none; of several, one must be chosen.
    let Ok(class) = classes.choose(&first.driver, None) else {
        return Ok(None);
    };
    let of_claims = ResourceType::persistent_volume_claims();
    let all = api.list(&of_claims, Some(namespace), None).await?;
    let wanted: BTreeSet<&str> = claims.iter().map(|claim| &*claim.claim.name).collect();
    let Some(selector) = selector(&all, &wanted) else {
        log.info(&format!(
            "claims {} of namespace {namespace} are snapshotted one after the other: no labels select exactly these \
             (give them one that no other claim of the namespace has)",
            wanted.into_iter().collect::<Vec<_>>().join(", ")
        ));
        return Ok(None);
    };
    let group = json!({
        "apiVersion": types.snapshots.api_version(),
        "kind": "VolumeGroupSnapshot",
        "metadata": {
            "name": name(owner, claims),
            "namespace": namespace,
            "labels": group_labels(owner),
            // The controller puts it on once there is a content; deleted before, it would be gone while the controller
            // makes one. With it, it goes when the controller has seen that.
            "finalizers": [GROUP_BOUND],
        },
        "spec": {
            "volumeGroupSnapshotClassName": class.name,
            "source": {"selector": {"matchLabels": selector}},
        },
    });
    api.create(&types.snapshots, &group).await?;
    let objects = Objects {
        snapshot: claim_name(&group),
        content: None,
    };
    match wait_for_handles(&api, &types, owner, claims, &group, within).await {
        Ok(snapshots) => Ok(Some(snapshots)),
        Err(error) => {
            let removed = remove_with_parts(&api, &types, &objects, TAKEN_AWAY_WITHIN).await;
            log_left(log, removed);
            Err(error)
        }
    }
}

fn name(owner: &Owner, claims: &[CsiClaim]) -> String {
    let mut parts = vec!["group", &*owner.run, &*owner.attempt];
    let volumes: BTreeSet<&str> = claims
        .iter()
        .map(|claim| &*claim.persistent_volume)
        .collect();
    parts.extend(volumes);
    hashed_name(&parts)
}

fn group_labels(owner: &Owner) -> BTreeMap<String, String> {
    let mut labels = labels(owner, "");
    labels.remove(identity::PERSISTENT_VOLUME);
    labels
}

/// The labels that all wanted claims have and no other has; `None` when there are none.
fn selector(all: &[Value], wanted: &BTreeSet<&str>) -> Option<BTreeMap<String, String>> {
    let mut of_wanted = all
        .iter()
        .filter(|claim| wanted.contains(name_of(claim)))
        .map(labels_of);
    let mut common = of_wanted.next()?;
    for labels in of_wanted {
        common.retain(|key, value| labels.get(key) == Some(value));
    }
    let selected: BTreeSet<&str> = all
        .iter()
        .filter(|claim| {
            let labels = labels_of(claim);
            common
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        })
        .map(name_of)
        .collect();
    (!common.is_empty() && selected == *wanted).then_some(common)
}

/// Waits until every claim's content has a handle; keeps their data as soon as there are contents.
async fn wait_for_handles(
    api: &Api<'_>,
    types: &Types,
    owner: &Owner,
    claims: &[CsiClaim],
    group: &Value,
    within: Duration,
) -> Result<Vec<CsiSnapshot>, CsiError> {
    let namespace = text(group, "/metadata/namespace");
    let object = describe(&types.snapshots, namespace, name_of(group));
    let mut poll = Poll::until(Instant::now() + within);
    loop {
        let found = api
            .read(&types.snapshots, namespace, name_of(group))
            .await?;
        let Some(found) = found.filter(is_ours) else {
            return Err(CsiError::Driver {
                object,
                message: "somebody has deleted it before it had a handle".into(),
            });
        };
        let content = api
            .read(&types.contents, None, &types.content_name(&found))
            .await?
            .filter(|content| types.is_content_of(content, uid_of(&found)));
        let mut error = error_of(&found).map(str::to_owned);
        if let Some(content) = content {
            error = error_of(&content).map(str::to_owned).or(error);
            if text(&content, "/spec/deletionPolicy") != Some(RETAIN) || !is_ours(&content) {
                let patch = json!({
                    "metadata": {"labels": group_labels(owner)},
                    "spec": {"deletionPolicy": RETAIN},
                });
                api.patch(&types.contents, &content, &patch).await?;
            }
            if let Some(taken) = parts(api, owner, claims, &found, &content).await? {
                return Ok(taken);
            }
        }
        if !poll.again().await {
            return Err(match error {
                Some(message) => CsiError::Driver { object, message },
                None => CsiError::Slow {
                    object,
                    what: "not all of its snapshots have a handle".into(),
                    after: within,
                },
            });
        }
    }
}

/// The snapshots of a group, labelled and kept; `None` when they are not complete yet.
async fn parts(
    api: &Api<'_>,
    owner: &Owner,
    claims: &[CsiClaim],
    group: &Value,
    group_content: &Value,
) -> Result<Option<Vec<CsiSnapshot>>, CsiError> {
    let namespace = text(group, "/metadata/namespace");
    let snapshots = api.list(&api.single.snapshots, namespace, None).await?;
    let mut taken = Vec::new();
    for claim in claims {
        let Some(snapshot) = snapshots.iter().find(|snapshot| {
            is_part_of(snapshot, group)
                && text(snapshot, "/spec/source/persistentVolumeClaimName")
                    == Some(&*claim.claim.name)
        }) else {
            return Ok(None);
        };
        if !is_ours(snapshot) {
            let patch = json!({"metadata": {"labels": labels(owner, &claim.persistent_volume)}});
            api.patch(&api.single.snapshots, snapshot, &patch).await?;
        }
        let name = api.single.content_name(snapshot);
        let content = api.read(&api.single.contents, None, &name).await?;
        let Some(content) =
            content.filter(|content| api.single.is_content_of(content, uid_of(snapshot)))
        else {
            return Ok(None);
        };
        let content = keep(api, owner, &claim.persistent_volume, content).await?;
        let Some(mut one) = content.and_then(|content| record(&content, snapshot)) else {
            return Ok(None);
        };
        if one.group_handle.is_none() {
            return Ok(None);
        }
        one.group_members = members(group_content);
        // Those that the group is deleted with.
        one.annotations.extend(secrets_of(group_content));
        one.snapshot_class = Some(claim.class.clone());
        taken.push(one);
    }
    Ok(Some(taken))
}

fn is_part_of(snapshot: &Value, group: &Value) -> bool {
    snapshot["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|owner| owner["uid"].as_str() == Some(uid_of(group)))
}

/// The handles of the snapshots that a group's content tells.
pub(super) fn members(group_content: &Value) -> Vec<String> {
    let told = group_content["status"]["volumeSnapshotInfoList"].as_array();
    told.into_iter()
        .flatten()
        .filter_map(|one| text(one, "/snapshotHandle").map(str::to_owned))
        .collect()
}

/// The volumeGroupSnapshots of these snapshots, with their contents: only those that are still there.
async fn of(
    api: &Api<'_>,
    types: &Types,
    handles: &BTreeSet<&str>,
) -> Result<Vec<Objects>, CsiError> {
    let contents = api
        .list(&types.contents, None, Some(identity::LOCATION))
        .await?;
    Ok(contents
        .iter()
        .filter(|content| text(content, HANDLE).is_some_and(|handle| handles.contains(handle)))
        .map(|content| Objects {
            snapshot: claim_name(&json!({"metadata": content["spec"]["volumeGroupSnapshotRef"]})),
            content: Some(name_of(content).to_owned()),
        })
        .collect())
}

/// Removes the group objects of snapshots, before those of the snapshots themselves: these tell the sweep what is named
/// in a marker.
pub(super) async fn let_go(api: &Api<'_>, snapshots: &[&CsiSnapshot]) -> Result<(), CsiError> {
    let handles: BTreeSet<&str> = snapshots
        .iter()
        .filter_map(|snapshot| snapshot.group_handle.as_deref())
        .collect();
    if handles.is_empty() {
        return Ok(());
    }
    let Some(types) = api.groups().await? else {
        return Ok(());
    };
    for objects in of(api, &types, &handles).await? {
        remove(api, &types, &objects, RETAIN, LET_GO_WITHIN).await?;
    }
    Ok(())
}

/// Deletes a group, by a content that is made for it.
pub(super) async fn delete(
    api: &Api<'_>,
    owner: &Owner,
    snapshot: &CsiSnapshot,
    within: Duration,
) -> Result<(), CsiError> {
    let handle = snapshot.group_handle.as_deref().unwrap_or_default();
    let Some(types) = api.groups().await? else {
        return Err(CsiError::Driver {
            object: format!("group snapshot {handle}"),
            message:
                "the cluster serves no volumegroupsnapshots: delete the backup from one that does"
                    .into(),
        });
    };
    let mut labels = group_labels(owner);
    // As with a single one: a sweep must not take it for an orphan.
    labels.remove(identity::CLUSTER);
    let name = hashed_name(&["delete-group", &owner.location, &snapshot.driver, handle]);
    let members = if snapshot.group_members.is_empty() {
        std::slice::from_ref(&snapshot.handle)
    } else {
        &snapshot.group_members
    };
    let deletion = Deletion {
        api,
        types: &types,
        wanted: json!({
            "apiVersion": types.contents.api_version(),
            "kind": "VolumeGroupSnapshotContent",
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": snapshot.annotations,
                "finalizers": [types.finalizer],
            },
            "spec": {
                "deletionPolicy": DELETE,
                "driver": snapshot.driver,
                "source": {"groupSnapshotHandles": {
                    "volumeGroupSnapshotHandle": handle,
                    "volumeSnapshotHandles": members,
                }},
                "volumeGroupSnapshotRef": {
                    "apiVersion": types.snapshots.api_version(),
                    "kind": "VolumeGroupSnapshot",
                    "namespace": "default",
                    "name": name,
                },
            },
        }),
        driver: snapshot.driver.clone(),
    };
    deletion.run(within).await
}

/// Removes a group and its data, and what is left of its parts: the contents of these stay when they were made after their
/// group was told to keep its data, and may not have our labels yet.
async fn remove_with_parts(
    api: &Api<'_>,
    types: &Types,
    objects: &Objects,
    within: Duration,
) -> Result<(), CsiError> {
    let group = match &objects.snapshot {
        Some(name) => {
            let (namespace, name) = (Some(&*name.namespace), &*name.name);
            api.read(&types.snapshots, namespace, name)
                .await?
                .filter(is_ours)
        }
        None => None,
    };
    let name = objects.content.clone();
    let name = name.or_else(|| group.as_ref().map(|group| types.content_name(group)));
    let content = match &name {
        Some(name) => api.read(&types.contents, None, name).await?,
        None => None,
    };
    let content = content.filter(|content| {
        let of_group = |group| types.is_content_of(content, uid_of(group));
        is_ours(content) || group.as_ref().is_some_and(of_group)
    });
    let mut parts = Vec::new();
    if let Some(handle) = content.as_ref().and_then(|content| text(content, HANDLE)) {
        let labels = group.as_ref().or(content.as_ref()).map(labels_of);
        let all = api.list(&api.single.contents, None, None).await?;
        for part in all.iter().filter(|part| text(part, HANDLE) == Some(handle)) {
            if !is_ours(part) {
                let patch = json!({"metadata": {"labels": labels}});
                api.patch(&api.single.contents, part, &patch).await?;
            }
            parts.push(Objects {
                snapshot: None,
                content: Some(name_of(part).to_owned()),
            });
        }
    }
    remove(api, types, objects, DELETE, within).await?;
    // And those that the controller was just making: with the group gone it makes no more.
    for name in content.iter().flat_map(names_of_parts) {
        let part = api.read(&api.single.contents, None, &name).await?;
        if let Some(part) = part {
            let labels = content.as_ref().or(group.as_ref()).map(labels_of);
            let labels = labels.filter(|labels| labels.contains_key(identity::LOCATION));
            let labels = labels.or_else(|| group.as_ref().map(labels_of));
            let patch = json!({"metadata": {"labels": labels}});
            api.patch(&api.single.contents, &part, &patch).await?;
            parts.push(Objects {
                snapshot: None,
                content: Some(name),
            });
        }
    }
    for part in parts {
        remove(api, &api.single, &part, RETAIN, within).await?;
    }
    Ok(())
}

/// What the controller calls the contents of the parts of a group (getSnapshotContentNameForVolumeGroupSnapshotContent).
fn names_of_parts(group_content: &Value) -> Vec<String> {
    let uid = text(group_content, "/spec/volumeGroupSnapshotRef/uid").unwrap_or_default();
    let volumes = group_content["spec"]["source"]["volumeHandles"].as_array();
    let volumes = volumes.into_iter().flatten().filter_map(Value::as_str);
    volumes
        .map(|volume| {
            let hash = Sha256::digest(format!("{uid}{volume}"));
            format!("snapcontent-{}", hex::encode(hash))
        })
        .collect()
}

/// Deletes the data of the group of an orphan, and the objects of the group; false when it is of none.
pub(super) async fn delete_owned(
    api: &Api<'_>,
    owned: &Owned,
    within: Duration,
) -> Result<bool, CsiError> {
    if owned.group.is_some() || owned.group_content.is_some() {
        let Some(types) = api.groups().await? else {
            return Ok(false);
        };
        let objects = Objects {
            snapshot: owned.group.clone(),
            content: owned.group_content.clone(),
        };
        remove_with_parts(api, &types, &objects, within).await?;
        return Ok(true);
    }
    // The group's objects are gone, but its snapshots tell that they are of one.
    let Some(name) = &owned.content else {
        return Ok(false);
    };
    let Some(content) = api.read(&api.single.contents, None, name).await? else {
        return Ok(false);
    };
    let Some(group_handle) = text(&content, HANDLE) else {
        return Ok(false);
    };
    let all = api
        .list(&api.single.contents, None, Some(identity::LOCATION))
        .await?;
    let group_members = all
        .iter()
        .filter(|one| text(one, HANDLE) == Some(group_handle))
        .filter_map(|one| text(one, "/status/snapshotHandle").map(str::to_owned))
        .collect();
    let label = |key: &str| owned.labels.get(key).cloned().unwrap_or_default();
    let owner = Owner {
        location: label(identity::LOCATION),
        cluster_uid: label(identity::CLUSTER),
        run: label(identity::RUN),
        attempt: label(identity::ATTEMPT),
        backup: label(identity::BACKUP),
    };
    let snapshot = CsiSnapshot {
        handle: owned.handle.clone().unwrap_or_default(),
        driver: owned.driver.clone(),
        annotations: secrets_of(&content),
        group_handle: Some(group_handle.to_owned()),
        group_members,
        ..CsiSnapshot::default()
    };
    delete(api, &owner, &snapshot, within).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, labels: &[(&str, &str)]) -> Value {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        json!({"metadata": {"name": name, "labels": labels}})
    }

    #[test]
    fn labels_select_a_group_only_if_they_select_nothing_else() {
        let wanted: BTreeSet<&str> = ["data", "log"].into();
        let mut all = vec![
            claim("data", &[("app", "db"), ("role", "data")]),
            claim("log", &[("app", "db"), ("role", "log")]),
            claim("other", &[("app", "web")]),
        ];
        let of_app: BTreeMap<_, _> = [("app".to_owned(), "db".to_owned())].into();
        assert_eq!(selector(&all, &wanted), Some(of_app));
        // One more of the application, as one that is not to be snapshotted.
        all.push(claim("cache", &[("app", "db")]));
        assert_eq!(selector(&all, &wanted), None);
        let without = [claim("data", &[]), claim("log", &[])];
        assert_eq!(selector(&without, &wanted), None);
        // One of them is gone.
        assert_eq!(selector(&all[..1], &wanted), None);
    }
}
