//! Backup and Restore resources: what is happening, for people to read. Storage stays the source of truth.
//!
//! They are written only where their CRD is served: `ark-job --storage` works in a cluster that has never seen Ark.

use crate::api::{BackupPhase, GROUP, RUN_ANNOTATION, STORAGE_ANNOTATION};
use crate::cluster::{Cluster, ClusterError, get};
use crate::error::Failure;
use crate::exit::Exit;
use crate::identity::RunId;
use crate::log::Log;
use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A record whose run has given no sign of life for this long is nobody's (STORAGE: sync marks it Failed).
pub const ALIVE_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Records read at once: each is a few kilobytes.
const PAGE: usize = 500;

/// A record's status is written at most this often.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Whoever is alive has given another sign of life within this time, whatever the clocks say.
pub const ANOTHER_HEARTBEAT: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Whether a run whose last sign of life was at `heartbeat` is still at work, by clocks that agree.
pub fn is_alive(heartbeat: Timestamp, now: Timestamp) -> bool {
    now.duration_since(heartbeat) < ALIVE_WITHIN
}

/// Gives a sign of life with `beat` again and again, for ever. That it cannot be written is said once.
pub async fn heartbeat(log: &Log, beat: impl AsyncFn() -> Result<(), ClusterError>) {
    let mut quiet = false;
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if let Err(error) = beat().await
            && !std::mem::replace(&mut quiet, true)
        {
            log.warn(&format!("progress cannot be shown: {}", error.full_text()));
        }
    }
}

/// Says that an operation failed and why: in the log, and in the record by `write`.
pub async fn fail(log: &Log, reason: &str, write: impl Future<Output = Result<(), ClusterError>>) {
    log.error(reason);
    if let Err(error) = write.await {
        log.warn(&format!(
            "the failure could not be recorded: {}",
            error.full_text()
        ));
    }
}

/// The records in Ark's namespace.
#[derive(Clone)]
pub struct Records {
    cluster: Cluster,
    namespace: String,
    run: RunId,
    served: Vec<String>,
    /// Ark's namespace is not there, as after `uninstall`, which leaves the types: nothing is kept then.
    homeless: Arc<AtomicBool>,
    /// The heartbeat of each run that was asked about, by the record's UID, and when it was first heard.
    heard: Arc<Mutex<HashMap<String, (Timestamp, Instant)>>>,
}

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another run is at work under that name.
    #[error("{kind} {name} is in progress: run {run} gave a sign of life at {heartbeat}")]
    Busy {
        /// Backup or Restore.
        kind: String,
        /// Its name.
        name: String,
        /// The other run.
        run: String,
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// The name belongs to a backup in another location.
    #[error("{kind} {name} is that of a backup in {location}")]
    Elsewhere {
        /// Backup or Restore.
        kind: String,
        /// Its name.
        name: String,
        /// Where that backup is, in words.
        location: String,
        /// Whether that is no location of this cluster's, but a URL.
        at_url: bool,
    },
    /// The API server said no.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What to do when the name is that of a backup which was made with `--local` or `--storage`.
const AT_URL_WAY_OUT: &str = "choose another name; `kubectl ark backup delete NAME --local` (or --storage URL) where it was made deletes it; \
     `kubectl delete backups.ark.heptio.com NAME` gives the name free, and leaves the files";

impl RecordError {
    /// What it means for the run that wanted the name; `way_out` says what to do when another has it.
    pub fn into_failure(self, way_out: &str) -> Failure {
        match &self {
            RecordError::Elsewhere { at_url: true, .. } => {
                Failure::from_error(Exit::Conflict, &self).hint(AT_URL_WAY_OUT)
            }
            RecordError::Busy { .. } | RecordError::Elsewhere { .. } => {
                Failure::from_error(Exit::Conflict, &self).hint(way_out)
            }
            RecordError::Cluster(_) => Failure::from_error(Exit::Failed, &self),
        }
    }
}

impl Records {
    /// Finds out which records the cluster knows.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn open(
        cluster: &Cluster,
        namespace: &str,
        run: &RunId,
    ) -> Result<Records, ClusterError> {
        #[derive(serde::Deserialize)]
        struct List {
            resources: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        struct Entry {
            name: String,
        }
        let served = match cluster
            .get::<List>(
                &format!("/apis/{GROUP}/v1"),
                "discovering Ark's own resources",
            )
            .await
        {
            Ok(list) => list.resources.into_iter().map(|entry| entry.name).collect(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Records {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            run: run.clone(),
            served,
            homeless: Arc::default(),
            heard: Arc::default(),
        })
    }

    /// For how long the heartbeat of an operation in progress is known to be what it is in `record`.
    pub fn unchanged_for<K: Record>(&self, record: &K) -> Duration {
        let (Some(uid), Some(heartbeat)) = (record.meta().uid.clone(), record.alive()) else {
            return Duration::ZERO;
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, since) = heard.entry(uid).or_insert((heartbeat, Instant::now()));
        if *known != heartbeat {
            (*known, *since) = (heartbeat, Instant::now());
        }
        since.elapsed()
    }

    /// Whether records of this type are kept.
    pub fn keeps<K: Resource<DynamicType = ()>>(&self) -> bool {
        let is_served = |resource: &String| *resource == K::plural(&());
        !self.homeless.load(Ordering::Relaxed) && self.served.iter().any(is_served)
    }

    /// The record called `name`, if there is one.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn find<K: Record>(&self, name: &str) -> Result<Option<K>, ClusterError> {
        if !self.keeps::<K>() {
            return Ok(None);
        }
        match self
            .cluster
            .get(&self.path::<K>(name), &doing::<K>("reading", name))
            .await
        {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All records of this type, a page at a time, so that a cluster with many is no burden.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn list<K: Record>(&self) -> Result<Vec<K>, ClusterError> {
        self.digests(|record: &K| record.clone()).await
    }

    /// What `digest` makes of each record of this type: all of them at once may be more than fits.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn digests<K: Record, T>(
        &self,
        digest: impl Fn(&K) -> T,
    ) -> Result<Vec<T>, ClusterError> {
        #[derive(serde::Deserialize)]
        struct Page<K> {
            metadata: ListMeta,
            items: Vec<K>,
        }
        let mut records = Vec::new();
        if !self.keeps::<K>() {
            return Ok(records);
        }
        let collection = self.path::<K>("");
        let collection = collection.trim_end_matches('/');
        let doing = format!("listing {}", K::plural(&()));
        let mut next = String::new();
        loop {
            let path = format!("{collection}?limit={PAGE}{next}");
            let page: Page<K> = self.cluster.get(&path, &doing).await?;
            records.extend(page.items.iter().map(&digest));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={token}"),
                None => return Ok(records),
            }
        }
    }

    /// Deletes the record called `name`, if it still is the one with this UID; one that is gone is success.
    ///
    /// # Errors
    /// When the API server refuses; [`ClusterError::is_conflict`] when there is another of that name.
    pub async fn delete<K: Record>(&self, name: &str, uid: &str) -> Result<(), ClusterError> {
        let options = serde_json::json!({"preconditions": {"uid": uid}});
        let request = request(
            Method::DELETE,
            &self.path::<K>(name),
            "application/json",
            &options,
        );
        let deleted = self
            .cluster
            .request(&request, &doing::<K>("deleting", name))
            .await;
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes the status of the record called `name`, whoever's it is, if it still is the one with this UID: `status` has
    /// only what changes, with null for what goes. One that is gone is success.
    ///
    /// # Errors
    /// When the API server refuses; [`ClusterError::is_conflict`] when there is another of that name.
    pub async fn merge_status<K: Record>(
        &self,
        name: &str,
        uid: &str,
        status: &serde_json::Value,
    ) -> Result<(), ClusterError> {
        let patch = serde_json::json!({"metadata": {"uid": uid}, "status": status});
        let path = format!("{}/status", self.path::<K>(name));
        let request = request(Method::PATCH, &path, "application/merge-patch+json", &patch);
        let written = self
            .cluster
            .request(&request, &doing::<K>("updating", name))
            .await;
        match written {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Claims `name` for `run`: creates the record, or takes over one whose run has ended or is this one.
    ///
    /// # Errors
    /// [`RecordError::Busy`] when another run that is alive has it.
    pub async fn claim<K: Record>(
        &self,
        mut record: K,
        run: &RunId,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        if !self.keeps::<K>() {
            return Ok(());
        }
        let name = record.name_any();
        record
            .annotations_mut()
            .insert(RUN_ANNOTATION.to_owned(), run.to_string());
        let collection = self.path::<K>("");
        let creating = doing::<K>("creating", &name);
        loop {
            let created = self.write(
                Method::POST,
                collection.trim_end_matches('/'),
                &record,
                &creating,
            );
            match created.await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_already_exists() => {}
                // The type is there, so it is the namespace that is not.
                Err(error) if error.is_not_found() => {
                    self.homeless.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            let Some(existing) = self.find::<K>(&name).await? else {
                continue;
            };
            let other = existing
                .annotations()
                .get(RUN_ANNOTATION)
                .cloned()
                .unwrap_or_default();
            if other != run.as_str()
                && let Some(heartbeat) = existing.alive().filter(|at| is_alive(*at, now))
            {
                return Err(RecordError::Busy {
                    kind: K::kind(&()).into_owned(),
                    name,
                    run: other,
                    heartbeat,
                });
            }
            if other != run.as_str()
                && let Some(location) = existing.kept_elsewhere(&record)
            {
                return Err(RecordError::Elsewhere {
                    kind: K::kind(&()).into_owned(),
                    name,
                    at_url: location.at_url,
                    location: location.text,
                });
            }
            record.meta_mut().resource_version = existing.resource_version();
            let replaced = self
                .write(
                    Method::PUT,
                    &self.path::<K>(&name),
                    &record,
                    &doing::<K>("updating", &name),
                )
                .await;
            match replaced {
                Ok(()) => return Ok(()),
                // Changed or deleted meanwhile: look again.
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    record.meta_mut().resource_version = None
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Replaces the status of the record called `name`, if it is this run's.
    ///
    /// # Errors
    /// When the API server refuses, as it does when another run has claimed the record.
    pub async fn set_status<K: Record>(
        &self,
        name: &str,
        status: &impl Serialize,
    ) -> Result<(), ClusterError> {
        if !self.keeps::<K>() {
            return Ok(());
        }
        // A merge would keep what an earlier attempt wrote.
        let annotation = format!(
            "/metadata/annotations/{}",
            RUN_ANNOTATION.replace('/', "~1")
        );
        let patch = serde_json::json!([
            {"op": "test", "path": annotation, "value": self.run},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let path = format!("{}/status", self.path::<K>(name));
        let request = request(Method::PATCH, &path, "application/json-patch+json", &patch);
        self.cluster
            .request(&request, &doing::<K>("updating", name))
            .await
            .map(drop)
    }

    /// Changes the record called `name`, if it is this run's, and writes its status; `change` may be asked again when
    /// somebody else writes meanwhile, and says whether there is anything to write.
    ///
    /// # Errors
    /// When the API server refuses, or another run has claimed the record ([`ClusterError::is_conflict`]).
    pub async fn update_status<K: Record>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut K) -> bool,
    ) -> Result<(), ClusterError> {
        if !self.keeps::<K>() {
            return Ok(());
        }
        let doing = doing::<K>("updating", name);
        let path = self.path::<K>(name);
        loop {
            let mut record: K = self.cluster.get(&path, &doing).await?;
            let run = record.annotations().get(RUN_ANNOTATION);
            if run.map(String::as_str) != Some(self.run.as_str()) {
                let run = run.map_or("another run", String::as_str);
                return Err(ClusterError::Status {
                    doing,
                    code: 409,
                    reason: "Conflict".into(),
                    message: format!("{run} has claimed it"),
                    next: None,
                    retry_after: None,
                });
            }
            if !change(&mut record) {
                return Ok(());
            }
            // It carries the resourceVersion that was read, so nothing that was written meanwhile is lost.
            let written = self
                .write(Method::PUT, &format!("{path}/status"), &record, &doing)
                .await;
            match written {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
    }

    /// Creates a record that no run at work has claimed, and gives it as it is then; none when there is one of that name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_unclaimed<K: Record>(&self, record: &K) -> Result<Option<K>, ClusterError> {
        let collection = self.path::<K>("");
        let request = request(
            Method::POST,
            collection.trim_end_matches('/'),
            "application/json",
            record,
        );
        let doing = doing::<K>("creating", &record.name_any());
        match self.cluster.json(&request, &doing).await {
            Ok(created) => Ok(Some(created)),
            Err(error) if error.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a record, whoever's it is, if it still is in the version that `record` carries, and gives it as it is then;
    /// none when somebody has changed or deleted it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn replace_unclaimed<K: Record>(
        &self,
        record: &K,
        part: Part,
    ) -> Result<Option<K>, ClusterError> {
        let name = record.name_any();
        let path = match part {
            Part::Record => self.path::<K>(&name),
            Part::Status => format!("{}/status", self.path::<K>(&name)),
        };
        let request = request(Method::PUT, &path, "application/json", record);
        match self
            .cluster
            .json(&request, &doing::<K>("updating", &name))
            .await
        {
            Ok(replaced) => Ok(Some(replaced)),
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        doing: &str,
    ) -> Result<(), ClusterError> {
        self.cluster
            .request(&request(method, path, "application/json", body), doing)
            .await
            .map(drop)
    }

    fn path<K: Resource<DynamicType = ()>>(&self, name: &str) -> String {
        format!(
            "/apis/{GROUP}/v1/namespaces/{}/{}/{name}",
            self.namespace,
            K::plural(&())
        )
    }
}

/// What of a record is written: its status is a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Record,
    /// The status.
    Status,
}

/// A resource that records an operation.
pub trait Record: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned {
    /// The last sign of life of the run, if the operation is in progress.
    fn alive(&self) -> Option<Timestamp>;

    /// The location of a good backup that this record stands for, if `other` would be in another one: two locations
    /// may hold backups of one name, but the record must not flip between them.
    fn kept_elsewhere(&self, _other: &Self) -> Option<Elsewhere> {
        None
    }
}

/// Where a backup is, if not here.
pub struct Elsewhere {
    text: String,
    at_url: bool,
}

impl Record for crate::api::Backup {
    fn alive(&self) -> Option<Timestamp> {
        let status = self
            .status
            .as_ref()
            .filter(|status| status.phase == Some(crate::api::BackupPhase::InProgress))?;
        status.heartbeat.as_ref().map(|Time(at)| *at)
    }

    fn kept_elsewhere(&self, other: &Self) -> Option<Elsewhere> {
        let phase = self.status.as_ref().and_then(|status| status.phase);
        let good = matches!(
            phase,
            Some(BackupPhase::Completed | BackupPhase::PartiallyFailed)
        );
        let location = &self.spec.storage_location;
        (good && *location != other.spec.storage_location).then(|| Elsewhere {
            text: match location {
                Some(location) => format!("storage location {location}"),
                None => match self.annotations().get(STORAGE_ANNOTATION) {
                    Some(url) => format!("{url}, made with --local or --storage"),
                    None => "storage at a URL, made with --local or --storage".to_owned(),
                },
            },
            at_url: location.is_none(),
        })
    }
}

impl Record for crate::api::Restore {
    fn alive(&self) -> Option<Timestamp> {
        let status = self
            .status
            .as_ref()
            .filter(|status| status.phase == Some(crate::api::RestorePhase::InProgress))?;
        status.heartbeat.as_ref().map(|Time(at)| *at)
    }
}

/// Labels of a record as metadata has them.
pub fn labels(pairs: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.clone())
}

fn doing<K: Resource<DynamicType = ()>>(verb: &str, name: &str) -> String {
    format!("{verb} {} {name}", K::kind(&()))
}

/// A request with a JSON body.
pub(crate) fn request(
    method: Method,
    path: &str,
    content_type: &'static str,
    body: &impl Serialize,
) -> Request<Vec<u8>> {
    let mut request = get(path, "application/json");
    *request.method_mut() = method;
    request.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    *request.body_mut() = serde_json::to_vec(body).expect("a record holds only what JSON can say");
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::sync::Notify;
    use tokio::time::Instant;

    fn refusal() -> ClusterError {
        ClusterError::Status {
            doing: "updating Restore r".into(),
            code: 403,
            reason: "Forbidden".into(),
            message: "no".into(),
            next: None,
            retry_after: None,
        }
    }

    #[tokio::test]
    async fn signs_of_life_go_on_when_one_fails_and_trouble_is_told_once() {
        let log = Log::new(&std::env::temp_dir()).unwrap();
        let (beats, enough) = (Cell::new(0), Notify::new());
        let began = Instant::now();
        let beating = heartbeat(&log, async || {
            beats.set(beats.get() + 1);
            if beats.get() == 3 {
                enough.notify_one();
                std::future::pending::<()>().await;
            }
            Err(refusal())
        });
        tokio::select! {
            () = beating => panic!("it ended by itself"),
            () = enough.notified() => {}
        }
        assert!(began.elapsed() >= 3 * HEARTBEAT, "they come too often");
        let told = log.tail(1 << 20).unwrap();
        assert_eq!(told.matches("progress cannot be shown").count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_is_a_conflict_with_a_way_out() {
        let elsewhere = |location: Option<&str>| {
            let spec = crate::api::BackupSpec {
                storage_location: location.map(str::to_owned),
                ..Default::default()
            };
            let mut there = crate::api::Backup::new("b", spec);
            there.status = Some(crate::api::BackupStatus {
                phase: Some(BackupPhase::Completed),
                ..Default::default()
            });
            there
                .annotations_mut()
                .insert(STORAGE_ANNOTATION.into(), "file:///ann/ark".into());
            let mut here = there.clone();
            here.spec.storage_location = Some("default".into());
            let elsewhere = there.kept_elsewhere(&here).unwrap();
            let error = RecordError::Elsewhere {
                kind: "Backup".into(),
                name: "b".into(),
                at_url: elsewhere.at_url,
                location: elsewhere.text,
            };
            error.into_failure("choose another name")
        };
        let failure = elsewhere(Some("other"));
        assert_eq!(failure.exit(), Exit::Conflict);
        assert_eq!(
            failure.message(),
            "Backup b is that of a backup in storage location other"
        );
        assert_eq!(failure.next_step(), Some("choose another name"));
        let local = elsewhere(None);
        assert!(local.message().contains("file:///ann/ark"));
        assert!(local.next_step().unwrap().contains("--local"));
        let refused = RecordError::Cluster(refusal()).into_failure("choose another name");
        assert_eq!(refused.exit(), Exit::Failed);
        assert_eq!(refused.next_step(), None);
    }
}
