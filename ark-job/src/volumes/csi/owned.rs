//! What was taken and is still in the cluster: for the sweep, and for a list.

use super::objects::{
    Api, DELETE, RETAIN, Types, claim_name, created_at, handle_of, labels_of, name_of, text, uid_of,
};
use super::remove::{LET_GO_WITHIN, Objects, remove};
use super::{CsiError, Owned, group};
use crate::cluster::{Cluster, ClusterError};
use crate::volumes::identity;
use serde_json::Value;
use std::time::Duration;

/// The volumeSnapshots and contents that carry the labels of a location and cluster; none when the cluster serves none.
///
/// Of a group snapshot whose parts have no objects (yet, or any more) there is one for each handle in its content, or one
/// without a handle when the driver has given none.
///
/// # Errors
/// When they cannot be listed.
pub async fn owned(
    cluster: &Cluster,
    location: &str,
    cluster_uid: &str,
) -> Result<Vec<Owned>, ClusterError> {
    let api = Api::new(cluster);
    let selector = format!(
        "{}={location},{}={cluster_uid}",
        identity::LOCATION,
        identity::CLUSTER
    );
    let selector = Some(&*selector);
    let snapshots = api.list(&api.single.snapshots, None, selector).await?;
    let mut contents = api.list(&api.single.contents, None, selector).await?;
    // What was cut off before the content had its labels.
    for snapshot in &snapshots {
        if content_of(&api.single, &contents, snapshot).is_none() {
            let name = api.single.content_name(snapshot);
            let content = api.read(&api.single.contents, None, &name).await?;
            contents.extend(
                content.filter(|content| api.single.is_content_of(content, uid_of(snapshot))),
            );
        }
    }
    let mut owned = join(&api.single, &snapshots, &contents);
    if let Some(types) = api.groups().await? {
        let groups = api.list(&types.snapshots, None, selector).await?;
        let mut group_contents = api.list(&types.contents, None, selector).await?;
        for group in &groups {
            if content_of(&types, &group_contents, group).is_none() {
                let name = types.content_name(group);
                let content = api.read(&types.contents, None, &name).await?;
                group_contents
                    .extend(content.filter(|content| types.is_content_of(content, uid_of(group))));
            }
        }
        add_groups(&mut owned, &types, &groups, &group_contents);
    }
    Ok(owned)
}

fn content_of<'o>(types: &Types, contents: &'o [Value], snapshot: &Value) -> Option<&'o Value> {
    contents
        .iter()
        .find(|content| types.is_content_of(content, uid_of(snapshot)))
}

/// Each content with its volumeSnapshot, and the volumeSnapshots without a content.
fn join(types: &Types, snapshots: &[Value], contents: &[Value]) -> Vec<Owned> {
    let mut owned: Vec<Owned> = contents
        .iter()
        .map(|content| {
            let snapshot = snapshots
                .iter()
                .find(|snapshot| types.is_content_of(content, uid_of(snapshot)));
            let mut labels = snapshot.map(labels_of).unwrap_or_default();
            labels.extend(labels_of(content));
            Owned {
                content: Some(name_of(content).to_owned()),
                volume_snapshot: snapshot.and_then(claim_name),
                handle: handle_of(content).map(str::to_owned),
                driver: text(content, "/spec/driver").unwrap_or_default().to_owned(),
                labels,
                created: snapshot
                    .into_iter()
                    .chain([content])
                    .filter_map(created_at)
                    .min(),
                size: content["status"]["restoreSize"].as_i64(),
                ready: content["status"]["readyToUse"].as_bool(),
                ..Owned::default()
            }
        })
        .collect();
    for snapshot in snapshots {
        if content_of(types, contents, snapshot).is_none() {
            owned.push(Owned {
                volume_snapshot: claim_name(snapshot),
                labels: labels_of(snapshot),
                created: created_at(snapshot),
                ..Owned::default()
            });
        }
    }
    owned
}

/// Tells the group of what was taken in one, and adds what is known only to a group.
fn add_groups(owned: &mut Vec<Owned>, types: &Types, groups: &[Value], contents: &[Value]) {
    for content in contents {
        let group = groups
            .iter()
            .find(|group| types.is_content_of(content, uid_of(group)));
        let of_group = Owned {
            driver: text(content, "/spec/driver").unwrap_or_default().to_owned(),
            labels: group.map_or_else(|| labels_of(content), labels_of),
            group: group.and_then(claim_name),
            group_content: Some(name_of(content).to_owned()),
            created: group
                .into_iter()
                .chain([content])
                .filter_map(created_at)
                .min(),
            ready: content["status"]["readyToUse"].as_bool(),
            ..Owned::default()
        };
        let handles = group::members(content);
        for handle in &handles {
            let found = owned
                .iter_mut()
                .find(|one| one.handle.as_ref() == Some(handle) && one.driver == of_group.driver);
            match found {
                Some(one) => {
                    one.group = of_group.group.clone();
                    one.group_content = of_group.group_content.clone();
                }
                None => owned.push(Owned {
                    handle: Some(handle.clone()),
                    ..of_group.clone()
                }),
            }
        }
        if handles.is_empty() {
            owned.push(of_group);
        }
    }
    for group in groups {
        if content_of(types, contents, group).is_none() {
            owned.push(Owned {
                labels: labels_of(group),
                group: claim_name(group),
                created: created_at(group),
                ..Owned::default()
            });
        }
    }
}

/// Removes the objects of a snapshot that a marker names, those of its group first, as [`super::let_go`] does; its data stays.
///
/// # Errors
/// When some are left; the next sweep finds them.
pub async fn let_go_owned(cluster: &Cluster, owned: &Owned) -> Result<(), CsiError> {
    let api = Api::new(cluster);
    if (owned.group.is_some() || owned.group_content.is_some())
        && let Some(types) = api.groups().await?
    {
        let objects = Objects {
            snapshot: owned.group.clone(),
            content: owned.group_content.clone(),
        };
        remove(&api, &types, &objects, RETAIN, LET_GO_WITHIN).await?;
    }
    let objects = Objects {
        snapshot: owned.volume_snapshot.clone(),
        content: owned.content.clone(),
    };
    remove(&api, &api.single, &objects, RETAIN, LET_GO_WITHIN).await
}

/// Deletes an orphan: its objects and its data. One of a group goes with all of the group.
///
/// # Errors
/// [`CsiError`].
pub async fn delete_owned(
    cluster: &Cluster,
    owned: &Owned,
    within: Duration,
) -> Result<(), CsiError> {
    let api = Api::new(cluster);
    let objects = Objects {
        snapshot: owned.volume_snapshot.clone(),
        content: owned.content.clone(),
    };
    let policy = if group::delete_owned(&api, owned, within).await? {
        RETAIN
    } else {
        DELETE
    };
    remove(&api, &api.single, &objects, policy, within).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::ClaimName;
    use serde_json::json;

    fn snapshot(name: &str, created: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": created,
            "labels": {"ark.heptio.com/location": "l"}}})
    }

    fn content(name: &str, of: &str, created: &str) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"driver": "disk", "volumeSnapshotRef": {"uid": of}},
            "status": {"snapshotHandle": format!("handle-{name}"), "restoreSize": 7, "readyToUse": true},
        })
    }

    #[test]
    fn a_snapshot_and_its_content_are_one_and_either_may_be_missing() {
        let early = "2026-11-01T00:00:00Z";
        let late = "2026-11-01T00:00:01Z";
        let snapshots = [snapshot("both", early), snapshot("alone", early)];
        let contents = [
            content("of-both", "both", late),
            content("lone", "gone", late),
        ];
        let name = |name: &str| {
            Some(ClaimName {
                namespace: "shop".into(),
                name: name.into(),
            })
        };
        let labels = labels_of(&snapshots[0]);
        let of_content = |name: &str| Owned {
            content: Some(name.into()),
            handle: Some(format!("handle-{name}")),
            driver: "disk".into(),
            created: Some(late.parse().unwrap()),
            size: Some(7),
            ready: Some(true),
            ..Owned::default()
        };
        assert_eq!(
            join(&Types::single(), &snapshots, &contents),
            [
                Owned {
                    volume_snapshot: name("both"),
                    labels: labels.clone(),
                    created: Some(early.parse().unwrap()),
                    ..of_content("of-both")
                },
                of_content("lone"),
                Owned {
                    volume_snapshot: name("alone"),
                    labels,
                    created: Some(early.parse().unwrap()),
                    ..Owned::default()
                },
            ]
        );
    }

    #[test]
    fn every_handle_of_a_group_is_told_with_or_without_objects_of_its_own() {
        let types = Types::groups("v1");
        let mut owned = vec![Owned {
            content: Some("one".into()),
            handle: Some("h1".into()),
            driver: "disk".into(),
            ..Owned::default()
        }];
        let group = snapshot("group", "2026-11-01T00:00:00Z");
        let contents = json!({
            "metadata": {"name": "of-group"},
            "spec": {"driver": "disk", "volumeGroupSnapshotRef": {"uid": "group"}},
            "status": {"volumeSnapshotInfoList": [{"snapshotHandle": "h1"}, {"snapshotHandle": "h2"}]},
        });
        add_groups(&mut owned, &types, &[group], &[contents]);
        let told: Vec<_> = owned
            .iter()
            .map(|one| {
                (
                    one.handle.as_deref(),
                    one.content.as_deref(),
                    one.group_content.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Some("h1"), Some("one"), Some("of-group")),
                (Some("h2"), None, Some("of-group")),
            ]
        );
        assert!(owned.iter().all(|one| {
            one.group
                .as_ref()
                .is_some_and(|group| group.name == "group")
        }));
    }
}
