//! Snapshots of CSI drivers as `ark-job` takes, keeps, finds, restores and deletes them, on the real controllers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::cluster::Cluster;
use ark_job::log::Log;
use ark_job::volumes::csi::{
    self as snapshots, Classes, CsiClaim, CsiError, Owned, RIGHTS_OF_BACKUP,
    RIGHTS_OF_HOUSEKEEPING, Right, delete, delete_owned, let_go, owned, snapshot, snapshot_group,
    to_restore,
};
use ark_job::volumes::{ClaimName, CsiSnapshot, Owner};
use ark_tests::ControlPlane;
use ark_tests::csi::{self, Behaviour, Csi, claim, claim_from};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{self, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "csi_snapshots::a_snapshot_outlives_its_namespace_is_restored_and_deleted_by_its_handle",
            by_its_handle,
        ),
        scenario("csi_snapshots::a_snapshot_that_fails_leaves_nothing", fails),
        scenario(
            "csi_snapshots::a_deletion_that_the_driver_refuses_or_nobody_carries_out_is_an_error",
            refused,
        ),
        scenario(
            "csi_snapshots::a_snapshot_made_with_a_secret_is_deleted_with_it",
            secret,
        ),
        scenario(
            "csi_snapshots::an_orphan_is_found_and_deleted_however_little_is_left_of_it",
            orphans,
        ),
        scenario(
            "csi_snapshots::cut_off_anywhere_nothing_is_left_that_is_not_found",
            cut_off,
        ),
        scenario(
            "csi_snapshots::a_group_is_taken_let_go_and_deleted_as_one",
            group,
        ),
        scenario(
            "csi_snapshots::an_orphaned_group_is_found_and_deleted",
            orphaned_group,
        ),
        scenario("csi_snapshots::the_rights_that_are_listed_suffice", rights),
        scenario(
            "csi_snapshots::a_cluster_without_the_snapshot_api_says_so",
            not_served,
        ),
    ]
}

/// Longer than any of it takes, when it goes well.
const WITHIN: Duration = Duration::from_secs(60);
const TIMEOUT: &str = "--timeout=60s";

/// One scenario's namespace, location and class.
struct Place {
    kube: &'static ControlPlane,
    csi: &'static Csi,
    cluster: Cluster,
    log: Log,
    owner: Owner,
    namespace: &'static str,
    class: String,
    _directory: tempfile::TempDir,
}

impl Place {
    /// With a namespace, and a class of that name whose behaviour has that name, too.
    async fn new(namespace: &'static str) -> Result<Place> {
        let world::WithCsi { csi, cluster } = world::csi().await?;
        let directory = tempfile::tempdir()?;
        let place = Place {
            kube: cluster,
            csi,
            cluster: connect(cluster).await?,
            log: Log::new(directory.path())?,
            owner: owner(namespace),
            namespace,
            class: namespace.into(),
            _directory: directory,
        };
        cluster.kubectl(&["create", "namespace", namespace])?;
        let class = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": { "name": namespace }, "driver": csi::DRIVER, "deletionPolicy": "Delete",
            "parameters": { "behaviour": namespace },
        });
        place.create(&class)?;
        Ok(place)
    }

    fn create(&self, object: &Value) -> Result<()> {
        let arguments = ["create", "-f", "-"];
        self.kube
            .kubectl_with_input(&arguments, &object.to_string())?;
        Ok(())
    }

    /// A claim with a file in it, and its volume.
    fn claim(&self, name: &str, labels: &Value) -> Result<(CsiClaim, csi::Volume)> {
        let mut object = claim(name);
        object["metadata"]["namespace"] = self.namespace.into();
        object["metadata"]["labels"] = labels.clone();
        self.create(&object)?;
        let volume = self.bound(self.namespace, name)?;
        fs::write(volume.data.join("file"), "old")?;
        let claim = CsiClaim {
            persistent_volume: volume.name.clone(),
            claim: ClaimName {
                namespace: self.namespace.into(),
                name: name.into(),
            },
            driver: csi::DRIVER.into(),
            class: self.class.clone(),
        };
        Ok((claim, volume))
    }

    fn bound(&self, namespace: &str, name: &str) -> Result<csi::Volume> {
        let claim = format!("pvc/{name}");
        let phase = "--for=jsonpath={.status.phase}=Bound";
        self.kube
            .kubectl(&["wait", "-n", namespace, &claim, phase, TIMEOUT])?;
        let path = "jsonpath={.spec.volumeName}";
        let volume = self
            .kube
            .kubectl(&["get", "-n", namespace, &claim, "-o", path])?;
        let found = self.csi.volume(&volume)?;
        found.with_context(|| format!("{volume} is bound and does not exist"))
    }

    async fn snapshot(&self, claim: &CsiClaim, within: Duration) -> Result<CsiSnapshot, CsiError> {
        snapshot(&self.cluster, &self.log, &self.owner, claim, within).await
    }

    async fn delete(&self, snapshot: &CsiSnapshot, within: Duration) -> Result<(), CsiError> {
        delete(&self.cluster, &self.owner, "pv", snapshot, within).await
    }

    async fn owned(&self) -> Result<Vec<Owned>> {
        let (location, cluster) = (&self.owner.location, &self.owner.cluster_uid);
        Ok(owned(&self.cluster, location, cluster).await?)
    }

    /// Everything of ours in the cluster, by type and name.
    fn objects(&self) -> Result<String> {
        let types = "volumesnapshots,volumesnapshotcontents,volumegroupsnapshots,volumegroupsnapshotcontents";
        let selector = format!("ark.heptio.com/location={}", self.owner.location);
        self.kube
            .kubectl(&["get", types, "-A", "-l", &selector, "-o", "name"])
    }

    fn ensure_nothing_is_left(&self, volumes: &[&csi::Volume]) -> Result<()> {
        let objects = self.objects()?;
        ensure!(objects.is_empty(), "{objects}");
        // Also without our labels.
        let path = r#"jsonpath={range .items[*]}{.spec.volumeSnapshotRef.namespace}/{.metadata.name}{"\n"}{end}"#;
        let contents = self
            .kube
            .kubectl(&["get", "volumesnapshotcontents", "-o", path])?;
        let of_place = format!("{}/", self.namespace);
        ensure!(
            !contents.lines().any(|line| line.starts_with(&of_place)),
            "{contents}"
        );
        for volume in volumes {
            let left = self.csi.snapshots_of(&volume.id)?;
            ensure!(left.is_empty(), "{left:?}");
        }
        Ok(())
    }

    fn content(&self, name: &str) -> Result<Value> {
        let content = format!("volumesnapshotcontent/{name}");
        Ok(serde_json::from_str(
            &self.kube.kubectl(&["get", &content, "-o", "json"])?,
        )?)
    }

    fn delete_namespace(&self) -> Result<()> {
        self.kube
            .kubectl(&["delete", "namespace", self.namespace, TIMEOUT])?;
        Ok(())
    }
}

fn owner(hint: &str) -> Owner {
    Owner {
        location: format!("location-of-{hint}"),
        cluster_uid: "6b7a2f2e-9f35-4c6b-8a56-1c3f0f0e7a11".into(),
        run: format!("{:0<64}", "beef"),
        attempt: "0d5b6a0e-52cf-4f3c-9d3c-2b8f4f8f2d10".into(),
        backup: "daily".into(),
    }
}

/// Connects as the program does: kube's client does not repeat requests on its own.
pub async fn connect(kube: &ControlPlane) -> Result<Cluster> {
    connect_as(kube, None).await
}

async fn connect_as(kube: &ControlPlane, user: Option<&str>) -> Result<Cluster> {
    let kubeconfig = Kubeconfig::read_from(kube.kubeconfig())?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    config.auth_info.impersonate = user.map(str::to_owned);
    Ok(Cluster::new(Client::try_from(config)?))
}

async fn by_its_handle() -> Result<()> {
    let place = Place::new("csi-by-handle").await?;
    let (claim, volume) = place.claim("data", &json!({}))?;
    let classes = Classes::read(&place.cluster).await?;
    let chosen = classes.choose(csi::DRIVER, Some(place.namespace));
    ensure!(chosen.is_ok_and(|class| class.name == place.class));
    // The driver's default, as others have been made by now.
    let chosen = classes.choose(csi::DRIVER, None);
    ensure!(chosen.is_ok_and(|class| class.name == csi::SNAPSHOT_CLASS));

    let taken = place.snapshot(&claim, WITHIN).await?;
    let of_volume = place.csi.snapshots_of(&volume.id)?;
    ensure!(of_volume.len() == 1, "{of_volume:?}");
    let expected = CsiSnapshot {
        handle: of_volume[0].id.clone(),
        driver: csi::DRIVER.into(),
        snapshot_class: Some(place.class.clone()),
        restore_size: Some(1 << 30),
        source_volume_mode: Some("Filesystem".into()),
        ..taken.clone()
    };
    ensure!(taken == expected && taken.created.is_some(), "{taken:?}");
    ensure!(
        taken.group_handle.is_none() && taken.annotations.is_empty(),
        "{taken:?}"
    );
    let content = place.content(&taken.content)?;
    ensure!(content["spec"]["deletionPolicy"] == "Retain");
    for (key, value) in place.owner.labels(&claim.persistent_volume) {
        ensure!(
            content["metadata"]["labels"][&key] == value.as_str(),
            "{key}: {content}"
        );
    }
    // A repeat by the same attempt finds it.
    ensure!(place.snapshot(&claim, WITHIN).await? == taken);
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);

    fs::write(volume.data.join("file"), "new")?;
    place.delete_namespace()?;
    ensure!(fs::read_to_string(of_volume[0].data.join("file"))? == "old");
    let_go(&place.cluster, &[&taken]).await?;
    let objects = place.objects()?;
    ensure!(objects.is_empty(), "{objects}");
    let_go(&place.cluster, &[&taken]).await?;
    ensure!(fs::read_to_string(of_volume[0].data.join("file"))? == "old");

    let target = "csi-by-handle-copy";
    place.kube.kubectl(&["create", "namespace", target])?;
    let (content, volume_snapshot) =
        to_restore(&place.owner.location, "daily", target, &volume.name, &taken);
    let name = volume_snapshot["metadata"]["name"]
        .as_str()
        .context("no name")?;
    let mut restored = claim_from("data", name);
    restored["metadata"]["namespace"] = target.into();
    for object in [&content, &volume_snapshot, &restored] {
        place.create(object)?;
    }
    let copy = place.bound(target, "data")?;
    ensure!(copy.source.as_ref() == Some(&taken.handle));
    ensure!(fs::read_to_string(copy.data.join("file"))? == "old");
    // It is no orphan, and deleting it keeps the data.
    ensure!(place.owned().await?.is_empty());
    place
        .kube
        .kubectl(&["delete", "namespace", target, TIMEOUT])?;
    let content = format!("volumesnapshotcontent/{name}");
    place.kube.kubectl(&["delete", &content, TIMEOUT])?;
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);

    place.delete(&taken, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])?;
    // What is gone is deleted.
    place.delete(&taken, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])
}

async fn fails() -> Result<()> {
    let place = Place::new("csi-fails").await?;
    let (claim, volume) = place.claim("data", &json!({}))?;
    let behave = |behaviour: Behaviour| place.csi.behave_as(place.namespace, &behaviour);
    behave(Behaviour {
        fail_create_snapshot: Some("no space for snapshots".into()),
        ..Behaviour::default()
    })?;
    let error = place.snapshot(&claim, Duration::from_secs(3)).await.err();
    ensure!(
        matches!(&error, Some(CsiError::Driver { object, message })
            if object.starts_with("volumesnapshots csi-fails/ark-") && message.contains("no space for snapshots")),
        "{error:?}"
    );
    place.ensure_nothing_is_left(&[&volume])?;

    // A claim that is not there is the controller's error, and passes on the same way.
    let mut none = claim.clone();
    none.claim.name = "none".into();
    let error = place.snapshot(&none, Duration::from_secs(3)).await.err();
    ensure!(
        matches!(&error, Some(CsiError::Driver { message, .. }) if message.contains("cannot get claim from snapshot")),
        "{error:?}"
    );
    place.ensure_nothing_is_left(&[&volume])?;

    // The driver has made it, but does not say so: a sweep deletes it once the driver does.
    behave(Behaviour {
        answer_create_snapshot_after: Duration::from_secs(3600),
        ..Behaviour::default()
    })?;
    let error = place.snapshot(&claim, Duration::from_secs(3)).await.err();
    ensure!(
        matches!(&error, Some(CsiError::Slow { what, .. }) if what.contains("no handle")),
        "{error:?}"
    );
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);
    behave(Behaviour::default())?;
    let found = place.owned().await?;
    ensure!(
        matches!(&found[..], [one] if one.content.is_some()),
        "{found:?}"
    );
    delete_owned(&place.cluster, &found[0], WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])?;
    // And then there is nothing in the way of another.
    let taken = place.snapshot(&claim, WITHIN).await?;
    let_go(&place.cluster, &[&taken]).await?;
    place.delete(&taken, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])
}

async fn refused() -> Result<()> {
    let place = Place::new("csi-refused").await?;
    let (claim, volume) = place.claim("data", &json!({}))?;
    let taken = place.snapshot(&claim, WITHIN).await?;
    let_go(&place.cluster, &[&taken]).await?;
    // A driver that is not in this cluster: nothing stays, nothing is deleted.
    let foreign = CsiSnapshot {
        driver: "none.csi.ark.test".into(),
        ..taken.clone()
    };
    let error = place.delete(&foreign, Duration::from_secs(3)).await.err();
    ensure!(
        matches!(&error, Some(CsiError::Driver { message, .. })
            if message.starts_with("no driver none.csi.ark.test with a csi-snapshotter runs in this cluster")),
        "{error:?}"
    );
    let objects = place.objects()?;
    ensure!(objects.is_empty(), "{objects}");

    place.csi.behave_as(
        place.namespace,
        &Behaviour {
            fail_delete_snapshot: Some("in use elsewhere".into()),
            ..Behaviour::default()
        },
    )?;
    let error = place.delete(&taken, Duration::from_secs(5)).await.err();
    ensure!(
        matches!(&error, Some(CsiError::Slow { what, .. }) if what.starts_with("the driver has not deleted its data")),
        "{error:?}"
    );
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);
    // No orphan: a sweep leaves it to whoever deletes the backup.
    ensure!(place.owned().await?.is_empty());
    place
        .csi
        .behave_as(place.namespace, &Behaviour::default())?;
    place.delete(&taken, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])
}

async fn secret() -> Result<()> {
    let mut place = Place::new("csi-with-secret").await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "storage", "namespace": place.namespace },
        "stringData": { "key": "k" },
    });
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": { "name": "csi-secret-of-ours" }, "driver": csi::DRIVER, "deletionPolicy": "Delete",
        "parameters": {
            "csi.storage.k8s.io/snapshotter-secret-name": "storage",
            "csi.storage.k8s.io/snapshotter-secret-namespace": place.namespace,
        },
    });
    place.create(&secret)?;
    place.create(&class)?;
    place.class = "csi-secret-of-ours".into();
    let (claim, volume) = place.claim("data", &json!({}))?;
    let taken = place.snapshot(&claim, WITHIN).await?;
    let named: Vec<&str> = taken.annotations.values().map(|value| &**value).collect();
    ensure!(named == ["storage", place.namespace], "{taken:?}");
    let_go(&place.cluster, &[&taken]).await?;
    let mut without = taken.clone();
    without.annotations.clear();
    let error = place.delete(&without, Duration::from_secs(3)).await.err();
    ensure!(matches!(&error, Some(CsiError::Slow { .. })), "{error:?}");
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);
    place.delete(&taken, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])
}

async fn orphans() -> Result<()> {
    let place = Place::new("csi-orphans").await?;
    let (claim, volume) = place.claim("data", &json!({}))?;
    // Of another cluster, or location: not seen.
    let taken = place.snapshot(&claim, WITHIN).await?;
    let (location, cluster) = (&place.owner.location, &place.owner.cluster_uid);
    ensure!(owned(&place.cluster, location, "another").await?.is_empty());
    ensure!(owned(&place.cluster, "another", cluster).await?.is_empty());
    let found = place.owned().await?;
    let [one] = &found[..] else {
        anyhow::bail!("{found:?}");
    };
    let expected = Owned {
        content: Some(taken.content.clone()),
        volume_snapshot: taken.volume_snapshot.clone(),
        handle: Some(taken.handle.clone()),
        driver: csi::DRIVER.into(),
        size: Some(1 << 30),
        ..one.clone()
    };
    ensure!(*one == expected && one.created.is_some(), "{one:?}");
    for (key, value) in place.owner.labels(&claim.persistent_volume) {
        ensure!(one.labels.get(&key) == Some(&value), "{key}: {one:?}");
    }
    delete_owned(&place.cluster, one, WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])?;
    delete_owned(&place.cluster, one, WITHIN).await?;

    // The content has no labels yet.
    let name = "cut-off";
    let unlabelled = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {
            "name": name, "namespace": place.namespace,
            "labels": place.owner.labels(&claim.persistent_volume),
        },
        "spec": {
            "volumeSnapshotClassName": place.class,
            "source": { "persistentVolumeClaimName": "data" },
        },
    });
    place.create(&unlabelled)?;
    let object = format!("volumesnapshot/{name}");
    let ready = "--for=jsonpath={.status.readyToUse}=true";
    let wait = ["wait", "-n", place.namespace, &object, ready, TIMEOUT];
    place.kube.kubectl(&wait)?;
    let found = place.owned().await?;
    ensure!(
        matches!(&found[..], [one] if one.content.is_some() && one.handle.is_some() && one.volume_snapshot.is_some()),
        "{found:?}"
    );
    delete_owned(&place.cluster, &found[0], WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])?;

    // The namespace is gone, and with it the volumeSnapshot.
    let taken = place.snapshot(&claim, WITHIN).await?;
    place.delete_namespace()?;
    let found = place.owned().await?;
    ensure!(
        matches!(&found[..], [one] if one.volume_snapshot.is_none() && one.handle.as_ref() == Some(&taken.handle)),
        "{found:?}"
    );
    ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);
    delete_owned(&place.cluster, &found[0], WITHIN).await?;
    place.ensure_nothing_is_left(&[&volume])
}

async fn cut_off() -> Result<()> {
    let place = Place::new("csi-cut-off").await?;
    let (claim, volume) = place.claim("data", &json!({}))?;
    let cuts = [5, 15, 40, 80, 120, 180, 250, 400].map(Duration::from_millis);
    let mut unfinished = 0;
    for cut in cuts {
        if tokio::time::timeout(cut, place.snapshot(&claim, WITHIN))
            .await
            .is_err()
        {
            unfinished += 1;
        }
        for one in place.owned().await? {
            delete_owned(&place.cluster, &one, WITHIN).await?;
        }
        place.ensure_nothing_is_left(&[&volume])?;
    }
    ensure!(unfinished > 2, "only {unfinished} were cut off");

    // Letting go: a repeat finishes it, and the data stays. Deleting: as well, and it does not.
    for cut in cuts {
        let taken = place.snapshot(&claim, WITHIN).await?;
        // Whether it was cut off or not.
        let _ = tokio::time::timeout(cut, let_go(&place.cluster, &[&taken])).await;
        let_go(&place.cluster, &[&taken]).await?;
        ensure!(place.objects()?.is_empty());
        ensure!(place.csi.snapshots_of(&volume.id)?.len() == 1);
        let _ = tokio::time::timeout(cut, place.delete(&taken, WITHIN)).await;
        place.delete(&taken, WITHIN).await?;
        place.ensure_nothing_is_left(&[&volume])?;
    }
    // Let go by halves, and then found by a sweep that knows its handle from no marker.
    for cut in cuts {
        let taken = place.snapshot(&claim, WITHIN).await?;
        let _ = tokio::time::timeout(cut, let_go(&place.cluster, &[&taken])).await;
        for one in place.owned().await? {
            ensure!(one.handle.as_ref() == Some(&taken.handle), "{one:?}");
            delete_owned(&place.cluster, &one, WITHIN).await?;
        }
        let left = place.objects()?;
        ensure!(left.is_empty(), "{left}");
        place.delete(&taken, WITHIN).await?;
        place.ensure_nothing_is_left(&[&volume])?;
    }
    Ok(())
}

async fn group() -> Result<()> {
    let place = Place::new("csi-group-of-ours").await?;
    let labels = json!({ "app": "database" });
    let (data, of_data) = place.claim("data", &labels)?;
    let (log, of_log) = place.claim("log", &labels)?;
    let (cache, of_cache) = place.claim("cache", &json!({}))?;
    let all = [&of_data, &of_log, &of_cache];
    let take = async |claims: &[CsiClaim]| {
        snapshot_group(&place.cluster, &place.log, &place.owner, claims, WITHIN).await
    };
    // No labels select these two alone; one is no group.
    ensure!(take(&[data.clone(), cache]).await?.is_none());
    ensure!(take(std::slice::from_ref(&data)).await?.is_none());
    place.ensure_nothing_is_left(&all)?;

    let claims = [log, data];
    let taken = take(&claims).await?.context("no group")?;
    let [first, second] = &taken[..] else {
        anyhow::bail!("{taken:?}");
    };
    ensure!(
        first.handle == place.csi.snapshots_of(&of_log.id)?[0].id,
        "{taken:?}"
    );
    ensure!(
        second.handle == place.csi.snapshots_of(&of_data.id)?[0].id,
        "{taken:?}"
    );
    let physical = place.csi.snapshots_of(&of_log.id)?[0].group.clone();
    ensure!(first.group_handle == physical && second.group_handle == physical);
    ensure!(place.csi.snapshots_of(&of_cache.id)?.is_empty());
    let content = place.content(&first.content)?;
    ensure!(content["spec"]["deletionPolicy"] == "Retain", "{content}");
    // A repeat by the same attempt finds it.
    ensure!(take(&claims).await?.as_ref() == Some(&taken));

    let_go(&place.cluster, &[first, second]).await?;
    let objects = place.objects()?;
    ensure!(objects.is_empty(), "{objects}");
    ensure!(place.csi.snapshots_of(&of_log.id)?.len() == 1);
    ensure!(place.csi.snapshots_of(&of_data.id)?.len() == 1);
    // The first goes with the second; that the second is gone is success.
    place.delete(first, WITHIN).await?;
    place.ensure_nothing_is_left(&all)?;
    place.delete(second, WITHIN).await?;
    place.ensure_nothing_is_left(&all)
}

async fn orphaned_group() -> Result<()> {
    let place = Place::new("csi-group-orphan").await?;
    let labels = json!({ "app": "database" });
    let (data, of_data) = place.claim("data", &labels)?;
    let (log, of_log) = place.claim("log", &labels)?;
    let all = [&of_data, &of_log];
    let claims = [data, log];
    let take =
        async || snapshot_group(&place.cluster, &place.log, &place.owner, &claims, WITHIN).await;
    let delete_all = async || -> Result<usize> {
        let found = place.owned().await?;
        for one in &found {
            delete_owned(&place.cluster, one, WITHIN).await?;
        }
        Ok(found.len())
    };
    take().await?.context("no group")?;
    ensure!(delete_all().await? == 2);
    place.ensure_nothing_is_left(&all)?;

    for cut in [20, 60, 150, 300, 600].map(Duration::from_millis) {
        let _ = tokio::time::timeout(cut, take()).await;
        delete_all().await?;
        place.ensure_nothing_is_left(&all)?;
    }

    // Let go by halves: what is left tells the handles, so that a marker that names them keeps the data.
    for cut in [20, 60, 150, 300].map(Duration::from_millis) {
        let taken = take().await?.context("no group")?;
        let both: Vec<&CsiSnapshot> = taken.iter().collect();
        let _ = tokio::time::timeout(cut, let_go(&place.cluster, &both)).await;
        for one in place.owned().await? {
            let told = both
                .iter()
                .any(|known| Some(&known.handle) == one.handle.as_ref());
            ensure!(told, "{one:?}");
        }
        let_go(&place.cluster, &both).await?;
        ensure!(place.objects()?.is_empty());
        place.delete(both[0], WITHIN).await?;
        place.ensure_nothing_is_left(&all)?;
    }

    // The namespace is gone, and with it the volumeGroupSnapshot.
    take().await?.context("no group")?;
    place.delete_namespace()?;
    ensure!(place.csi.snapshots_of(&of_data.id)?.len() == 1);
    ensure!(delete_all().await? == 2);
    place.ensure_nothing_is_left(&all)
}

/// What a backup and the housekeeping do, each as a user with the rights that are listed for it, and no other.
async fn rights() -> Result<()> {
    let mut place = Place::new("csi-rights").await?;
    let roles: [(&str, &[Right]); 2] = [
        ("csi-rights-backup", &RIGHTS_OF_BACKUP),
        ("csi-rights-housekeeping", &RIGHTS_OF_HOUSEKEEPING),
    ];
    for (name, rights) in roles {
        let rules: Vec<Value> = rights
            .iter()
            .map(|right| json!({ "apiGroups": [right.group], "resources": right.resources, "verbs": right.verbs }))
            .collect();
        place.create(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": rules,
        }))?;
        place.create(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name }],
        }))?;
    }
    let labels = json!({ "app": "database" });
    let (data, of_data) = place.claim("data", &labels)?;
    let (log, of_log) = place.claim("log", &labels)?;
    let all = [&of_data, &of_log];
    let both = [data.clone(), log];
    let take_group = async |place: &Place| -> Result<Vec<CsiSnapshot>> {
        let taken = snapshot_group(&place.cluster, &place.log, &place.owner, &both, WITHIN).await?;
        taken.context("no group")
    };
    let backup = connect_as(place.kube, Some(roles[0].0)).await?;
    let housekeeping = connect_as(place.kube, Some(roles[1].0)).await?;

    // The rights are heeded at all: neither may do what the other may.
    let other = Classes::read(&housekeeping).await;
    ensure!(
        other.as_ref().is_err_and(|error| error.is_forbidden()),
        "{other:?}"
    );
    let other = delete(&backup, &place.owner, "pv", &CsiSnapshot::default(), WITHIN).await;
    ensure!(
        matches!(&other, Err(CsiError::Cluster(error)) if error.is_forbidden()),
        "{other:?}"
    );

    place.cluster = backup.clone();
    ensure!(!Classes::read(&place.cluster).await?.0.is_empty());
    let single = place.snapshot(&data, WITHIN).await?;
    let group = take_group(&place).await?;
    let taken: Vec<&CsiSnapshot> = group.iter().chain([&single]).collect();
    let_go(&place.cluster, &taken).await?;
    ensure!(place.objects()?.is_empty());
    place.cluster = housekeeping.clone();
    place.delete(&single, WITHIN).await?;
    place.delete(&group[0], WITHIN).await?;
    place.ensure_nothing_is_left(&all)?;

    place.cluster = backup;
    let single = place.snapshot(&data, WITHIN).await?;
    let group = take_group(&place).await?;
    place.cluster = housekeeping;
    let_go(&place.cluster, &[&single]).await?;
    ensure!(place.owned().await?.len() == group.len());
    for one in place.owned().await? {
        delete_owned(&place.cluster, &one, WITHIN).await?;
    }
    place.delete(&single, WITHIN).await?;
    place.ensure_nothing_is_left(&all)
}

async fn not_served() -> Result<()> {
    let cluster = connect(world::control_plane().await?).await?;
    let directory = tempfile::tempdir()?;
    let log = Log::new(directory.path())?;
    let owner = owner("none");
    let claim = CsiClaim {
        persistent_volume: "pv".into(),
        claim: ClaimName {
            namespace: "default".into(),
            name: "data".into(),
        },
        driver: csi::DRIVER.into(),
        class: "dir".into(),
    };
    ensure!(Classes::read(&cluster).await? == Classes::default());
    let taken = snapshot(&cluster, &log, &owner, &claim, WITHIN).await;
    ensure!(matches!(taken, Err(CsiError::NotServed)), "{taken:?}");
    let claims = [claim.clone(), claim];
    ensure!(
        snapshot_group(&cluster, &log, &owner, &claims, WITHIN)
            .await?
            .is_none()
    );
    ensure!(owned(&cluster, "l", "c").await?.is_empty());
    let gone = CsiSnapshot {
        handle: "snap".into(),
        driver: csi::DRIVER.into(),
        content: "content".into(),
        ..CsiSnapshot::default()
    };
    snapshots::let_go(&cluster, &[&gone]).await?;
    let deleted = delete(&cluster, &owner, "pv", &gone, WITHIN).await;
    ensure!(matches!(deleted, Err(CsiError::NotServed)), "{deleted:?}");
    Ok(())
}
