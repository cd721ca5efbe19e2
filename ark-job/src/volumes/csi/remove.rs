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
pub(super) const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// Snapshots whose objects are removed at once: each is a few small requests and the controllers' answers to them.
const AT_ONCE: usize = 8;
/// A driver that runs in the cluster says something about a content within this: its sidecar watches.
const DRIVER_SPEAKS_WITHIN: Duration = Duration::from_secs(60);
/// How long a content that is being deleted is left to the sidecar until it is reminded.
const REMIND_AFTER: Duration = Duration::from_secs(3);
/// Annotation on a content that is being deleted: when the sidecar was last reminded of it.
const REMINDED: &str = "ark.heptio.com/reminded";
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
    let mut reminder = Reminder::new();
    // Known from the first look on, so that a content which the controller has just made is still found by it.
    let mut uid: Option<String> = None;
    loop {
        let snapshot = match &objects.snapshot {
            Some(name) => api
                .read(&types.snapshots, Some(&name.namespace), &name.name)
                .await?
                .filter(is_ours),
            None => None,
        };
        if let Some(snapshot) = &snapshot {
            content_is = content_is.or_else(|| Some(types.content_name(snapshot)));
            uid = Some(uid_of(snapshot).to_owned());
        }
        let content = match &content_is {
            Some(name) => api.read(&types.contents, None, name).await?,
            None => None,
        };
        let mut content = content.filter(|content| {
            uid.as_deref()
                .is_some_and(|uid| types.is_content_of(content, uid))
                || is_ours(content)
        });
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
            delete_content(api, types, found, snapshot.is_some(), policy).await?;
            reminder.remind(api, types, found).await?;
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
    policy: &str,
) -> Result<(), CsiError> {
    let announced = annotation(content, types.being_deleted).is_some();
    if !announced && has_snapshot {
        return Ok(());
    }
    let finalizers = &content["metadata"]["finalizers"];
    let mut finalizers = finalizers.as_array().cloned().unwrap_or_default();
    let protected = finalizers.iter().any(|one| one == types.finalizer);
    let mut metadata = json!({"annotations": {types.being_deleted: "yes"}});
    // One that the controller has only just made: it would be gone at once, and what the driver is making would stay.
    let protect = !protected && policy == DELETE && !is_being_deleted(content);
    if protect {
        finalizers.push(types.finalizer.into());
        metadata["finalizers"] = finalizers.into();
        // Somebody else's finalizer, or the controller's own, must not be lost by it.
        metadata["resourceVersion"] = content["metadata"]["resourceVersion"].clone();
    }
    if !announced || protect {
        let patch = json!({"metadata": metadata});
        match api.patch(&types.contents, content, &patch).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            // It is looked at again.
            Err(error) if error.is_conflict() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    if !is_being_deleted(content) {
        api.delete(&types.contents, content).await?;
    }
    Ok(())
}

/// Has the sidecar look again at a content that is being deleted and has not gone.
///
/// After an error it would only do so when its pause is over, which grows to minutes; and when a content was deleted while
/// the driver was making the snapshot, not before its next round of all contents, up to 15 minutes later: it heeds neither
/// the change of the status nor that of its own annotation (utils.ShouldEnqueueContentChange).
struct Reminder(Instant);

impl Reminder {
    fn new() -> Reminder {
        Reminder(Instant::now())
    }

    async fn remind(
        &mut self,
        api: &Api<'_>,
        types: &Types,
        content: &Value,
    ) -> Result<(), CsiError> {
        if !is_being_deleted(content) || self.0.elapsed() < REMIND_AFTER {
            return Ok(());
        }
        self.0 = Instant::now();
        // Any change will do.
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {REMINDED: now}}});
        api.patch(&types.contents, content, &patch).await?;
        Ok(())
    }
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
        let content = match self.wait_until_known(until, within).await {
            Ok(content) => content,
            Err(error) => {
                self.withdraw().await?;
                return Err(error);
            }
        };
        if !is_being_deleted(&content) {
            self.api.delete(&self.types.contents, &content).await?;
        }
        self.wait_until_gone(&content, until, within).await
    }

    /// Makes the content, and waits until the sidecar has told the handle in its status, or that there is no such snapshot.
    async fn wait_until_known(&self, until: Instant, within: Duration) -> Result<Value, CsiError> {
        let name = name_of(&self.wanted);
        let object = describe(&self.types.contents, None, name);
        let began = Instant::now();
        let mut poll = Poll::until(until);
        loop {
            let Some(content) = self.api.read(&self.types.contents, None, name).await? else {
                // Also when one has gone meanwhile: whether with its data, or withdrawn by somebody, the next one tells.
                self.make().await?;
                continue;
            };
            let Some(content) = self.correct(content).await? else {
                continue;
            };
            if is_being_deleted(&content) || text(&content, self.types.handle).is_some() {
                return Ok(content);
            }
            let error = error_of(&content);
            if error.is_some_and(|error| NOT_THERE.iter().any(|text| error.contains(text))) {
                return Ok(content);
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

    async fn make(&self) -> Result<(), CsiError> {
        match self.api.create(&self.types.contents, &self.wanted).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Err(CsiError::NotServed),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a content of an earlier try what is wanted now: it may have known no Secret, or have been cut off in
    /// withdrawing. `None` when it is to be looked at again.
    async fn correct(&self, content: Value) -> Result<Option<Value>, CsiError> {
        let wanted = &self.wanted["metadata"]["annotations"];
        let finalizers = content["metadata"]["finalizers"].as_array();
        let mut finalizers = finalizers.cloned().unwrap_or_default();
        let going = is_being_deleted(&content);
        let protected = going || finalizers.iter().any(|one| one == self.types.finalizer);
        let right = protected
            && !lacks(&content["metadata"]["annotations"], wanted)
            && text(&content, "/spec/deletionPolicy") == Some(DELETE);
        if right {
            return Ok(Some(content));
        }
        let mut patch = json!({
            "metadata": {"resourceVersion": content["metadata"]["resourceVersion"]},
            "spec": {"deletionPolicy": DELETE},
        });
        if !wanted.is_null() {
            patch["metadata"]["annotations"] = wanted.clone();
        }
        if !protected {
            finalizers.push(self.types.finalizer.into());
            patch["metadata"]["finalizers"] = finalizers.into();
        }
        match self.api.patch(&self.types.contents, &content, &patch).await {
            Ok(changed) => Ok(changed),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn wait_until_gone(
        &self,
        content: &Value,
        until: Instant,
        within: Duration,
    ) -> Result<(), CsiError> {
        let mut poll = Poll::until(until);
        let mut reminder = Reminder::new();
        loop {
            let name = name_of(content);
            let found = self.api.read(&self.types.contents, None, name).await?;
            let Some(found) = found.filter(|found| uid_of(found) == uid_of(content)) else {
                return Ok(());
            };
            reminder.remind(self.api, self.types, &found).await?;
            if !poll.again().await {
                return Err(CsiError::Slow {
                    object: describe(&self.types.contents, None, name),
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

/// Whether not all of what is wanted is there.
fn lacks(there: &Value, wanted: &Value) -> bool {
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.any(|(key, value)| there[key] != *value)
}
