//! One object of a backup and the cluster: created, found there already, changed, or refused.
//!
//! A preview asks the same of the API server, as dry runs.

use super::compare::Difference;
use super::decide::{Comparison, Policy, Way};
use super::join::{Content, Object, Ready};
use super::live::Hint;
use super::make::{Made, Maker, Unmade};
use super::order::{NAMESPACES, SERVICE_ACCOUNTS, SERVICES, VOLUMES};
use super::prepare::{Rules, Skip, merge_service_account};
use super::selection::Choice;
use super::volumes::{Source, Standing, disk_of, standing};
use crate::api::RESTORE_LABEL;
use crate::cluster::apply::{self, Created};
use crate::cluster::discover::ResourceType;
use crate::cluster::pace::Pace;
use crate::cluster::{Cluster, ClusterError};
use crate::hooks::restore::AfterCreation;
use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// An object that vanishes or changes each time that it is looked at is tried this often.
const ATTEMPTS: u32 = 3;

/// Said of a pod with hooks that an attempt has created before it was killed: nobody knows how far its hooks came.
const HOOKS_LOST: &str = "an earlier attempt of this restore has created it; its hooks are not run again, and may not have run";

/// Said of a volume that outlived its claim, which keeps the data of then.
const RELEASED: &str = "it is there and Released: its claim is gone and its disk is kept, so a claim that is restored for it stays \
     Pending. Delete the PersistentVolume (its disk stays) and run the restore again for a volume as it was backed up; or take \
     .spec.claimRef.uid away from it for what is on its disk now";
/// Said of a volume that an earlier attempt has created.
const STILL_TAGGED: &str =
    "its disk may still have the tag ark.heptio.com/unused: take it away, or repeat the restore";
/// How long a volume that goes with its claim may take: its disk goes first.
const VOLUME_GONE_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take until it is known of a volume that its claim is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whether writes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They do.
    Write,
    /// The API server only says what would come of them.
    DryRun,
}

/// Where objects of one type go.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// How fast it may be written to.
    pub pace: &'a Pace,
    /// The type.
    pub resource_type: &'a ResourceType,
    /// The type, as `resource.group`.
    pub resource: &'a str,
    /// How objects in the cluster are prepared to be compared.
    pub of_live: &'a Rules,
    /// The value of the restore's label.
    pub label: &'a str,
    /// What is done with what exists and is different.
    pub policy: Policy,
    /// Whether writes are dry runs.
    pub mode: Mode,
    /// Makes what objects need.
    pub maker: &'a Maker<'a>,
}

/// What became of an object.
#[derive(Debug, PartialEq)]
pub enum Fate {
    /// It was created.
    Created {
        /// What the API server or this restore remarked.
        warnings: Vec<String>,
    },
    /// In a preview: it would be created, but nobody can ask the API server yet.
    NotCheckable(String),
    /// A namespace that was only needed, and is there.
    Provided,
    /// It is there and the same.
    Unchanged,
    /// It is there and different, and was left as it is.
    Left(Vec<Difference>),
    /// It was there and different, and has been changed.
    Updated(Vec<Difference>),
    /// It was there and different, and has been deleted and created again.
    Recreated(Vec<Difference>),
    /// It was not to be restored.
    Skipped(Skip),
    /// It could not be restored.
    Failed {
        /// Why.
        why: String,
        /// What is different, of one that is there.
        differences: Vec<Difference>,
    },
}

impl Fate {
    fn failed(why: impl Into<String>) -> Fate {
        Fate::Failed {
            why: why.into(),
            differences: Vec::new(),
        }
    }
}

/// What became of an object, with what it was.
#[derive(Debug)]
pub struct Done {
    /// The target namespace.
    pub namespace: Option<String>,
    /// The name in the target.
    pub name: String,
    /// Bytes that were held for it.
    pub size: usize,
    /// What is to be done if it has been created.
    pub after: AfterCreation,
    /// What is to be known of the one that is there.
    pub remark: Option<&'static str>,
    /// Where its data comes from.
    pub source: Option<Source>,
    /// What became of it, unless the API server was lost.
    pub fate: Result<Fate, ClusterError>,
}

/// What is to be known of an object that goes.
struct There {
    uid: Option<String>,
    gone_within: Duration,
}

/// Whether a refused dry run says nothing of a restore: of webhooks that cannot be asked, and of accounts and classes
/// that would be there by then.
fn cannot_tell(refusal: &ClusterError) -> bool {
    let text = refusal.full_text();
    refusal.is_dry_run_unsupported()
        || text.contains("error looking up service account")
        || text.contains("no PriorityClass with name")
}

/// Once more: what was seen is not so any more.
struct Again;

impl Target<'_> {
    /// Restores one object.
    pub async fn restore(self, object: Ready, hint: Hint) -> Done {
        let size = object.content.size();
        let source = object.source().cloned();
        let mut remark = None;
        let mut fate = match &object.content {
            Content::Object(content) => self.settle(&object, content, hint, &mut remark).await,
            Content::Skip(why) => Ok(Fate::Skipped(*why)),
            Content::Unusable(why) => Ok(Fate::failed(why.clone())),
        };
        if let Ok(Fate::Created { warnings }) = &mut fate {
            warnings.extend(object.remarks);
        }
        Done {
            namespace: object.namespace,
            name: object.name,
            size,
            after: object.after,
            remark,
            source,
            fate,
        }
    }

    /// Creates the object, or sees to the one that is there.
    ///
    /// # Errors
    /// When the API server is lost; what it has against the object is a [`Fate`].
    async fn settle(
        self,
        object: &Ready,
        content: &Object,
        hint: Hint,
        remark: &mut Option<&'static str>,
    ) -> Result<Fate, ClusterError> {
        let mut believed_there = match hint {
            Hint::Present { digest } if digest == content.digest && object.is_settled_by_list() => {
                return Ok(Fate::Unchanged);
            }
            Hint::Present { .. } => true,
            // Nothing is made for an object that is there.
            Hint::Absent | Hint::Unknown => content.source.is_some(),
        };
        for _ in 0..ATTEMPTS {
            let (mut maybe_ours, mut refusal) = (false, None);
            let mut made = Made::Nothing;
            if !std::mem::take(&mut believed_there) {
                let body = match self.make(object, content).await {
                    Ok((body, its)) => {
                        made = its;
                        body
                    }
                    Err(Unmade::Refused(why)) => return Ok(Fate::failed(why)),
                    Err(Unmade::NotCheckable(why)) => return Ok(Fate::NotCheckable(why)),
                    Err(Unmade::Lost(error)) => return Err(error),
                };
                match self.create(object, body, self.mode).await {
                    Ok(Created::New { mut warnings }) => {
                        warnings.extend(self.put_to_use(&made).await);
                        return self.complete(object, content, warnings).await;
                    }
                    Ok(Created::Exists { maybe_ours: maybe }) => maybe_ours = maybe,
                    Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
                    // Webhooks, quotas and ports in use are told before that the object exists.
                    Err(error) => refusal = Some(error),
                }
            }
            let live = self.read(object).await;
            if matches!(live, Err(ClusterError::Unreachable { .. })) {
                return live.map(|_| Fate::Unchanged);
            }
            let mut said = Vec::new();
            if let Made::Disk(disk) = &made {
                match &live {
                    Ok(Some(live)) if disk_of(live) == Some(&disk.id) => {
                        said.extend(self.maker.put_to_use(disk).await);
                        maybe_ours = true;
                    }
                    // It may be in use: a sweep will tell.
                    Err(_) => {}
                    Ok(_) => said.extend(self.maker.give_back(disk).await),
                }
            }
            let live = match (live, refusal) {
                (Err(error @ ClusterError::Unreachable { .. }), _) => return Err(error),
                (Ok(None) | Err(_), Some(refusal)) => {
                    return Ok(match self.mode {
                        Mode::DryRun if cannot_tell(&refusal) => {
                            Fate::NotCheckable(refusal.full_text())
                        }
                        _ => {
                            said.insert(0, refusal.full_text());
                            Fate::failed(said.join("; "))
                        }
                    });
                }
                (Err(error), None) => return Ok(Fate::failed(error.full_text())),
                // Gone since.
                (Ok(None), None) => continue,
                (Ok(Some(live)), _) => live,
            };
            if apply::is_being_deleted(&live) {
                match self
                    .wait_until_gone(object, self.gone_within(&live))
                    .await?
                {
                    Ok(()) => continue,
                    Err(why) => return Ok(Fate::failed(why)),
                }
            }
            if object.choice == Choice::Provide {
                return Ok(Fate::Provided);
            }
            let label = live["metadata"]["labels"].get(RESTORE_LABEL);
            let is_ours = label.is_some_and(|label| label == self.label);
            if maybe_ours && is_ours {
                return self.complete(object, content, said).await;
            }
            if self.resource == VOLUMES {
                match self.stands(object, content, &live).await? {
                    Ok(Standing::Fine) => {}
                    Ok(Standing::Going) => continue,
                    Ok(Standing::Released) => *remark = Some(RELEASED),
                    Err(why) => return Ok(Fate::failed(why)),
                }
                if let (Some(source), true, Mode::Write) = (&content.source, is_ours, self.mode) {
                    // An attempt that was killed may not have come to it.
                    let failed = self.maker.put_to_use_again(source, &live).await;
                    if failed.is_some() {
                        *remark = Some(STILL_TAGGED);
                    }
                }
            }
            if is_ours && object.has_commands() {
                *remark = Some(HOOKS_LOST);
            }
            match self.meet(object, content, live).await? {
                Ok(fate) => {
                    if matches!(fate, Fate::Recreated(_)) {
                        *remark = None;
                    }
                    return Ok(fate);
                }
                Err(Again) => believed_there = true,
            }
        }
        Ok(Fate::failed(
            "it changed or vanished each time that it was looked at",
        ))
    }

    /// Makes what the object needs; gives the JSON to create.
    async fn make(&self, object: &Ready, content: &Object) -> Result<(Bytes, Made), Unmade> {
        match &content.source {
            Some(source) => self.maker.make(object, &content.json, source).await,
            None => Ok((content.json.clone(), Made::Nothing)),
        }
    }

    async fn put_to_use(&self, made: &Made) -> Option<String> {
        match made {
            Made::Nothing => None,
            Made::Disk(disk) => self.maker.put_to_use(disk).await,
        }
    }

    /// How a persistentVolume that is there stands, when it has been waited for if it is going. The inner error says that it
    /// does not go.
    ///
    /// Only of those that come from snapshots is it asked whether their claims are there: the others are not restored
    /// when they go with them.
    async fn stands(
        &self,
        object: &Ready,
        content: &Object,
        live: &Value,
    ) -> Result<Result<Standing, String>, ClusterError> {
        match standing(live) {
            // It is compared like any other, and nobody waits for it.
            Standing::Going if content.source.is_none() => return Ok(Ok(Standing::Fine)),
            Standing::Going if self.mode == Mode::DryRun => {
                return Ok(Err(
                    "its claim is gone, and it goes with it; a restore waits for that".into(),
                ));
            }
            standing if content.source.is_none() || self.mode == Mode::DryRun => {
                return Ok(Ok(standing));
            }
            _ => {}
        }
        let mut live = live.clone();
        let noticed = Instant::now() + NOTICED_WITHIN;
        while standing(&live) == Standing::Fine
            && Instant::now() < noticed
            && !self.has_claim(&live).await?
        {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.read(object).await? {
                Some(now) => live = now,
                None => return Ok(Ok(Standing::Going)),
            }
        }
        if standing(&live) != Standing::Going {
            return Ok(Ok(standing(&live)));
        }
        let gone = self.wait_until_gone(object, VOLUME_GONE_WITHIN).await?;
        Ok(gone.map(|()| Standing::Going).map_err(|why| {
            format!("{why}, though its claim is gone and its reclaim policy is Delete; run the restore again when it is gone")
        }))
    }

    /// Whether the claim that a persistentVolume is bound to is there; one that is bound to none waits for any.
    async fn has_claim(&self, volume: &Value) -> Result<bool, ClusterError> {
        let reference = &volume["spec"]["claimRef"];
        let text = |key: &str| reference[key].as_str();
        let (Some(namespace), Some(name), Some(uid)) =
            (text("namespace"), text("name"), text("uid"))
        else {
            return Ok(true);
        };
        let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
        let doing = format!("reading persistentvolumeclaims {namespace}/{name}");
        match self.cluster.get::<Value>(&path, &doing).await {
            Ok(claim) => {
                Ok(claim["metadata"]["uid"] == uid
                    && claim["metadata"]["deletionTimestamp"].is_null())
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error @ ClusterError::Unreachable { .. }) => Err(error),
            // Nobody knows.
            Err(_) => Ok(true),
        }
    }

    /// Sees to an object that exists.
    async fn meet(
        &self,
        object: &Ready,
        content: &Object,
        live: Value,
    ) -> Result<Result<Fate, Again>, ClusterError> {
        let Ok(wanted) = serde_json::from_slice::<Value>(&content.json) else {
            return Ok(Ok(Fate::failed(
                "it cannot be compared with the one in the cluster",
            )));
        };
        let there = There {
            uid: live["metadata"]["uid"].as_str().map(str::to_owned),
            gone_within: self.gone_within(&live),
        };
        let way = self.policy.way(self.resource, object.namespace.as_deref());
        let is_account = self.resource == SERVICE_ACCOUNTS;
        let mut comparison = if is_account {
            // Tokens and pull secrets that the cluster has are its own: what the backup has comes to them (Velero).
            match merge_service_account(&live, &wanted) {
                Some(patch) => Comparison::of_patch(self.resource, patch, live, self.of_live),
                None => return Ok(Ok(Fate::Unchanged)),
            }
        } else {
            Comparison::new(self.resource, wanted, live, self.of_live)
        };
        if comparison.differences.is_empty() {
            return Ok(Ok(Fate::Unchanged));
        }
        let refusal = match self.patch(object, &comparison.patch, Mode::DryRun).await {
            Ok(answer) => {
                let confirmed = comparison.confirmed(self.resource, answer, self.of_live);
                if confirmed.is_empty() {
                    return Ok(Ok(Fate::Unchanged));
                }
                comparison.differences = confirmed;
                None
            }
            Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
            Err(error) if error.is_conflict() || error.is_not_found() => return Ok(Err(Again)),
            // A webhook that has effects of its own is not asked: it decides when it counts.
            Err(error) if error.is_dry_run_unsupported() => None,
            Err(error) => Some(error),
        };
        // A volume that is bound to another claim is that claim's.
        let bound_elsewhere = self.resource == VOLUMES
            && comparison
                .differences
                .iter()
                .any(|difference| difference.path.starts_with(".spec.claimRef"));
        match way {
            _ if bound_elsewhere => Ok(Ok(Fate::Left(comparison.differences))),
            _ if is_account => self.update(object, comparison, refusal).await,
            Way::Leave => Ok(Ok(Fate::Left(comparison.differences))),
            Way::Update => self.update(object, comparison, refusal).await,
            Way::Recreate => self.recreate(object, content, comparison, there).await,
        }
    }

    async fn update(
        &self,
        object: &Ready,
        comparison: Comparison,
        refusal: Option<ClusterError>,
    ) -> Result<Result<Fate, Again>, ClusterError> {
        let refused = |comparison: Comparison, error: ClusterError| Fate::Failed {
            why: format!(
                "it exists and is different, and cannot be changed: {}",
                error.full_text()
            ),
            differences: comparison.differences,
        };
        if let Some(error) = refusal {
            return Ok(Ok(refused(comparison, error)));
        }
        if self.mode == Mode::DryRun {
            return Ok(Ok(Fate::Updated(comparison.differences)));
        }
        let patch = comparison.labelled_patch(self.label);
        match self.patch(object, &patch, Mode::Write).await {
            Ok(_) => Ok(Ok(Fate::Updated(comparison.differences))),
            Err(error @ ClusterError::Unreachable { .. }) => Err(error),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Err(Again)),
            Err(error) => Ok(Ok(refused(comparison, error))),
        }
    }

    /// Deletes and creates, once it is known that the API server would take the new one.
    async fn recreate(
        &self,
        object: &Ready,
        content: &Object,
        comparison: Comparison,
        there: There,
    ) -> Result<Result<Fate, Again>, ClusterError> {
        let mut comparison = comparison;
        let differences = std::mem::take(&mut comparison.differences);
        let held_by = comparison.live["metadata"]["finalizers"].to_string();
        let failed = |why: String, differences| {
            Ok(Ok(Fate::Failed {
                why: format!("it exists and is different, and {why}"),
                differences,
            }))
        };
        match self
            .create(object, content.json.clone(), Mode::DryRun)
            .await
        {
            Ok(_) => {}
            Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
            Err(error) if error.is_dry_run_unsupported() => {}
            // Its ports and addresses are its own until it is gone, and may be another's a moment later: it is changed.
            Err(error)
                if self.resource == SERVICES && error.full_text().contains("already allocated") =>
            {
                let kept = Comparison {
                    differences,
                    ..comparison
                };
                return self.update(object, kept, None).await;
            }
            Err(error) => {
                let why = format!("could not be created again: {}", error.full_text());
                return failed(why, differences);
            }
        }
        if self.mode == Mode::DryRun {
            return Ok(Ok(Fate::Recreated(differences)));
        }
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_str());
        let Some(uid) = there.uid else {
            return failed("has no UID".into(), differences);
        };
        match apply::delete_with_uid(
            self.cluster,
            self.pace,
            self.resource_type,
            namespace,
            name,
            &uid,
        )
        .await
        {
            Ok(true) => {}
            Ok(false) => return Ok(Err(Again)),
            Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
            Err(error) if error.is_conflict() => return Ok(Err(Again)),
            Err(error) => {
                return failed(
                    format!("cannot be deleted: {}", error.full_text()),
                    differences,
                );
            }
        }
        if self
            .wait_until_gone(object, there.gone_within)
            .await?
            .is_err()
        {
            let held = match held_by.as_str() {
                "null" => String::new(),
                finalizers => format!(", held by its finalizers {finalizers}"),
            };
            let why = format!(
                "this restore has deleted it, but it is still there after {} s{held}; run the restore again when it is gone",
                there.gone_within.as_secs()
            );
            return failed(why, differences);
        }
        match self.create(object, content.json.clone(), Mode::Write).await {
            Ok(_) => match self.complete(object, content, Vec::new()).await? {
                Fate::Created { .. } => Ok(Ok(Fate::Recreated(differences))),
                fate => Ok(Ok(fate)),
            },
            Err(error @ ClusterError::Unreachable { .. }) => Err(error),
            Err(error) => failed(
                format!(
                    "was deleted, but could not be created again: {}; run the restore again when this is mended",
                    error.full_text()
                ),
                differences,
            ),
        }
    }

    /// What follows a creation: status, and for a definition that it can be used.
    async fn complete(
        &self,
        object: &Ready,
        content: &Object,
        mut warnings: Vec<String>,
    ) -> Result<Fate, ClusterError> {
        if self.mode == Mode::DryRun {
            return Ok(Fate::Created { warnings });
        }
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_str());
        let is_definition = self.resource_type.kind == "CustomResourceDefinition";
        if is_definition
            && !apply::wait_until_established(self.cluster, self.resource_type, name).await?
        {
            return Ok(Fate::failed(
                "it was created, but the API server does not establish it",
            ));
        }
        if let Some(status) = &content.status {
            let written = apply::patch_status(
                self.cluster,
                self.pace,
                self.resource_type,
                namespace,
                name,
                status,
                None,
            );
            match written.await {
                Ok(_) => {}
                Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
                Err(error) => {
                    warnings.push(format!("its status is not restored: {}", error.full_text()));
                }
            }
        }
        Ok(Fate::Created { warnings })
    }

    async fn create(
        &self,
        object: &Ready,
        body: Bytes,
        mode: Mode,
    ) -> Result<Created, ClusterError> {
        apply::create(
            self.cluster,
            self.pace,
            self.resource_type,
            object.namespace.as_deref(),
            &object.name,
            body,
            mode == Mode::DryRun,
        )
        .await
    }

    async fn read(&self, object: &Ready) -> Result<Option<Value>, ClusterError> {
        let namespace = object.namespace.as_deref();
        apply::read(self.cluster, self.resource_type, namespace, &object.name).await
    }

    async fn patch(
        &self,
        object: &Ready,
        patch: &Value,
        mode: Mode,
    ) -> Result<Value, ClusterError> {
        apply::merge_patch(
            self.cluster,
            self.pace,
            self.resource_type,
            object.namespace.as_deref(),
            &object.name,
            patch.to_string().into(),
            mode == Mode::DryRun,
        )
        .await
    }

    fn gone_within(&self, live: &Value) -> Duration {
        if self.resource == NAMESPACES {
            apply::NAMESPACE_GONE_WITHIN
        } else if self.resource == VOLUMES {
            VOLUME_GONE_WITHIN
        } else {
            apply::gone_within(live)
        }
    }

    /// Waits for an object that is being deleted; the inner error says that it stays.
    async fn wait_until_gone(
        &self,
        object: &Ready,
        within: Duration,
    ) -> Result<Result<(), String>, ClusterError> {
        if self.mode == Mode::DryRun {
            return Ok(Err(
                "it exists and is being deleted; a restore waits for that".into(),
            ));
        }
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_str());
        let gone =
            apply::wait_until_gone(self.cluster, self.resource_type, namespace, name, within)
                .await?;
        Ok(gone.then_some(()).ok_or_else(|| {
            format!(
                "it exists and is still being deleted after {} s",
                within.as_secs()
            )
        }))
    }
}
