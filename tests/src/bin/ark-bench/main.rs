//! Measures backups and restores beside what bounds them, in one run on one machine: `make bench`.
//!
//! For each load: (a) the floor, which is paging the same lists with limit 500, four types at a time, the bodies thrown
//! away; (b) `ark-job backup` to a directory and to S3; (c) one `kubectl get -A -o json` of all types. They alternate, so
//! that a busy moment of the machine hits all alike. The objects are made once and kept as a data directory of etcd in the
//! cache. What is measured is the operating system's: nothing counts itself, but for the floor's time.

mod creators;
mod floor;
mod load;
mod report;
mod restore;
mod sync;
mod used;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, Options, S3Server, job, process, s3};
use clap::Parser;

use self::load::{Load, Source};
use self::report::{Measured, Row, What};
use self::restore::Restores;
use self::sync::Syncs;
use self::used::{Used, used};

/// kubectl holds all objects decoded, some ten times their JSON: beyond this it needs more memory than machines have.
const KUBECTL_MAX: usize = 300_000;

/// Measure backups and restores.
#[derive(Parser)]
struct Arguments {
    /// Numbers of config maps of about 1 KB to measure with
    #[arg(long, value_delimiter = ',', default_value = "60000")]
    objects: Vec<usize>,
    /// Sizes of a mixture of config maps, secrets, deployments and custom resources
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    mixture: Vec<usize>,
    /// Numbers of objects of 1.4 MB
    #[arg(long, value_delimiter = ',', default_value = "200")]
    large: Vec<usize>,
    /// Numbers of config maps of about 1 KB to restore
    #[arg(long, value_delimiter = ',', default_value = "20000")]
    restore: Vec<usize>,
    /// Sizes of backups of which one object is shown and one namespace of 2,000 is restored
    #[arg(long, value_delimiter = ',', default_value = "100000")]
    part: Vec<usize>,
    /// How many backups a bucket has that is synced
    #[arg(long, default_value_t = 10_000)]
    backups: usize,
    /// Measure only backups, only restores, or only syncs
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Everything that docs/benchmarks.md shows: also backups of 300,000 and 500,000 config maps and a mixture of
    /// 100,000, and restores of 60,000 config maps and of 200 objects of 1.4 MB
    #[arg(long)]
    all: bool,
    /// Runs of each; the best of the floor and the median of the others are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Write table and plot into docs/benchmarks.md and docs/benchmarks.svg
    #[arg(long)]
    write: bool,
    /// Only make and keep the objects
    #[arg(long)]
    prepare: bool,
    /// Start a control plane with the first load, print its KUBECONFIG and wait: to look closer by hand
    #[arg(long)]
    serve: bool,
    /// Page the lists of the cluster of KUBECONFIG, and print the seconds: the floor, as a process of its own
    #[arg(long, hide = true)]
    page: bool,
    /// Create the objects of a file in the cluster of KUBECONFIG, and print the seconds
    #[arg(long, hide = true)]
    create: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    Backup,
    Restore,
    Sync,
}

impl Arguments {
    /// These sizes, and with --all those: small before large.
    fn sizes(&self, sizes: &[usize], all: &[usize]) -> Vec<usize> {
        let mut sizes = sizes.to_vec();
        if self.all {
            sizes.extend_from_slice(all);
        }
        sizes.retain(|&size| size > 0);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// What to back up.
    fn backups(&self) -> Vec<Load> {
        if matches!(self.only, Some(Only::Restore | Only::Sync)) {
            return Vec::new();
        }
        let config_maps = self.sizes(&self.objects, &[60_000, 300_000, 500_000]);
        let mixtures = self.sizes(&self.mixture, &[10_000, 100_000]);
        let large = self.sizes(&self.large, &[200]);
        let config_maps = config_maps.into_iter().map(Load::ConfigMaps);
        let mixtures = mixtures.into_iter().map(Load::Mixture);
        let large = large.into_iter().map(Load::Large);
        config_maps.chain(mixtures).chain(large).collect()
    }

    /// What to restore: as a whole, and in part.
    fn restores(&self) -> (Vec<Load>, Vec<Load>) {
        if matches!(self.only, Some(Only::Backup | Only::Sync)) {
            return (Vec::new(), Vec::new());
        }
        let whole = self.sizes(&self.restore, &[20_000, 60_000]);
        let whole = whole.into_iter().map(Load::ConfigMaps);
        let large = self.all.then_some(Load::Large(200));
        let part = self.sizes(&self.part, &[100_000]);
        (
            whole.chain(large).collect(),
            part.into_iter().map(Load::Partial).collect(),
        )
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if arguments.page {
        println!("{}", runtime.block_on(floor::page())?.as_secs_f64());
        return Ok(());
    }
    if let Some(file) = &arguments.create {
        println!(
            "{}",
            runtime.block_on(creators::create(file))?.as_secs_f64()
        );
        return Ok(());
    }
    let measured = runtime.block_on(async {
        let backups = measure(&arguments).await?;
        let restores = measure_restores(&arguments).await?;
        let syncs = match arguments.only {
            None | Some(Only::Sync) if !arguments.prepare => {
                Some(Syncs::measure(arguments.backups).await?)
            }
            _ => None,
        };
        Ok::<_, anyhow::Error>((backups, restores, syncs))
    });
    process::end_all();
    let (backups, restores, syncs) = measured?;
    if !backups.is_empty() {
        println!("{}", report::table(&backups));
    }
    if !restores.is_empty() {
        println!("{}", restores.table());
    }
    if let Some(syncs) = &syncs {
        println!("{}", syncs.table());
    }
    if arguments.write {
        report::write(&backups, &restores)?;
    }
    Ok(())
}

async fn measure_restores(arguments: &Arguments) -> Result<Restores> {
    let mut restores = Restores::default();
    let (whole, part) = arguments.restores();
    if arguments.prepare {
        for load in whole.into_iter().chain(part) {
            load.data().await?;
        }
        return Ok(restores);
    }
    for load in whole {
        restores.whole(load, arguments.runs).await?;
        eprint!("{}", restores.table());
    }
    for load in part {
        restores.part(load, arguments.runs).await?;
        eprint!("{}", restores.table());
    }
    Ok(restores)
}

async fn measure(arguments: &Arguments) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for load in arguments.backups() {
        let data = load.data().await?;
        if arguments.prepare {
            continue;
        }
        for source in load.sources() {
            let cluster = ControlPlane::start(Options {
                etcd_data: Some(data.clone()),
                audit: arguments.serve,
                api_server_flags: source.flags(),
                ..Options::default()
            })
            .await?;
            if arguments.serve {
                println!("export KUBECONFIG={}", cluster.kubeconfig().display());
                println!("# audit log: {}", cluster.audit_log()?.display());
                std::future::pending::<()>().await;
            }
            let measured = measure_load(load, source, &cluster, arguments.runs).await?;
            // Shown at once too: a long run that is cut off has not been for nothing.
            eprint!("{}", report::table(std::slice::from_ref(&measured)));
            all.push(measured);
        }
    }
    Ok(all)
}

async fn measure_load(
    load: Load,
    source: Source,
    cluster: &ControlPlane,
    runs: usize,
) -> Result<Measured> {
    let store = S3Server::start().await?;
    let bucket = store.bucket("bench").await?;
    let directory = tempfile::tempdir()?;
    // The first lists after a start fill the watch cache, for everybody alike.
    page(cluster)?;
    let (mut floor, mut to_file, mut to_s3, mut kubectl) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        eprintln!("{load}: run {} of {runs} …", run + 1);
        floor.push(page(cluster)?);
        let url = format!("file://{}", directory.path().display());
        to_file.push(backup(cluster, &format!("file-{run}"), &url)?);
        let url = format!(
            "s3://{}/{run}?endpoint={}&path-style=true&region={}",
            bucket.name(),
            store.url(),
            s3::REGION
        );
        to_s3.push(backup(cluster, &format!("s3-{run}"), &url)?);
    }
    if load.objects() <= KUBECTL_MAX && source == Source::Etcd {
        eprintln!("{load}: kubectl …");
        kubectl.push(get_all(cluster).await?);
    }
    let archive = directory.path().join("backups/file-0/file-0.tar.gz");
    let mut rows = vec![
        Row::best(What::Floor, &floor),
        Row::median(What::File, &to_file),
        Row::median(What::S3, &to_s3),
    ];
    if !kubectl.is_empty() {
        rows.push(Row::median(What::Kubectl, &kubectl));
    }
    Ok(Measured {
        load,
        source,
        rows,
        against_gzip: std::fs::metadata(&archive)?.len() as f64 / gzip_6(&archive)? as f64,
    })
}

/// Pages all lists; the time is that of the pages, without the start of the process and discovery.
pub(crate) fn page(cluster: &ControlPlane) -> Result<Used> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--page")
        .env("KUBECONFIG", cluster.kubeconfig());
    let (used, output) = used(cluster, &command)?;
    let wall = output.trim().parse().context("the floor printed no time")?;
    Ok(Used { wall, ..used })
}

fn backup(cluster: &ControlPlane, name: &str, url: &str) -> Result<Used> {
    let mut command = Command::new(job::program("ark-job")?);
    command
        .args(["backup", name, "--storage", url])
        .env("KUBECONFIG", cluster.kubeconfig())
        .envs(s3::environment());
    Ok(used(cluster, &command)?.0)
}

/// One `kubectl get` of all types at once, to nowhere.
async fn get_all(cluster: &ControlPlane) -> Result<Used> {
    let types: Vec<String> = floor::types(&cluster.client().await?)
        .await?
        .into_iter()
        .map(|found| found.name)
        .collect();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" > /dev/null", "sh"])
        .arg(cluster.bin().join("kubectl"))
        .args(["get", "--all-namespaces", "--output=json"])
        .arg(types.join(","))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("KUBECACHEDIR", cluster.directory()?.join("kubectl-cache"));
    Ok(used(cluster, &command)?.0)
}

/// Length of the same tar, compressed by gzip -6.
fn gzip_6(archive: &Path) -> Result<u64> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "gzip -dc -- \"$1\" | gzip -6 | wc -c", "sh"])
        .arg(archive);
    let length = process::output(&mut command)?.trim().parse()?;
    ensure!(length > 0, "gzip made nothing of {}", archive.display());
    Ok(length)
}
