//! The cluster with a node: real pods run, are read, entered, killed, and reach the API server and S3.

use std::time::Duration;

use anyhow::{Context, Result};
use ark_tests::{NodeCluster, images, wait_until};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{self, node_scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "node::a_pod_runs_to_its_end_and_its_log_is_read",
            a_pod_runs_to_its_end_and_its_log_is_read,
        ),
        node_scenario("node::a_command_runs_in_a_pod", a_command_runs_in_a_pod),
        node_scenario(
            "node::a_job_reaches_the_api_server_with_its_token",
            a_job_reaches_the_api_server_with_its_token,
        ),
        node_scenario(
            "node::pods_and_programs_outside_reach_one_s3_url",
            pods_and_programs_outside_reach_one_s3_url,
        ),
        node_scenario(
            "node::a_claim_binds_to_a_directory_of_the_machine",
            a_claim_binds_to_a_directory_of_the_machine,
        ),
        node_scenario(
            "node::a_pod_is_killed_by_its_process_id",
            a_pod_is_killed_by_its_process_id,
        ),
        node_scenario(
            "node::the_restricted_level_refuses_a_root_pod",
            the_restricted_level_refuses_a_root_pod,
        ),
        node_scenario(
            "node::a_program_runs_on_the_debian_base",
            a_program_runs_on_the_debian_base,
        ),
        node_scenario(
            "node::an_admission_policy_is_enforced",
            an_admission_policy_is_enforced,
        ),
    ]
}

/// Makes a namespace and applies objects in it.
fn apply(cluster: &NodeCluster, namespace: &str, objects: &[serde_json::Value]) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster.kubectl(&["create", "namespace", namespace])?;
    cluster.kubectl_with_input(&["apply", "-n", namespace, "-f", "-"], &list.to_string())?;
    Ok(())
}

/// A pod that runs one line of shell.
fn pod(name: &str, script: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", script] }],
        },
    })
}

async fn wait_for_phase(
    cluster: &NodeCluster,
    namespace: &str,
    name: &str,
    phase: &str,
) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, namespace);
    wait_until(
        &format!("pod {name} to be {phase}"),
        Duration::from_secs(60),
        async || {
            let pod = pods.get(name).await?;
            let now = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                .unwrap_or_default();
            Ok((now == phase).then_some(pod.clone()))
        },
    )
    .await
}

async fn a_pod_runs_to_its_end_and_its_log_is_read() -> Result<()> {
    let cluster = world::node().await?;
    apply(
        cluster,
        "logs",
        &[pod("hello", "echo hello from $HOSTNAME")],
    )?;
    wait_for_phase(cluster, "logs", "hello", "Succeeded").await?;
    assert_eq!(
        cluster.kubectl(&["logs", "-n", "logs", "hello"])?,
        "hello from hello\n"
    );
    Ok(())
}

async fn a_command_runs_in_a_pod() -> Result<()> {
    let cluster = world::node().await?;
    apply(
        cluster,
        "exec",
        &[pod("waiting", "echo secret > /tmp/file; sleep 600")],
    )?;
    wait_for_phase(cluster, "exec", "waiting", "Running").await?;
    assert_eq!(
        cluster.kubectl(&["exec", "-n", "exec", "waiting", "--", "cat", "/tmp/file"])?,
        "secret\n"
    );
    Ok(())
}

async fn a_job_reaches_the_api_server_with_its_token() -> Result<()> {
    let cluster = world::node().await?;
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && wget -qO- --no-check-certificate \
                  --header \"Authorization: Bearer $(cat token)\" \
                  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/jobs";
    let template = json!({ "spec": pod("x", script)["spec"] });
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "ask" }, "spec": { "backoffLimit": 0, "template": template } });
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "view" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": "jobs" }],
    });
    apply(cluster, "jobs", &[rights, job])?;
    let jobs: Api<Job> = Api::namespaced(cluster.client().await?, "jobs");
    let ended = wait_until("the job to end", Duration::from_secs(60), async || {
        let status = jobs.get("ask").await?.status.unwrap_or_default();
        Ok((status.succeeded.or(status.failed) == Some(1)).then_some(status))
    })
    .await?;
    let log = cluster.kubectl(&["logs", "-n", "jobs", "job/ask"])?;
    assert_eq!(ended.succeeded, Some(1), "{log}");
    assert!(log.contains("\"kind\": \"Namespace\""), "{log}");
    Ok(())
}

async fn pods_and_programs_outside_reach_one_s3_url() -> Result<()> {
    let (cluster, s3) = (world::node().await?, world::s3().await?);
    let url = cluster.expose(s3.url())?;
    // Refused for want of a signature, which only the S3 server says.
    let ask = format!("wget -S -O- {url}/scenarios 2>&1 | grep -m 1 -o 'HTTP/1.1 403'");
    apply(cluster, "reach", &[pod("ask", &ask)])?;
    wait_for_phase(cluster, "reach", "ask", "Succeeded").await?;
    assert_eq!(
        cluster.kubectl(&["logs", "-n", "reach", "ask"])?,
        "HTTP/1.1 403\n"
    );
    let outside = cluster
        .command("busybox")
        .args(["sh", "-c", &ask])
        .output()?;
    assert_eq!(String::from_utf8_lossy(&outside.stdout), "HTTP/1.1 403\n");
    // The kubeconfig holds there, too.
    let kubectl = ark_tests::process::output(
        cluster
            .command(cluster.bin().join("kubectl"))
            .args(["get", "node", "-o", "name"]),
    )?;
    assert_eq!(kubectl, "node/node\n");
    Ok(())
}

async fn a_claim_binds_to_a_directory_of_the_machine() -> Result<()> {
    let cluster = world::node().await?;
    let directory = tempfile::tempdir()?;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "directory" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "",
            "hostPath": { "path": directory.path() },
            "claimRef": { "namespace": "volumes", "name": "data" },
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } } },
    });
    let mut writer = pod("writer", "echo written > /data/file");
    writer["spec"]["volumes"] =
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    writer["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "data", "mountPath": "/data" }]);
    apply(cluster, "volumes", &[volume, claim, writer])?;
    wait_for_phase(cluster, "volumes", "writer", "Succeeded").await?;
    assert_eq!(
        std::fs::read_to_string(directory.path().join("file"))?,
        "written\n"
    );
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client().await?, "volumes");
    let phase = claims
        .get("data")
        .await?
        .status
        .and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Bound"));
    Ok(())
}

async fn a_pod_is_killed_by_its_process_id() -> Result<()> {
    let cluster = world::node().await?;
    apply(cluster, "kill", &[pod("victim", "sleep 600 & wait")])?;
    let pod = wait_for_phase(cluster, "kill", "victim", "Running").await?;
    let uid = pod.metadata.uid.context("a pod has a uid")?;
    let processes = cluster.pod_processes(&uid)?;
    assert_eq!(processes.len(), 2, "sh and its sleep");
    for process_id in processes {
        ark_tests::process::kill_and_wait(process_id)?;
    }
    let failed = wait_for_phase(cluster, "kill", "victim", "Failed").await?;
    let statuses = failed
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let terminated = statuses
        .first()
        .and_then(|status| status.state.as_ref()?.terminated.as_ref()?.exit_code.into());
    assert_eq!(terminated, Some(137));
    Ok(())
}

async fn the_restricted_level_refuses_a_root_pod() -> Result<()> {
    let cluster = world::node().await?;
    cluster.kubectl(&["create", "namespace", "restricted"])?;
    cluster.kubectl(&[
        "label",
        "namespace",
        "restricted",
        "pod-security.kubernetes.io/enforce=restricted",
    ])?;
    let refused = cluster.kubectl_with_input(
        &["create", "-n", "restricted", "-f", "-"],
        &pod("root", "true").to_string(),
    );
    let refused = format!("{:#}", refused.err().context("a root pod was admitted")?);
    assert!(refused.contains("violates PodSecurity"), "{refused}");
    Ok(())
}

async fn an_admission_policy_is_enforced() -> Result<()> {
    let cluster = world::node().await?;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "no-secrets-called-no" },
        "spec": {
            "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"] }] },
            "validations": [{ "expression": "object.metadata.name != 'no'", "message": "not this name" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "no-secrets-called-no" },
        "spec": { "policyName": "no-secrets-called-no", "validationActions": ["Deny"] },
    });
    apply(cluster, "policy", &[policy, binding])?;
    // A policy holds when its informer has it, a moment later.
    wait_until("the policy to hold", Duration::from_secs(30), async || {
        let created = cluster.kubectl(&[
            "create",
            "secret",
            "generic",
            "no",
            "-n",
            "policy",
            "--dry-run=server",
        ]);
        Ok(created
            .err()
            .filter(|error| format!("{error:#}").contains("not this name")))
    })
    .await?;
    cluster.kubectl(&["create", "secret", "generic", "yes", "-n", "policy"])?;
    Ok(())
}

async fn a_program_runs_on_the_debian_base() -> Result<()> {
    let cluster = world::node().await?;
    let context = tempfile::tempdir()?;
    // Linked against glibc, as the job is, and nothing else.
    std::fs::copy("/bin/cat", context.path().join("cat"))?;
    let containerfile = context.path().join("Containerfile");
    let text = "ARG BASE\nFROM ${BASE}\nCOPY cat /cat\nUSER 65532:65532\nENTRYPOINT [\"/cat\", \"/etc/passwd\"]\n";
    std::fs::write(&containerfile, text)?;
    let base = format!("docker-archive:{}", images::debian_base()?.display());
    cluster.build_image(
        context.path(),
        &containerfile,
        "localhost/cat:test",
        &[("BASE", &base)],
    )?;
    let mut cat = pod("cat", "");
    cat["spec"]["containers"][0] =
        json!({ "name": "main", "image": "localhost/cat:test", "imagePullPolicy": "Never" });
    cat["spec"]["securityContext"] = json!({ "runAsNonRoot": true });
    apply(cluster, "base", &[cat])?;
    wait_for_phase(cluster, "base", "cat", "Succeeded").await?;
    let log = cluster.kubectl(&["logs", "-n", "base", "cat"])?;
    assert!(log.contains("nonroot:x:65532"), "{log}");
    Ok(())
}
