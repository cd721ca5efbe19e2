//! Looking into a backup and comparing it: `ark-job show` and `ark-job diff`, with kubectl and Python as witnesses.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ark_tests::foreign::{ForeignBackup, Maker};
use ark_tests::job::program;
use ark_tests::{FaultProxy, s3};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "diff::a_shown_object_is_applied_by_kubectl_and_is_the_same_again",
            shown_and_applied,
        ),
        scenario(
            "diff::one_object_costs_marker_footer_and_one_member",
            one_ranged_read,
        ),
        scenario(
            "diff::what_is_not_there_is_10_and_tells_of_near_misses",
            near_misses,
        ),
        scenario(
            "diff::the_cluster_is_the_same_until_something_changes",
            against_the_cluster,
        ),
        scenario(
            "diff::two_backups_are_compared_without_a_cluster",
            two_backups,
        ),
        scenario("diff::a_failure_is_above_1", failures),
        scenario(
            "diff::what_is_in_no_order_is_compared_with_the_rights_of_a_backup",
            with_the_rights_of_a_backup,
        ),
    ]
}

/// How `ark-job` ended, and what it printed.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn expect(self, code: i32) -> Result<Said> {
        let Said {
            code: found,
            stdout,
            stderr,
        } = &self;
        ensure!(
            *found == Some(code),
            "exit {found:?}, expected {code}\n{stderr}\n{stdout}"
        );
        Ok(self)
    }
}

/// `ark-job`, on the cluster of this kubeconfig if there is one.
async fn ark_job(kubeconfig: Option<&std::path::Path>, arguments: &[&str]) -> Result<Said> {
    let mut command = tokio::process::Command::new(program("ark-job")?);
    command
        .args(arguments)
        .env_clear()
        .envs(s3::environment())
        .env("TMPDIR", std::env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.output().await?;
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A namespace of the shared cluster, and a directory as storage.
struct Place {
    world: World,
    namespace: String,
    _directory: tempfile::TempDir,
    storage: String,
}

impl Place {
    async fn new(hint: &str) -> Result<Place> {
        let world = World::new(hint).await?;
        let namespace = world.namespace("app").await?;
        let directory = tempfile::tempdir()?;
        Ok(Place {
            storage: format!("--storage=file://{}", directory.path().display()),
            _directory: directory,
            namespace,
            world,
        })
    }

    async fn run(&self, arguments: &[&str]) -> Result<Said> {
        let kubeconfig = self.world.cluster.kubeconfig();
        ark_job(Some(kubeconfig), &[arguments, &[&self.storage]].concat()).await
    }

    async fn without_cluster(&self, arguments: &[&str]) -> Result<Said> {
        ark_job(None, &[arguments, &[&self.storage]].concat()).await
    }

    async fn back_up(&self, name: &str) -> Result<()> {
        let namespaces = format!("--include-namespaces={}", self.namespace);
        self.run(&["backup", name, &namespaces]).await?.expect(0)?;
        Ok(())
    }

    fn apply(&self, manifest: &str) -> Result<String> {
        let line = ["apply", "--server-side", "-n", &self.namespace, "-f", "-"];
        self.world.cluster.kubectl_with_input(&line, manifest)
    }

    fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let namespace = ["-n", &self.namespace];
        self.world
            .cluster
            .kubectl(&[&words[..], &namespace].concat())
    }
}

/// Texts that a YAML 1.1 reader takes for something else, or that lose white space.
fn tricky() -> Value {
    json!({
        "yes": "yes", "number": "1e3", "octal": "0o7", "null": "null", "tilde": "~", "date": "2026-11-23", "sexagesimal": "12:30:00",
        "lines": "one\n  two\n\nthree\n", "no-end": "one\ntwo", "many-ends": "one\n\n\n", "leading": "\n  one\n", "trailing": "one  ",
        "trailing-lines": "one  \ntwo\t\n", "tab": "\tone", "windows": "one\r\ntwo\r\n", "unicode": "ä 日本 😀", "colon": "a: b #c",
        "next-line": "a\u{85}b\u{2028}c", "document": "a\n---\nb\n", "empty": "", "long": "word ".repeat(100),
    })
}

const DEPLOYMENT: &str = r#"
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 1, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i, args: ["yes", "1e3"]}]}}}}
"#;

async fn shown_and_applied() -> Result<()> {
    let place = Place::new("show").await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tricky", "labels": {"on": "yes"}}, "data": tricky()});
    place.apply(&map.to_string())?;
    place.apply(DEPLOYMENT)?;
    place.back_up("b").await?;
    let namespace = &place.namespace;
    for (asked, kind) in [
        ("cm/tricky", "configmap/tricky"),
        ("deploy/web", "deployment/web"),
    ] {
        let shown = place
            .without_cluster(&["show", "b", &format!("{namespace}/{asked}")])
            .await?
            .expect(0)?;
        let before: Value = serde_json::from_str(&place.kubectl(&format!("get {kind} -o json"))?)?;
        place.kubectl(&format!("delete {kind} --wait"))?;
        // kubectl's own reader of YAML.
        let create = ["create", "-f", "-"];
        place
            .world
            .cluster
            .kubectl_with_input(&create, &shown.stdout)?;
        let after: Value = serde_json::from_str(&place.kubectl(&format!("get {kind} -o json"))?)?;
        for field in ["data", "spec", "kind", "apiVersion"] {
            ensure!(
                before[field] == after[field],
                "{kind}: {field} has changed:\n{}",
                shown.stdout
            );
        }
        ensure!(before["metadata"]["labels"] == after["metadata"]["labels"]);
    }
    // As stored.
    let object = format!("{namespace}/configmaps/tricky");
    let all = place
        .without_cluster(&["show", "b", &object, "--all-fields", "-o", "json"])
        .await?
        .expect(0)?;
    let stored: Value = serde_json::from_str(&all.stdout)?;
    ensure!(
        stored["metadata"]["uid"].is_string() && stored["metadata"]["managedFields"].is_array()
    );
    // What kubectl has made of it on the way in is not ours to judge.
    let live: Value = serde_json::from_str(&place.kubectl("get configmap/tricky -o json")?)?;
    ensure!(stored["data"] == live["data"], "{stored:#}\n{live:#}");
    // A second reader that is not ours, if there is one.
    let shown = place
        .without_cluster(&["show", "b", &object])
        .await?
        .expect(0)?;
    let script = "import sys, json\ntry:\n  import yaml\nexcept ImportError:\n  sys.exit(77)\njson.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(
        &mut python.stdin.take().context("standard input")?,
        shown.stdout.as_bytes(),
    )?;
    let output = python.wait_with_output()?;
    if output.status.code() != Some(77) {
        let mut read: Value = serde_json::from_slice(&output.stdout)?;
        let mut expected = tricky();
        // A line break in YAML 1.1, but not to kubectl.
        for side in [&mut read["data"], &mut expected] {
            side["next-line"] = Value::Null;
        }
        ensure!(read["data"] == expected, "{read:#}");
    }
    Ok(())
}

/// Of what is in no order, what is different is read again: with the right to list, and no other.
async fn with_the_rights_of_a_backup() -> Result<()> {
    let place = Place::new("lister").await?;
    let (cluster, namespace) = (place.world.cluster, &place.namespace);
    let map = |name: &str, colour: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"colour": colour}});
    let mut backup = ForeignBackup::new(Maker::Velero, "theirs");
    for name in ["z", "a"] {
        backup.object("configmaps", &map(name, "green"));
        place.apply(&map(name, "blue").to_string())?;
    }
    let root = place.storage.trim_start_matches("--storage=file://");
    backup.store(std::path::Path::new(root))?;
    place.kubectl("create serviceaccount lister")?;
    let role = format!("{namespace}-lister");
    cluster.kubectl(&[
        "create",
        "clusterrole",
        &role,
        "--verb=list",
        "--resource=*.*",
    ])?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        &role,
        &format!("--clusterrole={role}"),
        &format!("--serviceaccount={namespace}:lister"),
    ])?;
    let token = place.kubectl("create token lister")?;
    let text = cluster.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"])?;
    let mut config: Value = serde_json::from_str(&text)?;
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(kubeconfig.path(), config.to_string())?;
    let namespaces = format!("--include-namespaces={namespace}");
    let arguments = [
        "diff",
        "theirs",
        &namespaces,
        "--include-resources=cm",
        &place.storage,
    ];
    let said = ark_job(Some(kubeconfig.path()), &arguments)
        .await?
        .expect(1)?;
    ensure!(
        said.stdout.matches("-  colour: blue").count() == 2
            && said.stdout.matches("+  colour: green").count() == 2,
        "{}",
        said.stdout
    );
    Ok(())
}

async fn one_ranged_read() -> Result<()> {
    let world = World::new("one-read").await?;
    let namespace = world.namespace("app").await?;
    // Three members and more of configmaps.
    let random = "import base64,os; print(base64.b64encode(os.urandom(400_000)).decode())";
    for n in 0..8 {
        let text = ark_tests::process::output(Command::new("python3").args(["-c", random]))?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n}"), "namespace": namespace}, "data": {"text": text.trim()}});
        let line = ["apply", "--server-side", "-f", "-"];
        world.cluster.kubectl_with_input(&line, &map.to_string())?;
    }
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = format!("--storage={}", world.storage_at(proxy.url()));
    let namespaces = format!("--include-namespaces={namespace}");
    let kubeconfig = Some(world.cluster.kubeconfig());
    ark_job(kubeconfig, &["backup", "b", &namespaces, &storage])
        .await?
        .expect(0)?;
    proxy.clear_requests();
    let object = format!("{namespace}/configmaps/m5");
    let shown = ark_job(None, &["show", "b", &object, &storage])
        .await?
        .expect(0)?;
    ensure!(shown.stdout.contains("name: m5\n"), "{}", shown.stdout);
    let requests = proxy.requests();
    let gets: Vec<_> = requests
        .iter()
        .filter(|request| request.method == "GET")
        .collect();
    let ranged = gets
        .iter()
        .filter(|request| {
            request.path.ends_with(".tar.gz") && request.headers.contains_key("range")
        })
        .count();
    ensure!(gets.len() == 3 && ranged == 2, "{gets:#?}");
    let received: u64 = requests.iter().map(|request| request.received).sum();
    ensure!(received < 2 << 20, "{received} bytes");
    ensure!(!requests.iter().any(|request| request.is_write()));
    Ok(())
}

async fn near_misses() -> Result<()> {
    let place = Place::new("near").await?;
    place.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}")?;
    place.back_up("b").await?;
    let namespace = &place.namespace;
    let said = place
        .without_cluster(&["show", "b", "other/cm/settings"])
        .await?
        .expect(10)?;
    ensure!(said.stdout.is_empty());
    let hint = format!("hint: there is {namespace}/configmaps/settings");
    ensure!(said.stderr.contains(&hint), "{}", said.stderr);
    for (asked, code) in [
        ("settings".to_owned(), 2),
        ("cm/settings".to_owned(), 2),
        (format!("{namespace}/nothing/settings"), 10),
        (format!("{namespace}/cm/nothing"), 10),
    ] {
        place
            .without_cluster(&["show", "b", &asked])
            .await?
            .expect(code)?;
    }
    place
        .without_cluster(&["show", "nothing", "a/cm/b"])
        .await?
        .expect(10)?;
    Ok(())
}

const SETTINGS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: red, size: '7'}}\n\
    ---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: deleted}, data: {a: b}}\n\
    ---\n{apiVersion: v1, kind: Secret, metadata: {name: password}, data: {p: c2VjcmV0}}";

async fn against_the_cluster() -> Result<()> {
    let place = Place::new("diff").await?;
    place.apply(SETTINGS)?;
    place.apply(DEPLOYMENT)?;
    // The service account comes by itself a moment later.
    place.kubectl("wait --for=create serviceaccount/default configmap/kube-root-ca.crt")?;
    // What the controller notes on the deployment is there.
    place.kubectl("wait --for=jsonpath={.status.observedGeneration}=1 deployment/web")?;
    place.back_up("b").await?;
    // Pods come and go by themselves.
    let diff = ["diff", "b", "--exclude-resources=pods"];
    let same = place.run(&diff).await?.expect(0)?;
    ensure!(same.stdout.is_empty(), "{}", same.stdout);

    // What controllers write is no difference, unless it is asked for.
    place.kubectl("annotate serviceaccount/default passing=by")?;
    place.kubectl("annotate serviceaccount/default passing-")?;
    place.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: green, size: '7'}}")?;
    place.kubectl("delete configmap/deleted")?;
    place.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: added}, data: {c: d}}")?;
    place.apply("{apiVersion: v1, kind: Secret, metadata: {name: password}, data: {p: bmV3}}")?;
    let different = place.run(&diff).await?.expect(1)?;
    let n = &place.namespace;
    let secret = format!(
        "diff {n}/secrets/password\n\
         --- {n}/secrets/password (the cluster)\n\
         +++ {n}/secrets/password (backup b)\n\
         @@ -1,6 +1,6 @@\n apiVersion: v1\n data:\n\
         -  p: \"*** (before)\"\n\
         +  p: \"*** (after)\"\n kind: Secret\n metadata:\n   name: password\n"
    );
    let maps = format!(
        "diff {n}/configmaps/added: only in the cluster\n\
         --- {n}/configmaps/added (the cluster)\n\
         +++ /dev/null\n\
         @@ -1,7 +0,0 @@\n\
         -apiVersion: v1\n-data:\n-  c: d\n-kind: ConfigMap\n-metadata:\n-  name: added\n-  namespace: {n}\n\
         diff {n}/configmaps/deleted: only in backup b\n\
         --- /dev/null\n\
         +++ {n}/configmaps/deleted (backup b)\n\
         @@ -0,0 +1,7 @@\n\
         +apiVersion: v1\n+data:\n+  a: b\n+kind: ConfigMap\n+metadata:\n+  name: deleted\n+  namespace: {n}\n\
         diff {n}/configmaps/settings\n\
         --- {n}/configmaps/settings (the cluster)\n\
         +++ {n}/configmaps/settings (backup b)\n\
         @@ -1,6 +1,6 @@\n apiVersion: v1\n data:\n\
         -  colour: green\n\
         +  colour: red\n   size: \"7\"\n kind: ConfigMap\n metadata:\n"
    );
    ensure!(
        different.stdout == format!("{secret}{maps}"),
        "{}",
        different.stdout
    );
    ensure!(
        different
            .stderr
            .contains("2 objects have changed, 1 are only in the cluster, 1 only in backup b"),
        "{}",
        different.stderr
    );
    // A selection.
    let types = ["diff", "b", "--include-resources=deploy,sa"];
    ensure!(place.run(&types).await?.expect(0)?.stdout.is_empty());
    // Everything: the API server's own fields, too.
    let all = ["diff", "b", "--include-resources=cm", "--all-fields"];
    let all = place.run(&all).await?.expect(1)?;
    ensure!(all.stdout.contains("resourceVersion:"), "{}", all.stdout);
    Ok(())
}

async fn two_backups() -> Result<()> {
    let place = Place::new("two").await?;
    place.apply(SETTINGS)?;
    place.back_up("one").await?;
    let same = place
        .without_cluster(&["diff", "one", "one"])
        .await?
        .expect(0)?;
    ensure!(same.stdout.is_empty(), "{}", same.stdout);
    place.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: green, size: '7'}}")?;
    place.apply("{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: new}, spec: {minAvailable: 1}}")?;
    place.back_up("two").await?;
    let resources = "--include-resources=cm,pdb";
    let different = place
        .without_cluster(&["diff", "one", "two", resources])
        .await?
        .expect(1)?;
    let n = &place.namespace;
    for part in [
        "-  colour: red\n+  colour: green\n".to_owned(),
        format!(
            "--- {n}/configmaps/settings (backup one)\n+++ {n}/configmaps/settings (backup two)\n"
        ),
        format!("diff {n}/poddisruptionbudgets.policy/new: only in backup two\n"),
    ] {
        ensure!(
            different.stdout.contains(&part),
            "{part}: {}",
            different.stdout
        );
    }
    let back = place
        .without_cluster(&["diff", "two", "one", resources])
        .await?
        .expect(1)?;
    ensure!(back.stdout.contains("-  colour: green\n+  colour: red\n"));
    Ok(())
}

async fn failures() -> Result<()> {
    let place = Place::new("failures").await?;
    place.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}")?;
    place.back_up("b").await?;
    place.run(&["diff", "nothing"]).await?.expect(10)?;
    place.run(&["diff", "b", "nothing"]).await?.expect(10)?;
    place
        .run(&["diff", "b", "--include-resources=nothing"])
        .await?
        .expect(2)?;
    place
        .run(&["diff", "b", "--no-such-flag"])
        .await?
        .expect(2)?;
    // What is 1 elsewhere.
    let said = place.without_cluster(&["diff", "b"]).await?.expect(2)?;
    ensure!(said.stdout.is_empty());
    Ok(())
}
