//! `backup delete`, `undelete`, `expire`, `sync` and the listing of what is stored, by the plugin: in real pods, with the
//! rights that `install` gives to them.
//!
//! Shares the cluster of `plugin`, in which Ark is installed. Each scenario has locations of its own, so that `--all` and
//! expiry find nothing of others.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::foreign::{ForeignBackup, Maker};
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, job, s3, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::plugin::{ARK, Ark, Running, Said, ark, bucket, kubectl, outside, run, storage, trifle};
use crate::sync::forge;
use crate::world::{self, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin_housekeeping::a_backup_is_deleted_only_with_consent_and_then_completely",
            deleted_with_consent,
        ),
        node_scenario(
            "plugin_housekeeping::labels_and_ages_choose_in_all_locations",
            chosen_by_label_and_age,
        ),
        node_scenario(
            "plugin_housekeeping::ctrl_c_leaves_the_deletion_running",
            ctrl_c_leaves_the_deletion_running,
        ),
        node_scenario(
            "plugin_housekeeping::a_deletion_that_was_cut_off_is_shown_and_taken_back",
            taken_back,
        ),
        node_scenario(
            "plugin_housekeeping::the_plan_of_expiry_deletes_nothing_and_expiry_does_what_it_says",
            expired,
        ),
        node_scenario(
            "plugin_housekeeping::sync_makes_resources_of_what_is_stored",
            synced,
        ),
        node_scenario(
            "plugin_housekeeping::exit_codes_tell_why_not",
            exit_codes_tell_why_not,
        ),
        scenario(
            "plugin_housekeeping::what_goes_is_chosen_from_storage_too",
            chosen_from_storage,
        ),
        scenario(
            "plugin_housekeeping::without_a_terminal_deleting_is_refused_before_any_request",
            consent_needs_a_terminal,
        ),
    ]
}

/// A location of this name, and its prefix in the bucket.
async fn location(ark: &Ark, name: &str) -> Result<()> {
    let endpoint = ark.cluster.expose(world::s3().await?.url())?;
    ark.location(name, &storage(name, &endpoint))
}

/// Backs the namespace up.
async fn back_up(ark: &Ark, name: &str, namespace: &str, flags: &str) -> Result<()> {
    let line = format!("backup create {name} --include-namespaces {namespace} --wait {flags}");
    ark.expect(0, &line).await.map(drop)
}

/// The keys of a backup in a location.
async fn keys(location: &str, backup: &str) -> Result<Vec<String>> {
    bucket()
        .await?
        .keys(&format!("{location}/backups/{backup}/"))
        .await
}

/// Whether there is a Backup resource.
fn recorded(ark: &Ark, backup: &str) -> Result<bool> {
    let found = kubectl(
        &ark.cluster,
        &format!("get backups.ark.heptio.com {backup} -n {ARK} -o name --ignore-not-found"),
    )?;
    Ok(!found.is_empty())
}

async fn is_gone(ark: &Ark, location: &str, backup: &str) -> Result<()> {
    let keys = keys(location, backup).await?;
    ensure!(keys.is_empty(), "left of backup {backup}: {keys:?}");
    ensure!(!recorded(ark, backup)?, "the resource of {backup} is left");
    Ok(())
}

async fn is_there(ark: &Ark, location: &str, backup: &str) -> Result<()> {
    let keys = keys(location, backup).await?;
    let marker = keys.iter().any(|key| key.ends_with("/ark-backup.json"));
    let tombstone = keys.iter().any(|key| key.ends_with("/ark-deleting.json"));
    ensure!(marker && !tombstone, "of backup {backup}: {keys:?}");
    ensure!(recorded(ark, backup)?, "the resource of {backup} is gone");
    Ok(())
}

/// It had every right that it needed, and nothing else to complain of.
fn nothing_was_amiss(said: &Said) -> Result<()> {
    for text in ["forbidden", "cannot", "warning", "error"] {
        ensure!(!said.stderr.contains(text), "{text}: {said:?}");
    }
    Ok(())
}

/// Runs the plugin on a pseudo-terminal, and types a line; everything it says comes as one.
async fn typed(ark: &Ark, line: &str, answer: &str) -> Result<Said> {
    let plugin = job::program("kubectl-ark")?;
    let mut command = ark.cluster.command("script");
    command
        .arg("-qefc")
        .arg(format!("{} {line}", plugin.display()))
        .arg("/dev/null");
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("it is piped")?;
    input.write_all(format!("{answer}\n").as_bytes()).await?;
    let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output())
        .await
        .context("it does not end")??;
    drop(input);
    Said::new(output)
}

async fn deleted_with_consent() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "consented")?;
    location(ark, "consent").await?;
    for name in ["consent-a", "consent-b"] {
        back_up(ark, name, "consented", "--location consent").await?;
    }
    let asked = typed(ark, "backup delete consent-a", "n").await?;
    ensure!(asked.code == Some(1), "{asked:?}");
    for text in [
        "consent-a   Completed",
        "Delete backup consent-a for good? [y/N]",
        "nothing was deleted",
    ] {
        ensure!(asked.stdout.contains(text), "{text}: {asked:?}");
    }
    is_there(ark, "consent", "consent-a").await?;
    ark.expect(2, "backup delete consent-a").await?;
    is_there(ark, "consent", "consent-a").await?;

    let asked = typed(ark, "backup delete consent-a", "y").await?;
    ensure!(
        asked.code == Some(0) && asked.stdout.contains("backup consent-a is deleted"),
        "{asked:?}"
    );
    ensure!(
        asked.stdout.matches("consent-a is deleted").count() == 1,
        "{asked:?}"
    );
    is_gone(ark, "consent", "consent-a").await?;

    // The Job as it is kept in Git does the same.
    let dry = "backup delete consent-b --dry-run=client -o yaml";
    let in_git = ark.expect(0, dry).await?.stdout;
    is_there(ark, "consent", "consent-b").await?;
    ark.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &in_git)?;
    wait_until("it to be gone", Duration::from_secs(90), async || {
        Ok(is_gone(ark, "consent", "consent-b").await.ok())
    })
    .await
}

async fn chosen_by_label_and_age() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "chosen")?;
    for name in ["choose-a", "choose-b"] {
        location(ark, name).await?;
    }
    for (name, location, labels) in [
        ("chosen-1", "choose-a", "pick=yes"),
        ("chosen-2", "choose-b", "pick=yes"),
        ("chosen-3", "choose-a", "pick=no"),
        ("chosen-4", "choose-a", "pick=no"),
        ("chosen-5", "choose-b", "pick=no"),
    ] {
        let flags = format!("--location {location} --labels {labels}");
        back_up(ark, name, "chosen", &flags).await?;
    }
    let none = ark
        .expect(0, "backup delete -l pick=yes --older-than 1h --yes")
        .await?;
    ensure!(none.stderr.contains("nothing to delete"), "{none:?}");
    is_there(ark, "choose-a", "chosen-1").await?;

    // Each location has a Job.
    let both = ark.expect(0, "backup delete -l pick=yes --yes").await?;
    nothing_was_amiss(&both)?;
    ensure!(
        both.stdout.contains("backup chosen-1 is deleted")
            && both.stdout.contains("backup chosen-2 is deleted"),
        "{both:?}"
    );
    is_gone(ark, "choose-a", "chosen-1").await?;
    is_gone(ark, "choose-b", "chosen-2").await?;

    // What another cluster made stays, and that is said.
    let status = json!({"status": {"clusterUID": "of-another-cluster"}}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "backups.ark.heptio.com",
        "chosen-4",
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ])?;
    let all = ark
        .expect(0, "delete backups --all --location choose-a --yes")
        .await?;
    ensure!(
        all.stderr
            .contains("left: 1 backup that another cluster made"),
        "{all:?}"
    );
    is_gone(ark, "choose-a", "chosen-3").await?;
    is_there(ark, "choose-a", "chosen-4").await?;
    is_there(ark, "choose-b", "chosen-5").await?;
    ark.expect(0, "backup delete chosen-4 chosen-5 --yes")
        .await?;
    is_gone(ark, "choose-a", "chosen-4").await?;
    is_gone(ark, "choose-b", "chosen-5").await
}

async fn ctrl_c_leaves_the_deletion_running() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "unwatched")?;
    let proxy = FaultProxy::start(world::s3().await?.url()).await?;
    ark.location(
        "unwatched",
        &storage("unwatched", &ark.cluster.expose(proxy.url())?),
    )?;
    back_up(ark, "unwatched", "unwatched", "--location unwatched").await?;
    let held = proxy.add(
        Rule::on(|request| {
            request.method == "DELETE" || request.path.ends_with("ark-deleting.json")
        })
        .delay(Duration::from_secs(2)),
    );
    let mut running = Running::start(ark.command("backup delete unwatched --yes"))?;
    running.says(&["deletion of backup unwatched"]).await?;
    wait_until("it to be held", Duration::from_secs(60), async || {
        Ok((held.applied() > 0).then_some(()))
    })
    .await?;
    running.interrupt()?;
    let said = running.end().await?;
    ensure!(said.code == Some(130), "{said:?}");
    ensure!(
        said.stderr
            .contains("goes on without you, as job.batch/delete-unwatched-"),
        "{said:?}"
    );
    wait_until("it to be gone", Duration::from_secs(120), async || {
        Ok(is_gone(ark, "unwatched", "unwatched").await.ok())
    })
    .await
}

async fn taken_back() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "regretted")?;
    location(ark, "regret").await?;
    back_up(ark, "regretted", "regretted", "--location regret").await?;
    let tombstone = json!({
        "backup": "regretted", "cause": "delete", "runID": "r", "clusterUID": "c", "at": "2026-01-01T00:00:00Z",
    });
    bucket()
        .await?
        .put(
            "regret/backups/regretted/ark-deleting.json",
            tombstone.to_string(),
        )
        .await?;
    let listed = ark.expect(0, "backup get --location regret").await?;
    ensure!(!listed.stdout.contains("regretted"), "{listed:?}");
    let deleted = ark
        .expect(0, "get backups --show-deleted --location regret")
        .await?;
    ensure!(deleted.stdout.contains("regretted"), "{deleted:?}");

    // The name is not free, and nothing is restored from it; both say what can be done.
    let again = "backup create regretted --location regret --include-namespaces regretted --wait";
    let deleting = json!({"status": {"phase": "Deleting"}}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "backups.ark.heptio.com",
        "regretted",
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &deleting,
    ])?;
    let refused = ark.expect(11, again).await?;
    refused.explains(
        &["backup regretted is being deleted"],
        "kubectl ark backup undelete regretted",
    )?;
    let refused = ark
        .expect(10, "restore create regretted --location regret --wait")
        .await?;
    refused.explains(
        &["\"regretted\"", "is being deleted"],
        "kubectl ark backup undelete regretted",
    )?;

    let back = ark.expect(0, "backup undelete regretted").await?;
    ensure!(
        back.stdout.contains("backup regretted is there again"),
        "{back:?}"
    );
    is_there(ark, "regret", "regretted").await?;
    let listed = ark.expect(0, "backup get --location regret").await?;
    ensure!(listed.stdout.contains("regretted"), "{listed:?}");
    let deleted = ark
        .expect(0, "backup get --show-deleted --location regret")
        .await?;
    ensure!(!deleted.stdout.contains("regretted"), "{deleted:?}");
    ark.expect(10, "backup undelete never-made --location regret")
        .await
        .map(drop)
}

async fn expired() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "perishable")?;
    location(ark, "expiry").await?;
    back_up(ark, "perished", "perishable", "--location expiry --ttl 1s").await?;
    back_up(ark, "fresh", "perishable", "--location expiry").await?;

    let plan = ark.expect(0, "expire --dry-run --location expiry").await?;
    ensure!(
        plan.stdout.contains("perished") && plan.stdout.contains("fresh"),
        "{plan:?}"
    );
    let json = ark
        .expect(0, "expire --dry-run -o json --location expiry")
        .await?
        .stdout;
    for line in json.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    nothing_was_amiss(&plan)?;
    is_there(ark, "expiry", "perished").await?;
    let left = ark.get("jobs -l ark.heptio.com/operation=expire-plan")?;
    ensure!(left["items"] == json!([]), "left: {left:#}");

    let said = ark.expect(0, "expire --location expiry").await?;
    ensure!(said.stderr.contains("perished"), "{said:?}");
    nothing_was_amiss(&said)?;
    is_gone(ark, "expiry", "perished").await?;
    is_there(ark, "expiry", "fresh").await
}

async fn synced() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "forgotten")?;
    location(ark, "memory").await?;
    back_up(ark, "forgotten", "forgotten", "--location memory").await?;
    let status =
        || -> Result<Value> { Ok(ark.get("backups.ark.heptio.com forgotten")?["status"].clone()) };
    let before = status()?;
    ark.delete("backups.ark.heptio.com forgotten")?;
    let said = ark.expect(0, "sync --location memory").await?;
    nothing_was_amiss(&said)?;
    let after = status()?;
    for field in ["phase", "clusterUID", "size", "startTimestamp"] {
        ensure!(after[field] == before[field], "{before:#} {after:#}");
    }
    // Two at the same time have names of their own.
    let (one, other) = tokio::join!(
        ark.expect(0, "sync --location memory"),
        ark.expect(0, "sync --location memory")
    );
    let (one, other) = (one?, other?);
    ensure!(
        one.stdout.lines().next() != other.stdout.lines().next(),
        "{one:?} {other:?}"
    );
    Ok(())
}

async fn exit_codes_tell_why_not() -> Result<()> {
    let ark = ark().await?;
    location(ark, "unwritable").await?;
    let read_only = json!({"spec": {"accessMode": "ReadOnly"}}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "backupstoragelocation",
        "unwritable",
        "-n",
        ARK,
        "--type=merge",
        "-p",
        &read_only,
    ])?;
    for line in ["backup delete any --yes", "expire", "backup undelete any"] {
        let said = ark
            .expect(4, &format!("{line} --location unwritable"))
            .await?;
        said.explains_error(&["unwritable", "ReadOnly"])?;
    }
    let nowhere = ark.expect(10, "backup delete never-made --yes").await?;
    nowhere.explains_error(&["never-made"])?;
    for line in [
        "backup delete a --yes",
        "sync",
        "expire",
        "expire --dry-run",
    ] {
        let said = ark
            .expect(10, &format!("{line} --location none-such"))
            .await?;
        said.explains_error(&["there is no BackupStorageLocation none-such"])?;
    }
    // Nobody waits.
    let started = ark
        .expect(0, "sync --location unwritable --wait=false -o name")
        .await?;
    ensure!(
        started.stdout.starts_with("job.batch/sync-unwritable-"),
        "{started:?}"
    );
    Ok(())
}

/// A cluster without nodes, in which Ark is installed; backups that this machine makes and deletes, and others'.
async fn chosen_from_storage() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    let plugin = async |code: i32, line: &str| -> Result<Said> {
        let mut command = outside(cluster.kubeconfig(), line)?;
        command.envs(s3::environment());
        let said = run(Ok(command)).await?;
        ensure!(said.code == Some(code), "{line}: {said:?}");
        Ok(said)
    };
    let local = async |code: i32, line: &str| {
        let place = format!("--local --storage file://{}", root.display());
        plugin(code, &format!("{line} {place}")).await
    };
    let left = || -> Result<Vec<String>> {
        let backups = root.join("backups");
        if !backups.exists() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(backups)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    plugin(0, "install --storage s3://b --image registry/ark-job:1").await?;
    let only = "--include-namespaces default";
    for (name, labels) in [
        ("mine-1", "pick=yes"),
        ("mine-2", "pick=no"),
        ("mine-3", "pick=no"),
        ("mine-old", "pick=no"),
    ] {
        local(0, &format!("backup create {name} {only} --labels {labels}")).await?;
    }
    forge(root, "theirs")?;
    for (name, field, value) in [
        ("mine-old", "startTimestamp", "2026-01-01T00:00:00Z"),
        ("theirs", "clusterUID", "another"),
    ] {
        let path = root.join(format!("backups/{name}/ark-backup.json"));
        let mut marker: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        marker["status"][field] = json!(value);
        std::fs::write(&path, marker.to_string())?;
    }
    ForeignBackup::new(Maker::Velero, "velero").store(root)?;

    let by_age = local(0, "backup delete --older-than 168h --yes").await?;
    let told = format!("{}{}", by_age.stdout, by_age.stderr);
    ensure!(
        told.matches("backup mine-old is deleted").count() == 1,
        "a single one is told of once: {by_age:?}"
    );
    ensure!(left()? == ["mine-1", "mine-2", "mine-3", "theirs", "velero"]);
    let by_label = local(0, "backup delete -l pick=yes --yes").await?;
    ensure!(
        by_label.stdout.contains("backup mine-1 is deleted"),
        "{by_label:?}"
    );
    ensure!(left()? == ["mine-2", "mine-3", "theirs", "velero"]);
    local(0, "backup delete mine-2 --yes").await?;
    ensure!(left()? == ["mine-3", "theirs", "velero"]);
    let nowhere = local(10, "backup delete mine-2 --yes").await?;
    nowhere.explains_error(&["there is no backup \"mine-2\""])?;
    let all = local(0, "backup delete --all --yes").await?;
    for text in [
        "left: 1 backup that another cluster made",
        "left: 1 backup that Velero, original Ark or nobody known made",
    ] {
        ensure!(all.stderr.contains(text), "{text}: {all:?}");
    }
    ensure!(left()? == ["theirs", "velero"]);
    let none = local(0, "backup delete --all --yes").await?;
    ensure!(none.stderr.contains("nothing to delete"), "{none:?}");
    // By name whoever made it.
    let both = local(0, "backup delete theirs velero --yes").await?;
    ensure!(both.stdout.contains("2 backups are deleted"), "{both:?}");
    ensure!(left()?.is_empty());
    let records = kubectl(
        &cluster,
        &format!("get backups.ark.heptio.com -n {ARK} -o name"),
    )?;
    ensure!(records.is_empty(), "{records}");

    // Without --local this machine chooses, and a Job deletes.
    let place = format!("--storage {}", storage("chosen", world::s3().await?.url()));
    bucket().await?;
    for name in ["stored-1", "stored-2"] {
        plugin(0, &format!("backup create {name} {only} --local {place}")).await?;
    }
    let key = "chosen/backups/stored-2/ark-backup.json";
    let mut marker: Value = serde_json::from_slice(&bucket().await?.get(key).await?)?;
    for uid in ["/status/clusterUID", "/commit/clusterUID"] {
        *marker.pointer_mut(uid).context("a UID")? = json!("another");
    }
    bucket().await?.put(key, marker.to_string()).await?;
    let dry = "--yes --dry-run=client -o json";
    let job = plugin(0, &format!("backup delete --all {dry} {place}")).await?;
    ensure!(
        job.stderr
            .contains("left: 1 backup that another cluster made"),
        "{job:?}"
    );
    let job: Value = serde_json::from_str(&job.stdout)?;
    let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
    ensure!(
        args[0] == "delete" && args[1] == "stored-1" && args[2] != "stored-2",
        "{args}"
    );
    Ok(())
}

async fn consent_needs_a_terminal() -> Result<()> {
    for line in ["backup delete a", "delete backups --all"] {
        // There is no cluster to ask.
        let said = run(outside(std::path::Path::new("/nowhere"), line)).await?;
        ensure!(said.code == Some(2), "{said:?}");
        said.explains(&["consent"], "--yes")?;
    }
    Ok(())
}
