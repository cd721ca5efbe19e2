//! Deletions that are disturbed: killed anywhere, run twice at once, racing a backup or a restore, a store that fails, a mode
//! that is switched on meanwhile. In the end there is a whole backup or none.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::cluster::Cluster;
use ark_job::context::Environment;
use ark_job::removal::{RemovalError, Seen, remove};
use ark_job::store::{Credentials, Location, Store};
use ark_job::tombstone::Cause;
use ark_tests::foreign::{ForeignBackup, Maker};
use ark_tests::job::{ArkJob, Running};
use ark_tests::proxy::Request;
use ark_tests::{ControlPlane, FaultProxy, Gate, Rule, Victim, prerequisites, process, wait_until};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::deletion::{Scene, cut_off, files, says};
use crate::place::{Place, cluster_with_ark, exists};
use crate::world::{s3, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "deletion_faults::a_kill_at_any_write_to_s3_and_another_deletion_leaves_nothing",
            killed_on_s3,
        ),
        scenario(
            "deletion_faults::a_kill_at_any_write_to_the_api_server_and_another_deletion_leaves_nothing",
            killed_on_the_api_server,
        ),
        scenario(
            "deletion_faults::a_kill_at_any_system_call_on_files_and_another_deletion_leaves_nothing",
            killed_on_files,
        ),
        scenario(
            "deletion_faults::a_sweep_removes_only_what_ark_has_left_without_a_marker",
            sweep,
        ),
        scenario(
            "deletion_faults::a_sweep_racing_a_commit_leaves_a_whole_backup_or_none",
            sweep_racing_a_commit,
        ),
        scenario("deletion_faults::two_at_once_both_succeed", two_at_once),
        scenario(
            "deletion_faults::a_deletion_that_lags_behind_does_not_touch_a_new_backup",
            lagging,
        ),
        scenario(
            "deletion_faults::an_undeletion_racing_a_deletion_says_what_came_of_it",
            racing_an_undeletion,
        ),
        scenario(
            "deletion_faults::a_backup_that_was_undeleted_too_early_is_deleted_again",
            undeleted_too_early,
        ),
        scenario(
            "deletion_faults::a_deletion_racing_a_commit_leaves_a_whole_backup_or_none",
            racing_a_commit,
        ),
        scenario(
            "deletion_faults::a_backup_that_is_being_restored_stays",
            racing_a_restore,
        ),
        scenario(
            "deletion_faults::a_store_that_fails_for_good_is_a_failure_and_the_next_run_finishes",
            store_fails,
        ),
        scenario(
            "deletion_faults::restore_only_mode_stops_it_between_two_steps",
            mode_switched_on,
        ),
        scenario(
            "deletion_faults::a_sync_between_record_and_tombstone_shows_what_is_there",
            synced_meanwhile,
        ),
    ]
}

/// Holds the n-th request that matches until the gate is opened; tells when it has come.
struct Held {
    gate: Gate,
    came: Arc<AtomicBool>,
}

impl Held {
    fn at(proxy: &FaultProxy, n: u64, matches: fn(&Request) -> bool) -> Held {
        let (gate, came) = (Gate::default(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&came);
        proxy.add(
            Rule::on(matches)
                .only(n)
                .before(move |_| flag.store(true, Ordering::SeqCst))
                .hold(&gate),
        );
        Held { gate, came }
    }

    async fn come(&self) -> Result<()> {
        wait_until(
            "a request to be held",
            Duration::from_secs(60),
            async || Ok(self.came.load(Ordering::SeqCst).then_some(())),
        )
        .await
    }
}

fn is_marker_put(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with("/ark-backup.json")
}

fn is_tombstone_put(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with("/ark-deleting.json")
}

fn is_archive_delete(request: &Request) -> bool {
    request.method == "DELETE" && request.path.ends_with(".tar.gz")
}

fn is_archive_head(request: &Request) -> bool {
    request.method == "HEAD" && request.path.ends_with(".tar.gz")
}

fn is_archive_read(request: &Request) -> bool {
    request.method == "GET" && request.path.ends_with(".tar.gz")
}

/// Kills a deletion at the n-th write through `proxy`, for every n there is, before or after the server has acted; each time
/// another deletion must leave nothing.
async fn killed(
    scene: &Scene,
    proxy: &FaultProxy,
    job: impl Fn(&str) -> ArkJob,
    at_least: u64,
) -> Result<()> {
    scene.make("unharmed").await?;
    proxy.clear_requests();
    job("unharmed").expect(0).await?;
    let writes = proxy.count(Request::is_write) as u64;
    ensure!(writes >= at_least, "only {writes} writes were seen");
    scene.is_gone("unharmed").await?;
    let mut kills = 0;
    for (n, after) in (1..=writes).flat_map(|n| [(n, false), (n, true)]) {
        let name = format!("{}-{n}", if after { "after" } else { "before" });
        scene.make(&name).await?;
        let victim = Victim::default();
        let rule = Rule::on(Request::is_write).only(n);
        let added = proxy.add(match after {
            true => rule.kill_after(&victim),
            false => rule.kill_before(&victim),
        });
        let running = job(&name).start()?;
        victim.is(running.id());
        let finished = running.wait().await?;
        proxy.clear_rules();
        ensure!(
            finished.code.is_none() && added.applied() == 1,
            "{name}: not killed: {finished:?}"
        );
        kills += 1;
        // At no time is there a marker that nothing says is void, and no whole backup.
        let keys = scene.keys(&name).await?;
        let is = |end: &str| keys.iter().any(|key| key.ends_with(end));
        if is("/ark-backup.json") && !is("/ark-deleting.json") {
            scene.is_whole(&name).await.with_context(|| name.clone())?;
        }
        // Behind the last step nothing is left to delete.
        let again = scene.job(&["delete", &name]).run().await?;
        ensure!(
            again.code == Some(0) || (again.code == Some(10) && keys.is_empty()),
            "{name}: {again:?}"
        );
        scene.is_gone(&name).await.with_context(|| name.clone())?;
    }
    ensure!(kills == 2 * writes, "{kills} kills at {writes} writes");
    eprintln!("killed before and after each of {writes} writes");
    Ok(())
}

async fn killed_on_s3() -> Result<()> {
    let scene = Scene::new("killed-s3").await?;
    let job = |name: &str| scene.job(&["delete", name]);
    // The tombstone; six objects of the backup, three of the restore, the tombstone.
    killed(&scene, &scene.proxy, job, 11).await
}

async fn killed_on_the_api_server() -> Result<()> {
    let scene = Scene::new("killed-api").await?;
    let proxy = FaultProxy::start_before(&scene.cluster).await?;
    let kubeconfig = scene.cluster.kubeconfig_for(proxy.url())?;
    let job = |name: &str| ArkJob::new(&kubeconfig, &["delete", name]);
    // The phase, the restore with its ConfigMap, the backup with its.
    killed(&scene, &proxy, job, 5).await
}

/// The same on `file://`: killed at every link, unlink, fsync and directory made.
async fn killed_on_files() -> Result<()> {
    prerequisites::strace()?;
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let tools = tempfile::tempdir()?;
    let killer = tools.path().join("kill_at_call.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kill_at_call.c");
    process::output(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&killer)
            .arg(source),
    )?;
    let trace = tools.path().join("trace").display().to_string();
    let calls = "trace=link,linkat,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync";
    let strace = ["strace", "-f", "-qq", "-e", calls, "-o", &trace];
    let make = async || {
        place
            .run(&["backup", "b", "--include-namespaces", "app"])
            .await?;
        place.run(&["restore", "b", "--name", "r-b"]).await
    };
    make().await?;
    place.job(&["delete", "b"]).under(&strace).expect(0).await?;
    let total = std::fs::read_to_string(&trace)?
        .lines()
        .filter(|line| line.contains('(') && !line.contains("resumed"))
        .count();
    ensure!(total >= 20, "only {total} calls were seen");
    let preload = killer.display().to_string();
    for n in 1..=total {
        make().await?;
        let first = place
            .job(&["delete", "b"])
            .variable("LD_PRELOAD", &preload)
            .variable("KILL_AT", &n.to_string())
            .run()
            .await?;
        ensure!(first.code.is_none(), "{n}: not killed: {first:?}");
        let again = place.job(&["delete", "b"]).run().await?;
        // A temporary file is no object; sweeping abandoned uploads up removes it.
        let mut left = files(place.path())?;
        left.retain(|path| !path.display().to_string().contains("/.ark-tmp-"));
        ensure!(
            matches!(again.code, Some(0 | 10)) && left.is_empty(),
            "{n}: {left:?}: {again:?}"
        );
        for (resource, name) in [("backups", "b"), ("restores", "r-b")] {
            let resource = format!("{resource}.ark.heptio.com");
            let there = exists(&cluster, &[&resource, name, "-n", "heptio-ark"])?;
            ensure!(!there, "{n}: {resource} {name} is left");
        }
        // A temporary file keeps its directory, and so the next deletion from removing that: it would make fewer calls.
        for entry in std::fs::read_dir(place.path())? {
            std::fs::remove_dir_all(entry?.path())?;
        }
    }
    eprintln!("killed at each of {total} calls");
    Ok(())
}

fn described(etag: &str) -> Seen<'_> {
    Seen {
        description: Some(etag),
        tombstone: None,
    }
}

/// What a housekeeping run works with.
async fn housekeeper(cluster: &ControlPlane, url: &str) -> Result<ark_job::context::Context> {
    let environment = Environment {
        job_uid: None,
        job_name: None,
        pod_uid: None,
        nonce: "housekeeper".to_owned(),
        temporary: std::env::temp_dir(),
        connect_disks: None,
        disks_cluster_name: None,
    };
    let cluster = Cluster::new(cluster.client().await?);
    let place: Location = url.parse()?;
    let origin = environment.origin();
    let opened = ark_job::context::Context::open(
        cluster,
        "heptio-ark",
        None,
        Some(place),
        &origin,
        &environment,
    );
    opened
        .await
        .map_err(|failure| anyhow::anyhow!("{}", failure.message()))
}

async fn sweep() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let root = place.path();
    let context = housekeeper(&cluster, &format!("file://{}", root.display())).await?;
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    let whole = files(root)?;
    let tombstone = root.join("backups/b/ark-deleting.json");
    let json = r#"{"backup":"b","cause":"sweep","runID":"r","clusterUID":"c","at":"2026-11-23T20:15:01Z"}"#;
    for over in [false, true] {
        if over {
            std::fs::write(&tombstone, json)?;
        }
        let swept = remove(&context, "b", Cause::Sweep, Seen::default()).await;
        ensure!(
            matches!(swept, Err(RemovalError::Marked { .. })),
            "{swept:?}"
        );
        ensure!(files(root)? == whole, "{:?}", files(root)?);
    }
    // What was seen must still be what is there.
    let expired = remove(&context, "b", Cause::Expire, described("another")).await;
    ensure!(
        matches!(expired, Err(RemovalError::Changed { .. })),
        "{expired:?}"
    );
    std::fs::remove_file(root.join("backups/b/ark-backup.json"))?;
    let swept = remove(&context, "b", Cause::Sweep, described("another")).await;
    ensure!(
        matches!(swept, Err(RemovalError::Changed { .. })),
        "{swept:?}"
    );
    ensure!(files(root)?.len() == whole.len() - 1);
    let archive = context.store.head("backups/b/b.tar.gz").await?;
    let seen = archive.context("the archive")?.etag;
    let swept = remove(&context, "b", Cause::Sweep, described(&seen)).await?;
    ensure!(swept.objects == whole.len() as u64 - 1, "{swept:?}");
    ensure!(files(root)?.is_empty());
    // Others' are never swept up: whole ones, nor those whose description is not there yet.
    ForeignBackup::new(Maker::Velero, "v").store(root)?;
    for description in [true, false] {
        if !description {
            std::fs::remove_file(root.join("backups/v/velero-backup.json"))?;
        }
        let before = files(root)?;
        let swept = remove(&context, "v", Cause::Sweep, Seen::default()).await;
        ensure!(
            matches!(swept, Err(RemovalError::Malformed { .. })),
            "{swept:?}"
        );
        ensure!(files(root)? == before && !before.is_empty());
    }
    Ok(())
}

async fn sweep_racing_a_commit() -> Result<()> {
    let scene = Scene::new("sweep").await?;
    let (backup_proxy, sweep_proxy) = (&scene.proxy, FaultProxy::start(s3().await?.url()).await?);
    let directory = tempfile::tempdir()?;
    let url = format!("file://{}", directory.path().display());
    let mut context = housekeeper(&scene.cluster, &url).await?;
    let keys = Credentials::Keys {
        access_key_id: ark_tests::s3::ACCESS_KEY_ID.to_owned(),
        secret_access_key: ark_tests::s3::SECRET_ACCESS_KEY.to_owned(),
        session_token: None,
    };
    let bucket: Location = scene.url(sweep_proxy.url()).parse()?;
    context.store = Store::open(&bucket, &keys).await?;
    let backup = ["backup", "b", "--include-namespaces", "app"];
    // The marker is written between the sweep's look and its tombstone: the sweep takes that back.
    let marker = Held::at(backup_proxy, 1, is_marker_put);
    let running = scene.job(&backup).start()?;
    marker.come().await?;
    let tombstone = Held::at(&sweep_proxy, 1, is_tombstone_put);
    let committing = async {
        tombstone.come().await?;
        marker.gate.open();
        let finished = running.wait().await?;
        ensure!(finished.code == Some(0), "{finished:?}");
        tombstone.gate.open();
        Ok(())
    };
    let (swept, committed) = futures::join!(
        remove(&context, "b", Cause::Sweep, Seen::default()),
        committing
    );
    committed?;
    ensure!(
        matches!(swept, Err(RemovalError::Marked { .. })),
        "{swept:?}"
    );
    scene.is_whole("b").await?;
    let keys = scene.keys("b").await?;
    ensure!(!keys.iter().any(|key| key.ends_with("ark-deleting.json")));
    backup_proxy.clear_rules();
    sweep_proxy.clear_rules();
    scene.job(&["delete", "b"]).expect(0).await?;
    // The tombstone is there before the marker: the commit withdraws that, and may not be taken for whole.
    let marker = Held::at(backup_proxy, 1, is_marker_put);
    let running = scene.job(&backup).start()?;
    marker.come().await?;
    let archive = Held::at(&sweep_proxy, 1, is_archive_delete);
    let committing = async {
        archive.come().await?;
        marker.gate.open();
        let finished = running.wait().await?;
        ensure!(finished.code == Some(1), "{finished:?}");
        archive.gate.open();
        Ok(())
    };
    let (swept, committed) = futures::join!(
        remove(&context, "b", Cause::Sweep, Seen::default()),
        committing
    );
    committed?;
    swept?;
    let keys = scene.keys("b").await?;
    ensure!(keys.is_empty(), "{keys:?}");
    Ok(())
}

async fn two_at_once() -> Result<()> {
    let scene = Scene::new("two").await?;
    // One is held in the middle, the other passes it.
    scene.make("b").await?;
    let held = Held::at(&scene.proxy, 1, is_archive_delete);
    let first = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    held.gate.open();
    let first = first.wait().await?;
    ensure!(first.code == Some(0), "{first:?}");
    scene.proxy.clear_rules();
    // And as they come. Who is too late finds nothing.
    for n in 0..5 {
        let name = format!("b{n}");
        scene.make(&name).await?;
        let jobs: Vec<Running> = (0..3)
            .map(|_| scene.job(&["delete", &name]).start())
            .collect::<Result<_>>()?;
        for job in jobs {
            let finished = job.wait().await?;
            ensure!(matches!(finished.code, Some(0 | 10)), "{finished:?}");
        }
        scene.is_gone(&name).await?;
    }
    Ok(())
}

async fn lagging() -> Result<()> {
    let scene = Scene::new("lagging").await?;
    scene.make("b").await?;
    // The first asks for locks.
    let held = Held::at(&scene.proxy, 2, is_archive_head);
    let first = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    scene.make("b").await?;
    let before = scene.bucket.objects("lagging/").await?;
    held.gate.open();
    let first = first.wait().await?;
    ensure!(first.code == Some(1), "{first:?}");
    says(&first, &["taken back"])?;
    ensure!(
        scene.bucket.objects("lagging/").await? == before,
        "the new backup was touched: {first:?}"
    );
    scene.is_whole("b").await
}

async fn racing_an_undeletion() -> Result<()> {
    let scene = Scene::new("undeletion").await?;
    scene.make("b").await?;
    // The deletion has not yet sent what would destroy the backup: it stops.
    let held = Held::at(&scene.proxy, 2, is_archive_head);
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    let direct = format!("--storage={}", scene.url(s3().await?.url()));
    scene.job(&["undelete", "b", &direct]).expect(0).await?;
    held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    says(&finished, &["taken back"])?;
    scene.is_whole("b").await?;
    scene.proxy.clear_rules();
    // It has: the undeletion finds out, and what is left goes on being deleted.
    let held = Held::at(&scene.proxy, 1, is_archive_delete);
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    let undeleting = scene.job(&["undelete", "b", &direct]).start()?;
    let tombstone = "undeletion/backups/b/ark-deleting.json";
    wait_until("the tombstone to go", Duration::from_secs(30), async || {
        let keys = scene.bucket.keys(tombstone).await?;
        Ok(keys.is_empty().then_some(()))
    })
    .await?;
    held.gate.open();
    let deleted = deleting.wait().await?;
    ensure!(deleted.code == Some(1), "{deleted:?}");
    says(
        &deleted,
        &["could not be any more", "b.tar.gz is gone", "deleted again"],
    )?;
    let undeleted = undeleting.wait().await?;
    ensure!(undeleted.code == Some(5), "{undeleted:?}");
    says(&undeleted, &["b.tar.gz is gone"])?;
    ensure!(scene.bucket.keys(tombstone).await? == [tombstone]);
    scene.proxy.clear_rules();
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await
}

/// The DELETE of the archive is on its way for longer than an undeletion waits.
async fn undeleted_too_early() -> Result<()> {
    let scene = Scene::new("early").await?;
    let direct = format!("--storage={}", scene.url(s3().await?.url()));
    let tombstone = "early/backups/b/ark-deleting.json";
    scene.make("b").await?;
    let held = Held::at(&scene.proxy, 1, is_archive_delete);
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    let undeleted = scene.job(&["undelete", "b"]).expect(0).await?;
    says(&undeleted, &["is there again"])?;
    ensure!(scene.phase("b")? == "Completed");
    held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    says(
        &finished,
        &["could not be any more", "b.tar.gz is gone", "deleted again"],
    )?;
    ensure!(scene.bucket.keys(tombstone).await? == [tombstone]);
    ensure!(scene.phase("b")? == "Deleting");
    scene.proxy.clear_rules();
    let finished = scene.job(&["undelete", "b"]).expect(5).await?;
    says(&finished, &["b.tar.gz is gone"])?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    // What can be made again is made again: then the backup is whole.
    scene.make("b").await?;
    let before = scene.bucket.objects("early/").await?;
    let held = Held::at(&scene.proxy, 1, |request| {
        request.method == "DELETE" && request.path.ends_with("/velero-backup.json")
    });
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    scene.job(&["undelete", "b"]).expect(0).await?;
    held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    says(&finished, &["has been taken back by somebody else"])?;
    ensure!(scene.bucket.objects("early/").await? == before);
    ensure!(scene.phase("b")? == "Completed");
    scene.is_whole("b").await?;
    scene.proxy.clear_rules();
    // A later backup of the name gets no tombstone, though it lacks what this deletion has deleted too late.
    let held = Held::at(&scene.proxy, 1, is_archive_delete);
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    scene.job(&["delete", "b", &direct]).expect(0).await?;
    scene
        .job(&["backup", "b", "--include-namespaces", "app", &direct])
        .expect(0)
        .await?;
    let before = scene.bucket.objects("early/backups/b/").await?;
    held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    says(&finished, &["has been taken back by somebody else"])?;
    let mut after = scene.bucket.objects("early/backups/b/").await?;
    ensure!(after.remove(tombstone).is_none(), "{finished:?}");
    ensure!(after.len() + 1 == before.len(), "{:?}", after.keys());
    Ok(())
}

async fn racing_a_commit() -> Result<()> {
    let scene = Scene::new("commit").await?;
    let direct = format!("--storage={}", scene.url(s3().await?.url()));
    let backup = ["backup", "b", "--include-namespaces", "app"];
    // A backup that gives signs of life is not deleted.
    let held = Held::at(&scene.proxy, 1, is_marker_put);
    let running = scene.job(&backup).start()?;
    held.come().await?;
    let finished = scene.job(&["delete", "b"]).expect(11).await?;
    says(&finished, &["is in progress"])?;
    // Who does not know of the record, as another cluster does not, deletes it all before the marker is written.
    scene.job(&["delete", "b", &direct]).expect(0).await?;
    held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    let keys = scene.keys("b").await?;
    ensure!(
        !keys.iter().any(|key| key.ends_with("ark-backup.json")),
        "a marker without its backup: {keys:?}"
    );
    scene.proxy.clear_rules();
    // The marker is written while the deletion is at work: both find the other, and nothing is left.
    let (backup_held, other) = (
        Held::at(&scene.proxy, 1, is_marker_put),
        FaultProxy::start(s3().await?.url()).await?,
    );
    let running = scene.job(&backup).start()?;
    backup_held.come().await?;
    let deletion_held = Held::at(&other, 1, is_archive_delete);
    let through = format!("--storage={}", scene.url(other.url()));
    let deleting = scene.job(&["delete", "b", &through]).start()?;
    deletion_held.come().await?;
    backup_held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(1), "{finished:?}");
    deletion_held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let keys = scene.keys("b").await?;
    ensure!(keys.is_empty(), "{keys:?}");
    scene.proxy.clear_rules();
    // Nothing keeps the next one from being made.
    scene.job(&backup).expect(0).await?;
    scene.is_whole("b").await
}

async fn racing_a_restore() -> Result<()> {
    let scene = Scene::new("restore").await?;
    let backup = ["backup", "b", "--include-namespaces", "app"];
    scene.job(&backup).expect(0).await?;
    let restore = ["restore", "b", "--name", "r-b"];
    let before = scene.bucket.objects("restore/").await?;
    // It reads the archive.
    let held = Held::at(&scene.proxy, 1, is_archive_read);
    let running = scene.job(&restore).start()?;
    held.come().await?;
    let finished = scene.job(&["delete", "b"]).expect(11).await?;
    says(&finished, &["is being restored by r-b"])?;
    ensure!(scene.bucket.objects("restore/").await? == before);
    ensure!(scene.phase("b")? == "Completed");
    held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    scene.proxy.clear_rules();
    // It begins after the deletion has looked for restores, and before the tombstone is there.
    let before = scene.bucket.objects("restore/").await?;
    let proxy = FaultProxy::start(s3().await?.url()).await?;
    let tombstone = Held::at(&scene.proxy, 1, is_tombstone_put);
    let deleting = scene.job(&["delete", "b"]).start()?;
    tombstone.come().await?;
    // Through a location of its own, behind another proxy, so that one can be held without the other.
    let location = serde_json::json!({"spec": {"url": scene.url(proxy.url())}}).to_string();
    let default = ["bsl", "default", "-n", "heptio-ark"];
    let default = [
        "backupstoragelocations.ark.heptio.com",
        default[1],
        default[2],
        default[3],
    ];
    let patch = ["--type=merge", "-p", &location];
    scene
        .cluster
        .kubectl(&[&["patch"], &default[..], &patch].concat())?;
    let held = Held::at(&proxy, 1, is_archive_read);
    let again = ["restore", "b", "--name", "again"];
    let running = scene.job(&again).start()?;
    held.come().await?;
    tombstone.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(11), "{finished:?}");
    ensure!(scene.bucket.objects("restore/").await? == before);
    ensure!(scene.phase("b")? == "Completed");
    held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    // One whose pod is gone for long does not keep it for ever, nor does a clock that is wrong.
    let dead =
        serde_json::json!({"status": {"phase": "InProgress", "heartbeat": "2026-01-01T00:00:00Z"}});
    let record = ["restores.ark.heptio.com", "again", "-n", "heptio-ark"];
    let patch = [
        "--subresource=status",
        "--type=merge",
        "-p",
        &dead.to_string(),
    ]
    .map(str::to_owned);
    let patch: Vec<&str> = patch.iter().map(String::as_str).collect();
    scene
        .cluster
        .kubectl(&[&["patch"], &record[..], &patch].concat())?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await
}

async fn store_fails() -> Result<()> {
    let scene = Scene::new("fails").await?;
    scene.make("b").await?;
    let slow =
        "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>made up</Message></Error>";
    let xml = [("content-type", "application/xml")];
    scene.proxy.add(
        Rule::on(|request| request.method == "DELETE")
            .from(2)
            .answer(503, &xml, slow),
    );
    let finished = scene.job(&["delete", "b"]).expect(1).await?;
    says(
        &finished,
        &[
            "deleting ",
            "HTTP 503",
            "hint: check the endpoint",
            "the deletion of b has begun",
            "`kubectl ark backup undelete b` takes it back",
        ],
    )?;
    let keys = scene.keys("b").await?;
    let is = |end: &str| keys.iter().any(|key| key.ends_with(end));
    ensure!(
        is("/ark-deleting.json") && is("/ark-backup.json") && !is("/velero-backup.json"),
        "{keys:?}"
    );
    ensure!(scene.phase("b")? == "Deleting");
    scene.proxy.clear_rules();
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await?;
    // Who interrupts it is told the same, but not before it has begun.
    scene.make("b").await?;
    for begun in [false, true] {
        let held = match begun {
            false => Held::at(&scene.proxy, 1, is_tombstone_put),
            true => Held::at(&scene.proxy, 1, is_archive_delete),
        };
        let running = scene.job(&["delete", "b"]).start()?;
        held.come().await?;
        process::signal(running.id(), Signal::INT)?;
        let finished = running.wait().await?;
        ensure!(finished.code == Some(130), "{finished:?}");
        let told = finished.stderr.contains("kubectl ark backup undelete b");
        ensure!(told == begun, "{finished:?}");
        scene.proxy.clear_rules();
    }
    Ok(())
}

async fn mode_switched_on() -> Result<()> {
    let scene = Scene::new("mode").await?;
    scene.make("b").await?;
    let mode = |mode: &str| {
        let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "ark", "namespace": "heptio-ark"}, "data": {"mode": mode}});
        scene
            .cluster
            .kubectl_with_input(&["apply", "--server-side", "-f", "-"], &map.to_string())
    };
    let before = scene.keys("b").await?;
    mode("RestoreOnly")?;
    for command in ["delete", "undelete"] {
        let finished = scene.job(&[command, "b"]).expect(4).await?;
        says(&finished, &["restore-only"])?;
    }
    ensure!(scene.keys("b").await? == before && scene.phase("b")? == "Completed");
    mode("Normal")?;
    // Between the tombstone and the first file.
    let held = Held::at(&scene.proxy, 1, is_tombstone_put);
    let running = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    mode("RestoreOnly")?;
    held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(4), "{finished:?}");
    let mut expected = before.clone();
    expected.push("mode/backups/b/ark-deleting.json".to_owned());
    expected.sort();
    let mut keys = scene.keys("b").await?;
    keys.sort();
    ensure!(keys == expected, "{keys:?}");
    scene.proxy.clear_rules();
    // Nor does it come back in this mode.
    scene.job(&["undelete", "b"]).expect(4).await?;
    mode("Normal")?;
    scene.job(&["undelete", "b"]).expect(0).await?;
    ensure!(scene.phase("b")? == "Completed");
    scene.is_whole("b").await?;
    // And between two files.
    let held = Held::at(&scene.proxy, 1, is_archive_delete);
    let running = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    mode("RestoreOnly")?;
    held.gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(4), "{finished:?}");
    let keys = scene.keys("b").await?;
    ensure!(keys.len() == before.len() - 1, "{keys:?}");
    scene.proxy.clear_rules();
    mode("Normal")?;
    cut_off(&scene, "b", 1).await?;
    scene.job(&["delete", "b"]).expect(0).await?;
    scene.is_gone("b").await
}

async fn synced_meanwhile() -> Result<()> {
    let scene = Scene::new("synced").await?;
    scene.make("b").await?;
    // Killed when its record says that it is being deleted, and storage does not.
    let victim = Victim::default();
    let killed = scene
        .proxy
        .add(Rule::on(is_tombstone_put).kill_before(&victim));
    let deleting = scene.job(&["delete", "b"]).start()?;
    victim.is(deleting.id());
    deleting.wait().await?;
    ensure!(killed.applied() == 1 && scene.phase("b")? == "Deleting");
    scene.proxy.clear_rules();
    let sync = scene.job(&["sync", "--location=default"]);
    let finished = sync.expect(0).await?;
    says(
        &finished,
        &["1 backup listed in storage", "1 written again"],
    )?;
    ensure!(scene.phase("b")? == "Completed", "{finished:?}");
    scene.is_whole("b").await?;
    // One that is at work there is shown as what it is, and goes on.
    let held = Held::at(&scene.proxy, 1, is_tombstone_put);
    let deleting = scene.job(&["delete", "b"]).start()?;
    held.come().await?;
    ensure!(scene.phase("b")? == "Deleting");
    sync.expect(0).await?;
    ensure!(scene.phase("b")? == "Completed");
    held.gate.open();
    let finished = deleting.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    scene.is_gone("b").await?;
    sync.expect(0).await?;
    scene.is_gone("b").await
}
