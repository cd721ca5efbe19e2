//! Snapshots of EBS that go with their backup, and those that none records: on moto's EC2, with a directory as storage.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ark_job::store::{Location, location_id};
use ark_job::volumes::{Data, EbsSnapshot, Owner, VolumeRecord};
use ark_tests::ec2::client;
use ark_tests::foreign::Forged;
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy, MotoServer, Rule, Victim, s3};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use libtest_mimic::Trial;

use crate::expire::Vault;
use crate::world::{disks, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "volumes_sweep::snapshots_go_with_their_backup_and_nobody_elses",
            with_their_backup,
        ),
        scenario(
            "volumes_sweep::what_no_backup_records_is_swept_up_and_nothing_else",
            orphans,
        ),
        scenario(
            "volumes_sweep::an_emptied_bucket_sweeps_nothing_up_unless_forced",
            emptied,
        ),
        scenario(
            "volumes_sweep::a_backup_is_undeleted_only_while_its_snapshots_are_there",
            undelete,
        ),
        scenario(
            "volumes_sweep::one_that_cannot_be_deleted_keeps_the_files_and_a_repetition_goes_on",
            one_fails,
        ),
        scenario(
            "volumes_sweep::a_deletion_that_is_killed_between_snapshots_is_gone_on_with",
            killed,
        ),
    ]
}

struct Scene {
    moto: MotoServer,
    ec2: Client,
    volume: String,
    directory: tempfile::TempDir,
    cluster: &'static ControlPlane,
    cluster_uid: String,
}

impl Scene {
    async fn new() -> Result<Scene> {
        let cluster = disks().await?;
        let moto = MotoServer::start().await?;
        let ec2 = client(moto.url());
        let made = ec2
            .create_volume()
            .availability_zone(format!("{}a", s3::REGION))
            .size(1)
            .send()
            .await?;
        Ok(Scene {
            moto,
            ec2,
            volume: made.volume_id().context("an id")?.to_owned(),
            directory: tempfile::tempdir()?,
            cluster,
            cluster_uid: cluster.kubectl(&[
                "get",
                "ns",
                "kube-system",
                "-o",
                "jsonpath={.metadata.uid}",
            ])?,
        })
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn storage(&self) -> String {
        format!("file://{}", self.root().display())
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        Vault::new(self.cluster.kubeconfig(), self.storage())
            .job(arguments)
            .variable("AWS_ENDPOINT_URL_EC2", self.moto.url())
            .variable("AWS_REGION", s3::REGION)
    }

    fn owner(&self, backup: &str) -> Result<Owner> {
        let place: Location = self.storage().parse()?;
        Ok(Owner {
            location: location_id(&place.canonical()),
            cluster_uid: self.cluster_uid.clone(),
            run: "0123456789abcdef0123456789abcdef".into(),
            attempt: "a".into(),
            backup: backup.into(),
        })
    }

    async fn snapshot(&self, owner: &Owner) -> Result<String> {
        let mut tags = TagSpecification::builder().resource_type(ResourceType::Snapshot);
        for (key, value) in owner.tags("pv") {
            tags = tags.tags(Tag::builder().key(key).value(value).build());
        }
        let made = self
            .ec2
            .create_snapshot()
            .volume_id(&self.volume)
            .tag_specifications(tags.build())
            .send()
            .await?;
        Ok(made.snapshot_id().context("an id")?.to_owned())
    }

    async fn exists(&self, id: &str) -> Result<bool> {
        let listed = self
            .ec2
            .describe_snapshots()
            .owner_ids("self")
            .send()
            .await?;
        Ok(listed
            .snapshots()
            .iter()
            .any(|one| one.snapshot_id() == Some(id)))
    }

    /// A backup that records these snapshots; without its marker, one that was cut off.
    fn store(&self, name: &str, snapshots: &[&str], committed: bool) -> Result<()> {
        let mut forged = Forged::new(name, &[&[("app", "settings", "{}")]]);
        let records: Vec<VolumeRecord> = snapshots.iter().map(|id| record(id)).collect();
        forged.footer.head.volumes.clone_from(&records);
        forged.footer.head.cluster_uid.clone_from(&self.cluster_uid);
        let (archive, mut marker) = forged.build()?;
        marker.commit.volumes = records;
        marker.commit.cluster_uid.clone_from(&self.cluster_uid);
        let directory = self.root().join("backups").join(name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("{name}.tar.gz")), archive)?;
        if committed {
            std::fs::write(directory.join("ark-backup.json"), marker.to_json())?;
        }
        Ok(())
    }

    fn has(&self, path: &str) -> bool {
        self.root().join("backups").join(path).exists()
    }
}

fn record(id: &str) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: format!("pv-of-{id}"),
        claim: None,
        reclaim_policy: "Delete".into(),
        labels: BTreeMap::new(),
        data: Data::Ebs(EbsSnapshot {
            snapshot_id: id.into(),
            region: s3::REGION.into(),
            size_gib: Some(1),
            ..EbsSnapshot::default()
        }),
    }
}

fn says(finished: &Finished, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(
            finished.stderr.contains(text),
            "{text:?} is not in {finished:?}"
        );
    }
    Ok(())
}

async fn with_their_backup() -> Result<()> {
    let scene = Scene::new().await?;
    let owner = scene.owner("b")?;
    let (own, other) = (scene.snapshot(&owner).await?, scene.snapshot(&owner).await?);
    // One that is gone already is deleted.
    scene.store("b", &[&own, "snap-0123456789abcdef0"], true)?;
    let finished = scene.job(&["volumes", "b"]).expect(0).await?;
    says(&finished, &[&own, "completed", "missing", "1Gi"])?;
    let finished = scene.job(&["delete", "b"]).expect(0).await?;
    says(&finished, &["1 snapshot"])?;
    ensure!(!scene.exists(&own).await? && scene.exists(&other).await?);
    ensure!(!scene.has("b"));
    // Another place's, and another backup's.
    let mut elsewhere = scene.owner("copy")?;
    elsewhere.location = "0000000000000000".into();
    let copied = scene.snapshot(&elsewhere).await?;
    for (name, id, why) in [
        ("copy", &copied, "in another place"),
        ("c", &other, "belongs to backup b"),
    ] {
        scene.store(name, &[id], true)?;
        let finished = scene.job(&["delete", name]).expect(1).await?;
        says(&finished, &[why, "nothing was touched"])?;
        ensure!(scene.exists(id).await? && !scene.has(&format!("{name}/ark-deleting.json")));
    }
    Ok(())
}

async fn orphans() -> Result<()> {
    let scene = Scene::new().await?;
    let owner = scene.owner("b")?;
    let recorded = scene.snapshot(&owner).await?;
    scene.store("b", &[&recorded], true)?;
    let of_archive = scene.snapshot(&scene.owner("cut")?).await?;
    scene.store("cut", &[&of_archive], false)?;
    let orphan = scene.snapshot(&owner).await?;
    let (mut place, mut cluster) = (owner.clone(), owner.clone());
    place.location = "0000000000000000".into();
    cluster.cluster_uid = "another".into();
    let others = [
        scene.snapshot(&place).await?,
        scene.snapshot(&cluster).await?,
    ];
    // It is young: nothing goes.
    let finished = scene.job(&["expire"]).expect(0).await?;
    says(&finished, &["0 expired backups"])?;
    ensure!(scene.exists(&orphan).await?);
    let finished = scene.job(&["volumes", "--orphans"]).expect(0).await?;
    says(&finished, &[&orphan, "<none>"])?;
    ensure!(!finished.stderr.contains(&recorded));
    // A backup that cannot be read may record it.
    let broken = scene.root().join("backups/broken");
    std::fs::create_dir_all(&broken)?;
    std::fs::write(broken.join("ark-backup.json"), "{")?;
    let grace = "--grace=0s";
    let finished = scene.job(&["expire", "--dry-run", grace]).expect(3).await?;
    says(&finished, &["what backup broken records is not known"])?;
    std::fs::remove_dir_all(&broken)?;
    // The archive without a marker is swept with its snapshot by that grace, as what it is.
    let planned = scene.job(&["expire", "--dry-run", grace]).expect(0).await?;
    says(&planned, &[&format!("delete  snapshot   {orphan}")])?;
    ensure!(!planned.stderr.contains(&of_archive), "{planned:?}");
    let finished = scene.job(&["expire", grace]).expect(0).await?;
    says(&finished, &["1 snapshot swept up"])?;
    ensure!(!scene.exists(&orphan).await? && !scene.exists(&of_archive).await?);
    ensure!(!scene.has("cut"));
    for id in others.iter().chain([&recorded]) {
        ensure!(scene.exists(id).await?, "{id}");
    }
    scene
        .job(&["expire", grace, "--cluster-uid=another"])
        .expect(0)
        .await?;
    ensure!(scene.exists(&others[0]).await? && !scene.exists(&others[1]).await?);
    Ok(())
}

async fn emptied() -> Result<()> {
    let scene = Scene::new().await?;
    let orphan = scene.snapshot(&scene.owner("b")?).await?;
    std::fs::create_dir_all(scene.root().join("backups"))?;
    scene.job(&["expire", "--grace=0s"]).expect(0).await?;
    ensure!(scene.exists(&orphan).await?);
    scene
        .job(&["expire", "--grace=0s", "--force"])
        .expect(0)
        .await?;
    ensure!(!scene.exists(&orphan).await?);
    Ok(())
}

async fn undelete() -> Result<()> {
    let scene = Scene::new().await?;
    let owner = scene.owner("b")?;
    let ids = [scene.snapshot(&owner).await?, scene.snapshot(&owner).await?];
    scene.store("b", &[&ids[0], &ids[1]], true)?;
    let directory = scene.root().join("backups/b");
    let tombstone = serde_json::json!({"backup": "b", "cause": "delete", "runID": "r", "clusterUID": scene.cluster_uid, "at": "2026-11-23T20:15:01Z"});
    let begun = serde_json::json!({"backup": "b", "cause": "delete", "volumes": [record(&ids[0]), record(&ids[1])]});
    let bury = || -> Result<()> {
        std::fs::write(directory.join("ark-deleting.json"), tombstone.to_string())?;
        let list = directory.join("ark-deleting-snapshots.json");
        Ok(std::fs::write(list, begun.to_string())?)
    };
    // Cut off before the first snapshot was deleted, and after it.
    bury()?;
    scene.job(&["undelete", "b"]).expect(0).await?;
    ensure!(!scene.has("b/ark-deleting.json") && !scene.has("b/ark-deleting-snapshots.json"));
    bury()?;
    scene
        .ec2
        .delete_snapshot()
        .snapshot_id(&ids[0])
        .send()
        .await?;
    let finished = scene.job(&["undelete", "b"]).expect(5).await?;
    says(&finished, &[&ids[0], "is gone"])?;
    ensure!(scene.has("b/ark-deleting.json"));
    // The deletion goes on, and leaves nothing.
    scene.job(&["delete", "b"]).expect(0).await?;
    ensure!(!scene.exists(&ids[1]).await? && !scene.has("b"));
    Ok(())
}

/// What EC2 is asked by a deletion of two snapshots: whether they are there, and twice to delete one.
const DELETION: u64 = 3;

async fn one_fails() -> Result<()> {
    let scene = Scene::new().await?;
    let owner = scene.owner("b")?;
    let ids = [scene.snapshot(&owner).await?, scene.snapshot(&owner).await?];
    scene.store("b", &[&ids[0], &ids[1]], true)?;
    let proxy = FaultProxy::start(scene.moto.url()).await?;
    let denied = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no right</Message></Error></Errors>\
                  <RequestID>r</RequestID></Response>";
    proxy.add(Rule::on(|_| true).only(2).answer(403, &[], denied));
    let job = |arguments: &[&str]| {
        scene
            .job(arguments)
            .variable("AWS_ENDPOINT_URL_EC2", proxy.url())
    };
    let finished = job(&["delete", "b"]).expect(1).await?;
    let volume = format!("pv-of-{}", ids[0]);
    says(&finished, &[&ids[0], &volume, "no right", "undelete b"])?;
    ensure!(scene.exists(&ids[0]).await? && !scene.exists(&ids[1]).await?);
    for file in ["b.tar.gz", "ark-backup.json", "ark-deleting.json"] {
        ensure!(scene.has(&format!("b/{file}")), "{file}");
    }
    proxy.clear_rules();
    job(&["delete", "b"]).expect(0).await?;
    ensure!(!scene.exists(&ids[0]).await? && !scene.has("b"));
    Ok(())
}

async fn killed() -> Result<()> {
    let scene = Scene::new().await?;
    let proxy = FaultProxy::start(scene.moto.url()).await?;
    for (n, after) in (1..=DELETION).flat_map(|n| [(n, false), (n, true)]) {
        let name = format!("b{n}-{after}");
        let owner = scene.owner(&name)?;
        let ids = [scene.snapshot(&owner).await?, scene.snapshot(&owner).await?];
        scene.store(&name, &[&ids[0], &ids[1]], true)?;
        let victim = Victim::default();
        let rule = Rule::on(|_| true).only(n);
        let added = proxy.add(match after {
            true => rule.kill_after(&victim),
            false => rule.kill_before(&victim),
        });
        let job = scene
            .job(&["delete", &name])
            .variable("AWS_ENDPOINT_URL_EC2", proxy.url());
        let running = job.start()?;
        victim.is(running.id());
        let finished = running.wait().await?;
        proxy.clear_rules();
        ensure!(
            finished.code.is_none() && added.applied() == 1,
            "{name}: {finished:?}"
        );
        // As long as a snapshot is there, so is what records it; and one without is never listed.
        let gone = !scene.exists(&ids[0]).await? || !scene.exists(&ids[1]).await?;
        ensure!(scene.has(&format!("{name}/{name}.tar.gz")), "{name}");
        ensure!(
            !gone || scene.has(&format!("{name}/ark-deleting.json")),
            "{name}"
        );
        job.expect(0).await?;
        ensure!(
            !scene.exists(&ids[0]).await? && !scene.exists(&ids[1]).await?,
            "{name}"
        );
        ensure!(!scene.has(&name), "{name}");
    }
    Ok(())
}
