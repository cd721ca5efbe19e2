//! Every setting of pods, by real pods: an image of a private registry by its digest, a proxy that connects, an authority of one's
//! own, quotas, limit ranges, sidecars that others inject.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::process::output;
use ark_tests::registry::{PASSWORD, Registry, USER};
use ark_tests::{FaultProxy, background, certificates, images, s3, wait_until};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::plugin::{Ark, IMAGE, apply, ark, bucket, kubectl, storage};
use crate::world::{self, node_scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "pod_settings::a_private_registry_a_proxy_and_a_private_authority",
            closed_network,
        ),
        node_scenario(
            "pod_settings::quotas_and_limit_ranges_are_told_and_met",
            limits,
        ),
        node_scenario("pod_settings::injected_sidecars", sidecars),
    ]
}

/// Installs into a namespace of its own, without the hourly CronJobs.
async fn install(ark: &Ark, namespace: &str, url: &str, image: &str, flags: &str) -> Result<()> {
    let keys = tempfile::NamedTempFile::new()?;
    let (id, secret) = (s3::ACCESS_KEY_ID, s3::SECRET_ACCESS_KEY);
    std::fs::write(
        keys.path(),
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )?;
    let line = format!(
        "install -n {namespace} --storage {url} --image {image} --credentials-file {} {flags} --dry-run=client -o json",
        keys.path().display()
    );
    let printed = ark.expect(0, &line).await?;
    let mut list: Value = serde_json::from_str(&printed.stdout)?;
    let objects = list["items"].as_array_mut().context("a list")?;
    // No housekeeping: nobody waits for it.
    objects.retain(|one| {
        let rights = one["kind"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("ClusterRole"));
        let here = one["kind"] == "Namespace" || one["metadata"]["namespace"] == namespace;
        (here || rights) && one["kind"] != "CronJob"
    });
    apply(&ark.cluster, &list)
}

fn pod(ark: &Ark, namespace: &str, job: &str) -> Result<Value> {
    let line = format!("get pods -n {namespace} -l batch.kubernetes.io/job-name={job} -o json");
    let pods: Value = serde_json::from_str(&kubectl(&ark.cluster, &line)?)?;
    Ok(pods["items"][0].clone())
}

async fn closed_network() -> Result<()> {
    const CLOSED: &str = "closed";
    let ark = ark().await?;
    // The image is in a registry that wants a password.
    let registry = Registry::start().await?;
    let host = ark.cluster.expose_to_node(registry.url())?;
    let ctr = |arguments: &[&str]| {
        let [program, rest @ ..] = &ark.cluster.inside_prefix()[..] else {
            anyhow::bail!("no prefix")
        };
        let mut command = Command::new(program);
        command
            .args(rest)
            .args(["ctr", "--namespace", "k8s.io", "images"]);
        output(command.args(arguments))
    };
    let user = format!("{USER}:{PASSWORD}");
    let tag = format!("{host}/team/ark-job:v1");
    ctr(&["push", "--plain-http", "--user", &user, &tag, IMAGE])?;
    let listed = ctr(&["ls", &format!("name=={IMAGE}")])?;
    let digest = listed
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"));
    let image = format!("{host}/team/ark-job@{}", digest.context(listed.clone())?);

    // Storage is behind TLS with a certificate of an own authority, and only the proxy reaches it.
    let certificates = tempfile::tempdir()?;
    bucket().await?;
    let tls = FaultProxy::start_tls(world::s3().await?.url(), certificates.path()).await?;
    let port = tls.url().rsplit(':').next().context("a port")?.to_owned();
    let endpoint = format!("https://10.88.0.1:{port}");
    let proxy = Proxy::start()?;
    let address = ark.cluster.expose(&proxy.url)?;

    let url = storage("closed", &endpoint);
    install(ark, CLOSED, &url, &image, "--image-pull-policy Always").await?;
    let said = ark.expect(1, "backup create none -n closed --wait").await?;
    said.explains(&["pod/backup-none-", &host], "install --image")?;
    kubectl(&ark.cluster, "delete job backup-none -n closed")?;

    let settings = format!(
        "--image-pull-policy Always --image-pull-secret registry --env HTTPS_PROXY={address} --env NO_PROXY=10.96.0.1 \
         --node-selector kubernetes.io/hostname=node --toleration dedicated=backup:NoSchedule"
    );
    install(ark, CLOSED, &url, &image, &settings).await?;
    kubectl(
        &ark.cluster,
        &format!(
            "create secret docker-registry registry -n {CLOSED} --docker-server={host} --docker-username={USER} \
             --docker-password={PASSWORD}"
        ),
    )?;
    let authority = certificates.path().join("ca.crt");
    let file = format!("--from-file=ca.crt={}", authority.display());
    kubectl(
        &ark.cluster,
        &format!("create configmap authority -n {CLOSED} {file}"),
    )?;
    let patch = json!({"spec": {"caConfigMap": "authority"}}).to_string();
    ark.cluster.kubectl(&[
        "patch",
        "backupstoragelocation",
        "default",
        "-n",
        CLOSED,
        "--type=merge",
        "-p",
        &patch,
    ])?;
    ark.expect(
        0,
        "backup create one -n closed --include-namespaces closed --wait",
    )
    .await?;

    let one = pod(ark, CLOSED, "backup-one")?;
    let spec = &one["spec"];
    ensure!(spec["containers"][0]["image"] == image.as_str(), "{spec}");
    ensure!(
        spec["imagePullSecrets"] == json!([{"name": "registry"}]),
        "{spec}"
    );
    ensure!(
        spec["nodeSelector"] == json!({"kubernetes.io/hostname": "node"}),
        "{spec}"
    );
    let tolerated =
        json!({"key": "dedicated", "operator": "Equal", "value": "backup", "effect": "NoSchedule"});
    let tolerations = spec["tolerations"].as_array();
    ensure!(
        tolerations.is_some_and(|all| all.contains(&tolerated)),
        "{spec}"
    );
    let connected = proxy.connected();
    ensure!(!connected.is_empty(), "nothing went by the proxy");
    let other: Vec<&String> = connected
        .iter()
        .filter(|one| !one.ends_with(&format!(":{port}")))
        .collect();
    ensure!(other.is_empty(), "the proxy was asked for {other:?}");

    // What reads goes the same way.
    let before = proxy.connected().len();
    let read = ark
        .expect(0, "backup describe one -n closed --details")
        .await?;
    ensure!(read.stdout.contains("authority"), "{read:?}");
    ensure!(proxy.connected().len() > before);
    Ok(())
}

/// A proxy that serves CONNECT, from the machine: what is 10.88.0.1 for pods is 127.0.0.1 there.
struct Proxy {
    url: String,
    connected: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let connected: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = connected.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(client) = connection else { return };
                let seen = seen.clone();
                std::thread::spawn(move || tunnel(client, &seen));
            }
        });
        Ok(Proxy { url, connected })
    }

    fn connected(&self) -> Vec<String> {
        self.connected
            .lock()
            .expect("nobody panics with it")
            .clone()
    }
}

fn tunnel(mut client: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    let (method, host) = (words.next()?, words.next()?.to_owned());
    seen.lock()
        .expect("nobody panics with it")
        .push(format!("{method} {host}"));
    let mut server = TcpStream::connect(host.replace("10.88.0.1:", "127.0.0.1:")).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(std::net::Shutdown::Write)
    });
    let _ = std::io::copy(&mut server, &mut client);
    client.shutdown(std::net::Shutdown::Both).ok()
}

async fn limits() -> Result<()> {
    const TIGHT: &str = "tight";
    let ark = ark().await?;
    let endpoint = ark.cluster.expose(world::s3().await?.url())?;
    bucket().await?;
    let url = storage("tight", &endpoint);
    install(ark, TIGHT, &url, IMAGE, "").await?;
    let backup =
        |name: &str| format!("backup create {name} -n tight --include-namespaces tight --wait");
    let gone = |name: &str| kubectl(&ark.cluster, &format!("delete job backup-{name} -n tight"));

    // A limit range that allows less memory than pods ask for.
    apply(
        &ark.cluster,
        &json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small", "namespace": TIGHT},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "200Mi"}}]}}),
    )?;
    let said = ark.expect(1, &backup("large")).await?;
    said.explains(
        &[
            "job.batch/backup-large",
            "maximum memory usage per Container is 200Mi",
            "256Mi",
        ],
        "pod-template",
    )?;
    gone("large")?;
    // A quota that wants to know how much CPU a pod may take: pods do not say, for they should take what is free.
    kubectl(
        &ark.cluster,
        "create quota cpu -n tight --hard=limits.cpu=1,requests.cpu=1,limits.memory=1Gi",
    )?;
    wait_until("the quota to hold", Duration::from_secs(60), async || {
        let used = kubectl(
            &ark.cluster,
            "get quota cpu -n tight -o jsonpath={.status.used}",
        )?;
        Ok((!used.is_empty()).then_some(()))
    })
    .await?;
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    let resources = |limits: &str| {
        format!("spec:\n  containers:\n  - name: ark-job\n    resources:\n      limits: {limits}\n")
    };
    std::fs::write(file.path(), resources("{memory: 128Mi}"))?;
    let settings = format!("--pod-template {}", file.path().display());
    install(ark, TIGHT, &url, IMAGE, &settings).await?;
    let said = ark.expect(1, &backup("silent")).await?;
    said.explains(
        &[
            "job.batch/backup-silent",
            "must specify limits.cpu for: ark-job",
        ],
        "pod-template",
    )?;
    gone("silent")?;
    // Said in the settings, all is well.
    std::fs::write(file.path(), resources("{memory: 128Mi, cpu: 500m}"))?;
    install(ark, TIGHT, &url, IMAGE, &settings).await?;
    ark.expect(0, &backup("said")).await?;
    let one = pod(ark, TIGHT, "backup-said")?;
    ensure!(
        one["spec"]["containers"][0]["resources"]["limits"]
            == json!({"cpu": "500m", "memory": "128Mi"}),
        "{one}"
    );
    Ok(())
}

async fn sidecars() -> Result<()> {
    const MESH: &str = "mesh";
    let ark = ark().await?;
    let endpoint = ark.cluster.expose(world::s3().await?.url())?;
    bucket().await?;
    install(ark, MESH, &storage("mesh", &endpoint), IMAGE, "").await?;
    let certificates = tempfile::tempdir()?;
    let (webhook, sidecar) = Webhook::start(certificates.path()).await?;
    let url = ark.cluster.expose(&webhook)?;
    let authority = std::fs::read(certificates.path().join("ca.crt"))?;
    apply(
        &ark.cluster,
        &json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "mesh.example.com"},
        "webhooks": [{
            "name": "mesh.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MESH}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "clientConfig": {"url": url, "caBundle": k8s_openapi::ByteString(authority)},
        }]}),
    )?;
    let ran = async |name: &str| -> Result<Value> {
        let line = format!("backup create {name} -n mesh --include-namespaces mesh --wait");
        ark.expect(0, &line).await?;
        pod(ark, MESH, &format!("backup-{name}"))
    };
    let containers = |pod: &Value, kind: &str| {
        let all = pod["spec"][kind].as_array().into_iter().flatten();
        all.filter(|one| one["name"] == "sidecar").count()
    };
    // As Istio: pods say that they want none, and get none.
    let pod_without = ran("without").await?;
    ensure!(containers(&pod_without, "containers") == 0, "{pod_without}");
    // A mesh that asks nobody, with a sidecar as Kubernetes has them: it ends with the pod.
    *sidecar.lock().expect("nobody panics with it") = Sidecar::Native;
    let pod_native = ran("native").await?;
    ensure!(
        containers(&pod_native, "initContainers") == 1,
        "{pod_native}"
    );
    wait_until(
        "the Job to be complete",
        Duration::from_secs(120),
        async || {
            let job = kubectl(
                &ark.cluster,
                "get job backup-native -n mesh -o jsonpath={.status.succeeded}",
            )?;
            Ok((job == "1").then_some(()))
        },
    )
    .await?;
    // A mesh whose sidecar never ends: neither does the Job, but nobody waits for that.
    *sidecar.lock().expect("nobody panics with it") = Sidecar::Plain;
    let line = "backup create plain -n mesh --include-namespaces mesh --wait";
    let said = ark.expect(0, line).await?;
    let warned = ["container sidecar of pod/backup-plain-", "native sidecars"];
    ensure!(
        warned.iter().all(|one| said.stderr.contains(one)),
        "{said:?}"
    );
    ensure!(said.stdout.contains("backup plain completed"), "{said:?}");
    let ended = "get job backup-plain -n mesh -o jsonpath={.status.conditions}";
    let ended = kubectl(&ark.cluster, ended)?;
    ensure!(ended.is_empty(), "the Job has ended: {ended}");
    let log = ark.expect(0, "backup logs plain -n mesh -f").await?;
    ensure!(log.stderr.contains(warned[0]), "{log:?}");
    let status = ark.expect(1, "status -n mesh").await?;
    ensure!(status.stdout.contains(warned[0]), "{status:?}");
    ensure!(!status.stdout.contains("Running:    backup"), "{status:?}");
    let uninstall = ark.expect(0, "uninstall -n mesh --dry-run").await?;
    ensure!(uninstall.stdout.contains("backup-plain"), "{uninstall:?}");
    // One that keeps no record.
    let deleted = ark
        .expect(0, "backup delete plain -n mesh --wait --yes")
        .await?;
    ensure!(
        deleted.stderr.contains("container sidecar of pod/"),
        "{deleted:?}"
    );
    let webhook = "delete mutatingwebhookconfiguration mesh.example.com";
    kubectl(&ark.cluster, webhook).map(drop)
}

/// What the webhook puts into pods.
#[derive(Clone, Copy)]
enum Sidecar {
    /// A container that never ends, unless the pod's annotation says that it wants none.
    IfWanted,
    /// An init container that is always restarted.
    Native,
    /// A container that never ends, whatever the pod says.
    Plain,
}

/// An admission webhook.
struct Webhook;

impl Webhook {
    /// Starts it with a certificate of an authority in the directory; gives its URL, and what it does.
    async fn start(directory: &Path) -> Result<(String, Arc<Mutex<Sidecar>>)> {
        certificates::write(directory)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from_pem_file(directory.join("apiserver.crt"))?;
        let key = PrivateKeyDer::from_pem_file(directory.join("apiserver.key"))?;
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let sidecar = Arc::new(Mutex::new(Sidecar::IfWanted));
        let what = sidecar.clone();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("https://{}", listener.local_addr()?);
        background::spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, what) = (acceptor.clone(), what.clone());
                background::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request| {
                        let what = *what.lock().expect("nobody panics with it");
                        review(request, what)
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok((url, sidecar))
    }
}

async fn review(
    request: Request<Incoming>,
    sidecar: Sidecar,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let pod = &review["request"]["object"];
    let mut container = json!({
        "name": "sidecar", "image": images::BUSYBOX, "imagePullPolicy": "Never",
        // As a mesh's does it, it ends when it is told to.
        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"}},
    });
    let patch = match sidecar {
        Sidecar::IfWanted
            if pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false" =>
        {
            json!([])
        }
        Sidecar::IfWanted | Sidecar::Plain => {
            json!([{"op": "add", "path": "/spec/containers/-", "value": container}])
        }
        Sidecar::Native => {
            container["restartPolicy"] = json!("Always");
            json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}])
        }
    };
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
        "patch": k8s_openapi::ByteString(patch.to_string().into_bytes()),
    }});
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
