//! Removing objects of ours from the cluster: with their data, or without.

use super::objects::{
    Api, DELETE, Poll, RETAIN, Types, annotation, describe, error_of, hashed_name, is_ours, labels,
    name_of, text, uid_of,
};
use super::{CsiError, group, restore};
use crate::cluster::Cluster;
use crate::cluster::apply::is_being_deleted;
use crate::volumes::{ClaimName, CsiSnapshot, Owner, identity};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long objects may take to go whose data stays: two controllers have to answer, no driver.
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// Snapshots whose objects are removed at once: each is a few small requests and the controllers' answers to them.
const AT_ONCE: usize = 8;
/// A driver that runs in the cluster says something about a content within this: its sidecar watches.
const DRIVER_SPEAKS_WITHIN: Duration = Duration::from_secs(60);
/// How a sidecar says that the driver does not list a snapshot (pkg/snapshotter, v2 to v8), or that the driver refused
/// the question itself. There is no other sign of it than these texts.
const NOT_THERE: [&str; 2] = ["can not find snapshot for snapshotID", "code = NotFound"];

/// A volumeSnapshot and its content, as far as they are known; or a volumeGroupSnapshot and its content.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub(super) snapshot: Option<ClaimName>,
    pub(super) content: Option<String>,
}

/// Removes the objects of snapshots from the cluster, and not their data: what is done after the marker.
///
/// # Errors
/// When some are left; a sweep finds them.
pub async fn let_go(cluster: &Cluster, snapshots: &[&CsiSnapshot]) -> Result<(), CsiError> {
    let api = Api::new(cluster);
    let (of_groups, alone): (Vec<&CsiSnapshot>, Vec<&CsiSnapshot>) = snapshots
        .iter()
        .partition(|snapshot| snapshot.group_handle.is_some());
    let groups = group::let_go(&api, &of_groups).await;
    let mut all = futures::stream::iter(alone.into_iter().chain(of_groups))
        .map(|snapshot| {
            let api = &api;
            async move {
                let objects = Objects {
                    snapshot: snapshot.volume_snapshot.clone(),
                    content: Some(snapshot.content.clone()).filter(|name| !name.is_empty()),
                };
                remove(api, &api.single, &objects, RETAIN, LET_GO_WITHIN).await
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut answer = groups;
    // One that fails does not keep the others.
    while let Some(removed) = all.next().await {
        answer = answer.and(removed);
    }
    answer
}

/// Removes a volumeSnapshot and its content, the data with them if `policy` says so. Repeats itself until both are gone.
///
/// What does not carry our label, nor belongs to a volumeSnapshot that does, is not touched.
pub(super) async fn remove(
    api: &Api<'_>,
    types: &Types,
    objects: &Objects,
    policy: &str,
    within: Duration,
) -> Result<(), CsiError> {
    let mut poll = Poll::until(Instant::now() + within);
    let mut content_is = objects.content.clone();
    let mut belongs = false;
    loop {
        let snapshot = match &objects.snapshot {
            Some(name) => api
                .read(&types.snapshots, Some(&name.namespace), &name.name)
                .await?
                .filter(is_ours),
            None => None,
        };
        if content_is.is_none() {
            content_is = snapshot
                .as_ref()
                .map(|snapshot| types.content_name(snapshot));
        }
        let content = match &content_is {
            Some(name) => api.read(&types.contents, None, name).await?,
            None => None,
        };
        if let (Some(content), Some(snapshot)) = (&content, &snapshot) {
            belongs |= types.is_content_of(content, snapshot);
        }
        let mut content = content.filter(|content| belongs || is_ours(content));
        if snapshot.is_none() && content.is_none() {
            return Ok(());
        }
        // First, and also when it is on its way out: what the sidecar does then follows from the policy.
        if let Some(found) = &content
            && text(found, "/spec/deletionPolicy") != Some(policy)
        {
            let patch = json!({"spec": {"deletionPolicy": policy}});
            content = api.patch(&types.contents, found, &patch).await?;
        }
        if let Some(snapshot) = &snapshot
            && !is_being_deleted(snapshot)
        {
            api.delete(&types.snapshots, snapshot).await?;
        }
        if let Some(found) = &content {
            delete_content(api, types, found, snapshot.is_some()).await?;
        }
        if poll.again().await {
            continue;
        }
        let (object, what) = match (&content, &snapshot) {
            (Some(content), _) => {
                let refuses = is_being_deleted(content) && policy == DELETE;
                let object = describe(&types.contents, None, name_of(content));
                (
                    object,
                    if refuses {
                        REFUSES_OR_IS_SLOW
                    } else {
                        NOBODY_ACTS
                    },
                )
            }
            (None, snapshot) => {
                let snapshot = snapshot.as_ref();
                let namespace = snapshot.and_then(|snapshot| text(snapshot, "/metadata/namespace"));
                let name = snapshot.map(name_of).unwrap_or_default();
                (describe(&types.snapshots, namespace, name), NOBODY_ACTS)
            }
        };
        return Err(CsiError::Slow {
            object,
            what: what.into(),
            after: within,
        });
    }
}

/// Asks for the deletion of a content, once the sidecar will heed it: not while the controller has yet to say that the
/// volumeSnapshot is being deleted. Without a volumeSnapshot nobody says it any more, so that it is said here.
async fn delete_content(
    api: &Api<'_>,
    types: &Types,
    content: &Value,
    has_snapshot: bool,
) -> Result<(), CsiError> {
    let announced = annotation(content, types.being_deleted).is_some();
    if !announced && has_snapshot {
        return Ok(());
    }
    if !announced {
        let patch = json!({"metadata": {"annotations": {types.being_deleted: "yes"}}});
        if api.patch(&types.contents, content, &patch).await?.is_none() {
            return Ok(());
        }
    }
    if !is_being_deleted(content) {
        api.delete(&types.contents, content).await?;
    }
    Ok(())
}

/// What keeps objects whose data stays.
const NOBODY_ACTS: &str =
    "it has not gone (does the snapshot controller run, and the driver's csi-snapshotter?)";
/// Why a deletion fails, the sidecar says in its log only.
pub(super) const REFUSES_OR_IS_SLOW: &str = "the driver has not deleted its data (is a volume made from it, or is the Secret \
                                             of its annotations missing? The log of the driver's csi-snapshotter says)";

/// Deletes the data of a snapshot by its handle, from any cluster that has the driver; waits until the driver has done it,
/// `within` at most. One that is not there is deleted.
///
/// A snapshot of a group is deleted with all of the group: drivers know no other way.
///
/// # Errors
/// [`CsiError`]. Unless the driver had been asked to delete it, nothing is left in the cluster.
pub async fn delete(
    cluster: &Cluster,
    owner: &Owner,
    persistent_volume: &str,
    snapshot: &CsiSnapshot,
    within: Duration,
) -> Result<(), CsiError> {
    let api = Api::new(cluster);
    if snapshot.group_handle.is_some() {
        return group::delete(&api, owner, snapshot, within).await;
    }
    let name = hashed_name(&[
        "delete",
        &owner.location,
        &snapshot.driver,
        &snapshot.handle,
    ]);
    let mut labels = labels(owner, persistent_volume);
    // It is not what was taken: a sweep, which looks for that by this label, must not take it for an orphan.
    labels.remove(identity::CLUSTER);
    let mut wanted = restore::content(&name, json!(labels), DELETE, snapshot);
    // Nobody puts it on a content that is never bound, and without it the API server would remove the object at once, and
    // the driver would delete nothing. The sidecar takes it off.
    wanted["metadata"]["finalizers"] = json!([api.single.finalizer]);
    if let Some(class) = &snapshot.snapshot_class
        && api.has_class(class, &snapshot.driver).await?
    {
        // Some drivers list snapshots with a Secret that the class names.
        wanted["spec"]["volumeSnapshotClassName"] = class.as_str().into();
    }
    let deletion = Deletion {
        api: &api,
        types: &api.single,
        wanted,
        driver: snapshot.driver.clone(),
    };
    deletion.run(within).await
}

/// The deletion of data through a content that is made for it.
pub(super) struct Deletion<'a> {
    pub(super) api: &'a Api<'a>,
    pub(super) types: &'a Types,
    /// The content: with finalizer and policy Delete.
    pub(super) wanted: Value,
    pub(super) driver: String,
}

impl Deletion<'_> {
    pub(super) async fn run(&self, within: Duration) -> Result<(), CsiError> {
        let until = Instant::now() + within;
        let found = match self.wait_until_known(until, within).await {
            Ok(found) => found,
            Err(error) => {
                self.withdraw().await?;
                return Err(error);
            }
        };
        let Some(content) = found else {
            return Ok(());
        };
        if !is_being_deleted(&content) {
            self.api.delete(&self.types.contents, &content).await?;
        }
        self.wait_until_gone(&content, until, within).await
    }

    /// Makes the content, and waits until the sidecar has told the handle in its status, or that there is no such
    /// snapshot. `None` when there is nothing to delete any more.
    async fn wait_until_known(
        &self,
        until: Instant,
        within: Duration,
    ) -> Result<Option<Value>, CsiError> {
        let name = name_of(&self.wanted);
        let object = describe(&self.types.contents, None, name);
        if let Err(error) = self.api.create(&self.types.contents, &self.wanted).await {
            if error.is_not_found() {
                return Err(CsiError::NotServed);
            }
            return Err(error.into());
        }
        let began = Instant::now();
        let mut poll = Poll::until(until);
        loop {
            let Some(content) = self.api.read(&self.types.contents, None, name).await? else {
                // That of an earlier try, which the driver has deleted meanwhile.
                return Ok(None);
            };
            if is_being_deleted(&content) || text(&content, self.types.handle).is_some() {
                return Ok(Some(content));
            }
            let error = error_of(&content);
            if error.is_some_and(|error| NOT_THERE.iter().any(|text| error.contains(text))) {
                return Ok(Some(content));
            }
            if content["status"].is_null() && began.elapsed() >= DRIVER_SPEAKS_WITHIN.min(within) {
                return Err(CsiError::Driver {
                    object,
                    message: format!(
                        "no driver {} with a csi-snapshotter runs in this cluster: delete the backup from a cluster that has it",
                        self.driver
                    ),
                });
            }
            if !poll.again().await {
                return Err(CsiError::Driver {
                    object,
                    message: error
                        .unwrap_or("the driver does not tell whether it has it")
                        .to_owned(),
                });
            }
        }
    }

    async fn wait_until_gone(
        &self,
        content: &Value,
        until: Instant,
        within: Duration,
    ) -> Result<(), CsiError> {
        let mut poll = Poll::until(until);
        loop {
            let found = self
                .api
                .read(&self.types.contents, None, name_of(content))
                .await?;
            if found.is_none_or(|found| uid_of(&found) != uid_of(content)) {
                return Ok(());
            }
            if !poll.again().await {
                return Err(CsiError::Slow {
                    object: describe(&self.types.contents, None, name_of(content)),
                    what: REFUSES_OR_IS_SLOW.into(),
                    after: within,
                });
            }
        }
    }

    /// Removes the content that nobody acts on. Its data stays, whoever wakes up meanwhile.
    async fn withdraw(&self) -> Result<(), CsiError> {
        let Some(content) = self
            .api
            .read(&self.types.contents, None, name_of(&self.wanted))
            .await?
        else {
            return Ok(());
        };
        let patch = json!({"spec": {"deletionPolicy": RETAIN}, "metadata": {"finalizers": null}});
        if let Some(content) = self
            .api
            .patch(&self.types.contents, &content, &patch)
            .await?
        {
            self.api.delete(&self.types.contents, &content).await?;
        }
        Ok(())
    }
}
