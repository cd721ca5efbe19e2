//! `get` and `describe`: reads records and Jobs, and prints them.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::describe::{self, Describe, Told};
use crate::held_pod::{Ended, Purpose};
use crate::jobs;
use crate::manifest::reference;
use crate::noun::Noun;
use crate::options::backup_name;
use crate::options::{DescribeOptions, GetAllOptions, GetOptions};
use crate::output::{self, Asked, Format, Printable, STATUS, Watch};
use crate::progress::Display;
use crate::records::{self, Record, joined};
use crate::sizes::Sizes;
use crate::stored::{self, Mirror, Reading, Source};
use crate::table::Fit;
use crate::wait::Waiting;
use crate::watch::{self, Watched};
use crate::{client, details, location, lookup, restorable, schedule, similar, volumes, wait};
use ark_job::api::namespace_flag;
use ark_job::api::{
    Backup, CONFIG_NAME, FAILED_REASON_KEY, OPERATION_LABEL, Restore, failed_log_name,
};
use ark_job::args::{Args, Command, FetchFile, PlanFormat, StorageFlags, VolumesArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::repository::{Described, find as find_stored};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodTemplate};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::ApiResource;
use serde_json::Value;
use std::io::ErrorKind;
use std::pin::Pin;

/// The annotation of what is printed, and of nothing that is stored: why an operation does not get on.
pub const WAITING_ANNOTATION: &str = "ark.heptio.com/waiting";
/// For how many operations at a time we ask why they do not get on. There are rarely two.
pub const LOOKS_AT_A_TIME: usize = 8;

/// `backup get`, `restore get`
pub async fn get(
    cluster: &ClusterFlags,
    options: &GetOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let client = &client::connect(cluster).await?.kube;
    let (exit, found) = match options.noun {
        Noun::Backup => {
            let mut options = options.clone();
            let place = lookup::Place {
                cluster,
                storage: None,
                local: false,
            };
            for name in &mut options.names {
                // Scripts ask whether a backup is there by its name: what only begins so is another.
                if backup_name::newest_of(name).is_some() {
                    *name = lookup::backup(&place, name).await?;
                }
            }
            get_records::<Backup>(client, &options, surroundings, interrupt).await?
        }
        Noun::Restore => get_records::<Restore>(client, options, surroundings, interrupt).await?,
    };
    hint_where_ark_is(client, found, &options.namespace, &options.printing.format).await;
    Ok(exit)
}

/// What `get` found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Some,
    None,
}

/// Where nothing is, Ark may not be: whoever has taken `-n` for the namespace that is backed up is told where it is.
async fn hint_where_ark_is(client: &Client, found: Found, namespace: &str, format: &Format) {
    if found == Found::Some || !format.is_table() {
        return;
    }
    let templates: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    // Who may not read it is not told.
    if let Ok(None) = templates.get_opt(CONFIG_NAME).await {
        let what = format!("there is no PodTemplate {CONFIG_NAME} in it");
        let failure = client::not_here(client, namespace, &what).await;
        eprintln!("hint: {}", failure.message());
        if let Some(next) = failure.next_step() {
            eprintln!("hint: {next}");
        }
    }
}

/// `get all`: backups, restores, schedules and storage locations, one table after the other.
pub async fn all(
    cluster: &ClusterFlags,
    options: GetAllOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let GetAllOptions {
        backups,
        mut restores,
        mut schedules,
        mut locations,
    } = options;
    let client = &client::connect(cluster).await?.kube;
    let separate = backups.printing.format != Format::Name;
    for printing in [
        &mut restores.printing,
        &mut schedules.printing,
        &mut locations.printing,
    ] {
        printing.separate = separate;
    }
    let (_, found) =
        get_records::<Backup>(client, &backups, surroundings, interrupt.as_mut()).await?;
    get_records::<Restore>(client, &restores, surroundings, interrupt.as_mut()).await?;
    schedule::view::get(client, &schedules, surroundings, interrupt.as_mut()).await?;
    let exit = location::get(client, &locations, surroundings, interrupt).await?;
    hint_where_ark_is(client, found, &backups.namespace, &backups.printing.format).await;
    Ok(exit)
}

/// `backup describe`, `restore describe`
pub async fn describe(
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
            Described::Ours(marker) => describe::of_marker(&marker),
            Described::Foreign(description) => describe::of_description(name, &description),
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

/// A record, and why the operation does not get on that it records.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<R> {
    /// The record.
    pub record: R,
    /// Why nothing happens, if anything is known.
    pub waiting: Option<Waiting>,
}

impl<R: Record> Printable for Seen<R> {
    const FIT: Fit = R::FIT;

    fn header(wide: bool) -> &'static [&'static str] {
        R::header(wide)
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut row = self.record.row(wide, now);
        let status = R::header(wide).iter().position(|name| *name == STATUS);
        let reason = self.waiting.as_ref().and_then(|one| one.reason.as_ref());
        if let (Some(status), Some(reason)) = (status.and_then(|at| row.get_mut(at)), reason) {
            status.push_str(&format!(" ({reason})"));
        }
        row
    }

    fn value(&self) -> Value {
        let mut record = self.record.clone();
        if let Some(waiting) = &self.waiting {
            let annotations = record.meta_mut().annotations.get_or_insert_default();
            annotations.insert(WAITING_ANNOTATION.to_owned(), waiting.text.clone());
        }
        serde_json::to_value(record).expect("Kubernetes objects can be written as JSON")
    }

    fn reference(&self) -> String {
        let resource = ApiResource::erase::<R>(&());
        reference(&resource, records::name(&self.record))
    }
}

/// Finds out why those do not get on that have not ended.
async fn seen<R: Record>(client: &Client, namespace: &str, records: Vec<R>) -> Vec<Seen<R>> {
    let all = records.into_iter().map(async |record| {
        let waiting = match record.end() {
            Some(_) => None,
            None => wait::waiting::<R>(client, namespace, records::name(&record)).await,
        };
        Seen { record, waiting }
    });
    futures::stream::iter(all)
        .buffered(LOOKS_AT_A_TIME)
        .collect()
        .await
}

async fn get_records<R: Record>(
    client: &Client,
    options: &GetOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<(Exit, Found), Failure> {
    let GetOptions {
        noun,
        namespace,
        names,
        selector,
        printing,
    } = options;
    let look = async || {
        let mut records = Vec::new();
        let mut missing = None;
        if names.is_empty() {
            records = list(client, namespace, selector.as_deref()).await?;
        }
        for name in names {
            match find::<R>(client, namespace, name).await {
                Ok(record) => records.push(record),
                Err(failure) if failure.exit() == Exit::NotFound => missing = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Ok((seen(client, namespace, records).await, missing))
    };
    let asked = Asked {
        namespace,
        by_name: names.len() == 1,
    };
    if printing.watch != Watch::No {
        let watched = [
            Watched::of::<R>(None),
            // Who may not see these sees less.
            Watched::of::<Job>(Some(format!("{OPERATION_LABEL}={}", noun.word()))).optional(),
            Watched::of::<Pod>(Some("batch.kubernetes.io/job-name".into())).optional(),
        ];
        let watching = watch::run(
            client,
            &watched,
            look,
            asked,
            printing,
            surroundings,
            interrupt,
        );
        return Ok((watching.await?, Found::Some));
    }
    let (records, missing) = look().await?;
    let found = match records.is_empty() && selector.is_none() {
        true => Found::None,
        false => Found::Some,
    };
    let exit = output::print_found(records, missing, asked, printing, surroundings)?;
    Ok((exit, found))
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

/// All records, and Jobs without one.
pub async fn list<R: Record>(
    client: &Client,
    namespace: &str,
    selector: Option<&str>,
) -> Result<Vec<R>, Failure> {
    let word = R::NOUN.word();
    let records: Api<R> = Api::namespaced(client.clone(), namespace);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let ours = match selector {
        Some(selector) => ListParams::default().labels(selector),
        None => ListParams::default(),
    };
    let operations = match selector {
        Some(selector) => format!("{OPERATION_LABEL}={word},{selector}"),
        None => format!("{OPERATION_LABEL}={word}"),
    };
    let (records, jobs) = futures::join!(records.list(&ours), async {
        jobs.list(&ListParams::default().labels(&operations)).await
    });
    let records = records.map_err(|error| {
        if client::is_not_found(&error) {
            client::not_installed(&format!("it does not know {word}s"))
        } else {
            client::failure(&error, &format!("listing {word}s in namespace {namespace}"))
        }
    })?;
    // Who may see backups but no Jobs misses only those that have not started.
    let jobs = jobs.map(|jobs| jobs.items).unwrap_or_default();
    Ok(joined(records.items, &jobs))
}

/// One record, or its Job.
///
/// # Errors
/// [`Exit::NotFound`] when there is none, with names that are nearly the same.
pub async fn find<R: Record>(client: &Client, namespace: &str, name: &str) -> Result<R, Failure> {
    if let Some(record) = exact(client, namespace, name).await? {
        return Ok(record);
    }
    let word = R::NOUN.word();
    let all = list::<R>(client, namespace, None).await.unwrap_or_default();
    let question = similar::did_you_mean(name, all.iter().map(records::name));
    let flag = namespace_flag(namespace);
    Err(Failure::new(
        Exit::NotFound,
        format!("there is no {word} {name} in namespace {namespace}"),
    )
    .hint(similar::with_question(
        question,
        format!("`kubectl ark {word} get{flag}` lists them"),
    )))
}

/// The record of exactly this name, or its Job.
///
/// # Errors
/// When that cannot be read, or Ark is not installed.
pub async fn exact<R: Record>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<R>, Failure> {
    let word = R::NOUN.word();
    let doing = format!("reading {word} {name} in namespace {namespace}");
    let records: Api<R> = Api::namespaced(client.clone(), namespace);
    let error = match records.get(name).await {
        Ok(record) => return Ok(Some(record)),
        Err(error) => error,
    };
    let kube::Error::Api(status) = &error else {
        return Err(client::failure(&error, &doing));
    };
    if status.code != 404 {
        return Err(client::failure(&error, &doing));
    }
    // A path that is not served has no details.
    if status
        .details
        .as_ref()
        .is_none_or(|details| details.name.is_empty())
    {
        return Err(client::not_installed(&format!("it does not know {word}s")));
    }
    let job = jobs::find(client, namespace, R::NOUN, name).await;
    let job = job.ok().flatten();
    Ok(job.and_then(|job| records::of_job(&job)))
}
