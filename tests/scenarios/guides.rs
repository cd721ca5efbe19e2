//! The guides in docs/ are transcripts: every command in them is run here, on real clusters, and says what the guide shows.
//!
//! A block of a guide starts with ```` ```console ````; a line `first$ COMMAND` or `second$ COMMAND` is run in that cluster, and
//! the lines after it are what was printed. Numbers, identifiers and the width of columns may differ. With ARK_UPDATE=1 the
//! guides are written anew: read the difference then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{NodeCluster, Options, images, job, s3, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{IMAGE, apply, kubectl, run, storage};
use crate::world::{self, node_scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "guides::two_clusters_and_one_bucket_migrate_as_the_guide_says",
            migration,
        ),
        node_scenario(
            "guides::a_lost_cluster_comes_back_as_the_guide_says",
            lost_cluster,
        ),
    ]
}

/// What a guide calls its storage.
const STORAGE: &str = "s3://my-bucket/backups?region=eu-west-1";
/// How a block of a transcript begins.
const BLOCK: &str = "```console";
/// Applications that two guides move.
const NAMESPACES: [&str; 2] = ["shop", "blog"];

async fn migration() -> Result<()> {
    let mut guide = Guide::open("migration.md").await?;
    guide.cluster("first").await?;
    guide.cluster("second").await?;
    for namespace in NAMESPACES {
        application(&guide.clusters["first"], namespace)?;
    }
    guide.follow().await?;
    for namespace in NAMESPACES {
        let target = format!("{namespace}-eu");
        same_application(&guide.clusters["second"], &target).await?;
    }
    guide.end()
}

async fn lost_cluster() -> Result<()> {
    let mut guide = Guide::open("disaster.md").await?;
    guide.cluster("old").await?;
    application(&guide.clusters["old"], "shop")?;
    guide.follow_until("## The cluster is gone").await?;
    // It really is: no process of it is left.
    guide.clusters.remove("old");
    guide.cluster("new").await?;
    guide.follow().await?;
    same_application(&guide.clusters["new"], "shop").await?;
    guide.end()
}

/// A guide that is being followed.
struct Guide {
    path: PathBuf,
    /// What is left of it.
    rest: Vec<String>,
    /// What it should say, as far as it was followed.
    written: Vec<String>,
    clusters: BTreeMap<String, NodeCluster>,
    /// Where its commands are run, with the file `credentials`.
    directory: tempfile::TempDir,
    prefix: String,
}

impl Guide {
    async fn open(name: &str) -> Result<Guide> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let directory = tempfile::tempdir()?;
        let credentials = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            s3::ACCESS_KEY_ID,
            s3::SECRET_ACCESS_KEY
        );
        std::fs::write(directory.path().join("credentials"), credentials)?;
        world::s3().await?.bucket("plugin").await?;
        Ok(Guide {
            path,
            rest: text.lines().map(str::to_owned).collect(),
            written: Vec::new(),
            clusters: BTreeMap::new(),
            directory,
            prefix: format!("guide-{name}-{}", std::process::id()),
        })
    }

    /// Starts a cluster that the guide calls by this name, and in which pods find the image.
    async fn cluster(&mut self, name: &str) -> Result<()> {
        // Boxed: starting a cluster is a large future, and a test's thread has a small stack.
        let cluster = Box::pin(NodeCluster::start(Options::default())).await?;
        let archive = cluster.directory()?.join("ark-job.tar");
        images::ark_job(IMAGE, &archive)?;
        cluster.load_image(&archive)?;
        self.clusters.insert(name.to_owned(), cluster);
        Ok(())
    }

    async fn follow(&mut self) -> Result<()> {
        self.follow_until("").await
    }

    /// Runs the commands up to a line; to the end without one.
    async fn follow_until(&mut self, last: &str) -> Result<()> {
        let mut transcript = false;
        let mut lines = std::mem::take(&mut self.rest).into_iter().peekable();
        while let Some(text) = lines.next_if(|text| last.is_empty() || text != last) {
            self.written.push(text.clone());
            if text.starts_with("```") {
                transcript = text == BLOCK;
                continue;
            }
            if !transcript {
                continue;
            }
            let (cluster, command) = text
                .split_once("$ ")
                .with_context(|| format!("no command: {text}"))?;
            let mut shown = Vec::new();
            while let Some(line) = lines.next_if(|line| {
                line != "```"
                    && !self
                        .clusters
                        .keys()
                        .any(|name| line.starts_with(&format!("{name}$ ")))
            }) {
                shown.push(line);
            }
            let said = self.run(cluster, command).await?;
            if updates() {
                self.written.extend(said);
            } else {
                ensure!(
                    alike(&shown) == alike(&said),
                    "{}: {text}\nshould say:\n{}\nand says:\n{}\n(ARK_UPDATE=1 writes it anew)",
                    self.path.display(),
                    shown.join("\n"),
                    said.join("\n")
                );
                self.written.extend(shown);
            }
        }
        self.rest = lines.collect();
        Ok(())
    }

    /// Runs one command in a cluster; what it prints, as the guide would have it.
    async fn run(&self, cluster: &str, line: &str) -> Result<Vec<String>> {
        let cluster = self
            .clusters
            .get(cluster)
            .with_context(|| format!("no cluster {cluster}: {line}"))?;
        let url = storage(&self.prefix, &cluster.expose(world::s3().await?.url())?);
        let script = line.replace(STORAGE, &url).replace(
            "kubectl ark install",
            &format!("kubectl ark install --image {IMAGE}"),
        );
        let mut command = cluster.command("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = job::programs()?;
        command
            .args(["-o", "pipefail", "-c", &script])
            .current_dir(self.directory.path())
            .env(
                "PATH",
                format!("{}:{}:{path}", programs.display(), cluster.bin().display()),
            );
        let said = run(Ok(command)).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        let notes = said.stderr.lines().filter(|text| {
            ["warning:", "error:", "hint:", "next:"]
                .iter()
                .any(|kind| text.starts_with(kind))
        });
        let lines = said.stdout.lines().chain(notes);
        Ok(lines
            .map(|text| text.replace(&url, STORAGE).trim_end().to_owned())
            .collect())
    }

    fn end(self) -> Result<()> {
        if updates() {
            let mut text = String::new();
            for line in &self.written {
                writeln!(text, "{line}")?;
            }
            std::fs::write(&self.path, text)?;
        }
        Ok(())
    }
}

pub fn updates() -> bool {
    std::env::var_os("ARK_UPDATE").is_some()
}

/// Lines without what is different each time: numbers, identifiers, the width of columns.
pub fn alike(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            line.split_whitespace()
                .map(|word| {
                    if is_identifier(word) {
                        "ID".to_owned()
                    } else {
                        without_numbers(word)
                    }
                })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// A UID, or what is made of one.
fn is_identifier(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    bare.len() == 36 && bare.split('-').count() == 5
}

fn without_numbers(word: &str) -> String {
    let mut kept = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if kept.ends_with('#') => {}
            '0'..='9' => kept.push('#'),
            c => kept.push(c),
        }
    }
    // Ages: 59s one time, 1m5s or 1m the next.
    match kept.trim_start_matches('(') {
        "#s" | "#m" | "#m#s" | "#h" | "#h#m" | "#d" | "#d#h" => "AGE".to_owned(),
        _ => kept,
    }
}

/// A small application: a Deployment that serves a page from a ConfigMap.
pub fn application(cluster: &NodeCluster, namespace: &str) -> Result<()> {
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "page", "namespace": namespace},
            "data": {"index.html": format!("<h1>{namespace}</h1>")},
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [{
                            "name": "web", "image": "localhost/busybox:test",
                            "command": ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"],
                            "volumeMounts": [{"name": "page", "mountPath": "/www"}],
                        }],
                        "volumes": [{"name": "page", "configMap": {"name": "page"}}],
                    },
                },
            },
        },
    ]});
    apply(cluster, &objects)?;
    let rollout = format!("rollout status deployment/web -n {namespace} --timeout=90s");
    kubectl(cluster, &rollout).map(drop)
}

/// The application serves its page in this namespace, too, and all of it is there.
async fn same_application(cluster: &NodeCluster, namespace: &str) -> Result<()> {
    let page = kubectl(
        cluster,
        &format!("get configmap page -n {namespace} -o json"),
    )?;
    let page: Value = serde_json::from_str(&page)?;
    let source = namespace.trim_end_matches("-eu");
    ensure!(
        page["data"]["index.html"] == format!("<h1>{source}</h1>"),
        "{page:#}"
    );
    kubectl(cluster, &format!("get service web -n {namespace}"))?;
    wait_until(
        "the application to serve",
        Duration::from_secs(90),
        async || {
            let get = format!(
                "exec -n {namespace} deployment/web -- wget -qO- http://127.0.0.1:8080/index.html"
            );
            Ok(kubectl(cluster, &get)
                .ok()
                .filter(|text| text.contains(source)))
        },
    )
    .await
    .map(drop)
}
