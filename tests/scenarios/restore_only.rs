//! Restore-only mode: every way in is tried, and nothing in storage changes; what only reads goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::job::ArkJob;
use ark_tests::proxy::Victim;
use ark_tests::{ControlPlane, FaultProxy, Gate, Rule, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::backup::{Stored, read};
use crate::place::{cluster_with_ark, exists, get};
use crate::plugin::{ARK, Ark, apply, bucket, kubectl, outside, run, trifle};
use crate::world::{Shared, World, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "restore_only::jobs_of_every_kind_are_refused_until_it_is_off",
            jobs,
        ),
        scenario(
            "restore_only::a_read_only_place_is_protected_however_it_is_named",
            places,
        ),
        scenario(
            "restore_only::a_mode_that_cannot_be_read_is_restore_only",
            unreadable,
        ),
        scenario(
            "restore_only::a_backup_that_runs_when_it_is_switched_on_gets_no_marker",
            running,
        ),
        scenario(
            "restore_only::credentials_that_may_not_write_still_restore",
            credentials,
        ),
        scenario(
            "restore_only::what_it_suspended_is_resumed_and_nothing_else_wherever_it_was_cut_off",
            suspends,
        ),
        scenario("restore_only::an_installation_for_it_stays_in_it", installs),
    ]
}

fn location(cluster: &ControlPlane, name: &str, url: &str, access_mode: &str) -> Result<()> {
    let location = json!({
        "apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": name, "namespace": ARK}, "spec": {"url": url, "accessMode": access_mode},
    });
    apply(cluster, &location)
}

fn set_mode(cluster: &ControlPlane, mode: &str) -> Result<()> {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ark", "namespace": ARK},
        "data": {"mode": mode, "clusterName": "one"}});
    apply(cluster, &config)
}

async fn places() -> Result<()> {
    let world = World::new("readonly").await?;
    let cluster = cluster_with_ark().await?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    let job = |arguments: &[&str]| ArkJob::new(cluster.kubeconfig(), arguments);
    let scope = ["--include-namespaces", "app"];
    let backup = |name: &str, place: &[&str]| job(&[&["backup", name], place, &scope].concat());
    let endpoint = world.s3.url().replace("127.0.0.1", "localhost");
    let port = endpoint.rsplit(':').next().context("a port")?.to_owned();
    let (bucket, prefix) = (world.bucket.name(), world.prefix());
    let at = |endpoint: &str, prefix: &str| {
        format!("s3://{bucket}/{prefix}?endpoint={endpoint}&path-style=true&region=us-east-1")
    };
    let own = at(&endpoint, prefix);
    backup("b", &["--storage", &own]).expect(0).await?;

    location(&cluster, "old", &own, "ReadOnly")?;
    location(&cluster, "twin", &at(&endpoint, prefix), "ReadWrite")?;
    location(
        &cluster,
        "far",
        "s3://b/p?endpoint=http://s3.example.com",
        "ReadOnly",
    )?;
    location(&cluster, "bare", "s3://b/bare?region=us-east-1", "ReadOnly")?;
    let stored = world.bucket.objects(prefix).await?;
    let slash = at(&endpoint, &format!("{prefix}/"));
    let upper = at(&format!("HTTP://LOCALHOST.:{port}/"), prefix);
    let inside = at(&endpoint, &format!("{prefix}/backups/b"));
    for place in [
        ["--location", "old"],
        ["--location", "twin"],
        ["--storage", own.as_str()],
        ["--storage", &slash],
        ["--storage", &upper],
        ["--storage", &inside],
        // The default port, and a host that nobody asks.
        [
            "--storage",
            "s3://b/p/?endpoint=http://S3.Example.com:80&region=x",
        ],
    ] {
        let refused = backup("x", &place).expect(4).await?;
        ensure!(
            refused.stderr.contains("is ReadOnly") && refused.stderr.contains("\nhint: "),
            "{place:?}: {refused:?}"
        );
    }
    // Where a bucket without an endpoint is, the surroundings say.
    let named = "s3://b/bare?endpoint=http://s3.example.com:80&region=us-east-1";
    let refused = backup("x", &["--storage", named])
        .variable("AWS_ENDPOINT_URL", "http://s3.example.com")
        .expect(4)
        .await?;
    ensure!(refused.stderr.contains("location bare"), "{refused:?}");
    // And in the plugin's own process.
    let local = format!("backup create x --local --storage {slash}");
    let said = run(outside(cluster.kubeconfig(), &local)).await?;
    ensure!(said.code == Some(4), "{said:?}");
    said.explains_error(&["location old", "ReadOnly"])?;

    // A restore goes on, and keeps its results elsewhere; so does reading.
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let restore = ["restore", "b", "--name", "r", "--storage", &slash];
    job(&[&restore[..], &scope].concat()).expect(0).await?;
    ensure!(exists(&cluster, &["configmap", "settings", "-n", "app"])?);
    let record = get(&cluster, &["restores.ark.heptio.com", "r", "-n", ARK])?;
    ensure!(
        record["status"]["results"] == "configmap/ark-results-r",
        "{record:#}"
    );
    job(&["show", "b", "app/configmaps/settings", "--location", "old"])
        .expect(0)
        .await?;
    job(&[&["diff", "b", "--location", "old"][..], &scope].concat())
        .expect(0)
        .await?;
    ensure!(
        world.bucket.objects(prefix).await? == stored,
        "something was written"
    );
    // Refused, nothing is left behind in the cluster either.
    ensure!(!exists(&cluster, &["configmap", "ark-log-x", "-n", ARK])?);
    ensure!(!exists(
        &cluster,
        &["backups.ark.heptio.com", "x", "-n", ARK]
    )?);

    // Beside it is another place.
    let beside = at(&endpoint, &format!("{prefix}-beside"));
    backup("x", &["--storage", &beside]).expect(0).await?;

    // Who forgets -n, or has no Ark in that namespace, comes to the same place.
    let elsewhere = |place: &str| backup("y", &["--storage", place, "--namespace", "default"]);
    location(&cluster, "beside", &beside, "ReadWrite")?;
    for (place, mode, code) in [
        (own.as_str(), "Normal", 4),
        (&beside, "RestoreOnly", 4),
        (&beside, "Normal", 0),
    ] {
        set_mode(&cluster, mode)?;
        elsewhere(place).expect(code).await?;
    }
    Ok(())
}

/// A kubeconfig for a service account that may do what these rules say, and nothing else.
fn account(
    cluster: &ControlPlane,
    directory: &tempfile::TempDir,
    name: &str,
    rules: &Value,
) -> Result<std::path::PathBuf> {
    cluster.kubectl(&["create", "serviceaccount", name, "-n", ARK])?;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": rules});
    apply(cluster, &role)?;
    kubectl(
        cluster,
        &format!(
            "create clusterrolebinding {name} --clusterrole={name} --serviceaccount={ARK}:{name}"
        ),
    )?;
    let token = cluster.kubectl(&["create", "token", name, "-n", ARK])?;
    let own: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": own["clusters"][0]["cluster"]}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = directory.path().join(name);
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

async fn unreadable() -> Result<()> {
    let world = World::new("unreadable").await?;
    let cluster = cluster_with_ark().await?;
    let directory = tempfile::tempdir()?;
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let everything = ["get", "list", "create", "update", "patch", "delete"];
    let base = [
        rule(&[""], &["namespaces", "pods"], &["get", "list"]),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            &["list"],
        ),
        rule(
            &["ark.heptio.com"],
            &["backups", "backups/status"],
            &everything,
        ),
    ];
    let config_maps = rule(&[""], &["configmaps"], &everything);
    let locations = rule(
        &["ark.heptio.com"],
        &["backupstoragelocations"],
        &["get", "list"],
    );
    let with =
        |more: &[&Value]| -> Value { base.iter().chain(more.iter().copied()).cloned().collect() };
    let whole = account(
        &cluster,
        &directory,
        "whole",
        &with(&[&config_maps, &locations]),
    )?;
    let no_mode = account(&cluster, &directory, "no-mode", &with(&[&locations]))?;
    let no_locations = account(&cluster, &directory, "no-locations", &with(&[&config_maps]))?;
    let storage = world.storage();
    let backup = |kubeconfig: &std::path::Path, name: &str| {
        let scope = ["--include-resources", "namespaces,pods"];
        ArkJob::new(
            kubeconfig,
            &[&["backup", name, "--storage", &storage][..], &scope].concat(),
        )
    };
    // No ConfigMap forbids nothing: the rights are enough.
    let _ = kubectl(
        &cluster,
        &format!("delete configmap ark -n {ARK} --ignore-not-found"),
    )?;
    backup(&whole, "none").expect(0).await?;
    set_mode(&cluster, "Normal")?;
    backup(&whole, "normal").expect(0).await?;
    let stored = world.bucket.objects(world.prefix()).await?;

    let refused = async |kubeconfig: &std::path::Path, texts: &[&str]| -> Result<()> {
        let finished = backup(kubeconfig, "x").expect(4).await?;
        for text in texts {
            ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
        }
        Ok(())
    };
    refused(
        &no_mode,
        &[
            "the mode cannot be read",
            "forbidden",
            "hint: `kubectl get configmap ark",
        ],
    )
    .await?;
    refused(&no_locations, &["ReadOnly storage location", "forbidden"]).await?;
    for mode in ["RestoreOnly", "restore-only", ""] {
        set_mode(&cluster, mode)?;
        refused(
            &whole,
            &[
                "ConfigMap ark in namespace heptio-ark",
                "kubectl ark restore-only off",
            ],
        )
        .await?;
    }
    ensure!(
        world.bucket.objects(world.prefix()).await? == stored,
        "something was written"
    );
    // `off` puts right what is no mode.
    let said = run(outside(cluster.kubeconfig(), "restore-only off")).await?;
    ensure!(said.code == Some(0), "{said:?}");
    backup(&whole, "again").expect(0).await?;
    let config = get(&cluster, &["configmap", "ark", "-n", ARK])?;
    ensure!(
        config["data"] == json!({"mode": "Normal", "clusterName": "one"}),
        "{config:#}"
    );
    Ok(())
}

async fn running() -> Result<()> {
    let world = World::new("running").await?;
    let cluster = cluster_with_ark().await?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let gate = Gate::default();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    // The last file before the marker.
    proxy.add(
        Rule::on(|request| request.method == "PUT" && request.path.ends_with("-results.gz"))
            .before(move |_| {
                let _the_scenario_may_have_failed = sender.send(());
            })
            .hold(&gate),
    );
    let storage = world.storage_at(proxy.url());
    let arguments = [
        "backup",
        "b",
        "--storage",
        &storage,
        "--include-namespaces",
        "app",
    ];
    let job = |pod: &str| ArkJob::new(cluster.kubeconfig(), &arguments).of("job-uid", pod);
    let backup = job("first").start()?;
    receiver.recv().await.context("no results were stored")?;
    let on = run(outside(cluster.kubeconfig(), "restore-only on")).await?;
    ensure!(on.code == Some(0), "{on:?}");
    gate.open();
    let finished = backup.wait().await?;
    ensure!(
        finished.code == Some(4)
            && finished.stderr.contains("restore-only mode")
            && finished
                .stderr
                .contains("stays in backups/b/, without a marker"),
        "{finished:?}"
    );
    let keys = world.bucket.keys(&world.key("b")).await?;
    ensure!(
        keys.iter().any(|key| key.ends_with("b.tar.gz"))
            && !keys.iter().any(|key| key.ends_with("ark-backup.json")),
        "{keys:?}"
    );
    let record = get(&cluster, &["backups.ark.heptio.com", "b", "-n", ARK])?;
    ensure!(record["status"]["phase"] == "Failed", "{record:#}");
    // Another attempt is refused before it adopts what is there; when the mode is off, it does.
    let before = world.bucket.objects(world.prefix()).await?;
    job("second").expect(4).await?;
    ensure!(
        world.bucket.objects(world.prefix()).await? == before,
        "something was written"
    );
    let off = run(outside(cluster.kubeconfig(), "restore-only off")).await?;
    ensure!(off.code == Some(0), "{off:?}");
    job("third").expect(0).await?;
    let stored = Stored::fetch(&world.bucket, world.prefix(), "b").await?;
    ensure!(read(&stored.path())?.contains("configmaps app settings"));
    Ok(())
}

async fn credentials() -> Result<()> {
    let world = World::new("credentials").await?;
    let cluster = cluster_with_ark().await?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    let scope = ["--include-namespaces", "app"];
    let job = |arguments: &[&str]| ArkJob::new(cluster.kubeconfig(), &[arguments, &scope].concat());
    job(&["backup", "b", "--storage", &world.storage()])
        .expect(0)
        .await?;
    let stored = world.bucket.objects(world.prefix()).await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let denied = proxy.add(Rule::on(ark_tests::proxy::Request::is_write).answer(
        403,
        &[("content-type", "application/xml")],
        "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
    ));
    let storage = world.storage_at(proxy.url());
    let finished = job(&["backup", "x", "--storage", &storage])
        .expect(1)
        .await?;
    ensure!(
        denied.applied() > 0
            && finished.stderr.contains("AccessDenied")
            && finished.stderr.contains("\nhint: "),
        "{finished:?}"
    );
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let restored = job(&["restore", "b", "--name", "r", "--storage", &storage])
        .run()
        .await?;
    ensure!(
        restored.code == Some(0) && exists(&cluster, &["configmap", "settings", "-n", "app"])?,
        "{restored:?}"
    );
    job(&["diff", "b", "--storage", &storage]).expect(0).await?;
    ensure!(
        world.bucket.objects(world.prefix()).await? == stored,
        "something was written"
    );
    Ok(())
}

/// CronJobs in Ark's namespace: whether suspended, and the mark.
fn cron_jobs(cluster: &ControlPlane) -> Result<BTreeMap<String, (bool, bool)>> {
    let list = get(cluster, &["cronjobs", "-n", ARK])?;
    let all = list["items"].as_array().context("a list")?;
    Ok(all
        .iter()
        .map(|one| {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            let mark = &one["metadata"]["annotations"]["ark.heptio.com/suspended-by"];
            let suspended = one["spec"]["suspend"] == true;
            (name.to_owned(), (suspended, mark == "restore-only"))
        })
        .collect())
}

fn cron_job(name: &str, labels: &Value, suspend: bool) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": name, "namespace": ARK, "labels": labels},
        "spec": {"schedule": "0 0 1 1 *", "suspend": suspend, "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}},
    })
}

const OTHERS: [&str; 2] = ["paused", "users"];

async fn suspends() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let house = |operation: &str| json!({"app.kubernetes.io/part-of": "kubectl-ark", "ark.heptio.com/operation": operation});
    let schedule = |name: &str| json!({"ark.heptio.com/schedule": name});
    let fresh = || -> Result<()> {
        let _ = kubectl(&cluster, &format!("delete cronjobs --all -n {ARK}"))?;
        let _ = kubectl(
            &cluster,
            &format!("delete configmap ark -n {ARK} --ignore-not-found"),
        )?;
        for one in [
            cron_job("nightly", &schedule("nightly"), false),
            cron_job("weekly", &schedule("weekly"), false),
            cron_job("paused", &schedule("paused"), true),
            cron_job("users", &json!({"app": "x"}), false),
            cron_job("ark-expire-default", &house("expire"), false),
            cron_job("ark-sync-default", &house("sync"), false),
        ] {
            apply(&cluster, &one)?;
        }
        Ok(())
    };
    let states = |names: &[&str], state: (bool, bool)| -> Result<()> {
        let all = cron_jobs(&cluster)?;
        for name in names {
            ensure!(
                all.get(*name) == Some(&state),
                "{name} is not {state:?}: {all:?}"
            );
        }
        ensure!(
            all["paused"] == (true, false) && all["users"] == (false, false),
            "{all:?}"
        );
        ensure!(all["ark-sync-default"] == (false, false), "{all:?}");
        Ok(())
    };
    let stopped = ["nightly", "weekly", "ark-expire-default"];
    let plugin = async |line: &str| -> Result<String> {
        let said = run(outside(cluster.kubeconfig(), line)).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        Ok(said.stdout)
    };
    let versions = || -> Result<BTreeSet<String>> {
        let list = kubectl(
            &cluster,
            &format!(
                "get cronjobs,configmaps -n {ARK} -o jsonpath={{range.items[*]}}{{.metadata.name}}={{.metadata.resourceVersion}},{{end}}"
            ),
        )?;
        Ok(list.split(',').map(str::to_owned).collect())
    };

    fresh()?;
    let said = plugin("restore-only on").await?;
    ensure!(
        said.contains("cronjob.batch/nightly suspended")
            && said.contains("cronjob.batch/paused was suspended before"),
        "{said}"
    );
    states(&stopped, (true, true))?;
    let before = versions()?;
    plugin("restore-only on").await?;
    ensure!(versions()? == before, "on again has written something");
    let status = plugin("restore-only status").await?;
    for line in [
        "Mode:                 RestoreOnly",
        "Suspended by it:      cronjob.batch/ark-expire-default, cronjob.batch/nightly, cronjob.batch/weekly",
        "Suspended by others:  cronjob.batch/paused",
    ] {
        ensure!(status.lines().any(|one| one == line), "{line}: {status}");
    }
    // Resumed by hand: no longer the mode's business.
    kubectl(
        &cluster,
        &format!("patch cronjob weekly -n {ARK} -p {{\"spec\":{{\"suspend\":false}}}}"),
    )?;
    plugin("restore-only off --resume-expiry").await?;
    states(&stopped, (false, false))?;
    let before = versions()?;
    plugin("restore-only off --resume-expiry").await?;
    ensure!(versions()? == before, "off again has written something");

    // Cut off after any write, it is done by doing it again.
    for (line, mode, wanted) in [
        ("restore-only on", "RestoreOnly", (true, true)),
        ("restore-only off --resume-expiry", "Normal", (false, false)),
    ] {
        let mut cut = 0;
        for write in 1.. {
            fresh()?;
            if mode == "Normal" {
                plugin("restore-only on").await?;
            }
            let proxy = FaultProxy::start_before(&cluster).await?;
            let victim = Victim::default();
            let rule = proxy.add(
                Rule::on(|request| request.is_write())
                    .only(write)
                    .kill_after(&victim),
            );
            let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
            let mut command = tokio::process::Command::from(outside(&kubeconfig, line)?);
            let mut child = command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            victim.is(child.id().context("it runs")?);
            let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await??;
            if rule.applied() == 0 {
                ensure!(ended.success(), "{ended}");
                break;
            }
            cut += 1;
            ensure!(ended.signal() == Some(9), "it was not killed: {ended}");
            // The mode comes first, whatever else was done.
            let config = get(&cluster, &["configmap", "ark", "-n", ARK])?;
            ensure!(
                config["data"]["mode"] == mode,
                "after write {write}: {config:#}"
            );
            plugin(line).await?;
            states(&stopped, wanted)
                .with_context(|| format!("{line}, cut off after write {write}"))?;
        }
        ensure!(cut == 4, "{line} was cut off {cut} times");
    }
    ensure!(
        OTHERS
            .iter()
            .all(|name| cron_jobs(&cluster).is_ok_and(|all| all.contains_key(*name)))
    );
    Ok(())
}

async fn installs() -> Result<()> {
    let cluster = ControlPlane::start(ark_tests::Options::default()).await?;
    let plugin = async |line: &str| -> Result<String> {
        let said = run(outside(cluster.kubeconfig(), line)).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        Ok(said.stdout)
    };
    let mode = || -> Result<Value> {
        Ok(get(&cluster, &["configmap", "ark", "-n", ARK])?["data"]["mode"].clone())
    };
    let expected = |suspended: bool| -> BTreeMap<String, (bool, bool)> {
        let expire = ("ark-expire-default".to_owned(), (suspended, suspended));
        [expire, ("ark-sync-default".to_owned(), (false, false))].into()
    };
    let install = "install --image i --storage s3://b/p";
    // The first time.
    plugin(&format!("{install} --restore-only")).await?;
    ensure!(mode()? == "RestoreOnly" && cron_jobs(&cluster)? == expected(true));
    let uid = get(&cluster, &["namespace", "kube-system"])?["metadata"]["uid"].clone();
    let minute = |name: &str| -> Result<u64> {
        let schedule = get(&cluster, &["cronjob", name, "-n", ARK])?["spec"]["schedule"].clone();
        let minute = schedule
            .as_str()
            .and_then(|text| text.strip_suffix(" * * * *"));
        Ok(minute.context("hourly")?.parse()?)
    };
    let (expire, sync) = (minute("ark-expire-default")?, minute("ark-sync-default")?);
    ensure!(
        (sync + 30) % 60 == expire && uid.is_string(),
        "{sync} {expire}"
    );
    // Upgrading keeps it.
    plugin(install).await?;
    ensure!(mode()? == "RestoreOnly" && cron_jobs(&cluster)? == expected(true));
    // Back and forth, and an upgrade after each.
    kubectl(
        &cluster,
        &format!("patch configmap ark -n {ARK} -p {{\"data\":{{\"mode\":\"Normal\"}}}}"),
    )?;
    plugin("restore-only off --resume-expiry").await?;
    ensure!(mode()? == "Normal" && cron_jobs(&cluster)? == expected(false));
    plugin(install).await?;
    ensure!(mode()? == "Normal" && cron_jobs(&cluster)? == expected(false));
    apply(
        &cluster,
        &cron_job(
            "nightly",
            &json!({"ark.heptio.com/schedule": "nightly"}),
            false,
        ),
    )?;
    plugin(&format!("{install} --restore-only")).await?;
    ensure!(mode()? == "RestoreOnly");
    ensure!(cron_jobs(&cluster)?.remove("nightly") == Some((true, true)));
    plugin(install).await?;
    plugin("restore-only off --resume-expiry").await?;
    plugin(install).await?;
    let mut all = cron_jobs(&cluster)?;
    ensure!(
        all.remove("nightly") == Some((false, false)) && all == expected(false),
        "{all:?}"
    );
    // A location that becomes ReadOnly is still synced; one that is gone is not.
    plugin(&format!("{install} --access-mode read-only")).await?;
    ensure!(!cron_jobs(&cluster)?.contains_key("ark-expire-default"));
    ensure!(cron_jobs(&cluster)?.contains_key("ark-sync-default"));
    kubectl(
        &cluster,
        &format!("delete backupstoragelocation default -n {ARK}"),
    )?;
    plugin("install --image i").await?;
    ensure!(!cron_jobs(&cluster)?.contains_key("ark-sync-default"));
    Ok(())
}

static ARK_CLUSTER: Shared<Ark> = Shared::const_new();

/// The exit code of a Job's only pod.
async fn exit_code(ark: &Ark, job: &str) -> Result<i32> {
    wait_until(
        &format!("the pod of job {job} to end"),
        Duration::from_secs(90),
        async || {
            let pods = ark.pods(job).await?;
            ensure!(pods.len() < 2, "job {job} was retried");
            let status = pods.into_iter().next().and_then(|pod| pod.status);
            let containers = status.and_then(|status| status.container_statuses);
            let state = containers.and_then(|mut all| all.pop()?.state?.terminated);
            Ok(state.map(|ended| ended.exit_code))
        },
    )
    .await
}

async fn jobs() -> Result<()> {
    let ark = Ark::shared(&ARK_CLUSTER, "restore-only").await?;
    let cluster = &ark.cluster;
    trifle(cluster, "only")?;
    ark.expect(0, "backup create before --include-namespaces only --wait")
        .await?;
    // As it is in Git, and in a CronJob that fires every minute.
    let printed = async |name: &str| -> Result<Value> {
        let line =
            format!("backup create {name} --include-namespaces only --dry-run=client -o json");
        Ok(serde_json::from_str(&ark.expect(0, &line).await?.stdout)?)
    };
    let in_git = printed("git").await?;
    let tick = printed("tick").await?;
    let schedule = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "minutely", "namespace": ARK, "labels": {"ark.heptio.com/schedule": "minutely"}},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": tick["spec"]}},
    });
    ark.expect(0, "restore-only on").await?;
    let backups = async || bucket().await?.objects("restore-only/backups/").await;
    let stored = backups().await?;
    ensure!(!stored.is_empty(), "the backup is somewhere else");
    // Made while the mode is on, and not suspended: it fires.
    apply(cluster, &schedule)?;

    let said = ark
        .expect(4, "backup create x --include-namespaces only")
        .await?;
    said.explains(
        &["restore-only mode", "ConfigMap ark in namespace heptio-ark"],
        "kubectl ark restore-only off",
    )?;
    ensure!(ark.get("job backup-x").is_err(), "there is a Job");
    let directory = tempfile::tempdir()?;
    let local = format!(
        "backup create x --local --storage file://{}",
        directory.path().display()
    );
    ark.expect(4, &local).await?;
    for line in [
        "expire",
        "backup delete before --yes",
        "backup undelete before",
    ] {
        let said = ark.expect(4, line).await?;
        said.explains_error(&["restore-only mode"])?;
    }
    ensure!(std::fs::read_dir(directory.path())?.next().is_none());
    apply(cluster, &in_git)?;
    ensure!(exit_code(ark, "backup-git").await? == 4);
    kubectl(
        cluster,
        &format!("create job by-hand --from=cronjob/minutely -n {ARK}"),
    )?;
    ensure!(exit_code(ark, "by-hand").await? == 4);

    // What only reads storage goes on.
    kubectl(cluster, "delete configmap trifle -n only")?;
    ark.expect(0, "restore create before --wait").await?;
    kubectl(cluster, "get configmap trifle -n only")?;
    for line in [
        "backup get",
        "backup describe before",
        "restore-only status",
    ] {
        ark.expect(0, line).await?;
    }
    ark.expect(0, "diff before --include-namespaces only")
        .await?;

    let fired = wait_until(
        "the CronJob to fire",
        Duration::from_secs(120),
        async || {
            let jobs = ark.get("jobs")?;
            let name = jobs["items"]
                .as_array()
                .into_iter()
                .flatten()
                .find_map(|job| {
                    let name = job["metadata"]["name"].as_str()?;
                    name.starts_with("minutely-").then(|| name.to_owned())
                });
            Ok(name)
        },
    )
    .await?;
    ensure!(exit_code(ark, &fired).await? == 4);
    ensure!(backups().await? == stored, "something was written");

    // It is suspended now, then resumed; expiry waits to be asked for, and says what it would do.
    ark.expect(0, "restore-only on").await?;
    ensure!(cron_jobs(cluster)?["minutely"] == (true, true));
    let off = ark.expect(0, "restore-only off").await?;
    ensure!(
        off.stdout
            .contains("what would expire in location default:")
            && off
                .stderr
                .contains("next: kubectl ark restore-only off --resume-expiry"),
        "{off:?}"
    );
    let all = cron_jobs(cluster)?;
    ensure!(
        all["minutely"] == (false, false) && all["ark-expire-default"] == (true, true),
        "{all:?}"
    );
    ark.delete("cronjob minutely")?;
    ark.expect(0, "restore-only off --resume-expiry").await?;
    ensure!(cron_jobs(cluster)?["ark-expire-default"] == (false, false));
    ark.expect(0, "backup create after --include-namespaces only --wait")
        .await?;
    Ok(())
}
