//! Backup resources follow what is in storage: what another cluster has put there, what is gone, and what runs that were
//! killed have left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ark_job::api::{Backup, BackupStorageLocation, Restore};
use ark_job::identity::{Origin, RunId};
use ark_tests::foreign::{ForeignBackup, Forged, Maker};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy, Options, Rule};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::files;
use crate::world::{s3, scenario};

/// Ark's namespace.
pub const ARK: &str = "heptio-ark";

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "sync::another_cluster_shows_what_the_first_has_backed_up",
            two_clusters,
        ),
        scenario("sync::resources_vanish_only_by_the_rules", vanishing),
        scenario("sync::runs_that_have_ended_are_told", ended),
        scenario(
            "sync::one_that_cannot_be_read_does_not_stop_the_others",
            unreadable,
        ),
        scenario("sync::what_is_being_deleted_is_not_shown", deleting),
        scenario("sync::what_somebody_made_by_hand_is_told_how", by_hand),
        scenario("sync::a_url_is_synced_without_removing", url),
    ]
}

/// A control plane that knows Ark's resources, without controllers, so that Jobs are what a scenario says they are.
pub struct Ark {
    pub cluster: ControlPlane,
    pub client: kube::Client,
}

impl Ark {
    pub async fn start() -> Result<Ark> {
        let cluster = ControlPlane::start(Options::default()).await?;
        cluster.kubectl(&["create", "namespace", ARK])?;
        cluster.define_resource_types()?;
        let client = cluster.client().await?;
        Ok(Ark { cluster, client })
    }

    pub fn location(&self, name: &str, url: &str, mode: &str) -> Result<()> {
        let location = json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
            "metadata": {"name": name, "namespace": ARK}, "spec": {"url": url, "accessMode": mode}});
        self.cluster
            .kubectl_with_input(&["apply", "-f", "-"], &location.to_string())
            .map(drop)
    }

    /// A directory of its own as a location, which goes with what is returned.
    pub fn directory(&self, name: &str) -> Result<tempfile::TempDir> {
        let place = tempfile::tempdir()?;
        let url = format!("file://{}", place.path().display());
        self.location(name, &url, "ReadWrite")?;
        Ok(place)
    }

    pub fn sync(&self, location: &str) -> ArkJob {
        ArkJob::new(self.cluster.kubeconfig(), &["sync", "--location", location])
    }

    /// Writes a record as a run of that annotation would have left it.
    pub async fn record(
        &self,
        name: &str,
        run: Option<&str>,
        location: Option<&str>,
        status: Value,
    ) -> Result<()> {
        let annotations = run.map(|run| json!({"ark.heptio.com/run": run}));
        let backup: Backup = serde_json::from_value(
            json!({"metadata": {"name": name, "annotations": annotations},
            "spec": {"storageLocation": location, "ttl": "48h"}}),
        )?;
        let api: Api<Backup> = Api::namespaced(self.client.clone(), ARK);
        api.create(&PostParams::default(), &backup).await?;
        if !status.is_null() {
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(name, &PatchParams::default(), &patch)
                .await?;
        }
        Ok(())
    }

    /// All Backup resources by name.
    pub async fn backups(&self) -> Result<BTreeMap<String, Value>> {
        let api: Api<Backup> = Api::namespaced(self.client.clone(), ARK);
        let list = api.list(&kube::api::ListParams::default()).await?;
        list.items
            .into_iter()
            .map(|backup| {
                let name = backup.metadata.name.clone().unwrap_or_default();
                Ok((name, serde_json::to_value(backup)?))
            })
            .collect()
    }

    pub async fn names(&self) -> Result<Vec<String>> {
        Ok(self.backups().await?.into_keys().collect())
    }

    pub async fn backup(&self, name: &str) -> Result<Value> {
        let mut backups = self.backups().await?;
        backups
            .remove(name)
            .with_context(|| format!("there is no Backup {name}"))
    }

    pub async fn location_status(&self, name: &str) -> Result<Value> {
        let api: Api<BackupStorageLocation> = Api::namespaced(self.client.clone(), ARK);
        Ok(serde_json::to_value(api.get(name).await?.status)?)
    }

    pub fn cluster_uid(&self) -> Result<String> {
        self.cluster.kubectl(&[
            "get",
            "namespace",
            "kube-system",
            "-o",
            "jsonpath={.metadata.uid}",
        ])
    }
}

/// A committed backup, forged: quick, and with every digest right.
pub fn forge(root: &Path, name: &str) -> Result<()> {
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"n"}}"#;
    Forged::new(name, &[&[("n", "c", map)]]).store(root)
}

pub fn says(finished: &Finished, texts: &[&str]) -> Result<()> {
    for text in texts {
        ensure!(
            finished.stderr.contains(text),
            "{text:?} is not said: {finished:?}"
        );
    }
    Ok(())
}

pub fn ago(minutes: i64) -> String {
    let at = Timestamp::now() - SignedDuration::from_mins(minutes);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A Job of an operation, whose conditions are as given; gives the run id of its pods.
fn job(ark: &Ark, name: &str, operation: &str, conditions: &[&str]) -> Result<String> {
    let manifest = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, namespace: {ARK}, labels: {{ark.heptio.com/operation: {operation}}}}}\n\
         spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}\n"
    );
    ark.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &manifest)?;
    let condition = |kind: &&str| {
        json!({"type": kind, "status": "True", "reason": "DeadlineExceeded", "message": "too late",
            "lastTransitionTime": ago(0), "lastProbeTime": ago(0)})
    };
    let conditions: Vec<Value> = conditions.iter().map(condition).collect();
    let mut status = json!({"conditions": conditions, "startTime": ago(20)});
    if conditions
        .iter()
        .any(|condition| condition["type"] == "Complete")
    {
        status["completionTime"] = json!(ago(1));
    }
    let patch = json!({"status": status}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "job",
        name,
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    let uid = ark.cluster.kubectl(&[
        "get",
        "job",
        name,
        "-n",
        ARK,
        "-o",
        "jsonpath={.metadata.uid}",
    ])?;
    let run = RunId::new(&ark.cluster_uid()?, ARK, &Origin::Job { uid });
    Ok(run.to_string())
}

async fn two_clusters() -> Result<()> {
    let (first, second) = futures::try_join!(Ark::start(), Ark::start())?;
    let server = s3().await?;
    let bucket = server.bucket("sync-two-clusters").await?;
    let url = |endpoint: &str| {
        format!(
            "s3://{}/p?endpoint={endpoint}&path-style=true&region=us-east-1",
            bucket.name()
        )
    };
    first.location("default", &url(server.url()), "ReadWrite")?;
    for (name, more) in [
        ("one", &["--labels", "team=a", "--ttl", "3h"][..]),
        ("two", &[]),
    ] {
        let arguments = [&["backup", name, "--location", "default"], more].concat();
        ArkJob::new(first.cluster.kubeconfig(), &arguments)
            .expect(0)
            .await?;
    }
    // Others' backups, too, of three layouts.
    let directory = tempfile::tempdir()?;
    for (maker, name) in [
        (Maker::Velero, "v"),
        (Maker::Ark10, "o10"),
        (Maker::Ark05, "o05"),
    ] {
        ForeignBackup::new(maker, name).store(directory.path())?;
    }
    let mut unfinished = ForeignBackup::new(Maker::Velero, "unfinished");
    unfinished.phase = "Failed".into();
    unfinished.store(directory.path())?;
    for path in files(directory.path())?.into_keys() {
        let key = format!("p/{}", path.strip_prefix(directory.path())?.display());
        bucket.put(&key, fs::read(&path)?).await?;
    }
    // The second cluster is restore-only, in every way, and may not write to the store.
    let proxy = FaultProxy::start(server.url()).await?;
    let refused = proxy.add(Rule::on(|request| request.is_write()).answer(403, &[], "no"));
    second.location("theirs", &url(proxy.url()), "ReadOnly")?;
    second.cluster.kubectl(&[
        "create",
        "configmap",
        "ark",
        "-n",
        ARK,
        "--from-literal=mode=RestoreOnly",
    ])?;
    let before = bucket.objects("").await?;
    let finished = second.sync("theirs").expect(0).await?;
    says(&finished, &["6 backups listed in storage", "5 created"])?;
    ensure!(refused.matched() == 0, "it wrote to the store");
    ensure!(bucket.objects("").await? == before);
    let (theirs, ours) = (first.backups().await?, second.backups().await?);
    ensure!(
        ours.keys().eq(["o05", "o10", "one", "two", "v"]),
        "{ours:#?}"
    );
    for (name, theirs) in &theirs {
        let ours = &ours[name];
        let mut spec = theirs["spec"].clone();
        ensure!(spec["storageLocation"] == "default");
        spec["storageLocation"] = json!("theirs");
        ensure!(
            ours["spec"] == spec && ours["status"] == theirs["status"],
            "{ours:#}\n{theirs:#}"
        );
        for part in ["labels", "annotations"] {
            ensure!(
                ours["metadata"][part] == theirs["metadata"][part],
                "{ours:#}\n{theirs:#}"
            );
        }
        ensure!(ours["status"]["phase"] == "Completed" && ours["status"]["markerETag"].is_string());
    }
    ensure!(ours["one"]["metadata"]["labels"]["team"] == "a");
    for (name, origin) in [("v", "velero"), ("o10", "ark"), ("o05", "ark")] {
        let foreign = &ours[name];
        ensure!(
            foreign["metadata"]["annotations"]["ark.heptio.com/origin"] == origin
                && foreign["metadata"]["labels"]["app"] == "test"
                && foreign["status"]["phase"] == "Completed"
                && foreign["status"]["expiration"] == "2037-01-01T00:00:00Z"
                && foreign["status"]["markerETag"].is_string()
                && foreign["spec"]["storageLocation"] == "theirs",
            "{foreign:#}"
        );
    }
    let status = second.location_status("theirs").await?;
    ensure!(
        status["lastSyncTime"].is_string() && status["unreachable"].is_null(),
        "{status}"
    );

    // Again: one listing, and nothing that has not changed is read; no Backup resource is written.
    proxy.clear_requests();
    let api = FaultProxy::start_before(&second.cluster).await?;
    let kubeconfig = second.cluster.kubeconfig_for(api.url())?;
    let again = ArkJob::new(&kubeconfig, &["sync", "--location", "theirs"])
        .expect(0)
        .await?;
    says(&again, &["5 unchanged"])?;
    let read: Vec<String> = proxy
        .requests()
        .into_iter()
        .filter(|request| request.method == "GET" && !request.query.contains("list-type"))
        .map(|request| request.path)
        .collect();
    // Only Velero's that is not complete has no resource to remember it by.
    ensure!(
        read.iter().all(|path| path.contains("/unfinished/")) && read.len() == 1,
        "{read:?}"
    );
    let listings = proxy.count(|request| request.query.contains("list-type"));
    ensure!(
        listings == 2,
        "{listings} listings: one of backups, one of the top"
    );
    let written: Vec<String> = api
        .requests()
        .into_iter()
        .filter(|request| request.is_write())
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    ensure!(
        written
            == [
                "PATCH /apis/ark.heptio.com/v1/namespaces/heptio-ark/backupstoragelocations/theirs/status"
            ],
        "{written:?}"
    );
    ensure!(second.backups().await? == ours);

    // In the first cluster nothing changes but the status of the location; others' backups come.
    first.sync("default").expect(0).await?;
    let after = first.backups().await?;
    ensure!(after.len() == 5 && theirs.iter().all(|(name, backup)| after[name] == *backup));

    // What is gone from storage goes; what has been replaced is read again.
    for key in bucket.keys("p/backups/two/").await? {
        bucket.delete(&key).await?;
    }
    let key = "p/backups/v/velero-backup.json";
    let mut changed: Value = serde_json::from_slice(&bucket.get(key).await?)?;
    changed["status"]["errors"] = json!(3);
    bucket.put(key, changed.to_string()).await?;
    let finished = second.sync("theirs").expect(0).await?;
    says(
        &finished,
        &[
            "1 removed",
            "1 written again",
            "3 unchanged",
            "Backup two is removed",
        ],
    )?;
    ensure!(second.names().await? == ["o05", "o10", "one", "v"]);
    ensure!(second.backup("v").await?["status"]["errors"] == 3);
    // An empty status, left by a kill, is filled.
    let uid = second.backup("one").await?["metadata"]["uid"].clone();
    let patch = Patch::Merge(json!({"status": null}));
    let backups: Api<Backup> = Api::namespaced(second.client.clone(), ARK);
    backups
        .patch_status("one", &PatchParams::default(), &patch)
        .await?;
    ensure!(second.backup("one").await?["status"].is_null());
    second.sync("theirs").expect(0).await?;
    let repaired = second.backup("one").await?;
    ensure!(
        repaired["status"] == ours["one"]["status"] && repaired["metadata"]["uid"] == uid,
        "{repaired:#}"
    );
    Ok(())
}

async fn vanishing() -> Result<()> {
    let ark = Ark::start().await?;
    let place = ark.directory("here")?;
    let good = || json!({"phase": "Completed", "markerETag": "e", "startTimestamp": ago(60)});
    let records: [(&str, Option<&str>, Value); 8] = [
        ("good", Some("here"), good()),
        (
            "partial",
            Some("here"),
            json!({"phase": "PartiallyFailed", "errors": 1}),
        ),
        ("deleting", Some("here"), json!({"phase": "Deleting"})),
        ("there", Some("there"), good()),
        ("url", None, good()),
        (
            "failed",
            Some("here"),
            json!({"phase": "Failed", "failureReason": "so"}),
        ),
        (
            "running",
            Some("here"),
            json!({"phase": "InProgress", "heartbeat": ago(1)}),
        ),
        ("starting", Some("here"), Value::Null),
    ];
    for (name, location, status) in records {
        ark.record(name, Some("run"), location, status).await?;
    }
    let all = ark.backups().await?;
    // Storage lists nothing: it may be the wrong place.
    let finished = ark.sync("here").expect(0).await?;
    says(
        &finished,
        &[
            "0 backups listed in storage",
            "3 kept though storage is empty",
            "lists no backup at all",
            "hint: ",
            "--force",
        ],
    )?;
    ensure!(ark.backups().await? == all);
    forge(place.path(), "new")?;
    let finished = ark.sync("here").expect(0).await?;
    says(&finished, &["1 created", "3 removed", "5 unchanged"])?;
    ensure!(ark.names().await? == ["failed", "new", "running", "starting", "there", "url"]);
    let left = ark.backups().await?;
    ensure!(
        left.iter()
            .all(|(name, backup)| name == "new" || all[name] == *backup)
    );
    // Told that it is empty indeed.
    fs::remove_dir_all(place.path().join("backups/new"))?;
    ark.sync("here").expect(0).await?;
    ensure!(ark.names().await?.contains(&"new".to_owned()));
    let force = ["sync", "--location", "here", "--force"];
    ArkJob::new(ark.cluster.kubeconfig(), &force)
        .expect(0)
        .await?;
    ensure!(!ark.names().await?.contains(&"new".to_owned()));
    Ok(())
}

async fn ended() -> Result<()> {
    let ark = Ark::start().await?;
    let place = ark.directory("here")?;
    forge(place.path(), "committed")?;
    forge(place.path(), "beaten")?;
    forge(place.path(), "claimed")?;
    let here = Some("here");
    let running = |minutes: i64| json!({"phase": "InProgress", "startTimestamp": ago(30), "heartbeat": ago(minutes)});
    let frozen = json!({"phase": "InProgress", "startTimestamp": ago(30), "heartbeat": ago(11), "freeze": {
        "run": "run", "attempt": "a", "pods": [{"namespace": "app", "name": "db-0", "uid": "u", "hooks": [
            {"name": "h", "container": "db", "command": ["fsfreeze", "--unfreeze", "/data"], "timeoutMilliseconds": 1000}]}]}});
    let (failed, failing, active, complete) = (
        job(&ark, "j-failed", "backup", &["FailureTarget", "Failed"])?,
        job(&ark, "j-failing", "backup", &["FailureTarget"])?,
        job(&ark, "j-active", "backup", &[])?,
        job(&ark, "j-restore", "restore", &["FailureTarget", "Failed"])?,
    );
    let gone = job(&ark, "j-gone", "backup", &[])?;
    ark.cluster
        .kubectl(&["delete", "job", "j-gone", "-n", ARK, "--cascade=background"])?;
    ark.record("stale", Some("run"), here, running(11)).await?;
    ark.record("local", Some("local"), here, running(9)).await?;
    ark.record("job-failed", Some(&failed), here, running(1))
        .await?;
    ark.record("job-failing", Some(&failing), here, running(1))
        .await?;
    ark.record("job-active", Some(&active), here, running(1))
        .await?;
    ark.record("job-gone", Some(&gone), here, running(11))
        .await?;
    ark.record("frozen", Some("run"), here, frozen).await?;
    ark.record("at-a-url", Some("run"), None, running(11))
        .await?;
    ark.record("there", Some("run"), Some("there"), running(11))
        .await?;
    // A marker beats whatever the record says.
    ark.record("committed", Some("forged"), here, running(11))
        .await?;
    ark.record(
        "beaten",
        Some("other"),
        here,
        json!({"phase": "Failed", "failureReason": "so"}),
    )
    .await?;
    // Another run has claimed the name a moment ago, and is about to say so, or that it is taken.
    ark.record("claimed", Some("other"), here, Value::Null)
        .await?;
    let before = ark.backups().await?;
    let restores: Api<Restore> = Api::namespaced(ark.client.clone(), ARK);
    for (name, run, heartbeat) in [
        ("r-stale", "run", ago(11)),
        ("r-failed", &complete, ago(1)),
        ("r-alive", "x", ago(1)),
    ] {
        let restore: Restore = serde_json::from_value(json!({"metadata": {"name": name,
            "annotations": {"ark.heptio.com/run": run}}, "spec": {"backupName": "committed"}}))?;
        restores.create(&PostParams::default(), &restore).await?;
        let patch = Patch::Merge(
            json!({"status": {"phase": "InProgress", "heartbeat": heartbeat, "created": 3}}),
        );
        restores
            .patch_status(name, &PatchParams::default(), &patch)
            .await?;
    }
    let finished = ark.sync("here").expect(0).await?;
    says(
        &finished,
        &[
            "2 written again",
            "6 failed",
            "Restore resources: 2 failed",
            "3 unchanged",
        ],
    )?;
    let after = ark.backups().await?;
    for (name, texts) in [
        ("stale", &["no sign of life since", "no Job"][..]),
        (
            "job-failed",
            &["Job j-failed has failed (DeadlineExceeded: too late)"],
        ),
        (
            "job-failing",
            &[
                "Job j-failing is failing",
                "a node that is lost",
                "`kubectl delete job j-failing -n heptio-ark`",
            ],
        ),
        ("job-gone", &["no sign of life since", "no Job"]),
        (
            "frozen",
            &[
                "may still be frozen",
                "app/db-0 `kubectl exec -n app db-0 -c db -- fsfreeze --unfreeze /data`",
            ],
        ),
        (
            "at-a-url",
            &["its storage is given by a URL and was not looked at"],
        ),
    ] {
        let status = &after[name]["status"];
        let reason = status["failureReason"].as_str().unwrap_or_default();
        ensure!(
            status["phase"] == "Failed" && status["heartbeat"].is_null(),
            "{name}: {status:#}"
        );
        ensure!(
            texts.iter().all(|text| reason.contains(text)),
            "{name}: {reason}"
        );
        let started: Timestamp = status["startTimestamp"]
            .as_str()
            .unwrap_or_default()
            .parse()?;
        let expiration: Timestamp = status["expiration"].as_str().unwrap_or_default().parse()?;
        ensure!(
            expiration.duration_since(started) == SignedDuration::from_hours(48),
            "{name}: {status:#}"
        );
    }
    ensure!(
        after["frozen"]["status"]["freeze"]["pods"][0]["name"] == "db-0",
        "what is frozen is forgotten"
    );
    for name in ["local", "job-active", "there", "claimed"] {
        ensure!(after[name] == before[name], "{name}: {:#}", after[name]);
    }
    for name in ["committed", "beaten"] {
        let backup = &after[name];
        ensure!(
            backup["status"]["phase"] == "Completed"
                && backup["status"]["failureReason"].is_null()
                && backup["metadata"]["annotations"]["ark.heptio.com/run"] == "forged",
            "{backup:#}"
        );
    }
    for (name, phase, text) in [
        (
            "r-stale",
            "Failed",
            "`kubectl ark restore create committed`",
        ),
        ("r-failed", "Failed", "Job j-restore has failed"),
        ("r-alive", "InProgress", ""),
    ] {
        let status = serde_json::to_value(restores.get(name).await?.status)?;
        let reason = status["failureReason"].as_str().unwrap_or_default();
        ensure!(
            status["phase"] == phase && reason.contains(text) && status["created"] == 3,
            "{name}: {status:#}"
        );
    }
    let again = ark.sync("here").expect(0).await?;
    ensure!(ark.backups().await? == after, "{again:?}");
    Ok(())
}

async fn unreadable() -> Result<()> {
    let ark = Ark::start().await?;
    let (place, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    ark.location(
        "here",
        &format!("file://{}", place.path().display()),
        "ReadWrite",
    )?;
    ark.location(
        "there",
        &format!("file://{}", other.path().display()),
        "ReadWrite",
    )?;
    for name in ["good", "broken", "cut", "lost", "later", "twice"] {
        forge(place.path(), name)?;
    }
    forge(other.path(), "twice")?;
    forge(other.path(), "alone")?;
    let backup = |name: &str| place.path().join("backups").join(name);
    fs::write(backup("broken").join("ark-backup.json"), "{")?;
    fs::write(backup("cut").join("cut.tar.gz"), "short")?;
    fs::remove_file(backup("lost").join("lost.tar.gz"))?;
    let marker = fs::read_to_string(backup("later").join("ark-backup.json"))?;
    let later = marker.replace("\"formatVersion\": \"1\"", "\"formatVersion\": \"2\"");
    ensure!(later != marker);
    fs::write(backup("later").join("ark-backup.json"), later)?;
    forge(place.path(), "odd_name")?;
    ark.sync("there").expect(0).await?;
    let finished = ark.sync("here").expect(3).await?;
    says(
        &finished,
        &[
            "1 created",
            "4 with errors",
            "2 not shown",
            "marker of backup \\\"broken\\\" cannot be used",
            "backup \\\"cut\\\" is damaged: its archive has 5 bytes",
            "backup \\\"lost\\\" is damaged: its archive is missing",
            "format version \\\"2\\\"",
            "twice is here, too",
            "in storage location there",
            "odd_name",
        ],
    )?;
    ensure!(ark.names().await? == ["alone", "good", "twice"]);
    ensure!(ark.backup("twice").await?["spec"]["storageLocation"] == "there");
    // It is not flipped by the other one either, and vanishes with its own.
    says(&ark.sync("there").expect(0).await?, &["3 unchanged"])?;
    fs::remove_dir_all(other.path().join("backups/twice"))?;
    says(&ark.sync("there").expect(0).await?, &["1 removed"])?;
    ark.sync("here").expect(3).await?;
    ensure!(ark.backup("twice").await?["spec"]["storageLocation"] == "here");
    let code = ["sync", "--location", "here", "--partial-exit-code", "0"];
    ArkJob::new(ark.cluster.kubeconfig(), &code)
        .expect(0)
        .await?;
    Ok(())
}

async fn deleting() -> Result<()> {
    let ark = Ark::start().await?;
    let place = ark.directory("here")?;
    for name in ["deleted", "expired", "swept", "unseen"] {
        forge(place.path(), name)?;
    }
    let tombstone = |name: &str, cause: &str| {
        let content =
            json!({"backup": name, "cause": cause, "runID": "r", "clusterUID": "c", "at": ago(1)});
        let path = place
            .path()
            .join("backups")
            .join(name)
            .join("ark-deleting.json");
        fs::write(path, content.to_string())
    };
    tombstone("unseen", "delete")?;
    says(&ark.sync("here").expect(0).await?, &["3 created"])?;
    ensure!(ark.names().await? == ["deleted", "expired", "swept"]);
    tombstone("deleted", "delete")?;
    tombstone("expired", "expire")?;
    // Over a marker, that of a sweep is void.
    tombstone("swept", "sweep")?;
    let before = files(place.path())?;
    says(
        &ark.sync("here").expect(0).await?,
        &["2 being deleted", "1 unchanged"],
    )?;
    let phase = async |name: &str| {
        Ok::<_, anyhow::Error>(ark.backup(name).await?["status"]["phase"].clone())
    };
    ensure!(phase("deleted").await? == "Deleting" && phase("expired").await? == "Deleting");
    ensure!(phase("swept").await? == "Completed");
    ensure!(files(place.path())? == before, "storage was written to");
    // One is undeleted, one deleted to its end.
    fs::remove_file(place.path().join("backups/expired/ark-deleting.json"))?;
    fs::remove_dir_all(place.path().join("backups/deleted"))?;
    says(
        &ark.sync("here").expect(0).await?,
        &["1 written again", "1 removed"],
    )?;
    ensure!(ark.names().await? == ["expired", "swept"] && phase("expired").await? == "Completed");
    Ok(())
}

async fn by_hand() -> Result<()> {
    let ark = Ark::start().await?;
    let place = ark.directory("here")?;
    forge(place.path(), "stored")?;
    ark.record("mine", None, None, Value::Null).await?;
    ark.record("stored", None, None, Value::Null).await?;
    let restore = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Restore", "metadata": {"name": "r", "namespace": ARK},
        "spec": {"backupName": "stored"}});
    ark.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &restore.to_string())?;
    ark.sync("here").expect(0).await?;
    let status = ark.backup("mine").await?["status"].clone();
    let told = |status: &Value, text: &str| {
        status["failureReason"]
            .as_str()
            .is_some_and(|why| why.contains(text))
    };
    ensure!(
        status["phase"] == "Failed"
            && told(&status, "`kubectl ark backup create mine`")
            && status["expiration"].is_string(),
        "{status:#}"
    );
    ensure!(ark.backup("stored").await?["status"]["phase"] == "Completed");
    let restores: Api<Restore> = Api::namespaced(ark.client.clone(), ARK);
    let status = serde_json::to_value(restores.get("r").await?.status)?;
    ensure!(
        status["phase"] == "Failed"
            && told(
                &status,
                "`kubectl ark restore create r --from-backup stored`"
            ),
        "{status:#}"
    );
    Ok(())
}

async fn url() -> Result<()> {
    let ark = Ark::start().await?;
    let place = tempfile::tempdir()?;
    let url = format!("file://{}", place.path().display());
    let sync = ArkJob::new(ark.cluster.kubeconfig(), &["sync", "--storage", &url]);
    forge(place.path(), "a")?;
    forge(place.path(), "b")?;
    says(&sync.expect(0).await?, &["2 created"])?;
    ensure!(ark.backup("a").await?["spec"]["storageLocation"].is_null());
    fs::remove_dir_all(place.path().join("backups/a"))?;
    says(&sync.expect(0).await?, &["2 unchanged"])?;
    ensure!(
        ark.names().await? == ["a", "b"],
        "with a URL nothing is removed"
    );
    // The same place gets a name.
    ark.location("here", &url, "ReadWrite")?;
    says(
        &ark.sync("here").expect(0).await?,
        &["1 written again", "1 unchanged"],
    )?;
    ensure!(ark.backup("b").await?["spec"]["storageLocation"] == "here");
    says(&sync.expect(0).await?, &["1 unchanged", "1 not shown"])?;
    Ok(())
}
