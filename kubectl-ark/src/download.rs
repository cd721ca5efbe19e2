//! `backup download`: a backup as a tar.gz on this machine, every byte checked before the file has its name.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::held_pod::Purpose;
use crate::options::{DownloadOptions, ReadFrom, Target};
use crate::progress::Display;
use crate::recorded;
use crate::stored::{self, Mirror, Reading};
use crate::{age, client, lookup};
use ark_job::api::{Backup, DEFAULT_LOCATION};
use ark_job::args::FetchFile;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::foreign::Origin;
use ark_job::repository::{Described, OpenBackup, Served, find, open_backup};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempPath;

/// Downloads, checks and saves or prints it.
pub async fn run(
    cluster: &ClusterFlags,
    options: &DownloadOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let DownloadOptions {
        namespace,
        name,
        target,
        force,
        source,
    } = options;
    let mut interrupt = std::pin::pin!(interrupt);
    let place_of_names = lookup::Place {
        cluster,
        storage: source.as_ref().map(|from| &from.storage),
        local: source.as_ref().is_some_and(|from| from.local),
    };
    let name = &tokio::select! {
        name = lookup::backup(&place_of_names, name) => name?,
        () = &mut interrupt => return Ok(interrupted()),
    };
    let target = match target {
        Target::StandardOutput => None,
        Target::File(path) => Some(path.clone()),
        Target::Named => Some(format!("{name}.tar.gz").into()),
    };
    let target = &target;
    if let Some(target) = target
        && !force
        && target.symlink_metadata().is_ok()
    {
        return Err(taken(target));
    }
    let from = match source {
        Some(from) => from.clone(),
        None => tokio::select! {
            found = place(cluster, namespace, name) => found?,
            () = &mut interrupt => return Ok(interrupted()),
        },
    };
    let display = Display::new("backup", name, surroundings.terminal);
    // Beside the target, so that it gets its name by a rename.
    let parent = match target {
        Some(target) => directory_of(target),
        None => &surroundings.temporary,
    };
    let mirror = Mirror::new(parent, name).await?;
    let reading = Reading {
        cluster,
        surroundings,
        backup: name,
        from: &from,
        purpose: Purpose::Read,
        display: &display,
    };
    let fetched = reading
        .run(interrupt.as_mut(), async |source| {
            mirror.fetch(source, FetchFile::Marker, |_| {}).await?;
            let total = match find(mirror.store(), name).await?.described {
                Described::Ours(marker) => marker.commit.archive.length,
                // Others do not record it.
                Described::Foreign(_) => 0,
            };
            let shown = |done: u64| display.bytes("downloaded", done, total.max(done));
            mirror.fetch(source, FetchFile::Archive, shown).await
        })
        .await;
    let finishing = async {
        let backup = check(&mirror, name, &surroundings.temporary, &display).await?;
        display.end();
        let path = mirror.path(FetchFile::Archive);
        match target {
            Some(target) => {
                save(path, target.clone(), *force).await?;
                println!(
                    "backup {name} is in {}: {}",
                    target.display(),
                    about(&backup)
                );
            }
            None => print(path).await?,
        }
        Ok(Exit::Done)
    };
    let result = match fetched {
        Ok(Some(())) => tokio::select! {
            result = finishing => result,
            () = &mut interrupt => Ok(interrupted()),
        },
        Ok(None) => Ok(interrupted()),
        Err(failure) => Err(failure),
    };
    display.end();
    result
}

fn interrupted() -> Exit {
    eprintln!("interrupted: nothing is saved");
    Exit::Interrupted
}

fn taken(target: &Path) -> Failure {
    Failure::new(Exit::Usage, format!("{} exists", target.display()))
        .hint("--force overwrites it, -o FILE names another")
}

/// Where the backup is: as its resource says. Restores take names that have no resource yet, and so do downloads.
///
/// # Errors
/// When it does not say, or cannot be read.
pub async fn place(
    cluster: &ClusterFlags,
    namespace: &str,
    name: &str,
) -> Result<ReadFrom, Failure> {
    let client = client::connect(cluster).await?.kube;
    match recorded::find::<Backup>(&client, namespace, name).await {
        Ok(backup) => stored::place(&backup, name),
        Err(failure) if failure.exit() == Exit::NotFound => Ok(stored::at(DEFAULT_LOCATION)),
        Err(failure) => Err(failure),
    }
}

fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Reads what came: marker, footer, every member.
async fn check(
    mirror: &Mirror,
    name: &str,
    temporary: &Path,
    display: &Display,
) -> Result<Arc<OpenBackup>, Failure> {
    let backup = open_backup(mirror.store(), name, temporary, Served::new());
    let backup = Arc::new(backup.await?);
    let total = backup.length;
    backup
        .check(|done| display.bytes("checked", done, total))
        .await?;
    Ok(backup)
}

fn about(backup: &OpenBackup) -> String {
    let status = &backup.footer.head.status;
    let objects = status.progress.unwrap_or_default().items_backed_up;
    let length = age::bytes(i64::try_from(backup.length).unwrap_or(i64::MAX));
    match backup.origin {
        Origin::Ark => format!("{objects} objects, {length}, every byte checked"),
        other => format!(
            "{objects} objects, {length}, made by {other}, read to its end (it has no digests)"
        ),
    }
}

/// Gives the file its name when it is safely on disk.
async fn save(path: PathBuf, target: PathBuf, force: bool) -> Result<(), Failure> {
    let saving = tokio::task::spawn_blocking(move || {
        let failed = |error: io::Error| {
            Failure::new(
                Exit::Failed,
                format!("saving {}: {error}", target.display()),
            )
        };
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(failed)?;
        let path = TempPath::try_from_path(path).map_err(failed)?;
        let saved = if force {
            path.persist(&target)
        } else {
            path.persist_noclobber(&target)
        };
        saved.map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists if !force => taken(&target),
            _ => failed(error.error),
        })
    });
    joined(saving.await)
}

async fn print(path: PathBuf) -> Result<(), Failure> {
    let printing = tokio::task::spawn_blocking(move || {
        let copied =
            File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::stdout().lock()));
        match copied {
            // `| head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.map(drop).map_err(|error| {
                Failure::new(Exit::Failed, format!("writing to standard output: {error}"))
            }),
        }
    });
    joined(printing.await)
}

fn joined(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    result.unwrap_or_else(|error| Err(Failure::from_error(Exit::Failed, &error)))
}
