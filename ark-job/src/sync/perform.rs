//! Doing what the plan says, one entry at a time. Each step looks again at what it is about to change, and may be cut off:
//! the next sync finds what is left to do.

use super::plan::{Describing, Ended, Entry, Known, Stage, View, absent};
use super::reasons::{Of, reason};
use super::storage::{describe_backup, is_there};
use crate::api::{
    Backup, BackupPhase, BackupSpec, BackupStatus, DEFAULT_TTL, ORIGIN_ANNOTATION, ORIGIN_ARK,
    ORIGIN_VELERO, RUN_ANNOTATION, Restore, RestorePhase,
};
use crate::args::parse_duration;
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::error::chain;
use crate::foreign::Origin;
use crate::records::Part;
use crate::repository::inventory::READ_AT_ONCE;
use crate::repository::{Described, Found, RepositoryError};
use crate::store::StoreError;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

/// Requests to the API server that write, at a time: it has others to serve.
const WRITES: usize = 16;
/// A store that has failed this often, and has not worked once in between, is not asked on.
const STORE_FAILURES: usize = 8;
/// Lines of one kind that are logged: thousands of backups must not bury what matters.
const SAID: usize = 20;

/// Why the whole sync cannot go on.
#[derive(Debug)]
pub enum Abort {
    /// The API server does not answer, or forbids it.
    Cluster(ClusterError),
    /// The store does not answer.
    Store(StoreError),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Resources created.
    pub created: usize,
    /// Resources written again.
    pub repaired: usize,
    /// Resources removed.
    pub removed: usize,
    /// Resources whose backups are being deleted.
    pub deleting: usize,
    /// Resources whose runs have ended.
    pub failed: usize,
    /// Names that are shown of another location.
    pub elsewhere: usize,
    /// What went wrong, of which backup.
    pub troubles: Vec<String>,
}

enum Did {
    Created,
    Repaired,
    Removed,
    Deleting,
    Failed,
    Elsewhere(Option<String>),
    Odd(String),
    Trouble(String),
    /// Somebody else was at it, or it needs nothing after all.
    Nothing,
}

/// Does it.
pub struct Performer<'a> {
    context: &'a Context,
    view: View<'a>,
    writes: Semaphore,
    reads: AtomicUsize,
    store_failures: AtomicUsize,
}

/// What a description says a resource must be.
struct Wanted {
    labels: BTreeMap<String, String>,
    annotation: (&'static str, String),
    spec: BackupSpec,
    status: BackupStatus,
}

impl<'a> Performer<'a> {
    /// For this view of things.
    pub fn new(context: &'a Context, view: View<'a>) -> Performer<'a> {
        Performer {
            context,
            view,
            writes: Semaphore::new(WRITES),
            reads: AtomicUsize::new(0),
            store_failures: AtomicUsize::new(0),
        }
    }

    /// Does all of it, some at a time.
    ///
    /// # Errors
    /// When nothing more can be done.
    pub async fn all(&self, entries: Vec<(String, Entry)>) -> Result<Tally, Abort> {
        let mut tally = Tally::default();
        let mut works = futures::stream::iter(entries)
            .map(|(name, entry)| async move {
                let did = self.one(&name, entry).await;
                (name, did)
            })
            .buffer_unordered(READ_AT_ONCE);
        let mut last = None;
        while let Some((name, did)) = works.next().await {
            let did = did.or_else(|abort| self.bear(&name, abort, &mut last))?;
            self.tell(&mut tally, &name, did);
        }
        match last {
            // Nothing could be read at all: it is not the backups.
            Some(error) if self.reads.load(Ordering::Relaxed) == 0 => Err(Abort::Store(error)),
            _ => Ok(tally),
        }
    }

    /// One object that the store does not give is that backup's trouble; many in a row are the store's.
    fn bear(&self, name: &str, abort: Abort, last: &mut Option<StoreError>) -> Result<Did, Abort> {
        match abort {
            Abort::Cluster(error) if error.is_transient() || error.is_forbidden() => {
                Err(Abort::Cluster(error))
            }
            Abort::Cluster(error) => Ok(Did::Trouble(error.full_text())),
            Abort::Store(error) => {
                let failures = self.store_failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failures >= STORE_FAILURES || error.is_bucket_missing() {
                    return Err(Abort::Store(error));
                }
                let text = format!("backup {name:?}: {}", chain(&error));
                *last = Some(error);
                Ok(Did::Trouble(text))
            }
        }
    }

    fn tell(&self, tally: &mut Tally, name: &str, did: Did) {
        let log = &self.context.log;
        let counted = |count: &mut usize, text: &dyn Fn() -> String| {
            *count += 1;
            if *count <= SAID {
                log.info(&text());
            }
        };
        match did {
            Did::Nothing => {}
            Did::Created => counted(&mut tally.created, &|| {
                format!("Backup {name} is created from what is in storage")
            }),
            Did::Repaired => counted(&mut tally.repaired, &|| {
                format!("Backup {name} is written again from what is in storage")
            }),
            Did::Removed => counted(&mut tally.removed, &|| {
                format!("Backup {name} is removed: storage does not have it any more")
            }),
            Did::Deleting => counted(&mut tally.deleting, &|| {
                format!("Backup {name} is being deleted")
            }),
            Did::Failed => tally.failed += 1,
            Did::Elsewhere(location) => {
                tally.elsewhere += 1;
                // Syncing a URL that is also a location's would say it of every backup.
                if tally.elsewhere <= SAID && self.view.location.is_some() {
                    let other = location.map_or_else(
                        || "at a URL".to_owned(),
                        |other| format!("in storage location {other}"),
                    );
                    log.warn(&format!(
                        "backup {name} is here, too, but Backup {name} is that of a backup {other}: this one is not shown; \
                         `kubectl ark restore create` takes it with --location"
                    ));
                }
            }
            Did::Odd(why) => {
                tally.elsewhere += 1;
                log.warn(&format!(
                    "backup {name:?} is not shown, since that cannot be the name of a resource: {why}"
                ));
            }
            Did::Trouble(text) => {
                if tally.troubles.len() < SAID {
                    log.error(&text);
                }
                tally.troubles.push(text);
            }
        }
    }

    async fn one(&self, name: &str, entry: Entry) -> Result<Did, Abort> {
        match entry {
            Entry::Create(describing) => self.create(name, &describing).await,
            Entry::Repair(known, describing) => self.repair(&known, &describing).await,
            Entry::Deleting(known) => self.deleting(&known).await,
            Entry::Remove(known) => self.remove(&known).await,
            Entry::Fail { known, why, look } => self.fail_backup(&known, &why, look).await,
            Entry::Elsewhere { location } => Ok(Did::Elsewhere(location)),
            Entry::OddName(why) => Ok(Did::Odd(why)),
        }
    }

    /// What the resource must be; none when there is no backup behind the description.
    async fn read(
        &self,
        name: &str,
        describing: &Describing,
    ) -> Result<Result<Option<Wanted>, Did>, Abort> {
        match describe_backup(&self.context.store, name, describing).await {
            Ok(found) => {
                self.worked();
                Ok(Ok(found.map(|found| self.wanted(found, describing))))
            }
            Err(RepositoryError::Store(error))
                if error.is_unreachable()
                    || error.is_credentials()
                    || error.is_bucket_missing() =>
            {
                Err(Abort::Store(error))
            }
            Err(error) => {
                self.worked();
                let text = chain(&error);
                Ok(Err(Did::Trouble(match error {
                    RepositoryError::Store(_) => format!("backup {name:?}: {text}"),
                    _ => text,
                })))
            }
        }
    }

    fn worked(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store_failures.store(0, Ordering::Relaxed);
    }

    fn wanted(&self, found: Found, describing: &Describing) -> Wanted {
        let mut wanted = match found.described {
            Described::Ours(marker) => Wanted {
                labels: marker.metadata.labels,
                annotation: (RUN_ANNOTATION, marker.commit.run_id),
                spec: marker.spec,
                status: BackupStatus {
                    size: i64::try_from(marker.commit.archive.length).ok(),
                    ..marker.status
                },
            },
            Described::Foreign(description) => Wanted {
                labels: description.labels,
                annotation: (
                    ORIGIN_ANNOTATION,
                    match description.origin {
                        Origin::Velero => ORIGIN_VELERO,
                        Origin::OriginalArk | Origin::Ark => ORIGIN_ARK,
                    }
                    .to_owned(),
                ),
                spec: description.spec,
                status: BackupStatus {
                    size: describing.size(),
                    ..description.status
                },
            },
        };
        // The name of the location is this cluster's business: another may call it differently.
        wanted.spec.storage_location = self.context.location.clone();
        let status = &mut wanted.status;
        status.marker_etag = Some(describing.etag.clone());
        status.phase.get_or_insert(if status.errors > 0 {
            BackupPhase::PartiallyFailed
        } else {
            BackupPhase::Completed
        });
        wanted
    }

    async fn create(&self, name: &str, describing: &Describing) -> Result<Did, Abort> {
        let wanted = match self.read(name, describing).await? {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return Ok(Did::Nothing),
            Err(did) => return Ok(did),
        };
        let _permit = self.writing().await;
        let mut record = Backup::new(name, wanted.spec);
        record.metadata.namespace = Some(self.context.namespace.clone());
        record.metadata.labels = Some(wanted.labels);
        let (key, value) = wanted.annotation;
        record
            .annotations_mut()
            .insert(key.to_owned(), value.clone());
        let records = &self.context.records;
        let mut created = match records
            .create_unclaimed(&record)
            .await
            .map_err(Abort::Cluster)?
        {
            Some(created) => created,
            None => {
                // Perhaps by us, when an answer was lost, or by a sync that was cut off: that one has no status yet.
                let there = records.find::<Backup>(name).await.map_err(Abort::Cluster)?;
                let ours = |there: &Backup| {
                    let known = Known::backup(there);
                    known.stage == Stage::Empty && there.annotations().get(key) == Some(&value)
                };
                match there.filter(ours) {
                    Some(there) => there,
                    None => return Ok(Did::Nothing),
                }
            }
        };
        created.status = Some(wanted.status);
        let written = records.replace_unclaimed(&created, Part::Status).await;
        Ok(match written.map_err(Abort::Cluster)? {
            Some(_) => Did::Created,
            None => Did::Nothing,
        })
    }

    async fn repair(&self, known: &Known, describing: &Describing) -> Result<Did, Abort> {
        let wanted = match self.read(&known.name, describing).await? {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                return match absent(known, &self.view) {
                    Some(Entry::Fail { known, why, look }) => {
                        self.fail_backup(&known, &why, look).await
                    }
                    _ => Ok(Did::Nothing),
                };
            }
            Err(did) => return Ok(did),
        };
        let (key, value) = wanted.annotation;
        // It will say at once what it is about; and then find that the name is taken.
        if known.is_new(self.view.now) && known.run.as_ref() != Some(&value) {
            return Ok(Did::Nothing);
        }
        let _permit = self.writing().await;
        let Some(there) = self.unchanged(known).await? else {
            return Ok(Did::Nothing);
        };
        let mut record = there.clone();
        // What people have added stays.
        record.labels_mut().extend(wanted.labels);
        record.annotations_mut().insert(key.to_owned(), value);
        if key == ORIGIN_ANNOTATION {
            record.annotations_mut().remove(RUN_ANNOTATION);
        }
        record.spec = wanted.spec;
        let same_labels = record.labels() == there.labels();
        let same =
            same_labels && record.annotations() == there.annotations() && record.spec == there.spec;
        let records = &self.context.records;
        if !same {
            match records
                .replace_unclaimed(&record, Part::Record)
                .await
                .map_err(Abort::Cluster)?
            {
                Some(replaced) => record = replaced,
                None => return Ok(Did::Nothing),
            }
        }
        // Nobody has said that it was thawed.
        let freeze = there.status.and_then(|status| status.freeze);
        record.status = Some(BackupStatus {
            freeze,
            ..wanted.status
        });
        let written = records.replace_unclaimed(&record, Part::Status).await;
        Ok(match written.map_err(Abort::Cluster)? {
            Some(_) => Did::Repaired,
            None => Did::Nothing,
        })
    }

    async fn deleting(&self, known: &Known) -> Result<Did, Abort> {
        let _permit = self.writing().await;
        let Some(mut record) = self.unchanged(known).await? else {
            return Ok(Did::Nothing);
        };
        record.status.get_or_insert_default().phase = Some(BackupPhase::Deleting);
        let records = &self.context.records;
        let written = records.replace_unclaimed(&record, Part::Status).await;
        Ok(match written.map_err(Abort::Cluster)? {
            Some(_) => Did::Deleting,
            None => Did::Nothing,
        })
    }

    async fn remove(&self, known: &Known) -> Result<Did, Abort> {
        if self.is_there(known).await? {
            return Ok(Did::Trouble(format!(
                "backup {} is not in the listing of storage, and yet it is there: its resource is kept",
                known.name
            )));
        }
        let _permit = self.writing().await;
        let deleted = self
            .context
            .records
            .delete::<Backup>(&known.name, &known.uid)
            .await;
        match deleted {
            Ok(()) => Ok(Did::Removed),
            // There is another of that name now.
            Err(error) if error.is_conflict() => Ok(Did::Nothing),
            Err(error) => Err(Abort::Cluster(error)),
        }
    }

    async fn is_there(&self, known: &Known) -> Result<bool, Abort> {
        let there = is_there(&self.context.store, &known.name, known.origin.as_deref()).await;
        let there = there.map_err(Abort::Store)?;
        self.worked();
        Ok(there)
    }

    async fn fail_backup(&self, known: &Known, why: &Ended, look: bool) -> Result<Did, Abort> {
        // It may have been committed since the listing; the next sync writes what its marker says.
        if look && self.is_there(known).await? {
            return Ok(Did::Nothing);
        }
        let _permit = self.writing().await;
        let Some(mut record) = self.unchanged(known).await? else {
            return Ok(Did::Nothing);
        };
        let mut status = record.status.take().unwrap_or_default();
        let of = Of::Backup {
            looked: look,
            frozen: status.freeze.as_ref().map_or(&[], |freeze| &freeze.pods),
        };
        let reason = reason(of, &known.name, why, &self.context.namespace);
        let began = status
            .start_timestamp
            .as_ref()
            .map(|at| at.0)
            .or(known.created);
        status.phase = Some(BackupPhase::Failed);
        status.start_timestamp = began.map(Time);
        status.completion_timestamp = Some(Time(self.view.now));
        status.expiration = began
            .and_then(|began| expiration(began, record.spec.ttl.as_deref()))
            .map(Time);
        status.heartbeat = None;
        status.errors = status.errors.max(1);
        status.failure_reason = Some(reason.clone());
        record.status = Some(status);
        let records = &self.context.records;
        let written = records.replace_unclaimed(&record, Part::Status).await;
        Ok(match written.map_err(Abort::Cluster)? {
            Some(_) => {
                self.context
                    .log
                    .warn(&format!("Backup {} has failed: {reason}", known.name));
                Did::Failed
            }
            None => Did::Nothing,
        })
    }

    /// Says of a restore that its run has ended; whether it did.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn fail_restore(&self, known: &Known, why: &Ended) -> Result<bool, ClusterError> {
        let records = &self.context.records;
        let found = records.find::<Restore>(&known.name).await?;
        let Some(mut record) =
            found.filter(|record| record.resource_version().as_ref() == Some(&known.version))
        else {
            return Ok(false);
        };
        let mut status = record.status.take().unwrap_or_default();
        let of = Of::Restore {
            backup: &record.spec.backup_name,
        };
        let reason = reason(of, &known.name, why, &self.context.namespace);
        status.phase = Some(RestorePhase::Failed);
        status.start_timestamp = status.start_timestamp.or(known.created.map(Time));
        status.completion_timestamp = Some(Time(self.view.now));
        status.heartbeat = None;
        status.errors = status.errors.max(1);
        status.failure_reason = Some(reason.clone());
        record.status = Some(status);
        let written = records.replace_unclaimed(&record, Part::Status).await?;
        if written.is_some() {
            self.context
                .log
                .warn(&format!("Restore {} has failed: {reason}", known.name));
        }
        Ok(written.is_some())
    }

    /// The resource, if it still is what the decision was made about.
    async fn unchanged(&self, known: &Known) -> Result<Option<Backup>, Abort> {
        let found = self.context.records.find::<Backup>(&known.name).await;
        let found = found.map_err(Abort::Cluster)?;
        Ok(found.filter(|record| record.resource_version().as_ref() == Some(&known.version)))
    }

    async fn writing(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.writes.acquire().await.expect("it is never closed")
    }
}

/// When a backup that has failed may be forgotten; never with a time to live of 0.
fn expiration(began: Timestamp, ttl: Option<&str>) -> Option<Timestamp> {
    let ttl = match ttl {
        None => DEFAULT_TTL,
        // Whoever wrote what cannot be read wanted it kept for some time.
        Some(text) => parse_duration(text).unwrap_or(DEFAULT_TTL),
    };
    if ttl.is_zero() {
        return None;
    }
    began.checked_add(SignedDuration::try_from(ttl).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_expires_as_it_would_have() {
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |ttl| expiration(began, ttl).map(|at| at.to_string());
        assert_eq!(after(Some("90m")).as_deref(), Some("2026-01-01T01:30:00Z"));
        assert_eq!(after(None).as_deref(), Some("2026-01-31T00:00:00Z"));
        assert_eq!(after(Some("soon")), after(None));
        assert_eq!(after(Some("0")), None);
        assert_eq!(after(Some("0s")), None);
    }
}
