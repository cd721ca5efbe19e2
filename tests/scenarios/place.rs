//! What scenarios of restore share: a directory as storage, an application to lose, and questions to a cluster.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, Options, process, wait_until};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A directory as storage, and the cluster it is about.
pub struct Place<'a> {
    directory: tempfile::TempDir,
    cluster: &'a ControlPlane,
}

impl<'a> Place<'a> {
    pub fn new(cluster: &'a ControlPlane) -> Result<Place<'a>> {
        Ok(Place {
            directory: tempfile::tempdir()?,
            cluster,
        })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn job(&self, arguments: &[&str]) -> ArkJob {
        self.job_at(self.cluster.kubeconfig(), arguments)
    }

    pub fn job_at(&self, kubeconfig: &Path, arguments: &[&str]) -> ArkJob {
        let storage = format!("--storage=file://{}", self.path().display());
        ArkJob::new(kubeconfig, &[arguments, &[&storage]].concat())
    }

    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        self.job(arguments).expect(0).await
    }

    /// The results file of a restore.
    pub fn results(&self, name: &str) -> Result<Value> {
        self.gzip(&format!("restores/{name}/restore-{name}-results.gz"))
    }

    /// What was done with each object, by type.
    pub fn list(&self, name: &str) -> Result<Value> {
        self.gzip(&format!(
            "restores/{name}/restore-{name}-resource-list.json.gz"
        ))
    }

    pub fn gzip(&self, path: &str) -> Result<Value> {
        let bytes = std::fs::read(self.path().join(path)).with_context(|| path.to_owned())?;
        let mut json = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut json)?;
        Ok(serde_json::from_str(&json)?)
    }
}

pub fn get(cluster: &ControlPlane, arguments: &[&str]) -> Result<Value> {
    let json = cluster.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())?;
    Ok(serde_json::from_str(&json)?)
}

pub fn exists(cluster: &ControlPlane, arguments: &[&str]) -> Result<bool> {
    let found =
        cluster.kubectl(&[&["get"], arguments, &["--ignore-not-found", "-o", "name"]].concat())?;
    Ok(!found.trim().is_empty())
}

/// An application: what people have, and what controllers make of it.
pub fn fill(cluster: &ControlPlane, namespace: &str) -> Result<()> {
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

pub fn wait(condition: impl Fn() -> Result<bool>) -> Result<()> {
    for _ in 0..300 {
        if condition()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("waited in vain")
}

pub fn names(cluster: &ControlPlane, resource: &str, namespace: &str) -> Result<Vec<String>> {
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

pub fn delete_namespace(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    cluster
        .kubectl(&["delete", "namespace", namespace, "--wait=false"])
        .map(drop)
}

const WIDGETS: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.restore.example.com}\n\
    spec: {group: restore.example.com, scope: Namespaced, names: {plural: widgets, singular: widget, kind: Widget},\n\
    versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}\n";

/// A control plane with a custom resource in namespace `app`.
pub async fn cluster_with_widget() -> Result<ControlPlane> {
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

/// A control plane that knows Ark's resources.
pub async fn cluster_with_ark() -> Result<ControlPlane> {
    let cluster = cluster_with_widget().await?;
    cluster.kubectl(&["create", "namespace", "heptio-ark"])?;
    cluster.define_resource_types()?;
    Ok(cluster)
}

/// Where the Python script that compares clusters is.
fn comparer() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/compare_clusters.py");
    let mut command = Command::new("python3");
    command.arg(script);
    command
}

/// What is different between two clusters, one line an object; nothing when they hold the same.
pub fn differences(first: &Path, second: &Path, more: &[&str]) -> Result<String> {
    let output = comparer().arg(first).arg(second).args(more).output()?;
    match output.status.code() {
        Some(0 | 1) if !output.stdout.is_empty() || output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        _ => bail!(
            "comparing failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Waits until two clusters hold the same: controllers may still be at work.
pub async fn become_equal(first: &Path, second: &Path, more: &[&str]) -> Result<()> {
    let mut last = String::new();
    let found = wait_until("the same objects", Duration::from_secs(60), async || {
        last = differences(first, second, more)?;
        Ok(last.is_empty().then_some(()))
    })
    .await;
    found.with_context(|| format!("different:\n{last}"))
}

/// The types of which the cluster has an object that must come back; every type that it serves, or an error.
pub fn filled_types(kubeconfig: &Path) -> Result<Vec<String>> {
    let mut command = comparer();
    command.arg("--types").arg(kubeconfig).arg(kubeconfig);
    let printed = process::output(&mut command)?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// Every file under a directory with its content's digest: what must not change.
pub fn files(directory: &Path) -> Result<BTreeMap<PathBuf, (u64, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let content = std::fs::read(&path)?;
                let digest = Sha256::digest(&content).to_vec();
                found.insert(path, (content.len() as u64, digest));
            }
        }
    }
    Ok(found)
}
/// Requests that may have written something, by the API server's own count: `VERB resource.group` → how many.
///
/// Without dry runs, and without what is asked by creating and stored nowhere. Nobody else may be at work.
pub async fn writes(cluster: &ControlPlane) -> Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = cluster.client().await?.request_text(request).await?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((labels, count)) = line
            .strip_prefix("apiserver_request_total{")
            .and_then(|rest| rest.rsplit_once("} "))
        else {
            continue;
        };
        let label = |name: &str| {
            let at = labels.find(&format!("{name}=\""))? + name.len() + 2;
            labels[at..].split('"').next()
        };
        let (group, verb) = (
            label("group").unwrap_or_default(),
            label("verb").unwrap_or_default(),
        );
        let stored = ![
            "authorization.k8s.io",
            "authentication.k8s.io",
            "coordination.k8s.io",
        ]
        .contains(&group);
        let is_write = [
            "POST",
            "PUT",
            "PATCH",
            "APPLY",
            "DELETE",
            "DELETECOLLECTION",
        ]
        .contains(&verb);
        if is_write && stored && label("dry_run").unwrap_or_default().is_empty() {
            let what = format!("{verb} {}.{group}", label("resource").unwrap_or_default());
            *found.entry(what).or_default() += count.parse::<f64>()? as u64;
        }
    }
    Ok(found)
}

/// What was written between two counts.
pub fn written(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    after
        .iter()
        .filter_map(|(what, count)| {
            let more = count - before.get(what).copied().unwrap_or_default();
            (more > 0).then(|| format!("{what}: {more}"))
        })
        .collect()
}
