//! `manifests/` as people use it: applied from Git to a cluster that has nothing, accepted by the API server, run by pods, and
//! applied again with pruning, which takes nothing that Ark made meanwhile. Health checks are run by the interpreters of Argo
//! CD and Flux, alert rules by Prometheus' promtool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ark_tests::process::output;
use ark_tests::{ControlPlane, Options, prerequisites, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{ARK, Ark, IMAGE, RESTORES, apply, ark, kubectl};
use crate::world::{node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "gitops::everything_in_git_is_accepted_by_an_empty_cluster",
            everything_is_accepted,
        ),
        scenario(
            "gitops::health_checks_and_metrics_are_right_about_real_records",
            health_and_metrics,
        ),
        scenario("gitops::alert_rules_fire_when_they_should", alert_rules),
        node_scenario(
            "gitops::what_git_has_is_run_by_pods_and_pruning_takes_nothing_else",
            run_by_pods,
        ),
    ]
}

/// The namespace that the examples are about; scenarios share a cluster, so here it has another name.
const SHOP: &str = "git-shop";

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn yaml(path: &str) -> Result<Vec<Value>> {
    let path = manifests().join(path);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("reading {}", path.display()))
}

/// A repository: a copy of `manifests`, and directories with a kustomization each.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new(edit: impl Fn(String) -> String) -> Result<Repository> {
        let directory = tempfile::tempdir()?;
        copy(&manifests(), &directory.path().join("manifests"), &edit)?;
        Ok(Repository(directory))
    }

    /// Commits a kustomization; gives its directory.
    fn commit(&self, name: &str, kustomization: &Value) -> Result<String> {
        let directory = self.0.path().join(name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(
            directory.join("kustomization.yaml"),
            kustomization.to_string(),
        )?;
        Ok(directory.display().to_string())
    }
}

fn copy(from: &Path, to: &Path, edit: &impl Fn(String) -> String) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to, edit)?;
        } else {
            std::fs::write(to, edit(std::fs::read_to_string(entry.path())?))?;
        }
    }
    Ok(())
}

fn files(directory: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(manifests().join(directory))? {
        names.push(format!("{directory}/{}", entry?.file_name().display()));
    }
    names.sort();
    Ok(names)
}

async fn everything_is_accepted() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    // One file, once: nothing in it needs a type that it defines.
    let install = manifests().join("install.yaml").display().to_string();
    cluster.kubectl(&["apply", "--server-side", "-f", &install])?;
    let served = "wait --for=condition=Established --all crd --timeout=60s";
    kubectl(&cluster, served)?;
    for example in files("examples")? {
        let path = manifests().join(&example).display().to_string();
        for strict in ["--server-side", "--server-side=false"] {
            cluster
                .kubectl(&[
                    "apply",
                    "--dry-run=server",
                    "--validate=strict",
                    strict,
                    "-f",
                    &path,
                ])
                .with_context(|| example.clone())?;
        }
        for object in yaml(&example)? {
            let ttl = &object["spec"]["ttlSecondsAfterFinished"];
            ensure!(ttl.is_null(), "{example} would be created again for ever");
        }
    }

    let repository = Repository::new(|text| text)?;
    let components = [
        "restore-standing",
        "hooks",
        "restore-only",
        "credentials-secret",
    ];
    let components = components.map(|name| format!("../manifests/kustomize/components/{name}"));
    let everything = repository.commit(
        "everything",
        &json!({
            "resources": ["../manifests/kustomize/base", "../manifests/kustomize/location"],
            "components": components,
            "images": [{"name": "ghcr.io/heptio/ark-job", "newName": "registry.example.com/ark-job",
                "digest": format!("sha256:{}", "0".repeat(64))}],
        }),
    )?;
    let built = cluster.kubectl(&["kustomize", &everything])?;
    let built: Vec<Value> = serde_saphyr::from_multiple(&built)?;
    let find = |kind: &str, name: &str| {
        built
            .iter()
            .find(|one| one["kind"] == kind && one["metadata"]["name"] == name)
            .with_context(|| format!("{kind} {name}"))
    };
    ensure!(find("ConfigMap", "ark")?["data"]["mode"] == "RestoreOnly");
    let template = find("PodTemplate", "ark")?;
    let annotations = &template["metadata"]["annotations"];
    ensure!(
        annotations["ark.heptio.com/hooks"] == "true",
        "{annotations}"
    );
    ensure!(annotations["ark.heptio.com/restore-rights"] == "standing");
    let image = template["template"]["spec"]["containers"][0]["image"].as_str();
    ensure!(
        image.is_some_and(|image| image.starts_with("registry.example.com/ark-job@sha256:0")),
        "{image:?}"
    );
    let expire = find("CronJob", "ark-expire-default")?;
    ensure!(expire["spec"]["suspend"] == true);
    ensure!(find("CronJob", "ark-sync-default")?["spec"]["suspend"].is_null());
    let pod = &expire["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array();
    ensure!(mounts.is_some_and(|mounts| mounts.len() == 2), "{pod}");
    // As Argo CD and Flux apply it, over what is there.
    let server_side = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "-k",
        &everything,
    ];
    cluster.kubectl(&server_side)?;
    // Applied again it changes nothing.
    let versions = "get cronjob,configmap,podtemplate,backupstoragelocation,role -n heptio-ark \
                    -o custom-columns=:.kind,:.metadata.name,:.metadata.resourceVersion";
    let before = kubectl(&cluster, versions)?;
    cluster.kubectl(&server_side)?;
    let after = kubectl(&cluster, versions)?;
    ensure!(before == after, "{before}\n{after}");

    let rights = manifests()
        .join("monitoring/rights.yaml")
        .display()
        .to_string();
    cluster.kubectl(&["apply", "--dry-run=server", "-f", &rights])?;
    Ok(())
}

/// What a program says that reads this text.
fn with_input(command: &mut Command, text: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let said = command.stdin(std::fs::File::open(file.path())?).output()?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(said.stdout)?)
}

/// What a health check and an expression say about a record.
struct Judge(PathBuf);

impl Judge {
    fn run(&self, how: &str, what: &str, object: &Value) -> Result<String> {
        let mut command = Command::new(&self.0);
        with_input(command.args([how, what]), &object.to_string())
    }

    fn lua(&self, file: &str, object: &Value) -> Result<(String, String)> {
        let path = manifests().join("argocd").join(file);
        let said: Value =
            serde_json::from_str(&self.run("lua", &path.display().to_string(), object)?)?;
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("message")))
    }

    /// What Flux makes of an object: the first expression that holds, as Flux asks them.
    fn flux(&self, checks: &Value, object: &Value) -> Result<&'static str> {
        for (name, status) in [
            ("inProgress", "InProgress"),
            ("failed", "Failed"),
            ("current", "Current"),
        ] {
            if let Some(expression) = checks[name].as_str()
                && self.run("cel", expression, object)?.trim() == "true"
            {
                return Ok(status);
            }
        }
        Ok("InProgress")
    }
}

async fn health_and_metrics() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    cluster.define_resource_types()?;
    kubectl(&cluster, &format!("create namespace {ARK}"))?;
    let judge = Judge(prerequisites::gitops()?);
    let record = |kind: &str, name: &str, spec: Value, status: Option<Value>| -> Result<Value> {
        let labels = json!({"ark.heptio.com/schedule": "nightly"});
        let object = json!({"apiVersion": "ark.heptio.com/v1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": ARK, "labels": labels}});
        apply(&cluster, &object)?;
        let resource = format!("{kind}.ark.heptio.com/{name}").to_lowercase();
        if let Some(status) = status {
            let patch = json!({ "status": status }).to_string();
            cluster.kubectl(&[
                "patch",
                &resource,
                "-n",
                ARK,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ])?;
        }
        let text = kubectl(&cluster, &format!("get {resource} -n {ARK} -o json"))?;
        Ok(serde_json::from_str(&text)?)
    };
    let checks: Vec<Value> = yaml("flux/kustomizations.yaml")?;
    let flux = |kind: &str| {
        checks
            .iter()
            .flat_map(|one| one["spec"]["healthCheckExprs"].as_array())
            .flatten()
            .find(|one| one["kind"] == kind)
            .with_context(|| format!("Flux has no check of {kind}"))
    };
    let metrics = Metrics::read()?;
    metrics.fit_the_types()?;
    let mut exposed = String::new();

    let times = json!({"startTimestamp": "2026-11-23T03:00:00Z", "completionTimestamp": "2026-11-23T03:00:05Z",
        "clusterUID": "u", "errors": 2, "warnings": 1, "size": 4711, "expiration": "2026-12-23T03:00:00Z",
        "messages": ["error: widgets.example.com: forbidden"], "failureReason": "the bucket is gone",
        "failed": 2, "progress": {"totalItems": 9, "itemsBackedUp": 9}, "volumes": {"snapshotted": 1, "skipped": 0, "missing": 1}});
    let phases = [
        ("New", "Progressing", "New", "InProgress"),
        ("InProgress", "Progressing", "InProgress", "InProgress"),
        ("Completed", "Healthy", "Completed", "Current"),
        (
            "PartiallyFailed",
            "Degraded",
            "widgets.example.com: forbidden",
            "Failed",
        ),
        ("Failed", "Degraded", "the bucket is gone", "Failed"),
        ("Deleting", "Progressing", "being deleted", "InProgress"),
    ];
    for (phase, health, message, current) in phases {
        for (kind, file, spec) in [
            (
                "Backup",
                "backup.lua",
                json!({"storageLocation": "default"}),
            ),
            ("Restore", "restore.lua", json!({"backupName": "b"})),
        ] {
            if kind == "Restore" && phase == "Deleting" {
                continue;
            }
            let mut status = times.clone();
            status["phase"] = json!(phase);
            let object = record(kind, &phase.to_lowercase(), spec, Some(status))?;
            let said = judge.lua(file, &object)?;
            ensure!(
                said.0 == health && said.1.contains(message),
                "{kind} {phase}: {said:?}"
            );
            let said = judge.flux(flux(kind)?, &object)?;
            ensure!(said == current, "{kind} {phase}: {said}");
            exposed.push_str(&metrics.of(&object)?);
        }
    }
    // A record that was just made has no status yet.
    let fresh = record("Backup", "fresh", json!({}), None)?;
    ensure!(judge.lua("backup.lua", &fresh)?.0 == "Progressing");
    exposed.push_str(&metrics.of(&fresh)?);

    let url = json!({"url": "s3://b/p", "accessMode": "ReadWrite"});
    for (name, status, health, current) in [
        ("new", None, "Healthy", None),
        (
            "good",
            Some(json!({"lastSyncTime": "2026-11-23T03:00:00Z"})),
            "Healthy",
            Some("Current"),
        ),
        (
            "bad",
            Some(json!({"lastSyncTime": "2026-11-23T03:00:00Z", "unreachable": "no such bucket"})),
            "Degraded",
            Some("Failed"),
        ),
    ] {
        let object = record("BackupStorageLocation", name, url.clone(), status)?;
        let said = judge.lua("location.lua", &object)?;
        ensure!(said.0 == health, "{name}: {said:?}");
        if let Some(current) = current {
            let said = judge.flux(flux("BackupStorageLocation")?, &object)?;
            ensure!(said == current, "{name}: {said}");
        }
        exposed.push_str(&metrics.of(&object)?);
    }
    for line in [
        "ark_backup_status_phase{cluster_uid=\"u\",location=\"default\",name=\"completed\",namespace=\"heptio-ark\",\
         phase=\"Completed\",schedule=\"nightly\"} 1",
        "ark_backup_status_phase{cluster_uid=\"u\",location=\"default\",name=\"failed\",namespace=\"heptio-ark\",\
         phase=\"Completed\",schedule=\"nightly\"} 0",
        "ark_backup_start_timestamp_seconds{cluster_uid=\"u\",location=\"default\",name=\"completed\",namespace=\"heptio-ark\",\
         phase=\"Completed\",schedule=\"nightly\"} 1795402800",
        "ark_backup_volumes_missing{cluster_uid=\"u\",location=\"default\",name=\"completed\",namespace=\"heptio-ark\",\
         schedule=\"nightly\"} 1",
        "ark_restore_failed{backup=\"b\",name=\"partiallyfailed\",namespace=\"heptio-ark\"} 2",
        "ark_location_info{access_mode=\"ReadWrite\",name=\"bad\",namespace=\"heptio-ark\",unreachable=\"no such bucket\"} 1",
        "ark_location_last_sync_timestamp_seconds{name=\"good\",namespace=\"heptio-ark\"} 1795402800",
    ] {
        ensure!(
            exposed.lines().any(|one| one == line),
            "{line}\nis not among\n{exposed}"
        );
    }
    let mut check = Command::new(prerequisites::promtool()?);
    with_input(check.args(["check", "metrics"]), &with_types(&exposed))
        .with_context(|| exposed.clone())?;
    // What the rules look at is there.
    let rules = std::fs::read_to_string(manifests().join("monitoring/rules.yaml"))?;
    for name in rules
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("ark_"))
    {
        let known = exposed
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{")));
        ensure!(known || name == "ark_", "no metric {name}");
    }
    Ok(())
}

/// The lines of each metric together, under help and type, as Prometheus wants them.
fn with_types(exposed: &str) -> String {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in exposed.lines() {
        let name = line.split('{').next().unwrap_or_default();
        by_name.entry(name).or_default().push(line);
    }
    let mut text = String::new();
    for (name, lines) in by_name {
        let _ = write!(
            text,
            "# HELP {name} x\n# TYPE {name} gauge\n{}\n",
            lines.join("\n")
        );
    }
    text
}

/// The configuration of kube-state-metrics, followed as its documentation says, as far as it is used: kube-state-metrics itself
/// is not to be had as a Go module.
struct Metrics(Vec<Value>);

impl Metrics {
    fn read() -> Result<Metrics> {
        let [config] = &yaml("monitoring/kube-state-metrics.yaml")?[..] else {
            bail!("it is not one document")
        };
        ensure!(config["kind"] == "CustomResourceStateMetrics");
        let resources = config["spec"]["resources"].as_array();
        Ok(Metrics(resources.context("no resources")?.clone()))
    }

    /// Every path in it is one of the resource type's.
    fn fit_the_types(&self) -> Result<()> {
        let definitions: Vec<Value> = yaml("kustomize/base/crds.yaml")?;
        for resource in &self.0 {
            let kind = &resource["groupVersionKind"]["kind"];
            let definition = definitions
                .iter()
                .find(|one| one["spec"]["names"]["kind"] == *kind)
                .with_context(|| format!("{kind} is no type"))?;
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let fits = |path: &[String]| {
                if path.first().is_some_and(|first| first == "metadata") {
                    return true;
                }
                let mut at = schema;
                path.iter().all(|field| {
                    at = &at["properties"][field.as_str()];
                    at.is_object()
                })
            };
            for path in labels(resource).values() {
                ensure!(fits(path), "{kind} has no {path:?}");
            }
            for metric in resource["metrics"].as_array().into_iter().flatten() {
                let (_, each) = each(metric)?;
                let base = path(&each["path"]);
                for rest in labels(each).values().chain([&path(&each["valueFrom"])]) {
                    let whole = [base.clone(), rest.clone()].concat();
                    ensure!(fits(&whole), "{kind} has no {whole:?}");
                }
            }
        }
        Ok(())
    }

    /// The metrics of an object, in Prometheus' text form; without the labels that say which type it is.
    fn of(&self, object: &Value) -> Result<String> {
        let mut text = String::new();
        for resource in &self.0 {
            if resource["groupVersionKind"]["kind"] != object["kind"] {
                continue;
            }
            let prefix = resource["metricNamePrefix"].as_str().context("prefix")?;
            let common = found(&labels(resource), object);
            for metric in resource["metrics"].as_array().into_iter().flatten() {
                let (kind, each) = each(metric)?;
                let name = format!("{prefix}_{}", metric["name"].as_str().context("name")?);
                let at = at(object, &path(&each["path"]));
                let mut all = common.clone();
                all.extend(found(&labels(each), at));
                match kind {
                    "StateSet" if !at.is_null() => {
                        let label = each["labelName"].as_str().context("labelName")?;
                        for state in each["list"].as_array().into_iter().flatten() {
                            let state_text = state.as_str().context("a state")?;
                            all.insert(label.to_owned(), state_text.to_owned());
                            line(&mut text, &name, &all, f64::from(u8::from(state == at)));
                        }
                        ensure!(
                            each["list"]
                                .as_array()
                                .is_some_and(|list| list.contains(at)),
                            "{at} is not in the list of {name}"
                        );
                    }
                    "Gauge" => {
                        if let Some(value) = number(self::at(at, &path(&each["valueFrom"])))? {
                            line(&mut text, &name, &all, value);
                        }
                    }
                    "Info" => line(&mut text, &name, &all, 1.0),
                    "StateSet" => {}
                    other => bail!("{name} is a {other}"),
                }
            }
        }
        Ok(text)
    }
}

fn each(metric: &Value) -> Result<(&str, &Value)> {
    let kind = metric["each"]["type"].as_str().context("type")?;
    let mut field = kind.to_owned();
    field[..1].make_ascii_lowercase();
    Ok((kind, &metric["each"][field]))
}

fn path(value: &Value) -> Vec<String> {
    let fields = value.as_array().into_iter().flatten();
    fields
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

fn labels(of: &Value) -> BTreeMap<String, Vec<String>> {
    let labels = of["labelsFromPath"].as_object().into_iter().flatten();
    labels.map(|(name, at)| (name.clone(), path(at))).collect()
}

fn found(labels: &BTreeMap<String, Vec<String>>, object: &Value) -> BTreeMap<String, String> {
    let value = |path: &[String]| at(object, path).as_str().map(str::to_owned);
    let labels = labels.iter();
    labels
        .filter_map(|(name, path)| Some((name.clone(), value(path)?)))
        .collect()
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |at, field| &at[field.as_str()])
}

fn number(value: &Value) -> Result<Option<f64>> {
    Ok(match value {
        Value::Null => None,
        Value::String(text) => {
            let time: jiff::Timestamp = text.parse()?;
            Some(time.as_second() as f64)
        }
        other => other.as_f64(),
    })
}

fn line(text: &mut String, name: &str, labels: &BTreeMap<String, String>, value: f64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

async fn alert_rules() -> Result<()> {
    let promtool = prerequisites::promtool()?;
    let directory = manifests().join("monitoring");
    let run = |directory: &Path, arguments: &[&str]| {
        output(
            Command::new(&promtool)
                .args(arguments)
                .current_dir(directory),
        )
    };
    run(&directory, &["check", "rules", "rules.yaml"])?;
    run(&directory, &["test", "rules", "rules_test.yaml"])?;
    // The test is one: a rule that says less fails it.
    let broken = tempfile::tempdir()?;
    let rules = std::fs::read_to_string(directory.join("rules.yaml"))?;
    std::fs::copy(
        directory.join("rules_test.yaml"),
        broken.path().join("rules_test.yaml"),
    )?;
    for (from, to) in [
        (
            "> 26 * 3600\n      )\n      and",
            "> 48 * 3600\n      )\n      and",
        ),
        ("phase=\"PartiallyFailed\"", "phase=\"Partially\""),
        ("unreachable!=\"\"", "unreachable=\"x\""),
        ("> 3 * 3600", "> 99 * 3600"),
    ] {
        ensure!(rules.contains(from), "{from}");
        std::fs::write(broken.path().join("rules.yaml"), rules.replace(from, to))?;
        let said = run(broken.path(), &["test", "rules", "rules_test.yaml"]);
        ensure!(said.is_err(), "nobody misses {from}");
    }
    Ok(())
}

/// One commit after the other is applied, with pruning, as a GitOps tool does it.
struct Applied<'a> {
    ark: &'a Ark,
    repository: Repository,
}

/// Argo CD's label on everything that an Application has in Git.
const TRACKING: &str = "app.kubernetes.io/instance";

impl Applied<'_> {
    /// Applies exactly these examples; what was there before from Git, and no longer is, is deleted.
    fn commit(&self, examples: &[&str], components: &[&str]) -> Result<()> {
        // As people do: kustomize reads no file outside of its directory.
        let from = self.repository.0.path().join("manifests/examples");
        let to = self.repository.0.path().join("all");
        std::fs::create_dir_all(&to)?;
        for example in examples {
            let name = format!("{example}.yaml");
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
        let all = self.repository.commit(
            "all",
            &json!({
                "resources": examples.iter().map(|name| format!("{name}.yaml")).collect::<Vec<_>>(),
                "components": components.iter().map(|name| format!("../manifests/kustomize/components/{name}")).collect::<Vec<_>>(),
                "images": [{"name": "ghcr.io/heptio/ark-job", "newName": "localhost/ark-job", "newTag": "scenarios"}],
                // The worst that a repository can do: the label by which it is pruned is on pods and on a CronJob's Jobs, too.
                "labels": [{"pairs": {(TRACKING): "git"}, "includeSelectors": false, "includeTemplates": true}],
            }),
        )?;
        ensure!(IMAGE == "localhost/ark-job:scenarios");
        let selector = format!("{TRACKING}=git");
        // In all namespaces, whatever a tool may look at.
        let allowed = [
            "core/v1/ConfigMap",
            "core/v1/Secret",
            "core/v1/Pod",
            "core/v1/PodTemplate",
            "core/v1/ServiceAccount",
            "batch/v1/Job",
            "batch/v1/CronJob",
            "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
            "ark.heptio.com/v1/Backup",
            "ark.heptio.com/v1/Restore",
            "ark.heptio.com/v1/BackupStorageLocation",
        ]
        .map(|kind| format!("--prune-allowlist={kind}"));
        let mut arguments = vec!["apply", "-k", &all, "--prune", "-l", &selector];
        arguments.extend(allowed.iter().map(String::as_str));
        self.ark.cluster.kubectl(&arguments).map(drop)
    }

    /// What Ark has made at run time, by name: records, Jobs, what is restored.
    fn there(&self) -> Result<Vec<String>> {
        let records = "get backups.ark.heptio.com,restores.ark.heptio.com -n heptio-ark -o name";
        let mut names = kubectl(&self.ark.cluster, records)?;
        names.push_str(&kubectl(
            &self.ark.cluster,
            &format!("get configmap -n {SHOP} -o name"),
        )?);
        // Others' come and go meanwhile.
        let ours = [
            "/before-",
            "/by-hand-in-git",
            "/git-nightly-",
            "/move",
            "configmap/",
        ];
        let mut names: Vec<&str> = names.lines().collect();
        names.retain(|name| ours.iter().any(|part| name.contains(part)));
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn ended(&self, job: &str) -> Result<()> {
        wait_until(
            &format!("job {job} to end"),
            Duration::from_secs(120),
            async || {
                let status = &self.ark.get(&format!("job {job}"))?["status"];
                let condition = |kind: &str| {
                    let conditions = status["conditions"].as_array().into_iter().flatten();
                    conditions
                        .into_iter()
                        .any(|one| one["type"] == kind && one["status"] == "True")
                };
                Ok((condition("Complete") || condition("Failed")).then_some(()))
            },
        )
        .await?;
        let status = self.ark.get(&format!("job {job}"))?["status"].clone();
        let log = || kubectl(&self.ark.cluster, &format!("logs -n {ARK} job/{job}"));
        ensure!(status["succeeded"] == 1, "{job}: {status}\n{:?}", log());
        Ok(())
    }
}

async fn run_by_pods() -> Result<()> {
    let ark = ark().await?;
    // Others share the cluster: their objects are not this repository's matter.
    let edit = |text: String| {
        text.replace("nightly", "git-nightly")
            .replace("=shop", &format!("={SHOP}"))
            .replace(":shop-copy", &format!(":{SHOP}-copy"))
            .replace(
                "- --if-exists=keep",
                &format!("- --if-exists=keep\n        - --include-namespaces={SHOP}"),
            )
    };
    let git = Applied {
        ark,
        repository: Repository::new(edit)?,
    };
    kubectl(&ark.cluster, &format!("create namespace {SHOP}"))?;
    kubectl(
        &ark.cluster,
        &format!("create configmap page -n {SHOP} --from-literal=text=hello"),
    )?;
    let keys = ["credentials-secret"];

    git.commit(&["backup-job", "schedule", "sync-job"], &keys)?;
    git.ended("backup-before-upgrade").await?;
    git.ended("sync-default").await?;
    ensure!(ark.phase("backup", "before-upgrade")? == "Completed");
    let schedules = ark.expect(0, "get schedules git-nightly -o name").await?;
    ensure!(schedules.stdout.contains("git-nightly"), "{schedules:?}");
    // Something of the schedule's, and something that a person asked for.
    let run = ark
        .expect(0, "schedule run git-nightly --wait -o name")
        .await?;
    ark.expect(
        0,
        &format!("backup create by-hand-in-git --include-namespaces {SHOP} --wait"),
    )
    .await?;
    let record = ark.get("backup.ark.heptio.com before-upgrade")?;
    for (kind, name) in [
        ("backup.ark.heptio.com", "before-upgrade"),
        ("backup.ark.heptio.com", "by-hand-in-git"),
    ] {
        let labels = &ark.get(&format!("{kind} {name}"))?["metadata"];
        ensure!(labels["labels"][TRACKING].is_null(), "{labels}");
        ensure!(labels["ownerReferences"].is_null(), "{labels}");
    }
    let before = git.there()?;
    let jobs = kubectl(&ark.cluster, &format!("get jobs -n {ARK} -o name"))?;

    // The Job of the backup leaves Git: it is pruned, and only it.
    git.commit(&["schedule", "sync-job"], &keys)?;
    let job = |name: &str| {
        kubectl(
            &ark.cluster,
            &format!("get job {name} -n {ARK} -o name --ignore-not-found"),
        )
    };
    ensure!(
        job("backup-before-upgrade")?.is_empty(),
        "nothing is pruned here: the test shows nothing"
    );
    let after = git.there()?;
    let gone: Vec<&String> = before.iter().filter(|one| !after.contains(one)).collect();
    ensure!(gone.is_empty(), "{gone:?} went with the Job");
    for made in run.stdout.lines().filter(|line| line.starts_with("job")) {
        ensure!(
            jobs.contains(made) && !job(made.rsplit('/').next().unwrap_or(made))?.is_empty(),
            "{made} is gone"
        );
    }
    ensure!(!job("backup-by-hand-in-git")?.is_empty());

    // It comes back, as GitOps makes what is missing: the backup is kept, byte for byte.
    git.commit(&["backup-job", "schedule", "sync-job"], &keys)?;
    git.ended("backup-before-upgrade").await?;
    let again = ark.get("backup.ark.heptio.com before-upgrade")?;
    ensure!(
        again["metadata"]["uid"] == record["metadata"]["uid"]
            && again["status"]["markerETag"] == record["status"]["markerETag"],
        "{again}"
    );
    // A pause is not undone: what the text does not say, applying it does not change.
    ark.expect(0, "schedule pause git-nightly").await?;

    // A plan and a restore, with standing rights; a backup before each sync.
    let restores = RESTORES.lock().await;
    let all = [
        "backup-job",
        "schedule",
        "before-sync-job",
        "restore-plan-job",
        "restore-job",
    ];
    let standing = ["credentials-secret", "restore-standing"];
    git.commit(&all, &standing)?;
    git.ended("plan-move").await?;
    let plan = kubectl(&ark.cluster, &format!("logs -n {ARK} job/plan-move"))?;
    ensure!(plan.contains("Plan: "), "{plan}");
    git.ended("restore-move").await?;
    git.ended("before-sync").await?;
    ensure!(ark.get("cronjob git-nightly")?["spec"]["suspend"] == true);
    ensure!(ark.phase("restore", "move")? == "Completed");
    let text = format!("get configmap page -n {SHOP}-copy -o jsonpath={{.data.text}}");
    ensure!(kubectl(&ark.cluster, &text)? == "hello");
    let listed = ark.expect(0, "get restores --no-headers").await?;
    ensure!(!listed.stdout.contains("plan-move"), "{}", listed.stdout);
    let created = |what: &str| ark.get(what).map(|one| one["metadata"]["uid"].clone());
    let restored = created("restore.ark.heptio.com move")?;
    // Made again, the restore is not done again, and what the person changed since stays.
    kubectl(
        &ark.cluster,
        &format!("delete configmap page -n {SHOP}-copy"),
    )?;
    ark.delete("job restore-move before-sync")?;
    git.commit(&all, &standing)?;
    git.ended("restore-move").await?;
    git.ended("before-sync").await?;
    ensure!(created("restore.ark.heptio.com move")? == restored);
    let page = kubectl(
        &ark.cluster,
        &format!("get configmap page -n {SHOP}-copy --ignore-not-found"),
    )?;
    ensure!(page.is_empty(), "it was restored again");
    let names = ark
        .expect(
            0,
            "get backups -l ark.heptio.com/schedule=before-sync -o name",
        )
        .await?;
    ensure!(names.stdout.lines().count() == 2, "{names:?}");
    // The rights leave Git, and with them the last of the restore.
    git.commit(&["delete-job"], &keys)?;
    ensure!(!ark.has("clusterrolebinding/ark-restore-standing")?);
    drop(restores);
    git.ended("delete-before-upgrade").await?;
    let after = git.there()?;
    ensure!(
        !after.iter().any(|one| one.ends_with("/before-upgrade")),
        "{after:?}"
    );
    ensure!(
        after.iter().any(|one| one.ends_with("/by-hand-in-git")),
        "{after:?}"
    );
    // A schedule that has left Git is gone; its backups stay.
    ensure!(
        kubectl(
            &ark.cluster,
            &format!("get cronjob git-nightly -n {ARK} -o name --ignore-not-found")
        )?
        .is_empty()
    );
    ensure!(
        after.iter().any(|one| one.contains("/git-nightly-")),
        "{after:?}"
    );
    kubectl(
        &ark.cluster,
        &format!("delete job delete-before-upgrade -n {ARK}"),
    )?;
    kubectl(
        &ark.cluster,
        &format!("delete namespace {SHOP} {SHOP}-copy --wait=false"),
    )?;
    Ok(())
}
