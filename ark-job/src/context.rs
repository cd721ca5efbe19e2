//! What an operation works with, and how it ends: the cluster, the store, who is running. Made once, before anything.

use crate::api::{AccessMode, CLUSTER_NAME_KEY, CONFIG_NAME, DEFAULT_LOCATION};
use crate::cluster::Cluster;
use crate::error::Failure;
use crate::exit::Exit;
use crate::hooks::Ledger;
use crate::identity::{Origin, Run, RunId};
use crate::location::{self, Read};
use crate::log::Log;
use crate::read_only::{self, ReadOnly};
use crate::records::Records;
use crate::store::{Credentials, Location, Store, StoreError};
use crate::volumes::begun::Begun;
use crate::volumes::disks::{ConnectDisks, DiskAccess};
use k8s_openapi::api::core::v1::ConfigMap;
use std::path::PathBuf;

/// What the process was told by its surroundings; read by the caller, not here.
#[derive(Clone, Debug)]
pub struct Environment {
    /// UID of the Job this pod belongs to; absent outside of a Job.
    pub job_uid: Option<String>,
    /// Name of the Job this pod belongs to; absent outside of a Job.
    pub job_name: Option<String>,
    /// UID of this pod; absent outside of a pod.
    pub pod_uid: Option<String>,
    /// A random text, for what has no other identity.
    pub nonce: String,
    /// Directory for temporary files, with room for an archive.
    pub temporary: PathBuf,
    /// How the cloud's disks are reached; absent where they are not, as in `kubectl ark --local`.
    pub connect_disks: Option<ConnectDisks>,
    /// What tags of the cloud's volumes call the cluster, if they do.
    pub disks_cluster_name: Option<String>,
}

impl Environment {
    /// What asks for a run that no schedule asks for.
    pub fn origin(&self) -> Origin {
        match &self.job_uid {
            Some(uid) => Origin::Job { uid: uid.clone() },
            None => Origin::Local {
                nonce: self.nonce.clone(),
            },
        }
    }
}

/// What an operation works with.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Where backups are.
    pub store: Store,
    /// The same, as it was told.
    pub place: Location,
    /// The name of that location, unless a URL was given.
    pub location: Option<String>,
    /// What Velero calls the place of snapshots of EBS, if that location says.
    pub velero_snapshot_location: Option<String>,
    /// What may be done with it: ReadOnly if any location that is this place is.
    pub access_mode: AccessMode,
    /// Why it is ReadOnly, if it is.
    pub read_only: Option<ReadOnly>,
    /// The name that the administrator gave to the cluster.
    pub cluster_name: Option<String>,
    /// Who is running.
    pub run: Run,
    /// Ark's namespace.
    pub namespace: String,
    /// The disks of the cloud, once somebody needs them.
    pub disks: DiskAccess,
    /// Backup and Restore resources.
    pub records: Records,
    /// What this process has frozen and must thaw before it ends.
    pub frozen: Ledger,
    /// The snapshots that this process has begun: what it deletes when no backup comes of them.
    pub begun: Begun,
    /// The log.
    pub log: Log,
    /// Directory for temporary files.
    pub temporary: PathBuf,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub exit: Exit,
    /// One line for people.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Outcome {
            exit: failure.exit(),
            message: failure.message().to_owned(),
            hint: failure.next_step().map(str::to_owned),
        }
    }
}

impl Context {
    /// Connects to cluster and storage: `url`, or the BackupStorageLocation called `location`; `origin` asks for the run.
    ///
    /// # Errors
    /// When either cannot be used; nothing has been written then.
    pub async fn open(
        cluster: Cluster,
        namespace: &str,
        location: Option<&str>,
        url: Option<Location>,
        origin: &Origin,
        environment: &Environment,
    ) -> Result<Context, Failure> {
        let log = Log::new(&environment.temporary).map_err(|error| {
            let directory = environment.temporary.display();
            Failure::new(
                Exit::Failed,
                format!("creating a temporary file in {directory}: {error}"),
            )
            .hint("give the pod a writable /tmp (an emptyDir volume), or set TMPDIR")
        })?;
        let cluster = cluster.with_log(&log);
        let (location, read) = locate(&cluster, namespace, location, url).await?;
        let Read {
            access_mode: own_mode,
            place,
            velero_snapshot_location,
        } = read;
        let cluster_uid = cluster
            .uid()
            .await
            .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        let store = open_place(&place).await?.with_log(&log);
        let read_only = read_only::read_only(
            &cluster,
            namespace,
            location.as_deref(),
            own_mode,
            &place,
            &store,
        )
        .await;
        let access_mode = match read_only {
            Some(_) => AccessMode::ReadOnly,
            None => AccessMode::ReadWrite,
        };
        let place_of_disks = place.clone();
        let run = identify(&cluster_uid, namespace, origin, environment);
        let records = Records::open(&cluster, namespace, &run.id)
            .await
            .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        let cluster_name = read_cluster_name(&cluster, namespace, &log).await;
        Ok(Context {
            cluster,
            store,
            place,
            location,
            velero_snapshot_location,
            access_mode,
            read_only,
            cluster_name,
            run,
            namespace: namespace.to_owned(),
            disks: DiskAccess::new(
                environment.connect_disks,
                environment.disks_cluster_name.clone(),
                place_of_disks,
                &log,
            ),
            records,
            frozen: Ledger::default(),
            begun: Begun::default(),
            log,
            temporary: environment.temporary.clone(),
        })
    }

    /// Reads a ConfigMap in Ark's namespace that a flag names; `content` says what must be in it (`hooks`).
    ///
    /// # Errors
    /// [`Exit::NotFound`] when it is not there.
    pub async fn config_map(&self, name: &str, content: &str) -> Result<ConfigMap, Failure> {
        let namespace = &self.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let doing = format!("reading {content} from ConfigMap {name} in namespace {namespace}");
        self.cluster.get(&path, &doing).await.map_err(|error| {
            if error.is_not_found() {
                let text =
                    format!("there is no ConfigMap {name} with {content} in namespace {namespace}");
                Failure::new(Exit::NotFound, text)
            } else {
                Failure::from_error(Exit::Failed, &error)
            }
        })
    }
}

/// Opens storage alone, for who only reads: `url`, or the BackupStorageLocation called `location`.
///
/// # Errors
/// When it cannot be used.
pub async fn open_store(
    cluster: &Cluster,
    namespace: &str,
    location: Option<&str>,
    url: Option<Location>,
) -> Result<Store, Failure> {
    let (_, read) = locate(cluster, namespace, location, url).await?;
    open_place(&read.place).await
}

/// Opens storage whose place is known, with the credentials that the surroundings give.
///
/// # Errors
/// When it cannot be used.
pub async fn open_place(place: &Location) -> Result<Store, Failure> {
    Store::open(place, &Credentials::Chain)
        .await
        .map_err(|error| storage_failure(&error))
}

/// The place that a storage URL names.
///
/// # Errors
/// [`Exit::Usage`], with what is wrong with it.
pub fn parse_url(url: &str) -> Result<Location, Failure> {
    url.parse()
        .map_err(|error| Failure::from_error(Exit::Usage, &error))
}

/// Name of the location, unless a URL was given, and what it says.
pub(crate) async fn locate(
    cluster: &Cluster,
    namespace: &str,
    location: Option<&str>,
    url: Option<Location>,
) -> Result<(Option<String>, Read), Failure> {
    match url {
        Some(place) => Ok((
            None,
            Read {
                access_mode: AccessMode::ReadWrite,
                place,
                velero_snapshot_location: None,
            },
        )),
        None => {
            let name = location.unwrap_or(DEFAULT_LOCATION);
            let read = location::read(cluster, namespace, name).await?;
            Ok((Some(name.to_owned()), read))
        }
    }
}

fn identify(cluster_uid: &str, namespace: &str, origin: &Origin, environment: &Environment) -> Run {
    Run {
        id: RunId::new(cluster_uid, namespace, origin),
        attempt: environment
            .pod_uid
            .clone()
            .unwrap_or_else(|| environment.nonce.clone()),
        cluster_uid: cluster_uid.to_owned(),
    }
}

/// What a failure of the store means for the whole run.
pub fn storage_failure(error: &StoreError) -> Failure {
    let exit = if error.is_bucket_missing() {
        Exit::NotFound
    } else {
        Exit::Failed
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

/// The name that the administrator gave to the cluster, for people to tell backups apart. Nothing depends on it.
async fn read_cluster_name(cluster: &Cluster, namespace: &str, log: &Log) -> Option<String> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
    match cluster
        .get::<ConfigMap>(&path, "reading the name of the cluster")
        .await
    {
        Ok(map) => map
            .data?
            .remove(CLUSTER_NAME_KEY)
            .filter(|name| !name.is_empty()),
        Err(error) if error.is_not_found() => None,
        Err(error) => {
            log.warn(&error.full_text());
            None
        }
    }
}
