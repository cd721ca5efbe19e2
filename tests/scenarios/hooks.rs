//! Hooks in real pods: they run in order and are told apart, and whatever is done to the backup, nothing stays frozen.
//!
//! Ark is installed in the cluster for real Jobs; what must be killed at the right moment runs on the machine, against the
//! same cluster. Hooks write into a directory of the machine, so that nobody has to ask a pod.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::job::ArkJob;
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, Victim, images, process, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::backup::read;
use crate::plugin::Ark;
use crate::world::{self, Shared, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "hooks::annotations_and_specs_run_in_order_in_the_container_they_name",
            annotations_and_specs,
        ),
        node_scenario(
            "hooks::a_hook_that_fails_is_named_and_means_what_it_says",
            failures,
        ),
        node_scenario(
            "hooks::pods_that_share_a_claim_are_frozen_together",
            shared_claim,
        ),
        node_scenario(
            "hooks::nothing_is_frozen_when_it_cannot_be_recorded",
            refused_without_a_record,
        ),
        scenario(
            "hooks::a_resource_type_that_drops_the_record_is_found_out",
            resource_type_of_an_older_version,
        ),
        node_scenario("hooks::what_is_frozen_is_thawed_on_sigterm", interrupted),
        node_scenario("hooks::after_a_kill_the_next_attempt_thaws_first", killed),
        node_scenario(
            "hooks::a_kill_at_any_request_leaves_nothing_frozen",
            killed_anywhere,
        ),
        node_scenario(
            "hooks::another_run_thaws_what_a_stale_record_names",
            stale_record,
        ),
        node_scenario(
            "hooks::without_resource_types_a_config_map_is_the_record",
            killed_without_resource_types,
        ),
        node_scenario("hooks::a_second_pod_of_the_run_waits", twins),
        node_scenario(
            "hooks::a_second_pod_that_comes_at_the_same_instant_waits",
            racing_twins,
        ),
        node_scenario("hooks::they_run_locally_with_the_users_rights", local),
        node_scenario(
            "hooks::a_pod_of_a_job_that_is_deleted_thaws_first",
            deleted_pod,
        ),
        node_scenario(
            "hooks::a_thaw_is_tried_again_and_what_stays_frozen_is_named",
            api_server_in_trouble,
        ),
        node_scenario(
            "hooks::jobs_run_them_after_install_hooks_and_say_so_before",
            jobs,
        ),
    ]
}

/// Ark's namespace.
pub const ARK: &str = "heptio-ark";

static ARK_CLUSTER: Shared<Ark> = Shared::const_new();

/// A cluster of our own: other scenarios look at what Ark may not do without hooks.
pub async fn ark() -> Result<&'static Ark> {
    Ark::shared(&ARK_CLUSTER, "hooks").await
}

pub fn kubectl(cluster: &ControlPlane, line: &str) -> Result<String> {
    cluster.kubectl(&line.split_whitespace().collect::<Vec<_>>())
}

/// A namespace with pods, whose hooks write a line each into one file.
struct App {
    cluster: &'static ControlPlane,
    namespace: String,
    directory: tempfile::TempDir,
}

/// A pod with hooks.
struct PodOf {
    name: &'static str,
    annotations: Value,
    labels: Value,
    claim: bool,
    script: &'static str,
}

fn pod(name: &'static str, annotations: Value) -> PodOf {
    PodOf {
        name,
        annotations,
        labels: json!({}),
        claim: false,
        script: "trap : TERM INT; sleep 3600 & wait",
    }
}

/// A command that writes its word and its container into the file.
fn note(word: &str) -> String {
    json!(["sh", "-c", format!("echo {word} $CONTAINER >> /log/lines")]).to_string()
}

/// Pre and post hook of these names, as annotations.
fn annotations(family: &str, pre: &str, post: &str) -> Value {
    json!({
        format!("pre.hook.backup.{family}/command"): note(pre),
        format!("post.hook.backup.{family}/command"): note(post),
    })
}

/// With further annotations.
fn and(mut annotations: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        annotations[key] = value.clone();
    }
    annotations
}

impl App {
    async fn start(cluster: &'static ControlPlane, namespace: &str, pods: &[PodOf]) -> Result<App> {
        let app = App {
            cluster,
            namespace: namespace.to_owned(),
            directory: tempfile::tempdir()?,
        };
        kubectl(cluster, &format!("create namespace {namespace}"))?;
        let log = app.directory.path();
        // Any user of any container may write there.
        std::fs::set_permissions(log, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let mut objects = vec![
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("of-{namespace}") },
                "spec": {
                    "accessModes": ["ReadWriteMany"], "capacity": { "storage": "1Gi" }, "storageClassName": "",
                    "hostPath": { "path": log }, "claimRef": { "namespace": namespace, "name": "data" },
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": namespace },
                "spec": { "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } } },
            }),
        ];
        objects.extend(pods.iter().map(|pod| {
            let container = |name: &str| {
                json!({
                    "name": name, "image": images::BUSYBOX, "command": ["sh", "-c", pod.script],
                    "env": [{ "name": "CONTAINER", "value": name }],
                    "volumeMounts": [{ "name": "log", "mountPath": "/log" }],
                })
            };
            let mut volumes = vec![json!({ "name": "log", "hostPath": { "path": log } })];
            if pod.claim {
                volumes.push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }));
            }
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": pod.name, "namespace": namespace, "annotations": pod.annotations, "labels": pod.labels },
                "spec": {
                    "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                    "containers": [container("main"), container("side")], "volumes": volumes,
                },
            })
        }));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        cluster.kubectl_with_input(&["apply", "-f", "-"], &list.to_string())?;
        wait_until(
            &format!("the pods of {namespace}"),
            Duration::from_secs(90),
            async || {
                let phases = kubectl(
                    cluster,
                    &format!("get pods -n {namespace} -o jsonpath={{.items[*].status.phase}}"),
                )?;
                let there = phases
                    .split_whitespace()
                    .filter(|phase| *phase != "Pending")
                    .count();
                Ok((there == pods.len()).then_some(()))
            },
        )
        .await?;
        Ok(app)
    }

    /// What the hooks have written so far.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn expect(&self, expected: &[&str]) -> Result<()> {
        let lines = self.lines();
        ensure!(lines == expected, "hooks wrote {lines:?}, not {expected:?}");
        Ok(())
    }

    /// Where backups of this namespace are.
    fn storage(&self) -> String {
        format!("file://{}/store", self.directory.path().display())
    }

    fn stored(&self, backup: &str) -> PathBuf {
        self.directory.path().join("store/backups").join(backup)
    }

    fn names(&self, backup: &str) -> Result<BTreeSet<String>> {
        read(&self.stored(backup))
    }

    /// A backup of this namespace, by an attempt of a Job.
    fn backup(&self, kubeconfig: &Path, name: &str, flags: &[&str]) -> ArkJob {
        self.attempt(kubeconfig, name, "first", flags)
    }

    fn attempt(&self, kubeconfig: &Path, name: &str, attempt: &str, flags: &[&str]) -> ArkJob {
        std::fs::create_dir_all(self.directory.path().join("store"))
            .expect("a directory can be made");
        let storage = self.storage();
        let arguments = [
            &[
                "backup",
                name,
                "--storage",
                &storage,
                "--include-namespaces",
                &self.namespace,
            ],
            flags,
        ]
        .concat();
        ArkJob::new(kubeconfig, &arguments).of(&format!("job-of-{name}"), attempt)
    }

    fn status(&self, backup: &str) -> Result<Value> {
        let record = kubectl(
            self.cluster,
            &format!("get backup.ark.heptio.com {backup} -n {ARK} -o json"),
        )?;
        let mut record: Value = serde_json::from_str(&record)?;
        Ok(record["status"].take())
    }

    fn marker(&self, backup: &str) -> Result<Value> {
        let path = self.stored(backup).join("ark-backup.json");
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    fn log(&self, backup: &str) -> Result<String> {
        let path = self.stored(backup).join(format!("{backup}-logs.gz"));
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file), &mut text)?;
        Ok(text)
    }
}

/// Requests that run a command with this word in it.
fn runs(word: &'static str) -> Rule {
    Rule::on(move |request| request.path.ends_with("/exec") && request.query.contains(word))
}

async fn annotations_and_specs() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let side = |family: &str| {
        json!({
            format!("pre.hook.backup.{family}/container"): "side",
            format!("post.hook.backup.{family}/timeout"): "1m",
        })
    };
    let mut by_label = pod("c", json!({}));
    by_label.labels = json!({ "quiesce": "yes" });
    let mut left_out = pod("d", annotations("velero.io", "pre-d", "post-d"));
    left_out.labels = json!({ "velero.io/exclude-from-backup": "true" });
    let mut ended = pod("e", annotations("velero.io", "pre-e", "post-e"));
    ended.script = "exit 0";
    let app = App::start(
        cluster,
        "hooks-order",
        &[
            pod(
                "a",
                and(
                    annotations("velero.io", "pre-a", "post-a"),
                    side("velero.io"),
                ),
            ),
            // Annotations win over specs, in their phase.
            PodOf {
                labels: json!({ "quiesce": "yes" }),
                ..pod(
                    "b",
                    json!({ "hook.backup.ark.heptio.com/command": note("pre-b") }),
                )
            },
            by_label,
            left_out,
            ended,
        ],
    )
    .await?;
    wait_until("the ended pod", Duration::from_secs(60), async || {
        let phase = kubectl(
            cluster,
            "get pod e -n hooks-order -o jsonpath={.status.phase}",
        )?;
        Ok((phase == "Succeeded").then_some(()))
    })
    .await?;
    let command =
        |word: &str| format!("[sh, -c, 'echo {word} $CONTAINER >> /log/lines; echo said {word}']");
    let yaml = format!(
        "hooks:\n  resources:\n  - name: quiesce\n    includedNamespaces: [hooks-*]\n    includedResources: [pods]\n    \
         labelSelector: {{matchExpressions: [{{key: quiesce, operator: Exists}}]}}\n    \
         pre:\n    - exec: {{command: {}}}\n    - exec: {{container: side, command: {}, onError: Continue, timeout: 20s}}\n    \
         post:\n    - exec: {{command: {}}}\n",
        command("spec-1"),
        command("spec-2"),
        command("spec-3"),
    );
    kubectl(cluster, &format!("create configmap quiesce -n {ARK}"))?;
    let patch = json!({ "data": { "hooks.yaml": yaml } }).to_string();
    cluster.kubectl(&["patch", "configmap", "quiesce", "-n", ARK, "-p", &patch])?;

    let kubeconfig = cluster.kubeconfig();
    app.backup(kubeconfig, "hooks-order", &["--hooks", "quiesce"])
        .expect(0)
        .await?;
    app.expect(&[
        "pre-a side",
        "post-a main",
        "pre-b main",
        "spec-3 main",
        "spec-1 main",
        "spec-2 side",
        "spec-3 main",
    ])?;
    let status = app.status("hooks-order")?;
    ensure!(
        status["hookStatus"] == json!({ "attempted": 7, "failed": 0 })
            && status["freeze"].is_null()
            && status["phase"] == "Completed",
        "{status:#}"
    );
    let velero = std::fs::read(app.stored("hooks-order").join("velero-backup.json"))?;
    let velero: Value = serde_json::from_slice(&velero)?;
    ensure!(
        velero["status"]["hookStatus"] == json!({ "hooksAttempted": 7, "hooksFailed": 0 }),
        "{velero:#}"
    );
    let log = app.log("hooks-order")?;
    ensure!(
        log.contains("said spec-2") && log.contains("pod hooks-order/e: its hooks are skipped"),
        "{log}"
    );

    // Nothing runs when none are wanted, and a mistake is told before any work.
    app.backup(kubeconfig, "hooks-none", &["--hooks", "none"])
        .expect(0)
        .await?;
    ensure!(app.lines().len() == 7, "{:?}", app.lines());
    for (yaml, code, text) in [
        (
            Some("resources: [{pre: [{exec: {command: [x], timeout: soon}}]}]"),
            2,
            "hooks.yaml: resources[0].pre[0].exec.timeout: ",
        ),
        (
            Some("resources: [{labelSelector: {matchLabels: {a: 'b c'}}}]"),
            2,
            "resources[0].labelSelector: ",
        ),
        (
            Some("resources: [{post: [{exec: {command: [x], onError: fail}}]}]"),
            2,
            "resources[0].post[0].exec.onError: ",
        ),
        (
            Some("resources: [{includedResources: [pdos]}]"),
            2,
            "resources[0].includedResources: ",
        ),
        (None, 10, "there is no ConfigMap no-such-hooks"),
    ] {
        if let Some(yaml) = yaml {
            let patch = json!({ "data": { "hooks.yaml": yaml } }).to_string();
            cluster.kubectl(&["patch", "configmap", "quiesce", "-n", ARK, "-p", &patch])?;
        }
        let name = if yaml.is_some() {
            "quiesce"
        } else {
            "no-such-hooks"
        };
        let refused = app
            .backup(kubeconfig, "hooks-wrong", &["--hooks", name])
            .expect(code)
            .await?;
        ensure!(refused.stderr.contains(text), "{text}: {refused:?}");
    }
    ensure!(app.lines().len() == 7, "{:?}", app.lines());
    Ok(())
}

async fn failures() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let sh = |script: &str| json!(["sh", "-c", script]).to_string();
    let go_on = json!({ "pre.hook.backup.velero.io/on-error": "Continue", "post.hook.backup.velero.io/on-error": "Continue" });
    let failing = |script: &str| {
        and(
            annotations("velero.io", "x", "thawed"),
            json!({ "pre.hook.backup.velero.io/command": sh(script) }),
        )
    };
    let continued = App::start(
        cluster,
        "hooks-continue",
        &[
            pod(
                "a",
                and(failing("echo it is locked >&2; exit 7"), go_on.clone()),
            ),
            pod(
                "b",
                and(
                    and(failing("sleep 3600"), go_on.clone()),
                    json!({ "pre.hook.backup.velero.io/timeout": "1s" }),
                ),
            ),
            pod(
                "c",
                and(
                    and(failing("true"), go_on),
                    json!({ "pre.hook.backup.velero.io/container": "no-such" }),
                ),
            ),
        ],
    )
    .await?;
    let kubeconfig = cluster.kubeconfig();
    continued
        .backup(kubeconfig, "hooks-continue", &[])
        .expect(0)
        .await?;
    continued.expect(&["thawed main", "thawed main", "thawed main"])?;
    let status = continued.status("hooks-continue")?;
    let messages = status["messages"].to_string();
    for text in [
        "namespace hooks-continue: pod a: pre hook <from-annotation> in container main: exit code 7; it wrote: it is locked",
        "pod b: pre hook <from-annotation> in container main: timed out after 1s",
        "may go on in the container",
        "pod c: pre hook <from-annotation> in container no-such cannot run: the pod has no container no-such (it has main, side)",
    ] {
        ensure!(messages.contains(text), "{text:?} is not in {status:#}");
    }
    ensure!(
        status["hookStatus"] == json!({ "attempted": 6, "failed": 3 }) && status["warnings"] == 4,
        "{status:#}"
    );

    let app = App::start(
        cluster,
        "hooks-fail",
        &[
            pod(
                "a",
                failing("echo a began >> /log/lines; echo no space left; false"),
            ),
            pod("b", failing("exec no-such-program")),
            pod("c", annotations("velero.io", "pre-c", "post-c")),
        ],
    )
    .await?;
    let failed = app.backup(kubeconfig, "hooks-fail", &[]).expect(3).await?;
    app.expect(&[
        "a began",
        "thawed main",
        "thawed main",
        "pre-c main",
        "post-c main",
    ])?;
    let marker = app.marker("hooks-fail")?;
    let message =
        "pod a: pre hook <from-annotation> in container main: exit code 1; it wrote: no space left";
    let results = std::fs::File::open(app.stored("hooks-fail").join("hooks-fail-results.gz"))?;
    let results: Value = serde_json::from_reader(flate2::read::MultiGzDecoder::new(results))?;
    ensure!(
        marker["status"]["phase"] == "PartiallyFailed"
            && marker["status"]["messages"].to_string().contains(message)
            && results["errors"]["namespaces"]["hooks-fail"]
                .to_string()
                .contains(message)
            && app.log("hooks-fail")?.contains(message)
            && failed.stderr.contains(message),
        "{marker:#} {results:#} {failed:?}"
    );
    ensure!(
        marker["status"]["hookStatus"] == json!({ "attempted": 6, "failed": 2 }),
        "{marker:#}"
    );
    let names = app.names("hooks-fail")?;
    for pod in ["a", "b", "c"] {
        ensure!(
            names.contains(&format!("pods hooks-fail {pod}")),
            "{names:?}"
        );
    }
    Ok(())
}

/// Two pods on one claim; the second takes longer to freeze than a heartbeat takes to come.
async fn on_one_claim(cluster: &'static ControlPlane, namespace: &str) -> Result<App> {
    let slow = json!(["sh", "-c", "echo pre-b $CONTAINER >> /log/lines; sleep 5"]).to_string();
    let mut pods = [
        pod("a", annotations("velero.io", "pre-a", "post-a")),
        pod(
            "b",
            and(
                annotations("velero.io", "pre-b", "post-b"),
                json!({ "pre.hook.backup.velero.io/command": slow }),
            ),
        ),
    ];
    pods.iter_mut().for_each(|pod| pod.claim = true);
    App::start(cluster, namespace, &pods).await
}

async fn shared_claim() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = on_one_claim(cluster, "hooks-shared").await?;
    app.backup(cluster.kubeconfig(), "hooks-shared", &[])
        .expect(0)
        .await?;
    app.expect(&["pre-a main", "pre-b main", "post-a main", "post-b main"])
}

async fn refused_without_a_record() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-refused",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let no = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no status for you","reason":"Forbidden","code":403}"#;
    // The first says that the run is at work.
    proxy.add(
        Rule::on(|request| {
            request.is_write() && request.path.ends_with("/backups/hooks-refused/status")
        })
        .from(2)
        .answer(403, &[("content-type", "application/json")], &no[..]),
    );
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let refused = app
        .backup(&kubeconfig, "hooks-refused", &[])
        .expect(1)
        .await?;
    ensure!(
        refused
            .stderr
            .contains("hooks are not run: what they freeze must be recorded first")
            && refused.stderr.contains("no status for you")
            && refused.stderr.contains("hint: ")
            && refused.stderr.contains("--hooks none"),
        "{refused:?}"
    );
    ensure!(
        proxy.count(|request| request.path.ends_with("/exec")) == 0,
        "a command was run"
    );
    app.expect(&[])
}

async fn resource_type_of_an_older_version() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds/backups.yaml");
    let manifest = manifest.to_str().context("the path is text")?;
    let printed = cluster.kubectl(&["create", "-f", manifest, "--dry-run=client", "-o", "json"])?;
    let mut definition: Value = serde_json::from_str(&printed)?;
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    definition
        .pointer_mut(fields)
        .and_then(Value::as_object_mut)
        .and_then(|fields| fields.remove("freeze"))
        .context("the status has a field freeze")?;
    cluster.kubectl_with_input(&["create", "-f", "-"], &definition.to_string())?;
    kubectl(
        &cluster,
        "wait --for=condition=Established crd/backups.ark.heptio.com --timeout=30s",
    )?;
    kubectl(&cluster, &format!("create namespace {ARK}"))?;
    kubectl(&cluster, "create namespace shop")?;
    // No node runs it, but the API server is told that one does.
    kubectl(&cluster, "create serviceaccount default -n shop")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "a", "namespace": "shop", "annotations": annotations("velero.io", "pre-a", "post-a") },
        "spec": { "containers": [{ "name": "main", "image": "i" }] },
    });
    cluster.kubectl_with_input(&["create", "-f", "-"], &pod.to_string())?;
    let running = json!({ "status": { "phase": "Running" } }).to_string();
    cluster.kubectl(&[
        "patch",
        "pod",
        "a",
        "-n",
        "shop",
        "--subresource=status",
        "-p",
        &running,
    ])?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let arguments = [
        "backup",
        "old",
        "--storage",
        &storage,
        "--include-namespaces",
        "shop",
    ];
    let refused = ArkJob::new(cluster.kubeconfig(), &arguments)
        .expect(1)
        .await?;
    ensure!(
        refused.stderr.contains("hooks are not run")
            && refused.stderr.contains("may be of an older version"),
        "{refused:?}"
    );
    Ok(())
}

async fn interrupted() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = on_one_claim(cluster, "hooks-term").await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    // The first thaw hangs until the signal has come.
    proxy.add(
        runs("post-a")
            .only(1)
            .before(move |_| sender.send(()).expect("the scenario waits for it"))
            .delay(Duration::from_secs(60)),
    );
    let running = app
        .backup(&cluster.kubeconfig_for(proxy.url())?, "hooks-term", &[])
        .start()?;
    receiver.recv().await.context("nothing was thawed")?;
    let status = app.status("hooks-term")?;
    let frozen: Vec<&str> = status["freeze"]["pods"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["name"].as_str())
        .collect();
    ensure!(frozen == ["a", "b"], "{status:#}");
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(130), "{finished:?}");
    let lines: BTreeSet<String> = app.lines().into_iter().collect();
    let expected = ["pre-a main", "pre-b main", "post-a main", "post-b main"];
    ensure!(
        lines == expected.iter().map(ToString::to_string).collect() && app.lines().len() == 4,
        "{:?}",
        app.lines()
    );
    let status = app.status("hooks-term")?;
    ensure!(
        status["phase"] == "Failed" && status["freeze"].is_null(),
        "{status:#}"
    );
    Ok(())
}

async fn killed() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = on_one_claim(cluster, "hooks-kill").await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let victim = Victim::default();
    let kill = proxy.add(runs("post-a").only(1).kill_before(&victim));
    let running = app
        .backup(&cluster.kubeconfig_for(proxy.url())?, "hooks-kill", &[])
        .start()?;
    victim.is(running.id());
    let dead = running.wait().await?;
    ensure!(dead.code.is_none() && kill.applied() == 1, "{dead:?}");
    app.expect(&["pre-a main", "pre-b main"])?;
    let status = app.status("hooks-kill")?;
    ensure!(
        status["freeze"]["attempt"] == "first"
            && status["freeze"]["pods"][0]["name"] == "a"
            && status["freeze"]["pods"][1]["name"] == "b"
            && status["phase"] == "InProgress",
        "{status:#}"
    );
    // One of them is gone when the next attempt comes.
    kubectl(
        cluster,
        "delete pod b -n hooks-kill --force --grace-period=0",
    )?;
    let second = app
        .attempt(cluster.kubeconfig(), "hooks-kill", "second", &[])
        .expect(0)
        .await?;
    app.expect(&[
        "pre-a main",
        "pre-b main",
        "post-a main",
        "pre-a main",
        "post-a main",
    ])?;
    ensure!(
        second.stderr.contains("has left it frozen")
            && second
                .stderr
                .contains("pod b, left frozen by an attempt that was cut off: it is gone"),
        "{second:?}"
    );
    let status = app.status("hooks-kill")?;
    ensure!(
        status["phase"] == "Completed" && status["warnings"] == 2 && status["freeze"].is_null(),
        "{status:#}"
    );
    ensure!(
        app.names("hooks-kill")?.contains("pods hooks-kill a"),
        "the pod is missing"
    );
    Ok(())
}

/// The UID of a pod in Ark's namespace that has ended, as that of an attempt that was killed has.
async fn ended_pod(cluster: &ControlPlane, name: &str) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ARK },
        "spec": {
            "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "main", "image": images::BUSYBOX, "command": ["true"],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    cluster.kubectl_with_input(&["apply", "-f", "-"], &pod.to_string())?;
    wait_until("the pod to end", Duration::from_secs(60), async || {
        let line =
            format!("get pod {name} -n {ARK} -o jsonpath={{.status.phase}}/{{.metadata.uid}}");
        let said = kubectl(cluster, &line)?;
        Ok(said.strip_prefix("Succeeded/").map(str::to_owned))
    })
    .await
}

async fn killed_anywhere() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-matrix",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    let dead = ended_pod(cluster, "killed-attempt").await?;
    let file = app.directory.path().join("lines");
    let mut kills = 0;
    for after in [false, true] {
        for n in 1.. {
            let name = format!("hooks-matrix-{after}-{n}");
            let proxy = FaultProxy::start_before(cluster).await?;
            let victim = Victim::default();
            let rule = Rule::on(|request| request.is_write() || request.path.ends_with("/exec"));
            let kill = proxy.add(match after {
                false => rule.only(n).kill_before(&victim),
                true => rule.only(n).kill_after(&victim),
            });
            let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
            let running = app.attempt(&kubeconfig, &name, &dead, &[]).start()?;
            victim.is(running.id());
            let first = running.wait().await?;
            if kill.applied() == 0 {
                ensure!(first.code == Some(0), "{first:?}");
                break;
            }
            ensure!(first.code.is_none(), "{first:?}");
            kills += 1;
            let second = app
                .attempt(cluster.kubeconfig(), &name, "second", &[])
                .expect(0)
                .await?;
            // Every freezing is followed by a thaw, whoever did either; the last word is a thaw.
            let lines = app.lines();
            let thawed = lines
                .windows(2)
                .all(|pair| !pair[0].starts_with("pre") || pair[1].starts_with("post"));
            ensure!(
                thawed && lines.last().is_some_and(|line| line.starts_with("post")),
                "killed {} request {n}: {lines:?} {second:?}",
                if after { "after" } else { "before" }
            );
            let status = app.status(&name)?;
            ensure!(
                status["phase"] == "Completed" && status["freeze"].is_null(),
                "{status:#}"
            );
            std::fs::remove_file(&file)?;
        }
    }
    // Creating and claiming the record, taking it, freezing, thawing, and saying so in between.
    ensure!(kills >= 14, "only {kills} kills");
    Ok(())
}

async fn stale_record() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-stale",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let victim = Victim::default();
    proxy.add(runs("post-a").only(1).kill_before(&victim));
    let running = app
        .backup(&cluster.kubeconfig_for(proxy.url())?, "hooks-stale", &[])
        .start()?;
    victim.is(running.id());
    ensure!(running.wait().await?.code.is_none(), "it was not killed");
    let storage = app.storage();
    let arguments = [
        "backup",
        "hooks-stale",
        "--storage",
        &storage,
        "--include-namespaces",
        "hooks-stale",
    ];
    let other = ArkJob::new(cluster.kubeconfig(), &arguments).of("another-job", "other");
    other.expect(11).await?;
    app.expect(&["pre-a main"])?;
    // Eleven minutes later nobody believes any more that the first is alive.
    let patch = json!({ "status": { "heartbeat": "2026-01-01T00:00:00Z" } }).to_string();
    cluster.kubectl(&[
        "patch",
        "backup.ark.heptio.com",
        "hooks-stale",
        "-n",
        ARK,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    other.expect(0).await?;
    app.expect(&["pre-a main", "post-a main", "pre-a main", "post-a main"])?;
    let status = app.status("hooks-stale")?;
    ensure!(
        status["phase"] == "Completed" && status["freeze"].is_null(),
        "{status:#}"
    );
    Ok(())
}

async fn killed_without_resource_types() -> Result<()> {
    let cluster = world::node().await?;
    let app = App::start(
        cluster,
        "hooks-bare",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    // Nowhere to write the record: refused.
    let refused = app
        .backup(cluster.kubeconfig(), "hooks-bare", &["-n", "hooks-record"])
        .expect(1)
        .await?;
    ensure!(
        refused.stderr.contains("hooks are not run") && refused.stderr.contains("hint: "),
        "{refused:?}"
    );
    app.expect(&[])?;

    kubectl(cluster, "create namespace hooks-record")?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let victim = Victim::default();
    let kill = proxy.add(runs("post-a").only(1).kill_before(&victim));
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let running = app
        .backup(&kubeconfig, "hooks-bare", &["-n", "hooks-record"])
        .start()?;
    victim.is(running.id());
    let dead = running.wait().await?;
    ensure!(dead.code.is_none() && kill.applied() == 1, "{dead:?}");
    let maps = || -> Result<Value> {
        let maps = kubectl(
            cluster,
            "get configmaps -n hooks-record -l ark.heptio.com/backup=hooks-bare -o json",
        )?;
        Ok(serde_json::from_str::<Value>(&maps)?["items"].take())
    };
    let map = &maps()?[0];
    ensure!(
        map["metadata"]["labels"]["velero.io/exclude-from-backup"] == "true"
            && map["data"]["freeze.json"].to_string().contains("post-a"),
        "{map:#}"
    );
    // Another run, not a retry: it must not forget what the first has frozen either.
    let storage = app.storage();
    let arguments = [
        "backup",
        "hooks-bare",
        "--storage",
        &storage,
        "--include-namespaces",
        "hooks-bare",
        "-n",
        "hooks-record",
    ];
    ArkJob::new(cluster.kubeconfig(), &arguments)
        .of("another-job", "other")
        .expect(0)
        .await?;
    app.expect(&["pre-a main", "post-a main", "pre-a main", "post-a main"])?;
    ensure!(maps()? == json!([]), "{:#}", maps()?);
    Ok(())
}

async fn twins() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-twins",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    proxy.add(
        runs("post-a")
            .before(move |_| sender.send(()).expect("the scenario waits for it"))
            .delay(Duration::from_secs(6)),
    );
    let first = app
        .backup(&cluster.kubeconfig_for(proxy.url())?, "hooks-twins", &[])
        .start()?;
    receiver.recv().await.context("nothing was thawed")?;
    let second = app
        .attempt(cluster.kubeconfig(), "hooks-twins", "second", &[])
        .start()?;
    let (first, second) = tokio::try_join!(first.wait(), second.wait())?;
    ensure!(
        first.code == Some(0) && second.code == Some(0),
        "{first:?} {second:?}"
    );
    ensure!(
        second.stderr.contains("waiting for it to end"),
        "{second:?}"
    );
    app.expect(&["pre-a main", "post-a main"])
}

async fn racing_twins() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-race",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    // Where the second is held up until the first has frozen: after it has looked for a twin and found none.
    for (name, held_up) in [
        (
            "hooks-race-claim",
            "/apis/ark.heptio.com/v1/namespaces/heptio-ark/backups",
        ),
        ("hooks-race-pods", "/api/v1/namespaces/hooks-race/pods"),
    ] {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let behind = FaultProxy::start_before(cluster).await?;
        behind.add(
            Rule::on(move |request| request.path == held_up)
                .only(1)
                .before(move |_| sender.send(()).expect("the scenario waits for it"))
                .delay(Duration::from_secs(4)),
        );
        let ahead = FaultProxy::start_before(cluster).await?;
        ahead.add(runs("post-a").delay(Duration::from_secs(6)));
        let second = app
            .attempt(&cluster.kubeconfig_for(behind.url())?, name, "second", &[])
            .start()?;
        receiver.recv().await.context("it was not held up")?;
        let first = app
            .backup(&cluster.kubeconfig_for(ahead.url())?, name, &[])
            .start()?;
        let (first, second) = tokio::try_join!(first.wait(), second.wait())?;
        ensure!(
            first.code == Some(0) && second.code == Some(0),
            "{first:?} {second:?}"
        );
        ensure!(
            second.stderr.contains("waiting for it to end"),
            "{second:?}"
        );
        app.expect(&["pre-a main", "post-a main"])?;
        std::fs::remove_file(app.directory.path().join("lines"))?;
        let status = app.status(name)?;
        ensure!(
            status["phase"] == "Completed" && status["freeze"].is_null(),
            "{status:#}"
        );
    }
    Ok(())
}

async fn api_server_in_trouble() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(
        cluster,
        "hooks-trouble",
        &[pod(
            "a",
            and(
                annotations("velero.io", "pre-a", "post-a"),
                json!({ "post.hook.backup.velero.io/timeout": "4s" }),
            ),
        )],
    )
    .await?;
    let both = ["pre-a main", "post-a main"];
    let busy = |rule: Rule| rule.answer(503, &[], "busy");
    for (name, rule, code, lines) in [
        (
            "hooks-trouble-busy",
            busy(runs("post-a").up_to(2)),
            0,
            &both[..],
        ),
        (
            "hooks-trouble-reset",
            runs("post-a").only(1).reset(),
            0,
            &both[..],
        ),
        // It may have begun, so it is not begun again; and the pod is thawed, whatever it is.
        ("hooks-trouble-pre", runs("pre-a").reset(), 3, &both[1..]),
        ("hooks-trouble-lasting", busy(runs("post-a")), 3, &both[..1]),
    ] {
        let proxy = FaultProxy::start_before(cluster).await?;
        proxy.add(rule);
        let finished = app
            .backup(&cluster.kubeconfig_for(proxy.url())?, name, &[])
            .expect(code)
            .await?;
        app.expect(lines)
            .with_context(|| format!("{name}: {finished:?}"))?;
        std::fs::remove_file(app.directory.path().join("lines"))?;
    }
    let status = app.status("hooks-trouble-lasting")?;
    ensure!(
        status["freeze"]["pods"][0]["name"] == "a"
            && status["messages"]
                .to_string()
                .contains("pod a: may still be frozen")
            && status["messages"]
                .to_string()
                .contains("could not be started within 4s"),
        "{status:#}"
    );
    let described = ark()
        .await?
        .expect(0, "backup describe hooks-trouble-lasting")
        .await?;
    ensure!(
        described
            .stdout
            .contains("Frozen:             hooks-trouble/a"),
        "{described:?}"
    );
    let status = app.status("hooks-trouble-pre")?;
    ensure!(
        status["freeze"].is_null()
            && status["messages"]
                .to_string()
                .contains("so it may go on in the container"),
        "{status:#}"
    );
    Ok(())
}

/// `--local`: with the rights of whoever runs it, and no Job.
async fn local() -> Result<()> {
    let ark = ark().await?;
    let app = App::start(
        &ark.cluster,
        "hooks-local",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    std::fs::create_dir_all(app.directory.path().join("store"))?;
    let line = format!(
        "backup create hooks-local --local --include-namespaces hooks-local --storage {}",
        app.storage()
    );
    ark.expect(0, &line).await?;
    app.expect(&["pre-a main", "post-a main"])
}

/// A pod of a Job that is deleted in the middle has time to thaw, and the next one makes the backup.
async fn deleted_pod() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    let slow = json!(["sh", "-c", "echo pre-a main >> /log/lines; sleep 8"]).to_string();
    let app = App::start(
        cluster,
        "hooks-deleted",
        &[pod(
            "a",
            and(
                annotations("velero.io", "pre-a", "post-a"),
                json!({ "pre.hook.backup.velero.io/command": slow }),
            ),
        )],
    )
    .await?;
    // The right to run hooks, whatever the scenario of the plugin's own flags does with it meanwhile.
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "hooks-deleted" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": "ark-backup", "namespace": "hooks-deleted-ark" }],
    });
    cluster.kubectl_with_input(&["apply", "-f", "-"], &binding.to_string())?;
    ark.settings("hooks-deleted-ark", crate::plugin::IMAGE, "--hooks")
        .await?;
    let secret = ark.get("secret ark-credentials-default")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "data": secret["data"],
        "metadata": { "name": "ark-credentials-default", "namespace": "hooks-deleted-ark" },
    });
    cluster.kubectl_with_input(&["apply", "-f", "-"], &secret.to_string())?;
    let location = json!([{ "op": "add", "path": "/spec/credentialSecret", "value": "ark-credentials-default" }]);
    cluster.kubectl(&[
        "patch",
        "backupstoragelocation",
        "default",
        "-n",
        "hooks-deleted-ark",
        "--type=json",
        "-p",
        &location.to_string(),
    ])?;
    ark.expect(
        0,
        "backup create hooks-deleted -n hooks-deleted-ark --include-namespaces hooks-deleted",
    )
    .await?;
    wait_until(
        "the pod to be frozen",
        Duration::from_secs(60),
        async || Ok((app.lines() == ["pre-a main"]).then_some(())),
    )
    .await?;
    kubectl(
        cluster,
        "delete pod -n hooks-deleted-ark -l batch.kubernetes.io/job-name=backup-hooks-deleted",
    )?;
    let thawed = ["pre-a main", "post-a main"];
    ensure!(
        app.lines().starts_with(&thawed.map(str::to_owned)),
        "{:?}",
        app.lines()
    );
    wait_until("the next pod", Duration::from_secs(120), async || {
        let phase = kubectl(
            cluster,
            "get backup.ark.heptio.com hooks-deleted -n hooks-deleted-ark -o jsonpath={.status.phase}",
        )?;
        Ok((phase == "Completed").then_some(()))
    })
    .await?;
    app.expect(&["pre-a main", "post-a main", "pre-a main", "post-a main"])
}

async fn jobs() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    let strict = App::start(
        cluster,
        "hooks-strict",
        &[pod("a", annotations("velero.io", "pre-a", "post-a"))],
    )
    .await?;
    let lenient = App::start(
        cluster,
        "hooks-lenient",
        &[pod(
            "a",
            and(
                annotations("ark.heptio.com", "pre-a", "post-a"),
                json!({
                    "pre.hook.backup.ark.heptio.com/on-error": "Continue",
                    "post.hook.backup.ark.heptio.com/on-error": "Continue",
                }),
            ),
        )],
    )
    .await?;
    let without = ark
        .expect(
            3,
            "backup create strict-1 --include-namespaces hooks-strict --wait",
        )
        .await?;
    let status = ark.get("backup.ark.heptio.com strict-1")?["status"].take();
    ensure!(
        status["messages"]
            .to_string()
            .contains("`kubectl ark install --hooks` gives the right to run hooks"),
        "{status:#} {without:?}"
    );
    ark.expect(
        0,
        "backup create lenient-1 --include-namespaces hooks-lenient --wait",
    )
    .await?;
    let status = ark.get("backup.ark.heptio.com lenient-1")?["status"].take();
    ensure!(
        status["phase"] == "Completed"
            && status["messages"]
                .to_string()
                .contains("kubectl ark install --hooks"),
        "{status:#}"
    );
    strict.expect(&[])?;
    lenient.expect(&[])?;

    ark.install("--hooks").await?;
    // Installing again does not take it away.
    ark.install("").await?;
    for (app, name, namespace) in [
        (&strict, "strict-2", "hooks-strict"),
        (&lenient, "lenient-2", "hooks-lenient"),
    ] {
        ark.expect(
            0,
            &format!("backup create {name} --include-namespaces {namespace} --wait"),
        )
        .await?;
        app.expect(&["pre-a main", "post-a main"])?;
        let job = ark.get(&format!("job backup-{name}"))?;
        let grace = &job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        ensure!(grace == 90, "{grace}");
    }
    let described = ark.expect(0, "backup describe strict-2").await?;
    ensure!(described.stdout.contains("2 (0 failed)"), "{described:?}");

    // A mistake in the specs is told before there is a Job.
    cluster.kubectl(&[
        "create",
        "configmap",
        "mistaken",
        "-n",
        ARK,
        "--from-literal=hooks.yaml=resources: [{pre: [{exec: {command: []}}]}]",
    ])?;
    let refused = ark
        .expect(2, "backup create strict-3 --hooks mistaken")
        .await?;
    ensure!(
        refused
            .stderr
            .contains("resources[0].pre[0].exec.command: it is empty"),
        "{refused:?}"
    );

    ark.install("--hooks=false").await?;
    ark.expect(
        3,
        "backup create strict-4 --include-namespaces hooks-strict --wait",
    )
    .await?;
    strict.expect(&["pre-a main", "post-a main"])
}
