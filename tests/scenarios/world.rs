//! What scenarios share in one run: control planes, an S3 server, clusters with a node; each started when first used.
//!
//! Sharing works because every scenario has names of its own: [`World::namespace`] and [`World::prefix`]. A scenario
//! that backs up everything, installs, or breaks a server starts its own instead.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, anyhow};
use ark_tests::{Bucket, ControlPlane, Csi, Options, S3Server, csi, process};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;
use tokio::sync::OnceCell;

/// A server that started, or why it did not: said by each scenario that needs it, and tried once.
pub type Shared<T> = OnceCell<Result<T, String>>;

static CONTROL_PLANE: Shared<ControlPlane> = OnceCell::const_new();
static DISKS: Shared<ControlPlane> = OnceCell::const_new();
static S3: Shared<S3Server> = OnceCell::const_new();
#[cfg(target_os = "linux")]
static NODE: Shared<ark_tests::NodeCluster> = OnceCell::const_new();
static CSI: Shared<WithCsi<ControlPlane>> = OnceCell::const_new();
#[cfg(target_os = "linux")]
static NODE_CSI: Shared<WithCsi<ark_tests::NodeCluster>> = OnceCell::const_new();
static NAMESPACES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The server, started if it is not.
pub async fn shared<T>(
    cell: &'static Shared<T>,
    start: impl Future<Output = Result<T>>,
) -> Result<&'static T> {
    let server = cell
        .get_or_init(|| async { start.await.map_err(|error| format!("{error:#}")) })
        .await;
    server.as_ref().map_err(|error| anyhow!("{error}"))
}

/// The control plane of this run (with controller manager), or the cluster that ARK_TEST_KUBECONFIG names.
pub async fn control_plane() -> Result<&'static ControlPlane> {
    shared(&CONTROL_PLANE, async {
        match std::env::var_os("ARK_TEST_KUBECONFIG") {
            Some(kubeconfig) => ControlPlane::from_kubeconfig(kubeconfig),
            None => {
                ControlPlane::start(Options {
                    controller_manager: true,
                    ..Options::default()
                })
                .await
            }
        }
    })
    .await
}

/// The control plane of this run whose persistentVolumes may be disks of EBS. Others have none: expiry would ask EC2 there,
/// which only scenarios about volumes have.
pub async fn disks() -> Result<&'static ControlPlane> {
    shared(
        &DISKS,
        ControlPlane::start(Options {
            controller_manager: true,
            ..Options::default()
        }),
    )
    .await
}

/// The S3 server of this run.
pub async fn s3() -> Result<&'static S3Server> {
    shared(&S3, S3Server::start()).await
}

/// The cluster with a node of this run, for scenarios that need real pods. It is not the one of [`World`].
#[cfg(target_os = "linux")]
pub async fn node() -> Result<&'static ark_tests::NodeCluster> {
    shared(&NODE, ark_tests::NodeCluster::start(Options::default())).await
}

/// A cluster with the parts of CSI. Others than these two have none, so that types do not appear while they are read.
///
/// Scenarios that change how the driver behaves make a class of their own for it (see [`Csi::behave_as`]).
pub struct WithCsi<C> {
    pub csi: Csi,
    pub cluster: C,
}

/// The control plane of this run that has CSI: volumes and snapshots, and no pods.
pub async fn csi() -> Result<&'static WithCsi<ControlPlane>> {
    shared(&CSI, async {
        let options = Options {
            controller_manager: true,
            ..Options::default()
        };
        let cluster = ControlPlane::start(options).await?;
        let storage = cluster.directory()?.join("csi");
        let csi = Csi::start_without_node(&cluster, &storage, &csi::Options::default()).await?;
        Ok(WithCsi { csi, cluster })
    })
    .await
}

/// The cluster with a node of this run that has CSI.
#[cfg(target_os = "linux")]
pub async fn node_csi() -> Result<&'static WithCsi<ark_tests::NodeCluster>> {
    shared(&NODE_CSI, async {
        let cluster = ark_tests::NodeCluster::start(Options::default()).await?;
        let storage = cluster.directory()?.join("csi");
        let csi = Csi::start(&cluster, &storage).await?;
        Ok(WithCsi { csi, cluster })
    })
    .await
}

/// One scenario's part of what is shared.
pub struct World {
    /// The shared control plane, of either kind.
    pub cluster: &'static ControlPlane,
    /// A client of this scenario's own.
    pub client: Client,
    /// The shared S3 server.
    pub s3: &'static S3Server,
    /// The bucket that all scenarios share; keep to [`World::prefix`].
    pub bucket: Bucket,
    name: String,
}

impl World {
    /// A part with names of its own, which start with the hint.
    pub async fn new(hint: &str) -> Result<Self> {
        Self::on(control_plane().await?, hint).await
    }

    /// As [`World::new`], on the control plane with disks.
    pub async fn with_disks(hint: &str) -> Result<Self> {
        Self::on(disks().await?, hint).await
    }

    /// As [`World::new`], on another shared control plane: that of [`csi`].
    pub async fn on(cluster: &'static ControlPlane, hint: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let s3 = s3().await?;
        let name = format!(
            "{hint}-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        Ok(World {
            cluster,
            client: cluster.client().await?,
            s3,
            bucket: s3.bucket("scenarios").await?,
            name,
        })
    }

    /// What this scenario's keys in the bucket start with (no slash at the end).
    pub fn prefix(&self) -> &str {
        &self.name
    }

    /// The storage URL of this scenario's backups.
    pub fn storage(&self) -> String {
        self.storage_at(self.s3.url())
    }

    /// The same storage behind another endpoint: a fault proxy.
    pub fn storage_at(&self, endpoint: &str) -> String {
        let (bucket, prefix) = (self.bucket.name(), self.prefix());
        format!("s3://{bucket}/{prefix}?endpoint={endpoint}&path-style=true&region=us-east-1")
    }

    /// What the keys of a backup of this scenario start with.
    pub fn key(&self, backup: &str) -> String {
        format!("{}/backups/{backup}/", self.prefix())
    }

    /// Makes a namespace for this scenario and gives its name.
    pub async fn namespace(&self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.name);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let users = |shared: &Result<ControlPlane, String>| {
            shared
                .as_ref()
                .is_ok_and(|cluster| std::ptr::eq(cluster, self.cluster))
        };
        if CONTROL_PLANE.get().is_some_and(users) {
            NAMESPACES
                .lock()
                .expect("nobody panics with this lock")
                .push(name.clone());
        }
        Ok(name)
    }
}

/// A scenario: an async function on a runtime of its own, failing with the error it returns.
pub fn scenario<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime
            .block_on(test())
            .map_err(|error| format!("{error:#}").into())
    })
}

/// A [`scenario`] that needs real pods: skipped, and said to be, without root.
#[cfg(target_os = "linux")]
pub fn node_scenario<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    scenario(name, test)
        .with_kind("node")
        .with_ignored_flag(!rustix::process::geteuid().is_root())
}

/// Stops everything that was started; a cluster that the user brought gets rid of our namespaces.
pub fn end() {
    if std::env::var_os("ARK_TEST_KUBECONFIG").is_some()
        && let Some(Ok(cluster)) = CONTROL_PLANE.get()
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let namespaces =
            std::mem::take(&mut *NAMESPACES.lock().expect("nobody panics with this lock"));
        let deleted: Result<()> = runtime.block_on(async {
            let api: Api<Namespace> = Api::all(cluster.client().await?);
            for namespace in namespaces {
                api.delete(&namespace, &DeleteParams::background()).await?;
            }
            Ok(())
        });
        if let Err(error) = deleted {
            eprintln!("warning: deleting the namespaces of this run: {error:#}");
        }
    }
    process::end_all();
}
