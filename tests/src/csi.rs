//! CSI: the real snapshot controller and sidecars, and a driver of our own whose storage is a directory.
//!
//! They run as processes of the machine, not as pods, so a cluster without a node has volumes and snapshots too: claims
//! bind and snapshots become ready, only nobody mounts them. With a node, pods do.
//!
//! The directory outlives the [`Csi`]. Two clusters that are given the same one have the same storage, as two clusters
//! in one cloud account have: a snapshot made in one is restored in the other by its handle. Its layout is described in
//! `tests/csi/storage.go`.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::{self, Process, Run};
use crate::{ControlPlane, network, prerequisites, wait_until};

/// The driver's name, unless [`Options`] has another.
pub const DRIVER: &str = "dir.csi.ark.test";

/// The StorageClass that is installed: volumes are provisioned at once, and deleted with their PersistentVolume.
pub const STORAGE_CLASS: &str = "dir";

/// The VolumeSnapshotClass that is installed, with deletionPolicy Delete; the driver's default.
pub const SNAPSHOT_CLASS: &str = "dir";

/// The VolumeGroupSnapshotClass that is installed when the driver makes group snapshots, with deletionPolicy Delete.
pub const GROUP_SNAPSHOT_CLASS: &str = "dir";

/// What the parts are started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver's name.
    pub driver: String,
    /// Whether the driver makes snapshots of several volumes at once. Their definitions are installed in any case.
    pub group_snapshots: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            driver: DRIVER.into(),
            group_snapshots: true,
        }
    }
}

/// How the driver behaves. It holds from the next call on, in all clusters that share the storage.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// CreateVolume fails with this text.
    pub fail_create_volume: Option<String>,
    /// CreateSnapshot and CreateVolumeGroupSnapshot fail with this text, and make nothing.
    pub fail_create_snapshot: Option<String>,
    /// DeleteSnapshot and DeleteVolumeGroupSnapshot fail with this text, and delete nothing.
    pub fail_delete_snapshot: Option<String>,
    /// The snapshot exists at once, but its handle is answered only so much later.
    pub answer_create_snapshot_after: Duration,
    /// A snapshot has its handle, but is ready to use only so much later.
    pub snapshot_ready_after: Duration,
    /// No snapshot is ready to use, until another behaviour is set.
    pub snapshots_pending: bool,
}

/// A snapshot that physically exists.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its handle.
    pub id: String,
    /// The name that the sidecar gave it: `snapshot-` and the UID of the VolumeSnapshot.
    pub name: String,
    /// The handle of the volume.
    pub source_volume: String,
    /// The least size of a volume made from it, in bytes.
    pub size: u64,
    /// The handle of the group snapshot that it was made in.
    pub group: Option<String>,
    /// The directory that holds its content.
    #[serde(skip)]
    pub data: PathBuf,
}

/// A volume that physically exists.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its handle.
    pub id: String,
    /// The name that the sidecar gave it: that of the PersistentVolume.
    pub name: String,
    /// Its size, in bytes.
    pub capacity: u64,
    /// The handle of the snapshot or volume whose content it began with.
    pub source: Option<String>,
    /// The directory that holds its content.
    #[serde(skip)]
    pub data: PathBuf,
}

/// The running parts; they end when dropped, what is in the storage stays. Drop it before its cluster.
pub struct Csi {
    /// kubernetes-csi's snapshot-controller: binds VolumeSnapshots to contents.
    pub snapshot_controller: Process,
    /// kubernetes-csi's csi-snapshotter: makes and deletes the snapshots of contents.
    pub snapshotter: Process,
    /// kubernetes-csi's csi-provisioner: makes and deletes volumes.
    pub provisioner: Process,
    /// Our driver; on a node, what holds it: it can be killed, but not suspended. The sidecars end when they lose it.
    pub driver: Process,
    storage: PathBuf,
    _run: Run,
}

impl Csi {
    /// Installs everything in a cluster with a node, and waits until the kubelet knows the driver.
    #[cfg(target_os = "linux")]
    pub async fn start(cluster: &crate::NodeCluster, storage: &Path) -> Result<Self> {
        Self::start_with(cluster, storage, &Options::default()).await
    }

    /// As [`Csi::start`], with other options.
    #[cfg(target_os = "linux")]
    pub async fn start_with(
        cluster: &crate::NodeCluster,
        storage: &Path,
        options: &Options,
    ) -> Result<Self> {
        // In there it is a child of the process that we end.
        let mut driver = cluster.bound_inside("setpriv");
        driver
            .args(["--pdeathsig", "KILL", "--"])
            .arg(prerequisites::csi()?.join("csi"))
            .args([
                "--register=/var/lib/kubelet/plugins_registry",
                "--node=node",
            ]);
        let csi = Self::start_parts(cluster, driver, storage, options).await?;
        wait_until(
            "the kubelet to know the driver",
            Duration::from_secs(30),
            async || {
                if let Err(ended) = csi.check() {
                    return Ok(Some(Err(ended)));
                }
                let known = cluster.kubectl(&[
                    "get",
                    "csinode",
                    "node",
                    "-o",
                    "jsonpath={.spec.drivers[*].name}",
                ])?;
                let known = known.split(' ').any(|name| name == options.driver);
                Ok(known.then_some(Ok(())))
            },
        )
        .await??;
        Ok(csi)
    }

    /// Installs everything in a cluster without a node. Claims bind only if it runs the controller manager.
    pub async fn start_without_node(
        cluster: &ControlPlane,
        storage: &Path,
        options: &Options,
    ) -> Result<Self> {
        let driver = process::bound(prerequisites::csi()?.join("csi"));
        Self::start_parts(cluster, driver, storage, options).await
    }

    async fn start_parts(
        cluster: &ControlPlane,
        mut driver: Command,
        storage: &Path,
        options: &Options,
    ) -> Result<Self> {
        let bin = prerequisites::csi()?;
        install(cluster, &bin.join("crd"), options)?;
        let storage = std::path::absolute(storage)?;
        fs::create_dir_all(&storage).with_context(|| format!("creating {}", storage.display()))?;
        let run = Run::start()?;
        let socket = run.directory().join("csi.sock");
        driver
            .arg(format!("--name={}", options.driver))
            .arg(format!("--group-snapshots={}", options.group_snapshots))
            .arg("--socket")
            .arg(&socket)
            .arg("--storage")
            .arg(&storage);
        let driver = run.spawn("csi-driver", driver)?;
        let exists = async || {
            if let Err(ended) = driver.check() {
                return Ok(Some(Err(ended)));
            }
            Ok(socket.exists().then_some(Ok(())))
        };
        wait_until("the CSI driver", Duration::from_secs(20), exists).await??;

        let ports: [u16; 3] = network::free_ports()?;
        let start = |name: &str, port: u16, flags: &[String]| {
            let mut command = process::bound(bin.join(name));
            command
                .env("KUBECONFIG", cluster.kubeconfig())
                .arg("--kubeconfig")
                .arg(cluster.kubeconfig())
                .arg(format!("--http-endpoint=127.0.0.1:{port}"))
                // The defaults are for clusters that outlive a test.
                .args(["--kube-api-qps=100", "--kube-api-burst=200"])
                .args(["--retry-interval-start=100ms", "--retry-interval-max=2s"])
                .args(flags);
            run.spawn(name, command)
        };
        let address = [format!("--csi-address={}", socket.display())];
        let csi = Csi {
            snapshot_controller: start("snapshot-controller", ports[0], &[])?,
            snapshotter: start("csi-snapshotter", ports[1], &address)?,
            provisioner: start("csi-provisioner", ports[2], &address)?,
            driver,
            storage,
            _run: run,
        };
        wait_until(
            "the CSI sidecars to serve",
            Duration::from_secs(30),
            async || {
                if let Err(ended) = csi.check() {
                    return Ok(Some(Err(ended)));
                }
                for port in ports {
                    TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                }
                Ok(Some(Ok(())))
            },
        )
        .await??;
        Ok(csi)
    }

    /// An error with the end of its log when a part has ended.
    pub fn check(&self) -> Result<()> {
        for part in [
            &self.driver,
            &self.snapshot_controller,
            &self.snapshotter,
            &self.provisioner,
        ] {
            part.check()?;
        }
        Ok(())
    }

    /// The directory that holds volumes and snapshots.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Changes how the driver treats objects of classes without the parameter `behaviour`.
    pub fn behave(&self, behaviour: &Behaviour) -> Result<()> {
        self.behave_as("default", behaviour)
    }

    /// Changes how the driver treats objects of classes whose parameter `behaviour` is this name: a scenario that
    /// shares the storage makes a class of its own.
    pub fn behave_as(&self, name: &str, behaviour: &Behaviour) -> Result<()> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis());
        let written = json!({
            "failCreateVolume": text(&behaviour.fail_create_volume),
            "failCreateSnapshot": text(&behaviour.fail_create_snapshot),
            "failDeleteSnapshot": text(&behaviour.fail_delete_snapshot),
            "answerCreateSnapshotAfter": milliseconds(behaviour.answer_create_snapshot_after)?,
            "snapshotReadyAfter": milliseconds(behaviour.snapshot_ready_after)?,
            "snapshotsPending": behaviour.snapshots_pending,
        });
        // The driver must not read half of it.
        let path = self.storage.join("behaviour").join(format!("{name}.json"));
        let temporary = path.with_extension("new");
        fs::write(&temporary, written.to_string())
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// The snapshots that physically exist, sorted by handle.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut all: Vec<Snapshot> = self.entries("snapshots", "snapshot.json")?;
        for one in &mut all {
            one.data = self.storage.join("snapshots").join(&one.id).join("data");
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The volumes that physically exist, sorted by handle.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut all: Vec<Volume> = self.entries("volumes", "volume.json")?;
        for one in &mut all {
            one.data = self.storage.join("volumes").join(&one.id).join("data");
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The snapshots of one volume that physically exist.
    pub fn snapshots_of(&self, volume: &str) -> Result<Vec<Snapshot>> {
        let mut all = self.snapshots()?;
        all.retain(|one| one.source_volume == volume);
        Ok(all)
    }

    /// The volume behind a PersistentVolume of that name, if it physically exists.
    pub fn volume(&self, persistent_volume: &str) -> Result<Option<Volume>> {
        let mut all = self.volumes()?;
        all.retain(|one| one.name == persistent_volume);
        Ok(all.pop())
    }

    fn entries<T: for<'a> Deserialize<'a>>(&self, kind: &str, file: &str) -> Result<Vec<T>> {
        let directory = self.storage.join(kind);
        let mut all = Vec::new();
        for entry in
            fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?
        {
            let entry = entry?;
            // With a dot: not there yet, or no more.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path().join(file);
            match fs::read(&path) {
                Ok(text) => all.push(
                    serde_json::from_slice(&text)
                        .with_context(|| format!("reading {}", path.display()))?,
                ),
                // Deleted since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("reading {}", path.display()));
                }
            }
        }
        Ok(all)
    }
}

/// A PersistentVolumeClaim of one gibibyte in [`STORAGE_CLASS`].
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE_CLASS,
            "resources": { "requests": { "storage": "1Gi" } },
        },
    })
}

/// As [`claim`], with the content of a VolumeSnapshot of its namespace.
pub fn claim_from(name: &str, snapshot: &str) -> Value {
    let mut claim = claim(name);
    claim["spec"]["dataSource"] = json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot });
    claim
}

/// A VolumeSnapshot of a claim, in that class.
pub fn volume_snapshot(name: &str, claim: &str, class: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": name },
        "spec": {
            "volumeSnapshotClassName": class,
            "source": { "persistentVolumeClaimName": claim },
        },
    })
}

/// Defines the snapshot resources, and makes the driver and its classes known.
fn install(cluster: &ControlPlane, definitions: &Path, options: &Options) -> Result<()> {
    let definitions = definitions.display().to_string();
    // As a client would not: their descriptions are too long for the annotation that it would keep.
    cluster.kubectl(&["apply", "--server-side", "-f", &definitions])?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "-f",
        &definitions,
    ])?;
    let driver = &options.driver;
    let mut objects = vec![
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": { "name": driver },
            // A directory needs no attaching, and belongs to whoever writes into it.
            "spec": { "attachRequired": false, "podInfoOnMount": false, "fsGroupPolicy": "None" },
        }),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": STORAGE_CLASS },
            "provisioner": driver, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
        }),
        json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {
                "name": SNAPSHOT_CLASS,
                "annotations": { "snapshot.storage.kubernetes.io/is-default-class": "true" },
            },
            "driver": driver, "deletionPolicy": "Delete",
        }),
    ];
    if options.group_snapshots {
        objects.push(json!({
            "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotClass",
            "metadata": {
                "name": GROUP_SNAPSHOT_CLASS,
                "annotations": { "groupsnapshot.storage.kubernetes.io/is-default-class": "true" },
            },
            "driver": driver, "deletionPolicy": "Delete",
        }));
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster.kubectl_with_input(&["apply", "-f", "-"], &list.to_string())?;
    Ok(())
}
