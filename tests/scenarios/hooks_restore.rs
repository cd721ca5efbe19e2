//! Hooks of a restore in real pods: init containers come before the pod's own, commands run once containers are up, and
//! what cannot run is told, in time and without holding up others.
//!
//! Commands and containers write into a directory of the machine, so that nobody has to ask a pod.

use std::time::Duration;

use anyhow::{Result, ensure};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, images, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::hooks::{ARK, ark, kubectl};
use crate::world::node_scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "hooks_restore::n17_init_containers_and_commands_run_in_pods_that_come_back_under_another_namespace",
            run_in_order,
        ),
        node_scenario(
            "hooks_restore::n21_n24_what_fails_or_cannot_run_is_an_error_and_holds_up_no_other_pod",
            failures,
        ),
        node_scenario(
            "hooks_restore::n18_a_mistake_in_the_config_map_is_told_before_anything_is_written",
            mistakes,
        ),
    ]
}

/// A namespace with pods that is backed up and deleted.
struct App {
    cluster: &'static ControlPlane,
    namespace: &'static str,
    directory: tempfile::TempDir,
}

/// A pod of two containers that write a line when they start.
fn pod(name: &str, annotations: &Value, main: &str) -> Value {
    let container = |container: &str, script: &str| {
        json!({
            "name": container, "image": images::BUSYBOX,
            "command": ["sh", "-c", format!("echo start {name} {container} >> /log/lines; {script}")],
            "env": [{ "name": "POD", "value": name }, { "name": "CONTAINER", "value": container }],
            "volumeMounts": [{ "name": "log", "mountPath": "/log" }],
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "annotations": annotations, "labels": { "app": name } },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [container("main", main), container("side", LASTS)],
        },
    })
}

/// A script that goes on until it is ended.
const LASTS: &str = "trap 'exit 0' TERM INT; sleep 3600 & wait";

/// A command that writes its word, its pod and its container.
fn note(word: &str) -> Value {
    json!([
        "sh",
        "-c",
        format!("echo {word} $POD $CONTAINER >> /log/lines")
    ])
}

impl App {
    /// Makes the pods, backs them up as `namespace`, and deletes them.
    async fn start(
        cluster: &'static ControlPlane,
        namespace: &'static str,
        mut pods: Vec<Value>,
    ) -> Result<App> {
        let app = App {
            cluster,
            namespace,
            directory: tempfile::tempdir()?,
        };
        let log = app.directory.path();
        // Any user of any container may write there.
        std::fs::set_permissions(log, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        std::fs::create_dir_all(log.join("store"))?;
        kubectl(cluster, &format!("create namespace {namespace}"))?;
        for pod in &mut pods {
            pod["metadata"]["namespace"] = json!(namespace);
            pod["spec"]["volumes"] = json!([{ "name": "log", "hostPath": { "path": log } }]);
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods });
        cluster.kubectl_with_input(&["apply", "-f", "-"], &list.to_string())?;
        // Pods that have ended do not come back, so it is enough that they are there.
        app.job(&["backup", namespace, "--include-namespaces", namespace])
            .expect(0)
            .await?;
        kubectl(cluster, &format!("delete namespace {namespace}"))?;
        app.forget()?;
        Ok(app)
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        let storage = format!("--storage=file://{}/store", self.directory.path().display());
        ArkJob::new(
            self.cluster.kubeconfig(),
            &[arguments, &[&storage]].concat(),
        )
    }

    /// Restores it under this name.
    async fn restore(&self, code: i32, name: &str, flags: &[&str]) -> Result<Finished> {
        let arguments = [&["restore", self.namespace, "--name", name], flags].concat();
        self.job(&arguments).expect(code).await
    }

    fn status(&self, restore: &str) -> Result<Value> {
        let record = kubectl(
            self.cluster,
            &format!("get restore.ark.heptio.com {restore} -n {ARK} -o json"),
        )?;
        let mut record: Value = serde_json::from_str(&record)?;
        Ok(record["status"].take())
    }

    /// What has been written so far.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Lines about a pod, in order.
    fn lines_of(&self, pod: &str) -> Vec<String> {
        let is_about = |line: &String| line.split_whitespace().nth(1) == Some(pod);
        self.lines().into_iter().filter(is_about).collect()
    }

    fn forget(&self) -> Result<()> {
        let lines = self.directory.path().join("lines");
        if lines.exists() {
            std::fs::remove_file(lines)?;
        }
        Ok(())
    }

    fn config_map(&self, name: &str, document: &Value) -> Result<()> {
        // JSON is YAML.
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": ARK },
            "data": { "hooks.yaml": document.to_string() },
        });
        self.cluster
            .kubectl_with_input(&["apply", "-f", "-"], &map.to_string())
            .map(drop)
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Value> {
        let pod = kubectl(
            self.cluster,
            &format!("get pod {name} -n {namespace} -o json"),
        )?;
        Ok(serde_json::from_str(&pod)?)
    }
}

fn position(lines: &[String], line: &str) -> Result<usize> {
    let found = lines.iter().position(|one| one == line);
    found.ok_or_else(|| anyhow::anyhow!("{line:?} is not among {lines:?}"))
}

async fn run_in_order() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let annotated = json!({
        "post.hook.restore.velero.io/command": note("post").to_string(),
        "post.hook.restore.velero.io/container": "side",
        "post.hook.restore.velero.io/wait-for-ready": "true",
        "init.hook.restore.velero.io/container-image": images::BUSYBOX,
        "init.hook.restore.velero.io/container-name": "fetch",
        "init.hook.restore.velero.io/command": r#"["sh", "-c", "echo fetched"]"#,
    });
    // The API server would refuse the pod with such a container.
    let odd = json!({
        "init.hook.restore.velero.io/container-image": images::BUSYBOX,
        "init.hook.restore.velero.io/container-name": "No Name",
        "post.hook.restore.ark.heptio.com/command": note("post").to_string(),
        "post.hook.restore.ark.heptio.com/exec-timeout": "soon",
    });
    let app = App::start(
        cluster,
        "hooks-back",
        vec![
            pod("a", &annotated, LASTS),
            pod("b", &json!({}), LASTS),
            pod("c", &odd, LASTS),
        ],
    )
    .await?;
    let fetch = json!({
        "name": "prepare", "image": images::BUSYBOX, "command": ["sh", "-c", "echo init b prepare >> /log/lines"],
        "volumeMounts": [{ "name": "log", "mountPath": "/log" }],
    });
    let spec = |namespace: &str, word: &str, init: Option<&Value>| {
        let mut hooks = vec![
            json!({ "exec": { "command": note(&format!("{word}-1")), "container": "side", "waitForReady": true } }),
            json!({ "exec": { "command": note(&format!("{word}-2")), "container": "side", "waitTimeout": "1m", "execTimeout": "20s", "onError": "Fail" } }),
        ];
        hooks.extend(init.map(
            |container| json!({ "init": { "initContainers": [container], "timeout": "2m" } }),
        ));
        json!({
            "name": word, "includedNamespaces": [namespace], "includedResources": ["po"],
            "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["a", "b"] }] },
            "postHooks": hooks,
        })
    };
    app.config_map(
        "hooks-back",
        &json!({ "resources": [
            spec("hooks-back", "old", None),
            spec("hooks-again", "new", Some(&fetch)),
            { "includedResources": ["secrets"], "postHooks": [{ "exec": { "command": note("never") } }] },
        ] }),
    )?;

    // None of them runs when none are wanted.
    app.restore(0, "hooks-none", &["--hooks", "none"]).await?;
    wait_until("the pods", Duration::from_secs(90), async || {
        Ok((app.lines().len() == 6).then_some(()))
    })
    .await?;
    ensure!(
        app.lines().iter().all(|line| line.starts_with("start "))
            && app.pod("hooks-back", "a")?["spec"]["initContainers"].is_null(),
        "{:?}",
        app.lines()
    );
    let status = app.status("hooks-none")?;
    ensure!(status["hooksAttempted"].is_null(), "{status:#}");
    app.forget()?;

    let flags = [
        "--hooks",
        "hooks-back",
        "--namespace-mappings",
        "hooks-back:hooks-again",
    ];
    let restored = app.restore(0, "hooks-again", &flags).await?;
    ensure!(
        app.lines_of("a").last().map(String::as_str) == Some("post a side"),
        "{:?}",
        app.lines()
    );
    let of_b = app.lines_of("b");
    ensure!(
        position(&of_b, "init b prepare")? == 0
            && position(&of_b, "start b side")? < position(&of_b, "new-1 b side")?
            && position(&of_b, "new-1 b side")? < position(&of_b, "new-2 b side")?
            && of_b.len() == 5,
        "{of_b:?}"
    );
    ensure!(app.lines_of("c").contains(&"post c main".to_owned()));
    let fetched = app.pod("hooks-again", "a")?;
    let init = &fetched["status"]["initContainerStatuses"][0];
    ensure!(
        init["name"] == "fetch" && init["state"]["terminated"]["exitCode"] == 0,
        "{fetched:#}"
    );
    let status = app.status("hooks-again")?;
    // Those of a and c, three of b: its init container has a timeout, so it is watched.
    ensure!(
        status["hooksAttempted"] == 5
            && status["hooksFailed"] == 0
            && status["phase"] == "Completed",
        "{status:#} {restored:?}"
    );
    let messages = status["messages"].to_string();
    for text in [
        "Pod c: annotation init.hook.restore.velero.io/container-name: ",
        "Pod c: annotation post.hook.restore.ark.heptio.com/exec-timeout: ",
    ] {
        ensure!(messages.contains(text), "{status:#}");
    }

    // What is there already is as it was wanted, and its hooks have run.
    let lines = app.lines();
    app.restore(0, "hooks-once-more", &flags).await?;
    let status = app.status("hooks-once-more")?;
    ensure!(
        app.lines() == lines && status["created"] == 0 && status["hooksAttempted"].is_null(),
        "{status:#} {:?}",
        app.lines()
    );
    let messages = status["messages"].to_string();
    ensure!(!messages.contains("initContainers"), "{status:#}");
    Ok(())
}

async fn failures() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let never_ready = json!({ "exec": { "command": ["false"] }, "periodSeconds": 1 });
    let mut late = pod("late", &json!({}), LASTS);
    late["spec"]["containers"][0]["readinessProbe"] = never_ready.clone();
    let mut ended = pod("ended", &json!({}), "sleep 2");
    ended["spec"]["containers"][0]["readinessProbe"] = never_ready;
    let mut never = pod("never", &json!({}), LASTS);
    never["spec"]["containers"][0]["image"] = json!("registry.invalid/none:1");
    let app = App::start(
        cluster,
        "hooks-fail-back",
        vec![
            pod("fail", &json!({}), LASTS),
            pod("continue", &json!({}), LASTS),
            pod("missing", &json!({}), LASTS),
            late,
            never,
            pod("slow", &json!({}), LASTS),
            ended,
            pod("well", &json!({}), LASTS),
        ],
    )
    .await?;
    let exec = |command: &Value, more: Value| {
        let mut exec = json!({ "command": command });
        for (key, value) in more.as_object().into_iter().flatten() {
            exec[key] = value.clone();
        }
        json!({ "exec": exec })
    };
    let spec = |pod: &str, hooks: Vec<Value>| json!({ "name": format!("of-{pod}"), "labelSelector": { "matchLabels": { "app": pod } }, "postHooks": hooks });
    let fails = json!(["sh", "-c", "echo no space left; exit 7"]);
    let plain = |word: &str| exec(&note(word), json!({}));
    app.config_map(
        "hooks-fail-back",
        &json!({ "hooks": { "resources": [
            spec("fail", vec![exec(&fails, json!({ "onError": "Fail" })), plain("not-after-fail")]),
            spec("continue", vec![exec(&fails, json!({})), plain("after-continue")]),
            spec("missing", vec![exec(&note("in-none"), json!({ "container": "nope" })), plain("in-main")]),
            // Not even with Continue is a hook run when its time is over.
            spec("late", vec![exec(&note("late"), json!({ "waitForReady": true, "waitTimeout": "45s" })), plain("not-late")]),
            // Long enough for a busy node to have said what the container waits for.
            spec("never", vec![exec(&note("never"), json!({ "waitTimeout": "40s", "onError": "Fail" })), plain("not-after-never")]),
            spec("slow", vec![exec(&json!(["sleep", "60"]), json!({ "execTimeout": "1s" }))]),
            spec("ended", vec![exec(&note("in-ended"), json!({ "waitForReady": true, "waitTimeout": "5m", "container": "main" })), exec(&note("in-side"), json!({ "container": "side" }))]),
            spec("well", vec![plain("well")]),
        ] } }),
    )?;
    // The container that has ended is not up when it is looked at: it is never ready.
    let flags = ["--hooks", "hooks-fail-back"];
    let restored = app.restore(3, "hooks-fail-back", &flags).await?;
    for (pod, lines) in [
        ("fail", &[][..]),
        ("continue", &["after-continue continue main"]),
        ("missing", &["in-main missing main"]),
        ("late", &["not-late late main"]),
        ("never", &[]),
        ("slow", &[]),
        ("well", &["well well main"]),
    ] {
        let mut found = app.lines_of(pod);
        found.retain(|line| !line.starts_with("start "));
        ensure!(found == lines, "{pod}: {found:?} {restored:?}");
    }
    let status = app.status("hooks-fail-back")?;
    let messages = status["messages"].to_string();
    for text in [
        "pod fail: restore hook of-fail in container main: exit code 7; it wrote: no space left",
        "pod fail: restore hook of-fail in container main was not run: a hook before it failed, and its onError is Fail",
        "pod continue: restore hook of-continue in container main: exit code 7",
        "pod missing: restore hook of-missing in container nope was not run: the pod has no container nope (it has main, side)",
        "pod late: restore hook of-late in container main was not run: its container was not up within 45s: it runs, but is not ready",
        "pod never: restore hook of-never in container main was not run: its container was not up within 40s: it waits: ",
        "pod slow: restore hook of-slow in container main: timed out after 1s",
    ] {
        ensure!(messages.contains(text), "{text:?} is not in {status:#}");
    }
    ensure!(
        status["phase"] == "PartiallyFailed"
            && status["hooksAttempted"] == 14
            && status["failed"] == 0
            // Namespace and pods; the namespace's service account, too, if its controller is slower.
            && status["created"].as_u64() >= Some(9),
        "{status:#}"
    );
    Ok(())
}

async fn mistakes() -> Result<()> {
    let cluster = &ark().await?.cluster;
    let app = App::start(cluster, "hooks-mistaken", vec![pod("a", &json!({}), LASTS)]).await?;
    for (n, (hook, text)) in [
        (
            json!({ "exec": { "command": [] } }),
            "resources[0].postHooks[0].exec.command: it is empty",
        ),
        (
            json!({ "exec": { "command": ["x"], "waitTimeout": "soon" } }),
            "resources[0].postHooks[0].exec.waitTimeout: ",
        ),
        (
            json!({ "init": { "initContainers": [{ "name": "a", "image": "b" }] } }),
            "resources[0].postHooks[0].init.initContainers[0].command: it is missing",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("hooks-mistaken-{n}");
        app.config_map(&name, &json!({ "resources": [{ "postHooks": [hook] }] }))?;
        let refused = app.restore(2, &name, &["--hooks", &name]).await?;
        let text = format!("--hooks: ConfigMap {name}, hooks.yaml: {text}");
        ensure!(refused.stderr.contains(&text), "{text:?}: {refused:?}");
    }
    let spec = json!({ "resources": [{ "includedResources": ["pdos"] }] });
    app.config_map("hooks-misspelt", &spec)?;
    let refused = app
        .restore(2, "hooks-misspelt", &["--hooks", "hooks-misspelt"])
        .await?;
    ensure!(
        refused.stderr.contains("resources[0].includedResources: "),
        "{refused:?}"
    );
    app.restore(10, "hooks-missing", &["--hooks", "no-such-map"])
        .await?;
    let left = kubectl(cluster, "get namespace hooks-mistaken --ignore-not-found")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
