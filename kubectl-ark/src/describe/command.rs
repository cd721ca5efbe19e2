//! `describe`: reads a record, and with `--details` what is stored, and prints them.

use super::{Describe, Told};
use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::held_pod::{Ended, Purpose};
use crate::noun::Noun;
use crate::options::DescribeOptions;
use crate::progress::Display;
use crate::recorded::find;
use crate::records::Record;
use crate::sizes::Sizes;
use crate::stored::{self, Mirror, Reading, Source};
use crate::{client, details, lookup, restorable, volumes, wait};
use ark_job::api::{Backup, FAILED_REASON_KEY, Restore, failed_log_name};
use ark_job::args::{Args, Command, FetchFile, PlanFormat, StorageFlags, VolumesArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::repository::{Described, find as find_stored};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use std::io::ErrorKind;
use std::pin::Pin;

/// `backup describe`, `restore describe`
pub async fn run(
    cluster: &ClusterFlags,
    options: &DescribeOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    for (index, name) in options.names.iter().enumerate() {
        if index > 0 {
            print!("\n\n");
        }
        let described = match options.noun {
            Noun::Backup => {
                describe_backup(cluster, options, name, surroundings, interrupt.as_mut()).await?
            }
            Noun::Restore => {
                let client = client::connect(cluster).await?.kube;
                describe_record::<Restore>(&client, options, name, surroundings)
                    .await
                    .map(Some)?
                    .map(drop)
            }
        };
        if described.is_none() {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Done)
}

/// `None` when interrupted.
async fn describe_backup(
    cluster: &ClusterFlags,
    options: &DescribeOptions,
    name: &str,
    surroundings: &Surroundings,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<()>, Failure> {
    // Of what is only stored, nobody knows yet.
    let mut snapshots = options.details;
    let place = lookup::Place {
        cluster,
        storage: options.source.as_ref().map(|from| &from.storage),
        local: options.source.as_ref().is_some_and(|from| from.local),
    };
    // Of a name that the cluster does not know, it says itself which may be meant.
    let name = &match options.source {
        Some(_) => lookup::backup(&place, name).await?,
        None => lookup::recorded(&place, name).await?,
    };
    let from = match &options.source {
        Some(from) => from.clone(),
        None => {
            let client = client::connect(cluster).await?.kube;
            let backup = describe_record::<Backup>(&client, options, name, surroundings).await?;
            if !options.details && !options.check {
                return Ok(Some(()));
            }
            snapshots = options.details && volumes::has_snapshots(&backup);
            match backup.end() {
                Some(Exit::Done | Exit::PartiallyFailed) => stored::place(&backup, name)?,
                _ => {
                    let field = if options.details {
                        "Resource list"
                    } else {
                        "Restorable here"
                    };
                    println!(
                        "\n{:20}<none>: the backup is not complete",
                        format!("{field}:")
                    );
                    return Ok(Some(()));
                }
            }
        }
    };
    let display = Display::new("backup", name, surroundings.terminal);
    let mirror = Mirror::new(&surroundings.temporary, name).await?;
    let reading = Reading {
        cluster,
        surroundings,
        backup: name,
        from: &from,
        purpose: match snapshots {
            true => Purpose::Volumes,
            false => Purpose::Read,
        },
        display: &display,
    };
    let fetched = reading
        .run(interrupt, async |source| {
            mirror.fetch(source, FetchFile::Marker, |_| {}).await?;
            if !options.details && !options.check {
                return Ok((Listed::NotAsked, Ok(None), None, Ok(None)));
            }
            let list = mirror.fetch(source, FetchFile::ResourceList, |_| {});
            let listed = match list.await {
                Ok(()) => Listed::Here,
                // Original Ark wrote none.
                Err(failure) if failure.exit() == Exit::NotFound => Listed::Nowhere,
                Err(failure) => return Err(failure),
            };
            let needed = match options.check && listed == Listed::Here {
                true => {
                    Some(restorable::needed(source, &mirror, &from, cluster, surroundings).await?)
                }
                false => None,
            };
            if !options.details {
                return Ok((listed, Ok(None), needed, Ok(None)));
            }
            let sizes = match listed {
                Listed::Here => match sizes(source, &mirror, name).await {
                    Err(failure) if failure.exit() == Exit::Integrity => return Err(failure),
                    sizes => sizes,
                },
                Listed::Nowhere | Listed::NotAsked => Ok(None),
            };
            let may_have = match options.source {
                None => snapshots,
                Some(_) => match find_stored(mirror.store(), name).await?.described {
                    Described::Ours(marker) => !marker.commit.volumes.is_empty(),
                    Described::Foreign(_) => true,
                },
            };
            let states = match may_have {
                true => {
                    source
                        .printed(&states_of(cluster, &from.storage, name))
                        .await
                }
                false => Ok(None),
            };
            Ok((listed, states, needed, sizes))
        })
        .await;
    display.end();
    let Some((listed, states, needed, sizes)) = fetched? else {
        return Ok(None);
    };
    if options.source.is_some() {
        let backup = match find_stored(mirror.store(), name).await?.described {
            Described::Ours(marker) => super::of_marker(&marker),
            Described::Foreign(description) => super::of_description(name, &description),
        };
        print!(
            "{}",
            backup.describe(None, surroundings.now, surroundings.width)
        );
    }
    print_states(states, surroundings.width)?;
    // An archive that has been moved to cold storage keeps nobody from seeing the rest.
    let sizes = sizes.unwrap_or_else(|failure| {
        eprintln!("warning: sizes are not known: {}", failure.message());
        None
    });
    if listed == Listed::Nowhere {
        if options.check {
            println!(
                "\nRestorable here:    <unknown>: storage has no list of what is in the backup, by which this is checked;\n\
                 {:20}`kubectl ark restore plan {name}` reads the backup itself, and says what would become of it",
                ""
            );
        }
        if options.details {
            println!("\nResource list:      <none>: there is none in storage");
        }
    }
    if let Some(needed) = needed {
        let client = client::connect(cluster).await?.kube;
        print!("{}", restorable::check(&client, &needed).await?);
    }
    if listed == Listed::Here && options.details {
        match details::write(
            &mirror.path(FetchFile::ResourceList),
            sizes.as_ref(),
            std::io::stdout().lock(),
            surroundings.width,
        ) {
            // `| head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other.map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("reading the resource list of backup {name}: {error}"),
                )
            })?,
        }
    }
    Ok(Some(()))
}

/// How large what is in the backup is; `None` when only counts are known: of what others made, or when the image of the pod is of
/// a version that cannot tell.
async fn sizes(
    source: &Source<'_>,
    mirror: &Mirror,
    backup: &str,
) -> Result<Option<Sizes>, Failure> {
    match mirror.fetch(source, FetchFile::Footer, |_| {}).await {
        Ok(()) => {}
        Err(failure) if matches!(failure.exit(), Exit::NotFound | Exit::Usage) => return Ok(None),
        Err(failure) => return Err(failure),
    }
    let read = Sizes::read(&mirror.path(FetchFile::Footer));
    read.map(Some).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("reading the footer of backup {backup}: {error}"),
        )
    })
}

/// What tells how the snapshots of a backup are now.
fn states_of(cluster: &ClusterFlags, storage: &StorageFlags, backup: &str) -> Args {
    Args {
        namespace: cluster.namespace.clone(),
        command: Command::Volumes(VolumesArgs {
            backups: vec![backup.to_owned()],
            storage: storage.clone(),
            orphans: false,
            output: PlanFormat::Json,
        }),
    }
}

/// Prints how snapshots are now. That this is not known keeps nobody from seeing the rest.
fn print_states(
    states: Result<Option<(Vec<u8>, Ended)>, Failure>,
    width: Option<usize>,
) -> Result<(), Failure> {
    let unknown = |failure: &Failure| {
        eprintln!(
            "warning: how the snapshots are now is not known: {}",
            failure.message()
        );
    };
    let (printed, ended) = match states {
        Ok(Some(states)) => states,
        Ok(None) => return Ok(()),
        Err(failure) => {
            unknown(&failure);
            return Ok(());
        }
    };
    for warning in &ended.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(failure) = &ended.failure {
        unknown(failure);
    }
    let table = volumes::states(&printed, width).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("reading how the snapshots are now: {error}"),
        )
    })?;
    print!("{table}");
    Ok(())
}

/// Where the list of what is in a backup is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    NotAsked,
    Here,
    Nowhere,
}

async fn describe_record<R: Record + Describe>(
    client: &Client,
    options: &DescribeOptions,
    name: &str,
    surroundings: &Surroundings,
) -> Result<R, Failure> {
    let record = find::<R>(client, &options.namespace, name).await?;
    let namespace = &options.namespace;
    let (waits, failed) = match record.end() {
        None => (wait::waiting::<R>(client, namespace, name).await, None),
        Some(Exit::Failed) => (None, said_last::<R>(client, namespace, name).await),
        Some(_) => (None, None),
    };
    let told = match (&waits, &failed) {
        (Some(waits), _) => Some(Told::Waits(&waits.text)),
        (None, Some(failed)) => Some(Told::Failed(failed)),
        (None, None) => None,
    };
    print!(
        "{}",
        record.describe(told, surroundings.now, surroundings.width)
    );
    Ok(record)
}

/// Why an operation failed, as its pod said, or as was kept of that. It only explains: who may not read it learns less.
async fn said_last<R: Record>(client: &Client, namespace: &str, name: &str) -> Option<String> {
    if let Some((said, hint)) = wait::said_last::<R>(client, namespace, name).await {
        return Some(match hint {
            Some(hint) => format!("{said}\nhint: {hint}"),
            None => said,
        });
    }
    match R::NOUN {
        Noun::Backup => {
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let kept = maps.get_opt(&failed_log_name(name)).await.ok()??;
            kept.data?.remove(FAILED_REASON_KEY)
        }
        Noun::Restore => None,
    }
}
