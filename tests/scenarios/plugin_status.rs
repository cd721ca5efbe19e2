//! `status` and `describe`, on a real API server: an installation that is well, and then is not, in one way after another.
//!
//! What sync, expiry and pods would have left is written by hand through the API, as they write it; the CronJobs and their
//! Jobs are real, and pods none: there is no node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, Options, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{Said, kubectl, outside, run};
use crate::sync::ago;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![scenario(
        "plugin_status::what_is_broken_is_told_with_the_command_for_it",
        broken_one_after_another,
    )]
}

const NAMESPACE: &str = "heptio-ark";

struct Installed {
    cluster: ControlPlane,
}

impl Installed {
    /// Runs the plugin, and expects this exit code.
    async fn expect(&self, code: i32, line: &str) -> Result<Said> {
        let said = run(outside(self.cluster.kubeconfig(), line)).await?;
        ensure!(
            said.code == Some(code),
            "expected {code} of {line}: {said:?}"
        );
        Ok(said)
    }

    async fn status(&self, code: i32) -> Result<Value> {
        let said = self.expect(code, "status -o json").await?;
        Ok(serde_json::from_str(&said.stdout)?)
    }

    /// The only thing that needs attention: this, about this, with a text in which this is; and it is on the screen, too, with
    /// its command.
    async fn attention(&self, reason: &str, object: &str, text: &str) -> Result<()> {
        let health = self.status(1).await?;
        let items = health["attention"].as_array().context("a list")?;
        let said = |item: &Value| {
            let says = item["message"]
                .as_str()
                .is_some_and(|message| message.contains(text));
            item["reason"] == reason && item["object"] == object && says
        };
        ensure!(
            health["healthy"] == false && items.len() == 1 && said(&items[0]),
            "not only {reason} of {object} with {text:?}: {items:#?}"
        );
        let screen = self.expect(1, "status").await?.stdout;
        let command = items[0]["command"].as_str().context("a command")?;
        ensure!(
            screen.starts_with("NOT HEALTHY: 1 thing needs attention\n")
                && screen.contains(&format!("\n  {command}\n")),
            "{screen}"
        );
        Ok(())
    }

    async fn healthy(&self) -> Result<()> {
        let health = self.status(0).await?;
        ensure!(
            health["healthy"] == true && health["attention"] == json!([]),
            "{health:#}"
        );
        Ok(())
    }

    fn create(&self, object: &Value) -> Result<()> {
        let mut object = object.clone();
        // Ark's own mark: else the admission policy says that this is a record, and made by commands.
        if object["apiVersion"] == "ark.heptio.com/v1" {
            object["metadata"]["annotations"]["ark.heptio.com/run"] = json!("by-a-test");
        }
        self.cluster
            .kubectl_with_input(&["create", "-f", "-"], &object.to_string())
            .map(drop)
    }

    fn patch(&self, what: &str, patch: &Value, flags: &str) -> Result<()> {
        let patch = patch.to_string();
        let mut words = vec!["patch", "-n", NAMESPACE, "--type=merge", "-p", &patch];
        words.extend(what.split_whitespace());
        words.extend(flags.split_whitespace());
        self.cluster.kubectl(&words).map(drop)
    }

    fn patch_status(&self, what: &str, status: &Value) -> Result<()> {
        self.patch(what, &json!({"status": status}), "--subresource=status")
    }

    fn delete(&self, what: &str) -> Result<()> {
        kubectl(&self.cluster, &format!("delete -n {NAMESPACE} {what}")).map(drop)
    }

    /// A record of schedule `nightly`, as ark-job writes it.
    fn backup(&self, name: &str, status: &Value) -> Result<()> {
        self.create(&json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "Backup",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"ark.heptio.com/schedule": "nightly"}},
            "spec": {"storageLocation": "default"},
        }))?;
        self.patch_status(&format!("backups.ark.heptio.com {name}"), status)
    }
}

async fn broken_one_after_another() -> Result<()> {
    // Of its own, since what is bound in it is the cluster's.
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let ark = Installed { cluster };

    let said = ark.expect(10, "status").await?;
    said.explains_error(&["not installed"])?;
    ensure!(
        said.stdout.is_empty() && said.stderr.contains("kubectl ark install"),
        "{said:?}"
    );

    ark.expect(0, "install --storage s3://bucket/prefix?region=eu-west-1")
        .await?;
    let said = ark.expect(10, "status -n elsewhere").await?;
    ensure!(
        said.stderr.contains("`kubectl ark status -n heptio-ark`"),
        "{said:?}"
    );

    // Nobody has synchronised yet, which is well for a while; nor is there a schedule, which is noted.
    let health = ark.status(0).await?;
    ensure!(
        health["notes"][0]["reason"] == "NoSchedule"
            && health["versions"]["agree"] == true
            && health["mode"]["mode"] == "Normal"
            && health["locations"][0]["reachable"] == Value::Null,
        "{health:#}"
    );
    let location = "backupstoragelocation default";
    ark.patch_status(location, &json!({"lastSyncTime": ago(5)}))?;
    // Nothing fires while we look: pods that never start are trouble, too.
    for cron_job in ["ark-sync-default", "ark-expire-default"] {
        ark.patch(
            &format!("cronjob {cron_job}"),
            &json!({"spec": {"schedule": "@yearly"}}),
            "",
        )?;
    }
    ark.expect(0, "schedule create nightly --schedule @yearly --paused")
        .await?;
    ark.expect(0, "schedule unpause nightly").await?;
    ark.backup(
        "nightly-20260102030405",
        &json!({"phase": "Completed", "startTimestamp": ago(600), "size": 2048}),
    )?;
    let health = ark.status(0).await?;
    let schedule = &health["schedules"][0];
    ensure!(
        health["notes"] == json!([])
            && schedule["lastGoodBackup"]["name"] == "nightly-20260102030405"
            && schedule["lastGoodBackup"]["sizeBytes"] == 2048
            && schedule["nextTime"].is_string()
            && health["locations"][0]["reachable"] == true,
        "{health:#}"
    );
    let screen = ark.expect(0, "status").await?.stdout;
    ensure!(
        screen.starts_with("Healthy\n")
            && screen.lines().count() <= 24
            && screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    let yaml = ark.expect(0, "status -o yaml").await?.stdout;
    ensure!(
        yaml.starts_with("healthy: true\n") || yaml.contains("\nhealthy: true\n"),
        "{yaml}"
    );

    ark.patch_status(
        location,
        &json!({"unreachable": "the bucket does not exist"}),
    )?;
    let object = "backupstoragelocation/default";
    ark.attention("LocationUnreachable", object, "the bucket does not exist")
        .await?;
    ark.patch_status(
        location,
        &json!({"unreachable": null, "lastSyncTime": ago(200)}),
    )?;
    ark.attention("LocationNotSynced", object, "last synchronised")
        .await?;
    ark.patch_status(location, &json!({"lastSyncTime": ago(5)}))?;

    let failed =
        json!({"phase": "Failed", "startTimestamp": ago(60), "failureReason": "access denied"});
    ark.backup("nightly-20260103030405", &failed)?;
    ark.attention("BackupFailed", "schedule/nightly", "access denied")
        .await?;
    ark.patch_status(
        "backups.ark.heptio.com nightly-20260103030405",
        &json!({"phase": "PartiallyFailed"}),
    )?;
    ark.attention("BackupPartiallyFailed", "schedule/nightly", "1 in a row")
        .await?;
    ark.patch_status(
        "backups.ark.heptio.com nightly-20260103030405",
        &json!({"phase": "InProgress", "heartbeat": ago(30)}),
    )?;
    ark.attention(
        "RecordStale",
        "backup/nightly-20260103030405",
        "it was killed",
    )
    .await?;
    ark.delete("backups.ark.heptio.com nightly-20260103030405")?;
    ark.patch_status(
        "backups.ark.heptio.com nightly-20260102030405",
        &json!({"startTimestamp": "2020-01-02T03:04:05Z"}),
    )?;
    ark.attention("BackupOverdue", "schedule/nightly", "has made no backup")
        .await?;
    ark.expect(0, "schedule pause nightly").await?;
    let health = ark.status(0).await?;
    ensure!(
        health["notes"][0]["reason"] == "SchedulePaused"
            && health["schedules"][0]["overdue"] == false,
        "{health:#}"
    );

    let mark =
        json!({"metadata": {"annotations": {"ark.heptio.com/suspended-by": "restore-only"}}});
    ark.patch("cronjob nightly", &mark, "")?;
    ark.attention(
        "ScheduleSuspended",
        "schedule/nightly",
        "restore-only mode, which is off",
    )
    .await?;
    ark.expect(0, "restore-only on").await?;
    let health = ark.status(0).await?;
    ensure!(health["mode"]["mode"] == "RestoreOnly", "{health:#}");
    ark.expect(0, "schedule delete nightly").await?;
    ark.patch("configmap ark", &json!({"data": {"mode": "Backwards"}}), "")?;
    ark.attention("ModeUnknown", "configmap/ark", "Backwards")
        .await?;
    ark.patch("configmap ark", &json!({"data": {"mode": "Normal"}}), "")?;
    ark.healthy().await?;

    let contract =
        |version: &str| json!({"metadata": {"annotations": {"ark.heptio.com/contract": version}}});
    let health = ark.status(0).await?;
    let now = health["versions"]["pluginContract"]
        .as_str()
        .context("a version")?;
    ark.patch("podtemplate ark", &contract("1"), "")?;
    ark.attention(
        "ImageOutdated",
        "podtemplate/ark",
        "understands contract version 1",
    )
    .await?;
    ark.patch("podtemplate ark", &contract(now), "")?;

    frozen_and_failed(&ark).await?;
    checked(&ark).await?;

    ark.delete("backupstoragelocation default")?;
    ark.attention("NoLocation", "backupstoragelocation", "no storage location")
        .await
}

/// Pods that may be frozen, and a Job that has failed before it could record anything: why, is described.
async fn frozen_and_failed(ark: &Installed) -> Result<()> {
    let pods = json!({"pods": [{"namespace": "shop", "name": "db-0", "uid": "u", "hooks": []}]});
    ark.backup(
        "frozen",
        &json!({"phase": "Failed", "freeze": pods, "startTimestamp": ago(90)}),
    )?;
    ark.attention("PodsMayBeFrozen", "backup/frozen", "shop/db-0")
        .await?;
    ark.delete("backups.ark.heptio.com frozen")?;

    ark.expect(0, "backup create refused").await?;
    let health = ark.status(0).await?;
    let running = &health["operations"][0];
    ensure!(
        running["operation"] == "backup"
            && running["name"] == "refused"
            && running["state"] == "Pending",
        "{health:#}"
    );
    let pod = wait_until("its pod", Duration::from_secs(60), async || {
        let selector = "batch.kubernetes.io/job-name=backup-refused";
        let found = kubectl(
            &ark.cluster,
            &format!("get pods -n {NAMESPACE} -l {selector} -o name"),
        )?;
        Ok(found.lines().next().map(str::to_owned))
    })
    .await?;
    // What the kubelet would write: exit code 2 ends the Job at once.
    ark.patch_status(
        &pod,
        &json!({"phase": "Failed", "containerStatuses": [{
            "name": "ark-job", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 2, "reason": "Error", "finishedAt": ago(0), "startedAt": ago(0),
                "message": "error: no type is called widgets\nhint: `kubectl api-resources` lists them\n"}},
        }]}),
    )?;
    wait_until(
        "the failure to be described",
        Duration::from_secs(90),
        async || {
            let said = ark.expect(0, "backup describe refused").await?.stdout;
            let told = said.contains("Phase:              Failed\n")
                && said.contains("Its pod said:       no type is called widgets\n")
                && said.contains("hint: `kubectl api-resources` lists them\n");
            Ok(told.then_some(()))
        },
    )
    .await?;
    // Not of a schedule: whoever typed it was told.
    ark.healthy().await?;
    ark.delete("job backup-refused")
}

/// What is inside a backup, and what this cluster lacks to take it.
async fn checked(ark: &Installed) -> Result<()> {
    kubectl(&ark.cluster, "create namespace shop")?;
    ark.create(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"},
        "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))?;
    let place = tempfile::tempdir()?;
    let local = format!("--local --storage file://{}", place.path().display());
    let create = format!("backup create shop --include-namespaces shop {local}");
    ark.expect(0, &create).await?;
    let details = format!("backup describe shop --details {local}");
    let said = ark.expect(0, &details).await?.stdout;
    for text in [
        "\n  TYPE ",
        "\n  v1/PersistentVolumeClaim ",
        "\n  NAMESPACE ",
        "\n  shop ",
        "\nInstant:            resourceVersion ",
        "\n    shop/data\n",
    ] {
        ensure!(said.contains(text), "no {text:?} in {said}");
    }
    let check = format!("backup describe shop --check {local}");
    let said = ark.expect(0, &check).await?.stdout;
    ensure!(
        said.contains("Restorable here:    not all of it")
            && said.contains("shop/data: --storage-class-mappings fast:ANOTHER")
            && !said.contains("Resource list"),
        "{said}"
    );
    ark.create(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
        "provisioner": "example.org/nothing",
    }))?;
    let said = ark.expect(0, &check).await?.stdout;
    ensure!(said.contains("Restorable here:    yes"), "{said}");
    Ok(())
}
