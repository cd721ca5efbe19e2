//! What is measured with: objects made once by the API server, kept as a data directory of etcd in the cache.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ark_tests::{ControlPlane, Options, cache};
use futures::stream::{self, TryStreamExt};
use http::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Requests at once: what the API server takes at most on two cores.
const CREATORS: usize = 32;
/// Namespaces that config maps of one size are spread over.
const NAMESPACES: usize = 4;
/// The namespace of a [`Load::Partial`] that is restored alone, and how many objects it has.
pub const FEW: &str = "few";
const FEW_OBJECTS: usize = 2_000;
/// Namespaces of a mixture.
const MIXED_NAMESPACES: usize = 40;
/// Length of a large object: etcd refuses requests of more than 1.5 MiB.
const LARGE: usize = 1_400_000;

/// Changes when the objects do, so that those in the cache are made anew.
const DATA_VERSION: &str = "2";

/// Which objects, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Config maps of about 1 KB of data in four namespaces.
    ConfigMaps(usize),
    /// Config maps, secrets, deployments and custom resources of various sizes in forty namespaces.
    Mixture(usize),
    /// The same, but for 2,000 in a namespace of their own.
    Partial(usize),
    /// Custom resources of 1.4 MB, which is near the largest that etcd takes.
    Large(usize),
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = thousands(self.objects());
        match self {
            Load::ConfigMaps(_) => write!(out, "{number} config maps of 1 KB"),
            Load::Partial(_) => write!(
                out,
                "{} of {number} config maps of 1 KB",
                thousands(FEW_OBJECTS)
            ),
            Load::Mixture(_) => write!(out, "{number} objects, a mixture"),
            Load::Large(_) => write!(out, "{number} objects of 1.4 MB"),
        }
    }
}

/// What the API server answers lists of a fixed revision from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// etcd: before Kubernetes 1.34 always, and after that for types that nobody has written to since the last
    /// compactions, some ten minutes.
    Etcd,
    /// Its watch cache: since Kubernetes 1.34, for types that are being written to.
    Cache,
}

impl Source {
    /// Flags of the API server that fix this, which otherwise changes while one measures.
    pub fn flags(self) -> Vec<String> {
        let snapshots = self == Source::Cache;
        let gate = format!("--feature-gates=ListFromCacheSnapshot={snapshots}");
        match self {
            Source::Etcd => vec![gate],
            // A compaction would throw the snapshots away, since nobody writes here.
            Source::Cache => vec![gate, "--etcd-compaction-interval=0".to_owned()],
        }
    }
}

/// 60000 as 60,000.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::new();
    if first > 0 {
        groups.push(&digits[..first]);
    }
    let mut at = first;
    while at < digits.len() {
        groups.push(&digits[at..at + 3]);
        at += 3;
    }
    groups.join(",")
}

impl Load {
    /// How many objects are made.
    pub fn objects(self) -> usize {
        match self {
            Load::ConfigMaps(objects)
            | Load::Partial(objects)
            | Load::Mixture(objects)
            | Load::Large(objects) => objects,
        }
    }

    /// What lists may be answered from in this measurement.
    pub fn sources(self) -> Vec<Source> {
        match self {
            Load::ConfigMaps(objects) if objects <= 100_000 => vec![Source::Etcd, Source::Cache],
            _ => vec![Source::Etcd],
        }
    }

    /// The etcd data directory of a cluster with these objects.
    pub async fn data(self) -> Result<PathBuf> {
        let objects = self.objects().to_string();
        let hash = cache::hash(&[objects.as_bytes(), DATA_VERSION.as_bytes()]);
        let kind = match self {
            Load::ConfigMaps(_) => "",
            Load::Partial(_) => "partial-",
            Load::Mixture(_) => "mixture-",
            Load::Large(_) => "large-",
        };
        let directory = cache::directory().join(format!("bench-data-{kind}{objects}-{hash}"));
        if directory.join("data").exists() {
            return Ok(directory.join("data"));
        }
        eprintln!("making {self} (once) …");
        let cluster = ControlPlane::start(Options::default()).await?;
        self.fill(&cluster).await?;
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let unfinished = directory.join("unfinished");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        cluster.stop_and_save(&unfinished)?;
        std::fs::rename(&unfinished, directory.join("data"))?;
        Ok(directory.join("data"))
    }

    /// The namespaces that objects are in.
    pub fn namespaces(self) -> Vec<String> {
        let (number, few) = match self {
            Load::Mixture(_) => (MIXED_NAMESPACES, None),
            Load::ConfigMaps(_) | Load::Large(_) => (NAMESPACES, None),
            Load::Partial(_) => (NAMESPACES, Some(FEW.to_owned())),
        };
        let many = (0..number).map(|n| format!("load-{n}"));
        many.chain(few).collect()
    }

    /// The namespace of the `n`-th object, and it.
    pub fn object(self, n: usize) -> (String, Made) {
        match self {
            Load::ConfigMaps(_) => (format!("load-{}", n % NAMESPACES), config_map(n)),
            Load::Partial(objects) if n + FEW_OBJECTS >= objects => (FEW.into(), config_map(n)),
            Load::Partial(_) => (format!("load-{}", n % NAMESPACES), config_map(n)),
            Load::Mixture(_) => (format!("load-{}", n % MIXED_NAMESPACES), mixed(n)),
            Load::Large(_) => (format!("load-{}", n % NAMESPACES), large(n)),
        }
    }

    /// Makes what objects need: their namespaces, and the type of custom resources.
    pub async fn make_room(self, cluster: &ControlPlane) -> Result<()> {
        let client = &cluster.client().await?;
        for name in self.namespaces() {
            let metadata = ObjectMeta {
                name: Some(name),
                ..ObjectMeta::default()
            };
            let namespace = Namespace {
                metadata,
                ..Namespace::default()
            };
            Api::<Namespace>::all(client.clone())
                .create(&PostParams::default(), &namespace)
                .await?;
        }
        if matches!(self, Load::Mixture(_) | Load::Large(_)) {
            define_widgets(cluster)?;
        }
        Ok(())
    }

    async fn fill(self, cluster: &ControlPlane) -> Result<()> {
        self.make_room(cluster).await?;
        let client = &cluster.client().await?;
        stream::iter((0..self.objects()).map(Ok::<usize, anyhow::Error>))
            .try_for_each_concurrent(CREATORS, |n| async move {
                let (namespace, made) = self.object(n);
                create(client, &namespace, made).await
            })
            .await
    }
}

/// Where a type's objects are created, and an object.
pub type Made = (&'static str, &'static str, Value);

async fn create(client: &Client, namespace: &str, (root, plural, object): Made) -> Result<()> {
    let request = Request::post(format!("{root}/namespaces/{namespace}/{plural}"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

/// The custom resource type of mixtures and of large objects.
fn define_widgets(cluster: &ControlPlane) -> Result<()> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.bench.example.com"},
        "spec": {
            "group": "bench.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    cluster.kubectl_with_input(&["create", "-f", "-"], &definition.to_string())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/widgets.bench.example.com",
        "--timeout=30s",
    ])?;
    // Established is a little before served.
    cluster.kubectl(&["get", "widgets.bench.example.com", "--all-namespaces"])?;
    Ok(())
}

/// Text that does not compress, of that length; the same for the same `n`.
fn noise(n: usize, length: usize) -> String {
    (0..)
        .flat_map(|block: usize| {
            cache::hash(&[&n.to_le_bytes(), &block.to_le_bytes()]).into_bytes()
        })
        .map(char::from)
        .take(length)
        .collect()
}

/// Text as configuration has it, of about that length.
fn settings(length: usize) -> String {
    let lines = "server:\n  port: 8080\n  host: example.com\n  timeout: 30s\n";
    lines.repeat(length.div_ceil(lines.len()))
}

/// The `n`-th object of a mixture: of ten, four config maps, three secrets, two deployments and a custom resource.
fn mixed(n: usize) -> Made {
    let labels = json!({"app": format!("app-{}", n % 50), "app.kubernetes.io/managed-by": "Helm"});
    let metadata = json!({"name": format!("object-{n:07}"), "labels": labels});
    match n / MIXED_NAMESPACES % 10 {
        0..4 => (
            "/api/v1",
            "configmaps",
            json!({"metadata": metadata, "data": {
                "application.yaml": settings(500 + n % 7 * 500), "checksum": noise(n, 64),
            }}),
        ),
        4..7 => (
            "/api/v1",
            "secrets",
            json!({"metadata": metadata, "type": "Opaque", "stringData": {
                "password": noise(n, 32), "tls.key": noise(n + 1, 1700), "user": "service",
            }}),
        ),
        7..9 => ("/apis/apps/v1", "deployments", deployment(n, metadata)),
        _ => (
            "/apis/bench.example.com/v1",
            "widgets",
            json!({"apiVersion": "bench.example.com/v1", "kind": "Widget", "metadata": metadata, "spec": {
                "size": n % 10, "text": settings(800), "key": noise(n, 200),
                "rules": (0..5).map(|rule| json!({"host": format!("h{rule}.example.com"), "port": 8000 + rule})).collect::<Vec<_>>(),
            }}),
        ),
    }
}

fn deployment(n: usize, metadata: Value) -> Value {
    let labels = json!({"app": format!("app-{}", n % 50)});
    let environment: Vec<Value> = (0..12)
        .map(|variable| json!({"name": format!("VARIABLE_{variable}"), "value": noise(n + variable, 24)}))
        .collect();
    json!({"metadata": metadata, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
            "name": "server", "image": format!("registry.example.com/app-{}:{}", n % 50, n % 9), "env": environment,
            "ports": [{"containerPort": 8080, "name": "http"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            "volumeMounts": [{"name": "settings", "mountPath": "/etc/app"}],
        }], "volumes": [{"name": "settings", "configMap": {"name": "settings"}}]}},
    }})
}

/// A large object: half of it compresses.
fn large(n: usize) -> Made {
    let data: BTreeMap<String, String> = BTreeMap::from([
        ("noise".to_owned(), noise(n, LARGE / 2)),
        ("settings".to_owned(), settings(LARGE / 2)),
    ]);
    let object = json!({"apiVersion": "bench.example.com/v1", "kind": "Widget",
        "metadata": {"name": format!("large-{n:07}")}, "spec": data});
    ("/apis/bench.example.com/v1", "widgets", object)
}

/// A config map of about 1 KB, half of it lines that compress well and half of it digits that do not.
fn config_map(n: usize) -> Made {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("cm-{n:07}"), "labels": {"app": format!("app-{}", n % 50)}},
        "data": {"application.yaml": settings(512), "token": noise(n, 512)},
    });
    ("/api/v1", "configmaps", object)
}
