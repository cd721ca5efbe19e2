//! Volumes of a backup: which are snapshotted, what is recorded of them, and that none is left that nobody names.
//!
//! The cloud is moto, which serves EC2 and S3 on one port; volumes are objects that name its disks, so no node is needed.
//! A fault proxy stands between the shipped `ark-job` and moto. Volumes of CSI drivers are in [`drivers`].

mod drivers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::archive::footer::Footer;
use ark_job::archive::read;
use ark_job::archive::write::END_LENGTH;
use ark_tests::ec2::client;
use ark_tests::job::{ArkJob, Finished};
use ark_tests::proxy::Request;
use ark_tests::{
    Bucket, ControlPlane, FaultProxy, Gate, MotoServer, Options, Rule, Victim, ec2, process, s3,
    wait_until,
};
use aws_sdk_ec2::types::{Filter, ResourceType, Snapshot, Tag, TagSpecification, VolumeType};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        scenario(
            "volumes_backup::a_kill_at_any_request_leaves_no_snapshot_that_cannot_be_found",
            killed_anywhere,
        ),
        scenario(
            "volumes_backup::what_was_snapshotted_is_recorded_in_footer_marker_and_status",
            recorded,
        ),
        scenario(
            "volumes_backup::flag_policies_and_annotation_say_which_volumes",
            chosen,
        ),
        scenario(
            "volumes_backup::a_snapshot_that_fails_is_an_error_that_names_the_volume",
            failures,
        ),
        scenario(
            "volumes_backup::the_loser_of_two_attempts_deletes_its_snapshots",
            twins,
        ),
        scenario(
            "volumes_backup::a_run_that_fails_or_is_interrupted_deletes_its_snapshots",
            given_up,
        ),
        scenario(
            "volumes_backup::an_archive_whose_snapshot_is_gone_is_not_completed",
            gone,
        ),
        scenario(
            "volumes_backup::a_snapshot_that_never_completes_is_not_waited_for",
            pending,
        ),
        scenario(
            "volumes_backup::snapshots_are_taken_several_at_once_and_not_too_many",
            many,
        ),
        scenario(
            "volumes_backup::each_condition_of_a_policy_decides",
            policies,
        ),
        scenario(
            "volumes_backup::without_volumes_nobody_is_asked_about_them",
            none,
        ),
    ];
    trials.extend(drivers::trials());
    trials
}

const ZONE: &str = "us-east-1b";

/// A namespace with volumes whose disks are in a moto of its own.
pub struct Cloud {
    pub world: World,
    pub namespace: String,
    _moto: MotoServer,
    pub ec2: aws_sdk_ec2::Client,
    pub bucket: Bucket,
    pub proxy: FaultProxy,
}

impl Cloud {
    pub async fn start(hint: &str) -> Result<Cloud> {
        Self::on(World::with_disks(hint).await?).await
    }

    /// In a part of another cluster.
    pub async fn on(world: World) -> Result<Cloud> {
        let namespace = world.namespace("app").await?;
        let moto = MotoServer::start().await?;
        Ok(Cloud {
            ec2: client(moto.url()),
            bucket: moto.bucket("volumes").await?,
            proxy: FaultProxy::start(moto.url()).await?,
            _moto: moto,
            namespace,
            world,
        })
    }

    /// A disk, with a tag of its own.
    pub async fn disk(&self) -> Result<String> {
        let tag = Tag::builder().key("team").value("shop").build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Volume)
            .tags(tag)
            .build();
        let made = self
            .ec2
            .create_volume()
            .availability_zone(ZONE)
            .size(2)
            .volume_type(VolumeType::Gp3)
            .tag_specifications(tags)
            .send()
            .await?;
        made.volume_id()
            .map(str::to_owned)
            .context("a volume has an id")
    }

    pub fn name(&self, volume: &str) -> String {
        format!("{}-{volume}", self.namespace)
    }

    /// A volume and its claim; `source` is merged into the volume's spec.
    fn objects(&self, name: &str, source: &Value, class: &str) -> (Value, Value) {
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": self.name(name) },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "2Gi" }, "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": { "namespace": self.namespace, "name": name },
            },
        });
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeName": self.name(name),
                "resources": { "requests": { "storage": "2Gi" } },
            },
        });
        (volume, claim)
    }

    fn create(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let arguments = ["create", "-f", "-"];
        let cluster = self.world.cluster;
        cluster.kubectl_with_input(&arguments, &list.to_string())?;
        Ok(())
    }

    /// Creates a volume and its claim, which has the annotations.
    pub fn volume(&self, name: &str, source: Value, class: &str, annotations: Value) -> Result<()> {
        let (volume, mut claim) = self.objects(name, &source, class);
        claim["metadata"]["annotations"] = annotations;
        self.create(&[volume, claim])
    }

    /// Creates a ConfigMap with resource policies.
    fn policies(&self, name: &str, text: &str) -> Result<()> {
        self.create(&[json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": self.namespace },
            "data": { "policies.yaml": text },
        })])
    }

    fn storage(&self) -> String {
        format!(
            "s3://volumes/here?endpoint={}&path-style=true&region={}",
            self.proxy.url(),
            s3::REGION
        )
    }

    pub fn job(&self, backup: &str, attempt: &str, flags: &[&str]) -> ArkJob {
        self.job_of(self.world.cluster.kubeconfig(), backup, attempt, flags)
    }

    fn job_of(
        &self,
        kubeconfig: &std::path::Path,
        backup: &str,
        attempt: &str,
        flags: &[&str],
    ) -> ArkJob {
        let namespaces = ["--include-namespaces", &self.namespace];
        let arguments = [&["backup", backup], &namespaces[..], flags];
        self.job_at("here", kubeconfig, &arguments.concat())
            .of(&format!("job-of-{backup}-{}", self.namespace), attempt)
    }

    /// Any other job, whose place has that prefix.
    pub fn job_at(&self, prefix: &str, kubeconfig: &std::path::Path, arguments: &[&str]) -> ArkJob {
        let endpoint = self.proxy.url();
        let storage = format!(
            "s3://volumes/{prefix}?endpoint={endpoint}&path-style=true&region={}",
            s3::REGION
        );
        ArkJob::new(kubeconfig, &[arguments, &["--storage", &storage]].concat())
            .variable("AWS_ENDPOINT_URL_EC2", endpoint)
    }

    async fn stored(&self, backup: &str, file: &str) -> Result<bytes::Bytes> {
        self.bucket
            .get(&format!("here/backups/{backup}/{file}"))
            .await
    }

    async fn marker(&self, backup: &str) -> Result<Value> {
        Ok(serde_json::from_slice(
            &self.stored(backup, "ark-backup.json").await?,
        )?)
    }

    /// What the footer of the archive says of each volume.
    async fn records(&self, backup: &str) -> Result<BTreeMap<String, Value>> {
        let archive = self.stored(backup, &format!("{backup}.tar.gz")).await?;
        let footer = footer(&archive)?;
        let records = footer.head.volumes.iter().map(|record| {
            let name = record.persistent_volume.clone();
            let name = name.strip_prefix(&format!("{}-", self.namespace));
            Ok((
                name.unwrap_or(&record.persistent_volume).to_owned(),
                serde_json::to_value(record)?,
            ))
        });
        records.collect()
    }

    /// The ids that the marker names; none without one.
    pub async fn named(&self, backup: &str) -> Result<BTreeSet<String>> {
        let key = format!("here/backups/{backup}/ark-backup.json");
        if !self.bucket.keys(&key).await?.contains(&key) {
            return Ok(BTreeSet::new());
        }
        let marker = self.marker(backup).await?;
        let volumes = marker["commit"]["volumes"].as_array().cloned();
        let ids = volumes
            .into_iter()
            .flatten()
            .filter_map(|record| record["data"]["snapshotID"].as_str().map(str::to_owned));
        Ok(ids.collect())
    }

    /// The snapshots of a backup that are in the cloud: those with its tag.
    async fn snapshots(&self, backup: &str) -> Result<Vec<Snapshot>> {
        let filter = Filter::builder()
            .name("tag:ark.heptio.com/backup")
            .values(backup)
            .build();
        let found = self
            .ec2
            .describe_snapshots()
            .owner_ids("self")
            .filters(filter)
            .send()
            .await?;
        Ok(found.snapshots().to_vec())
    }

    pub async fn ids(&self, backup: &str) -> Result<BTreeSet<String>> {
        let snapshots = self.snapshots(backup).await?;
        Ok(snapshots
            .iter()
            .filter_map(|snapshot| snapshot.snapshot_id().map(str::to_owned))
            .collect())
    }

    pub async fn is_kept_by_the_marker(&self, backup: &str, count: usize) -> Result<()> {
        let (named, there) = (self.named(backup).await?, self.ids(backup).await?);
        ensure!(
            named == there && named.len() == count,
            "{backup}: the marker names {named:?}, there are {there:?}, not {count}"
        );
        Ok(())
    }

    async fn has_none(&self, backup: &str) -> Result<()> {
        let there = self.ids(backup).await?;
        ensure!(there.is_empty(), "{backup}: {there:?} are left");
        Ok(())
    }
}

/// The footer of an archive.
fn footer(archive: &[u8]) -> Result<Footer> {
    let tail = &archive[archive.len() - END_LENGTH..];
    let place = read::locate(tail, archive.len() as u64)?;
    let range = usize::try_from(place.offset)?..usize::try_from(place.offset + place.length)?;
    Ok(read::footer(&archive[range], &place)?)
}

fn tags(tags: &[Tag]) -> BTreeMap<String, String> {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    tags.iter()
        .map(|tag| (text(tag.key()), text(tag.value())))
        .collect()
}

fn in_tree(disk: &str) -> Value {
    json!({ "awsElasticBlockStore": { "volumeID": format!("aws://{ZONE}/{disk}") } })
}

pub fn csi(disk: &str) -> Value {
    let zone =
        json!({ "key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": [ZONE] });
    json!({
        "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": disk },
        "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [zone] }] } },
    })
}

/// EC2 tells what is asked for in the body; its requests are all to the root.
fn is_ec2(request: &Request) -> bool {
    request.method == "POST" && request.path == "/"
}

pub fn is_archive(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with(".tar.gz")
}

fn is_marker(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with("/ark-backup.json")
}

fn says(finished: &Finished, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(
            finished.stderr.contains(text),
            "{text:?} is not said: {}",
            finished.stderr
        );
    }
    Ok(())
}

async fn recorded() -> Result<()> {
    let cloud = Cloud::start("recorded").await?;
    let (old, new) = (cloud.disk().await?, cloud.disk().await?);
    cloud.volume("old", in_tree(&old), "", json!({}))?;
    cloud.volume("new", csi(&new), "", json!({}))?;
    cloud.volume(
        "local",
        json!({ "hostPath": { "path": "/x" } }),
        "",
        json!({}),
    )?;
    let finished = cloud.job("recorded", "pod-1", &[]).expect(0).await?;
    let local = format!(
        "persistentvolumes {} (claim {}/local) has no snapshot, so the data in it is not in the backup: there is no way to \
         snapshot volumes of type hostPath",
        cloud.name("local"),
        cloud.namespace
    );
    says(&finished, &[", 2 snapshots", &local])?;
    cloud.is_kept_by_the_marker("recorded", 2).await?;
    let records = cloud.records("recorded").await?;
    ensure!(
        records["local"]["data"]["method"] == "missing"
            && records["local"]["data"]["reason"]
                == "there is no way to snapshot volumes of type hostPath",
        "{records:#?}"
    );
    for (name, disk) in [("old", &old), ("new", &new)] {
        let record = &records[name];
        let data = &record["data"];
        ensure!(
            data["method"] == "ebs"
                && data["volumeID"] == **disk
                && data["region"] == s3::REGION
                && data["availabilityZone"] == ZONE
                && data["volumeType"] == "gp3"
                && data["sizeGiB"] == 2
                && record["reclaimPolicy"] == "Retain"
                && record["claim"]["name"] == name,
            "{record:#}"
        );
        let snapshots = cloud.snapshots("recorded").await?;
        let snapshot = snapshots
            .iter()
            .find(|snapshot| snapshot.snapshot_id() == data["snapshotID"].as_str())
            .context("the snapshot is there")?;
        let tags = tags(snapshot.tags());
        ensure!(
            tags["ark.heptio.com/pv"] == cloud.name(name)
                && tags["ark.heptio.com/attempt"] == "pod-1"
                && tags["team"] == "shop"
                && ["location", "cluster-uid", "run"]
                    .iter()
                    .all(|key| !tags[&format!("ark.heptio.com/{key}")].is_empty()),
            "{tags:?}"
        );
    }
    let marker = cloud.marker("recorded").await?;
    let status = &marker["status"];
    ensure!(
        status["volumes"] == json!({ "snapshotted": 2, "skipped": 0, "missing": 1 })
            && status["volumeBackups"]
                .as_object()
                .map(serde_json::Map::len)
                == Some(2)
            && status["warnings"] == 1,
        "{status:#}"
    );
    Ok(())
}

async fn chosen() -> Result<()> {
    let cloud = Cloud::start("chosen").await?;
    let policies = cloud.name("policies");
    let yaml = "version: v1\nvolumePolicies:\n- {conditions: {storageClass: [wanted]}, action: {type: snapshot}}\n\
                - {conditions: {storageClass: [unwanted]}, action: {type: skip}}\n";
    let opted_out = json!({ "ark.heptio.com/skip-snapshot": "true" });
    for (name, class, annotations) in [
        ("plain", "", json!({})),
        ("wanted", "wanted", json!({})),
        ("unwanted", "unwanted", json!({})),
        ("out", "wanted", opted_out),
    ] {
        cloud.volume(name, csi(&cloud.disk().await?), class, annotations)?;
    }
    // Ark's namespace is this scenario's own.
    let namespace = &cloud.namespace;
    cloud.policies(&policies, yaml)?;
    cloud.policies(&cloud.name("wrong"), "version: v2\n")?;
    let with = ["--resource-policies-configmap", &*policies];
    for (backup, flags, snapshotted) in [
        ("auto", vec![], vec!["plain", "unwanted", "wanted"]),
        ("never", vec!["--snapshot-volumes=false"], vec![]),
        ("by-policy", with.to_vec(), vec!["plain", "wanted"]),
        (
            "policy-wins",
            [&with[..], &["--snapshot-volumes=false"]].concat(),
            vec!["wanted"],
        ),
    ] {
        cloud
            .job(backup, "pod-1", &flags)
            .variable("ARK_NAMESPACE", namespace)
            .expect(0)
            .await?;
        let records = cloud.records(backup).await?;
        let taken = records
            .iter()
            .filter(|(_, record)| record["data"]["method"] == "ebs")
            .map(|(name, _)| name.as_str());
        let taken: Vec<&str> = taken.collect();
        ensure!(taken == snapshotted, "{backup}: {records:#?}");
        let others = records
            .values()
            .filter(|record| record["data"]["method"] == "skipped")
            .count();
        ensure!(others + taken.len() == 4, "{backup}: {records:#?}");
        cloud.is_kept_by_the_marker(backup, taken.len()).await?;
    }
    // Mistakes are found before anything is written.
    for (name, code) in [(cloud.name("wrong"), 2), (cloud.name("absent"), 10)] {
        let refused = cloud
            .job(
                "refused",
                "pod-1",
                &["--resource-policies-configmap", &name],
            )
            .variable("ARK_NAMESPACE", namespace)
            .expect(code)
            .await?;
        says(&refused, &[&name])?;
        ensure!(cloud.bucket.keys("here/backups/refused/").await?.is_empty());
    }
    Ok(())
}

async fn failures() -> Result<()> {
    let cloud = Cloud::start("failing").await?;
    cloud.volume("gone", csi("vol-0123456789abcdef0"), "", json!({}))?;
    cloud.volume("good", csi(&cloud.disk().await?), "", json!({}))?;
    cloud.volume(
        "local",
        json!({ "hostPath": { "path": "/x" } }),
        "",
        json!({}),
    )?;
    let finished = cloud.job("partial", "pod-1", &[]).expect(3).await?;
    let gone = format!(
        "persistentvolumes {} (claim {}/gone) has no snapshot, so the data in it is not in the backup: ",
        cloud.name("gone"),
        cloud.namespace
    );
    says(&finished, &[&gone, "vol-0123456789abcdef0"])?;
    cloud.is_kept_by_the_marker("partial", 1).await?;
    let marker = cloud.marker("partial").await?;
    ensure!(
        marker["status"]["phase"] == "PartiallyFailed"
            && marker["status"]["errors"] == 1
            && marker["status"]["warnings"] == 1,
        "{:#}",
        marker["status"]
    );
    // What there is no way for is an error when it was asked for.
    let asked = cloud
        .job("asked", "pod-1", &["--snapshot-volumes"])
        .expect(3)
        .await?;
    let local = format!("persistentvolumes {} (claim ", cloud.name("local"));
    says(&asked, &[&local, "says that none is wanted"])?;
    let marker = cloud.marker("asked").await?;
    ensure!(marker["status"]["errors"] == 2, "{:#}", marker["status"]);
    // A refusal names what was refused, and what to do.
    let refusal = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>not you</Message></Error></Errors></Response>";
    cloud
        .proxy
        .add(Rule::on(is_ec2).answer(403, &[("content-type", "text/xml")], refusal));
    let finished = cloud.job("refused", "pod-1", &[]).expect(3).await?;
    says(&finished, &["UnauthorizedOperation", "docs/volumes.md"])
}

/// Killed before and after every request from the first to EC2 to the marker.
async fn killed_anywhere() -> Result<()> {
    let cloud = Cloud::start("killed").await?;
    for name in ["a", "b"] {
        cloud.volume(name, csi(&cloud.disk().await?), "", json!({}))?;
    }
    let matches = Request::is_write;
    cloud.job("unharmed", "pod-1", &[]).expect(0).await?;
    let writes = cloud.proxy.count(matches) as u64;
    ensure!(writes >= 9, "only {writes} requests were seen");
    let mut left = 0;
    for after in [false, true] {
        for n in 1..=writes {
            let backup = format!("{}-{n}", if after { "after" } else { "before" });
            let victim = Victim::default();
            let rule = Rule::on(matches).only(n);
            let added = cloud.proxy.add(match after {
                true => rule.kill_after(&victim),
                false => rule.kill_before(&victim),
            });
            let running = cloud.job(&backup, "pod-1", &[]).start()?;
            victim.is(running.id());
            let first = running.wait().await?;
            ensure!(
                added.applied() == 1 && first.code.is_none(),
                "{backup}: not killed: {first:?}"
            );
            cloud.proxy.clear_rules();
            // The retry completes, and what it does not name can be found by its tags.
            cloud
                .job(&backup, "pod-2", &[])
                .expect(0)
                .await
                .with_context(|| backup.clone())?;
            let named = cloud.named(&backup).await?;
            ensure!(named.len() == 2, "{backup}: {named:?}");
            let there = cloud.snapshots(&backup).await?;
            let ids: BTreeSet<String> = cloud.ids(&backup).await?;
            ensure!(named.is_subset(&ids), "{backup}: {named:?} of {ids:?}");
            for snapshot in there {
                let tags = tags(snapshot.tags());
                let id = snapshot.snapshot_id().unwrap_or_default();
                let findable = ["location", "cluster-uid", "run", "attempt", "pv"]
                    .iter()
                    .all(|key| tags.contains_key(&format!("ark.heptio.com/{key}")));
                ensure!(findable, "{backup}: {id} has {tags:?}");
                if !named.contains(id) {
                    left += 1;
                    ensure!(
                        tags["ark.heptio.com/attempt"] == "pod-1",
                        "{backup}: the attempt that completed has left {id}"
                    );
                }
            }
        }
    }
    // Not even the owner's account has one without tags.
    let all = cloud
        .ec2
        .describe_snapshots()
        .owner_ids("self")
        .send()
        .await?;
    let untagged = all
        .snapshots()
        .iter()
        .filter(|snapshot| tags(snapshot.tags()).contains_key("team"))
        .filter(|snapshot| !tags(snapshot.tags()).contains_key("ark.heptio.com/run"));
    ensure!(untagged.count() == 0, "{all:?}");
    ensure!(
        left > 0,
        "no kill has left a snapshot: none came in between"
    );
    eprintln!(
        "killed before and after each of {writes} requests; {left} snapshots are for the sweep"
    );
    Ok(())
}

async fn twins() -> Result<()> {
    let cloud = Cloud::start("twins").await?;
    cloud.volume("data", csi(&cloud.disk().await?), "", json!({}))?;
    let gate = Gate::default();
    let held = cloud.proxy.add(Rule::on(is_archive).only(1).hold(&gate));
    let first = cloud.job("twins", "pod-1", &[]).start()?;
    wait_until("the first archive", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    cloud.job("twins", "pod-2", &[]).expect(0).await?;
    ensure!(cloud.ids("twins").await?.len() == 2, "each takes its own");
    gate.open();
    let first = first.wait().await?;
    ensure!(first.code == Some(0), "{first:?}");
    says(&first, &["is deleted: it is in no backup"])?;
    cloud.is_kept_by_the_marker("twins", 1).await?;
    let marker = cloud.marker("twins").await?;
    ensure!(marker["commit"]["attempt"] == "pod-2", "{marker:#}");
    Ok(())
}

async fn given_up() -> Result<()> {
    let cloud = Cloud::start("given-up").await?;
    cloud.volume("data", csi(&cloud.disk().await?), "", json!({}))?;
    let no =
        "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>made up</Message></Error>";
    let refuse = |matches: fn(&Request) -> bool| {
        Rule::on(matches).answer(403, &[("content-type", "application/xml")], no)
    };
    cloud.proxy.add(refuse(is_archive));
    let failed = cloud.job("failed", "pod-1", &[]).expect(1).await?;
    says(&failed, &["is deleted: it is in no backup"])?;
    cloud.has_none("failed").await?;
    cloud.proxy.clear_rules();
    // Once its archive is there, the snapshots belong to it, and the next attempt goes on from there.
    cloud.proxy.add(refuse(is_marker));
    cloud.job("unmarked", "pod-1", &[]).expect(1).await?;
    let kept = cloud.ids("unmarked").await?;
    ensure!(kept.len() == 1, "{kept:?}");
    cloud.proxy.clear_rules();
    cloud.job("unmarked", "pod-2", &[]).expect(0).await?;
    ensure!(cloud.ids("unmarked").await? == kept);
    cloud.is_kept_by_the_marker("unmarked", 1).await?;
    // A name that a stranger takes meanwhile.
    let gate = Gate::default();
    let held = cloud.proxy.add(Rule::on(is_archive).only(1).hold(&gate));
    let ours = cloud.job("taken", "pod-1", &[]).start()?;
    wait_until("the archive", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    let key = "here/backups/taken/taken.tar.gz";
    cloud
        .bucket
        .put(
            key,
            "no archive of ours, but long enough to be one: ".repeat(100),
        )
        .await?;
    gate.open();
    let ours = ours.wait().await?;
    ensure!(ours.code == Some(11), "{ours:?}");
    cloud.has_none("taken").await?;
    cloud.proxy.clear_rules();
    // SIGTERM when the snapshot is there and the cluster is being read.
    let api = FaultProxy::start_before(cloud.world.cluster).await?;
    let gate = Gate::default();
    let held = api.add(
        Rule::on(|request| request.path.ends_with("/configmaps"))
            .from(1)
            .hold(&gate),
    );
    let kubeconfig = cloud.world.cluster.kubeconfig_for(api.url())?;
    let running = cloud.job_of(&kubeconfig, "term", "pod-1", &[]).start()?;
    wait_until("the reading", Duration::from_secs(60), async || {
        Ok((held.applied() > 0 && cloud.ids("term").await?.len() == 1).then_some(()))
    })
    .await?;
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let ended = running.wait().await?;
    ensure!(ended.code == Some(130), "{ended:?}");
    gate.open();
    cloud.has_none("term").await
}

async fn gone() -> Result<()> {
    let cloud = Cloud::start("gone").await?;
    cloud.volume("data", csi(&cloud.disk().await?), "", json!({}))?;
    let victim = Victim::default();
    cloud
        .proxy
        .add(Rule::on(is_marker).only(1).kill_before(&victim));
    let running = cloud.job("gone", "pod-1", &[]).start()?;
    victim.is(running.id());
    running.wait().await?;
    cloud.proxy.clear_rules();
    for id in cloud.ids("gone").await? {
        cloud.ec2.delete_snapshot().snapshot_id(id).send().await?;
    }
    let failed = cloud.job("gone", "pod-2", &[]).expect(5).await?;
    says(
        &failed,
        &["does not exist any more", &cloud.name("data"), "hint: "],
    )?;
    ensure!(cloud.named("gone").await?.is_empty(), "it was completed");
    Ok(())
}

/// The actions that EC2 was asked for so far, in order.
fn actions(proxy: &FaultProxy) -> Vec<String> {
    let action = |request: Request| {
        let mut pairs = request.form.split('&');
        pairs.find_map(|pair| pair.strip_prefix("Action=").map(str::to_owned))
    };
    proxy.requests().into_iter().filter_map(action).collect()
}

async fn pending() -> Result<()> {
    let cloud = Cloud::start("pending").await?;
    cloud.volume("data", csi(&cloud.disk().await?), "", json!({}))?;
    cloud.job("usual", "pod-1", &[]).expect(0).await?;
    let usual = actions(&cloud.proxy);
    ensure!(usual.contains(&"CreateSnapshot".into()), "{usual:?}");
    cloud.proxy.clear_requests();
    // It is of no size and never gets anywhere.
    cloud.proxy.add(Rule::on(is_ec2).rewrite(|text| {
        text.replace("<status>completed</status>", "<status>pending</status>")
            .replace("<progress>100%</progress>", "<progress>7%</progress>")
    }));
    let finished = cloud.job("pending", "pod-1", &[]).expect(0).await?;
    says(&finished, &["has begun", ", 1 snapshot"])?;
    let asked = actions(&cloud.proxy);
    ensure!(
        asked == usual,
        "it was waited for: {asked:?}, not {usual:?}"
    );
    let marker = cloud.marker("pending").await?;
    ensure!(
        marker["status"]["phase"] == "Completed" && marker["status"]["volumes"]["snapshotted"] == 1,
        "{marker:#}"
    );
    // Whoever asks how it is now hears that.
    let storage = cloud.storage();
    let arguments = ["volumes", "pending", "--storage", &storage, "-o", "json"];
    let listed = ArkJob::new(cloud.world.cluster.kubeconfig(), &arguments)
        .variable("AWS_ENDPOINT_URL_EC2", cloud.proxy.url())
        .expect(0)
        .await?;
    says(&listed, &["\"state\":\"pending", &cloud.name("data")])
}

async fn many() -> Result<()> {
    const VOLUMES: usize = 60;
    let cloud = Cloud::start("many").await?;
    let mut objects = Vec::new();
    for n in 0..VOLUMES {
        let (volume, claim) = cloud.objects(&format!("v{n}"), &csi(&cloud.disk().await?), "");
        objects.extend([volume, claim]);
    }
    cloud.create(&objects)?;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (come, gone, seen) = (now.clone(), now.clone(), most.clone());
    cloud.proxy.add(
        Rule::on(ec2::is("CreateSnapshot"))
            .before(move |_| {
                let at_once = come.fetch_add(1, Ordering::SeqCst) + 1;
                seen.fetch_max(at_once, Ordering::SeqCst);
            })
            .delay(Duration::from_millis(100))
            .after(move |_| {
                gone.fetch_sub(1, Ordering::SeqCst);
            }),
    );
    cloud.job("many", "pod-1", &[]).expect(0).await?;
    let most = most.load(Ordering::SeqCst);
    ensure!((4..=8).contains(&most), "{most} at once");
    ensure!(now.load(Ordering::SeqCst) == 0, "each was answered");
    cloud.is_kept_by_the_marker("many", VOLUMES).await?;
    let of_volumes: BTreeSet<String> = cloud
        .snapshots("many")
        .await?
        .iter()
        .filter_map(|snapshot| snapshot.volume_id().map(str::to_owned))
        .collect();
    ensure!(of_volumes.len() == VOLUMES, "each has its own");
    Ok(())
}

async fn policies() -> Result<()> {
    let cloud = Cloud::start("policies").await?;
    let yaml = "version: v1
volumePolicies:
- {conditions: {pvcLabels: {tier: gold}}, action: {type: snapshot}}
- {conditions: {pvcLabels: {tier: cache}}, action: {type: skip}}
- {conditions: {csi: {driver: other.example.com}}, action: {type: skip}}
- {conditions: {capacity: '100Gi,'}, action: {type: skip}}
- {conditions: {storageClass: [scratch, temporary]}, action: {type: skip}}
- {conditions: {storageClass: [fast], capacity: '1Gi,10Gi'}, action: {type: snapshot}}
- {conditions: {volumeTypes: [awsElasticBlockStore]}, action: {type: snapshot}}
";
    let map = cloud.name("policies");
    cloud.policies(&map, yaml)?;
    let by_policy = format!("the resource policies in ConfigMap {map} skip it");
    let by_flag = "no snapshots were asked for (--snapshot-volumes=false)";
    let annotation =
        |object: &str| format!("annotation ark.heptio.com/skip-snapshot of {object} asks for none");
    let of_claim = annotation(&format!(
        "persistentvolumeclaims {}/claim-out",
        cloud.namespace
    ));
    let of_volume = annotation(&format!("persistentvolumes {}", cloud.name("volume-out")));
    let out = json!({ "annotations": { "ark.heptio.com/skip-snapshot": "true" } });
    let in_vain = json!({ "annotations": { "ark.heptio.com/skip-snapshot": "false" } });
    let other = json!({ "csi": { "driver": "other.example.com", "volumeHandle": "h" } });
    let tier = |tier: &str| json!({ "labels": { "tier": tier } });
    let none = json!({});
    // Name, class, size, labels or annotations of claim and volume, and why there is no snapshot.
    let table = [
        ("gold", "scratch", "200Gi", tier("gold"), &none, None),
        (
            "cache",
            "fast",
            "2Gi",
            tier("cache"),
            &none,
            Some(&*by_policy),
        ),
        (
            "other-driver",
            "fast",
            "2Gi",
            none.clone(),
            &none,
            Some(&*by_policy),
        ),
        (
            "large",
            "fast",
            "100Gi",
            none.clone(),
            &none,
            Some(&*by_policy),
        ),
        (
            "scratch",
            "scratch",
            "2Gi",
            none.clone(),
            &none,
            Some(&*by_policy),
        ),
        ("fast", "fast", "10Gi", none.clone(), &none, None),
        (
            "too-large",
            "fast",
            "11Gi",
            none.clone(),
            &none,
            Some(by_flag),
        ),
        ("in-tree", "", "2Gi", none.clone(), &none, None),
        ("no-match", "", "2Gi", none.clone(), &none, Some(by_flag)),
        (
            "claim-out",
            "fast",
            "2Gi",
            out.clone(),
            &none,
            Some(&*of_claim),
        ),
        (
            "volume-out",
            "fast",
            "2Gi",
            none.clone(),
            &out,
            Some(&*of_volume),
        ),
        ("in-vain", "fast", "2Gi", in_vain.clone(), &in_vain, None),
    ];
    let mut objects = Vec::new();
    for (name, class, size, of_claim, of_volume, _) in &table {
        let source = match *name {
            "other-driver" => other.clone(),
            "in-tree" => in_tree(&cloud.disk().await?),
            _ => csi(&cloud.disk().await?),
        };
        let (mut volume, mut claim) = cloud.objects(name, &source, class);
        volume["spec"]["capacity"]["storage"] = (*size).into();
        for (object, more) in [(&mut volume, *of_volume), (&mut claim, of_claim)] {
            for (key, value) in more.as_object().into_iter().flatten() {
                object["metadata"][key] = value.clone();
            }
        }
        objects.extend([volume, claim]);
    }
    cloud.create(&objects)?;
    let flags = [
        "--resource-policies-configmap",
        &*map,
        "--snapshot-volumes=false",
    ];
    cloud
        .job("table", "pod-1", &flags)
        .variable("ARK_NAMESPACE", &cloud.namespace)
        .expect(0)
        .await?;
    let records = cloud.records("table").await?;
    ensure!(records.len() == table.len(), "{records:#?}");
    for (name, .., reason) in &table {
        let data = &records[*name]["data"];
        let method = if reason.is_some() { "skipped" } else { "ebs" };
        ensure!(
            data["method"] == method && data["reason"].as_str() == *reason,
            "{name}: {data:#}, not {method} {reason:?}"
        );
    }
    cloud.is_kept_by_the_marker("table", 4).await
}

/// In a cluster of its own, since others have volumes in the shared one.
async fn none() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let api = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(api.url())?;
    // Nobody needs an answer of it.
    let no = ec2::refusal("UnauthorizedOperation", "made up");
    let ec2 = FaultProxy::start("http://127.0.0.1:1").await?;
    ec2.add(Rule::on_all().answer(403, &[("content-type", "text/xml")], no));
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let back_up = async |name: &str, flags: &[&str], code: i32| -> Result<Vec<Request>> {
        api.clear_requests();
        let arguments = [&["backup", name, "--storage", &storage], flags].concat();
        ArkJob::new(&kubeconfig, &arguments)
            .of(name, "pod-1")
            .variable("AWS_ENDPOINT_URL_EC2", ec2.url())
            .expect(code)
            .await?;
        Ok(api.requests())
    };
    let of = |requests: &[Request], resource: &str| {
        let path = format!("/api/v1/{resource}");
        let reads = requests.iter().filter(|request| request.path == path);
        reads
            .map(|request| request.query.clone())
            .collect::<Vec<_>>()
    };
    let of_snapshots = |requests: &[Request]| {
        let asked = |request: &&Request| request.path.contains("snapshot.storage.k8s.io");
        requests.iter().filter(asked).count()
    };
    let volumes = |requests: &[Request]| of(requests, "persistentvolumes");
    let others = |requests: &[Request]| {
        ["persistentvolumeclaims", "namespaces", "pods"]
            .map(|resource| of(requests, resource).len())
    };

    let without_type = back_up(
        "without-type",
        &["--exclude-resources=persistentvolumes"],
        0,
    )
    .await?;
    ensure!(
        volumes(&without_type).is_empty(),
        "{:?}",
        volumes(&without_type)
    );
    let empty = back_up("empty", &[], 0).await?;
    // Only the archive's own list is of more than one object.
    let lists = volumes(&empty);
    let small = |query: &&String| query.split('&').any(|part| part == "limit=1");
    let small = lists.iter().filter(small).count();
    ensure!(small > 0 && lists.len() == small + 1, "{lists:?}");
    ensure!(
        others(&empty) == others(&without_type),
        "{:?}, not {:?}",
        others(&empty),
        others(&without_type)
    );
    ensure!(of_snapshots(&empty) == 0 && ec2.requests().is_empty());

    // For one that nobody can snapshot, claims are read; still nobody else is asked.
    let volume = |name: &str, source: Value| -> Result<()> {
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "2Gi" } },
        });
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        cluster
            .kubectl_with_input(&["create", "-f", "-"], &volume.to_string())
            .map(drop)
    };
    volume("local", json!({ "hostPath": { "path": "/x" } }))?;
    let local = back_up("local", &[], 0).await?;
    ensure!(
        others(&local)[0] == others(&empty)[0] + 1,
        "{:?}",
        others(&local)
    );
    ensure!(of_snapshots(&local) == 0 && ec2.requests().is_empty());
    // And these counts can be others.
    volume("disk", csi("vol-0123456789abcdef0"))?;
    volume(
        "driver",
        json!({ "csi": { "driver": "other.example.com", "volumeHandle": "h" } }),
    )?;
    let asked = back_up("asked", &[], 3).await?;
    ensure!(of_snapshots(&asked) > 0 && !ec2.requests().is_empty());
    Ok(())
}
