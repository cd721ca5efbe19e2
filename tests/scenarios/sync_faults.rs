//! Syncs that are killed, run twice at once, or race a commit or a deletion, and storage that fails: what is left converges,
//! and nothing is removed on the word of half a listing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::api::Restore;
use ark_tests::job::ArkJob;
use ark_tests::proxy::Request;
use ark_tests::{Bucket, FaultProxy, Gate, Rule, Victim, wait_until};
use futures::StreamExt;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::exists;
use crate::sync::{ARK, Ark, ago, forge, says};
use crate::world::{s3, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "sync_faults::a_kill_at_any_write_is_made_good_by_the_next",
            killed,
        ),
        scenario("sync_faults::two_at_once_end_as_one", twice),
        scenario("sync_faults::storage_that_fails_removes_nothing", storage),
        scenario(
            "sync_faults::a_commit_and_a_deletion_in_between_are_no_harm",
            races,
        ),
        scenario(
            "sync_faults::rights_that_were_left_behind_are_given_up",
            rights,
        ),
    ]
}

/// What a sync of this place has to do: create two, repair one whose status is missing and one that failed, remove one, say
/// that one is being deleted, and that a run has ended.
async fn much_to_do(ark: &Ark) -> Result<tempfile::TempDir> {
    let place = ark.directory("here")?;
    for name in ["new-1", "new-2", "empty", "beaten", "deleting"] {
        forge(place.path(), name)?;
    }
    let tombstone = json!({"backup": "deleting", "cause": "delete", "runID": "r", "clusterUID": "c", "at": ago(1)});
    fs::write(
        place.path().join("backups/deleting/ark-deleting.json"),
        tombstone.to_string(),
    )?;
    let here = Some("here");
    ark.record("empty", Some("forged"), here, Value::Null)
        .await?;
    ark.record("beaten", Some("other"), here, json!({"phase": "Failed"}))
        .await?;
    ark.record("gone", Some("run"), here, json!({"phase": "Completed"}))
        .await?;
    ark.record("deleting", Some("run"), here, json!({"phase": "Completed"}))
        .await?;
    ark.record(
        "stale",
        Some("run"),
        here,
        json!({"phase": "InProgress", "heartbeat": ago(11)}),
    )
    .await?;
    let restore: Restore = serde_json::from_value(json!({"metadata": {"name": "r",
        "annotations": {"ark.heptio.com/run": "run"}}, "spec": {"backupName": "new-1"}}))?;
    let restores: Api<Restore> = Api::namespaced(ark.client.clone(), ARK);
    restores.create(&PostParams::default(), &restore).await?;
    let patch = Patch::Merge(json!({"status": {"phase": "InProgress", "heartbeat": ago(11)}}));
    restores
        .patch_status("r", &PatchParams::default(), &patch)
        .await?;
    Ok(place)
}

/// That everything has been done.
async fn is_done(ark: &Ark) -> Result<()> {
    let backups = ark.backups().await?;
    let phases: Vec<String> = backups
        .iter()
        .map(|(name, backup)| {
            format!(
                "{name}={}",
                backup["status"]["phase"].as_str().unwrap_or("none")
            )
        })
        .collect();
    ensure!(
        phases
            == [
                "beaten=Completed",
                "deleting=Deleting",
                "empty=Completed",
                "new-1=Completed",
                "new-2=Completed",
                "stale=Failed"
            ],
        "{phases:?}"
    );
    for name in ["beaten", "empty", "new-1", "new-2"] {
        let backup = &backups[name];
        ensure!(
            backup["metadata"]["annotations"]["ark.heptio.com/run"] == "forged"
                && backup["status"]["markerETag"].is_string()
                && backup["status"]["size"].is_number(),
            "{backup:#}"
        );
    }
    let restores: Api<Restore> = Api::namespaced(ark.client.clone(), ARK);
    let status = serde_json::to_value(restores.get("r").await?.status)?;
    ensure!(status["phase"] == "Failed", "{status:#}");
    Ok(())
}

async fn clear(ark: &Ark) -> Result<()> {
    for resource in ["backups", "restores", "backupstoragelocations"] {
        let resource = format!("{resource}.ark.heptio.com");
        ark.cluster
            .kubectl(&["delete", &resource, "--all", "-n", ARK])?;
    }
    Ok(())
}

async fn killed() -> Result<()> {
    let ark = Ark::start().await?;
    let proxy = FaultProxy::start_before(&ark.cluster).await?;
    let kubeconfig = ark.cluster.kubeconfig_for(proxy.url())?;
    let sync = ArkJob::new(&kubeconfig, &["sync", "--location", "here"]);
    {
        let _place = much_to_do(&ark).await?;
        proxy.clear_requests();
        sync.expect(0).await?;
        is_done(&ark).await?;
    }
    let writes = proxy.count(Request::is_write) as u64;
    ensure!(writes >= 11, "only {writes} writes were seen");
    for after in [false, true] {
        for n in 1..=writes {
            clear(&ark).await?;
            let _place = much_to_do(&ark).await?;
            let victim = Victim::default();
            let rule = Rule::on(Request::is_write).only(n);
            let added = proxy.add(match after {
                true => rule.kill_after(&victim),
                false => rule.kill_before(&victim),
            });
            let running = sync.start()?;
            victim.is(running.id());
            let finished = running.wait().await?;
            ensure!(
                added.applied() == 1 && finished.code.is_none(),
                "{n}: not killed: {finished:?}"
            );
            proxy.clear_rules();
            sync.expect(0).await?;
            is_done(&ark).await.with_context(|| {
                format!(
                    "killed {} write {n}",
                    if after { "after" } else { "before" }
                )
            })?;
        }
    }
    eprintln!("killed before and after each of {writes} writes");
    Ok(())
}

async fn twice() -> Result<()> {
    let ark = Ark::start().await?;
    let _place = much_to_do(&ark).await?;
    let proxy = FaultProxy::start_before(&ark.cluster).await?;
    // Each has seen everything before either writes.
    let gate = Gate::default();
    proxy.add(Rule::on(Request::is_write).hold(&gate));
    let kubeconfig = ark.cluster.kubeconfig_for(proxy.url())?;
    let sync = ArkJob::new(&kubeconfig, &["sync", "--location", "here"]);
    let (first, second) = (sync.start()?, sync.start()?);
    wait_until(
        "both are about to write",
        Duration::from_secs(30),
        async || {
            // Both begin with the restore.
            Ok((proxy.count(Request::is_write) >= 2).then_some(()))
        },
    )
    .await?;
    gate.open();
    let (first, second) = futures::try_join!(first.wait(), second.wait())?;
    ensure!(
        first.code == Some(0) && second.code == Some(0),
        "{first:?}\n{second:?}"
    );
    is_done(&ark).await?;
    let before = ark.backups().await?;
    says(&sync.expect(0).await?, &["6 unchanged"])?;
    ensure!(ark.backups().await? == before);
    Ok(())
}

/// Backups in a bucket, and more objects than one page of a listing has.
async fn in_a_bucket(ark: &Ark, bucket: &Bucket, endpoint: &str, names: &[&str]) -> Result<()> {
    let url = format!(
        "s3://{}/p?endpoint={endpoint}&path-style=true&region=us-east-1",
        bucket.name()
    );
    ark.location("here", &url, "ReadOnly")?;
    let directory = tempfile::tempdir()?;
    for name in names {
        forge(directory.path(), name)?;
        for file in [format!("{name}.tar.gz"), "ark-backup.json".to_owned()] {
            let bytes = fs::read(directory.path().join("backups").join(name).join(&file))?;
            bucket
                .put(&format!("p/backups/{name}/{file}"), bytes)
                .await?;
        }
    }
    Ok(())
}

async fn storage() -> Result<()> {
    let ark = Ark::start().await?;
    let server = s3().await?;
    let bucket = server.bucket("sync-faults").await?;
    let proxy = FaultProxy::start(server.url()).await?;
    in_a_bucket(&ark, &bucket, proxy.url(), &["first", "last"]).await?;
    let junk: Vec<Result<()>> = futures::stream::iter(0..1_100)
        .map(|n| bucket.put_junk(n))
        .buffer_unordered(32)
        .collect()
        .await;
    junk.into_iter().collect::<Result<()>>()?;
    ark.record(
        "gone",
        Some("run"),
        Some("here"),
        json!({"phase": "Completed"}),
    )
    .await?;
    let restore: Restore =
        serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"backupName": "b"}}))?;
    let restores: Api<Restore> = Api::namespaced(ark.client.clone(), ARK);
    restores.create(&PostParams::default(), &restore).await?;
    // The second page does not come.
    let broken = proxy.add(
        Rule::on(|request| request.query.contains("continuation-token")).answer(403, &[], "no"),
    );
    let finished = ark.sync("here").expect(1).await?;
    ensure!(broken.applied() == 1, "there was one page");
    says(
        &finished,
        &["error: listing ", "hint: check the credentials"],
    )?;
    ensure!(
        ark.names().await? == ["gone"],
        "half a listing was believed"
    );
    let status = ark.location_status("here").await?;
    ensure!(
        status["lastSyncTime"].is_null()
            && status["unreachable"]
                .as_str()
                .is_some_and(|why| why.contains("listing")),
        "{status}"
    );
    // What needs no storage is done all the same.
    let status = serde_json::to_value(restores.get("r").await?.status)?;
    ensure!(status["phase"] == "Failed", "{status:#}");
    proxy.clear_rules();

    // One object that is refused is one backup's trouble.
    proxy.add(
        Rule::on(|request| {
            request.method == "GET" && request.path.ends_with("/first/ark-backup.json")
        })
        .answer(403, &[], "no"),
    );
    let finished = ark.sync("here").expect(3).await?;
    says(
        &finished,
        &[
            "1 created",
            "1 removed",
            "1 with errors",
            "first/ark-backup.json",
        ],
    )?;
    ensure!(ark.names().await? == ["last"]);
    let status = ark.location_status("here").await?;
    ensure!(
        status["lastSyncTime"].is_string() && status["unreachable"].is_null(),
        "{status}"
    );
    proxy.clear_rules();
    says(
        &ark.sync("here").expect(0).await?,
        &["1 created", "1 unchanged"],
    )?;

    // A listing that lies: the object is there, and a last look shows it.
    let entry = |key: &str| {
        format!(
            "<Contents><Key>p/backups/{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>1</Size></Contents>"
        )
    };
    let lie = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
        entry("other/velero-backup.json")
    );
    let is_listing = |request: &Request| {
        request.query.contains("list-type") && request.query.contains("backups")
    };
    let lied =
        proxy.add(Rule::on(is_listing).answer(200, &[("content-type", "application/xml")], lie));
    let finished = ark.sync("here").expect(3).await?;
    ensure!(lied.applied() == 1);
    says(
        &finished,
        &[
            "backup first is not in the listing of storage, and yet it is there",
            "2 with errors",
        ],
    )?;
    ensure!(ark.names().await? == ["first", "last"]);
    proxy.clear_rules();

    // None can be read: that is the store's trouble.
    let backups = "backups.ark.heptio.com";
    ark.cluster
        .kubectl(&["delete", backups, "--all", "-n", ARK])?;
    proxy.add(Rule::on(|request| request.path.ends_with("ark-backup.json")).answer(403, &[], "no"));
    ark.sync("here").expect(1).await?;
    ensure!(ark.location_status("here").await?["unreachable"].is_string());
    Ok(())
}

async fn races() -> Result<()> {
    let ark = Ark::start().await?;
    let server = s3().await?;
    let bucket = server.bucket("sync-races").await?;
    let proxy = FaultProxy::start(server.url()).await?;
    in_a_bucket(&ark, &bucket, proxy.url(), &["stays", "goes"]).await?;
    let here = Some("here");
    let held = async |rule: fn(&Request) -> bool, job: &ArkJob| {
        let gate = Gate::default();
        let added = proxy.add(Rule::on(rule).hold(&gate));
        let running = job.start()?;
        wait_until("it is held", Duration::from_secs(30), async || {
            Ok((added.matched() > 0).then_some(()))
        })
        .await?;
        Ok::<_, anyhow::Error>((gate, running))
    };
    let sync = ark.sync("here");

    // Resources are listed; a backup is committed, and its run writes its resource, before storage is listed.
    let (gate, running) = held(|request| request.query.contains("list-type"), &sync).await?;
    in_a_bucket(&ark, &bucket, proxy.url(), &["fresh"]).await?;
    let status = json!({"phase": "Completed", "markerETag": "its own", "resourceVersion": "77"});
    ark.record("fresh", Some("forged"), here, status).await?;
    let fresh = ark.backup("fresh").await?;
    gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    ensure!(
        ark.names().await? == ["fresh", "goes", "stays"] && ark.backup("fresh").await? == fresh
    );
    proxy.clear_rules();

    // A backup is deleted with its resource after the listing has shown it, before it is read.
    ark.cluster
        .kubectl(&["delete", "backups.ark.heptio.com", "goes", "-n", ARK])?;
    let (gate, running) = held(
        |request| request.method == "GET" && request.path.ends_with("/goes/ark-backup.json"),
        &sync,
    )
    .await?;
    for key in bucket.keys("p/backups/goes/").await? {
        bucket.delete(&key).await?;
    }
    gate.open();
    ensure!(running.wait().await?.code == Some(0));
    ensure!(
        ark.names().await? == ["fresh", "stays"],
        "a backup that is gone was created"
    );
    proxy.clear_rules();

    // A backup comes back, and its run claims the name, before the last look at what seemed to be gone.
    ark.record("again", Some("run"), here, json!({"phase": "Completed"}))
        .await?;
    let (gate, running) = held(
        |request| request.method == "HEAD" && request.path.contains("/again/"),
        &sync,
    )
    .await?;
    in_a_bucket(&ark, &bucket, proxy.url(), &["again"]).await?;
    gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(3), "{finished:?}");
    ensure!(ark.names().await? == ["again", "fresh", "stays"]);
    proxy.clear_rules();
    sync.expect(0).await?;
    ensure!(
        ark.backup("again").await?["metadata"]["annotations"]["ark.heptio.com/run"] == "forged"
    );

    // A run that seemed dead gives a sign of life before it is told to have failed.
    ark.record(
        "slow",
        Some("run"),
        here,
        json!({"phase": "InProgress", "heartbeat": ago(11)}),
    )
    .await?;
    let (gate, running) = held(
        |request| request.method == "HEAD" && request.path.contains("/slow/"),
        &sync,
    )
    .await?;
    let alive = json!({"status": {"heartbeat": ago(0)}}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "backups.ark.heptio.com",
        "slow",
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &alive,
    ])?;
    gate.open();
    ensure!(running.wait().await?.code == Some(0));
    ensure!(
        ark.backup("slow").await?["status"]["phase"] == "InProgress",
        "a live run was told to have failed"
    );
    Ok(())
}

async fn rights() -> Result<()> {
    let ark = Ark::start().await?;
    let _place = much_to_do(&ark).await?;
    let bind = |annotations: &str| {
        let manifest = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n\
             metadata: {{name: ark-restore, annotations: {{{annotations}}}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
             subjects: [{{kind: ServiceAccount, name: ark-restore, namespace: {ARK}}}]\n"
        );
        ark.cluster
            .kubectl_with_input(&["apply", "-f", "-"], &manifest)
    };
    let bound = || exists(&ark.cluster, &["clusterrolebinding", "ark-restore"]);
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j, namespace: {ARK}, labels: {{ark.heptio.com/operation: restore}}}}\n\
         spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}\n"
    );
    ark.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &job)?;
    bind("ark.heptio.com/request: restore b")?;
    ark.sync("here").expect(0).await?;
    ensure!(bound()?, "a restore has lost its rights");
    ark.cluster
        .kubectl(&["delete", "job", "j", "-n", ARK, "--cascade=background"])?;
    let finished = ark.sync("here").expect(0).await?;
    says(&finished, &["the rights to restore have been given up"])?;
    ensure!(!bound()?);
    // One that another request writes while Jobs are listed stays.
    bind("ark.heptio.com/request: restore b")?;
    let proxy = FaultProxy::start_before(&ark.cluster).await?;
    let gate = Gate::default();
    let listed = proxy.add(
        Rule::on(|request| request.path.ends_with("/jobs") && request.query.contains("restore"))
            .hold(&gate),
    );
    let kubeconfig = ark.cluster.kubeconfig_for(proxy.url())?;
    let running = ArkJob::new(&kubeconfig, &["sync", "--location", "here"]).start()?;
    wait_until("Jobs are listed", Duration::from_secs(30), async || {
        Ok((listed.matched() > 0).then_some(()))
    })
    .await?;
    bind("ark.heptio.com/request: restore another")?;
    gate.open();
    ensure!(running.wait().await?.code == Some(0));
    ensure!(
        bound()?,
        "the rights of a request that came in between are gone"
    );
    // Standing ones are nobody's to sweep.
    ark.cluster
        .kubectl(&["delete", "clusterrolebinding", "ark-restore"])?;
    bind("mine: x")?;
    ark.sync("here").expect(0).await?;
    ensure!(bound()?);
    Ok(())
}

/// Objects of no meaning, in a backup's directory.
trait Junk {
    fn put_junk(&self, n: u32) -> impl Future<Output = Result<()>>;
}

impl Junk for Bucket {
    async fn put_junk(&self, n: u32) -> Result<()> {
        self.put(&format!("p/backups/junk/{n:04}"), "x").await
    }
}
