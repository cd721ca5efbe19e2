//! What surrounds a restore by the plugin: its plan, consent, the rights it is given and gives up, the backup of a schedule,
//! and looking into a backup with `diff` and `show`.
//!
//! Shares the cluster of `plugin`, in which Ark is installed. Whoever restores or plans by a pod holds [`RESTORES`].

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{FaultProxy, Rule, wait_until};
use libtest_mimic::Trial;
use serde_json::json;

use crate::place::cluster_with_ark;
use crate::plugin::{
    Ark, RESTORES, Running, Said, ark, kubectl, line, outside, run, storage, trifle,
};
use crate::world::{self, World, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin_restore::a_plan_changes_nothing_and_leaves_nothing_behind",
            a_plan_leaves_nothing_behind,
        ),
        node_scenario(
            "plugin_restore::a_plan_that_fails_or_is_interrupted_leaves_nothing_behind",
            a_plan_without_an_end_leaves_nothing_behind,
        ),
        node_scenario(
            "plugin_restore::restores_and_a_plan_at_once_keep_their_rights_and_leave_none",
            restores_and_a_plan_at_once,
        ),
        node_scenario(
            "plugin_restore::a_job_created_again_after_a_live_edit_leaves_the_edit_alone",
            a_job_created_again_leaves_a_live_edit_alone,
        ),
        node_scenario(
            "plugin_restore::a_difference_is_told_by_the_exit_code",
            a_difference_is_told_by_the_exit_code,
        ),
        node_scenario(
            "plugin_restore::an_object_is_shown_ready_to_be_applied",
            an_object_is_shown_ready_to_be_applied,
        ),
        node_scenario(
            "plugin_restore::o18_q2_the_newest_good_backup_of_a_schedule_is_restored",
            the_newest_backup_of_a_schedule,
        ),
        scenario(
            "plugin_restore::without_a_terminal_changing_everything_is_refused_before_any_request",
            consent_needs_a_terminal,
        ),
        scenario(
            "plugin_restore::mistakes_in_named_config_maps_are_told_before_there_is_a_job",
            config_maps_are_checked,
        ),
        scenario(
            "plugin_restore::locally_the_newest_backup_of_a_schedule_is_found_in_storage",
            the_newest_backup_in_storage,
        ),
    ]
}

/// A namespace with one small object, backed up under its own name.
async fn backed_up(ark: &Ark, name: &str, flags: &str) -> Result<()> {
    trifle(&ark.cluster, name)?;
    let line = format!("backup create {name} --include-namespaces {name} --wait {flags}");
    ark.expect(0, &line).await.map(drop)
}

/// Nothing is left of the plans of a backup: no Job, record or rights at once, and no pod as soon as it has ended.
async fn nothing_is_left(ark: &Ark, backup: &str) -> Result<()> {
    let selector = format!("ark.heptio.com/operation=plan,ark.heptio.com/backup={backup}");
    let jobs = ark.get(&format!("jobs -l {selector}"))?;
    ensure!(jobs["items"] == json!([]), "left: {jobs:#}");
    ark.has_given_up_rights()?;
    let records = ark.get("restores.ark.heptio.com")?;
    let of_backup = records["items"]
        .as_array()
        .context("a list")?
        .iter()
        .find(|record| record["spec"]["backupName"] == backup);
    ensure!(of_backup.is_none(), "there is a record: {of_backup:#?}");
    wait_until("the pods to be gone", Duration::from_secs(60), async || {
        let pods = ark.get(&format!("pods -l {selector}"))?;
        Ok((pods["items"] == json!([])).then_some(()))
    })
    .await
}

async fn a_plan_leaves_nothing_behind() -> Result<()> {
    let ark = ark().await?;
    backed_up(ark, "planned", "").await?;
    kubectl(&ark.cluster, "delete configmap trifle -n planned")?;
    let _restores = RESTORES.lock().await;
    let plan = ark.expect(0, "restore plan planned").await?;
    ensure!(plan.stdout.contains("trifle"), "{plan:?}");
    nothing_is_left(ark, "planned").await?;
    let found = kubectl(
        &ark.cluster,
        "get configmap trifle -n planned --ignore-not-found -o name",
    )?;
    ensure!(found.is_empty(), "the plan restored it");

    // The same by the flag of `create`, and line by line for programs.
    let flag = "restore create planned --dry-run=server";
    let by_flag = ark.expect(0, flag).await?;
    ensure!(by_flag.stdout == plan.stdout, "{by_flag:?} {plan:?}");
    let lines = ark.expect(0, "restore plan planned -o json").await?.stdout;
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).with_context(|| line.to_owned())?;
    }
    ensure!(lines.contains("trifle"), "{lines}");
    nothing_is_left(ark, "planned").await
}

async fn a_plan_without_an_end_leaves_nothing_behind() -> Result<()> {
    let ark = ark().await?;
    let proxy = FaultProxy::start(world::s3().await?.url()).await?;
    ark.location(
        "unended",
        &storage("unended", &ark.cluster.expose(proxy.url())?),
    )?;
    backed_up(ark, "unended", "--location unended").await?;
    let _restores = RESTORES.lock().await;

    let failed = ark
        .expect(10, "restore plan no-such-backup --location unended")
        .await?;
    failed.explains_error(&["no-such-backup"])?;
    nothing_is_left(ark, "no-such-backup").await?;

    // Ctrl-C, while the pod reads the archive with a restore's rights.
    let held = proxy.add(
        Rule::on(|request| request.method == "GET" && request.path.ends_with(".tar.gz"))
            .delay(Duration::from_secs(120)),
    );
    let running = Running::start(ark.command("restore plan unended --location unended"))?;
    wait_until(
        "the archive to be read",
        Duration::from_secs(90),
        async || Ok((held.applied() > 0).then_some(())),
    )
    .await?;
    ensure!(
        ark.has("clusterrolebinding/ark-restore")?,
        "it plans without rights"
    );
    running.interrupt()?;
    let said = running.end().await?;
    ensure!(said.code == Some(130), "{said:?}");
    nothing_is_left(ark, "unended").await
}

async fn restores_and_a_plan_at_once() -> Result<()> {
    let ark = ark().await?;
    backed_up(ark, "parallel", "").await?;
    let _restores = RESTORES.lock().await;
    let mut running = Vec::new();
    for number in 1..=3 {
        let line = format!(
            "restore create parallel-{number} --from-backup parallel --namespace-mappings parallel:parallel-{number} --wait"
        );
        running.push(Running::start(ark.command(&line))?);
    }
    running.push(Running::start(ark.command("restore plan parallel"))?);
    for one in running {
        let said = one.end().await?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    for number in 1..=3 {
        kubectl(
            &ark.cluster,
            &format!("get configmap trifle -n parallel-{number}"),
        )?;
        ensure!(ark.phase("restore", &format!("parallel-{number}"))? == "Completed");
    }
    ark.has_given_up_rights()
}

async fn a_job_created_again_leaves_a_live_edit_alone() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    backed_up(ark, "edited", "").await?;
    kubectl(cluster, "delete configmap trifle -n edited")?;
    let _restores = RESTORES.lock().await;
    let restore = "restore create edits --from-backup edited --existing-resource-policy update \
                   --include-namespaces edited";
    let in_git = ark
        .expect(0, &format!("{restore} --dry-run=client -o yaml"))
        .await?
        .stdout;
    let apply = || cluster.kubectl_with_input(&["apply", "-f", "-"], &in_git);
    apply()?;
    ark.succeeded("restore-edits").await?;
    kubectl(cluster, "get configmap trifle -n edited")?;

    kubectl(
        cluster,
        "patch configmap trifle -n edited --type=merge -p {\"data\":{\"a\":\"edited\"}}",
    )?;
    ark.delete("job restore-edits")?;
    apply()?;
    ark.succeeded("restore-edits").await?;
    let value = || {
        kubectl(
            cluster,
            "get configmap trifle -n edited -o jsonpath={.data.a}",
        )
    };
    ensure!(value()? == "edited", "the edit is lost: {}", value()?);
    ark.has_given_up_rights()?;

    // Asked for by hand, it says that nothing was done.
    ark.delete("job restore-edits")?;
    let again = ark.expect(0, &format!("{restore} --wait")).await?;
    ensure!(
        again
            .stdout
            .contains("restore edits was complete already (")
            && again.stdout.contains("nothing was done"),
        "{again:?}"
    );
    ensure!(line(&again.stderr, "hint: ")?.contains("--again"));
    ensure!(value()? == "edited", "the edit is lost: {}", value()?);
    ark.has_given_up_rights()
}

async fn a_difference_is_told_by_the_exit_code() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    backed_up(ark, "compared", "").await?;
    let diff = "diff compared --include-namespaces compared --include-resources configmaps";
    let same = ark.expect(0, diff).await?;
    ensure!(same.stdout.is_empty(), "{same:?}");
    kubectl(
        cluster,
        "patch configmap trifle -n compared --type=merge -p {\"data\":{\"a\":\"c\"}}",
    )?;
    let different = ark.expect(1, diff).await?;
    ensure!(
        different.stdout.contains("trifle") && !different.stderr.contains("error:"),
        "{different:?}"
    );
    ark.expect(
        0,
        "backup create compared-later --include-namespaces compared --wait",
    )
    .await?;
    let both = "--include-resources configmaps";
    ark.expect(1, &format!("diff compared compared-later {both}"))
        .await?;
    ark.expect(0, &format!("diff compared compared {both}"))
        .await?;
    // What is 1 elsewhere is 2 here, also when it is the plugin that fails.
    ark.expect(10, "diff compared-never").await?;
    let nobody = run(outside(std::path::Path::new("/nowhere"), "diff compared")).await?;
    ensure!(nobody.code == Some(2), "{nobody:?}");
    nobody.explains_error(&["no cluster"])?;
    let selector = "jobs -l ark.heptio.com/operation=fetch,ark.heptio.com/backup=compared";
    ensure!(ark.get(selector)?["items"] == json!([]), "a Job is left");
    Ok(())
}

async fn an_object_is_shown_ready_to_be_applied() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    backed_up(ark, "shown", "").await?;
    let shown = ark
        .expect(0, "backup show shown shown/configmaps/trifle")
        .await?;
    kubectl(cluster, "delete configmap trifle -n shown")?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], &shown.stdout)?;
    let value = kubectl(
        cluster,
        "get configmap trifle -n shown -o jsonpath={.data.a}",
    )?;
    ensure!(value == "b", "{value}");
    let json = ark
        .expect(0, "backup show shown shown/configmaps/trifle -o json")
        .await?
        .stdout;
    let object: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(object["data"]["a"] == "b", "{object:#}");
    ark.expect(10, "backup show shown shown/configmaps/nowhere")
        .await?
        .explains_error(&["nowhere"])
}

async fn the_newest_backup_of_a_schedule() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "nightly")?;
    let rendered = "restore create again --from-schedule nightly --dry-run=client -o yaml";
    ark.expect(10, rendered)
        .await?
        .explains_error(&["schedule nightly has no backup in location default"])?;
    for time in ["20260102000000", "20260101000000"] {
        let line = format!(
            "backup create nightly-{time} --include-namespaces nightly --wait --if-exists keep"
        );
        ark.expect(0, &line).await?;
    }
    // By its start, not by its name; and the Job names it.
    let job = ark.expect(0, rendered).await?.stdout;
    ensure!(job.contains("- nightly-20260101000000\n"), "{job}");
    ark.expect(
        2,
        "restore create nightly --from-schedule nightly --from-backup nightly",
    )
    .await?;
    let _restores = RESTORES.lock().await;
    kubectl(&ark.cluster, "delete configmap trifle -n nightly")?;
    let restored = ark
        .expect(0, "restore create --from-schedule nightly --wait")
        .await?;
    ensure!(
        restored.stdout.contains("restore nightly-20260101000000-"),
        "{restored:?}"
    );
    kubectl(&ark.cluster, "get configmap trifle -n nightly")?;
    ark.has_given_up_rights()
}

async fn consent_needs_a_terminal() -> Result<()> {
    for policy in ["update", "recreate"] {
        let line = format!("restore create demo --existing-resource-policy {policy}");
        // There is no cluster to ask.
        let said = run(outside(std::path::Path::new("/nowhere"), &line)).await?;
        ensure!(said.code == Some(2), "{said:?}");
        said.explains(&[policy, "all namespaces"], "--yes")?;
    }
    Ok(())
}

async fn config_maps_are_checked() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let install =
        "install --storage s3://bucket --image registry.invalid/ark --dry-run=client -o json";
    let printed = run(outside(cluster.kubeconfig(), install)).await?;
    let mut list: serde_json::Value = serde_json::from_str(&printed.stdout)?;
    let objects = list["items"].as_array_mut().context("a list")?;
    objects.retain(|object| object["kind"] == "PodTemplate");
    crate::plugin::apply(&cluster, &list)?;
    let map = |name: &str, key: &str, text: &str| {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "heptio-ark" },
            "data": { key: text } });
        crate::plugin::apply(&cluster, &map)
    };
    map(
        "mistaken",
        "hooks.yaml",
        "resources: [{postHooks: [{exec: {command: []}}]}]",
    )?;
    map("good", "hooks.yaml", "resources: []")?;
    map(
        "rules",
        "rules.yaml",
        "version: v9\nresourceModifierRules: []\n",
    )?;
    let create = |flags: &str| {
        outside(
            cluster.kubeconfig(),
            &format!("restore create r --from-backup b --storage s3://bucket {flags}"),
        )
    };
    for (flags, code, text) in [
        ("--hooks mistaken", 2, "exec.command: it is empty"),
        (
            "--hooks none-such",
            10,
            "there is no ConfigMap none-such with hooks",
        ),
        (
            "--hooks good --resource-modifier-configmap rules",
            2,
            "rules",
        ),
        (
            "--resource-modifier-configmap none-such",
            10,
            "there is no ConfigMap none-such with resource modifiers",
        ),
    ] {
        let said = run(create(flags)).await?;
        ensure!(
            said.code == Some(code) && said.stderr.contains(text),
            "{flags}: {said:?}"
        );
    }
    let jobs = kubectl(&cluster, "get jobs -A -o name")?;
    ensure!(jobs.is_empty(), "{jobs}");
    // Who may not read them leaves it to the Job.
    let proxy = FaultProxy::start_before(&cluster).await?;
    proxy.add(
        Rule::on(|request| request.path.contains("/configmaps/"))
            .answer(403, &[("content-type", "application/json")], r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}"#),
    );
    let line = "restore create r --from-backup b --storage s3://bucket --hooks mistaken --dry-run=client -o name";
    let said = run(outside(cluster.kubeconfig_for(proxy.url())?, line)).await?;
    ensure!(said.code == Some(0), "{said:?}");
    Ok(())
}

async fn the_newest_backup_in_storage() -> Result<()> {
    let world = World::new("schedule").await?;
    let namespace = world.namespace("app").await?;
    kubectl(
        world.cluster,
        &format!("create configmap kept -n {namespace} --from-literal=a=b"),
    )?;
    let home = tempfile::tempdir()?;
    let local = async |line: &str| -> Result<Said> {
        let mut command = outside(world.cluster.kubeconfig(), line)?;
        command.env("HOME", home.path()).arg("--local");
        run(Ok(command)).await
    };
    let restore = "restore create --from-schedule daily";
    let none = local(restore).await?;
    ensure!(none.code == Some(10), "{none:?}");
    for time in ["20260101000000", "20260102000000"] {
        let said = local(&format!(
            "backup create daily-{time} --include-namespaces {namespace}"
        ))
        .await?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    let other = local(&format!(
        "backup create daily-other-20260103000000 --include-namespaces {namespace}"
    ))
    .await?;
    ensure!(other.code == Some(0), "{other:?}");
    kubectl(
        world.cluster,
        &format!("delete configmap kept -n {namespace}"),
    )?;
    let said = local(restore).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let label = kubectl(
        world.cluster,
        &format!("get configmap kept -n {namespace} -o jsonpath={{.metadata.labels.ark-restore}}"),
    )?;
    ensure!(label.starts_with("daily-20260102000000-"), "{label}");
    Ok(())
}
