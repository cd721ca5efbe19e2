//! What a restore does when volumes are slow, broken or asked for twice, when they are not wanted, and when others took their
//! snapshots. EC2 is moto behind a proxy that changes its answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::csi::{SNAPSHOT_CLASS, claim, volume_snapshot};
use ark_tests::ec2::{Ec2, NewVolume, is};
use ark_tests::foreign::{ForeignBackup, Maker, gzip};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::proxy::Request;
use ark_tests::{ControlPlane, FaultProxy, MotoServer, Rule, Victim, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, delete_namespace, exists, get};
use crate::volumes_restore::Disk;
use crate::world::{self, World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "volumes_restore_faults::a_pending_snapshot_is_waited_for",
            pending,
        ),
        scenario(
            "volumes_restore_faults::a_disk_is_asked_for_as_it_was_and_a_broken_one_is_an_error_and_deleted",
            properties,
        ),
        scenario(
            "volumes_restore_faults::a_disk_is_asked_for_by_the_same_token_until_it_is_known_to_be_gone",
            tokens,
        ),
        scenario(
            "volumes_restore_faults::disks_of_velero_and_original_ark_are_made_and_what_has_no_snapshot_is_named",
            foreign,
        ),
        scenario(
            "volumes_restore_faults::f37_l20_without_volumes_nothing_is_made_of_snapshots",
            without_volumes,
        ),
        scenario(
            "volumes_restore_faults::f24_to_f28_a_volume_that_is_going_is_waited_for",
            going,
        ),
        scenario(
            "volumes_restore_faults::f1_f2_without_a_snapshot_the_reclaim_policy_decides",
            no_snapshot,
        ),
    ]
}

/// A disk whose restores go through a proxy.
struct Behind<'a> {
    disk: Disk<'a>,
    proxy: FaultProxy,
}

impl<'a> Behind<'a> {
    async fn new(world: &World, new: NewVolume<'_>) -> Result<Behind<'a>> {
        let cluster = world.cluster;
        let disk = Disk::of(world, Place::new(cluster)?, cluster, new).await?;
        let proxy = FaultProxy::start(disk.moto.url()).await?;
        disk.lose().await?;
        Ok(Behind { disk, proxy })
    }

    fn job(&self, name: &str, more: &[&str]) -> ArkJob {
        let arguments = ["restore", "b", "--name", name];
        let job = self.disk.place.job(&[&arguments, more].concat());
        job.variable("AWS_ENDPOINT_URL_EC2", self.proxy.url())
    }

    /// No volume points at anything, and its claim waits.
    fn nothing_came(&self) -> Result<()> {
        let (cluster, namespace) = (self.disk.cluster, self.disk.namespace.as_str());
        ensure!(!exists(cluster, &["pv", namespace])?, "a volume came");
        let claim = get(cluster, &["pvc", "data", "-n", namespace])?;
        ensure!(claim["status"]["phase"] == "Pending", "{claim:#}");
        Ok(())
    }

    /// The requests for disks, by their parameters.
    fn asked(&self) -> Vec<String> {
        let requests = self.proxy.requests().into_iter();
        let asked = requests.filter(is("CreateVolume"));
        asked.map(|request| request.form).collect()
    }
}

/// What a form says, decoded.
fn parameter(form: &str, name: &str) -> Option<String> {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Changes a state that must be there: else nothing would be tested.
fn state(from: &'static str, to: &'static str) -> impl Fn(String) -> String + Send + Sync {
    move |text| text.replace(&format!("<status>{from}<"), &format!("<status>{to}<"))
}

fn says(said: &Finished, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(said.stderr.contains(text), "{text:?} is not said: {said:?}");
    }
    Ok(())
}

async fn pending() -> Result<()> {
    let world = World::with_disks("pending").await?;
    let behind = Behind::new(&world, NewVolume::default()).await?;
    let disk = &behind.disk;
    let still = || Rule::on(is("DescribeSnapshots")).rewrite(state("completed", "pending"));
    behind.proxy.add(still());
    let said = behind
        .job("slow", &["--volume-timeout", "2s"])
        .expect(3)
        .await?;
    let expected = format!(
        "PersistentVolume {}: no volume could be made of its snapshot snap-",
        disk.namespace
    );
    says(&said, &[&expected, "is still pending", "after 2s"])?;
    behind.nothing_came()?;
    ensure!(behind.asked().is_empty(), "{:?}", behind.asked());

    behind.proxy.clear_rules();
    behind.proxy.clear_requests();
    let looks = behind.proxy.add(still().up_to(3));
    behind.job("slow", &[]).expect(0).await?;
    ensure!(looks.applied() == 3, "it was looked at {}", looks.matched());
    let requests = behind.proxy.requests();
    let position = |action, n| {
        let of_it = requests
            .iter()
            .enumerate()
            .filter(|(_, one)| is(action)(one));
        of_it.map(|(at, _)| at).nth(n)
    };
    let (complete, asked) = (
        position("DescribeSnapshots", 3),
        position("CreateVolume", 0),
    );
    ensure!(
        complete.is_some() && complete < asked,
        "{complete:?} {asked:?}"
    );
    disk.bound(&disk.namespace).await?;
    disk.made(&disk.namespace).await?;
    Ok(())
}

async fn properties() -> Result<()> {
    let world = World::with_disks("properties").await?;
    let new = NewVolume {
        volume_type: "gp3",
        iops: Some(4000),
        throughput: Some(250),
        size_gib: 20,
        encrypted: true,
        ..NewVolume::default()
    };
    let behind = Behind::new(&world, new).await?;
    let disk = &behind.disk;
    let namespace = disk.namespace.as_str();
    let marker = std::fs::read(disk.place.path().join("backups/b/ark-backup.json"))?;
    let marker: Value = serde_json::from_slice(&marker)?;
    let record = &marker["commit"]["volumes"][0]["data"];
    let key = record["kmsKeyID"].as_str().context("no key is recorded")?;

    // A key that cannot be used: the disk ends in an error.
    behind
        .proxy
        .add(Rule::on(is("DescribeVolumes")).rewrite(state("available", "error")));
    let wrong = "arn:aws:kms:us-east-1:123456789012:key/wrong";
    let said = behind.job("r", &["--kms-key", wrong]).expect(3).await?;
    let expected = format!("PersistentVolume {namespace}: no volume could be made of its snapshot");
    says(
        &said,
        &[&expected, "is in state error", wrong, "deleted again"],
    )?;
    behind.nothing_came()?;
    ensure!(
        disk.ec2.volumes().await?.len() == 1,
        "the broken disk is left"
    );
    let list = disk.place.list("r")?;
    let volumes = &list["v1/PersistentVolume"];
    ensure!(
        *volumes == json!([format!("{namespace}(failed)")]),
        "{list:#}"
    );
    let results = disk.place.results("r")?;
    ensure!(results["errors"].to_string().contains(wrong), "{results:#}");

    behind.proxy.clear_rules();
    behind.job("r", &[]).expect(0).await?;
    disk.bound(namespace).await?;
    let (_, made) = disk.made(namespace).await?;
    ensure!(made.kms_key_id() == Some(key), "{made:?}");
    for (form, expected_key) in behind.asked().iter().zip([wrong, key]) {
        for (name, value) in [
            ("VolumeType", "gp3"),
            ("Iops", "4000"),
            ("Throughput", "250"),
            ("Size", "20"),
            ("Encrypted", "true"),
            ("KmsKeyId", expected_key),
            ("AvailabilityZone", "us-east-1a"),
            (
                "SnapshotId",
                record["snapshotID"].as_str().unwrap_or("none"),
            ),
        ] {
            ensure!(
                parameter(form, name).as_deref() == Some(value),
                "{name}: {form}"
            );
        }
    }
    let asked = behind.asked();
    let [first, second] = [0, 1].map(|n| parameter(&asked[n], "ClientToken"));
    ensure!(
        asked.len() == 2 && first != second,
        "another key is another request: {asked:?}"
    );
    Ok(())
}

async fn tokens() -> Result<()> {
    let world = World::with_disks("tokens").await?;
    let behind = Behind::new(&world, NewVolume::default()).await?;
    let disk = &behind.disk;
    let namespace = disk.namespace.as_str();

    // Killed when EC2 has the request, or before: the next attempt asks the very same, or finds the disk.
    for after in [false, true] {
        let victim = Victim::default();
        let rule = Rule::on(is("CreateVolume")).only(1);
        let added = behind.proxy.add(match after {
            true => rule.kill_after(&victim),
            false => rule.kill_before(&victim),
        });
        let running = behind.job("r", &[]).start()?;
        victim.is(running.id());
        let ended = running.wait().await?;
        ensure!(added.applied() == 1 && ended.code.is_none(), "{ended:?}");
        behind.proxy.clear_rules();
    }
    behind.job("r", &[]).expect(0).await?;
    let asked = behind.asked();
    ensure!(asked.len() == 2 && asked[0] == asked[1], "{asked:?}");
    ensure!(disk.ec2.volumes().await?.len() == 2, "a second disk");
    disk.bound(namespace).await?;
    let (_, made) = disk.made(namespace).await?;
    let gone = made.volume_id().unwrap_or_default().to_owned();

    // Lost, with volume and disk. EC2 still answers by the token, with the disk that it had made.
    disk.lose().await?;
    let delete = disk.ec2.client().delete_volume().volume_id(&gone);
    delete.send().await?;
    behind.proxy.clear_requests();
    let token = parameter(&asked[0], "ClientToken").context("no token")?;
    let same = token.clone();
    let of_it = move |request: &Request| {
        is("CreateVolume")(request)
            && parameter(&request.form, "ClientToken").as_ref() == Some(&same)
    };
    let known = format!(
        "<CreateVolumeResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>1</requestId><volumeId>{gone}</volumeId>\
         <size>10</size><availabilityZone>us-east-1a</availabilityZone><status>creating</status>\
         <createTime>2020-01-01T00:00:00.000Z</createTime></CreateVolumeResponse>"
    );
    let answered =
        behind
            .proxy
            .add(Rule::on(of_it).answer(200, &[("content-type", "text/xml")], known));
    // A lost answer is asked for again, with the same token.
    let other = move |request: &Request| {
        is("CreateVolume")(request)
            && parameter(&request.form, "ClientToken").as_ref() != Some(&token)
    };
    behind.proxy.add(Rule::on(other).only(1).lose_answer());
    behind.job("r", &[]).expect(0).await?;
    ensure!(answered.applied() == 1, "{}", answered.applied());
    let again = behind.asked();
    ensure!(
        again.len() == 3 && again[0] == asked[0] && again[1] == again[2] && again[1] != again[0],
        "{again:?}"
    );
    disk.bound(namespace).await?;
    disk.made(namespace).await?;
    Ok(())
}

/// Objects of a backup of others, whose disks are in moto.
struct Others {
    moto: MotoServer,
    ec2: Ec2,
    directory: tempfile::TempDir,
    cluster: &'static ControlPlane,
    namespace: String,
}

impl Others {
    async fn new(world: &World) -> Result<Others> {
        let moto = MotoServer::start().await?;
        Ok(Others {
            ec2: Ec2::new(moto.url()),
            moto,
            directory: tempfile::tempdir()?,
            cluster: world.cluster,
            namespace: world.namespace("app").await?,
        })
    }

    fn pv(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    /// A claim, and a volume of this source.
    fn add(&self, backup: &mut ForeignBackup, name: &str, policy: &str, source: Value) {
        let pv = self.pv(name);
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": pv, "uid": "u"},
            "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "theirs",
                "persistentVolumeReclaimPolicy": policy, "claimRef": {"namespace": self.namespace, "name": name, "uid": "u"}},
            "status": {"phase": "Bound"}});
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        backup.object("persistentvolumes", &volume);
        backup.object("persistentvolumeclaims", &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": self.namespace, "uid": "u",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "theirs", "volumeName": pv,
                "resources": {"requests": {"storage": "10Gi"}}}, "status": {"phase": "Bound"}}));
    }

    async fn snapshot(&self) -> Result<(String, String)> {
        let volume = self.ec2.volume(NewVolume::default()).await?;
        let taken = self.ec2.client().create_snapshot().volume_id(&volume);
        let taken = taken.send().await?;
        Ok((volume, taken.snapshot_id.context("a snapshot has an id")?))
    }

    async fn restore(&self, backup: &str, code: i32) -> Result<Finished> {
        let storage = format!("--storage=file://{}", self.directory.path().display());
        let job = ArkJob::new(self.cluster.kubeconfig(), &["restore", backup, &storage]);
        let job = job.variable("AWS_ENDPOINT_URL_EC2", self.moto.url());
        job.expect(code).await
    }

    fn claim(&self, name: &str) -> Result<Value> {
        get(self.cluster, &["pvc", name, "-n", &self.namespace])
    }

    /// The volume points at a disk that was made of the snapshot, and its claim is bound to it.
    async fn is_made(&self, name: &str, snapshot: &str) -> Result<()> {
        let bound = wait_until(
            "the claim to be bound",
            Duration::from_secs(30),
            async || {
                let claim = self.claim(name)?;
                Ok((claim["status"]["phase"] == "Bound").then_some(claim))
            },
        );
        let claim = bound.await?;
        ensure!(claim["spec"]["volumeName"] == self.pv(name), "{claim:#}");
        let volume = get(self.cluster, &["pv", &self.pv(name)])?;
        let spec = &volume["spec"];
        let handle = spec["csi"]["volumeHandle"].as_str();
        let handle = handle.or(spec["awsElasticBlockStore"]["volumeID"].as_str());
        let id = handle.and_then(|handle| handle.rsplit('/').next());
        let disks = self.ec2.volumes().await?;
        let disk = disks
            .get(id.unwrap_or(""))
            .context("it points at nothing")?;
        ensure!(disk.snapshot_id() == Some(snapshot), "{disk:?}");
        ensure!(disk.availability_zone() == Some("us-east-1a"), "{disk:?}");
        Ok(())
    }
}

async fn foreign() -> Result<()> {
    let world = World::with_disks("foreign-volumes").await?;
    let others = Others::new(&world).await?;
    let (volume, snapshot) = others.snapshot().await?;
    let (old_volume, old_snapshot) = others.snapshot().await?;
    let hostpath = json!({"hostPath": {"path": "/theirs"}});

    let mut velero = ForeignBackup::new(Maker::Velero, "velero");
    let csi = json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": volume}});
    others.add(&mut velero, "disk", "Delete", csi);
    for name in ["files", "moved", "skipped"] {
        others.add(&mut velero, name, "Delete", hostpath.clone());
    }
    for name in ["kept", "kept-files"] {
        others.add(&mut velero, name, "Retain", hostpath.clone());
    }
    velero.store(others.directory.path())?;
    let info = |name: &str, more: Value| {
        let mut info = json!({"pvcName": name, "pvcNamespace": others.namespace, "pvName": others.pv(name),
            "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": false,
            "pvInfo": {"reclaimPolicy": "Delete", "labels": {}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            info[key] = value.clone();
        }
        info
    };
    let native = json!([{"spec": {"backupName": "velero", "backupUID": "u", "location": "default",
            "persistentVolumeName": others.pv("disk"), "providerVolumeID": volume, "volumeType": "gp2", "volumeAZ": "us-east-1a",
            "volumeIOPS": 100}, "status": {"providerSnapshotID": snapshot, "phase": "Completed"}}]);
    let infos = json!([
        info(
            "skipped",
            json!({"skipped": true, "skippedReason": "volumeSnapshot: by policy;"})
        ),
        info(
            "kept",
            json!({"skipped": true, "skippedReason": "any: by policy;"})
        ),
        info(
            "disk",
            json!({"backupMethod": "NativeSnapshot", "result": "succeeded", "nativeSnapshotInfo": {
            "snapshotHandle": snapshot, "volumeType": "gp2", "volumeAZ": "us-east-1a", "iops": "100", "Phase": "Completed"}})
        ),
        info(
            "files",
            json!({"backupMethod": "PodVolumeBackup", "pvbInfo": {"snapshotHandle": "k", "uploaderType": "kopia",
            "volumeName": "data", "podName": "p", "podNamespace": others.namespace, "Phase": "Completed"}})
        ),
        info(
            "kept-files",
            json!({"backupMethod": "PodVolumeBackup", "pvbInfo": {"snapshotHandle": "k", "uploaderType": "kopia",
            "volumeName": "data", "podName": "p", "podNamespace": others.namespace, "Phase": "Completed"}})
        ),
        info(
            "moved",
            json!({"backupMethod": "CSISnapshot", "snapshotDataMoved": true, "csiSnapshotInfo": {
            "snapshotHandle": "unknown", "size": 0, "driver": "unknown", "vscName": "unknown", "ReadyToUse": null}})
        ),
    ]);
    let files = others.directory.path().join("backups/velero");
    for (file, list) in [("volumesnapshots", &native), ("volumeinfo", &infos)] {
        let gzip = gzip(list.to_string().as_bytes())?;
        std::fs::write(files.join(format!("velero-{file}.json.gz")), gzip)?;
    }
    let said = others.restore("velero", 0).await?;
    others.is_made("disk", &snapshot).await?;
    // What is in a repository of Velero's is not here, and no claim of such a volume is empty without a word.
    let named = said.stderr.lines().filter(|line| {
        line.contains("it gets a new, empty volume") && line.contains("repository of kopia")
    });
    let named: Vec<&str> = named.collect();
    for name in ["files", "moved"] {
        let place = format!(
            "PersistentVolumeClaim {name} in namespace {}",
            others.namespace
        );
        ensure!(
            named.iter().any(|line| line.contains(&place)),
            "{name}: {said:?}"
        );
    }
    let kept = format!(
        "PersistentVolume {}: it comes back as it was",
        others.pv("kept-files")
    );
    ensure!(
        said.stderr
            .lines()
            .any(|line| line.contains(&kept) && line.contains("repository of kopia")),
        "{said:?}"
    );
    for name in ["files", "moved", "skipped"] {
        let claim = others.claim(name)?;
        ensure!(claim["spec"]["volumeName"].is_null(), "{claim:#}");
        ensure!(
            !exists(others.cluster, &["pv", &others.pv(name)])?,
            "{name}"
        );
    }
    let kept = get(others.cluster, &["pv", &others.pv("kept")])?;
    ensure!(kept["spec"]["hostPath"]["path"] == "/theirs", "{kept:#}");

    // Of a CSI driver, where there is none: not made, instead of made empty.
    let mut with_csi = ForeignBackup::new(Maker::Velero, "with-csi");
    let csi = json!({"csi": {"driver": "d.csi", "volumeHandle": "v"}});
    others.add(&mut with_csi, "csi", "Delete", csi);
    with_csi.store(others.directory.path())?;
    let infos = json!([info(
        "csi",
        json!({"backupMethod": "CSISnapshot", "csiSnapshotInfo": {
        "snapshotHandle": "h-1", "size": 1 << 30, "driver": "d.csi", "vscName": "c", "ReadyToUse": true}})
    )]);
    let gzip = gzip(infos.to_string().as_bytes())?;
    let file = "backups/with-csi/with-csi-volumeinfo.json.gz";
    std::fs::write(others.directory.path().join(file), gzip)?;
    let said = others.restore("with-csi", 3).await?;
    says(&said, &["its data is in snapshot h-1 of d.csi"])?;
    let csi = ["pvc", "csi", "-n", &others.namespace];
    ensure!(!exists(others.cluster, &csi)?, "an empty volume");

    let mut original = ForeignBackup::new(Maker::Ark10, "original");
    let source = json!({"awsElasticBlockStore": {"volumeID": format!("aws://us-east-1a/{old_volume}"), "fsType": "ext4"}});
    others.add(&mut original, "old", "Delete", source);
    original.store(others.directory.path())?;
    let path = others
        .directory
        .path()
        .join("backups/original/ark-backup.json");
    let mut description: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    description["status"]["volumeBackups"] = json!({others.pv("old"): {"snapshotID": old_snapshot, "type": "gp2",
        "availabilityZone": "us-east-1a"}});
    std::fs::write(&path, description.to_string())?;
    others.restore("original", 0).await?;
    others.is_made("old", &old_snapshot).await
}

async fn without_volumes() -> Result<()> {
    let world = World::with_disks("without").await?;
    let behind = Behind::new(&world, NewVolume::default()).await?;
    let (disk, namespace) = (&behind.disk, behind.disk.namespace.as_str());

    // A process that does not reach EC2 makes nothing of it, and says how it is done.
    let storage = format!("file://{}", disk.place.path().display());
    let line = format!("restore create b --local --storage {storage}");
    let home = tempfile::tempdir()?;
    let mut command = crate::plugin::outside(disk.cluster.kubeconfig(), &line)?;
    command.env("HOME", home.path());
    let said = crate::plugin::run(Ok(command)).await?;
    ensure!(said.code == Some(2), "{said:?}");
    for text in [
        namespace,
        "snapshots of EBS",
        "restore without --local",
        "--restore-volumes=false",
    ] {
        ensure!(said.stderr.contains(text), "{text:?}: {said:?}");
    }
    ensure!(
        !exists(disk.cluster, &["namespace", namespace])?,
        "it has begun"
    );

    behind
        .job("r", &["--restore-volumes=false"])
        .expect(0)
        .await?;
    behind.nothing_came()?;
    let claim = get(disk.cluster, &["pvc", "data", "-n", namespace])?;
    ensure!(claim["spec"]["volumeName"].is_null(), "{claim:#}");
    ensure!(behind.proxy.requests().is_empty(), "EC2 was asked");

    // The same of a CSI driver, whose user has a snapshot of its own.
    let driver = Driven::new("without-volumes").await?;
    let own = {
        let mut own = volume_snapshot("own", "data", SNAPSHOT_CLASS);
        own["metadata"]["namespace"] = driver.namespace.into();
        own
    };
    let cluster = driver.cluster;
    cluster.kubectl_with_input(&["create", "-f", "-"], &own.to_string())?;
    let ready = "--for=jsonpath={.status.readyToUse}=true";
    cluster.kubectl(&[
        "wait",
        "-n",
        driver.namespace,
        "volumesnapshot/own",
        ready,
        "--timeout=60s",
    ])?;
    driver.back_up(&[]).await?;
    driver.lose().await?;
    let arguments = ["restore", "b", "--restore-volumes=false"];
    driver.place.run(&arguments).await?;
    driver.is_empty()?;
    let left = cluster.kubectl(&[
        "get",
        "volumesnapshots",
        "-n",
        driver.namespace,
        "-o",
        "name",
    ])?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}

/// A claim of the test driver, with a file in its volume.
struct Driven {
    csi: &'static ark_tests::Csi,
    cluster: &'static ControlPlane,
    place: Place<'static>,
    namespace: &'static str,
}

impl Driven {
    async fn new(namespace: &'static str) -> Result<Driven> {
        let world::WithCsi { csi, cluster } = world::csi().await?;
        cluster.kubectl(&["create", "namespace", namespace])?;
        let mut object = claim("data");
        object["metadata"]["namespace"] = namespace.into();
        cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
        let driven = Driven {
            csi,
            cluster,
            place: Place::new(cluster)?,
            namespace,
        };
        std::fs::write(driven.bound()?.data.join("file"), "old")?;
        Ok(driven)
    }

    fn claim(&self) -> Result<Value> {
        get(self.cluster, &["pvc", "data", "-n", self.namespace])
    }

    fn bound(&self) -> Result<ark_tests::csi::Volume> {
        let phase = "--for=jsonpath={.status.phase}=Bound";
        self.cluster.kubectl(&[
            "wait",
            "-n",
            self.namespace,
            "pvc/data",
            phase,
            "--timeout=60s",
        ])?;
        let claim = self.claim()?;
        let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        self.csi.volume(name)?.context("it is bound to nothing")
    }

    async fn back_up(&self, more: &[&str]) -> Result<()> {
        let arguments = ["backup", "b", "--include-namespaces", self.namespace];
        self.place.run(&[&arguments, more].concat()).await.map(drop)
    }

    async fn lose(&self) -> Result<()> {
        delete_namespace(self.cluster, self.namespace)?;
        wait_until("the namespace to go", Duration::from_secs(60), async || {
            let there = exists(self.cluster, &["namespace", self.namespace])?;
            Ok((!there).then_some(()))
        })
        .await
    }

    /// The claim has a volume, and it is new.
    fn is_empty(&self) -> Result<()> {
        let volume = self.bound()?;
        ensure!(volume.source.is_none(), "{volume:?}");
        ensure!(!volume.data.join("file").exists(), "the old data");
        let claim = self.claim()?;
        for key in ["dataSource", "dataSourceRef"] {
            ensure!(claim["spec"][key].is_null(), "{claim:#}");
        }
        Ok(())
    }
}

async fn no_snapshot() -> Result<()> {
    let driver = Driven::new("no-snapshot").await?;
    // One that is kept, on a path of the machine.
    let (cluster, namespace) = (driver.cluster, driver.namespace);
    let kept = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "no-snapshot-kept"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/kept"},
            "claimRef": {"namespace": namespace, "name": "kept"}}});
    let mut its_claim = claim("kept");
    its_claim["metadata"]["namespace"] = namespace.into();
    its_claim["spec"]["storageClassName"] = "none".into();
    its_claim["spec"]["volumeName"] = "no-snapshot-kept".into();
    for object in [&kept, &its_claim] {
        cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
    }
    let bound = || {
        let phase = "--for=jsonpath={.status.phase}=Bound";
        cluster.kubectl(&["wait", "-n", namespace, "pvc/kept", phase, "--timeout=60s"])
    };
    bound()?;
    driver.back_up(&["--snapshot-volumes=false"]).await?;
    ensure!(driver.csi.snapshots_of(&driver.bound()?.id)?.is_empty());
    driver.lose().await?;
    cluster.kubectl(&["delete", "pv", "no-snapshot-kept"])?;
    driver.place.run(&["restore", "b", "--name", "r"]).await?;
    driver.is_empty()?;
    bound()?;
    let volume = get(cluster, &["pv", "no-snapshot-kept"])?;
    ensure!(volume["spec"]["hostPath"]["path"] == "/kept", "{volume:#}");
    cluster.kubectl(&["delete", "pv", "no-snapshot-kept", "--wait=false"])?;
    Ok(())
}

/// It has its disk until it is gone, and what is made before would be lost with it.
async fn going() -> Result<()> {
    let world = World::with_disks("going").await?;
    let cluster = world.cluster;
    let disk = Disk::of(&world, Place::new(cluster)?, cluster, NewVolume::default()).await?;
    let namespace = disk.namespace.as_str();
    let finalizers = |list: &str| {
        let patch = format!("{{\"metadata\": {{\"finalizers\": {list}}}}}");
        let patch = ["patch", "pv", namespace, "--type=merge", "-p", &patch];
        cluster.kubectl(&patch)
    };
    finalizers("[\"ark.test/held\"]")?;
    disk.lose_namespace().await?;
    cluster.kubectl(&["delete", "pv", namespace, "--wait=false"])?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let path = format!("/api/v1/persistentvolumes/{namespace}");
    let looked = proxy.add(Rule::on(move |request| {
        request.method == http::Method::GET && request.path == path
    }));
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let job = disk.job_at(&kubeconfig, &["restore", "b", "--name", "r"]);
    let mut running = std::pin::pin!(job.start()?.wait());
    let watching = wait_until("it to be looked at", Duration::from_secs(60), async || {
        Ok((looked.applied() > 2).then_some(()))
    });
    tokio::select! {
        ended = &mut running => anyhow::bail!("it has not waited: {:?}", ended?),
        looked = watching => looked?,
    }
    ensure!(disk.ec2.volumes().await?.len() == 1, "a disk too early");
    finalizers("null")?;
    let ended = running.await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    disk.bound(namespace).await?;
    disk.made(namespace).await?;
    Ok(())
}
