//! The record of what is frozen: written before, so that a kill at any moment leaves nothing frozen that nobody knows of.
//!
//! It is in the status of the Backup resource; where that type is not served, in a ConfigMap in Ark's namespace. One
//! attempt at a time has it: whoever wants to freeze takes it first, and keeps it until its run has ended.

use crate::api::{
    BACKUP_LABEL, Backup, BackupStatus, EXCLUDE_LABEL, Freeze, PART_OF, PART_OF_LABEL,
    VELERO_EXCLUDE_LABEL,
};
use crate::cluster::ClusterError;
use crate::cluster::apply::delete_unchanged;
use crate::context::Context;
use crate::identity::label_value;
use crate::records::request;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Key in the ConfigMap.
const KEY: &str = "freeze.json";

/// The record of one backup.
#[derive(Clone, Copy)]
pub struct FrozenRecord<'a> {
    context: &'a Context,
    backup: &'a str,
}

/// What came of taking the record.
#[derive(Debug, PartialEq)]
pub enum Taken {
    /// It is ours now; what another attempt had left in it is in the ledger.
    Ours,
    /// Somebody else has it.
    Others(Freeze),
}

impl<'a> FrozenRecord<'a> {
    /// The record of `backup`.
    pub fn new(context: &'a Context, backup: &'a str) -> FrozenRecord<'a> {
        FrozenRecord { context, backup }
    }

    fn in_resource(&self) -> bool {
        self.context.records.keeps::<Backup>()
    }

    /// What is recorded, by whomever.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn read(&self) -> Result<Option<Freeze>, ClusterError> {
        if self.in_resource() {
            let record = self.context.records.find::<Backup>(self.backup).await?;
            return Ok(record.and_then(|record| record.status?.freeze));
        }
        match self.read_map().await {
            Ok(map) => map.as_ref().map(freeze_of).transpose().map(Option::flatten),
            // Whoever may not read it could not have written it, and runs no hooks.
            Err(error) if error.is_forbidden() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the record, if nobody has it, or nobody but the attempt `instead_of`.
    ///
    /// # Errors
    /// When it cannot be written: then nothing may be frozen.
    pub async fn take(&self, instead_of: Option<&str>) -> Result<Taken, ClusterError> {
        let may_take = |freeze: &Freeze| {
            freeze.attempt == self.context.run.attempt
                || Some(freeze.attempt.as_str()) == instead_of
        };
        let (mut others, mut left) = (None, Vec::new());
        let mut decide = |freeze: Option<Freeze>| {
            (others, left) = (None, Vec::new());
            match freeze {
                Some(freeze) if !may_take(&freeze) => {
                    others = Some(freeze);
                    return None;
                }
                Some(freeze) => left = freeze.pods,
                None => {}
            }
            let mut ours = ours(self.context);
            ours.pods.extend(left.iter().cloned());
            Some(ours)
        };
        if self.in_resource() {
            let change = |record: &mut Backup| {
                let status = record.status.get_or_insert_default();
                let freeze = decide(status.freeze.take());
                let write = freeze.is_some();
                status.freeze = freeze;
                write
            };
            self.context
                .records
                .update_status::<Backup>(self.backup, change)
                .await?;
        } else {
            loop {
                let map = self.read_map().await?;
                let there = map.as_ref().map(freeze_of).transpose()?.flatten();
                let Some(freeze) = decide(there) else { break };
                if self.write_map(map, Some(&freeze)).await? {
                    break;
                }
            }
        }
        if let Some(freeze) = others {
            return Ok(Taken::Others(freeze));
        }
        self.check_written().await?;
        self.context.frozen.take(left);
        Ok(Taken::Ours)
    }

    /// Looks whether the API server has kept what was written: of a resource type that was installed by an older version it
    /// drops the fields that this version did not know, without a word.
    async fn check_written(&self) -> Result<(), ClusterError> {
        let kept = self.read().await?;
        if kept.is_some_and(|freeze| freeze.attempt == self.context.run.attempt) {
            return Ok(());
        }
        Err(ClusterError::Malformed {
            doing: format!("recording what is frozen for backup {}", self.backup),
            source:
                "the API server has dropped it; the resource type Backup may be of an older version"
                    .into(),
        })
    }

    /// Writes the ledger into the record, if the record is ours. In a status it is a part of [`freeze_field`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn save(&self) -> Result<(), ClusterError> {
        if self.in_resource() {
            let change = |record: &mut Backup| {
                let status = record.status.get_or_insert_default();
                let freeze = freeze_field(self.context, Some(status));
                let changed = freeze != status.freeze;
                status.freeze = freeze;
                changed
            };
            return self
                .context
                .records
                .update_status::<Backup>(self.backup, change)
                .await;
        }
        self.save_map().await
    }

    /// The same for the ConfigMap alone: beside a status that is written anyway.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn save_map(&self) -> Result<(), ClusterError> {
        if self.in_resource() {
            return Ok(());
        }
        loop {
            let map = self.read_map().await?;
            let there = map.as_ref().map(freeze_of).transpose()?.flatten();
            let freeze = match self.context.frozen.is_held() {
                true => Some(ours(self.context)),
                false => None,
            };
            let ours = there
                .as_ref()
                .is_none_or(|there| there.attempt == self.context.run.attempt);
            if !ours || (there.is_none() && freeze.is_none()) {
                return Ok(());
            }
            if self.write_map(map, freeze.as_ref()).await? {
                return Ok(());
            }
        }
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.context.namespace)
    }

    /// A name that every attempt and every run finds.
    fn map_name(&self) -> String {
        format!("ark-frozen-{}", self.backup)
    }

    fn doing(&self, verb: &str) -> String {
        let namespace = &self.context.namespace;
        format!(
            "{verb} ConfigMap {} in namespace {namespace}",
            self.map_name()
        )
    }

    async fn read_map(&self) -> Result<Option<ConfigMap>, ClusterError> {
        let path = format!("{}/{}", self.collection(), self.map_name());
        match self
            .context
            .cluster
            .get(&path, &self.doing("reading"))
            .await
        {
            Ok(map) => Ok(Some(map)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates, replaces or deletes the ConfigMap; false when somebody else has changed it meanwhile.
    async fn write_map(
        &self,
        there: Option<ConfigMap>,
        freeze: Option<&Freeze>,
    ) -> Result<bool, ClusterError> {
        let version = there.and_then(|map| map.metadata.resource_version);
        let own = format!("{}/{}", self.collection(), self.map_name());
        let (method, path, verb) = match (&version, freeze) {
            (None, None) => return Ok(true),
            (None, Some(_)) => (Method::POST, self.collection(), "creating"),
            (Some(_), Some(_)) => (Method::PUT, own, "updating"),
            (Some(version), None) => {
                let (cluster, doing) = (&self.context.cluster, self.doing("deleting"));
                match delete_unchanged(cluster, &own, version, &doing).await {
                    // Those who may write but not delete leave it behind, empty.
                    Err(error) if error.is_forbidden() => (Method::PUT, own, "updating"),
                    Err(error) if error.is_conflict() => return Ok(false),
                    Err(error) if error.is_not_found() => return Ok(true),
                    result => return result.map(|()| true),
                }
            }
        };
        let labels = [
            (PART_OF_LABEL, PART_OF.to_owned()),
            (BACKUP_LABEL, label_value(self.backup)),
            // What a backup freezes is not part of it.
            (EXCLUDE_LABEL, "true".to_owned()),
            (VELERO_EXCLUDE_LABEL, "true".to_owned()),
        ];
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.map_name()),
                namespace: Some(self.context.namespace.clone()),
                labels: Some(
                    labels
                        .map(|(label, value)| (label.to_owned(), value))
                        .into(),
                ),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: freeze.map(|freeze| {
                let json = serde_json::to_string(freeze).expect("texts can be written as JSON");
                [(KEY.to_owned(), json)].into()
            }),
            ..ConfigMap::default()
        };
        let sent = self
            .context
            .cluster
            .request(
                &request(method, &path, "application/json", &map),
                &self.doing(verb),
            )
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn ours(context: &Context) -> Freeze {
    Freeze {
        run: context.run.id.to_string(),
        attempt: context.run.attempt.clone(),
        heartbeat: Some(Time(Timestamp::now())),
        pods: context.frozen.pods(),
    }
}

/// What a status must say of what is frozen: the ledger if the record is ours, else what is there already, by others.
pub fn freeze_field(context: &Context, there: Option<&BackupStatus>) -> Option<Freeze> {
    if context.frozen.is_held() {
        return Some(ours(context));
    }
    let there = there?.freeze.as_ref()?;
    (there.attempt != context.run.attempt).then(|| there.clone())
}

fn freeze_of(map: &ConfigMap) -> Result<Option<Freeze>, ClusterError> {
    let Some(json) = map.data.as_ref().and_then(|data| data.get(KEY)) else {
        return Ok(None);
    };
    let freeze = serde_json::from_str(json).map_err(|source| ClusterError::Malformed {
        doing: format!(
            "reading what is frozen from ConfigMap {}",
            map.metadata.name.as_deref().unwrap_or_default()
        ),
        source: source.into(),
    })?;
    Ok(Some(freeze))
}
