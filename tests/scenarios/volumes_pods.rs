//! Volumes of real pods, on the real parts of CSI: frozen, snapshotted together, thawed, lost, read again; in another
//! cluster; and deleted with their backup.
//!
//! What a snapshot holds is looked up where the driver keeps it, so that nothing rests on what we record of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::archive::read as archive;
use ark_job::archive::write::END_LENGTH;
use ark_tests::csi::{self, Csi, Snapshot, Volume, claim};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::proxy::Request;
use ark_tests::{ControlPlane, FaultProxy, NodeCluster, Options, images, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::backup::read;
use crate::expire::Vault;
use crate::place::{exists, get};
use crate::world::{self, node_scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "volumes_pods::what_was_frozen_is_read_again_after_its_namespace_is_lost",
            lost_and_read_again,
        ),
        node_scenario(
            "volumes_pods::a_second_cluster_reads_the_volumes_of_pods",
            second_cluster,
        ),
        node_scenario(
            "volumes_pods::snapshots_go_with_their_backup_from_any_cluster",
            with_their_backup,
        ),
    ]
}

const CLAIMS: [&str; 2] = ["data", "log"];
const APP: &str = "counter";

/// It counts into both volumes, never while it is frozen, and says when it has stopped.
///
/// A restored volume is one that was frozen: it begins by thawing it, as a mount does with a file system.
const COUNT: &str = "rm -f /data/frozen
n=0
while true; do
  if [ -e /data/frozen ]; then
    touch /state/stopped
  else
    rm -f /state/stopped
    n=$((n + 1))
    echo $n > /data/count
    echo $n > /log/count
  fi
  sleep 0.1
done";

/// Returns when it has stopped, as fsfreeze does.
const FREEZE: &str =
    "rm -f /state/stopped; date > /data/frozen; while ! [ -e /state/stopped ]; do sleep 0.1; done";

const THAW: &str = "rm /data/frozen; date > /data/thawed";

/// A pod with two claims and hooks, in a namespace of its own, and a directory for its backups.
struct App {
    cluster: &'static NodeCluster,
    csi: &'static Csi,
    namespace: &'static str,
    storage: tempfile::TempDir,
}

impl App {
    async fn start(namespace: &'static str) -> Result<App> {
        let world::WithCsi { csi, cluster } = world::node_csi().await?;
        let app = App {
            cluster,
            csi,
            namespace,
            storage: tempfile::tempdir()?,
        };
        // Ark's namespace, where hooks are recorded, is this scenario's own.
        for name in [namespace, &app.ark()] {
            cluster.kubectl(&["create", "namespace", name])?;
        }
        let volume =
            |name: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
        let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
        let command = |script: &str| json!(["sh", "-c", script]).to_string();
        let mut objects: Vec<Value> = CLAIMS.map(claim).into();
        for claim in &mut objects {
            claim["metadata"]["labels"] = json!({ "app": APP });
        }
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": APP, "annotations": {
                "pre.hook.backup.velero.io/command": command(FREEZE),
                "post.hook.backup.velero.io/command": command(THAW),
            } },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "volumes": [volume("data"), volume("log"), { "name": "state", "emptyDir": {} }],
                "containers": [{
                    "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", COUNT],
                    "volumeMounts": [mount("data"), mount("log"), mount("state")],
                }],
            },
        }));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let create = ["create", "-n", namespace, "-f", "-"];
        cluster.kubectl_with_input(&create, &list.to_string())?;
        app.runs()?;
        app.write("old")?;
        Ok(app)
    }

    fn ark(&self) -> String {
        format!("{}-ark", self.namespace)
    }

    fn runs(&self) -> Result<()> {
        let pod = format!("pod/{APP}");
        let ready = ["--for=condition=Ready", "--timeout=90s"];
        let wait = [&["wait", "-n", self.namespace, &pod], &ready[..]].concat();
        self.cluster.kubectl(&wait).map(drop)
    }

    /// What the pod says when it runs this.
    fn exec(&self, script: &str) -> Result<String> {
        let command = ["--", "sh", "-c", script];
        let exec = [&["exec", "-n", self.namespace, APP], &command[..]].concat();
        self.cluster.kubectl(&exec)
    }

    fn write(&self, text: &str) -> Result<()> {
        self.exec(&format!(
            "echo {text} > /data/letter; echo {text} > /log/letter"
        ))
        .map(drop)
    }

    /// The vault of its backups, as a cluster sees it.
    fn vault<'a>(&self, cluster: &'a ControlPlane) -> Vault<'a> {
        self.vault_of(cluster.kubeconfig())
    }

    fn vault_of<'a>(&self, kubeconfig: &'a Path) -> Vault<'a> {
        Vault {
            kubeconfig,
            storage: format!("file://{}", self.storage.path().display()),
            namespace: self.ark(),
        }
    }

    async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        self.vault(self.cluster).job(arguments).expect(0).await
    }

    fn backup(&self, name: &str, more: &[&str]) -> ArkJob {
        let namespaces = ["backup", name, "--include-namespaces", self.namespace];
        let asked = ["--snapshot-volumes=true"];
        self.vault(self.cluster)
            .job(&[&namespaces, &asked[..], more].concat())
    }

    fn stored(&self, backup: &str) -> PathBuf {
        self.storage.path().join("backups").join(backup)
    }

    /// The volumes of its claims, which are in the storage that the clusters share.
    fn volumes(&self, cluster: &ControlPlane, namespace: &str) -> Result<[Volume; 2]> {
        let bound = ["--for=jsonpath={.status.phase}=Bound", "--timeout=60s"];
        let [data, log] = CLAIMS.map(|name| {
            let claim = format!("pvc/{name}");
            let wait = [&["wait", "-n", namespace, &claim], &bound[..]].concat();
            cluster.kubectl(&wait).with_context(|| {
                let events = cluster.kubectl(&["get", "events", "-n", namespace]);
                events.unwrap_or_else(|error| error.to_string())
            })?;
            let claim = get(cluster, &[&claim, "-n", namespace])?;
            let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            let volume = self.csi.volume(name)?;
            volume.with_context(|| format!("{name} is bound and does not exist"))
        });
        Ok([data?, log?])
    }

    /// The snapshots of both that are on disk.
    fn snapshots(&self, volumes: &[Volume; 2]) -> Result<Vec<Snapshot>> {
        let [data, log] = volumes;
        let mut all = self.csi.snapshots_of(&data.id)?;
        all.extend(self.csi.snapshots_of(&log.id)?);
        Ok(all)
    }

    /// The namespace goes, with its pod, its claims and their volumes.
    async fn lose(&self, volumes: &[Volume; 2]) -> Result<()> {
        let delete = ["delete", "namespace", self.namespace, "--timeout=90s"];
        self.cluster.kubectl(&delete)?;
        wait_until("the volumes to go", Duration::from_secs(60), async || {
            for volume in volumes {
                if self.csi.volume(&volume.name)?.is_some() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// The snapshots that `ark-job volumes` lists of a backup, in a cluster.
    async fn listed(&self, cluster: &ControlPlane, backup: &str) -> Result<Vec<Value>> {
        let list = ["volumes", backup, "-o", "json"];
        let said = self.vault(cluster).job(&list).expect(0).await?;
        let (_, lines) = said.stderr.split_once("\nstdout: ").unwrap_or_default();
        Ok(lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    }
}

fn text(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn handles(snapshots: &[Snapshot]) -> BTreeSet<String> {
    snapshots.iter().map(|one| one.id.clone()).collect()
}

/// Whether there is an object of a type of snapshots: events about them are the cluster's own.
fn has_snapshots(names: &BTreeSet<String>) -> bool {
    let mut types = names.iter().filter_map(|name| name.split(' ').next());
    types.any(|name| name.contains("snapshot"))
}

/// What the footer of an archive records of each volume.
fn footer(archive_file: &Path) -> Result<Value> {
    let bytes = fs::read(archive_file)?;
    let tail = &bytes[bytes.len() - END_LENGTH..];
    let place = archive::locate(tail, bytes.len() as u64)?;
    let range = usize::try_from(place.offset)?..usize::try_from(place.offset + place.length)?;
    let footer = archive::footer(&bytes[range], &place)?;
    Ok(serde_json::to_value(footer.head.volumes)?)
}

/// Neither a record's label nor a handle finds an object of these snapshots in the cluster.
fn nothing_is_left(cluster: &ControlPlane, backup: &str, handles: &BTreeSet<String>) -> Result<()> {
    for kind in [
        "volumesnapshots",
        "volumesnapshotcontents",
        "volumegroupsnapshots",
        "volumegroupsnapshotcontents",
    ] {
        let all = get(cluster, &[kind, "-A"])?;
        for object in all["items"].as_array().into_iter().flatten() {
            let of_backup = object["metadata"]["labels"]["ark.heptio.com/backup"] == backup;
            let status = object["status"].to_string();
            let of_handle = handles.iter().any(|handle| status.contains(&**handle));
            ensure!(!of_backup && !of_handle, "{kind}: {object:#}");
        }
    }
    Ok(())
}

async fn lost_and_read_again() -> Result<()> {
    let app = App::start("pods-lost").await?;
    let (cluster, namespace) = (app.cluster, app.namespace);
    let volumes = app.volumes(cluster, namespace)?;
    wait_until("a count", Duration::from_secs(30), async || {
        Ok(volumes[1].data.join("count").exists().then_some(()))
    })
    .await?;
    app.backup("lost", &[]).expect(0).await?;

    // Taken together, after the freeze and before the thaw.
    let snapshots = app.snapshots(&volumes)?;
    let [of_data, of_log] = &snapshots[..] else {
        anyhow::bail!("not one of each: {snapshots:?}");
    };
    ensure!(
        of_data.group.is_some() && of_data.group == of_log.group,
        "no group: {snapshots:?}"
    );
    ensure!(
        of_data.data.join("frozen").exists(),
        "taken before the freeze"
    );
    ensure!(
        !of_data.data.join("thawed").exists(),
        "taken after the thaw"
    );
    let count = text(&of_data.data.join("count"))?;
    ensure!(
        text(&of_log.data.join("count"))? == count,
        "taken at two instants"
    );
    ensure!(!volumes[0].data.join("frozen").exists(), "still frozen");
    ensure!(
        volumes[0].data.join("thawed").exists(),
        "not thawed by the hook"
    );
    wait_until("it to count on", Duration::from_secs(30), async || {
        let now = text(&volumes[1].data.join("count"))?;
        Ok((!now.is_empty() && now != count).then_some(()))
    })
    .await?;

    // Recorded: both, with their group, in footer and marker. What they were taken with is gone, and is not in the archive.
    let taken = handles(&snapshots);
    let stored = app.stored("lost");
    let marker: Value = serde_json::from_slice(&fs::read(stored.join("ark-backup.json"))?)?;
    for records in [
        &footer(&stored.join("lost.tar.gz"))?,
        &marker["commit"]["volumes"],
    ] {
        let all = records.as_array().context("a list")?;
        let recorded: BTreeSet<String> = all
            .iter()
            .filter_map(|record| record["data"]["handle"].as_str().map(str::to_owned))
            .collect();
        ensure!(recorded == taken && all.len() == 2, "{records:#}");
        for record in all {
            let data = &record["data"];
            let members = data["groupMembers"].as_array().map(Vec::len);
            ensure!(
                data["driver"] == csi::DRIVER
                    && data["groupHandle"].as_str() == of_data.group.as_deref()
                    && members == Some(2),
                "{record:#}"
            );
        }
    }
    let status = &marker["status"];
    ensure!(
        status["phase"] == "Completed"
            && status["volumes"] == json!({ "snapshotted": 2, "skipped": 0, "missing": 0 })
            && status["hookStatus"] == json!({ "attempted": 2, "failed": 0 }),
        "{status:#}"
    );
    nothing_is_left(cluster, "lost", &taken)?;
    let names = read(&stored)?;
    ensure!(!has_snapshots(&names), "{names:?}");

    // The data outlives the namespace.
    app.write("new")?;
    app.lose(&volumes).await?;
    ensure!(handles(&app.snapshots(&volumes)?) == taken, "it is lost");
    ensure!(text(&of_data.data.join("letter"))? == "old");

    app.run(&["restore", "lost", "--name", "first"]).await?;
    app.runs()?;
    let letters = app.exec("cat /data/letter /log/letter")?;
    ensure!(letters == "old\nold\n", "the pod reads {letters:?}");
    let restored = app.volumes(cluster, namespace)?;
    for volume in &restored {
        let source = volume.source.clone().context("it began empty")?;
        ensure!(taken.contains(&source), "{volume:?}");
    }

    // Again, nothing is written.
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let again = ["restore", "lost", "--name", "again"];
    let said = app.vault_of(&kubeconfig).job(&again).expect(0).await?;
    ensure!(said.stderr.contains("0 created, 0 updated"), "{said:?}");
    let writes: Vec<Request> = proxy
        .requests()
        .into_iter()
        .filter(|request| request.is_write() && !request.path.contains("/authorization.k8s.io/"))
        .collect();
    ensure!(writes.is_empty(), "{writes:?}");

    // A later backup has no object of ours either, though the restored claims still have theirs.
    ensure!(exists(cluster, &["volumesnapshots", "-n", namespace])?);
    app.backup("later", &[]).expect(0).await?;
    let names = read(&app.stored("later"))?;
    ensure!(!has_snapshots(&names), "{names:?}");
    ensure!(app.snapshots(&restored)?.len() == 2);

    // What was restored keeps neither the backup's data nor loses its own when the backup goes.
    app.run(&["delete", "lost"]).await?;
    let left = handles(&app.snapshots(&volumes)?);
    ensure!(left.is_empty(), "{left:?} are left");
    ensure!(app.snapshots(&restored)?.len() == 2);
    ensure!(app.exec("cat /data/letter /log/letter")? == "old\nold\n");
    app.csi.check()
}

/// A cluster that shares the driver's storage, without a node.
async fn another(csi: &Csi) -> Result<(ControlPlane, Csi)> {
    let options = Options {
        controller_manager: true,
        ..Options::default()
    };
    let cluster = ControlPlane::start(options).await?;
    let parts = Csi::start_without_node(&cluster, csi.storage(), &csi::Options::default()).await?;
    Ok((cluster, parts))
}

async fn second_cluster() -> Result<()> {
    let app = App::start("pods-moved").await?;
    app.backup("moved", &[]).expect(0).await?;
    app.write("new")?;
    let taken = handles(&app.snapshots(&app.volumes(app.cluster, app.namespace)?)?);
    ensure!(taken.len() == 2, "{taken:?}");

    let (second, parts) = another(app.csi).await?;
    let mapping = format!("{}:copy", app.namespace);
    for (name, target, more) in [
        ("plain", app.namespace, &[][..]),
        ("mapped", "copy", &["--namespace-mappings", &mapping]),
    ] {
        let restore = [&["restore", "moved", "--name", name], more].concat();
        app.vault(&second).job(&restore).expect(0).await?;
        for volume in app.volumes(&second, target)? {
            let source = volume.source.clone().context("it began empty")?;
            ensure!(taken.contains(&source), "{name}: {volume:?}");
            ensure!(text(&volume.data.join("letter"))? == "old", "{name}");
            ensure!(!volume.data.join("thawed").exists(), "{name}");
        }
        let repeat = format!("{name}-again");
        let again = [&["restore", "moved", "--name", &repeat], more].concat();
        let said = app.vault(&second).job(&again).expect(0).await?;
        ensure!(said.stderr.contains("0 created, 0 updated"), "{said:?}");
    }
    // The second cluster lets go of what it restored, and the backup keeps its data.
    for target in [app.namespace, "copy"] {
        second.kubectl(&["delete", "namespace", target, "--timeout=90s"])?;
    }
    let volumes = app.volumes(app.cluster, app.namespace)?;
    ensure!(handles(&app.snapshots(&volumes)?) == taken, "data is lost");
    ensure!(text(&volumes[0].data.join("letter"))? == "new");
    parts.check()
}

async fn with_their_backup() -> Result<()> {
    let app = App::start("pods-deleted").await?;
    let volumes = app.volumes(app.cluster, app.namespace)?;
    let (second, parts) = another(app.csi).await?;
    let mut kept = BTreeSet::new();
    let mut of_backup = Vec::new();
    for (name, ttl) in [("here", "1h"), ("there", "1h"), ("short", "1s")] {
        app.backup(name, &["--ttl", ttl]).expect(0).await?;
        let all = handles(&app.snapshots(&volumes)?);
        let own: BTreeSet<String> = all.difference(&kept).cloned().collect();
        ensure!(own.len() == 2, "{name}: {own:?}");
        kept = all;
        of_backup.push((name, own));
    }
    for (name, own) in &of_backup {
        for cluster in [app.cluster as &ControlPlane, &second] {
            let rows = app.listed(cluster, name).await?;
            let ids: BTreeSet<String> = rows
                .iter()
                .filter_map(|row| row["snapshot"].as_str().map(str::to_owned))
                .collect();
            let rest = |row: &Value| {
                row["backup"] == *name && row["driver"] == csi::DRIVER && row["size"] == 1 << 30
            };
            ensure!(ids == *own && rows.iter().all(rest), "{name}: {rows:?}");
        }
    }

    // From where it was made, from elsewhere, and by its age: each time that of the one backup, and nothing else.
    let here = app.vault(app.cluster);
    for (name, own) in &of_backup {
        let said = match *name {
            "here" => here.job(&["delete", name]).expect(0).await?,
            "there" => app.vault(&second).job(&["delete", name]).expect(0).await?,
            _ => {
                here.until_expired(&[name]).await?;
                here.expire(&[]).expect(0).await?
            }
        };
        ensure!(said.stderr.contains("2 snapshots"), "{said:?}");
        kept = kept.difference(own).cloned().collect();
        let left = handles(&app.snapshots(&volumes)?);
        ensure!(left == kept, "{name}: {left:?} are left, not {kept:?}");
        ensure!(!app.stored(name).exists(), "{name}");
        here.job(&["volumes", name]).expect(10).await?;
        for cluster in [app.cluster as &ControlPlane, &second] {
            nothing_is_left(cluster, name, own)?;
        }
    }
    ensure!(kept.is_empty(), "{kept:?}");
    // What they were taken of is as it was.
    ensure!(app.exec("cat /data/letter")? == "old\n");
    parts.check()?;
    app.csi.check()
}
