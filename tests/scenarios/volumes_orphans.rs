//! No orphan, no loss: backups are killed at every step between the first snapshot and the marker, and then `ark-job expire`
//! leaves what a marker names, and nothing else.
//!
//! EBS is moto's; CSI is the real controllers with a driver whose snapshots are directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ark_job::log::Log;
use ark_job::store::{Location, location_id};
use ark_job::volumes::csi::{CsiClaim, snapshot_group};
use ark_job::volumes::{ClaimName, CsiSnapshot, Data, Owner, VolumeRecord};
use ark_tests::csi::{self, Csi, claim};
use ark_tests::ec2::{Ec2, NewVolume, is, refusal};
use ark_tests::foreign::Forged;
use ark_tests::job::{ArkJob, Finished};
use ark_tests::proxy::Request;
use ark_tests::{Bucket, ControlPlane, FaultProxy, Gate, Rule, Victim, wait_until};
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::csi_snapshots::connect;
use crate::place::{cluster_with_ark, delete_namespace, exists, get};
use crate::volumes_backup::{Cloud, csi as of_driver, is_archive};
use crate::world::{self, World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "volumes_orphans::disks_killed_anywhere_and_never_retried_leave_what_markers_name",
            || disks_killed(false),
        ),
        scenario(
            "volumes_orphans::disks_killed_anywhere_and_retried_leave_what_markers_name",
            || disks_killed(true),
        ),
        scenario(
            "volumes_orphans::a_sweep_of_disks_stops_in_restore_only_mode_and_outlasts_throttling",
            disks_held_up,
        ),
        scenario(
            "volumes_orphans::disks_of_an_emptied_bucket_another_place_or_cluster_are_not_swept",
            disks_of_others,
        ),
        scenario(
            "volumes_orphans::disks_of_a_backup_that_runs_are_not_swept_however_old",
            disks_of_running,
        ),
        scenario(
            "volumes_orphans::a_volume_that_a_killed_restore_made_goes_unless_something_names_it",
            unused_volumes,
        ),
        scenario(
            "volumes_orphans::csi_killed_anywhere_and_never_retried_leaves_what_markers_name",
            csi_killed,
        ),
        scenario(
            "volumes_orphans::a_csi_group_is_let_go_or_deleted_as_one_wherever_a_sweep_is_killed",
            csi_groups,
        ),
        scenario(
            "volumes_orphans::twins_with_csi_leave_what_the_marker_names",
            csi_twins,
        ),
        scenario(
            "volumes_orphans::csi_of_an_emptied_bucket_another_place_or_cluster_is_not_swept",
            csi_of_others,
        ),
    ]
}

/// Nothing is too young.
const GRACE: &str = "--grace=0s";
/// Longer than a snapshot takes, when it goes well.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Nothing here has that many steps, at the API server or at the store.
const MOST_WRITES: u64 = 25;
/// The clocks of stores show whole seconds: what is made now may be too young for so long.
const OLD_WITHIN: Duration = Duration::from_secs(60);

fn says(finished: &Finished, text: &str) -> Result<()> {
    ensure!(
        finished.stderr.contains(text),
        "{text:?} is not in {finished:?}"
    );
    Ok(())
}

/// The ids that markers name below a prefix, and the backups with an archive and no marker.
async fn named(bucket: &Bucket, prefix: &str) -> Result<(BTreeSet<String>, Vec<String>)> {
    let (mut ids, mut unmarked) = (BTreeSet::new(), Vec::new());
    let keys: BTreeSet<String> = bucket.keys(prefix).await?.into_iter().collect();
    for key in &keys {
        if key.ends_with("/ark-backup.json") {
            let marker: Value = serde_json::from_slice(&bucket.get(key).await?)?;
            for record in marker["commit"]["volumes"].as_array().into_iter().flatten() {
                let data = &record["data"];
                let id = data["snapshotID"].as_str().or(data["handle"].as_str());
                ids.insert(id.with_context(|| format!("{record}"))?.to_owned());
            }
        }
        if let Some((directory, file)) = key.rsplit_once('/')
            && file.ends_with(".tar.gz")
            && !keys.contains(&format!("{directory}/ark-backup.json"))
        {
            unmarked.push(directory.to_owned());
        }
    }
    Ok((ids, unmarked))
}

/// Kills `job` before or after the n-th request that matches; false when it has ended well without one.
async fn kill(
    proxy: &FaultProxy,
    job: &ArkJob,
    matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    n: u64,
    after: bool,
) -> Result<bool> {
    let victim = Victim::default();
    let rule = Rule::on(matches).only(n);
    let added = proxy.add(match after {
        true => rule.kill_after(&victim),
        false => rule.kill_before(&victim),
    });
    let running = job.start()?;
    victim.is(running.id());
    let finished = running.wait().await?;
    proxy.clear_rules();
    match (added.applied(), finished.code) {
        (1, None) => Ok(true),
        (0, Some(0)) => Ok(false),
        (applied, _) => bail!("met {applied} times: {finished:?}"),
    }
}

/// Waits until a plan has that many snapshots to delete: until then they may be too young.
async fn until_old(plan: &ArkJob, count: usize) -> Result<()> {
    let mut last = None;
    let old = wait_until("all to be old", OLD_WITHIN, async || {
        let plan = plan.expect(0).await?;
        let found = plan.stderr.matches("delete  snapshot").count();
        last = Some(plan);
        Ok((found == count).then_some(()))
    });
    old.await.with_context(|| format!("{last:?}"))
}

impl Cloud {
    fn expire(&self, more: &[&str]) -> ArkJob {
        let kubeconfig = self.world.cluster.kubeconfig();
        self.job_at("here", kubeconfig, &[&["expire"], more].concat())
    }

    /// All snapshots of backups that are in the account, whosever.
    async fn all(&self) -> Result<BTreeSet<String>> {
        let all = Ec2::new(self.proxy.url()).snapshots().await?;
        let ours = all
            .into_iter()
            .filter(|(_, tags)| tags.contains_key("ark.heptio.com/run"));
        Ok(ours.map(|(id, _)| id).collect())
    }

    /// Sweeps until what is left is named by a marker; nothing that one names may be gone.
    async fn sweep(&self) -> Result<()> {
        let (before, _) = named(&self.bucket, "here/").await?;
        let mut last = None;
        let swept = wait_until("only what markers name", OLD_WITHIN, async || {
            let finished = self.expire(&[GRACE]).expect(0).await?;
            let ((names, unmarked), there) =
                (named(&self.bucket, "here/").await?, self.all().await?);
            ensure!(names == before, "{before:?} were named, and now {names:?}");
            ensure!(
                names.is_subset(&there),
                "markers name {names:?}, and there are only {there:?}: {finished:?}"
            );
            let done = names == there && unmarked.is_empty();
            last = Some((names, there, unmarked, finished));
            Ok(done.then_some(()))
        })
        .await;
        swept.with_context(|| format!("{last:?}"))
    }

    async fn with_volumes(hint: &str) -> Result<Cloud> {
        let cloud = Cloud::start(hint).await?;
        for name in ["a", "b"] {
            cloud.volume(name, of_driver(&cloud.disk().await?), "", json!({}))?;
        }
        Ok(cloud)
    }

    /// Leaves two snapshots that nothing names.
    async fn orphan(&self, backup: &str) -> Result<()> {
        let job = self.job(backup, "pod-1", &[]);
        ensure!(kill(&self.proxy, &job, is_archive, 1, false).await?);
        let there = self.ids(backup).await?;
        ensure!(there.len() == 2, "{there:?}");
        Ok(())
    }
}

async fn disks_killed(retried: bool) -> Result<()> {
    let cloud = Cloud::with_volumes("orphans").await?;
    let good = cloud.job("good", "pod-1", &[]).expect(0).await?;
    says(&good, ", 2 snapshots")?;
    let writes = cloud.proxy.count(Request::is_write) as u64;
    ensure!(writes >= 9, "only {writes} requests were seen");
    for after in [false, true] {
        for n in 1..=writes {
            let backup = format!("{}-{n}", if after { "after" } else { "before" });
            let job = cloud.job(&backup, "pod-1", &[]);
            let killed = kill(&cloud.proxy, &job, Request::is_write, n, after).await;
            ensure!(killed.with_context(|| backup.clone())?, "{backup}");
            if retried {
                cloud.job(&backup, "pod-2", &[]).expect(0).await?;
            }
        }
    }
    let (names, _) = named(&cloud.bucket, "here/").await?;
    let there = cloud.all().await?;
    ensure!(
        names.is_subset(&there) && names != there,
        "no kill has left a snapshot: {names:?}"
    );
    // All of it is young.
    cloud.expire(&[]).expect(0).await?;
    ensure!(cloud.all().await? == there, "what is young was swept up");
    cloud.sweep().await?;
    cloud.is_kept_by_the_marker("good", 2).await?;
    if retried {
        ensure!(names.len() as u64 == 2 + 2 * 2 * writes, "{names:?}");
    }
    Ok(())
}

async fn disks_held_up() -> Result<()> {
    let cloud = Cloud::with_volumes("held-up").await?;
    cloud.job("good", "pod-1", &[]).expect(0).await?;
    cloud.orphan("one").await?;
    cloud.orphan("two").await?;
    let mode = |mode: &str| {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": { "mode": mode },
            "metadata": { "name": "ark", "namespace": cloud.namespace },
        });
        cloud
            .world
            .cluster
            .kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
    };
    // Switched on while the first of four is being deleted.
    let namespace = format!("--namespace={}", cloud.namespace);
    let gate = Gate::default();
    let held = cloud
        .proxy
        .add(Rule::on(is("DeleteSnapshot")).only(1).hold(&gate));
    until_old(&cloud.expire(&[GRACE, "--dry-run"]), 4).await?;
    let running = cloud.expire(&[GRACE, &namespace]).start()?;
    wait_until("the first deletion", OLD_WITHIN, async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    mode("RestoreOnly")?;
    gate.open();
    let stopped = running.wait().await?;
    ensure!(stopped.code == Some(4), "{stopped:?}");
    says(&stopped, "1 snapshot swept up")?;
    ensure!(cloud.all().await?.len() == 2 + 3);
    mode("Normal")?;
    cloud.proxy.clear_rules();
    // EC2 has too much to do.
    let busy = refusal("RequestLimitExceeded", "Request limit exceeded.");
    let rule = |action| Rule::on(is(action)).up_to(2).answer(503, &[], busy.clone());
    let met = [
        cloud.proxy.add(rule("DeleteSnapshot")),
        cloud.proxy.add(rule("DescribeSnapshots")),
    ];
    let swept = cloud.expire(&[GRACE, &namespace]).expect(0).await?;
    says(&swept, "3 snapshots swept up")?;
    ensure!(met.iter().all(|met| met.applied() == 2));
    cloud.is_kept_by_the_marker("good", 2).await?;
    ensure!(cloud.all().await?.len() == 2);
    Ok(())
}

async fn disks_of_others() -> Result<()> {
    let cloud = Cloud::with_volumes("others").await?;
    cloud.job("good", "pod-1", &[]).expect(0).await?;
    cloud.orphan("orphan").await?;
    let there = cloud.all().await?;
    ensure!(there.len() == 4);
    until_old(&cloud.expire(&[GRACE, "--dry-run"]), 2).await?;
    let stay = async |what: &str, job: ArkJob| -> Result<()> {
        job.expect(0).await.with_context(|| what.to_owned())?;
        ensure!(cloud.all().await? == there, "{what}: some are gone");
        Ok(())
    };
    // Another place in the same bucket, with a backup of its own, so that it knows what is named there.
    let own = cloud.world.cluster.kubeconfig();
    let include = format!("--include-namespaces={}", cloud.namespace);
    let arguments = ["backup", "other", &include, "--snapshot-volumes=false"];
    cloud.job_at("there", own, &arguments).expect(0).await?;
    let sweep = ["expire", GRACE, "--force"];
    stay("another place", cloud.job_at("there", own, &sweep)).await?;
    // Another cluster, with the same storage and account.
    let world::WithCsi { cluster, .. } = world::csi().await?;
    let arguments = ["expire", GRACE];
    stay(
        "another cluster",
        cloud.job_at("here", cluster.kubeconfig(), &arguments),
    )
    .await?;
    // A bucket that lists nothing.
    let mut kept = Vec::new();
    for key in cloud.bucket.keys("here/").await? {
        kept.push((key.clone(), cloud.bucket.get(&key).await?));
        cloud.bucket.delete(&key).await?;
    }
    stay("an emptied bucket", cloud.expire(&[GRACE])).await?;
    for (key, body) in kept {
        cloud.bucket.put(&key, body).await?;
    }
    cloud.sweep().await?;
    cloud.is_kept_by_the_marker("good", 2).await
}

/// In a cluster that has Ark's resources, which say what is running.
async fn disks_of_running() -> Result<()> {
    // It is for all of this scenario, and ends with the run.
    let cluster: &'static ControlPlane = Box::leak(Box::new(cluster_with_ark().await?));
    let cloud = Cloud::on(World::on(cluster, "running").await?).await?;
    let disk = cloud.disk().await?;
    cloud.volume("data", of_driver(&disk), "", json!({}))?;
    cloud.job("good", "pod-1", &[]).expect(0).await?;
    let gate = Gate::default();
    let held = cloud.proxy.add(Rule::on(is_archive).only(1).hold(&gate));
    let running = cloud.job("runs", "pod-1", &[]).start()?;
    wait_until("the archive", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    let taken = cloud.ids("runs").await?;
    ensure!(taken.len() == 1, "{taken:?}");
    // A younger one of a backup that does not run.
    let ec2 = Ec2::new(cloud.proxy.url());
    let mut tags = TagSpecification::builder().resource_type(ResourceType::Snapshot);
    for (key, value) in ec2
        .snapshots()
        .await?
        .values()
        .next_back()
        .into_iter()
        .flatten()
    {
        let value = match key.as_str() {
            "ark.heptio.com/backup" => "nobodys",
            _ => value,
        };
        tags = tags.tags(Tag::builder().key(key).value(value).build());
    }
    let younger = ec2.client().create_snapshot().volume_id(&disk);
    younger.tag_specifications(tags.build()).send().await?;
    ensure!(cloud.ids("nobodys").await?.len() == 1);
    wait_until("the younger one to go", OLD_WITHIN, async || {
        cloud.expire(&[GRACE]).expect(0).await?;
        Ok(cloud.ids("nobodys").await?.is_empty().then_some(()))
    })
    .await?;
    ensure!(
        cloud.ids("runs").await? == taken,
        "a running backup's is gone"
    );
    gate.open();
    let ended = running.wait().await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    cloud.is_kept_by_the_marker("runs", 1).await?;
    cloud.is_kept_by_the_marker("good", 1).await
}

/// What a restore makes between the disk and the volume that names it, and is killed.
async fn unused_volumes() -> Result<()> {
    let cloud = Cloud::start("unused").await?;
    let disk = cloud.disk().await?;
    cloud.volume("data", of_driver(&disk), "", json!({}))?;
    cloud.job("b", "pod-1", &[]).expect(0).await?;
    let cluster = cloud.world.cluster;
    delete_namespace(cluster, &cloud.namespace)?;
    wait_until("the namespace to go", Duration::from_secs(60), async || {
        Ok((!exists(cluster, &["namespace", &cloud.namespace])?).then_some(()))
    })
    .await?;
    cluster.kubectl(&["delete", "pv", &cloud.name("data")])?;

    let api = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(api.url())?;
    let is_volume = |request: &Request| {
        request.method == Method::POST && request.path == "/api/v1/persistentvolumes"
    };
    let ec2 = Ec2::new(cloud.proxy.url());
    let made = async || -> Result<Vec<String>> {
        let unused = ec2.volumes().await?.into_iter().filter(|(id, volume)| {
            *id != disk && ark_tests::ec2::tags(volume.tags()).contains_key("ark.heptio.com/unused")
        });
        Ok(unused.map(|(id, _)| id).collect())
    };
    let restore = |name: &str| cloud.job_at("here", &kubeconfig, &["restore", "b", "--name", name]);
    ensure!(kill(&api, &restore("killed"), is_volume, 1, false).await?);
    ensure!(made().await?.len() == 1, "{:?}", made().await?);
    cloud.expire(&[]).expect(0).await?;
    ensure!(made().await?.len() == 1, "what is young was deleted");
    wait_until("the volume to be swept up", OLD_WITHIN, async || {
        cloud.expire(&[GRACE]).expect(0).await?;
        Ok(made().await?.is_empty().then_some(()))
    })
    .await?;

    // One that a persistentVolume names, though nobody has taken the tag away.
    ensure!(kill(&api, &restore("named"), is_volume, 1, true).await?);
    let unused = made().await?;
    let [one] = &unused[..] else {
        bail!("{unused:?}");
    };
    let volume = get(cluster, &["pv", &cloud.name("data")])?;
    ensure!(volume["spec"]["csi"]["volumeHandle"] == **one, "{volume:#}");
    // A younger one, as a killed restore makes them, goes.
    let tags = ark_tests::ec2::tags(ec2.volumes().await?[one].tags());
    let tags: Vec<(&str, &str)> = tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let younger = NewVolume {
        tags: &tags,
        ..NewVolume::default()
    };
    let younger = ec2.volume(younger).await?;
    wait_until("the younger one to go", OLD_WITHIN, async || {
        cloud.expire(&[GRACE]).expect(0).await?;
        Ok((!made().await?.contains(&younger)).then_some(()))
    })
    .await?;
    ensure!(made().await? == unused, "a volume in use was deleted");
    let all = ec2.volumes().await?;
    ensure!(all.contains_key(&disk), "the original is gone");
    cloud.is_kept_by_the_marker("b", 1).await?;
    cluster.kubectl(&["delete", "pv", &cloud.name("data"), "--wait=false"])?;
    Ok(())
}

/// Claims of a CSI driver with a file in each, and a place behind proxies: of the store and of the API server.
struct Driver {
    world: World,
    csi: &'static Csi,
    namespace: String,
    volumes: Vec<csi::Volume>,
    store: FaultProxy,
    api: FaultProxy,
    kubeconfig: PathBuf,
}

impl Driver {
    async fn start(hint: &str, claims: &[&str]) -> Result<Driver> {
        let world::WithCsi { csi, cluster } = world::csi().await?;
        let world = World::on(cluster, hint).await?;
        let namespace = world.namespace("app").await?;
        let mut volumes = Vec::new();
        for name in claims {
            let mut object = claim(name);
            object["metadata"]["namespace"] = namespace.as_str().into();
            // By these a driver can take them as one group.
            object["metadata"]["labels"] = json!({ "app": namespace });
            cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
            let volume = bound(&world, csi, &namespace, name)?;
            std::fs::write(volume.data.join("file"), "old")?;
            volumes.push(volume);
        }
        let api = FaultProxy::start_before(cluster).await?;
        Ok(Driver {
            store: FaultProxy::start(world.s3.url()).await?,
            kubeconfig: cluster.kubeconfig_for(api.url())?,
            api,
            csi,
            namespace,
            volumes,
            world,
        })
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        let storage = self.world.storage_at(self.store.url());
        let arguments = [arguments, &["--storage", &storage]].concat();
        ArkJob::new(&self.kubeconfig, &arguments)
    }

    fn backup(&self, backup: &str, attempt: &str) -> ArkJob {
        self.job(&["backup", backup, "--include-namespaces", &self.namespace])
            .of(&format!("job-of-{backup}-{}", self.namespace), attempt)
    }

    async fn named(&self) -> Result<(BTreeSet<String>, Vec<String>)> {
        let prefix = format!("{}/backups/", self.world.prefix());
        named(&self.world.bucket, &prefix).await
    }

    /// The snapshots that physically exist.
    fn there(&self) -> Result<BTreeSet<String>> {
        let all = self.csi.snapshots()?.into_iter().filter(|snapshot| {
            self.volumes
                .iter()
                .any(|volume| volume.id == snapshot.source_volume)
        });
        Ok(all.map(|snapshot| snapshot.id).collect())
    }

    /// What is left in the cluster of the objects by which they were taken.
    fn objects(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for (types, reference) in [
            ("volumesnapshots", ""),
            ("volumegroupsnapshots", ""),
            ("volumesnapshotcontents", "volumeSnapshotRef"),
            ("volumegroupsnapshotcontents", "volumeGroupSnapshotRef"),
        ] {
            let list = get(self.world.cluster, &[types, "-A"])?;
            for object in list["items"].as_array().into_iter().flatten() {
                let namespace = match reference {
                    "" => &object["metadata"]["namespace"],
                    reference => &object["spec"][reference]["namespace"],
                };
                if *namespace == *self.namespace {
                    left.push(format!("{types} {}", object["metadata"]["name"]));
                }
            }
        }
        Ok(left)
    }

    /// As [`Cloud::sweep`]; and no objects are left in the cluster.
    async fn sweep(&self) -> Result<()> {
        let (before, _) = self.named().await?;
        let mut last = None;
        let swept = wait_until("only what markers name", OLD_WITHIN, async || {
            let finished = self.job(&["expire", GRACE]).expect(0).await?;
            let ((names, unmarked), there) = (self.named().await?, self.there()?);
            ensure!(names == before, "{before:?} were named, and now {names:?}");
            ensure!(
                names.is_subset(&there),
                "markers name {names:?}, and there are only {there:?}: {finished:?}"
            );
            let objects = self.objects()?;
            let done = names == there && unmarked.is_empty() && objects.is_empty();
            last = Some((names, there, unmarked, objects, finished));
            Ok(done.then_some(()))
        })
        .await;
        swept.with_context(|| format!("{last:?}"))
    }

    /// Kills a backup at every write to the API server and to the store, sweeping after each; gives how many had left
    /// something.
    async fn kill_anywhere(&self) -> Result<usize> {
        self.backup("good", "pod-1").expect(0).await?;
        let count = self.volumes.len();
        ensure!(self.there()?.len() == count && self.objects()?.is_empty());
        let (mut left, mut points) = (0, 0);
        for (which, proxy) in [("api", &self.api), ("store", &self.store)] {
            // How many there are depends on how fast the controllers are.
            for n in 1..=MOST_WRITES {
                let mut killed = false;
                for after in [false, true] {
                    let backup = format!("{which}-{}-{n}", if after { "after" } else { "before" });
                    let job = self.backup(&backup, "pod-1");
                    let died = kill(proxy, &job, is_step, n, after).await;
                    if died.with_context(|| backup.clone())? {
                        (killed, points) = (true, points + 1);
                    }
                    let (names, _) = self.named().await?;
                    left += usize::from(self.there()? != names || !self.objects()?.is_empty());
                    self.sweep().await.context(backup)?;
                }
                ensure!(n < MOST_WRITES || !killed, "there are more steps");
                if !killed {
                    break;
                }
            }
        }
        eprintln!("killed at {points} points; {left} have left something for the sweep");
        ensure!(points >= 10, "only {points} steps were seen");
        Ok(left)
    }
}

fn bound(world: &World, csi: &Csi, namespace: &str, name: &str) -> Result<csi::Volume> {
    let claim = format!("pvc/{name}");
    let phase = "--for=jsonpath={.status.phase}=Bound";
    let cluster = world.cluster;
    cluster.kubectl(&["wait", "-n", namespace, &claim, phase, "--timeout=60s"])?;
    let claim = get(cluster, &["pvc", name, "-n", namespace])?;
    let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    csi.volume(volume)?
        .with_context(|| format!("{volume} is bound and does not exist"))
}

/// A write of a snapshot's objects, or one to the store from the archive to the marker.
fn is_step(request: &Request) -> bool {
    let files = [".tar.gz", "/velero-backup.json", "/ark-backup.json"];
    let of_store = files.iter().any(|file| request.path.ends_with(file));
    request.is_write() && (of_store || request.path.contains("snapshot.storage.k8s.io"))
}

async fn csi_killed() -> Result<()> {
    let driver = Driver::start("csi-orphans", &["data"]).await?;
    let left = driver.kill_anywhere().await?;
    ensure!(left >= 4, "only {left} kills have left something");
    // And what a marker names is no mere directory.
    let volume = &driver.volumes[0];
    std::fs::write(volume.data.join("file"), "new")?;
    let cluster = driver.world.cluster;
    delete_namespace(cluster, &driver.namespace)?;
    wait_until("the namespace to go", Duration::from_secs(60), async || {
        Ok((!exists(cluster, &["namespace", &driver.namespace])?).then_some(()))
    })
    .await?;
    driver.sweep().await?;
    driver
        .job(&["restore", "good", "--name", "r"])
        .expect(0)
        .await?;
    let restored = bound(&driver.world, driver.csi, &driver.namespace, "data")?;
    ensure!(std::fs::read_to_string(restored.data.join("file"))? == "old");
    delete_namespace(cluster, &driver.namespace)
}

/// A group that no marker names, and one that a marker does, whose objects are left: the sweep is killed after each of its
/// steps, and the next one completes it.
async fn csi_groups() -> Result<()> {
    let driver = Driver::start("csi-groups", &["data", "log"]).await?;
    let cluster = connect(driver.world.cluster).await?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let flag = format!("--storage={storage}");
    let job = |arguments: &[&str]| ArkJob::new(&driver.kubeconfig, &[arguments, &[&flag]].concat());
    let place: Location = storage.parse()?;
    let system = get(driver.world.cluster, &["namespace", "kube-system"])?;
    let cluster_uid = system["metadata"]["uid"].as_str().unwrap_or_default();
    let owner = |backup: &str| Owner {
        location: location_id(&place.canonical()),
        cluster_uid: cluster_uid.to_owned(),
        run: format!("{:0<64}", "beef"),
        attempt: backup.to_owned(),
        backup: backup.to_owned(),
    };
    let claim = |volume: &csi::Volume, name: &str| CsiClaim {
        persistent_volume: volume.name.clone(),
        claim: ClaimName {
            namespace: driver.namespace.clone(),
            name: name.to_owned(),
        },
        driver: csi::DRIVER.to_owned(),
        class: csi::SNAPSHOT_CLASS.to_owned(),
    };
    let claims = [
        claim(&driver.volumes[0], "data"),
        claim(&driver.volumes[1], "log"),
    ];
    let logs = tempfile::tempdir()?;
    let log = Log::new(logs.path())?;
    let store = |backup: &str, records: Vec<VolumeRecord>| -> Result<()> {
        let mut forged = Forged::new(backup, &[&[("app", "settings", "{}")]]);
        forged.footer.head.volumes.clone_from(&records);
        forged.footer.head.cluster_uid = cluster_uid.to_owned();
        let (archive, mut marker) = forged.build()?;
        marker.commit.volumes = records;
        marker.commit.cluster_uid = cluster_uid.to_owned();
        let directory = directory.path().join("backups").join(backup);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("{backup}.tar.gz")), archive)?;
        std::fs::write(directory.join("ark-backup.json"), marker.to_json())?;
        Ok(())
    };
    // So that storage is not empty.
    store("other", Vec::new())?;
    let mut kept = BTreeSet::new();
    for recorded in [false, true] {
        let mut killed = 0;
        for n in 1..=MOST_WRITES {
            let backup = format!("{}-{n}", if recorded { "recorded" } else { "orphan" });
            let owner = owner(&backup);
            let taken = snapshot_group(&cluster, &log, &owner, &claims, TAKEN_WITHIN);
            let taken = taken.await?.context("no group")?;
            if recorded {
                kept.extend(taken.iter().map(|snapshot| snapshot.handle.clone()));
                let record = |(snapshot, claim): (CsiSnapshot, &CsiClaim)| VolumeRecord {
                    persistent_volume: claim.persistent_volume.clone(),
                    claim: Some(claim.claim.clone()),
                    reclaim_policy: "Delete".into(),
                    labels: BTreeMap::new(),
                    data: Data::Csi(snapshot),
                };
                store(
                    &backup,
                    taken.into_iter().zip(&claims).map(record).collect(),
                )?;
            }
            let sweep = job(&["expire", GRACE]);
            let died = kill(&driver.api, &sweep, is_step, n, true).await;
            let died = died.with_context(|| backup.clone())?;
            sweep.expect(0).await.with_context(|| backup.clone())?;
            let (there, objects) = (driver.there()?, driver.objects()?);
            ensure!(
                there == kept && objects.is_empty(),
                "{backup}: {kept:?} are recorded, and there are {there:?}, {objects:?}"
            );
            if !died {
                break;
            }
            killed += 1;
        }
        eprintln!("killed after each of {killed} steps");
        ensure!((4..MOST_WRITES).contains(&killed), "{killed} steps");
    }
    // One goes with its backup, and no other.
    job(&["delete", "recorded-1"]).expect(0).await?;
    ensure!(driver.there()?.len() == kept.len() - 2);
    delete_namespace(driver.world.cluster, &driver.namespace)
}

async fn csi_twins() -> Result<()> {
    let driver = Driver::start("csi-twins", &["data"]).await?;
    let gate = Gate::default();
    let held = driver.store.add(Rule::on(is_archive).only(1).hold(&gate));
    let first = driver.backup("twins", "pod-1").start()?;
    wait_until("the first archive", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    driver.backup("twins", "pod-2").expect(0).await?;
    ensure!(driver.there()?.len() == 2, "each takes its own");
    gate.open();
    let first = first.wait().await?;
    ensure!(first.code == Some(0), "{first:?}");
    says(&first, "is deleted: it is in no backup")?;
    let (names, _) = driver.named().await?;
    ensure!(
        names == driver.there()? && names.len() == 1 && driver.objects()?.is_empty(),
        "{names:?} are named, and there are {:?}, {:?}",
        driver.there()?,
        driver.objects()?
    );
    // The other one is killed while it is behind: the sweep does what it cannot.
    let gate = Gate::default();
    let held = driver.store.add(Rule::on(is_archive).only(1).hold(&gate));
    let first = driver.backup("one-dies", "pod-1").start()?;
    wait_until("the first archive", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    driver.backup("one-dies", "pod-2").expect(0).await?;
    ark_tests::process::kill_and_wait(first.id())?;
    gate.open();
    ensure!(driver.there()?.len() == 3);
    driver.store.clear_rules();
    driver.sweep().await?;
    ensure!(driver.there()?.len() == 2);
    delete_namespace(driver.world.cluster, &driver.namespace)
}

async fn csi_of_others() -> Result<()> {
    let driver = Driver::start("csi-others", &["data"]).await?;
    driver.backup("good", "pod-1").expect(0).await?;
    let job = driver.backup("orphan", "pod-1");
    ensure!(kill(&driver.store, &job, is_archive, 1, false).await?);
    let (there, objects) = (driver.there()?, driver.objects()?);
    ensure!(there.len() == 2 && !objects.is_empty(), "{objects:?}");
    until_old(&driver.job(&["expire", GRACE, "--dry-run"]), 1).await?;
    let stay = async |what: &str, job: ArkJob| -> Result<()> {
        job.expect(0).await.with_context(|| what.to_owned())?;
        ensure!(
            driver.there()? == there && driver.objects()? == objects,
            "{what}: some are gone"
        );
        Ok(())
    };
    // Another place of the same cluster, with a backup of its own.
    let directory = tempfile::tempdir()?;
    let elsewhere = format!("--storage=file://{}", directory.path().display());
    let include = format!("--include-namespaces={}", driver.namespace);
    let at =
        |arguments: &[&str]| ArkJob::new(&driver.kubeconfig, &[arguments, &[&elsewhere]].concat());
    at(&["backup", "other", &include, "--snapshot-volumes=false"])
        .expect(0)
        .await?;
    stay("another place", at(&["expire", GRACE])).await?;
    // Another cluster that shares the storage.
    let storage = driver.world.storage_at(driver.store.url());
    let other = world::control_plane().await?.kubeconfig();
    let sweep = ["expire", GRACE, "--storage", &storage];
    stay("another cluster", ArkJob::new(other, &sweep)).await?;
    // A bucket that lists nothing.
    let bucket = &driver.world.bucket;
    let mut kept = Vec::new();
    for key in bucket.keys(&format!("{}/", driver.world.prefix())).await? {
        kept.push((key.clone(), bucket.get(&key).await?));
        bucket.delete(&key).await?;
    }
    stay("an emptied bucket", driver.job(&["expire", GRACE])).await?;
    for (key, body) in kept {
        bucket.put(&key, body).await?;
    }
    driver.sweep().await?;
    ensure!(driver.there()?.len() == 1);
    delete_namespace(driver.world.cluster, &driver.namespace)
}
