//! `get`: reads records and Jobs, and prints them.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::manifest::reference;
use crate::noun::Noun;
use crate::options::backup_name;
use crate::options::{GetAllOptions, GetOptions};
use crate::output::{self, Asked, Format, Printable, STATUS, Watch};
use crate::recorded::{find, list};
use crate::records::{self, Record};
use crate::table::Fit;
use crate::wait::Waiting;
use crate::watch::{self, Watched};
use crate::{client, location, lookup, schedule, wait};
use ark_job::api::{Backup, CONFIG_NAME, OPERATION_LABEL, Restore};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplate};
use kube::Client;
use kube::api::Api;
use kube::core::ApiResource;
use serde_json::Value;

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
