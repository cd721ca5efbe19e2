//! Restore: what comes back, what is left alone, and what happens when the backup or the API server is damaged.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::api::{Backup, BackupStorageLocation, Restore};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, Victim, process};
use kube::CustomResourceExt;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore::a_deleted_namespace_comes_back_and_again_changes_nothing",
            deleted_namespace,
        ),
        scenario(
            "restore::namespaces_come_back_under_other_names",
            other_names,
        ),
        scenario(
            "restore::different_objects_are_left_alone_with_a_warning",
            left_alone,
        ),
        scenario(
            "restore::custom_resources_come_back_with_their_definition",
            custom_resources,
        ),
        scenario(
            "restore::what_the_cluster_does_not_serve_is_named",
            not_served,
        ),
        scenario(
            "restore::what_belongs_to_the_old_cluster_or_to_ark_does_not_come_back",
            never_restored,
        ),
        scenario(
            "restore::a_damaged_archive_is_not_written_from",
            damaged_archive,
        ),
        scenario(
            "restore::a_kill_at_any_write_and_another_attempt_end_the_same",
            killed,
        ),
        scenario(
            "restore::lost_answers_and_refusals_of_the_api_server_are_outlived",
            unsteady_api_server,
        ),
        scenario(
            "restore::a_record_tells_what_happened_and_keeps_its_name",
            records,
        ),
        scenario("restore::the_last_restore_out_gives_up_the_rights", rights),
    ]
}

/// A directory as storage, and the cluster it is about.
struct Place<'a> {
    directory: tempfile::TempDir,
    cluster: &'a ControlPlane,
}

impl<'a> Place<'a> {
    fn new(cluster: &'a ControlPlane) -> Result<Place<'a>> {
        Ok(Place {
            directory: tempfile::tempdir()?,
            cluster,
        })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        self.job_at(self.cluster.kubeconfig(), arguments)
    }

    fn job_at(&self, kubeconfig: &Path, arguments: &[&str]) -> ArkJob {
        let storage = format!("--storage=file://{}", self.path().display());
        ArkJob::new(kubeconfig, &[arguments, &[&storage]].concat())
    }

    async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        self.job(arguments).expect(0).await
    }

    /// The results file of a restore.
    fn results(&self, name: &str) -> Result<Value> {
        self.gzip(&format!("restores/{name}/restore-{name}-results.gz"))
    }

    /// What was done with each object, by type.
    fn list(&self, name: &str) -> Result<Value> {
        self.gzip(&format!(
            "restores/{name}/restore-{name}-resource-list.json.gz"
        ))
    }

    fn gzip(&self, path: &str) -> Result<Value> {
        let bytes = std::fs::read(self.path().join(path)).with_context(|| path.to_owned())?;
        let mut json = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut json)?;
        Ok(serde_json::from_str(&json)?)
    }
}

fn get(cluster: &ControlPlane, arguments: &[&str]) -> Result<Value> {
    let json = cluster.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())?;
    Ok(serde_json::from_str(&json)?)
}

fn exists(cluster: &ControlPlane, arguments: &[&str]) -> Result<bool> {
    let found =
        cluster.kubectl(&[&["get"], arguments, &["--ignore-not-found", "-o", "name"]].concat())?;
    Ok(!found.trim().is_empty())
}

/// An application: what people have, and what controllers make of it.
fn fill(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {namespace}}}\ndata: {{colour: green}}\n\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: password, namespace: {namespace}, labels: {{app: web}}}}\nstringData: {{p: x}}\n\
         ---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: runner, namespace: {namespace}}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80}}]}}\n\
         ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {namespace}}}\n\
         spec: {{replicas: 2, selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}\n\
         ---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: work, namespace: {namespace}}}\n\
         spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}\n\
         ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: runners, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}\n\
         subjects: [{{kind: ServiceAccount, name: runner, namespace: {namespace}}}]\n"
    );
    cluster.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &manifest)?;
    // The controllers have caught up when the pods are there, two of the deployment and one of the Job.
    wait(|| Ok(names(cluster, "pods", namespace)?.len() == 3))
}

fn wait(condition: impl Fn() -> Result<bool>) -> Result<()> {
    for _ in 0..300 {
        if condition()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("waited in vain")
}

fn names(cluster: &ControlPlane, resource: &str, namespace: &str) -> Result<Vec<String>> {
    let list = cluster.kubectl(&[
        "get",
        resource,
        "-n",
        namespace,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    Ok(list.split_whitespace().map(str::to_owned).collect())
}

fn delete_namespace(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    cluster
        .kubectl(&["delete", "namespace", namespace, "--wait=false"])
        .map(drop)
}

async fn deleted_namespace() -> Result<()> {
    let world = World::new("deleted").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    let before: BTreeMap<&str, Vec<String>> = ["replicasets", "services", "secrets"]
        .into_iter()
        .map(|resource| Ok((resource, names(cluster, resource, &namespace)?)))
        .collect::<Result<_>>()?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    // Still terminating when the restore begins: it waits.
    delete_namespace(cluster, &namespace)?;
    let restored = place
        .run(&[
            "restore",
            "b",
            "--name",
            "r",
            "--requested",
            "2026-11-23T20:15:01Z",
        ])
        .await?;
    ensure!(restored.stderr.contains("0 failed"), "{restored:?}");
    for (resource, names_before) in before {
        ensure!(
            names(cluster, resource, &namespace)? == names_before,
            "{resource}"
        );
    }
    let config_map = get(cluster, &["configmap", "settings", "-n", &namespace])?;
    ensure!(
        config_map["data"]["colour"] == "green"
            && config_map["metadata"]["labels"]["ark-restore"] == "b-20261123201501",
        "{config_map:#}"
    );
    // The deployment has found its replica set and its pods again: nothing was rolled out.
    wait(|| {
        let sets = get(cluster, &["replicasets", "-n", &namespace])?;
        Ok(sets["items"][0]["metadata"]["ownerReferences"][0]["kind"] == "Deployment")
    })?;
    ensure!(names(cluster, "replicasets", &namespace)?.len() == 1);
    // The Job's pod was not restored: the Job has started its own.
    wait(|| Ok(names(cluster, "pods", &namespace)?.len() == 3))?;

    let versions = |resource: &str| -> Result<String> {
        cluster.kubectl(&[
            "get",
            resource,
            "-n",
            &namespace,
            "-o",
            "jsonpath={.items[*].metadata.resourceVersion}",
        ])
    };
    let untouched = "configmaps,secrets,services,serviceaccounts,rolebindings";
    let before = versions(untouched)?;
    let again = place.run(&["restore", "b", "--name", "again"]).await?;
    ensure!(
        again.stderr.contains(" 0 created") && !again.stderr.contains("warning"),
        "{again:?}"
    );
    ensure!(versions(untouched)? == before, "something was written");
    ensure!(
        place.results("again")? == json!({"warnings": {}, "errors": {}}),
        "{:#}",
        place.results("again")?
    );
    Ok(())
}

async fn other_names() -> Result<()> {
    let world = World::new("mapped").await?;
    let cluster = world.cluster;
    let (one, two) = (world.namespace("one").await?, world.namespace("two").await?);
    let (new_one, new_two) = (format!("{one}-new"), format!("{two}-new"));
    let place = Place::new(cluster)?;
    fill(cluster, &one)?;
    fill(cluster, &two)?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "both",
        "--from-literal=a=1",
        "-n",
        &one,
    ])?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "both",
        "--from-literal=a=2",
        "-n",
        &two,
    ])?;
    let included = format!("{one},{two}");
    place
        .run(&["backup", "b", "--include-namespaces", &included])
        .await?;
    let mapping = format!("{one}:{new_one},{two}:{new_two}");
    place
        .run(&["restore", "b", "--namespace-mappings", &mapping])
        .await?;
    for (namespace, value) in [(&new_one, "1"), (&new_two, "2")] {
        let both = get(cluster, &["configmap", "both", "-n", namespace])?;
        ensure!(both["data"]["a"] == value, "{both:#}");
        let binding = get(cluster, &["rolebinding", "runners", "-n", namespace])?;
        ensure!(
            binding["subjects"][0]["namespace"] == **namespace,
            "{binding:#}"
        );
        let named = get(cluster, &["namespace", namespace])?;
        ensure!(
            named["metadata"]["labels"]["kubernetes.io/metadata.name"] == **namespace,
            "{named:#}"
        );
        ensure!(names(cluster, "services", namespace)? == ["web"]);
    }
    // Both onto one: their config maps differ, so nothing at all is done.
    let mapping = format!("{one}:{one}-onto,{two}:{one}-onto");
    let refused = place
        .job(&["restore", "b", "--namespace-mappings", &mapping])
        .expect(2)
        .await?;
    ensure!(refused.stderr.contains("configmaps both"), "{refused:?}");
    ensure!(!exists(cluster, &["namespace", &format!("{one}-onto")])?);
    for namespace in [new_one, new_two] {
        delete_namespace(cluster, &namespace)?;
    }
    Ok(())
}

async fn left_alone() -> Result<()> {
    let world = World::new("alone").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    fill(cluster, &namespace)?;
    let storage = world.storage();
    let run = async |arguments: &[&str]| {
        let arguments = [arguments, &["--storage", &storage]].concat();
        ArkJob::new(cluster.kubeconfig(), &arguments)
            .of("uid-of-a-job", "uid-of-a-pod")
            .expect(0)
            .await
    };
    run(&["backup", "b", "--include-namespaces", &namespace]).await?;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "settings",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        r#"{"data":{"colour":"red"}}"#,
    ])?;
    let restored = run(&["restore", "b", "--name", "r"]).await?;
    ensure!(
        restored
            .stderr
            .contains("ConfigMap settings exists and is different (at .data.colour)"),
        "{restored:?}"
    );
    let config_map = get(cluster, &["configmap", "settings", "-n", &namespace])?;
    ensure!(config_map["data"]["colour"] == "red", "{config_map:#}");
    let keys = world
        .bucket
        .keys(&format!("{}/restores/", world.prefix()))
        .await?;
    let expected: Vec<String> = ["logs.gz", "resource-list.json.gz", "results.gz"]
        .map(|file| format!("{}/restores/r/restore-r-{file}", world.prefix()))
        .into();
    ensure!(keys == expected, "{keys:?}");
    let results = world.bucket.get(&expected[2]).await?;
    let mut json = String::new();
    flate2::read::GzDecoder::new(&results[..]).read_to_string(&mut json)?;
    let results: Value = serde_json::from_str(&json)?;
    ensure!(
        results["warnings"]["namespaces"][&namespace]
            == json!([
                "ConfigMap settings exists and is different (at .data.colour); it is left as it is"
            ]),
        "{results:#}"
    );
    // Another run of that name keeps its hands off, and has a directory of its own.
    let arguments = ["restore", "b", "--name", "r", "--storage", &storage];
    ArkJob::new(cluster.kubeconfig(), &arguments)
        .of("uid-of-another-job", "uid-of-a-pod")
        .expect(0)
        .await?;
    let keys = world
        .bucket
        .keys(&format!("{}/restores/r-", world.prefix()))
        .await?;
    ensure!(keys.len() == 3, "{keys:?}");
    Ok(())
}

const WIDGETS: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.restore.example.com}\n\
    spec: {group: restore.example.com, scope: Namespaced, names: {plural: widgets, singular: widget, kind: Widget},\n\
    versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}\n";

/// A control plane with a custom resource in namespace `app`.
async fn cluster_with_widget() -> Result<ControlPlane> {
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], WIDGETS)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/widgets.restore.example.com",
        "--timeout=30s",
    ])?;
    cluster.kubectl_with_input(
        &["apply", "-f", "-"],
        "apiVersion: restore.example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: app}\nspec: {size: 3, big: 9007199254740993}\n",
    )?;
    Ok(cluster)
}

async fn custom_resources() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "crd", "widgets.restore.example.com"])?;
    // A selected namespace brings the definition that its objects need.
    place
        .run(&["restore", "b", "--name", "r", "--include-namespaces", "app"])
        .await?;
    let widget = get(&cluster, &["widget", "w", "-n", "app"])?;
    ensure!(
        widget["spec"] == json!({"size": 3, "big": 9007199254740993u64}),
        "{widget:#}"
    );
    let list = place.list("r")?;
    ensure!(
        list["apiextensions.k8s.io/v1/CustomResourceDefinition"]
            == json!(["widgets.restore.example.com(created)"])
            && list["restore.example.com/v1/Widget"] == json!(["app/w(created)"]),
        "{list:#}"
    );
    // The whole cluster on top of itself: nothing to do, and nothing to warn of.
    let again = place.run(&["restore", "b", "--name", "whole"]).await?;
    ensure!(
        again.stderr.contains(" 0 created") && !again.stderr.contains("level=warning"),
        "{again:?}"
    );
    Ok(())
}

async fn not_served() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "crd", "widgets.restore.example.com"])?;
    cluster.kubectl(&["create", "configmap", "gone", "-n", "app"])?;
    let partial = place
        .job(&[
            "restore",
            "b",
            "--name",
            "r",
            "--include-cluster-resources=false",
        ])
        .expect(3)
        .await?;
    ensure!(
        partial.stderr.contains(
            "1 widgets.restore.example.com are not restored: the cluster does not serve restore.example.com/v1"
        ),
        "{partial:?}"
    );
    // What is not wanted is not missed.
    place
        .run(&[
            "restore",
            "b",
            "--include-cluster-resources=false",
            "--exclude-resources",
            "widgets",
        ])
        .await?;
    let wrong = place
        .job(&["restore", "b", "--include-resources", "gadgets"])
        .expect(2)
        .await?;
    ensure!(wrong.stderr.contains("no resource type is called gadgets"));
    place.job(&["restore", "other"]).expect(10).await?;
    Ok(())
}

async fn never_restored() -> Result<()> {
    let world = World::new("never").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    let cron_job = |name: &str, label: &str| {
        format!(
            "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{label}}}}}\n\
             spec: {{schedule: \"0 0 1 1 *\", jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}}}\n"
        )
    };
    let manifest = format!(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: leader, namespace: {namespace}}}\n\
         ---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: by-hand, namespace: {namespace}}}\nsubsets: [{{addresses: [{{ip: 192.0.2.1}}]}}]\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: of-ark, namespace: {namespace}, labels: {{app.kubernetes.io/part-of: kubectl-ark}}}}\n\
         {}{}{}",
        cron_job("expiry", "app.kubernetes.io/part-of: kubectl-ark"),
        cron_job("daily", "ark.heptio.com/schedule: daily"),
        cron_job("mine", "a: b"),
    );
    cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    delete_namespace(cluster, &namespace)?;
    place.run(&["restore", "b", "--name", "r"]).await?;
    ensure!(names(cluster, "leases", &namespace)?.is_empty());
    ensure!(names(cluster, "cronjobs", &namespace)? == ["daily", "mine"]);
    ensure!(!names(cluster, "configmaps", &namespace)?.contains(&"of-ark".to_owned()));
    let suspended = |name: &str| get(cluster, &["cronjob", name, "-n", &namespace]);
    ensure!(suspended("daily")?["spec"]["suspend"] == true);
    ensure!(suspended("mine")?["spec"]["suspend"] == false);
    ensure!(exists(
        cluster,
        &["endpoints", "by-hand", "-n", &namespace]
    )?);
    let list = place.list("r")?;
    ensure!(
        list.get("v1/Event").is_none() && list.get("coordination.k8s.io/v1/Lease").is_none(),
        "{list:#}"
    );
    let refused = place
        .job(&["restore", "b", "--include-resources", "nodes"])
        .expect(2)
        .await?;
    ensure!(
        refused.stderr.contains("nodes are never restored"),
        "{refused:?}"
    );
    Ok(())
}

async fn damaged_archive() -> Result<()> {
    let world = World::new("damaged").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    // Without events, which a restore does not even read.
    place
        .run(&[
            "backup",
            "b",
            "--include-namespaces",
            &namespace,
            "--exclude-resources",
            "events",
        ])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    delete_namespace(cluster, &namespace)?;
    wait(|| Ok(!exists(cluster, &["namespace", &namespace])?))?;
    let archive = place.path().join("backups/b/b.tar.gz");
    let whole = std::fs::read(&archive)?;
    let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
    // The first member is for other readers, and the padding of the last is nothing.
    for part in 1..20 {
        let at = 300 + (whole.len() - 1500) * part / 20;
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        damages.push((format!("byte {at} flipped"), flipped));
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        damages.push((format!("cut at {length}"), whole[..length].to_vec()));
    }
    damages.push(("longer".into(), [&whole[..], b"x"].concat()));
    for (what, bytes) in damages {
        std::fs::remove_file(&archive)?;
        std::fs::write(&archive, bytes)?;
        place
            .job_at(&kubeconfig, &["restore", "b"])
            .expect(5)
            .await
            .with_context(|| what.clone())?;
    }
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} requests were writes");
    ensure!(!exists(cluster, &["namespace", &namespace])?);
    std::fs::remove_file(&archive)?;
    std::fs::write(&archive, whole)?;
    // A marker of another archive, none at all, and a backup that is going away.
    let marker = place.path().join("backups/b/ark-backup.json");
    let text = std::fs::read_to_string(&marker)?;
    let replace = |content: &str| {
        std::fs::remove_file(&marker)?;
        std::fs::write(&marker, content)
    };
    replace(&text.replace("\"footerOffset\": ", "\"footerOffset\": 1"))?;
    place.job(&["restore", "b"]).expect(5).await?;
    replace("{}}")?;
    place.job(&["restore", "b"]).expect(5).await?;
    replace(&text)?;
    let tombstone = place.path().join("backups/b/ark-deleting.json");
    std::fs::write(&tombstone, "{}")?;
    let deleted = place.job(&["restore", "b"]).expect(10).await?;
    ensure!(deleted.stderr.contains("being deleted"), "{deleted:?}");
    std::fs::remove_file(&tombstone)?;
    place.run(&["restore", "b"]).await?;
    Ok(())
}

async fn killed() -> Result<()> {
    let world = World::new("killed").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    for n in 0..5 {
        let name = format!("cm-{n}");
        cluster.kubectl(&["create", "configmap", &name, "-n", &namespace])?;
    }
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let restore = |target: &str, name: &str| {
        let mapping = format!("{namespace}:{target}");
        let arguments = [
            "restore",
            "b",
            "--name",
            name,
            "--requested",
            "2026-11-23T20:15:01Z",
            "--namespace-mappings",
            &mapping,
        ];
        place.job_at(&kubeconfig, &arguments).of("job", "pod")
    };
    let count = |target: &str| -> Result<usize> {
        let names = names(cluster, "configmaps", target)?;
        Ok(names.iter().filter(|name| name.starts_with("cm-")).count())
    };
    let target = |n: usize| format!("{namespace}-{n}");
    restore(&target(0), "unharmed").expect(0).await?;
    ensure!(count(&target(0))? == 5);
    let writes = proxy.count(|request| request.is_write()) as u64;
    ensure!(writes >= 6, "only {writes} writes were seen");
    for (n, after) in (1..=writes).flat_map(|n| [(n, false), (n, true)]) {
        let (victim, number) = (Victim::default(), n as usize * 2 + usize::from(after));
        let rule = Rule::on(|request| request.is_write()).only(n);
        let added = proxy.add(if after {
            rule.kill_after(&victim)
        } else {
            rule.kill_before(&victim)
        });
        let (target, name) = (target(number), format!("killed-{number}"));
        let running = restore(&target, &name).start()?;
        victim.is(running.id());
        let finished = running.wait().await?;
        ensure!(
            finished.code.is_none() && added.applied() == 1,
            "{finished:?}"
        );
        proxy.clear_rules();
        let finished = restore(&target, &name).expect(0).await?;
        ensure!(!finished.stderr.contains("warning"), "{finished:?}");
        ensure!(count(&target)? == 5, "killed at write {n}, after: {after}");
        delete_namespace(cluster, &target)?;
    }
    Ok(())
}

async fn unsteady_api_server() -> Result<()> {
    let world = World::new("unsteady").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    for n in 0..5 {
        let name = format!("cm-{n}");
        cluster.kubectl(&["create", "configmap", &name, "-n", &namespace])?;
    }
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let creates = || Rule::on(|request| request.is_write() && request.path.contains("/configmaps"));
    type Fault = fn(Rule) -> Rule;
    let rules: [(&str, Fault); 4] = [
        ("lost answers", |rule| rule.up_to(3).lose_answer()),
        ("resets", |rule| rule.up_to(3).reset()),
        ("too many requests", |rule| {
            rule.up_to(8)
                .answer(429, &[("retry-after", "1")], "too many requests")
        }),
        ("unavailable", |rule| rule.up_to(3).answer(503, &[], "")),
    ];
    for (n, (what, fault)) in rules.into_iter().enumerate() {
        let target = format!("{namespace}-{n}");
        let added = proxy.add(fault(creates()));
        let mapping = format!("{namespace}:{target}");
        let arguments = ["restore", "b", "--namespace-mappings", &mapping];
        let finished = place
            .job_at(&kubeconfig, &arguments)
            .expect(0)
            .await
            .context(what)?;
        proxy.clear_rules();
        ensure!(added.applied() >= 3, "{what}: {} times", added.applied());
        // The service account that every namespace has may have been made by its controller before.
        ensure!(
            finished.stderr.contains(" 0 failed") && !finished.stderr.contains("warning"),
            "{what}: {finished:?}"
        );
        let found = names(cluster, "configmaps", &target)?;
        ensure!(
            found.iter().filter(|name| name.starts_with("cm-")).count() == 5,
            "{what}"
        );
        delete_namespace(cluster, &target)?;
    }
    Ok(())
}

/// A control plane that knows Ark's resources.
async fn cluster_with_ark() -> Result<ControlPlane> {
    let cluster = cluster_with_widget().await?;
    cluster.kubectl(&["create", "namespace", "heptio-ark"])?;
    for definition in [Backup::crd(), Restore::crd(), BackupStorageLocation::crd()] {
        let json = serde_json::to_string(&definition)?;
        cluster.kubectl_with_input(&["apply", "-f", "-"], &json)?;
    }
    for resource in ["backups", "restores", "backupstoragelocations"] {
        let name = format!("crd/{resource}.ark.heptio.com");
        cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            &name,
            "--timeout=30s",
        ])?;
    }
    Ok(cluster)
}

async fn records() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    place.run(&["backup", "b"]).await?;
    let record = |name: &str| {
        get(
            &cluster,
            &["restores.ark.heptio.com", name, "-n", "heptio-ark"],
        )
    };
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let restore = ["restore", "b", "--name", "r", "--include-namespaces", "app"];
    place.run(&restore).await?;
    let status = &record("r")?["status"];
    ensure!(
        status["phase"] == "Completed"
            && status["created"] == 1
            && status["errors"] == 0
            && status["heartbeat"].is_null()
            && status["results"] == "restores/r/restore-r-results.gz",
        "{status:#}"
    );
    // The same again is done already; it is done once more only when told.
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let again = place.run(&restore).await?;
    ensure!(again.stderr.contains("complete already"), "{again:?}");
    ensure!(!exists(&cluster, &["configmap", "settings", "-n", "app"])?);
    place.run(&[&restore[..], &["--again"]].concat()).await?;
    ensure!(exists(&cluster, &["configmap", "settings", "-n", "app"])?);
    // Something else under that name is not.
    let other = place
        .job(&["restore", "b", "--name", "r"])
        .expect(11)
        .await?;
    ensure!(
        other.stderr.contains("something else was asked"),
        "{other:?}"
    );
    // Ark's own records were in the backup, and stay there.
    place.run(&["restore", "b", "--name", "whole"]).await?;
    let list = place.list("whole")?;
    ensure!(list.get("ark.heptio.com/v1/Backup").is_none(), "{list:#}");
    // A failure says why, also when it is the end of the process.
    place
        .job(&["restore", "none", "--name", "failed"])
        .expect(10)
        .await?;
    let status = &record("failed")?["status"];
    ensure!(
        status["phase"] == "Failed"
            && status["failureReason"]
                .as_str()
                .is_some_and(|why| why.contains("there is no backup")),
        "{status:#}"
    );
    let proxy = FaultProxy::start_before(&cluster).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    proxy.add(
        Rule::on(|request| request.is_write() && request.path.ends_with("/configmaps"))
            .before(move |_| sender.send(()).expect("the scenario waits for it"))
            .delay(Duration::from_secs(30)),
    );
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let arguments = [
        "restore",
        "b",
        "--name",
        "cut",
        "--include-namespaces",
        "app",
    ];
    let running = place.job_at(&kubeconfig, &arguments).start()?;
    receiver.recv().await.context("nothing was restored")?;
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(130), "{finished:?}");
    let status = &record("cut")?["status"];
    ensure!(
        status["phase"] == "Failed"
            && status["failureReason"]
                .as_str()
                .is_some_and(|why| why.contains("interrupted")),
        "{status:#}"
    );
    // Another attempt of the same goes on.
    place.run(&arguments).await?;
    ensure!(record("cut")?["status"]["phase"] == "Completed");
    Ok(())
}

async fn rights() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    let bind = |annotations: &str| {
        let manifest = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n\
             metadata: {{name: ark-restore, annotations: {{{annotations}}}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
             subjects: [{{kind: ServiceAccount, name: ark-restore, namespace: heptio-ark}}]\n"
        );
        cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest)
    };
    let bound = || exists(&cluster, &["clusterrolebinding", "ark-restore"]);
    // A service account that may nothing waits for its rights, and says so when they do not come.
    cluster.kubectl(&[
        "create",
        "serviceaccount",
        "ark-restore",
        "-n",
        "heptio-ark",
    ])?;
    let token = cluster.kubectl(&["create", "token", "ark-restore", "-n", "heptio-ark"])?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let own: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": own["clusters"][0]["cluster"]}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, config.to_string())?;
    let waiting = |name: &str, within: &str| {
        let arguments = ["restore", "b", "--name", name, "--wait-for-rights", within];
        place.job_at(&kubeconfig, &arguments)
    };
    let refused = waiting("refused", "1s").expect(1).await?;
    ensure!(
        refused.stderr.contains("has not been given the rights"),
        "{refused:?}"
    );
    let running = waiting("waited", "60s").start()?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    bind("ark.heptio.com/request: restore b")?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    ensure!(!bound()?, "the rights are still there");
    // A binding that no request has made is somebody's own.
    bind("mine: x")?;
    place.run(&["restore", "b", "--name", "standing"]).await?;
    ensure!(bound()?);
    // And so do those that another restore needs.
    bind("ark.heptio.com/request: restore b")?;
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: other, namespace: heptio-ark, labels: {ark.heptio.com/operation: restore}}\n\
        spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n";
    cluster.kubectl_with_input(&["apply", "-f", "-"], job)?;
    place.run(&["restore", "b", "--name", "first"]).await?;
    ensure!(bound()?);
    let uid = cluster.kubectl(&[
        "get",
        "job",
        "other",
        "-n",
        "heptio-ark",
        "-o",
        "jsonpath={.metadata.uid}",
    ])?;
    place
        .job(&["restore", "b", "--name", "last"])
        .of(&uid, "pod")
        .expect(0)
        .await?;
    ensure!(!bound()?, "the last one out has kept the rights");
    Ok(())
}
