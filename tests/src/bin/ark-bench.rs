//! Measures backups of many objects beside what bounds them, in one run on one machine: `make bench`.
//!
//! The floor is paging the same lists with limit 500, four types at a time, the bodies thrown away. The objects are made
//! once and kept as a data directory of etcd in the cache. Peak memory is the operating system's figure.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ark_tests::{ControlPlane, Options, S3Server, cache, job, prerequisites, process, s3};
use clap::Parser;
use futures::stream::{self, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use serde::Deserialize;

/// Namespaces that the config maps are spread over.
const NAMESPACES: usize = 4;
/// What the API server takes at most on two cores (docs/benchmarks.md).
const CREATORS: usize = 32;

/// Changes when [`config_map`] does, so that objects in the cache are made anew.
const DATA_VERSION: &str = "1";

/// Measure backups.
#[derive(Parser)]
struct Arguments {
    /// Numbers of config maps to measure with
    #[arg(long, value_delimiter = ',', default_value = "50000")]
    objects: Vec<usize>,
    /// Runs of each; the median is shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only make and keep the objects
    #[arg(long)]
    prepare: bool,
}

/// What one run of a command used.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Used {
    code: i32,
    wall: f64,
    cpu: f64,
    peak_kib: u64,
}

/// A row of the table.
struct Row {
    objects: usize,
    what: &'static str,
    wall: f64,
    cpu: Option<f64>,
    peak_mib: Option<f64>,
    floor: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = runtime.block_on(measure(&arguments));
    process::end_all();
    let rows = measured?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| objects | what | wall s | CPU s | peak MiB | wall, floor = 1 |\n|---|---|---|---|---|---|"
    )?;
    for row in rows {
        let optional = |value: Option<f64>, digits: usize| {
            value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
        };
        writeln!(
            out,
            "| {} | {} | {:.2} | {} | {} | {:.2} |",
            row.objects,
            row.what,
            row.wall,
            optional(row.cpu, 2),
            optional(row.peak_mib, 1),
            row.wall / row.floor
        )?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &objects in &arguments.objects {
        let data = data_of(objects).await?;
        if arguments.prepare {
            continue;
        }
        rows.extend(measure_with(objects, data, arguments.runs).await?);
    }
    Ok(rows)
}

async fn measure_with(objects: usize, data: PathBuf, runs: usize) -> Result<Vec<Row>> {
    let cluster = ControlPlane::start(Options {
        etcd_data: Some(data),
        ..Options::default()
    })
    .await?;
    let store = S3Server::start().await?;
    let bucket = store.bucket("bench").await?;
    let client = cluster.client().await?;
    // The first lists after a start fill the watch cache, for everybody alike.
    page(&client).await?;
    let mut floors = Vec::new();
    let mut to_file = Vec::new();
    let mut to_s3 = Vec::new();
    let directory = tempfile::tempdir()?;
    for run in 0..runs {
        eprintln!("{objects} objects, run {} of {runs} …", run + 1);
        floors.push(page(&client).await?.as_secs_f64());
        let url = format!("file://{}", directory.path().display());
        to_file.push(backup(&cluster, &format!("file-{run}"), &url)?);
        let url = format!(
            "s3://{}/{run}?endpoint={}&path-style=true&region=us-east-1",
            bucket.name(),
            store.url()
        );
        to_s3.push(backup(&cluster, &format!("s3-{run}"), &url)?);
    }
    let floor = floors.iter().copied().fold(f64::INFINITY, f64::min);
    let row = |what, used: &[Used]| Row {
        objects,
        what,
        wall: median(used.iter().map(|used| used.wall)),
        cpu: Some(median(used.iter().map(|used| used.cpu))),
        // The worst, not the median: a limit is a limit.
        peak_mib: used
            .iter()
            .map(|used| used.peak_kib as f64 / 1024.0)
            .max_by(f64::total_cmp),
        floor,
    };
    Ok(vec![
        Row {
            objects,
            what: "paging the lists, limit 500 (the floor, best)",
            wall: floor,
            cpu: None,
            peak_mib: None,
            floor,
        },
        row("backup to file", &to_file),
        row("backup to S3 on the same cores", &to_s3),
    ])
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn backup(cluster: &ControlPlane, name: &str, url: &str) -> Result<Used> {
    let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/measure.py");
    let mut command = Command::new(prerequisites::python()?.join("bin/python"));
    command
        .arg(measure)
        .arg(job::program("ark-job")?)
        .args(["backup", name, "--storage", url]);
    command
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(s3::environment());
    let used: Used = serde_json::from_str(process::output(&mut command)?.trim())?;
    ensure!(
        used.code == 0,
        "the backup ended with exit code {}",
        used.code
    );
    Ok(used)
}

/// Pages all types with limit 500, four at a time, the next page asked for when this one has been read.
async fn page(client: &Client) -> Result<Duration> {
    let mut paths = Vec::new();
    for group in [
        client.list_core_api_versions_aggregated().await?,
        client.list_api_groups_aggregated().await?,
    ] {
        for group in group.items {
            let name = group
                .metadata
                .and_then(|metadata| metadata.name)
                .unwrap_or_default();
            let Some(version) = group.versions.into_iter().next() else {
                continue;
            };
            let version_name = version.version.unwrap_or_default();
            let root = if name.is_empty() {
                format!("/api/{version_name}")
            } else {
                format!("/apis/{name}/{version_name}")
            };
            for resource in version.resources {
                let verbs = resource.verbs;
                if ["list", "get", "create", "delete"]
                    .iter()
                    .all(|verb| verbs.iter().any(|has| has == verb))
                {
                    paths.push(format!("{root}/{}", resource.resource.unwrap_or_default()));
                }
            }
        }
    }
    ensure!(
        paths.len() > 30,
        "discovery found only {} types",
        paths.len()
    );
    let begin = Instant::now();
    stream::iter(paths.into_iter().map(Ok))
        .try_for_each_concurrent(4, |path| async move { page_type(client, &path).await })
        .await?;
    Ok(begin.elapsed())
}

async fn page_type(client: &Client, path: &str) -> Result<()> {
    let mut next = String::new();
    loop {
        let continued = if next.is_empty() {
            String::new()
        } else {
            format!("&continue={next}")
        };
        let request =
            http::Request::get(format!("{path}?limit=500{continued}")).body(Body::empty())?;
        let answer = client.send(request).await?;
        if !answer.status().is_success() {
            bail!("listing {path}: {}", answer.status());
        }
        let mut body = answer.into_body();
        // Built-in types carry the token in the first bytes.
        let mut head = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else {
                continue;
            };
            if head.len() < 2048 {
                head.extend_from_slice(&piece[..piece.len().min(2048)]);
            }
        }
        match token(&head) {
            Some(token) => next = token,
            None => return Ok(()),
        }
    }
}

fn token(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let start = text.find("\"continue\":\"")? + "\"continue\":\"".len();
    let end = text[start..].find('"')? + start;
    (end > start).then(|| text[start..end].to_owned())
}

/// The etcd data directory of a cluster with that many config maps of about 1 KB.
async fn data_of(objects: usize) -> Result<PathBuf> {
    let hash = cache::hash(&[objects.to_string().as_bytes(), DATA_VERSION.as_bytes()]);
    let name = format!("bench-data-{objects}");
    let directory = cache::directory().join(format!("{name}-{hash}"));
    if directory.join("data").exists() {
        return Ok(directory.join("data"));
    }
    eprintln!("making {objects} config maps (once) …");
    let cluster = ControlPlane::start(Options::default()).await?;
    fill(&cluster.client().await?, objects).await?;
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

async fn fill(client: &Client, objects: usize) -> Result<()> {
    for n in 0..NAMESPACES {
        let metadata = ObjectMeta {
            name: Some(format!("load-{n}")),
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
    stream::iter((0..objects).map(Ok::<usize, anyhow::Error>))
        .try_for_each_concurrent(CREATORS, |n| async move {
            let api: Api<ConfigMap> =
                Api::namespaced(client.clone(), &format!("load-{}", n % NAMESPACES));
            api.create(&PostParams::default(), &config_map(n)).await?;
            Ok(())
        })
        .await
}

/// A config map of about 1 KB, half of it text that compresses and half that does not, as configuration is.
fn config_map(n: usize) -> ConfigMap {
    let noise = cache::hash(&[&n.to_le_bytes()]).repeat(2);
    let data = BTreeMap::from([
        (
            "application.yaml".to_owned(),
            "server:\n  port: 8080\n  host: example.com\n".repeat(12),
        ),
        ("token".to_owned(), format!("{noise}{n}")),
    ]);
    let labels = BTreeMap::from([("app".to_owned(), format!("app-{}", n % 50))]);
    let metadata = ObjectMeta {
        name: Some(format!("cm-{n:07}")),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        data: Some(data),
        ..ConfigMap::default()
    }
}
