//! The harness itself: what every other scenario takes for granted.

use std::collections::BTreeMap;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::Result;
use ark_tests::process::{self, Run};
use ark_tests::{ControlPlane, Options, wait_until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "harness::an_object_is_created_and_read_back_by_kubectl",
            an_object_is_created_and_read_back_by_kubectl,
        ),
        scenario(
            "harness::a_key_is_taken_only_once",
            a_key_is_taken_only_once,
        ),
        scenario(
            "harness::a_saved_cluster_starts_again",
            a_saved_cluster_starts_again,
        ),
        scenario(
            "harness::an_api_server_is_suspended_killed_and_restarted",
            an_api_server_is_suspended_killed_and_restarted,
        ),
        scenario(
            "harness::requests_are_audited_and_events_kept_apart",
            requests_are_audited_and_events_kept_apart,
        ),
        scenario(
            "harness::what_a_killed_run_left_is_swept_by_the_next_start",
            what_a_killed_run_left_is_swept,
        ),
        scenario("harness::ctrl_c_leaves_nothing", ctrl_c_leaves_nothing),
        #[cfg(target_os = "linux")]
        crate::world::node_scenario(
            "harness::pods_of_a_killed_run_die_with_it",
            pods_of_a_killed_run_die_with_it,
        ),
    ]
}

async fn an_object_is_created_and_read_back_by_kubectl() -> Result<()> {
    let world = World::new("objects").await?;
    let namespace = world.namespace("app").await?;
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("settings".into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("colour".into(), "green".into())])),
        ..ConfigMap::default()
    };
    Api::namespaced(world.client.clone(), &namespace)
        .create(&PostParams::default(), &config_map)
        .await?;
    let colour = world.cluster.kubectl(&[
        "get",
        "configmap",
        "settings",
        "-n",
        &namespace,
        "-o",
        "jsonpath={.data.colour}",
    ])?;
    assert_eq!(colour, "green");
    Ok(())
}

async fn a_key_is_taken_only_once() -> Result<()> {
    let world = World::new("keys").await?;
    let key = format!("{}/marker", world.prefix());
    assert!(world.bucket.put_if_absent(&key, "first").await?);
    assert!(!world.bucket.put_if_absent(&key, "second").await?);
    let objects = world.bucket.objects(world.prefix()).await?;
    assert_eq!(objects, BTreeMap::from([(key, "first".into())]));
    Ok(())
}

async fn a_saved_cluster_starts_again() -> Result<()> {
    let saved = tempfile::tempdir()?;
    let data = saved.path().join("etcd");
    let first = ControlPlane::start(Options::default()).await?;
    first.kubectl(&["create", "configmap", "kept", "--from-literal=colour=green"])?;
    first.stop_and_save(&data)?;
    let second = ControlPlane::start(Options {
        etcd_data: Some(data),
        ..Options::default()
    })
    .await?;
    assert_eq!(
        second.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.colour}"])?,
        "green"
    );
    Ok(())
}

async fn an_api_server_is_suspended_killed_and_restarted() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let ask = || cluster.kubectl(&["get", "namespace", "default", "--request-timeout=2s"]);
    ask()?;
    cluster.suspend_api_server()?;
    assert!(ask().is_err());
    cluster.resume_api_server()?;
    ask()?;
    cluster.kill_api_server()?;
    assert!(ask().is_err());
    cluster.restart_api_server().await?;
    ask()?;
    Ok(())
}

async fn requests_are_audited_and_events_kept_apart() -> Result<()> {
    let cluster = ControlPlane::start(Options {
        audit: true,
        separate_events_etcd: true,
        ..Options::default()
    })
    .await?;
    let version = |path: &str| -> Result<u64> {
        let list: serde_json::Value =
            serde_json::from_str(&cluster.kubectl(&["get", "--raw", path])?)?;
        Ok(list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()?)
    };
    // The other etcd has hardly been written to.
    assert!(version("/api/v1/events")? < version("/api/v1/secrets")?);
    wait_until(
        "the audit log to name the request",
        Duration::from_secs(10),
        async || {
            let log = std::fs::read_to_string(cluster.audit_log()?)?;
            Ok(log
                .lines()
                .any(|line| line.contains("\"requestURI\":\"/api/v1/secrets"))
                .then_some(()))
        },
    )
    .await
}

/// A cluster that another process holds: `throwaway hold`.
struct Held {
    process: Child,
    kubeconfig: PathBuf,
    _state: tempfile::TempDir,
}

impl Held {
    async fn start(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let state = directory.path().join("state.json");
        let mut command = process::bound(env!("CARGO_BIN_EXE_throwaway"));
        command
            .arg("hold")
            .args(arguments)
            .arg("--state")
            .arg(&state);
        let process = process::spawn(command)?;
        let kubeconfig = wait_until("the held cluster", Duration::from_secs(90), async || {
            let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&state)?)?;
            Ok(state["environment"]["KUBECONFIG"]
                .as_str()
                .map(PathBuf::from))
        })
        .await?;
        Ok(Held {
            process,
            kubeconfig,
            _state: directory,
        })
    }

    /// The directory of the run that has the cluster.
    fn directory(&self) -> &Path {
        self.kubeconfig.parent().unwrap()
    }

    /// Its processes, found without the harness's own means.
    #[cfg(target_os = "linux")]
    fn processes(&self) -> Vec<String> {
        let marker = format!(
            "ARK_TEST_RUN={}",
            self.directory().file_name().unwrap().to_str().unwrap()
        );
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == marker.as_bytes())
            {
                found.push(entry.file_name().into_string().unwrap());
            }
        }
        found
    }

    #[cfg(not(target_os = "linux"))]
    fn processes(&self) -> Vec<String> {
        Vec::new()
    }
}

async fn what_a_killed_run_left_is_swept() -> Result<()> {
    let bystander = ControlPlane::start(Options::default()).await?;
    let mut held = Held::start(&["--control-plane-only"]).await?;
    assert!(held.directory().join("etcd").exists());
    assert!(
        !cfg!(target_os = "linux") || held.processes().len() >= 3,
        "etcd, API server, controller manager"
    );
    held.process.kill()?;
    held.process.wait()?;

    let _next = Run::start()?;
    assert!(
        !held.directory().exists(),
        "{} was not swept",
        held.directory().display()
    );
    assert_eq!(held.processes(), Vec::<String>::new());
    assert_eq!(
        bystander.kubectl(&["get", "namespace", "default", "-o", "name"])?,
        "namespace/default\n"
    );
    assert!(bystander.directory()?.exists());
    Ok(())
}

async fn ctrl_c_leaves_nothing() -> Result<()> {
    let mut held = Held::start(&["--control-plane-only"]).await?;
    assert!(held.directory().exists());
    process::signal(held.process.id(), Signal::INT)?;
    assert_eq!(held.process.wait()?.code(), Some(130));
    assert!(!held.directory().exists());
    assert_eq!(held.processes(), Vec::<String>::new());
    Ok(())
}

#[cfg(target_os = "linux")]
async fn pods_of_a_killed_run_die_with_it() -> Result<()> {
    let mut held = Held::start(&[]).await?;
    let cluster = ControlPlane::from_kubeconfig(&held.kubeconfig)?;
    // A number that no other process on the machine sleeps for.
    let seconds = format!("{}", 10_000_000 + std::process::id());
    let command_line = format!("sleep\0{seconds}\0");
    cluster.kubectl(&[
        "run",
        "sleeper",
        "--image",
        ark_tests::images::BUSYBOX,
        "--",
        "sleep",
        &seconds,
    ])?;
    cluster.kubectl(&[
        "wait",
        "pod/sleeper",
        "--for=condition=Ready",
        "--timeout=60s",
    ])?;
    let sleeper = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            // A zombie, which the machine's first process may be slow to reap, has no command line.
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| line == command_line.as_bytes())
        })
    };
    assert!(sleeper());
    let group = format!(
        "ark-{}",
        held.directory().file_name().unwrap().to_str().unwrap()
    );
    let groups = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let roots = mounts
            .lines()
            .filter(|line| line.contains(" cgroup"))
            .filter_map(|line| line.split(' ').nth(1));
        roots
            .filter(|root| Path::new(root).join(&group).exists())
            .count()
    };
    assert!(groups() > 0);
    held.process.kill()?;
    held.process.wait()?;

    let _next = Run::start()?;
    assert!(!sleeper(), "the pod lives on");
    assert_eq!(groups(), 0, "control groups were left");
    assert!(!held.directory().exists());
    assert_eq!(held.processes(), Vec::<String>::new());
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(
        !mounts.contains(held.directory().to_str().unwrap()),
        "{mounts}"
    );
    Ok(())
}
