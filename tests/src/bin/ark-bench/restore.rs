//! Measures restores beside what bounds them.
//!
//! (a) 16 bare concurrent creators of the same objects; (b) `ark-job restore` into an empty cluster; (c) the same again,
//! beside paging the lists of what is there; (d) one object out of a backup in S3; (e) the 2,000 objects of one namespace
//! out of a large backup. (a) and (b) each get a cluster of their own, and alternate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use ark_tests::{ControlPlane, FaultProxy, Options, S3Server, job, s3};

use crate::creators;
use crate::load::{FEW, Load};
use crate::report::{Limit, median};
use crate::used::{Used, used};

/// The name of every backup.
const BACKUP: &str = "b";

/// What was run.
#[derive(Clone, Debug)]
struct Line {
    load: String,
    what: &'static str,
    used: Used,
    /// Objects.
    objects: usize,
    /// What it is compared with.
    ratio: Option<f64>,
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct Restores {
    lines: Vec<Line>,
    limits: Vec<Limit>,
}

impl Restores {
    /// Creators, a restore, and the same again.
    pub async fn whole(&mut self, load: Load, runs: usize) -> Result<()> {
        let storage = tempfile::tempdir()?;
        let url = format!("file://{}", storage.path().display());
        back_up(load, &[&url]).await?;
        let requests = storage.path().join("requests");
        creators::write(load, &requests)?;
        let (mut bare, mut first, mut again, mut paging) =
            <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        let mut writes = 0;
        for run in 0..runs {
            eprintln!("{load}: restore {} of {runs} …", run + 1);
            {
                let cluster = empty().await?;
                load.make_room(&cluster).await?;
                bare.push(create(&cluster, &requests)?);
            }
            let cluster = empty().await?;
            first.push(restore(&cluster, &url, &[])?);
            paging.push(crate::page(&cluster)?);
            let before = written(&cluster).await?;
            again.push(restore(&cluster, &url, &[])?);
            let after = written(&cluster).await?;
            paging.push(crate::page(&cluster)?);
            writes = writes.max(newly(&before, &after));
        }
        let [bare, first, again, paging] = [bare, first, again, paging].map(|runs| median(&runs));
        let objects = load.objects();
        let mut line = |what, used, ratio| {
            self.lines.push(Line {
                load: load.to_string(),
                what,
                used,
                objects,
                ratio,
            });
        };
        let rate = bare.wall / first.wall;
        let against_paging = again.wall / paging.wall;
        line("16 bare creators", bare, Some(1.0));
        line("ark-job restore", first, Some(first.wall / bare.wall));
        line("paging the lists", paging, None);
        line(
            "ark-job restore, again",
            again,
            Some(again.wall / bare.wall),
        );
        let mut limit = |text: &str, measured, at_most| {
            self.limits.push(Limit {
                text: format!("{load}: {text}"),
                measured,
                at_most,
            });
        };
        if !matches!(load, Load::Large(_)) {
            limit("restore, the bare creators' time ≤ 1 ×", 1.0 / rate, 1.0);
            limit("restore again ≤ 2 × paging the lists", against_paging, 2.0);
        }
        limit("restore again, writes", writes as f64, 0.0);
        let memory = if matches!(load, Load::Large(_)) {
            48.0
        } else {
            32.0
        };
        let text = format!("peak memory of restores ≤ {memory} MiB");
        limit(&text, first.peak_mib.max(again.peak_mib), memory);
        Ok(())
    }

    /// One object, and one namespace, out of a large backup.
    pub async fn part(&mut self, load: Load, runs: usize) -> Result<()> {
        let store = S3Server::start().await?;
        let bucket = store.bucket("bench").await?;
        let proxy = FaultProxy::start(store.url()).await?;
        let url_at = |endpoint: &str| {
            let (bucket, region) = (bucket.name(), s3::REGION);
            format!("s3://{bucket}/b?endpoint={endpoint}&path-style=true&region={region}")
        };
        let storage = tempfile::tempdir()?;
        let url = format!("file://{}", storage.path().display());
        back_up(load, &[&url, &url_at(store.url())]).await?;
        let (mut one, mut few) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for run in 0..runs {
            eprintln!("{load}: part {} of {runs} …", run + 1);
            let cluster = empty().await?;
            proxy.clear_requests();
            one.push(ark_job(
                &cluster,
                &[
                    "show",
                    BACKUP,
                    "load-1/configmaps/cm-0000005",
                    "--storage",
                    &url_at(proxy.url()),
                ],
            )?);
            let received = proxy
                .requests()
                .iter()
                .map(|request| request.received)
                .sum();
            bytes = bytes.max(received);
            few.push(restore(&cluster, &url, &["--include-namespaces", FEW])?);
        }
        let (one, few) = (median(&one), median(&few));
        for (what, used, objects) in [
            ("ark-job show, one object", one, 1),
            ("ark-job restore, a namespace", few, 2_000),
        ] {
            self.lines.push(Line {
                load: load.to_string(),
                what,
                used,
                objects,
                ratio: None,
            });
        }
        let mib = bytes as f64 / f64::from(1 << 20);
        for (text, measured, at_most) in [
            ("one object ≤ 2 s", one.wall, 2.0),
            ("one object, MiB read ≤ 2", mib, 2.0),
            ("a namespace ≤ 3 s", few.wall, 3.0),
        ] {
            self.limits.push(Limit {
                text: format!("{load}: {text}"),
                measured,
                at_most,
            });
        }
        Ok(())
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All of it, as Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| objects | what | wall s | bare creators = 1 | objects/s | CPU s | servers' CPU s | peak MiB |\n\
             |---|---|---:|---:|---:|---:|---:|---:|\n",
        );
        for line in &self.lines {
            let used = &line.used;
            let ratio = line
                .ratio
                .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let servers = used
                .servers
                .map_or("–".to_owned(), |servers| format!("{servers:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {ratio} | {:.0} | {:.2} | {servers} | {:.1} |",
                line.load,
                line.what,
                used.wall,
                line.objects as f64 / used.wall,
                used.cpu,
                used.peak_mib,
            );
        }
        crate::report::write_limits(&mut text, &self.limits);
        text
    }
}

async fn empty() -> Result<ControlPlane> {
    ControlPlane::start(Options::default()).await
}

/// Backs a load up to each of the URLs.
async fn back_up(load: Load, urls: &[&str]) -> Result<()> {
    let cluster = ControlPlane::start(Options {
        etcd_data: Some(load.data().await?),
        ..Options::default()
    })
    .await?;
    for url in urls {
        ark_job(&cluster, &["backup", BACKUP, "--storage", url])?;
    }
    Ok(())
}

fn restore(cluster: &ControlPlane, url: &str, more: &[&str]) -> Result<Used> {
    ark_job(
        cluster,
        &[&["restore", BACKUP, "--storage", url], more].concat(),
    )
}

fn ark_job(cluster: &ControlPlane, arguments: &[&str]) -> Result<Used> {
    let mut command = Command::new(job::program("ark-job")?);
    command
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(s3::environment());
    Ok(used(cluster, &command)?.0)
}

/// The time is that of the creates, without the start of the process.
fn create(cluster: &ControlPlane, requests: &Path) -> Result<Used> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--create")
        .arg(requests)
        .env("KUBECONFIG", cluster.kubeconfig());
    let (used, output) = used(cluster, &command)?;
    let wall = output
        .trim()
        .parse()
        .context("the creators printed no time")?;
    Ok(Used { wall, ..used })
}

/// Writes that the API server has answered so far, by what they were of; without what API servers write on their own,
/// what only asks for rights, and Ark's records.
async fn written(cluster: &ControlPlane) -> Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = cluster.client().await?.request_text(request).await?;
    let mut written = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
            continue;
        };
        let Some((labels, count)) = rest.rsplit_once("} ") else {
            continue;
        };
        let is_write = ["POST", "PUT", "PATCH", "DELETE", "APPLY"]
            .iter()
            .any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
        let is_own = [
            "coordination.k8s.io",
            "authorization.k8s.io",
            "ark.heptio.com",
        ]
        .iter()
        .any(|group| labels.contains(&format!("group=\"{group}\"")));
        if is_write && !is_own {
            let count: f64 = count.parse().context("a metric is not a number")?;
            written.insert(labels.to_owned(), count as u64);
        }
    }
    Ok(written)
}

/// How many writes came to those of before; which, is printed.
fn newly(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let new = after.iter().map(|(labels, count)| {
        let new = count - before.get(labels).copied().unwrap_or_default().min(*count);
        if new > 0 {
            eprintln!("{new} writes: {labels}");
        }
        new
    });
    new.sum()
}
