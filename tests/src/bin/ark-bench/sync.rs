//! Measures syncs: a bucket with many backups, into a cluster that has never seen them, and again when nothing has changed.
//!
//! Each is run twice: against the servers, for time and memory; and in another namespace through proxies, which count requests
//! and see how many reads are under way at once.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use ark_job::api::{BackupPhase, BackupProgress, BackupStatus};
use ark_tests::foreign::Forged;
use ark_tests::proxy::Request;
use ark_tests::{Bucket, ControlPlane, FaultProxy, Options, Rule, S3Server, job, s3};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::report::{Limit, write_limits};
use crate::used::{Used, used};

/// Backups written at once: what the S3 server takes.
const WRITERS: usize = 32;
/// Ark's namespace for time and memory, and that for counting.
const TIMED: &str = "heptio-ark";
const COUNTED: &str = "counted";

/// What one sync did.
#[derive(Clone, Copy, Debug)]
struct Line {
    what: &'static str,
    used: Used,
    listings: usize,
    reads: usize,
    at_once: usize,
    api: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Syncs {
    backups: usize,
    lines: Vec<Line>,
}

impl Syncs {
    /// A first sync of a bucket with that many backups, and a second one.
    pub async fn measure(backups: usize) -> Result<Syncs> {
        let cluster = ControlPlane::start(Options::default()).await?;
        cluster.define_resource_types()?;
        let store = S3Server::start().await?;
        let bucket = store.bucket("bench").await?;
        eprintln!("sync: writing {backups} backups …");
        fill(&bucket, backups).await?;
        let proxy = FaultProxy::start(store.url()).await?;
        let api = FaultProxy::start_before(&cluster).await?;
        let counting = cluster.kubeconfig_for(api.url())?;
        for (namespace, endpoint) in [(TIMED, store.url()), (COUNTED, proxy.url())] {
            cluster.kubectl(&["create", "namespace", namespace])?;
            let url = format!(
                "s3://{}/p?endpoint={endpoint}&path-style=true&region={}",
                bucket.name(),
                s3::REGION
            );
            let location = json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
                "metadata": {"name": "default", "namespace": namespace}, "spec": {"url": url}});
            cluster.kubectl_with_input(&["apply", "-f", "-"], &location.to_string())?;
        }
        let is_read = |request: &Request| !request.query.contains("list-type");
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, ended) = (Arc::clone(&now), Arc::clone(&now));
        let highest = Arc::clone(&most);
        proxy.add(
            Rule::on(is_read)
                .before(move |_| {
                    let there = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    highest.fetch_max(there, Ordering::SeqCst);
                })
                .after(move |_| {
                    ended.fetch_sub(1, Ordering::SeqCst);
                }),
        );
        let mut lines = Vec::new();
        for what in ["first sync", "nothing has changed"] {
            eprintln!("sync: {what} …");
            let used = sync(&cluster, cluster.kubeconfig(), TIMED)?;
            proxy.clear_requests();
            api.clear_requests();
            most.store(0, Ordering::SeqCst);
            now.store(0, Ordering::SeqCst);
            sync(&cluster, &counting, COUNTED)?;
            lines.push(Line {
                what,
                used,
                listings: proxy.count(|request| !is_read(request)),
                reads: proxy.count(is_read),
                at_once: most.load(Ordering::SeqCst),
                api: api.requests().len(),
            });
        }
        let names =
            cluster.kubectl(&["get", "backups.ark.heptio.com", "-n", TIMED, "-o", "name"])?;
        ensure!(
            names.lines().count() == backups,
            "{} resources",
            names.lines().count()
        );
        Ok(Syncs { backups, lines })
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| backups | what | wall s | CPU s | servers' CPU s | peak MiB | listing requests | reads | at once | API requests |\n\
             |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let mut limits = Vec::new();
        let mut limit = |text: String, measured: f64, at_most: f64| {
            limits.push(Limit {
                text,
                measured,
                at_most,
            });
        };
        for line in &self.lines {
            let Line {
                what,
                used,
                listings,
                reads,
                at_once,
                api,
            } = line;
            let servers = used
                .servers
                .map_or("–".to_owned(), |servers| format!("{servers:.2}"));
            let _ = writeln!(
                text,
                "| {} | {what} | {:.2} | {:.2} | {servers} | {:.1} | {listings} | {reads} | {at_once} | {api} |",
                self.backups, used.wall, used.cpu, used.peak_mib
            );
            limit(format!("{what}, reads at once"), *at_once as f64, 64.0);
            limit(format!("{what}, peak MiB"), used.peak_mib, 48.0);
        }
        if let [first, again] = &self.lines[..] {
            limit(
                "first sync, reads a backup".into(),
                first.reads as f64 / self.backups as f64,
                1.0,
            );
            limit("nothing has changed, reads".into(), again.reads as f64, 0.0);
        }
        write_limits(&mut text, &limits);
        text
    }
}

fn sync(cluster: &ControlPlane, kubeconfig: &Path, namespace: &str) -> Result<Used> {
    let mut command = Command::new(job::program("ark-job")?);
    command
        .args(["sync", "-n", namespace])
        .env("KUBECONFIG", kubeconfig)
        .envs(s3::environment());
    Ok(used(cluster, &command)?.0)
}

/// Writes backups as small as they can be, with markers as long as usual.
async fn fill(bucket: &Bucket, backups: usize) -> Result<()> {
    stream::iter(0..backups)
        .map(|n| async move {
            let name = format!("daily-{n:014}");
            let map =
                r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"n"}}"#;
            let (archive, mut marker) = Forged::new(&name, &[&[("n", "c", map)]]).build()?;
            marker
                .metadata
                .labels
                .insert("ark.heptio.com/schedule".into(), "daily".into());
            marker.spec.ttl = Some("720h0m0s".into());
            marker.spec.storage_location = Some("default".into());
            let at = |second: i64| {
                Timestamp::from_second(1_767_225_600 + second)
                    .ok()
                    .map(Time)
            };
            marker.status = BackupStatus {
                phase: Some(BackupPhase::Completed),
                start_timestamp: at(0),
                completion_timestamp: at(60),
                expiration: at(2_592_000),
                progress: Some(BackupProgress {
                    total_items: Some(1),
                    items_backed_up: 1,
                    bytes_read: 75,
                }),
                resource_version: Some("123456789".into()),
                cluster_uid: Some("00000000-0000-0000-0000-000000000000".into()),
                size: i64::try_from(archive.len()).ok(),
                version: Some("1.0.0".into()),
                format_version: Some("1".into()),
                messages: (0..3)
                    .map(|n| format!("configmaps n/c{n}: a warning as long as warnings are"))
                    .collect(),
                warnings: 3,
                ..BackupStatus::default()
            };
            let key = |file: &str| format!("p/backups/{name}/{file}");
            bucket.put(&key(&format!("{name}.tar.gz")), archive).await?;
            bucket.put(&key("velero-backup.json"), "{}").await?;
            bucket.put(&key("ark-backup.json"), marker.to_json()).await
        })
        .buffer_unordered(WRITERS)
        .try_collect()
        .await
}
