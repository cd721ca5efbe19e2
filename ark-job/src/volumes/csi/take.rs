//! Taking a snapshot: a volumeSnapshot, the content that the controller makes for it, the handle that the driver gives.

use super::objects::{
    Api, BEING_CREATED, DELETE, GROUP, Poll, RETAIN, annotation, claim_name, describe, error_of,
    hashed_name, labels, labels_of, name_of, secrets_of, text, uid_of,
};
use super::remove::{Objects, remove};
use super::{CsiClaim, CsiError};
use crate::cluster::Cluster;
use crate::log::Log;
use crate::volumes::{CsiSnapshot, Owner};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// An error that stays this long is the answer. No error of a driver is final by itself: the sidecar tries each again
/// (after 1, 2, 4, … s), and some pass, as a limit of snapshots per volume does. But hooks may hold an application still
/// meanwhile, so that nobody waits all the time there is for a driver without space.
const ERROR_STAYS: Duration = Duration::from_secs(60);
/// How long what failed is waited for to go: a driver that does not answer is asked for as long as that takes, by the sidecar.
const TAKEN_AWAY_WITHIN: Duration = Duration::from_secs(30);

/// Snapshots one claim, waits for the handle, and keeps the data from being deleted with the objects.
///
/// A repeat by the same attempt finds what was made before.
///
/// # Errors
/// [`CsiError`]; what was made for it is taken away again, with its data.
pub async fn snapshot(
    cluster: &Cluster,
    log: &Log,
    owner: &Owner,
    claim: &CsiClaim,
    within: Duration,
) -> Result<CsiSnapshot, CsiError> {
    let api = Api::new(cluster);
    let until = Instant::now() + within;
    let made = make(&api, owner, claim, until, within).await?;
    match wait_for_handle(&api, owner, claim, &made, until, within).await {
        Ok(snapshot) => Ok(snapshot),
        Err(error) => {
            let objects = Objects {
                snapshot: claim_name(&made),
                content: None,
            };
            let removed = remove(&api, &api.single, &objects, DELETE, TAKEN_AWAY_WITHIN).await;
            log_left(log, removed);
            Err(error)
        }
    }
}

/// Says what is left of a snapshot that failed. A sweep finds it.
pub(super) fn log_left(log: &Log, removed: Result<(), CsiError>) {
    if let Err(error) = removed {
        log.warn(&format!(
            "taking away a snapshot that failed: {}; `expire` deletes what is left",
            crate::error::chain(&error)
        ));
    }
}

/// Creates the volumeSnapshot, or finds the one that this attempt made.
async fn make(
    api: &Api<'_>,
    owner: &Owner,
    claim: &CsiClaim,
    until: Instant,
    within: Duration,
) -> Result<Value, CsiError> {
    let wanted = volume_snapshot(owner, claim);
    let (namespace, name) = (Some(&*claim.claim.namespace), name_of(&wanted));
    let object = describe(&api.single.snapshots, namespace, name);
    let mut poll = Poll::until(until);
    loop {
        if let Err(error) = api.create(&api.single.snapshots, &wanted).await {
            // A namespace that is not there is the same answer.
            if error.is_not_found() && !api.is_served().await? {
                return Err(CsiError::NotServed);
            }
            return Err(error.into());
        }
        let found = api.read(&api.single.snapshots, namespace, name).await?;
        match found {
            Some(found) if !crate::cluster::apply::is_being_deleted(&found) => {
                let same = labels_of(&found) == labels_of(&wanted)
                    && found["spec"]["source"] == wanted["spec"]["source"];
                return if same {
                    Ok(found)
                } else {
                    Err(CsiError::Driver {
                        object,
                        message: "there is one of that name that is not this attempt's; look at its labels, and delete it"
                            .into(),
                    })
                };
            }
            // That of an earlier try, which failed.
            Some(_) | None => {}
        }
        if !poll.again().await {
            return Err(CsiError::Slow {
                object,
                what: "an earlier one of its name has not gone".into(),
                after: within,
            });
        }
    }
}

fn volume_snapshot(owner: &Owner, claim: &CsiClaim) -> Value {
    let volume = &claim.persistent_volume;
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": hashed_name(&["snapshot", &owner.run, &owner.attempt, volume]),
            "namespace": claim.claim.namespace,
            "labels": labels(owner, volume),
        },
        "spec": {
            "volumeSnapshotClassName": claim.class,
            "source": {"persistentVolumeClaimName": claim.claim.name},
        },
    })
}

/// Waits until the content of a volumeSnapshot has a handle; keeps its data as soon as there is a content.
async fn wait_for_handle(
    api: &Api<'_>,
    owner: &Owner,
    claim: &CsiClaim,
    made: &Value,
    until: Instant,
    within: Duration,
) -> Result<CsiSnapshot, CsiError> {
    let namespace = Some(&*claim.claim.namespace);
    let object = describe(&api.single.snapshots, namespace, name_of(made));
    let driver_says = |message: &str| CsiError::Driver {
        object: object.clone(),
        message: message.to_owned(),
    };
    let mut poll = Poll::until(until);
    let mut failing_since: Option<Instant> = None;
    loop {
        let snapshot = api
            .read(&api.single.snapshots, namespace, name_of(made))
            .await?;
        let Some(snapshot) = snapshot.filter(|found| uid_of(found) == uid_of(made)) else {
            return Err(driver_says(
                "somebody has deleted it before it had a handle",
            ));
        };
        let content = api
            .read(
                &api.single.contents,
                None,
                &api.single.content_name(&snapshot),
            )
            .await?;
        let content =
            match content.filter(|content| api.single.is_content_of(content, uid_of(&snapshot))) {
                Some(content) => keep(api, owner, &claim.persistent_volume, content).await?,
                None => None,
            };
        if let Some(content) = &content
            && let Some(taken) = record(content, &snapshot)
        {
            return Ok(taken);
        }
        // Without a content, the controller's: a claim that is not bound, a class that is not there.
        let error = error_of(content.as_ref().unwrap_or(&snapshot));
        let at_work = content
            .as_ref()
            .is_some_and(|content| annotation(content, BEING_CREATED).is_some());
        let failing = error.map(|_| *failing_since.get_or_insert_with(Instant::now));
        if failing.is_none() {
            failing_since = None;
        }
        if let Some(message) = error
            && failing.is_some_and(|since| since.elapsed() >= ERROR_STAYS)
            && !at_work
        {
            return Err(driver_says(message));
        }
        if poll.again().await {
            continue;
        }
        return Err(match (error, &content) {
            (Some(message), _) => driver_says(message),
            (None, Some(_)) => CsiError::Slow {
                object,
                what: "the driver has given it no handle".into(),
                after: within,
            },
            (None, None) => CsiError::Slow {
                object,
                what: "no snapshot controller has made a volumeSnapshotContent for it".into(),
                after: within,
            },
        });
    }
}

/// Keeps the data of a content when its volumeSnapshot goes, as it does with its namespace, and labels it as ours; `None`
/// when it has gone.
pub(super) async fn keep(
    api: &Api<'_>,
    owner: &Owner,
    persistent_volume: &str,
    content: Value,
) -> Result<Option<Value>, CsiError> {
    let labels = labels(owner, persistent_volume);
    let has = labels_of(&content);
    let labelled = labels
        .iter()
        .all(|(key, value)| has.get(key) == Some(value));
    if labelled && text(&content, "/spec/deletionPolicy") == Some(RETAIN) {
        return Ok(Some(content));
    }
    let patch = json!({"metadata": {"labels": labels}, "spec": {"deletionPolicy": RETAIN}});
    Ok(api.patch(&api.single.contents, &content, &patch).await?)
}

/// What is recorded of a snapshot, once it has a handle.
pub(super) fn record(content: &Value, snapshot: &Value) -> Option<CsiSnapshot> {
    let status = &content["status"];
    Some(CsiSnapshot {
        handle: text(content, "/status/snapshotHandle")?.to_owned(),
        driver: text(content, "/spec/driver")?.to_owned(),
        snapshot_class: text(content, "/spec/volumeSnapshotClassName").map(str::to_owned),
        // Absent, or 0 when the driver does not know it.
        restore_size: status["restoreSize"].as_i64().filter(|size| *size > 0),
        source_volume_mode: text(content, "/spec/sourceVolumeMode").map(str::to_owned),
        annotations: secrets_of(content),
        group_handle: text(content, "/status/volumeGroupSnapshotHandle").map(str::to_owned),
        created: status["creationTime"]
            .as_i64()
            .and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds.into()).ok()),
        content: name_of(content).to_owned(),
        volume_snapshot: claim_name(snapshot),
        ..CsiSnapshot::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::ClaimName;

    #[test]
    fn a_snapshot_is_recorded_once_its_content_has_a_handle() {
        let snapshot = json!({"metadata": {"namespace": "shop", "name": "ark-1", "uid": "u"}});
        let mut content = json!({
            "metadata": {
                "name": "snapcontent-u",
                "annotations": {"snapshot.storage.kubernetes.io/deletion-secret-name": "storage"},
            },
            "spec": {"driver": "disk", "volumeSnapshotClassName": "fast", "sourceVolumeMode": "Block"},
        });
        assert_eq!(record(&content, &snapshot), None);
        content["status"] =
            json!({"snapshotHandle": "snap-1", "creationTime": 1_700_000_000_000_000_000_i64});
        let key = "snapshot.storage.kubernetes.io/deletion-secret-name";
        let mut expected = CsiSnapshot {
            handle: "snap-1".into(),
            driver: "disk".into(),
            snapshot_class: Some("fast".into()),
            source_volume_mode: Some("Block".into()),
            annotations: [(key.to_owned(), "storage".to_owned())].into(),
            created: Some("2023-11-14T22:13:20Z".parse().unwrap()),
            content: "snapcontent-u".into(),
            volume_snapshot: Some(ClaimName {
                namespace: "shop".into(),
                name: "ark-1".into(),
            }),
            ..CsiSnapshot::default()
        };
        assert_eq!(record(&content, &snapshot), Some(expected.clone()));
        content["status"]["restoreSize"] = 1024.into();
        expected.restore_size = Some(1024);
        assert_eq!(record(&content, &snapshot), Some(expected));
    }
}
