//! What goes into a backup: a table of filters over one cluster, and the exact set of objects that each must give.
//!
//! The cases are those of Velero's own tests (old-family filters, namespaces, additional items), as far as they apply.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, Options};
use libtest_mimic::Trial;

use crate::backup::read;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "selection::every_filter_takes_exactly_what_it_says",
            filters,
        ),
        scenario(
            "selection::an_unknown_type_is_refused_before_anything_is_written",
            unknown_type,
        ),
        scenario(
            "selection::a_group_whose_server_is_down_makes_it_partial_unless_ignored",
            undiscoverable,
        ),
        scenario(
            "selection::a_volume_without_a_snapshot_is_named_as_strongly_as_asked",
            snapshots,
        ),
    ]
}

/// Two applications and what they need of the cluster, and things that must stay out.
const FIXTURE: &str = r#"
{kind: Namespace, apiVersion: v1, metadata: {name: foo}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: bar, labels: {a: b}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: empty}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: left-out, labels: {velero.io/exclude-from-backup: "true"}}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: inside, namespace: left-out, labels: {a: b}}}
---
{kind: PriorityClass, apiVersion: scheduling.k8s.io/v1, metadata: {name: gold}, value: 5}
---
{kind: PriorityClass, apiVersion: scheduling.k8s.io/v1, metadata: {name: tin}, value: 1}
---
{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: foo, labels: {a: b}}, spec: {priorityClassName: gold,
  containers: [{name: c, image: i}], volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}
---
{kind: PersistentVolumeClaim, apiVersion: v1, metadata: {name: data, namespace: foo}, spec: {volumeName: pv-foo,
  storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{kind: PersistentVolumeClaim, apiVersion: v1, metadata: {name: lost, namespace: foo}, spec: {volumeName: pv-gone,
  storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
{kind: Deployment, apiVersion: apps/v1, metadata: {name: api, namespace: foo, labels: {c: d}}, spec: {replicas: 0,
  selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: i}]}}}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: excluded, namespace: foo, labels: {velero.io/exclude-from-backup: "true", a: b}}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: excluded-by-ark, namespace: foo, labels: {ark.heptio.com/exclude-from-backup: "true"}}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: kept, namespace: foo, labels: {velero.io/exclude-from-backup: "1"}}}
---
{kind: ConfigMap, apiVersion: v1, metadata: {name: going, namespace: foo, finalizers: [example.com/wait]}}
---
{kind: ServiceAccount, apiVersion: v1, metadata: {name: runner, namespace: foo}}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: "role:of-foo"}, rules: []}
---
{kind: ClusterRoleBinding, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: to-foo},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "role:of-foo"},
  subjects: [{kind: ServiceAccount, name: runner, namespace: foo}]}
---
{kind: ClusterRole, apiVersion: rbac.authorization.k8s.io/v1, metadata: {name: "role:of-nobody"}, rules: []}
---
{kind: Deployment, apiVersion: apps/v1, metadata: {name: api, namespace: bar, labels: {a: b, c: d}}, spec: {replicas: 0,
  selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: i}]}}}}
---
{kind: PersistentVolume, apiVersion: v1, metadata: {name: pv-foo}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce],
  hostPath: {path: /a}, claimRef: {namespace: foo, name: data}}}
---
{kind: PersistentVolume, apiVersion: v1, metadata: {name: pv-free, labels: {a: b}}, spec: {capacity: {storage: 1Gi},
  accessModes: [ReadWriteOnce], hostPath: {path: /b}}}
---
{kind: CustomResourceDefinition, apiVersion: apiextensions.k8s.io/v1, metadata: {name: things.example.com}, spec: {group: example.com,
  scope: Namespaced, names: {plural: things, kind: Thing, shortNames: [thg]}, versions: [{name: v1, served: true, storage: true,
  schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}
---
{kind: CustomResourceDefinition, apiVersion: apiextensions.k8s.io/v1, metadata: {name: unused.example.com}, spec: {group: example.com,
  scope: Cluster, names: {plural: unused, kind: Unused}, versions: [{name: v1, served: true, storage: true,
  schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}
"#;

const THING: &str =
    "{kind: Thing, apiVersion: example.com/v1, metadata: {name: one, namespace: foo}}";

/// What each object of the fixture is called here, and its line.
const OBJECTS: &[(&str, &str)] = &[
    ("ns-foo", "namespaces - foo"),
    ("ns-bar", "namespaces - bar"),
    ("ns-empty", "namespaces - empty"),
    ("gold", "priorityclasses.scheduling.k8s.io - gold"),
    ("tin", "priorityclasses.scheduling.k8s.io - tin"),
    ("web", "pods foo web"),
    ("data", "persistentvolumeclaims foo data"),
    ("lost", "persistentvolumeclaims foo lost"),
    ("api-foo", "deployments.apps foo api"),
    ("api-bar", "deployments.apps bar api"),
    ("kept", "configmaps foo kept"),
    ("runner", "serviceaccounts foo runner"),
    (
        "role",
        "clusterroles.rbac.authorization.k8s.io - role:of-foo",
    ),
    (
        "role-of-nobody",
        "clusterroles.rbac.authorization.k8s.io - role:of-nobody",
    ),
    (
        "binding",
        "clusterrolebindings.rbac.authorization.k8s.io - to-foo",
    ),
    ("pv-foo", "persistentvolumes - pv-foo"),
    ("pv-free", "persistentvolumes - pv-free"),
    (
        "crd",
        "customresourcedefinitions.apiextensions.k8s.io - things.example.com",
    ),
    (
        "crd-unused",
        "customresourcedefinitions.apiextensions.k8s.io - unused.example.com",
    ),
    ("thing", "things.example.com foo one"),
];

/// Everything of namespace foo.
const FOO: &[&str] = &["web", "data", "lost", "api-foo", "kept", "runner", "thing"];
/// What foo needs of the cluster.
const NEEDED: &[&str] = &["gold", "role", "binding", "pv-foo", "crd"];

struct Case {
    name: &'static str,
    flags: &'static [&'static str],
    /// Sets of objects that must be in the backup; nothing else may.
    expected: &'static [&'static [&'static str]],
}

const fn case(
    name: &'static str,
    flags: &'static [&'static str],
    expected: &'static [&'static [&'static str]],
) -> Case {
    Case {
        name,
        flags,
        expected,
    }
}

const ALL_CLUSTER: &[&str] = &[
    "ns-foo",
    "ns-bar",
    "ns-empty",
    "tin",
    "role-of-nobody",
    "pv-free",
    "crd-unused",
];

const CASES: &[Case] = &[
    case(
        "a01-everything",
        &[],
        &[FOO, NEEDED, ALL_CLUSTER, &["api-bar"]],
    ),
    case(
        "a02-types",
        &["--include-resources", "po,pv"],
        &[&["web", "pv-foo", "pv-free"]],
    ),
    case(
        "a02-kind-and-short",
        &[
            "--include-resources",
            "Deployment,thg",
            "--include-namespaces",
            "foo",
        ],
        &[&["api-foo", "thing", "crd"]],
    ),
    case(
        "a02-glob",
        &["--include-resources", "*.apps,namespaces"],
        &[&["api-foo", "api-bar", "ns-foo", "ns-bar", "ns-empty"]],
    ),
    case(
        "a03-exclude",
        &[
            "--exclude-resources",
            "deployments.apps",
            "--include-namespaces",
            "bar",
        ],
        &[&["ns-bar"]],
    ),
    case(
        "a04-a14-a26-a31-e17-one-namespace",
        &["--include-namespaces", "foo"],
        &[FOO, NEEDED, &["ns-foo"]],
    ),
    case(
        "a05-exclude-namespace",
        &["--exclude-namespaces", "foo"],
        &[&["ns-bar", "ns-empty", "api-bar"]],
    ),
    case(
        "a06-a16-a29-namespaced-only",
        &["--include-cluster-resources=false"],
        &[FOO, &["api-bar"]],
    ),
    case(
        "a12-a33-all-cluster-scoped",
        &["--include-namespaces", "bar", "--include-cluster-resources"],
        &[
            NEEDED,
            &[
                "ns-bar",
                "api-bar",
                "tin",
                "role-of-nobody",
                "pv-free",
                "crd-unused",
            ],
        ],
    ),
    case(
        "a13-a32-no-cluster-scoped",
        &[
            "--include-namespaces",
            "foo",
            "--include-cluster-resources=false",
        ],
        &[FOO],
    ),
    case(
        "a27-definitions-excluded",
        &["--include-namespaces", "foo", "--exclude-resources", "crd"],
        &[FOO, &["gold", "role", "binding", "pv-foo", "ns-foo"]],
    ),
    // The pod brings its claim and that its volume, whatever their labels; a01 of Velero's table C: so does its namespace come.
    case(
        "a07-a10-c01-labels",
        &["--selector", "a=b"],
        &[&[
            "web", "data", "pv-foo", "gold", "pv-free", "api-bar", "ns-foo", "ns-bar",
        ]],
    ),
    case(
        "c03-labels-in-a-namespace",
        &["-l", "a=b", "--include-namespaces", "foo"],
        &[&["web", "data", "pv-foo", "gold", "ns-foo"]],
    ),
    case(
        "set-based-labels",
        &["-l", "c in (d,e),a notin (b)"],
        &[&["api-foo", "ns-foo"]],
    ),
    case(
        "a08-c02-either-label",
        &["--or-selector", "a=b", "--or-selector", "c"],
        &[&[
            "web", "data", "pv-foo", "gold", "pv-free", "api-foo", "api-bar", "ns-foo", "ns-bar",
        ]],
    ),
    case(
        "a08-in-veleros-notation",
        &[
            "--or-selector",
            "a=b or c=d",
            "--include-resources",
            "pods,deploy",
        ],
        &[&["web", "api-foo", "api-bar"]],
    ),
    case(
        "e18-labels-and-types",
        &["-l", "a=b", "--include-resources", "pods"],
        &[&["web"]],
    ),
    case(
        "c05-no-namespace-matches",
        &["--include-namespaces", "invalid*"],
        &[],
    ),
    case(
        "glob-of-namespaces",
        &["--include-namespaces", "?ar,em[a-p]ty"],
        &[&["ns-bar", "api-bar", "ns-empty"]],
    ),
    case(
        "c16-labelled-namespace",
        &["--include-namespaces", "left-out,empty"],
        &[&["ns-empty"]],
    ),
];

async fn start() -> Result<ControlPlane> {
    let cluster = ControlPlane::start(Options::default()).await?;
    cluster.kubectl_with_input(&["apply", "--server-side", "-f", "-"], FIXTURE)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/things.example.com",
        "--timeout=30s",
    ])?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], THING)?;
    cluster.kubectl(&["delete", "configmap", "going", "-n", "foo", "--wait=false"])?;
    Ok(cluster)
}

/// A backup in a directory, and the status that its marker records.
struct Made {
    names: BTreeSet<String>,
    status: serde_json::Value,
    spec: serde_json::Value,
    finished: Finished,
}

async fn backup(
    cluster: &ControlPlane,
    directory: &Path,
    name: &str,
    flags: &[&str],
    code: i32,
) -> Result<Made> {
    let storage = format!("file://{}", directory.display());
    let arguments = [&["backup", name, "--storage", &storage], flags].concat();
    let finished = ArkJob::new(cluster.kubeconfig(), &arguments)
        .expect(code)
        .await?;
    let stored = directory.join("backups").join(name);
    let names = read(&stored)?;
    let marker: serde_json::Value =
        serde_json::from_slice(&std::fs::read(stored.join("ark-backup.json"))?)?;
    Ok(Made {
        names,
        status: marker["status"].clone(),
        spec: marker["spec"].clone(),
        finished,
    })
}

fn texts(status: &serde_json::Value) -> String {
    status["messages"].to_string()
}

async fn filters() -> Result<()> {
    let cluster = start().await?;
    let directory = tempfile::tempdir()?;
    let line = |name: &str| {
        let object = OBJECTS.iter().find(|(known, _)| *known == name);
        object.expect("it is in the table").1
    };
    let known: BTreeSet<&str> = OBJECTS.iter().map(|(_, line)| *line).collect();
    // The cluster's own objects may be there or not; but nothing of our namespaces that the table does not know.
    let ours = |name: &&str| {
        let spaces = [" foo ", " bar ", " empty ", " left-out ", "- left-out"];
        known.contains(name) || spaces.iter().any(|space| name.contains(space))
    };
    let mut wrong = Vec::new();
    for Case {
        name,
        flags,
        expected,
    } in CASES
    {
        let made = backup(&cluster, directory.path(), name, flags, 0).await?;
        let found: BTreeSet<&str> = made.names.iter().map(String::as_str).filter(ours).collect();
        let expected: BTreeSet<&str> = expected
            .iter()
            .copied()
            .flatten()
            .map(|object| line(object))
            .collect();
        if found != expected {
            let missing: Vec<_> = expected.difference(&found).collect();
            let extra: Vec<_> = found.difference(&expected).collect();
            wrong.push(format!(
                "{name} {flags:?}: missing {missing:?}, too many {extra:?}"
            ));
        }
        let said = texts(&made.status);
        if *name == "a04-a14-a26-a31-e17-one-namespace" {
            // excluded, excluded-by-ark, going
            ensure!(made.status["skipped"] == 3, "{:#}", made.status);
            let text = "pv-gone, which persistentvolumeclaims foo/lost is bound to, does not exist";
            ensure!(said.contains(text), "{said}");
        }
        if *name == "c05-no-namespace-matches" {
            ensure!(said.contains("no namespace matches invalid*"), "{said}");
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // C13: a namespace that was named and is not there is missing from the backup, beside a glob, too.
    let flags = ["--include-namespaces", "ba*,nowhere"];
    let made = backup(&cluster, directory.path(), "c13", &flags, 3).await?;
    let said = texts(&made.status);
    ensure!(
        said.contains("namespace nowhere was asked for but does not exist"),
        "{said}"
    );
    ensure!(made.names.contains("deployments.apps bar api"));
    Ok(())
}

async fn unknown_type() -> Result<()> {
    let cluster = start().await?;
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds/backups.yaml");
    cluster.kubectl_with_input(
        &["apply", "-f", "-"],
        &std::fs::read_to_string(definitions)?,
    )?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    for (flag, types) in [
        ("--include-resources", "pods,deploymets"),
        ("--exclude-resources", "x.example.com"),
    ] {
        let arguments = ["backup", "wrong", "--storage", &storage, flag, types];
        let refused = ArkJob::new(cluster.kubeconfig(), &arguments)
            .expect(2)
            .await?;
        let unknown = types.rsplit(',').next().unwrap_or_default();
        let text = format!("{flag}: no resource type is called {unknown}");
        ensure!(refused.stderr.contains(&text), "{refused:?}");
    }
    let records = cluster.kubectl(&["get", "backups.ark.heptio.com", "-A", "-o", "name"])?;
    ensure!(records.trim().is_empty(), "a record was written: {records}");
    ensure!(
        std::fs::read_dir(directory.path())?.next().is_none(),
        "storage was written to"
    );
    Ok(())
}

/// An APIService with nothing behind it.
const DOWN: &str = r#"
{kind: Service, apiVersion: v1, metadata: {name: down, namespace: default}, spec: {type: ExternalName, externalName: localhost, ports: [{port: 9}]}}
---
{kind: APIService, apiVersion: apiregistration.k8s.io/v1, metadata: {name: v1.down.example.com}, spec: {group: down.example.com, version: v1,
  service: {name: down, namespace: default, port: 9}, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}}
---
{kind: APIService, apiVersion: apiregistration.k8s.io/v1, metadata: {name: v1beta1.metrics.k8s.io}, spec: {group: metrics.k8s.io, version: v1beta1,
  service: {name: down, namespace: default, port: 9}, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}}
"#;

async fn undiscoverable() -> Result<()> {
    let cluster = start().await?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], DOWN)?;
    // Until the aggregator knows the group, there is nothing that could be missing.
    let served = async || {
        let groups = cluster.kubectl(&["get", "--raw", "/apis"])?;
        Ok(groups.contains("down.example.com").then_some(()))
    };
    let timeout = std::time::Duration::from_secs(30);
    ark_tests::wait_until("the group is served", timeout, served).await?;
    let directory = tempfile::tempdir()?;
    let made = backup(
        &cluster,
        directory.path(),
        "partial",
        &["--include-namespaces", "foo"],
        3,
    )
    .await?;
    let text = "down.example.com/v1 cannot be discovered, so its objects are missing";
    ensure!(
        made.status["phase"] == "PartiallyFailed" && made.status["errors"] == 1,
        "{:#}",
        made.status
    );
    ensure!(
        texts(&made.status).contains(text) && made.finished.stderr.contains(text),
        "{:#}\n{:?}",
        made.status,
        made.finished
    );
    ensure!(
        !texts(&made.status).contains("metrics"),
        "there is nothing to back up in metrics.k8s.io: {:#}",
        made.status
    );
    let flags = [
        "--include-namespaces",
        "foo",
        "--ignore-undiscoverable",
        "down.example.com",
    ];
    let made = backup(&cluster, directory.path(), "ignored", &flags, 0).await?;
    ensure!(
        made.status["phase"] == "Completed" && texts(&made.status).contains(text),
        "{:#}",
        made.status
    );
    ensure!(
        made.spec["ignoreUndiscoverable"] == serde_json::json!(["down.example.com"]),
        "{:#}",
        made.spec
    );
    // A type of such a group cannot be told from a type that does not exist: the hint says so.
    let storage = format!("file://{}", directory.path().display());
    let refused = ArkJob::new(
        cluster.kubeconfig(),
        &[
            "backup",
            "wrong",
            "--storage",
            &storage,
            "--include-resources",
            "x.down.example.com",
        ],
    )
    .expect(2)
    .await?;
    ensure!(
        refused.stderr.contains("hint: down.example.com/v1"),
        "{refused:?}"
    );
    Ok(())
}

async fn snapshots() -> Result<()> {
    let cluster = start().await?;
    let directory = tempfile::tempdir()?;
    let text = "persistentvolumes pv-foo (claim foo/data) has no snapshot";
    for (name, flag, code, warnings, errors) in [
        ("auto", None, 0, 1, 0),
        ("wanted", Some("--snapshot-volumes"), 3, 0, 1),
        ("unwanted", Some("--snapshot-volumes=false"), 0, 0, 0),
    ] {
        let mut flags = vec!["--include-namespaces", "foo", "-l", "a=b"];
        flags.extend(flag);
        let made = backup(&cluster, directory.path(), name, &flags, code).await?;
        ensure!(
            made.status["warnings"] == warnings && made.status["errors"] == errors,
            "{name}: {:#}",
            made.status
        );
        ensure!(
            texts(&made.status).contains(text) == (warnings + errors == 1),
            "{name}: {:#}",
            made.status
        );
        ensure!(
            made.names.contains("persistentvolumes - pv-foo"),
            "{name}: the volume itself is missing"
        );
    }
    Ok(())
}
