//! Volumes come back from their snapshots: disks of EBS on moto, volumes of a CSI driver on the real controllers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::csi::{DRIVER, claim};
use ark_tests::ec2::{Ec2, NewVolume, is, tags};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy, MotoServer, Rule, Victim, wait_until};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, delete_namespace, exists, get, writes, written};
use crate::world::{self, World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "volumes_restore::f3_f5_f7_a_disk_is_made_from_its_snapshot_once",
            disks,
        ),
        scenario(
            "volumes_restore::a_killed_restore_makes_no_second_disk",
            killed,
        ),
        scenario(
            "volumes_restore::a_disk_that_cannot_be_made_is_an_error_of_its_volume",
            no_snapshot,
        ),
        scenario(
            "volumes_restore::f17_l1_l4_a_claim_is_made_from_the_snapshot_of_its_driver",
            drivers,
        ),
    ]
}

const UNUSED: &str = "ark.heptio.com/unused";

/// moto, and a namespace with a claim bound to a disk there.
pub struct Disk<'a> {
    pub moto: MotoServer,
    pub ec2: Ec2,
    pub place: Place<'a>,
    pub cluster: &'a ControlPlane,
    pub namespace: String,
    volume: String,
}

impl<'a> Disk<'a> {
    async fn new(world: &World, place: Place<'a>, cluster: &'a ControlPlane) -> Result<Disk<'a>> {
        let new = NewVolume {
            tags: &[("team", "shop")],
            ..NewVolume::default()
        };
        Self::of(world, place, cluster, new).await
    }

    /// The same, of any kind.
    pub async fn of(
        world: &World,
        place: Place<'a>,
        cluster: &'a ControlPlane,
        new: NewVolume<'_>,
    ) -> Result<Disk<'a>> {
        let moto = MotoServer::start().await?;
        let ec2 = Ec2::new(moto.url());
        let volume = ec2.volume(new).await?;
        let namespace = world.namespace("app").await?;
        let zone = "us-east-1a";
        let manifest = format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {namespace}, labels: {{topology.kubernetes.io/zone: {zone}}}}}, spec: {{capacity: {{storage: 10Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: ebs, csi: {{driver: ebs.csi.aws.com, volumeHandle: {volume}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: topology.ebs.csi.aws.com/zone, operator: In, values: [{zone}]}}]}}]}}}}, claimRef: {{namespace: {namespace}, name: data}}}}}}\n\
             ---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: {namespace}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: ebs, volumeName: {namespace}, resources: {{requests: {{storage: 10Gi}}}}}}}}\n"
        );
        cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)?;
        let disk = Disk {
            moto,
            ec2,
            place,
            cluster,
            namespace,
            volume,
        };
        disk.bound(&disk.namespace).await?;
        let arguments = ["backup", "b", "--include-namespaces", &disk.namespace];
        disk.job(&arguments).expect(0).await?;
        Ok(disk)
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        self.job_at(self.cluster.kubeconfig(), arguments)
    }

    pub fn job_at(&self, kubeconfig: &std::path::Path, arguments: &[&str]) -> ArkJob {
        let job = self.place.job_at(kubeconfig, arguments);
        job.variable("AWS_ENDPOINT_URL_EC2", self.moto.url())
    }

    pub async fn restore(&self, name: &str, more: &[&str], code: i32) -> Result<Finished> {
        let arguments = ["restore", "b", "--name", name];
        self.job(&[&arguments, more].concat()).expect(code).await
    }

    pub async fn bound(&self, namespace: &str) -> Result<Value> {
        wait_until(
            "the claim to be bound",
            Duration::from_secs(30),
            async || {
                let claim = get(self.cluster, &["pvc", "data", "-n", namespace])?;
                Ok((claim["status"]["phase"] == "Bound").then_some(claim))
            },
        )
        .await
    }

    /// The namespace and its volume go; the disk stays.
    pub async fn lose(&self) -> Result<()> {
        self.lose_namespace().await?;
        self.cluster.kubectl(&["delete", "pv", &self.namespace])?;
        Ok(())
    }

    pub async fn lose_namespace(&self) -> Result<()> {
        delete_namespace(self.cluster, &self.namespace)?;
        wait_until("the namespace to go", Duration::from_secs(60), async || {
            let there = exists(self.cluster, &["namespace", &self.namespace])?;
            Ok((!there).then_some(()))
        })
        .await
    }

    /// The disk of a persistentVolume, which is not the one of the backup.
    pub async fn made(
        &self,
        persistent_volume: &str,
    ) -> Result<(Value, aws_sdk_ec2::types::Volume)> {
        let volume = get(self.cluster, &["pv", persistent_volume])?;
        let handle = volume["spec"]["csi"]["volumeHandle"].as_str().unwrap_or("");
        ensure!(handle != self.volume, "it points at the old disk");
        let mut disks = self.ec2.volumes().await?;
        let disk = disks.remove(handle).context("it points at no disk")?;
        Ok((volume, disk))
    }
}

async fn disks() -> Result<()> {
    let world = World::with_disks("disks").await?;
    let cluster = world.cluster;
    let disk = Disk::new(&world, Place::new(cluster)?, cluster).await?;
    let namespace = disk.namespace.as_str();
    disk.lose().await?;

    // The plan says it, and makes nothing.
    let planned = disk.restore("plan", &["--dry-run=server"], 0).await?;
    ensure!(
        planned.stderr.contains("a volume from snapshot snap-"),
        "{planned:?}"
    );
    ensure!(
        planned.stderr.contains("10 GiB, gp2, in us-east-1a"),
        "{planned:?}"
    );
    ensure!(disk.ec2.volumes().await?.len() == 1, "a plan makes no disk");

    disk.restore("r", &[], 0).await?;
    disk.bound(namespace).await?;
    let (volume, made) = disk.made(namespace).await?;
    ensure!(volume["spec"]["claimRef"]["name"] == "data", "{volume:#}");
    ensure!(made.size() == Some(10) && made.availability_zone() == Some("us-east-1a"));
    let found = tags(made.tags());
    ensure!(
        found["team"] == "shop" && found["ark.heptio.com/restore"] == "r",
        "{found:?}"
    );
    ensure!(!found.contains_key(UNUSED), "{found:?}");

    // Again, nothing is made, and the backup is as the cluster.
    let before = disk.ec2.volumes().await?.len();
    let said = disk.restore("again", &[], 0).await?;
    ensure!(said.stderr.contains("0 created, 0 updated"), "{said:?}");
    ensure!(disk.ec2.volumes().await?.len() == before, "a second disk");
    let diff = ["diff", "b", "--include-namespaces", namespace];
    disk.job(&diff).expect(0).await?;

    // A copy beside it, in another zone, has a volume of its own; a repeat finds it.
    let copy = format!("{namespace}-copy");
    let mapping = format!("{namespace}:{copy}");
    let more = [
        "--namespace-mappings",
        &mapping,
        "--zone-mappings",
        "us-east-1a:us-east-1b",
    ];
    disk.restore("copy", &more, 0).await?;
    let claim = disk.bound(&copy).await?;
    let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    ensure!(name.starts_with("ark-clone-"), "{claim:#}");
    let (volume, made) = disk.made(name).await?;
    ensure!(made.availability_zone() == Some("us-east-1b"));
    let affinity = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    ensure!(
        affinity[0]["matchExpressions"][0]["values"] == json!(["us-east-1b"]),
        "{volume:#}"
    );
    ensure!(volume["metadata"]["annotations"]["ark.heptio.com/original-pv-name"] == namespace);
    let before = disk.ec2.volumes().await?.len();
    let said = disk.restore("copy-again", &more, 0).await?;
    ensure!(said.stderr.contains("0 created, 0 updated"), "{said:?}");
    ensure!(disk.ec2.volumes().await?.len() == before, "a second disk");

    // The claim is gone, and its disk is kept: that is left alone, and said.
    disk.lose_namespace().await?;
    let said = disk.restore("released", &[], 0).await?;
    ensure!(said.stderr.contains("it is there and Released"), "{said:?}");
    ensure!(disk.ec2.volumes().await?.len() == before, "a second disk");
    for volume in [namespace, name] {
        cluster.kubectl(&["delete", "pv", volume, "--wait=false"])?;
    }
    cluster.kubectl(&["delete", "namespace", &copy, "--wait=false"])?;
    Ok(())
}

/// Between the disk and the volume that names it.
async fn killed() -> Result<()> {
    let world = World::with_disks("killed").await?;
    let cluster = world.cluster;
    let disk = Disk::new(&world, Place::new(cluster)?, cluster).await?;
    disk.lose().await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let is_volume = |request: &ark_tests::proxy::Request| {
        request.method == Method::POST && request.path == "/api/v1/persistentvolumes"
    };
    for kill_after in [false, true] {
        proxy.clear_rules();
        let victim = Victim::default();
        let rule = Rule::on(is_volume);
        proxy.add(match kill_after {
            false => rule.kill_before(&victim),
            true => rule.kill_after(&victim),
        });
        let running = disk
            .job_at(&kubeconfig, &["restore", "b", "--name", "r"])
            .start()?;
        victim.is(running.id());
        let ended = running.wait().await?;
        ensure!(ended.code.is_none(), "it was not killed: {ended:?}");
        ensure!(
            disk.ec2.volumes().await?.len() == 2,
            "the old disk, and one"
        );
    }
    proxy.clear_rules();
    disk.restore("r", &[], 0).await?;
    disk.bound(&disk.namespace).await?;
    disk.made(&disk.namespace).await?;
    ensure!(disk.ec2.volumes().await?.len() == 2, "a second disk");
    Ok(())
}

async fn no_snapshot() -> Result<()> {
    let world = World::with_disks("broken").await?;
    let cluster = world.cluster;
    let disk = Disk::new(&world, Place::new(cluster)?, cluster).await?;
    let namespace = disk.namespace.as_str();
    disk.lose().await?;
    // Refused, as with a key that may not be used.
    let proxy = FaultProxy::start(disk.moto.url()).await?;
    proxy.add(Rule::on(is("CreateVolume")).answer(
        403,
        &[],
        ark_tests::ec2::refusal("UnauthorizedOperation", "no"),
    ));
    let job = disk.place.job(&["restore", "b", "--name", "refused"]);
    let job = job.variable("AWS_ENDPOINT_URL_EC2", proxy.url());
    let said = job.expect(3).await?;
    let expected =
        format!("PersistentVolume {namespace}: no volume could be made of its snapshot snap-");
    ensure!(said.stderr.contains(&expected), "{said:?}");
    ensure!(said.stderr.contains("UnauthorizedOperation"), "{said:?}");
    ensure!(
        !exists(cluster, &["pv", namespace])?,
        "a volume without a disk"
    );
    let claim = get(cluster, &["pvc", "data", "-n", namespace])?;
    ensure!(
        claim["status"]["phase"] == "Pending" && claim["spec"]["volumeName"] == namespace,
        "{claim:#}"
    );
    // When it is mended, the same restore completes.
    disk.restore("refused", &[], 0).await?;
    disk.bound(namespace).await?;
    disk.made(namespace).await?;
    Ok(())
}

async fn drivers() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let (namespace, copy) = ("restored", "restored-copy");
    cluster.kubectl(&["create", "namespace", namespace])?;
    let mut object = claim("data");
    object["metadata"]["namespace"] = namespace.into();
    cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
    let bound = |namespace: &'static str| -> Result<ark_tests::csi::Volume> {
        let phase = "--for=jsonpath={.status.phase}=Bound";
        cluster.kubectl(&["wait", "-n", namespace, "pvc/data", phase, "--timeout=60s"])?;
        let claim = get(cluster, &["pvc", "data", "-n", namespace])?;
        let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        csi.volume(name)?.context("it is bound to nothing")
    };
    std::fs::write(bound(namespace)?.data.join("file"), "old")?;
    let place = Place::new(cluster)?;
    place
        .run(&["backup", "b", "--include-namespaces", namespace])
        .await?;
    std::fs::write(bound(namespace)?.data.join("file"), "new")?;
    delete_namespace(cluster, namespace)?;
    wait_until("the namespace to go", Duration::from_secs(60), async || {
        Ok((!exists(cluster, &["namespace", namespace])?).then_some(()))
    })
    .await?;
    let planned = place.run(&["restore", "b", "--dry-run=server"]).await?;
    ensure!(
        planned.stderr.contains(&format!("of {DRIVER}")),
        "{planned:?}"
    );
    place.run(&["restore", "b", "--name", "r"]).await?;
    let text = std::fs::read_to_string(bound(namespace)?.data.join("file"))?;
    ensure!(text == "old", "{text}");
    // Again, nothing is written; and beside it, once more.
    let before = writes(cluster).await?;
    let said = place.run(&["restore", "b", "--name", "again"]).await?;
    ensure!(said.stderr.contains("0 created, 0 updated"), "{said:?}");
    let more = written(&before, &writes(cluster).await?);
    let ours = more.iter().filter(|what| what.starts_with("POST"));
    ensure!(ours.count() == 0, "{more:?}");
    let mapping = format!("{namespace}:{copy}");
    let arguments = [
        "restore",
        "b",
        "--name",
        "copy",
        "--namespace-mappings",
        &mapping,
    ];
    place.run(&arguments).await?;
    let text = std::fs::read_to_string(bound(copy)?.data.join("file"))?;
    ensure!(text == "old", "{text}");

    // A cluster without the driver says so, and makes no empty volume.
    let world = World::with_disks("no-driver").await?;
    let mapping = format!("{namespace}:{}", world.namespace("app").await?);
    let arguments = ["restore", "b", "--namespace-mappings", &mapping];
    let said = place
        .job_at(world.cluster.kubeconfig(), &arguments)
        .expect(3)
        .await?;
    ensure!(
        said.stderr.contains("does not serve volumesnapshots"),
        "{said:?}"
    );
    let target = mapping.split(':').nth(1).unwrap_or_default();
    ensure!(
        !exists(world.cluster, &["pvc", "data", "-n", target])?,
        "an empty volume"
    );
    Ok(())
}
