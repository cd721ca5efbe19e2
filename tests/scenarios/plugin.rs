//! `kubectl ark` on a real cluster: it is installed, and Jobs back up and restore in real pods, with data in real S3.
//!
//! All scenarios share one cluster with a node, into which Ark is installed once. What pods must not be able to start
//! with is installed into a namespace of its own, without what belongs to the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ark_tests::{
    Bucket, ControlPlane, FaultProxy, NodeCluster, Options, Rule, images, job, process, s3,
    wait_until,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::sync::Mutex;

use crate::backup::{Stored, read};
use crate::world::{self, Shared, World, node_scenario, scenario, shared};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin::installing_twice_changes_nothing",
            installing_twice_changes_nothing,
        ),
        node_scenario(
            "plugin::its_namespace_enforces_the_restricted_level",
            its_namespace_enforces_the_restricted_level,
        ),
        node_scenario(
            "plugin::a_namespace_is_backed_up_lost_and_restored_by_jobs",
            a_namespace_is_backed_up_lost_and_restored_by_jobs,
        ),
        node_scenario(
            "plugin::applying_a_dry_run_does_the_same_as_the_command",
            applying_a_dry_run_does_the_same_as_the_command,
        ),
        node_scenario(
            "plugin::ark_backup_may_list_and_nothing_more",
            ark_backup_may_list_and_nothing_more,
        ),
        node_scenario(
            "plugin::ark_restore_may_create_nothing_unless_a_restore_runs",
            ark_restore_may_create_nothing_unless_a_restore_runs,
        ),
        node_scenario(
            "plugin::exit_codes_tell_what_became_of_it",
            exit_codes_tell_what_became_of_it,
        ),
        node_scenario(
            "plugin::an_image_that_cannot_be_pulled_is_told_at_once",
            an_image_that_cannot_be_pulled_is_told_at_once,
        ),
        node_scenario(
            "plugin::a_pod_that_no_node_takes_is_told_at_once",
            a_pod_that_no_node_takes_is_told_at_once,
        ),
        node_scenario(
            "plugin::a_secret_that_is_missing_is_told_at_once",
            a_secret_that_is_missing_is_told_at_once,
        ),
        node_scenario(
            "plugin::a_pod_that_a_quota_refuses_is_told_at_once",
            a_pod_that_a_quota_refuses_is_told_at_once,
        ),
        node_scenario(
            "plugin::storage_that_does_not_answer_is_told_while_it_is_tried_again",
            storage_that_does_not_answer_is_told_while_it_is_tried_again,
        ),
        node_scenario(
            "plugin::wrong_credentials_are_told_while_they_are_tried_again",
            wrong_credentials_are_told_while_they_are_tried_again,
        ),
        node_scenario(
            "plugin::a_missing_bucket_ends_the_job_at_once",
            a_missing_bucket_ends_the_job_at_once,
        ),
        node_scenario(
            "plugin::a_deadline_ends_the_job_and_is_told",
            a_deadline_ends_the_job_and_is_told,
        ),
        node_scenario(
            "plugin::ctrl_c_leaves_the_job_running",
            ctrl_c_leaves_the_job_running,
        ),
        node_scenario(
            "plugin::a_pod_killed_in_the_middle_is_followed_by_one_that_ends_with_one_backup",
            a_killed_pod_is_followed_by_another,
        ),
        node_scenario(
            "plugin::what_is_printed_has_the_form_of_kubectl",
            what_is_printed_has_the_form_of_kubectl,
        ),
        scenario(
            "plugin::without_ark_or_a_cluster_it_says_what_to_do",
            without_ark_or_a_cluster_it_says_what_to_do,
        ),
        scenario(
            "plugin::wrong_names_are_refused_before_any_request",
            wrong_names_are_refused_before_any_request,
        ),
        scenario(
            "plugin::it_works_locally_without_an_installation",
            it_works_locally_without_an_installation,
        ),
    ]
}

/// Ark's namespace.
pub const ARK: &str = "heptio-ark";
/// The image of `ark-job` in the cluster.
pub const IMAGE: &str = "localhost/ark-job:scenarios";
/// As soon as the cluster knows: the longest patience of the plugin is 20 s, for a node that may be added.
const SOON: Duration = Duration::from_secs(40);
/// Longer than any operation here takes, with three retries.
const ENDS_WITHIN: Duration = Duration::from_secs(240);

/// A cluster in which Ark is installed, with location `default` in the [`bucket`].
pub struct Ark {
    pub cluster: NodeCluster,
    pub storage: String,
    pub credentials: tempfile::NamedTempFile,
}

static ARK_CLUSTER: Shared<Ark> = Shared::const_new();
/// Held by whoever restores by a Job, or looks at the rights that this gives for a while.
pub static RESTORES: Mutex<()> = Mutex::const_new(());

pub async fn ark() -> Result<&'static Ark> {
    Ark::shared(&ARK_CLUSTER, "in-cluster").await
}

impl Ark {
    /// The one of a cell, started if it is not; it backs up to this prefix of the bucket.
    pub async fn shared(cell: &'static Shared<Ark>, prefix: &str) -> Result<&'static Ark> {
        // Boxed: starting a cluster is a large future, and a test's thread has a small stack.
        shared(cell, Box::pin(Ark::start(prefix))).await
    }

    async fn start(prefix: &str) -> Result<Ark> {
        let (cluster, s3) = (
            NodeCluster::start(Options::default()).await?,
            world::s3().await?,
        );
        let archive = cluster.directory()?.join("ark-job.tar");
        images::ark_job(IMAGE, &archive)?;
        cluster.load_image(&archive)?;
        let ark = Ark {
            storage: storage(prefix, &cluster.expose(s3.url())?),
            cluster,
            credentials: credentials(s3::SECRET_ACCESS_KEY)?,
        };
        bucket().await?;
        ark.install("").await?;
        Ok(ark)
    }

    pub fn command(&self, line: &str) -> Result<Command> {
        let mut command = self.cluster.command(job::program("kubectl-ark")?);
        command.args(line.split_whitespace());
        Ok(command)
    }

    /// Runs `kubectl ark` with the words of a line, and expects this exit code.
    pub async fn expect(&self, code: i32, line: &str) -> Result<Said> {
        let said = run(self.command(line)).await?;
        ensure!(
            said.code == Some(code),
            "expected exit code {code} of kubectl ark {line}: {said:?}"
        );
        Ok(said)
    }

    /// `kubectl ark install` as it was installed, with further flags.
    pub async fn install(&self, flags: &str) -> Result<Said> {
        let (storage, credentials) = (&self.storage, self.credentials.path().display());
        let line =
            format!("install --image {IMAGE} --storage {storage} --credentials-file {credentials}");
        self.expect(0, &format!("{line} {flags}")).await
    }

    /// Another namespace with Ark's settings, but without rights in the cluster: for pods that do not get far.
    pub async fn settings(&self, namespace: &str, image: &str, flags: &str) -> Result<()> {
        let line = format!(
            "install -n {namespace} --storage {} --image {image} {flags}",
            self.storage
        );
        let printed = self
            .expect(0, &format!("{line} --dry-run=client -o json"))
            .await?;
        let mut list: Value = serde_json::from_str(&printed.stdout)?;
        let objects = list["items"].as_array_mut().context("a list")?;
        objects.retain(|object| {
            object["kind"] == "Namespace" || object["metadata"]["namespace"] == namespace
        });
        apply(&self.cluster, &list)
    }

    /// A BackupStorageLocation with the credentials of the first.
    pub fn location(&self, name: &str, url: &str) -> Result<()> {
        self.location_with(
            name,
            url,
            self.get("backupstoragelocation default")?["spec"]["credentialSecret"].as_str(),
        )
    }

    fn location_with(&self, name: &str, url: &str, secret: Option<&str>) -> Result<()> {
        let location = json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation", "metadata": { "name": name, "namespace": ARK },
            "spec": { "url": url, "credentialSecret": secret, "accessMode": "ReadWrite" },
        });
        apply(&self.cluster, &location)
    }

    /// An object of Ark's namespace, or a list of them.
    pub fn get(&self, what: &str) -> Result<Value> {
        let text = kubectl(&self.cluster, &format!("get {what} -n {ARK} -o json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    pub fn delete(&self, what: &str) -> Result<()> {
        kubectl(&self.cluster, &format!("delete {what} -n {ARK}")).map(drop)
    }

    /// The phase that the record of an operation has.
    pub fn phase(&self, kind: &str, name: &str) -> Result<String> {
        let record = self.get(&format!("{kind}.ark.heptio.com {name}"))?;
        let phase = record["status"]["phase"].as_str();
        Ok(phase.context("it has no phase")?.to_owned())
    }

    /// The pods of a Job, oldest first.
    pub async fn pods(&self, job: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client().await?, ARK);
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let mut pods = pods.list(&of_job).await?.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        Ok(pods)
    }

    /// Every byte of a backup in the cluster's location, checked; its lines `resource namespace name`.
    async fn read(&self, location: &str, backup: &str) -> Result<BTreeSet<String>> {
        read(
            &Stored::fetch(&bucket().await?, location, backup)
                .await?
                .path(),
        )
    }

    /// Waits until a Job has succeeded.
    pub async fn succeeded(&self, job: &str) -> Result<()> {
        wait_until(
            &format!("job {job} to succeed"),
            Duration::from_secs(90),
            async || {
                let status = &self.get(&format!("job {job}"))?["status"];
                Ok((status["succeeded"] == 1).then_some(()))
            },
        )
        .await
    }

    /// That nothing is left of the rights of a restore.
    pub fn has_given_up_rights(&self) -> Result<()> {
        let there = self.has("clusterrolebinding/ark-restore")?;
        ensure!(!there, "the rights to restore are still there");
        Ok(())
    }

    /// Whether a cluster-scoped object is there.
    pub fn has(&self, object: &str) -> Result<bool> {
        let found = kubectl(
            &self.cluster,
            &format!("get {object} -o name --ignore-not-found"),
        )?;
        Ok(!found.is_empty())
    }
}

/// kubectl with the words of a line.
pub fn kubectl(cluster: &ControlPlane, line: &str) -> Result<String> {
    cluster.kubectl(&line.split_whitespace().collect::<Vec<_>>())
}

pub fn apply(cluster: &ControlPlane, object: &Value) -> Result<()> {
    cluster
        .kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
        .map(drop)
}

/// The bucket of this cluster, for this scenario.
pub async fn bucket() -> Result<Bucket> {
    world::s3().await?.bucket("plugin").await
}

/// A prefix in the bucket, at this endpoint.
pub fn storage(prefix: &str, endpoint: &str) -> String {
    format!("s3://plugin/{prefix}?endpoint={endpoint}&path-style=true&region=us-east-1")
}

/// A shared-credentials file with this secret key.
fn credentials(secret_key: &str) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let key_id = s3::ACCESS_KEY_ID;
    std::fs::write(
        file.path(),
        format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret_key}\n"),
    )?;
    Ok(file)
}

/// What the plugin said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    took: Duration,
}

impl Said {
    /// Of a process that has ended.
    pub fn new(output: std::process::Output) -> Result<Said> {
        Ok(Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
            took: Duration::ZERO,
        })
    }

    /// It said an error with all of these in it.
    pub fn explains_error(&self, causes: &[&str]) -> Result<()> {
        let error = line(&self.stderr, "error: ")?;
        for cause in causes {
            ensure!(
                error.contains(cause),
                "the error does not say {cause:?}: {self:?}"
            );
        }
        Ok(())
    }

    /// It said an error with all of these in it, and what to do, soon.
    pub fn explains(&self, causes: &[&str], next: &str) -> Result<()> {
        self.explains_error(causes)?;
        let hint = line(&self.stderr, "hint: ")?;
        ensure!(
            hint.contains(next),
            "the hint does not say {next:?}: {self:?}"
        );
        ensure!(self.took < SOON, "it took too long: {self:?}");
        Ok(())
    }
}

pub fn line<'a>(text: &'a str, prefix: &str) -> Result<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(prefix))
        .with_context(|| format!("no line starts with {prefix:?} in: {text}"))
}

pub async fn run(command: Result<Command>) -> Result<Said> {
    let mut command = tokio::process::Command::from(command?);
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(ENDS_WITHIN, output)
        .await
        .with_context(|| format!("{command:?} does not end"))??;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        took: started.elapsed(),
    })
}

/// A plugin that is still at work; killed when dropped.
pub struct Running {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    started: Instant,
    said: String,
}

impl Running {
    pub fn start(command: Result<Command>) -> Result<Running> {
        let mut command = tokio::process::Command::from(command?);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("it is piped")?;
        Ok(Running {
            child,
            stderr: BufReader::new(stderr).lines(),
            started: Instant::now(),
            said: String::new(),
        })
    }

    /// Waits until it says a line with all of these in it, soon.
    pub async fn says(&mut self, texts: &[&str]) -> Result<()> {
        let reading = async {
            while let Some(line) = self.stderr.next_line().await? {
                self.said.push_str(&line);
                self.said.push('\n');
                if texts.iter().all(|text| line.contains(text)) {
                    return Ok(());
                }
            }
            bail!("it ended")
        };
        let left = SOON.saturating_sub(self.started.elapsed());
        let result = tokio::time::timeout(left, reading).await;
        result
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| format!("waiting for a line with {texts:?} in: {}", self.said))
    }

    pub fn interrupt(&self) -> Result<()> {
        let process_id = self.child.id().context("it has ended")?;
        process::signal(process_id, rustix::process::Signal::INT)
    }

    pub async fn end(mut self) -> Result<Said> {
        let ending = async {
            while let Some(line) = self.stderr.next_line().await? {
                self.said.push_str(&line);
                self.said.push('\n');
            }
            let mut stdout = String::new();
            if let Some(mut pipe) = self.child.stdout.take() {
                pipe.read_to_string(&mut stdout).await?;
            }
            anyhow::Ok((self.child.wait().await?.code(), stdout))
        };
        let (code, stdout) = tokio::time::timeout(ENDS_WITHIN, ending)
            .await
            .context("it does not end")??;
        Ok(Said {
            code,
            stdout,
            stderr: self.said,
            took: self.started.elapsed(),
        })
    }
}

/// An application: what a pod serves is in a ConfigMap, and another object of each kind that matters.
fn application(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "page" }, "data": { "index.html": "Open all night" } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "till" }, "stringData": { "password": "correct-horse" } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "web", "image": images::BUSYBOX,
                        "command": ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"],
                        "volumeMounts": [{ "name": "page", "mountPath": "/www" }],
                    }],
                    "volumes": [{ "name": "page", "configMap": { "name": "page" } }],
                },
            },
        } },
    ] });
    cluster.kubectl_with_input(&["apply", "-n", namespace, "-f", "-"], &objects.to_string())?;
    Ok(())
}

/// A namespace with one small object, for what is about the Job and not about its work.
pub fn trifle(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    kubectl(
        cluster,
        &format!("create configmap trifle -n {namespace} --from-literal=a=b"),
    )?;
    Ok(())
}

/// What the application's pod serves, when it does.
async fn served(cluster: &ControlPlane, namespace: &str) -> Result<String> {
    kubectl(
        cluster,
        &format!("rollout status deployment/web -n {namespace} --timeout=90s"),
    )?;
    wait_until(
        "the application to serve",
        Duration::from_secs(30),
        async || {
            let get = "wget -qO- http://127.0.0.1:8080/index.html";
            kubectl(
                cluster,
                &format!("exec -n {namespace} deployment/web -- {get}"),
            )
            .map(Some)
        },
    )
    .await
}

fn unchanged(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Result<()> {
    let changed = before
        .iter()
        .filter(|&(name, version)| after[name] != *version);
    let changed: Vec<&String> = changed.map(|(name, _)| name).collect();
    ensure!(changed.is_empty(), "{changed:?} changed");
    Ok(())
}

async fn installing_twice_changes_nothing() -> Result<()> {
    let ark = ark().await?;
    let printed = ark.install("--dry-run=client -o yaml").await?;
    ark.cluster
        .kubectl_with_input(&["apply", "--dry-run=server", "-f", "-"], &printed.stdout)?;

    // Every object has a name for kubectl; what is there keeps its version.
    let names = ark.install("--dry-run=client -o name").await?.stdout;
    let names: Vec<&str> = names.lines().collect();
    ensure!(names.len() > 15, "{names:?}");
    let versions = || -> Result<BTreeMap<String, Value>> {
        names
            .iter()
            .map(|&name| {
                Ok((
                    name.to_owned(),
                    ark.get(name)?["metadata"]["resourceVersion"].clone(),
                ))
            })
            .collect()
    };
    let before = versions()?;
    let again = ark.install("").await?;
    unchanged(&before, &versions()?).context("installing again")?;
    for name in &names {
        ensure!(
            again
                .stdout
                .contains(&format!("{name} serverside-applied\n")),
            "{name}: {again:?}"
        );
    }
    // Pod settings that were chosen stay when nobody says otherwise.
    ark.expect(0, "install").await?;
    unchanged(&before, &versions()?).context("installing without flags")?;
    Ok(())
}

async fn its_namespace_enforces_the_restricted_level() -> Result<()> {
    let ark = ark().await?;
    let namespace = ark.get(&format!("namespace {ARK}"))?;
    ensure!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted",
        "{namespace}"
    );
    let root = format!(
        "run root -n {ARK} --image {} --restart=Never",
        images::BUSYBOX
    );
    let refused = kubectl(&ark.cluster, &root)
        .err()
        .context("a root pod was admitted")?;
    ensure!(
        format!("{refused:#}").contains("violates PodSecurity"),
        "{refused:#}"
    );

    trifle(&ark.cluster, "level")?;
    ark.expect(0, "backup create level --include-namespaces level --wait")
        .await?;
    let pods = ark.pods("backup-level").await?;
    let [pod] = pods.as_slice() else {
        bail!("{} pods", pods.len())
    };
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    ensure!(pod.metadata.namespace.as_deref() == Some(ARK) && phase == Some("Succeeded"));
    Ok(())
}

async fn a_namespace_is_backed_up_lost_and_restored_by_jobs() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    application(cluster, "shop")?;
    ensure!(served(cluster, "shop").await? == "Open all night");

    let backup = ark
        .expect(0, "backup create before --include-namespaces shop --wait")
        .await?;
    ensure!(
        backup.stdout.contains("backup before completed: "),
        "{backup:?}"
    );
    ensure!(ark.phase("backup", "before")? == "Completed");
    let names = ark.read("in-cluster", "before").await?;
    for name in [
        "configmaps shop page",
        "secrets shop till",
        "services shop web",
        "deployments.apps shop web",
        "namespaces - shop",
    ] {
        ensure!(
            names.contains(name),
            "{name} is not in the backup: {names:?}"
        );
    }

    kubectl(cluster, "delete namespace shop --timeout=90s")?;
    let restores = RESTORES.lock().await;
    let restore = ark
        .expect(0, "restore create --from-backup before --wait -o name")
        .await?;
    let job = line(&restore.stdout, "job.batch/")?.to_owned();
    let name = job.strip_prefix("restore-").context("the Job's name")?;
    ensure!(ark.phase("restore", name)? == "Completed");
    ark.has_given_up_rights()?;
    drop(restores);

    // The workload runs again, and what came back says where from.
    ensure!(served(cluster, "shop").await? == "Open all night");
    let password = kubectl(
        cluster,
        "get secret till -n shop -o jsonpath={.data.password}",
    )?;
    ensure!(password == "Y29ycmVjdC1ob3JzZQ==", "{password}");
    for object in [
        "configmap/page",
        "secret/till",
        "service/web",
        "deployment/web",
        "namespace/shop",
    ] {
        let label = kubectl(
            cluster,
            &format!("get {object} -n shop -o jsonpath={{.metadata.labels.ark-restore}}"),
        )?;
        let time = label
            .strip_prefix("before-")
            .with_context(|| format!("{object} has label {label:?}"))?;
        ensure!(
            time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit()),
            "{object}: {label}"
        );
        ensure!(
            label == name,
            "{object}: {label} is not the time at which {name} was asked for"
        );
    }
    Ok(())
}

/// What a Job asks for, without what differs between two of the same.
fn request(mut job: Value) -> Value {
    let Value::Object(spec) = job["spec"].take() else {
        return Value::Null;
    };
    let mut spec = Value::Object(spec);
    spec["selector"].take();
    for label in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
        spec["template"]["metadata"]["labels"][label].take();
    }
    let arguments = spec["template"]["spec"]["containers"][0]["args"].as_array_mut();
    arguments.into_iter().for_each(|arguments| {
        arguments.retain(|argument| {
            !argument
                .as_str()
                .is_some_and(|text| text.starts_with("--requested="))
        });
    });
    json!({ "labels": job["metadata"]["labels"], "spec": spec })
}

async fn applying_a_dry_run_does_the_same_as_the_command() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    trifle(cluster, "declared")?;
    let as_applied = |text: &str| -> Result<Value> {
        let text = cluster.kubectl_with_input(
            &["create", "--dry-run=server", "-o", "json", "-f", "-"],
            text,
        )?;
        Ok(serde_json::from_str(&text)?)
    };

    let backup = "backup create declared --include-namespaces declared --ttl=1h --deadline=5m";
    let printed = ark
        .expect(0, &format!("{backup} --dry-run=client -o yaml"))
        .await?
        .stdout;
    let expected = request(as_applied(&printed)?);
    ensure!(
        ark.get("jobs -l ark.heptio.com/backup=declared")?["items"] == json!([]),
        "a dry run made a Job"
    );
    ark.expect(0, &format!("{backup} --wait")).await?;
    let job = request(ark.get("job backup-declared")?);
    ensure!(job == expected, "{job:#}\nis not\n{expected:#}");

    let applied = printed
        .replace("backup-declared", "backup-applied")
        .replace("- declared\n", "- applied\n");
    cluster.kubectl_with_input(&["apply", "-f", "-"], &applied)?;
    ark.succeeded("backup-applied").await?;
    ensure!(ark.phase("backup", "applied")? == "Completed");
    ensure!(
        ark.read("in-cluster", "applied")
            .await?
            .contains("configmaps declared trifle")
    );

    // A restore is its Job and its rights.
    let _restores = RESTORES.lock().await;
    let restore =
        "restore create back --from-backup declared --namespace-mappings=declared:declared-2";
    let printed = ark
        .expect(0, &format!("{restore} --dry-run=client -o yaml"))
        .await?
        .stdout;
    let documents: Vec<&str> = printed
        .split("---\n")
        .filter(|text| !text.trim().is_empty())
        .collect();
    let [job, binding] = documents.as_slice() else {
        bail!("{} objects in {printed}", documents.len())
    };
    let (expected, binding) = (request(as_applied(job)?), as_applied(binding)?);
    ensure!(
        !ark.has("clusterrolebinding/ark-restore")?,
        "a dry run gave rights"
    );
    ark.expect(0, restore).await?;
    let (job, bound) = (
        ark.get("job restore-back")?,
        ark.get("clusterrolebinding ark-restore")?,
    );
    ensure!(
        request(job.clone()) == expected,
        "{job:#}\nis not\n{expected:#}"
    );
    for part in ["roleRef", "subjects"] {
        ensure!(
            bound[part] == binding[part],
            "{bound:#}\nis not\n{binding:#}"
        );
    }
    ensure!(
        binding["roleRef"]["name"] == "cluster-admin"
            && binding["subjects"][0]["name"] == "ark-restore",
        "{binding:#}"
    );
    ark.succeeded("restore-back").await?;
    kubectl(cluster, "get configmap trifle -n declared-2")?;
    ark.has_given_up_rights()?;

    kubectl(cluster, "delete configmap trifle -n declared-2")?;
    let applied = printed
        .replace("restore-back", "restore-applied")
        .replace("--name=back", "--name=applied");
    cluster.kubectl_with_input(&["apply", "-f", "-"], &applied)?;
    ark.succeeded("restore-applied").await?;
    ensure!(ark.phase("restore", "applied")? == "Completed");
    kubectl(cluster, "get configmap trifle -n declared-2")?;
    ark.has_given_up_rights()?;
    Ok(())
}

/// The HTTP status of a request with a bearer token, or with the administrator's own.
async fn status(
    cluster: &ControlPlane,
    token: Option<&str>,
    method: &str,
    path: &str,
) -> Result<u16> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    if let Some(token) = token {
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
    }
    let client = kube::Client::try_from(config)?;
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    let body = if method == "GET" { "" } else { "{}" };
    match client
        .request_text(request.body(body.as_bytes().to_vec())?)
        .await
    {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error).with_context(|| format!("{method} {path}")),
    }
}

/// What the API server says when a service account of Ark's asks whether it may.
fn may(cluster: &ControlPlane, account: &str, verb: &str, resource: &str) -> Result<bool> {
    let account = format!("--as=system:serviceaccount:{ARK}:{account}");
    // `no` is exit code 1, and so is an error.
    let output = cluster
        .kubectl_command()
        .args(["auth", "can-i", verb, resource, &account, "-A"])
        .output()?;
    match String::from_utf8(output.stdout)?.trim() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => bail!("{other}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

async fn ark_backup_may_list_and_nothing_more() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    application(cluster, "private")?;
    served(cluster, "private").await?;
    for (verb, resource, expected) in [
        ("list", "secrets", true),
        ("list", "pods", true),
        ("list", "deployments.apps", true),
        ("create", "pods/exec", false),
        ("get", "pods/exec", false),
        ("create", "pods/attach", false),
        ("get", "pods/proxy", false),
        ("get", "nodes/proxy", false),
        ("create", "pods", false),
        ("get", "secrets", false),
        ("delete", "configmaps", false),
        ("impersonate", "users", false),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", false),
        ("create", "serviceaccounts/token", false),
    ] {
        let answer = may(cluster, "ark-backup", verb, resource)?;
        ensure!(
            answer == expected,
            "may ark-backup {verb} {resource}? {answer}"
        );
    }

    // The same without asking: requests with its own token.
    let token = kubectl(cluster, &format!("create token ark-backup -n {ARK}"))?;
    let token = token.trim();
    let pod = kubectl(
        cluster,
        "get pods -n private -l app=web -o jsonpath={.items[0].metadata.name}",
    )?;
    let exec = format!("/api/v1/namespaces/private/pods/{pod}/exec?command=id&stdout=true");
    for (method, path) in [
        ("POST", exec.as_str()),
        ("GET", &exec),
        ("GET", "/api/v1/namespaces/private/secrets/till"),
        (
            "GET",
            &format!("/api/v1/namespaces/private/pods/{pod}:8080/proxy/"),
        ),
        ("POST", "/api/v1/namespaces/private/pods"),
        ("POST", &format!("/api/v1/namespaces/{ARK}/pods")),
        ("DELETE", "/api/v1/namespaces/private/configmaps/page"),
    ] {
        let answer = status(cluster, Some(token), method, path).await?;
        ensure!(answer == 403, "{method} {path} as ark-backup: {answer}");
        // It is the rights that are missing, and not the request that is wrong.
        if method != "DELETE" {
            let administrator = status(cluster, None, method, path).await?;
            ensure!(
                administrator != 403 && administrator != 404,
                "{method} {path}: {administrator}"
            );
        }
    }
    let listed = status(
        cluster,
        Some(token),
        "GET",
        "/api/v1/namespaces/private/secrets",
    )
    .await?;
    ensure!(listed == 200, "listing secrets as ark-backup: {listed}");
    Ok(())
}

async fn ark_restore_may_create_nothing_unless_a_restore_runs() -> Result<()> {
    let ark = ark().await?;
    let _restores = RESTORES.lock().await;
    for (verb, resource) in [
        ("create", "deployments.apps"),
        ("create", "pods"),
        ("list", "secrets"),
        ("create", "pods/exec"),
        ("bind", "clusterroles.rbac.authorization.k8s.io"),
    ] {
        ensure!(
            !may(&ark.cluster, "ark-restore", verb, resource)?,
            "ark-restore may {verb} {resource}"
        );
    }
    let token = kubectl(&ark.cluster, &format!("create token ark-restore -n {ARK}"))?;
    let created = status(
        &ark.cluster,
        Some(token.trim()),
        "POST",
        "/apis/apps/v1/namespaces/default/deployments",
    )
    .await?;
    ensure!(
        created == 403,
        "creating a deployment as ark-restore: {created}"
    );
    Ok(())
}

async fn exit_codes_tell_what_became_of_it() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "codes")?;
    let create = "backup create codes --include-namespaces codes --wait";
    ark.expect(0, create).await?;
    let before = bucket().await?.objects("in-cluster/backups/codes/").await?;

    // The record says that the name is taken; without it, the Job; without that, storage.
    ark.expect(11, create)
        .await?
        .explains(&["there is a backup codes already"], "another name")?;
    ark.delete("backup.ark.heptio.com codes")?;
    ark.expect(11, create)
        .await?
        .explains(&["job.batch/backup-codes", "has completed"], "another name")?;
    ark.delete("job backup-codes")?;
    ark.expect(11, create)
        .await?
        .explains(&["backup codes", "is taken"], "describe codes")?;
    ensure!(
        bucket().await?.objects("in-cluster/backups/codes/").await? == before,
        "the first backup was touched"
    );

    let _restores = RESTORES.lock().await;
    let restored = ark
        .expect(10, "restore create again --from-backup nowhere --wait")
        .await?;
    restored.explains(&["restore again", "nowhere"], "describe again")?;
    ark.has_given_up_rights()?;

    ark.expect(10, "backup create astray --location nowhere")
        .await?
        .explains(
            &["there is no BackupStorageLocation nowhere"],
            "kubectl ark location create nowhere --storage",
        )
}

async fn an_image_that_cannot_be_pulled_is_told_at_once() -> Result<()> {
    let ark = ark().await?;
    for (policy, reason) in [
        ("IfNotPresent", "ErrImagePull"),
        ("Never", "ErrImageNeverPull"),
    ] {
        let namespace = format!("image-{}", policy.to_lowercase());
        ark.settings(
            &namespace,
            "localhost:9/nothing:x",
            &format!("--image-pull-policy {policy}"),
        )
        .await?;
        let said = ark
            .expect(1, &format!("backup create none -n {namespace} --wait"))
            .await?;
        // A pull that has failed before is put off.
        if !said.stderr.contains("ImagePullBackOff") {
            said.explains(&[reason], "install --image")?;
        }
        said.explains(
            &["pod/backup-none-", "localhost:9/nothing:x"],
            "install --image",
        )?;
    }

    // Until its pod starts, the backup is its Job.
    let table = ark.expect(0, "backup get -n image-never").await?;
    let row: Vec<&str> = table
        .stdout
        .lines()
        .nth(1)
        .context("a row")?
        .split_whitespace()
        .collect();
    ensure!(
        row[..5] == ["none", "New", "(ErrImageNeverPull)", "0", "0"],
        "{table:?}"
    );
    let page = ark.expect(0, "backup describe none -n image-never").await?;
    ensure!(
        page.stdout.contains("New") && page.stdout.contains("ErrImageNeverPull"),
        "{page:?}"
    );
    let log = ark.expect(1, "backup logs none -n image-never").await?;
    log.explains(
        &["backup none has no log yet", "ErrImageNeverPull"],
        "logs none -f -n image-never",
    )
}

async fn a_pod_that_no_node_takes_is_told_at_once() -> Result<()> {
    let ark = ark().await?;
    ark.settings("unschedulable", IMAGE, "--node-selector=disk=none")
        .await?;
    let said = ark
        .expect(1, "backup create none -n unschedulable --wait")
        .await?;
    said.explains(
        &[
            "pod/backup-none-",
            "no node takes it",
            "node affinity/selector",
        ],
        "--node-selector",
    )
}

async fn a_secret_that_is_missing_is_told_at_once() -> Result<()> {
    let ark = ark().await?;
    // The location's, which is mounted.
    ark.settings("no-volume", IMAGE, "--credentials-secret=forgotten")
        .await?;
    let said = ark
        .expect(1, "backup create none -n no-volume --wait")
        .await?;
    said.explains(
        &["pod/backup-none-", "\"forgotten\" not found"],
        "--credentials-file",
    )?;

    // One that pod settings name for the environment.
    let template = tempfile::NamedTempFile::new()?;
    std::fs::write(
        template.path(),
        "spec: {containers: [{name: ark-job, envFrom: [{secretRef: {name: forgotten}}]}]}\n",
    )?;
    ark.settings(
        "no-environment",
        IMAGE,
        &format!("--pod-template {}", template.path().display()),
    )
    .await?;
    let said = ark
        .expect(1, "backup create none -n no-environment --wait")
        .await?;
    said.explains(
        &[
            "pod/backup-none-",
            "CreateContainerConfigError",
            "\"forgotten\" not found",
        ],
        "--pod-template",
    )
}

async fn a_pod_that_a_quota_refuses_is_told_at_once() -> Result<()> {
    let ark = ark().await?;
    ark.settings("full", IMAGE, "").await?;
    kubectl(&ark.cluster, "create quota full -n full --hard=pods=0")?;
    // The quota counts when its controller has looked at it.
    wait_until("the quota to hold", Duration::from_secs(30), async || {
        let used = kubectl(
            &ark.cluster,
            "get quota full -n full -o jsonpath={.status.used.pods}",
        )?;
        Ok((used == "0").then_some(()))
    })
    .await?;
    let said = ark.expect(1, "backup create none -n full --wait").await?;
    said.explains(&["job.batch/backup-none", "exceeded quota: full"], "quota")
}

/// Waits until the plugin tells of a failed attempt, and leaves it there.
async fn told_of_an_attempt(ark: &Ark, name: &str, location: &str, texts: &[&str]) -> Result<()> {
    let mut running = Running::start(ark.command(&format!(
        "backup create {name} --location {location} --wait"
    )))?;
    running.says(texts).await?;
    running.interrupt()?;
    let said = running.end().await?;
    ensure!(said.code == Some(130), "{said:?}");
    ark.delete(&format!("job backup-{name}"))
}

async fn storage_that_does_not_answer_is_told_while_it_is_tried_again() -> Result<()> {
    let ark = ark().await?;
    ark.location("dead", &storage("dead", "http://10.88.0.1:9"))?;
    told_of_an_attempt(
        ark,
        "unheard",
        "dead",
        &[
            "an attempt failed",
            "/plugin/dead/",
            "Connection refused",
            "(hint: ",
        ],
    )
    .await
}

async fn wrong_credentials_are_told_while_they_are_tried_again() -> Result<()> {
    let ark = ark().await?;
    let wrong = credentials("guessed")?;
    let file = format!("--from-file=cloud={}", wrong.path().display());
    kubectl(
        &ark.cluster,
        &format!("create secret generic wrong -n {ARK} {file}"),
    )?;
    ark.location_with("wrong", &ark.storage, Some("wrong"))?;
    told_of_an_attempt(
        ark,
        "refused",
        "wrong",
        &[
            "an attempt failed",
            "/plugin/in-cluster/",
            "SignatureDoesNotMatch",
            "(hint: ",
        ],
    )
    .await
}

async fn a_missing_bucket_ends_the_job_at_once() -> Result<()> {
    let ark = ark().await?;
    ark.location(
        "missing",
        &ark.storage.replace("s3://plugin/", "s3://no-such-bucket/"),
    )?;
    let said = ark
        .expect(10, "backup create nowhere --location=missing --wait")
        .await?;
    said.explains(&["backup nowhere", "no-such-bucket"], "describe nowhere")?;
    ensure!(
        ark.pods("backup-nowhere").await?.len() == 1,
        "it was tried again"
    );
    Ok(())
}

/// Storage whose archives hang for that long; counts them.
async fn slow_storage(
    ark: &Ark,
    name: &str,
    time: Duration,
) -> Result<(FaultProxy, ark_tests::proxy::Added)> {
    let proxy = FaultProxy::start(world::s3().await?.url()).await?;
    ark.location(name, &storage(name, &ark.cluster.expose(proxy.url())?))?;
    let held = proxy.add(
        Rule::on(|request| request.is_write() && request.path.contains(".tar.gz"))
            .only(1)
            .delay(time),
    );
    Ok((proxy, held))
}

async fn hangs(held: &ark_tests::proxy::Added) -> Result<()> {
    wait_until(
        "the archive to be on its way",
        Duration::from_secs(60),
        async || Ok((held.applied() == 1).then_some(())),
    )
    .await
}

async fn a_deadline_ends_the_job_and_is_told() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "late")?;
    let (_proxy, held) = slow_storage(ark, "late", Duration::from_secs(120)).await?;
    let create =
        "backup create late --location=late --include-namespaces=late --deadline=20s --wait";
    let said = ark.expect(1, create).await?;
    said.explains(&["backup late", "deadline"], "--deadline")?;
    ensure!(held.applied() == 1, "it was not at work");
    Ok(())
}

async fn ctrl_c_leaves_the_job_running() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "left")?;
    let (_proxy, held) = slow_storage(ark, "left", Duration::from_secs(20)).await?;
    let create = "backup create left --location=left --include-namespaces=left --wait";
    let running = Running::start(ark.command(create))?;
    hangs(&held).await?;
    running.interrupt()?;
    let said = running.end().await?;
    ensure!(said.code == Some(130), "{said:?}");
    ensure!(
        said.stderr
            .contains("backup left goes on without you, as job.batch/backup-left"),
        "{said:?}"
    );
    ensure!(
        line(&said.stderr, "hint: ")?.contains("kubectl ark backup describe left"),
        "{said:?}"
    );
    // It is at work, and whoever asks for the same is told so.
    ensure!(
        ark.phase("backup", "left")? == "InProgress",
        "it did not go on"
    );
    ark.expect(11, create)
        .await?
        .explains(&["backup left"], "another name")?;
    ark.succeeded("backup-left").await?;
    ensure!(ark.phase("backup", "left")? == "Completed");
    ensure!(
        ark.read("left", "left")
            .await?
            .contains("configmaps left trifle")
    );
    Ok(())
}

async fn a_killed_pod_is_followed_by_another() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "killed")?;
    let (_proxy, held) = slow_storage(ark, "killed", Duration::from_secs(120)).await?;
    let create = "backup create killed --location=killed --include-namespaces=killed --wait";
    let running = Running::start(ark.command(create))?;
    hangs(&held).await?;
    let pods = ark.pods("backup-killed").await?;
    let uid = pods
        .first()
        .and_then(|pod| pod.metadata.uid.as_deref())
        .context("a pod")?;
    let processes = ark.cluster.pod_processes(uid)?;
    ensure!(processes.len() == 1, "{processes:?}");
    // Who follows the log is shown that of the next attempt, too.
    let following = Running::start(ark.command("backup logs killed -f"))?;
    processes.into_iter().try_for_each(process::kill_and_wait)?;

    let said = running.end().await?;
    ensure!(said.code == Some(0), "{said:?}");
    let followed = following.end().await?;
    ensure!(
        followed.code == Some(0) && followed.stdout.contains("is complete"),
        "{followed:?}"
    );
    let pods = ark.pods("backup-killed").await?;
    let phases: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.phase.as_deref())
        .collect();
    ensure!(phases == ["Failed", "Succeeded"], "{phases:?}");
    ensure!(ark.get("job backup-killed")?["status"]["succeeded"] == 1);
    ensure!(ark.phase("backup", "killed")? == "Completed");
    ensure!(
        ark.read("killed", "killed")
            .await?
            .contains("configmaps killed trifle")
    );
    let archives = bucket().await?.keys("killed/").await?;
    ensure!(
        archives
            .iter()
            .filter(|key| key.ends_with(".tar.gz"))
            .count()
            == 1,
        "{archives:?}"
    );
    Ok(())
}

/// The columns of a table, each starting where its header does.
fn columns(table: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let mut lines = table.lines();
    let header = lines.next().context("a header")?;
    let starts: Vec<usize> = header
        .char_indices()
        .filter(|&(at, letter)| letter != ' ' && (at == 0 || header[..at].ends_with("   ")))
        .map(|(at, _)| at)
        .collect();
    let cells = |line: &str| -> Vec<String> {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        let cell = |(start, end): (usize, usize)| {
            line.get(start..end.min(line.len()))
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        starts.iter().copied().zip(ends).map(cell).collect()
    };
    let names = cells(header);
    Ok(lines
        .map(|line| names.iter().cloned().zip(cells(line)).collect())
        .collect())
}

async fn what_is_printed_has_the_form_of_kubectl() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "form")?;
    for name in ["form-one", "form-two"] {
        let created = ark
            .expect(
                0,
                &format!("backup create {name} --include-namespaces=form --wait --labels=set=form"),
            )
            .await?;
        ensure!(
            created
                .stdout
                .starts_with(&format!("job.batch/backup-{name} created\n")),
            "{created:?}"
        );
    }

    let table = ark.expect(0, "backup get -l set=form").await?.stdout;
    ensure!(
        table.starts_with("NAME ") && table.lines().all(|line| line == line.trim_end()),
        "{table}"
    );
    let rows = columns(&table)?;
    let row = |name: &str| {
        rows.iter()
            .find(|row| row["NAME"] == name)
            .with_context(|| format!("{name} is not in {table}"))
    };
    for name in ["form-one", "form-two"] {
        let row = row(name)?;
        let cells = ["STATUS", "ERRORS", "WARNINGS", "LOCATION"].map(|column| row[column].as_str());
        ensure!(cells == ["Completed", "0", "0", "default"], "{table}");
        ensure!(
            row["EXPIRES"] == "29d" || row["EXPIRES"] == "30d",
            "{table}"
        );
    }
    let wide = columns(&ark.expect(0, "get backups form-one -o wide").await?.stdout)?;
    ensure!(
        wide[0].len() > rows[0].len() && wide[0]["ITEMS"].parse::<u32>().is_ok(),
        "{wide:?}"
    );
    let bare = ark
        .expect(0, "backup get form-one --no-headers")
        .await?
        .stdout;
    ensure!(
        bare.starts_with("form-one ") && bare.lines().count() == 1,
        "{bare}"
    );

    let names = ark
        .expect(0, "backup get -l set=form -o name")
        .await?
        .stdout;
    ensure!(
        names == "backup.ark.heptio.com/form-one\nbackup.ark.heptio.com/form-two\n",
        "{names}"
    );
    // What is printed is what kubectl prints, and takes.
    let one: Value =
        serde_json::from_str(&ark.expect(0, "backup get form-one -o json").await?.stdout)?;
    for field in ["apiVersion", "kind", "spec", "status"] {
        let theirs = &ark.get("backup.ark.heptio.com/form-one")?[field];
        ensure!(
            &one[field] == theirs,
            "{field}: {one:#}\nis not\n{theirs:#}"
        );
    }
    let yaml = ark
        .expect(0, "backup get -l set=form -o yaml")
        .await?
        .stdout;
    let same = ark
        .cluster
        .kubectl_with_input(&["get", "-f", "-", "-o", "name"], &yaml)?;
    ensure!(same == names, "{same}");

    let page = ark
        .expect(0, "backup describe form-one form-two")
        .await?
        .stdout;
    for text in [
        "Name:               form-one\n",
        "Name:               form-two\n",
        "Phase:              Completed\n",
        "Namespaces:         form\n",
    ] {
        ensure!(page.contains(text), "{text:?} is not in {page}");
    }
    let log = ark.expect(0, "backup logs form-one").await?.stdout;
    ensure!(
        !log.is_empty()
            && log == kubectl(&ark.cluster, &format!("logs -n {ARK} job/backup-form-one"))?,
        "{log}"
    );

    for verb in ["get", "describe", "logs"] {
        ark.expect(10, &format!("backup {verb} nothing"))
            .await?
            .explains(&["there is no backup nothing"], "kubectl ark backup get")?;
    }
    Ok(())
}

/// The plugin outside of any cluster's network.
pub fn outside(kubeconfig: impl AsRef<OsStr>, line: &str) -> Result<Command> {
    let mut command = Command::new(job::program("kubectl-ark")?);
    command
        .env("KUBECONFIG", kubeconfig)
        .args(line.split_whitespace());
    Ok(command)
}

async fn without_ark_or_a_cluster_it_says_what_to_do() -> Result<()> {
    let world = World::new("without").await?;
    let kubeconfig = world.cluster.kubeconfig();
    for line in [
        "backup create x",
        "restore create x",
        "backup get",
        "restore describe x",
    ] {
        let said = run(outside(kubeconfig, line)).await?;
        ensure!(said.code == Some(10) && said.stdout.is_empty(), "{said:?}");
        said.explains(
            &["Ark is not installed in this cluster"],
            "kubectl ark install --storage",
        )?;
    }

    // Nothing listens there, and then nothing answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("https://{}", listener.local_addr()?);
    for (line, url, patience) in [
        ("backup create x", "https://127.0.0.1:9", 10),
        ("install --storage=s3://b", "https://127.0.0.1:9", 10),
        ("backup get", &silent, 20),
    ] {
        let directory = tempfile::tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        let text = std::fs::read_to_string(world.cluster.kubeconfig())?;
        std::fs::write(&kubeconfig, text.replace(world.cluster.url(), url))?;
        let said = run(outside(&kubeconfig, line)).await?;
        ensure!(said.code == Some(1), "{said:?}");
        said.explains(&["the cluster does not answer"], "kubectl cluster-info")?;
        ensure!(said.took < Duration::from_secs(patience), "{said:?}");
    }
    let said = run(outside(Path::new("/nowhere/kubeconfig"), "backup get")).await?;
    ensure!(said.code == Some(1), "{said:?}");
    said.explains(&["no cluster", "/nowhere/kubeconfig"], "KUBECONFIG")
}

async fn wrong_names_are_refused_before_any_request() -> Result<()> {
    for line in [
        "backup create No_Good --wait",
        "restore create x --from-backup No_Good",
        "backup get No_Good",
        "backup create good --storage ftp://x",
        "backup create good --deadline soon",
        "backup create good -n No_Good",
        "backup create",
    ] {
        let said = run(outside("/nowhere/kubeconfig", line)).await?;
        ensure!(
            said.code == Some(2) && said.stdout.is_empty(),
            "{line}: {said:?}"
        );
        ensure!(
            said.stderr.starts_with("error: ") && said.took < Duration::from_secs(5),
            "{said:?}"
        );
    }
    Ok(())
}

async fn it_works_locally_without_an_installation() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new("local").await?;
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
    let done = async |line: &str| -> Result<()> {
        let said = local(line).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        Ok(())
    };
    let kept = |namespace: &str| {
        let what = "get configmap kept -o jsonpath={.data.a}";
        kubectl(world.cluster, &format!("{what} -n {namespace}"))
    };

    let create = format!("backup create mine --include-namespaces {namespace}");
    done(&create).await?;
    let backups = home.path().join(".kubectl-ark/backups");
    let mode = std::fs::metadata(&backups)?.permissions().mode();
    ensure!(mode & 0o777 == 0o700, "{mode:o}");
    ensure!(read(&backups.join("backups/mine"))?.contains(&format!("configmaps {namespace} kept")));
    kubectl(
        world.cluster,
        &format!("delete configmap kept -n {namespace}"),
    )?;
    done("restore create mine").await?;
    ensure!(kept(&namespace)? == "b");
    // The name is taken, also here.
    let said = local(&create).await?;
    ensure!(
        said.code == Some(11) && said.stderr.contains("taken"),
        "{said:?}"
    );

    // Into another directory, and back from there into another namespace.
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere)?;
    let storage = format!("--storage file://{}", elsewhere.display());
    done(&format!("{create} {storage}")).await?;
    let other = format!("{namespace}-2");
    done(&format!(
        "restore create mine {storage} --namespace-mappings {namespace}:{other}"
    ))
    .await?;
    let copied = kept(&other);
    kubectl(
        world.cluster,
        &format!("delete namespace {other} --wait=false"),
    )?;
    ensure!(copied? == "b");
    Ok(())
}
