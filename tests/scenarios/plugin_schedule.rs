//! Schedules on a real cluster: CronJobs really fire, and what is said of them is what comes of them.
//!
//! Shares the cluster of `plugin`, in which Ark is installed; what changes an installation has its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, Options, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{ARK, Ark, IMAGE, Said, apply, ark, kubectl, line, outside, run, trifle};
use crate::world::{node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin_schedule::a_cron_job_fires_and_its_backup_is_found_by_its_time",
            a_cron_job_fires,
        ),
        node_scenario(
            "plugin_schedule::pausing_running_and_deleting_keep_what_is_stored",
            pausing_running_and_deleting,
        ),
        node_scenario(
            "plugin_schedule::what_is_printed_for_git_is_taken_and_makes_the_first_backup",
            printed_for_git,
        ),
        node_scenario(
            "plugin_schedule::mistakes_are_told_before_anything_is_created",
            mistakes_are_told,
        ),
        node_scenario(
            "plugin_schedule::a_job_that_fails_before_it_keeps_a_record_is_found_by_its_backup",
            a_job_without_a_record,
        ),
        node_scenario(
            "plugin_schedule::a_first_backup_that_cannot_be_begun_is_told_beside_its_schedule",
            a_first_backup_that_cannot_be_begun,
        ),
        node_scenario(
            "plugin_schedule::restore_only_mode_makes_no_schedules_and_no_backups",
            restore_only_mode,
        ),
        scenario(
            "plugin_schedule::installing_again_gives_schedules_the_pod_settings_of_now",
            installing_again,
        ),
    ]
}

/// A minute until it is due, the controller's ten seconds, and the backup.
const FIRES_WITHIN: Duration = Duration::from_secs(150);

/// `kubectl ark schedule create` with an expression that has blanks.
async fn create(ark: &Ark, code: i32, name: &str, cron: &str, flags: &str) -> Result<Said> {
    let mut command = ark.command(&format!("schedule create {name} {flags}"))?;
    command.args(["--schedule", cron]);
    let said = run(Ok(command)).await?;
    ensure!(
        said.code == Some(code),
        "expected exit code {code}: {said:?}"
    );
    Ok(said)
}

/// The label of a schedule, its Jobs and its backups.
const SCHEDULE: &str = "ark.heptio.com/schedule";

/// The Backup resources of a schedule, oldest first.
fn backups(ark: &Ark, schedule: &str) -> Result<Vec<Value>> {
    let selector = format!("{SCHEDULE}={schedule}");
    let list = ark.get(&format!("backups.ark.heptio.com -l {selector}"))?;
    Ok(list["items"].as_array().context("a list")?.clone())
}

fn named(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The cells of a schedule's row, which are three spaces apart.
async fn row(ark: &Ark, schedule: &str, flags: &str) -> Result<Vec<String>> {
    let line = format!("schedule get {schedule} --no-headers {flags}");
    let said = ark.expect(0, &line).await?;
    let cells = said.stdout.trim().split("   ").map(str::trim);
    Ok(cells
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect())
}

async fn a_cron_job_fires() -> Result<()> {
    let ark = ark().await?;
    let name = "fires";
    trifle(&ark.cluster, name)?;
    let flags =
        "--include-namespaces fires --time-zone Europe/Berlin --keep-last 2 --ttl 48h --wait";
    let said = create(ark, 0, name, "* * * * *", flags).await?;
    // The first backup is there at once.
    ensure!(
        said.stdout.contains("cronjob.batch/fires created\n"),
        "{said:?}"
    );
    ensure!(said.stdout.contains(" completed: "), "{said:?}");
    let next = line(&said.stderr, "next: ")?;
    ensure!(next.matches(" CE").count() == 3, "{said:?}");
    // Oldest first: when the minute ends while that one is waited for, the CronJob's is there too.
    let first = backups(ark, name)?;
    ensure!(!first.is_empty(), "no first backup");

    let second = wait_until("the CronJob to make a backup", FIRES_WITHIN, async || {
        let all = backups(ark, name)?;
        let made = all.iter().find(|one| named(one) != named(&first[0]));
        let done = made.filter(|made| made["status"]["phase"] == "Completed");
        Ok(done.cloned())
    })
    .await?;
    // It is called after the time that it was due, to the second.
    let second = named(&second);
    let time = second.strip_prefix("fires-").context("its name")?;
    ensure!(time.len() == 14 && time.ends_with("00"), "{second}");

    // Its Job, which is called after the CronJob, is found by the name of the backup; the kubelet may tell of its pod later.
    let log = ark.expect(0, &format!("backup logs {second} -f")).await?;
    ensure!(log.stdout.contains(second), "{log:?}");
    let described = ark.expect(0, &format!("backup describe {second}")).await?;
    ensure!(described.stdout.contains("Completed"), "{described:?}");

    let cells = row(ark, name, "-o wide").await?;
    let [
        _,
        status,
        cron,
        zone,
        last,
        next,
        keep,
        ttl,
        location,
        image,
    ] = &cells[..]
    else {
        anyhow::bail!("{cells:?}")
    };
    ensure!(
        [status, cron, zone, keep, ttl, location, image]
            == [
                "Enabled",
                "* * * * *",
                "Europe/Berlin",
                "2",
                "48h",
                "default",
                IMAGE
            ],
        "{cells:?}"
    );
    ensure!(
        last.starts_with("Completed (")
            || last.starts_with("New (")
            || last.starts_with("InProgress ("),
        "{last}"
    );
    ensure!(next.ends_with('s'), "{next}");

    // Another cluster's schedule of that name, in the same bucket, fails: that is no failure of this one.
    let theirs = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Backup",
        "metadata": {"name": "fires-29991231235900", "namespace": ARK, "labels": {(SCHEDULE): name},
            "annotations": {"ark.heptio.com/run": "theirs"}},
        "spec": {"storageLocation": "default"}});
    ark.cluster
        .kubectl_with_input(&["create", "-f", "-"], &theirs.to_string())?;
    let status = json!({"status": {"phase": "Failed", "clusterUID": "another", "startTimestamp": "2999-12-31T23:59:00Z"}});
    ark.cluster.kubectl(&[
        "patch",
        "backups.ark.heptio.com",
        "fires-29991231235900",
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    ark.expect(0, "schedule pause fires").await?;
    let described = ark.expect(0, "describe schedule fires").await?.stdout;
    for text in [
        "Paused (by kubectl-ark, ",
        "Failures in a row:  0\n",
        "Last good:          fires-",
        "Never expire:       the newest 2 Completed ones\n",
        "Namespaces:         fires\n",
    ] {
        ensure!(described.contains(text), "{text:?} is not in {described}");
    }
    ensure!(!described.contains("fires-2999"), "{described}");
    ark.delete("backups.ark.heptio.com fires-29991231235900")?;
    ark.expect(0, "delete schedule fires").await.map(drop)
}

async fn pausing_running_and_deleting() -> Result<()> {
    let ark = ark().await?;
    let name = "paused";
    trifle(&ark.cluster, name)?;
    // At this time of no day that comes while this runs.
    let cron = "0 0 29 2 *";
    let flags = "--include-namespaces paused --paused";
    let said = create(ark, 0, name, cron, flags).await?;
    ensure!(said.stdout == "cronjob.batch/paused created\n", "{said:?}");
    ensure!(
        line(&said.stderr, "next: ")?.contains("unpause paused"),
        "{said:?}"
    );
    ensure!(
        backups(ark, name)?.is_empty(),
        "a paused schedule has a backup"
    );
    let cells = row(ark, name, "").await?;
    ensure!(
        cells == ["paused", "Paused", cron, "<none>", "<none>", "<none>"],
        "{cells:?}"
    );

    // By hand, also of a paused one.
    let said = ark.expect(0, "schedule run paused --wait").await?;
    ensure!(said.stdout.contains(" completed: "), "{said:?}");
    ensure!(backups(ark, name)?.len() == 1, "one backup");
    let cells = row(ark, name, "").await?;
    ensure!(cells[4].starts_with("Completed ("), "{cells:?}");

    let suspended =
        || Ok::<Value, anyhow::Error>(ark.get("cronjob paused")?["spec"]["suspend"].clone());
    // Pausing by hand is not taken back when restore-only mode ends.
    let mark = "ark.heptio.com/suspended-by";
    kubectl(
        &ark.cluster,
        &format!("annotate cronjob paused -n {ARK} {mark}=restore-only"),
    )?;
    ensure!(row(ark, name, "").await?[1] == "Suspended", "its status");
    ark.expect(0, "schedule pause paused").await?;
    let annotations = ark.get("cronjob paused")?["metadata"]["annotations"].clone();
    ensure!(annotations.get(mark).is_none(), "{annotations}");
    ensure!(row(ark, name, "").await?[1] == "Paused", "its status");
    let said = ark
        .expect(0, "schedule unpause -l ark.heptio.com/schedule=paused")
        .await?;
    ensure!(said.stdout == "cronjob.batch/paused unpaused\n", "{said:?}");
    ensure!(suspended()? == json!(false), "it is suspended");
    ensure!(row(ark, name, "").await?[1] == "Enabled", "its status");

    // A Job of the CronJob's own is let go, and goes on.
    kubectl(
        &ark.cluster,
        &format!("create job paused-by-hand -n {ARK} --from=cronjob/paused"),
    )?;
    let said = ark.expect(0, "schedule delete paused").await?;
    ensure!(said.stdout == "cronjob.batch/paused deleted\n", "{said:?}");
    ensure!(said.stderr.contains("its backups stay"), "{said:?}");
    let job = ark.get("job paused-by-hand")?;
    ensure!(job["metadata"]["deletionTimestamp"].is_null(), "{job}");
    ensure!(job["metadata"]["ownerReferences"].is_null(), "{job}");
    ark.succeeded("paused-by-hand").await?;
    ensure!(backups(ark, name)?.len() == 2, "the backups stay");
    let said = ark.expect(10, "schedule delete paused").await?;
    said.explains(&["there is no schedule paused"], "schedule get")
}

async fn printed_for_git() -> Result<()> {
    let ark = ark().await?;
    let name = "printed";
    trifle(&ark.cluster, name)?;
    let flags = "--include-namespaces printed --dry-run=client -o yaml";
    let said = create(ark, 0, name, "0 0 29 2 *", flags).await?;
    let kinds: Vec<&str> = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("kind: "))
        .collect();
    ensure!(kinds == ["kind: CronJob", "kind: Job"], "{kinds:?}");
    let there = ark.get("cronjobs -l ark.heptio.com/schedule=printed")?;
    ensure!(there["items"] == json!([]), "a dry run has created {there}");

    ark.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &said.stdout)?;
    let first = wait_until("the first backup", Duration::from_secs(90), async || {
        let all = backups(ark, name)?;
        Ok(all
            .first()
            .filter(|one| one["status"]["phase"] == "Completed")
            .cloned())
    })
    .await?;
    ensure!(row(ark, name, "").await?[1] == "Enabled", "its status");
    ensure!(
        said.stdout.contains(&format!("backup-{}", named(&first))),
        "{first}"
    );
    ark.expect(0, "schedule delete printed").await.map(drop)
}

async fn mistakes_are_told() -> Result<()> {
    let ark = ark().await?;
    let daily = "@daily";
    let refused = async |code, name: &str, cron: &str, flags: &str, cause: &str, hint: &str| {
        create(ark, code, name, cron, flags)
            .await?
            .explains(&[cause], hint)
    };
    for (name, cron, flags, cause) in [
        ("wrong", "0 0 30 2 *", "", "never comes"),
        ("wrong", "0 7 * * 7", "", "day of week"),
        (
            "wrong",
            daily,
            "--time-zone Europe/Atlantis",
            "Europe/Atlantis",
        ),
        (
            "wrong",
            daily,
            "--starting-deadline 5s",
            "--starting-deadline",
        ),
        (&"x".repeat(49), daily, "", "at most 48"),
        ("ark-sync-default", daily, "", "ark-sync"),
    ] {
        create(ark, 2, name, cron, flags)
            .await?
            .explains_error(&[cause])?;
    }
    refused(
        10,
        "wrong",
        daily,
        "--location nowhere",
        "BackupStorageLocation nowhere",
        "location create",
    )
    .await?;
    refused(
        10,
        "wrong",
        daily,
        "--hooks nowhere",
        "ConfigMap nowhere",
        "create configmap",
    )
    .await?;
    create(ark, 2, "wrong", daily, "--storage file:///backups")
        .await?
        .explains_error(&["/backups"])?;
    let there = ark.get("cronjobs -l ark.heptio.com/schedule=wrong")?;
    ensure!(
        there["items"] == json!([]),
        "something was created: {there}"
    );

    // A CronJob that is no schedule is not touched.
    let container = json!({ "name": "main", "image": "busybox" });
    apply(
        &ark.cluster,
        &json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "foreign", "namespace": ARK },
            "spec": { "schedule": daily, "suspend": true, "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [container] } } } } },
        }),
    )?;
    refused(11, "foreign", daily, "", "is no schedule", "another name").await?;
    for verb in ["unpause", "pause", "delete", "describe", "run", "get"] {
        let said = ark.expect(10, &format!("schedule {verb} foreign")).await?;
        said.explains(
            &["there is no schedule foreign", "has no label"],
            "schedule get",
        )?;
    }
    ensure!(
        ark.get("cronjob foreign")?["spec"]["suspend"] == json!(true),
        "it was changed"
    );
    ark.delete("cronjob foreign")?;

    create(ark, 0, "twice", daily, "--paused").await?;
    refused(
        11,
        "twice",
        daily,
        "",
        "a schedule twice already",
        "schedule delete twice",
    )
    .await?;
    // The others are gone through all the same.
    let said = ark.expect(10, "schedule delete nowhere twice").await?;
    said.explains_error(&["there is no schedule nowhere"])?;
    ensure!(said.stdout == "cronjob.batch/twice deleted\n", "{said:?}");
    Ok(())
}

async fn a_job_without_a_record() -> Result<()> {
    let ark = ark().await?;
    let name = "recordless";
    let url = ark.get("backupstoragelocation default")?["spec"]["url"].clone();
    ark.location("fleeting", url.as_str().context("its URL")?)?;
    let flags = "--include-namespaces nowhere --location fleeting --paused";
    create(ark, 0, name, "@daily", flags).await?;
    ark.delete("backupstoragelocation fleeting")?;
    let job = "recordless-by-hand";
    let from = format!("create job {job} -n {ARK} --from=cronjob/{name}");
    kubectl(&ark.cluster, &from)?;
    wait_until("the Job to fail", Duration::from_secs(60), async || {
        let failed = ark.get(&format!("job {job}"))?["status"]["failed"].clone();
        Ok((failed == json!(1)).then_some(()))
    })
    .await?;
    ensure!(backups(ark, name)?.is_empty(), "it has kept a record");

    let row_of_job = async || {
        let rows = ark.expect(0, "backup get --no-headers").await?.stdout;
        let row = rows.lines().find(|row| row.starts_with("recordless-"));
        Ok::<Option<String>, anyhow::Error>(row.map(str::to_owned))
    };
    let listed = wait_until(
        "the backup to be Failed",
        Duration::from_secs(30),
        async || Ok(row_of_job().await?.filter(|row| row.contains("Failed"))),
    )
    .await?;
    let backup = listed.split_whitespace().next().context("a name")?;
    let digits = backup.rsplit('-').next().unwrap_or_default();
    ensure!(digits.len() == 14, "{listed}");
    let log = ark.expect(0, &format!("backup logs {backup}")).await?;
    ensure!(log.stdout.contains("fleeting"), "{log:?}");
    let described = ark.expect(0, &format!("backup describe {backup}")).await?;
    ensure!(described.stdout.contains("Failed"), "{described:?}");

    ensure!(
        row(ark, name, "").await?[4].starts_with("Failed ("),
        "its last backup"
    );
    let described = ark.expect(0, "schedule describe recordless").await?.stdout;
    for text in [
        format!("Last backup:        {backup}, "),
        "Last good:          <none>\n".to_owned(),
        "Failures in a row:  1\n".to_owned(),
    ] {
        ensure!(described.contains(&text), "{text:?} is not in {described}");
    }
    ark.delete(&format!("job {job}"))?;
    ark.expect(0, "schedule delete recordless").await.map(drop)
}

async fn a_first_backup_that_cannot_be_begun() -> Result<()> {
    let ark = ark().await?;
    let namespace = "ark-without-jobs";
    kubectl(&ark.cluster, &format!("create namespace {namespace}"))?;
    ark.settings(namespace, IMAGE, "").await?;
    let flag = format!("-n {namespace}");
    let quota = format!("create quota none {flag} --hard=count/jobs.batch=0");
    kubectl(&ark.cluster, &quota)?;
    let said = create(ark, 1, "lonely", "@daily", &format!("--wait {flag}")).await?;
    said.explains(
        &[
            "schedule lonely is there, but its first backup was not begun",
            "quota",
        ],
        &format!("schedule run lonely {flag}"),
    )?;
    ensure!(said.stdout == "cronjob.batch/lonely created\n", "{said:?}");
    kubectl(&ark.cluster, &format!("get cronjob lonely {flag}"))?;
    ark.expect(0, &format!("schedule delete lonely {flag}"))
        .await
        .map(drop)
}

async fn restore_only_mode() -> Result<()> {
    let ark = ark().await?;
    let namespace = "ark-restore-only-schedules";
    kubectl(&ark.cluster, &format!("create namespace {namespace}"))?;
    ark.settings(namespace, IMAGE, "").await?;
    let flag = format!("-n {namespace}");
    create(ark, 0, "kept", "@daily", &format!("--paused {flag}")).await?;
    let patch = r#"{"data":{"mode":"RestoreOnly"}}"#;
    ark.cluster.kubectl(&[
        "patch",
        "configmap",
        "ark",
        "-n",
        namespace,
        "--type=merge",
        "-p",
        patch,
    ])?;
    let refused = |said: Said| said.explains(&["restore-only mode"], "restore-only off");
    refused(create(ark, 4, "more", "@daily", &flag).await?)?;
    refused(
        ark.expect(4, &format!("schedule unpause --all {flag}"))
            .await?,
    )?;
    refused(ark.expect(4, &format!("schedule run kept {flag}")).await?)?;
    // What only looks, or makes fewer backups, goes on.
    ark.expect(0, &format!("schedule pause kept {flag}"))
        .await?;
    ark.expect(0, &format!("schedule describe kept {flag}"))
        .await?;
    // Beside what keeps house by the hour.
    let of_schedules = format!("get cronjobs,jobs -l {SCHEDULE} -o name {flag}");
    let there = kubectl(&ark.cluster, &of_schedules)?;
    ensure!(there == "cronjob.batch/kept\n", "{there}");
    ark.expect(0, &format!("schedule delete --all {flag}"))
        .await
        .map(drop)
}

async fn installing_again() -> Result<()> {
    // Without a node: nothing is to run.
    let cluster = ControlPlane::start(Options::default()).await?;
    let expect = async |line: &str| {
        let said = run(outside(cluster.kubeconfig(), line)).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        Ok(said)
    };
    // Without a location there is nothing to sync or to expire, and nothing to warn of.
    let said = expect("install --image registry/ark-job:old").await?;
    ensure!(
        !said.stderr.contains("warning") && !said.stdout.contains("cronjob"),
        "{said:?}"
    );
    expect("install --storage s3://b --image registry/ark-job:old --env OLD=1").await?;
    let own = "--schedule @daily --paused --keep-last 7 --ttl-after-finished 1h --deadline 2h";
    expect(&format!("schedule create ours {own}")).await?;
    let printed = expect(&format!(
        "schedule create gitops {own} --dry-run=client -o yaml"
    ))
    .await?;
    cluster.kubectl_with_input(
        &[
            "apply",
            "--server-side",
            "--field-manager=argocd-controller",
            "-f",
            "-",
        ],
        &printed.stdout,
    )?;
    let jobs = |name: &str| -> Result<Value> {
        let text = kubectl(&cluster, &format!("get cronjob {name} -n {ARK} -o json"))?;
        let cron_job: Value = serde_json::from_str(&text)?;
        ensure!(
            cron_job["spec"]["suspend"] == json!(true),
            "{name} is not paused any more"
        );
        Ok(cron_job["spec"]["jobTemplate"]["spec"].clone())
    };
    let before = jobs("ours")?;
    // Installing as before changes nothing, and says nothing of schedules.
    let said = expect("install").await?;
    ensure!(
        !said.stdout.contains("cronjob.batch/ours") && !said.stderr.contains("gitops"),
        "{said:?}"
    );

    let said = expect("install --image registry/ark-job:new --reset-pod-template").await?;
    ensure!(
        said.stdout.contains("cronjob.batch/ours replaced\n"),
        "{said:?}"
    );
    ensure!(!said.stdout.contains("cronjob.batch/gitops"), "{said:?}");
    let warning = line(&said.stderr, "warning: ")?;
    ensure!(
        warning == "schedule gitops is left as it is: argocd-controller manages it",
        "{said:?}"
    );
    let after = jobs("ours")?;
    let at = |job: &Value, field: &str| {
        job.pointer(&format!("/template/spec/containers/0/{field}"))
            .cloned()
    };
    ensure!(
        at(&after, "image") == Some(json!("registry/ark-job:new")),
        "{after}"
    );
    ensure!(at(&after, "args") == at(&before, "args"), "{after}");
    // What is not said any more is taken away.
    let has_old = |job: &Value| job.to_string().contains("\"OLD\"");
    ensure!(has_old(&before) && !has_old(&after), "{after}");
    for field in ["ttlSecondsAfterFinished", "activeDeadlineSeconds"] {
        ensure!(
            after[field] == before[field] && !after[field].is_null(),
            "{field}: {after}"
        );
    }
    ensure!(
        at(&jobs("gitops")?, "image") == Some(json!("registry/ark-job:old")),
        "gitops was changed"
    );

    // Asked for, it is overruled; what cannot be rendered is told about, and is not in the way.
    let gone = ["delete", "backupstoragelocation", "default", "-n", ARK];
    cluster.kubectl(&gone)?;
    let said = expect("install --force-conflicts --image registry/ark-job:newer").await?;
    let warnings = said
        .stderr
        .matches("is left as it was: there is no BackupStorageLocation default");
    ensure!(warnings.count() == 2, "{said:?}");
    let said = expect("install --force-conflicts --storage s3://b").await?;
    for name in ["ours", "gitops"] {
        let replaced = format!("cronjob.batch/{name} replaced\n");
        ensure!(said.stdout.contains(&replaced), "{said:?}");
        ensure!(
            at(&jobs(name)?, "image") == Some(json!("registry/ark-job:newer")),
            "{name} has another image"
        );
    }
    Ok(())
}
