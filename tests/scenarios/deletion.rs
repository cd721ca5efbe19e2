//! Backups go, with everything of theirs and nothing else; a bucket's locks are kept; what was cut off in time comes back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ark_tests::foreign::{ForeignBackup, Maker, gzip};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{Bucket, ControlPlane, FaultProxy, Rule};
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::backup::{Stored, read};
use crate::place::{Place, cluster_with_ark, exists, get};
use crate::world::{s3, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "deletion::everything_of_a_backup_goes_and_nothing_else",
            everything,
        ),
        scenario(
            "deletion::a_restore_goes_by_its_own_name_with_its_files_and_nothing_else",
            restores,
        ),
        scenario(
            "deletion::in_a_versioned_bucket_no_version_is_left",
            versions,
        ),
        scenario(
            "deletion::what_the_bucket_keeps_is_not_touched_and_it_is_said_until_when",
            locked,
        ),
        scenario(
            "deletion::in_a_directory_nothing_is_left_and_others_backups_go_by_name",
            on_files,
        ),
        scenario(
            "deletion::a_deletion_that_was_cut_off_in_time_is_taken_back",
            undeleted,
        ),
        scenario("deletion::a_sweeps_tombstone_over_a_marker_is_void", void),
        scenario(
            "deletion::what_is_stored_is_listed_without_a_cluster",
            listed,
        ),
    ]
}

/// A cluster with Ark's resources whose location `default` is in a bucket, behind a proxy that may misbehave.
pub struct Scene {
    pub cluster: ControlPlane,
    pub bucket: Bucket,
    pub prefix: String,
    /// In front of the bucket.
    pub proxy: FaultProxy,
}

impl Scene {
    pub async fn new(prefix: &str) -> Result<Scene> {
        let bucket = s3().await?.bucket("deletion").await?;
        Scene::in_bucket(bucket, prefix).await
    }

    pub async fn in_bucket(bucket: Bucket, prefix: &str) -> Result<Scene> {
        let cluster = cluster_with_ark().await?;
        let proxy = FaultProxy::start(s3().await?.url()).await?;
        let scene = Scene {
            cluster,
            bucket,
            prefix: prefix.to_owned(),
            proxy,
        };
        scene.cluster.kubectl_with_input(
            &["create", "-f", "-"],
            &json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
                "metadata": {"name": "default", "namespace": "heptio-ark"},
                "spec": {"url": scene.url(scene.proxy.url())}})
            .to_string(),
        )?;
        Ok(scene)
    }

    /// The storage URL behind this endpoint.
    pub fn url(&self, endpoint: &str) -> String {
        let (bucket, prefix) = (self.bucket.name(), &self.prefix);
        format!("s3://{bucket}/{prefix}?endpoint={endpoint}&path-style=true&region=us-east-1")
    }

    pub fn job(&self, arguments: &[&str]) -> ArkJob {
        ArkJob::new(self.cluster.kubeconfig(), arguments)
    }

    /// A backup, and a restore of it that is called `r-NAME`, with a log that an earlier attempt left.
    pub async fn make(&self, name: &str) -> Result<()> {
        let backup = ["backup", name, "--include-namespaces", "app"];
        self.job(&backup).expect(0).await?;
        let restore = format!("r-{name}");
        let restore = ["restore", name, "--name", &restore];
        self.job(&restore).expect(0).await?;
        for map in [format!("ark-log-{name}"), format!("ark-results-r-{name}")] {
            self.cluster
                .kubectl(&["create", "configmap", &map, "-n", "heptio-ark"])?;
        }
        Ok(())
    }

    /// The keys of everything that belongs to a backup or its restore.
    pub async fn keys(&self, name: &str) -> Result<Vec<String>> {
        let prefix = &self.prefix;
        let mut keys = self
            .bucket
            .keys(&format!("{prefix}/backups/{name}/"))
            .await?;
        let restores = format!("{prefix}/restores/r-{name}/");
        keys.extend(self.bucket.keys(&restores).await?);
        Ok(keys)
    }

    /// That a backup is gone: from storage, and every resource of it.
    pub async fn is_gone(&self, name: &str) -> Result<()> {
        let keys = self.keys(name).await?;
        ensure!(keys.is_empty(), "{name}: {keys:?}");
        for (resource, name) in [
            ("backups.ark.heptio.com", name.to_owned()),
            ("restores.ark.heptio.com", format!("r-{name}")),
            ("configmap", format!("ark-log-{name}")),
            ("configmap", format!("ark-results-r-{name}")),
        ] {
            let is = exists(&self.cluster, &[resource, &name, "-n", "heptio-ark"])?;
            ensure!(!is, "{resource} {name} is still there");
        }
        Ok(())
    }

    pub fn phase(&self, name: &str) -> Result<Value> {
        let record = ["backups.ark.heptio.com", name, "-n", "heptio-ark"];
        Ok(get(&self.cluster, &record)?["status"]["phase"].clone())
    }

    /// That a backup is whole, by its marker, and every byte of it can be read.
    pub async fn is_whole(&self, name: &str) -> Result<()> {
        let stored = Stored::fetch(&self.bucket, &self.prefix, name).await?;
        let names = read(&stored.path())?;
        ensure!(!names.is_empty(), "{name} is empty");
        Ok(())
    }
}

/// That the last lines say this.
pub fn says(finished: &Finished, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(
            finished.stderr.contains(text),
            "{text:?} is not said: {finished:?}"
        );
    }
    Ok(())
}

async fn everything() -> Result<()> {
    let scene = Scene::new("everything").await?;
    scene.make("b").await?;
    scene.make("b2").await?;
    let others = scene.keys("b2").await?;
    // Another cluster's restore of that name may have its results in the plain directory.
    let finished = scene.job(&["delete", "b"]).expect(0).await?;
    says(
        &finished,
        &["backup b is deleted", "1 restore", "its record"],
    )?;
    scene.is_gone("b").await?;
    ensure!(scene.keys("b2").await? == others, "others were touched");
    scene.is_whole("b2").await?;
    // There is none: that is said. And with one that is there, in parts.
    let finished = scene.job(&["delete", "b"]).expect(10).await?;
    says(&finished, &["there is no backup \"b\""])?;
    let finished = scene.job(&["delete", "b", "b2"]).expect(3).await?;
    says(&finished, &["1 backup is deleted, 1 is not"])?;
    scene.is_gone("b2").await?;
    // Of a failed backup there is only the record.
    scene.make("dead").await?;
    let archive = format!("{}/backups/dead/", scene.prefix);
    for key in scene.bucket.keys(&archive).await? {
        scene.bucket.delete(&key).await?;
    }
    let failed = json!({"status": {"phase": "Failed"}}).to_string();
    let record = ["backups.ark.heptio.com", "dead", "-n", "heptio-ark"];
    let patch = ["--subresource=status", "--type=merge", "-p", &failed];
    scene
        .cluster
        .kubectl(&[&["patch"], &record[..], &patch].concat())?;
    scene.job(&["delete", "dead"]).expect(0).await?;
    ensure!(!exists(&scene.cluster, &record)?, "the record is left");
    ensure!(!exists(
        &scene.cluster,
        &["configmap", "ark-log-dead", "-n", "heptio-ark"]
    )?);
    // A record of a backup in another location is not this one's.
    scene.make("elsewhere").await?;
    let url = scene.url(s3().await?.url());
    scene
        .job(&["delete", "elsewhere", "--storage", &url])
        .expect(0)
        .await?;
    ensure!(scene.phase("elsewhere")? == "Completed");
    Ok(())
}

async fn restores() -> Result<()> {
    let name = format!("restores-{}", std::process::id());
    let bucket = s3().await?.versioned_bucket(&name, true).await?;
    let scene = Scene::in_bucket(bucket, "r").await?;
    scene.make("b").await?;
    let other = ["restore", "b", "--name", "other"];
    scene.job(&other).expect(0).await?;
    let of = async |what: &str| scene.bucket.versions(&format!("r/{what}/")).await;
    let (all, others) = (of("restores").await?, of("restores/other").await?);
    let stored = of("restores/r-b").await?;
    ensure!(stored.len() == 3 && others.len() == 3, "{all:?}");
    let refused = async |code: i32, arguments: &[&str], text: &str| {
        let finished = scene.job(arguments).expect(code).await?;
        says(&finished, &[text])?;
        ensure!(of("restores").await? == all, "touched: {arguments:?}");
        Ok::<_, anyhow::Error>(())
    };

    // Nothing is deleted in restore-only mode, of who is at work, or where the backup is not.
    let mode = ["configmap", "ark", "-n", "heptio-ark"];
    scene
        .cluster
        .kubectl(&[&["create"], &mode[..], &["--from-literal=mode=RestoreOnly"]].concat())?;
    refused(4, &["delete-restore", "r-b"], "restore-only mode").await?;
    scene.cluster.kubectl(&[&["delete"], &mode[..]].concat())?;
    let status = |status: Value| {
        let text = json!({ "status": status }).to_string();
        scene.cluster.kubectl(&[
            "patch",
            "restores.ark.heptio.com",
            "other",
            "-n",
            "heptio-ark",
            "--subresource=status",
            "--type=merge",
            "-p",
            &text,
        ])
    };
    let now = jiff::Timestamp::now().to_string();
    status(json!({"phase": "InProgress", "heartbeat": now}))?;
    refused(11, &["delete-restore", "other"], "restore other is at work").await?;
    status(json!({"phase": "Completed", "heartbeat": null}))?;
    let url = scene.url(s3().await?.url());
    refused(
        2,
        &["delete-restore", "r-b", "--storage", &url],
        "location default",
    )
    .await?;

    // What the bucket keeps is left, and found by the resource when it is deleted again.
    let hold = async |on: bool| {
        let status = match on {
            true => ObjectLockLegalHoldStatus::On,
            false => ObjectLockLegalHoldStatus::Off,
        };
        let put = scene.bucket.client().put_object_legal_hold().bucket(&name);
        put.key("r/restores/r-b/restore-r-b-results.gz")
            .legal_hold(ObjectLockLegalHold::builder().status(status).build())
            .send()
            .await
            .context("legal hold")
    };
    hold(true).await?;
    let finished = scene.job(&["delete-restore", "r-b"]).expect(4).await?;
    says(
        &finished,
        &["1 object of restore r-b is locked", "legal hold"],
    )?;
    ensure!(of("restores/r-b").await?.len() == 1);
    let record = ["restores.ark.heptio.com", "r-b", "-n", "heptio-ark"];
    ensure!(exists(&scene.cluster, &record)?, "its resource has gone");
    hold(false).await?;
    let finished = scene.job(&["delete-restore", "r-b"]).expect(0).await?;
    says(&finished, &["restore r-b is deleted: 1 object"])?;

    // Then all of it is gone, with what is kept beside it, and nothing else.
    ensure!(of("restores/r-b").await?.is_empty(), "versions are left");
    let kept = ["configmap", "ark-results-r-b", "-n", "heptio-ark"];
    for gone in [record, kept] {
        ensure!(!exists(&scene.cluster, &gone)?, "{gone:?} is left");
    }
    ensure!(of("restores/other").await? == others, "others were touched");
    scene.is_whole("b").await?;
    let both = ["delete-restore", "r-b", "other", "other"];
    let finished = scene.job(&both).expect(3).await?;
    says(
        &finished,
        &[
            "1 restore is deleted, 1 is not",
            "there is no restore \"r-b\"",
        ],
    )?;
    ensure!(of("restores").await?.is_empty());
    scene
        .job(&["delete-restore", "r-b"])
        .expect(10)
        .await
        .map(drop)
}

async fn versions() -> Result<()> {
    let name = format!("versions-{}", std::process::id());
    let bucket = s3().await?.versioned_bucket(&name, false).await?;
    let scene = Scene::in_bucket(bucket, "v").await?;
    scene.make("b").await?;
    let of = async |what: &str| scene.bucket.versions(&format!("v/{what}/")).await;
    ensure!(of("backups/b").await?.len() >= 6, "versions are not listed");
    ensure!(of("restores/r-b").await?.len() == 3);
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    let left = [of("backups").await?, of("restores").await?].concat();
    ensure!(left.is_empty(), "versions are left: {left:?}");
    // Undeleting leaves no version of the tombstone either.
    scene.make("back").await?;
    cut_off(&scene, "back", 1).await?;
    scene.job(&["undelete", "back"]).expect(0).await?;
    let versions = of("backups/back").await?;
    ensure!(
        !versions
            .iter()
            .any(|key| key.ends_with("ark-deleting.json")),
        "{versions:?}"
    );
    scene.is_whole("back").await
}

async fn locked() -> Result<()> {
    let name = format!("locked-{}", std::process::id());
    let bucket = s3().await?.versioned_bucket(&name, true).await?;
    let scene = Scene::in_bucket(bucket, "l").await?;
    scene.make("b").await?;
    let client = scene.bucket.client();
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let before = scene.bucket.objects("l/").await?;
    let unharmed = async |texts: &[&str]| {
        let finished = scene.job(&["delete", "b"]).expect(4).await?;
        says(&finished, texts)?;
        says(&finished, &["nothing was touched"])?;
        ensure!(scene.bucket.objects("l/").await? == before, "touched");
        ensure!(scene.phase("b")? == "Completed");
        let versions = scene.bucket.versions("l/backups/").await?;
        let objects = scene.bucket.keys("l/backups/").await?;
        ensure!(versions == objects, "{versions:?}");
        Ok::<_, anyhow::Error>(())
    };
    let hold = async |key: &str, on: bool| {
        let status = match on {
            true => ObjectLockLegalHoldStatus::On,
            false => ObjectLockLegalHoldStatus::Off,
        };
        client
            .put_object_legal_hold()
            .bucket(&name)
            .key(key)
            .legal_hold(ObjectLockLegalHold::builder().status(status).build())
            .send()
            .await
            .with_context(|| format!("legal hold on {key}"))
    };
    for key in ["l/backups/b/b.tar.gz", "l/backups/b/ark-backup.json"] {
        hold(key, true).await?;
        unharmed(&["under a legal hold", key.trim_start_matches("l/")]).await?;
        hold(key, false).await?;
    }
    // A file that is kept, though archive and marker are not: it is left and named, and so is the tombstone.
    let log = "l/backups/b/b-logs.gz";
    hold(log, true).await?;
    let finished = scene.job(&["delete", "b"]).expect(4).await?;
    says(&finished, &["b-logs.gz", "under a legal hold", "is locked"])?;
    ensure!(scene.bucket.keys("l/backups/").await? == ["l/backups/b/ark-deleting.json", log]);
    scene.job(&["delete", "b"]).expect(4).await?;
    hold(log, false).await?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    let left = scene.bucket.versions("l/backups/").await?;
    ensure!(left.is_empty(), "{left:?}");
    // Retention has an end, which is said.
    scene.make("b").await?;
    let before = scene.bucket.objects("l/").await?;
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(DateTime::from_secs(until.as_second()));
    client
        .put_object_retention()
        .bucket(&name)
        .key("l/backups/b/b.tar.gz")
        .retention(retention.build())
        .send()
        .await
        .context("retention")?;
    let finished = scene.job(&["delete", "b"]).expect(4).await?;
    let date = until.to_string();
    says(&finished, &["locked by the bucket until", &date[..19]])?;
    ensure!(scene.bucket.objects("l/").await? == before, "touched");
    ensure!(scene.phase("b")? == "Completed");
    Ok(())
}

/// All files under a directory.
pub fn files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    found.insert(path.strip_prefix(root)?.to_owned());
                }
            }
        }
    }
    Ok(found)
}

async fn on_files() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let root = place.path();
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    place.run(&["restore", "b", "--name", "r-b"]).await?;
    place.run(&["delete", "b"]).await?;
    ensure!(files(root)?.is_empty(), "{:?}", files(root)?);
    for (resource, name) in [("backups", "b"), ("restores", "r-b")] {
        let resource = format!("{resource}.ark.heptio.com");
        ensure!(!exists(&cluster, &[&resource, name, "-n", "heptio-ark"])?);
    }
    // Others' backups go by name, each without its neighbours.
    for maker in Maker::ALL {
        for name in ["one", "two"] {
            ForeignBackup::new(maker, name).store(root)?;
        }
        let all = files(root)?;
        place.run(&["delete", "one"]).await?;
        let left = files(root)?;
        let expected: BTreeSet<PathBuf> = all
            .into_iter()
            .filter(|path| !path.display().to_string().contains("one/"))
            .collect();
        ensure!(left == expected && !left.is_empty(), "{maker:?}: {left:?}");
        place.job(&["delete", "one"]).expect(10).await?;
        // A deletion that was cut off behind the tombstone is respected, and can be taken back.
        let original = matches!(maker, Maker::Ark05 | Maker::Ark03);
        let tombstone = json!({"backup": "two", "cause": "delete", "original": original, "runID": "r",
            "clusterUID": "c", "at": "2026-11-23T20:15:01Z"});
        std::fs::create_dir_all(root.join("backups/two"))?;
        let path = root.join("backups/two/ark-deleting.json");
        std::fs::write(&path, tombstone.to_string())?;
        let finished = place
            .job(&["show", "two", "app/configmaps/x"])
            .expect(10)
            .await?;
        says(&finished, &["is being deleted"])?;
        place.run(&["undelete", "two"]).await?;
        ensure!(!path.exists(), "{maker:?}: the tombstone is left");
        ensure!(files(root)? == expected, "{maker:?}: {:?}", files(root)?);
        // Without its archive it is lost.
        std::fs::create_dir_all(root.join("backups/two"))?;
        std::fs::write(&path, tombstone.to_string())?;
        let archive = match original {
            true => root.join("two/two.tar.gz"),
            false => root.join("backups/two/two.tar.gz"),
        };
        std::fs::remove_file(archive)?;
        let finished = place.job(&["undelete", "two"]).expect(5).await?;
        says(&finished, &["its archive is gone"])?;
        place.run(&["delete", "two"]).await?;
        ensure!(files(root)?.is_empty(), "{maker:?}: {:?}", files(root)?);
    }
    // What a deletion has left at its very end is never gone on with for another backup of that name.
    ForeignBackup::new(Maker::Ark05, "same").store(root)?;
    std::fs::create_dir_all(root.join("backups/same"))?;
    let tombstone = json!({"backup": "same", "cause": "delete", "runID": "r", "clusterUID": "c", "at": "2026-11-23T20:15:01Z"});
    let path = root.join("backups/same/ark-deleting.json");
    std::fs::write(&path, tombstone.to_string())?;
    place.run(&["delete", "same"]).await?;
    ensure!(files(root)?.len() == 2 && !path.exists());
    place.run(&["delete", "same"]).await?;
    ensure!(files(root)?.is_empty());
    // A directory at the top that is nobody's backup is not touched, nor are Velero's.
    for stranger in ["kopia/x", "restores/r/x", "photos/ark-backup.json"] {
        let path = root.join(stranger);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        std::fs::write(path, "x")?;
    }
    for name in ["kopia", "restores", "backups", "photos"] {
        place.job(&["delete", name]).expect(10).await?;
    }
    ensure!(files(root)?.len() == 3);
    // Snapshots are not orphaned.
    let snapshots = "backups/snap/snap-volumesnapshots.json.gz";
    ForeignBackup::new(Maker::Velero, "snap").store(root)?;
    let of_another_cloud = br#"[{"spec":{"persistentVolumeName":"pv-1"},"status":{"phase":"Completed","providerSnapshotID":"gce-1"}}]"#;
    std::fs::write(root.join(snapshots), gzip(of_another_cloud)?)?;
    let before = files(root)?;
    let finished = place.job(&["delete", "snap"]).expect(1).await?;
    says(
        &finished,
        &["pv-1", "nothing was touched", "velero backup delete"],
    )?;
    ensure!(files(root)? == before);
    std::fs::write(root.join(snapshots), gzip(b"[]")?)?;
    place.run(&["delete", "snap"]).await?;
    ensure!(files(root)?.len() == 3);
    // What is no backup is not touched.
    std::fs::create_dir_all(root.join("backups/notes"))?;
    std::fs::write(root.join("backups/notes/todo.txt"), "x")?;
    let finished = place.job(&["delete", "notes"]).expect(10).await?;
    says(&finished, &["backups/notes/ in", "holds no backup"])?;
    // Nor what its maker is still making.
    for (maker, phase, code) in [
        (Maker::Velero, "", 11),
        (Maker::Velero, "InProgress", 11),
        (Maker::Velero, "WaitingForPluginOperations", 11),
        (Maker::Ark10, "InProgress", 11),
        (Maker::Ark05, "New", 11),
        (Maker::Ark05, "Failed", 0),
        (Maker::Velero, "PartiallyFailed", 0),
        (Maker::Velero, "FailedValidation", 0),
    ] {
        let mut made = ForeignBackup::new(maker, "made");
        made.phase = phase.to_owned();
        made.store(root)?;
        let before = files(root)?;
        let finished = place.job(&["delete", "made"]).expect(code).await?;
        if code == 0 {
            continue;
        }
        says(&finished, &["is being made by", phase, "hint: wait for"])?;
        ensure!(files(root)? == before, "{maker:?} {phase}");
        let directory = match maker {
            Maker::Ark05 => "made",
            _ => "backups/made",
        };
        std::fs::remove_dir_all(root.join(directory))?;
    }
    ensure!(files(root)?.len() == 4, "{:?}", files(root)?);
    Ok(())
}

fn is_delete(request: &ark_tests::proxy::Request) -> bool {
    request.method == "DELETE"
}

/// Deletes a backup, and is killed at its n-th DELETE of an object, before the store sees it.
pub async fn cut_off(scene: &Scene, name: &str, n: u64) -> Result<()> {
    let victim = ark_tests::Victim::default();
    let added = scene
        .proxy
        .add(Rule::on(is_delete).only(n).kill_before(&victim));
    let running = scene.job(&["delete", name]).start()?;
    victim.is(running.id());
    let finished = running.wait().await?;
    scene.proxy.clear_rules();
    ensure!(
        finished.code.is_none() && added.applied() == 1,
        "not killed: {finished:?}"
    );
    Ok(())
}

async fn undeleted() -> Result<()> {
    let scene = Scene::new("undeleted").await?;
    scene.make("b").await?;
    let before = scene.bucket.objects("undeleted/").await?;
    // Nothing is being deleted: that is no failure.
    let finished = scene.job(&["undelete", "b"]).expect(0).await?;
    says(&finished, &["is not being deleted"])?;
    // Right behind the tombstone; and when velero-backup.json is gone, which is made again, byte for byte.
    for n in [1, 2] {
        cut_off(&scene, "b", n).await?;
        ensure!(scene.phase("b")? == "Deleting");
        let velero = scene.bucket.keys("undeleted/backups/b/velero").await?;
        ensure!(velero.len() == usize::from(n == 1), "{velero:?}");
        let finished = scene
            .job(&["show", "b", "app/configmaps/x"])
            .expect(10)
            .await?;
        says(&finished, &["is being deleted"])?;
        // A restore does not begin.
        let restore = ["restore", "b", "--name", "late"];
        let finished = scene.job(&restore).expect(10).await?;
        says(&finished, &["is being deleted"])?;
        let late = ["restores.ark.heptio.com", "late", "-n", "heptio-ark"];
        scene.cluster.kubectl(&[&["delete"], &late[..]].concat())?;
        // It is not listed, but among the deleted.
        let url = format!("--storage={}", scene.url(scene.proxy.url()));
        let listed = scene
            .job(&["list", "--output=json", &url])
            .expect(0)
            .await?;
        ensure!(!listed.stderr.contains(r#""name":"b""#), "{listed:?}");
        let listed = scene.job(&["list", "--deleted", &url]).expect(0).await?;
        says(&listed, &["delete", "intact"])?;
        let finished = scene.job(&["undelete", "b"]).expect(0).await?;
        says(&finished, &["is there again"])?;
        ensure!(scene.bucket.objects("undeleted/").await? == before);
        ensure!(scene.phase("b")? == "Completed");
        scene.is_whole("b").await?;
    }
    // Who undeletes what has expired is told that it goes again.
    let expired = ["--ttl=1s", "--include-namespaces=app"];
    scene
        .job(&[&["backup", "old"], &expired[..]].concat())
        .expect(0)
        .await?;
    cut_off(&scene, "old", 1).await?;
    let finished = scene.job(&["undelete", "old"]).expect(0).await?;
    says(
        &finished,
        &["is there again", "hint: old has expired", "restore-only on"],
    )?;
    scene.job(&["delete", "old"]).expect(0).await?;
    // When a file is gone, it is too late; deleting goes on.
    cut_off(&scene, "b", 2).await?;
    scene
        .bucket
        .delete("undeleted/backups/b/b-results.gz")
        .await?;
    let left = scene.keys("b").await?;
    let finished = scene.job(&["undelete", "b"]).expect(5).await?;
    says(&finished, &["b-results.gz is gone"])?;
    ensure!(scene.keys("b").await? == left, "something was written");
    // And when one is not what it was.
    scene
        .bucket
        .put("undeleted/backups/b/b-results.gz", "x")
        .await?;
    let finished = scene.job(&["undelete", "b"]).expect(5).await?;
    says(&finished, &["b-results.gz has 1 bytes"])?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    let finished = scene.job(&["undelete", "b"]).expect(10).await?;
    says(&finished, &["there is no backup"])
}

async fn void() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let root = place.path();
    let backup = ["backup", "b", "--include-namespaces", "app"];
    place.job(&backup).of("job", "pod").expect(0).await?;
    let whole = files(root)?;
    let tombstone = root.join("backups/b/ark-deleting.json");
    let put = |cause: &str| {
        let json = json!({"backup": "b", "cause": cause, "runID": "r", "clusterUID": "c", "at": "2026-11-23T20:15:01Z"});
        std::fs::write(&tombstone, json.to_string())
    };
    let list = |flags: &[&str]| place.job(&[&["list", "--output=json"], flags].concat());
    // Who only reads passes over it.
    put("sweep")?;
    place.run(&["restore", "b", "--name", "r"]).await?;
    let found = list(&[]).expect(0).await?;
    says(&found, &[r#""name":"b""#])?;
    let found = list(&["--deleted"]).expect(0).await?;
    says(&found, &["0 backups being deleted"])?;
    ensure!(tombstone.exists());
    // Another attempt of the run that made it removes it.
    place.job(&backup).of("job", "pod-2").expect(0).await?;
    ensure!(!tombstone.exists());
    // No other one's: that is no mistake.
    for cause in ["delete", "expire", "quarantine"] {
        put(cause)?;
        let finished = place.job(&backup).of("job", "pod-3").expect(11).await?;
        says(&finished, &["is being deleted"])?;
        ensure!(tombstone.exists());
    }
    // It can be removed by name, and the backup can be deleted by name all the same.
    put("sweep")?;
    place.run(&["undelete", "b"]).await?;
    ensure!(whole.is_subset(&files(root)?) && !tombstone.exists());
    put("sweep")?;
    place.run(&["delete", "b"]).await?;
    ensure!(files(root)?.is_empty(), "{:?}", files(root)?);
    Ok(())
}

async fn listed() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let root = place.path();
    for name in ["a", "damaged", "going"] {
        place
            .run(&["backup", name, "--include-namespaces", "app"])
            .await?;
    }
    ForeignBackup::new(Maker::Velero, "v").store(root)?;
    ForeignBackup::new(Maker::Ark05, "o").store(root)?;
    let mut running = ForeignBackup::new(Maker::Velero, "running");
    running.phase = "InProgress".to_owned();
    running.store(root)?;
    std::fs::write(root.join("backups/damaged/ark-backup.json"), "{")?;
    let tombstone = json!({"backup": "going", "cause": "expire", "runID": "r", "clusterUID": "c", "at": "2026-11-23T20:15:01Z"});
    std::fs::write(
        root.join("backups/going/ark-deleting.json"),
        tombstone.to_string(),
    )?;
    // No cluster is asked.
    let list = |flags: &[&str]| {
        let storage = format!("--storage=file://{}", root.display());
        let arguments = [&["list", &storage], flags].concat();
        ArkJob::new(Path::new("/nonexistent"), &arguments)
    };
    let finished = list(&["--output=json"]).expect(3).await?;
    let (said, stdout) = finished
        .stderr
        .split_once("stdout: ")
        .context("no output")?;
    ensure!(
        said.contains("5 backups") && said.contains("of which 1 cannot be read"),
        "{said}"
    );
    let rows: Vec<Value> = stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let column = |name: &str| -> Vec<&str> {
        let texts = rows.iter().map(|row| row[name].as_str());
        texts.map(Option::unwrap_or_default).collect()
    };
    ensure!(column("name") == ["a", "damaged", "o", "running", "v"]);
    ensure!(column("origin") == ["ark", "", "original", "velero", "velero"]);
    ensure!(column("phase") == ["Completed", "", "Completed", "InProgress", "Completed"]);
    ensure!(
        rows[1]["error"]
            .as_str()
            .is_some_and(|why| why.contains("marker"))
    );
    ensure!(
        rows[0]["size"].as_u64() == Some(std::fs::metadata(root.join("backups/a/a.tar.gz"))?.len())
    );
    let finished = list(&["--deleted"]).expect(0).await?;
    says(
        &finished,
        &["going", "2026-11-23T20:15:01Z", "expire", "intact"],
    )?;
    std::fs::remove_file(root.join("backups/going/going.tar.gz"))?;
    let finished = list(&["--deleted"]).expect(0).await?;
    says(&finished, &["backups/going/going.tar.gz is gone"])
}
