//! `backup delete` and `backup undelete`: which backups are meant, the question, and a Job for each place.
//!
//! Names are taken as they are, whoever made the backup; where it is, its resource says. By label or age only this
//! cluster's own backups are chosen: what another cluster, Velero or original Ark made is somebody else's, and is left.
//! [`choose`] decides that; `ark-job` deletes.

use crate::age::{age, bytes};
use crate::cli::ClusterFlags;
use crate::client::{self, Connection};
use crate::consent::{self, Answer};
use crate::options::backup_name::LATEST;
use crate::options::housekeeping::{DeleteOptions, Verb, Which};
use crate::recorded;
use crate::table::{Fit, Table};
use crate::{Surroundings, describe, housekeeping, records, similar, stored};
use ark_job::api::{Backup, BackupPhase, DEFAULT_LOCATION, Restore, RestorePhase};
use ark_job::args::{Args, Command, DeleteArgs, StorageFlags, UndeleteArgs};
use ark_job::cluster::Cluster;
use ark_job::context::storage_failure;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use ark_job::marker::{MAX_LENGTH, Marker};
use ark_job::report::plural;
use ark_job::repository::inventory;
use ark_job::repository::{Described, RepositoryError, find};
use ark_job::selector::{self, AnyOf};
use ark_job::store::Store;
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;
use std::pin::Pin;

/// How many descriptions are read at once: enough to hide the way to the store.
const READ_AT_ONCE: usize = 16;

/// A backup that may be meant.
#[derive(Clone, Debug)]
struct Candidate {
    name: String,
    /// What is known of it; nothing of a name that only storage knows.
    backup: Option<Backup>,
    /// Where it is.
    storage: StorageFlags,
}

/// Which backups go, and which were left though they have the labels and the age.
#[derive(Debug, Default)]
struct Choice {
    chosen: Vec<Candidate>,
    left: Left,
}

/// How many were left, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Another cluster made them.
    other_cluster: usize,
    /// Velero, original Ark, or nobody known made them.
    foreign: usize,
    /// They are being made.
    unfinished: usize,
    /// They are in no location of this cluster's, but at a URL, such as a directory on the machine that made them.
    elsewhere: usize,
}

/// Finds out what is meant, asks if it is to be asked, and has it done.
pub async fn run(
    cluster: &ClusterFlags,
    options: DeleteOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let connection = client::connect(cluster).await?;
    let choosing = chosen(cluster, &connection, &options, surroundings.now);
    let Choice { chosen, left } = tokio::select! {
        chosen = choosing => chosen?,
        () = interrupt.as_mut() => return Ok(Exit::Interrupted),
    };
    left.tell();
    if chosen.is_empty() {
        eprintln!("nothing to delete");
        return Ok(Exit::Done);
    }
    if options.ask {
        let restores = restores(&connection.kube, &options.namespace).await;
        let table = table(&chosen, &restores, surroundings.now);
        eprint!("{}", table.render_within(true, surroundings.width));
        if let Some(exit) = ask(&chosen, interrupt.as_mut()).await {
            return Ok(exit);
        }
    }
    let operations = operations(&options, chosen);
    housekeeping::run_all(
        &connection,
        operations,
        &options.how,
        surroundings,
        interrupt,
    )
    .await
}

async fn ask(chosen: &[Candidate], interrupt: Pin<&mut impl Future<Output = ()>>) -> Option<Exit> {
    let question = match chosen {
        [one] => format!("Delete backup {} for good?", one.name),
        more => format!("Delete these {} backups for good?", more.len()),
    };
    match consent::answer(&question, interrupt).await {
        Answer::Yes => None,
        Answer::No => Some(not_done(Exit::Failed)),
        Answer::Interrupted => Some(not_done(Exit::Interrupted)),
    }
}

fn not_done(exit: Exit) -> Exit {
    eprintln!("nothing was deleted");
    exit
}

/// One operation for each place, in the order in which the places were met.
fn operations(options: &DeleteOptions, chosen: Vec<Candidate>) -> Vec<Args> {
    let mut places: Vec<(StorageFlags, Vec<String>)> = Vec::new();
    for Candidate { name, storage, .. } in chosen {
        match places.iter_mut().find(|(place, _)| *place == storage) {
            Some((_, names)) => names.push(name),
            None => places.push((storage, vec![name])),
        }
    }
    let operation = |(storage, names)| Args {
        namespace: options.namespace.clone(),
        command: match options.verb {
            Verb::Delete => Command::Delete(DeleteArgs { names, storage }),
            Verb::Undelete => Command::Undelete(UndeleteArgs { names, storage }),
        },
    };
    places.into_iter().map(operation).collect()
}

async fn chosen(
    cluster: &ClusterFlags,
    connection: &Connection,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Choice, Failure> {
    let DeleteOptions {
        namespace,
        verb: _,
        which,
        storage,
        ask,
        how,
    } = options;
    let client = &connection.kube;
    // A URL has no resources, and who works here looks for himself.
    let looked_at = storage
        .as_ref()
        .filter(|storage| how.local || storage.storage.is_some());
    match which {
        Which::Names(names) => {
            let mut chosen = Vec::with_capacity(names.len());
            let store = match looked_at {
                Some(storage) if *ask => Some(stored::open(cluster, storage).await?),
                _ => None,
            };
            for name in names {
                chosen.push(match (looked_at, &store) {
                    (Some(storage), None) => Candidate {
                        name: name.clone(),
                        backup: None,
                        storage: storage.clone(),
                    },
                    (Some(storage), Some(store)) => Candidate {
                        name: name.clone(),
                        backup: described(store, name).await.ok().flatten(),
                        storage: storage.clone(),
                    },
                    (None, _) => recorded(client, namespace, name, storage.as_ref()).await?,
                });
            }
            let left = Left::default();
            Ok(Choice { chosen, left })
        }
        Which::Selected {
            selector,
            older_than,
        } => {
            let uid = Cluster::new(connection.operation.clone())
                .uid()
                .await
                .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
            let labelled = match looked_at {
                Some(storage) => in_storage(cluster, storage, selector.as_deref()).await?,
                None => {
                    in_records(client, namespace, storage.as_ref(), selector.as_deref()).await?
                }
            };
            let began_before = older_than
                .map(|age| now.checked_sub(age))
                .transpose()
                // Nothing is as old as that.
                .unwrap_or(Some(Timestamp::MIN));
            Ok(choose(labelled, &uid, began_before))
        }
    }
}

/// Of those with the labels, this cluster's own that are old enough, and of which it is known where they are.
fn choose(labelled: Vec<Candidate>, cluster_uid: &str, began_before: Option<Timestamp>) -> Choice {
    let mut choice = Choice::default();
    for candidate in labelled {
        let Some(backup) = &candidate.backup else {
            continue;
        };
        if let Some(limit) = began_before
            && began(backup).is_none_or(|began| began >= limit)
        {
            continue;
        }
        let made_by = backup
            .status
            .as_ref()
            .and_then(|status| status.cluster_uid.as_deref());
        match made_by {
            Some(uid) if uid == cluster_uid => match records::phase(backup) {
                BackupPhase::New | BackupPhase::InProgress => choice.left.unfinished += 1,
                _ if candidate.storage == StorageFlags::default() => choice.left.elsewhere += 1,
                BackupPhase::Completed
                | BackupPhase::PartiallyFailed
                | BackupPhase::Failed
                | BackupPhase::Deleting => choice.chosen.push(candidate),
            },
            Some(_) => choice.left.other_cluster += 1,
            None => choice.left.foreign += 1,
        }
    }
    choice
}

fn began(backup: &Backup) -> Option<Timestamp> {
    let started = backup
        .status
        .as_ref()
        .and_then(|status| status.start_timestamp.as_ref());
    let created = backup.metadata.creation_timestamp.as_ref();
    started.or(created).map(|time| time.0)
}

/// Why those are left that no location has.
const AT_URL: &str = "no location of this cluster has";

impl Left {
    fn tell(self) {
        for (count, why) in [
            (self.other_cluster, "another cluster made"),
            (self.foreign, "Velero, original Ark or nobody known made"),
            (self.unfinished, "are still being made"),
            (self.elsewhere, AT_URL),
        ] {
            if count > 0 {
                let way_out = match why {
                    "are still being made" => "delete their Jobs first",
                    AT_URL => {
                        "--local on the machine that made them, or --storage URL, says where they are (`kubectl ark backup get`)"
                    }
                    _ => "they can be deleted by name",
                };
                eprintln!(
                    "left: {} that {why}; {way_out}",
                    plural(count as u64, "backup")
                );
            }
        }
    }
}

/// The backup of a name by its resource; without one it is where backups are by default, as for a restore.
async fn recorded(
    client: &Client,
    namespace: &str,
    name: &str,
    storage: Option<&StorageFlags>,
) -> Result<Candidate, Failure> {
    let api: Api<Backup> = Api::namespaced(client.clone(), namespace);
    let backup = api.get_opt(name).await.map_err(|error| {
        client::failure(
            &error,
            &format!("reading backup {name} in namespace {namespace}"),
        )
    })?;
    if backup.is_none() {
        unknown(client, namespace, name).await?;
    }
    let storage = match (storage, &backup) {
        (Some(storage), _) => storage.clone(),
        (None, Some(backup)) => stored::place(backup, name)?.storage,
        (None, None) => stored::at(DEFAULT_LOCATION).storage,
    };
    Ok(Candidate {
        name: name.to_owned(),
        backup,
        storage,
    })
}

/// There is no resource of that name: what is nearly called so is told, but never deleted instead. It may be in storage.
async fn unknown(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    if name == LATEST {
        return Err(Failure::new(
            Exit::Usage,
            "no backup is called latest, and backups are deleted by their whole names: the newest may be another one by now",
        )
        .hint("`kubectl ark backup get` lists them; --older-than 30d deletes old ones"));
    }
    let all = recorded::list::<Backup>(client, namespace, None).await;
    let all = all.unwrap_or_default();
    if let Some(question) = similar::did_you_mean(name, all.iter().map(records::name)) {
        eprintln!("warning: no backup {name} is known here: {question}");
    }
    Ok(())
}

/// Those of the resources that have the labels, of one location or of all.
async fn in_records(
    client: &Client,
    namespace: &str,
    storage: Option<&StorageFlags>,
    selector: Option<&str>,
) -> Result<Vec<Candidate>, Failure> {
    let api: Api<Backup> = Api::namespaced(client.clone(), namespace);
    let params = match selector {
        Some(selector) => ListParams::default().labels(selector),
        None => ListParams::default(),
    };
    let mut backups = api
        .list(&params)
        .await
        .map_err(|error| {
            if client::is_not_found(&error) {
                client::not_installed("it does not know backups")
            } else {
                client::failure(&error, &format!("listing backups in namespace {namespace}"))
            }
        })?
        .items;
    records::sort(&mut backups);
    let location = storage.and_then(|storage| storage.location.as_deref());
    Ok(backups
        .into_iter()
        .filter(|backup| location.is_none() || backup.spec.storage_location.as_deref() == location)
        .map(|backup| Candidate {
            name: records::name(&backup).to_owned(),
            storage: StorageFlags {
                location: backup.spec.storage_location.clone(),
                storage: None,
            },
            backup: Some(backup),
        })
        .collect())
}

/// Those of what is stored that have the labels.
async fn in_storage(
    cluster: &ClusterFlags,
    storage: &StorageFlags,
    selector: Option<&str>,
) -> Result<Vec<Candidate>, Failure> {
    let store = stored::open(cluster, storage).await?;
    let wanted = selector
        .map(selector::parse)
        .transpose()
        .and_then(|wanted| AnyOf::new(wanted.as_ref()))
        .map_err(|why| Failure::new(Exit::Usage, format!("--selector: {why}")))?;
    let stored = inventory::all(&store)
        .await
        .map_err(|error| storage_failure(&error))?;
    let names = stored
        .into_iter()
        .filter(|stored| stored.marker.is_some() || stored.velero.is_some())
        .map(|stored| stored.name);
    let mut reading = stream::iter(names)
        .map(async |name| {
            let described = described(&store, &name).await;
            (name, described)
        })
        .buffered(READ_AT_ONCE);
    let mut found = Vec::new();
    while let Some((name, described)) = reading.next().await {
        match described {
            Ok(Some(backup)) => {
                let labels = backup.metadata.labels.clone().unwrap_or_default();
                if wanted.matches(&labels) {
                    found.push(Candidate {
                        name,
                        backup: Some(backup),
                        storage: storage.clone(),
                    });
                }
            }
            // It has gone meanwhile, or was never committed.
            Ok(None) => {}
            Err(error) => eprintln!("warning: backup {name} is passed over: {}", chain(&error)),
        }
    }
    Ok(found)
}

/// The resource that a stored backup stands for, also when its deletion has begun; `None` when it is no backup (any more).
async fn described(store: &Store, name: &str) -> Result<Option<Backup>, RepositoryError> {
    match find(store, name).await {
        Ok(found) => Ok(Some(match found.described {
            Described::Ours(marker) => describe::of_marker(&marker),
            Described::Foreign(description) => describe::of_description(name, &description),
        })),
        Err(RepositoryError::BeingDeleted { .. }) => {
            let key = ark_job::layout::BackupKeys::new(name).marker();
            let json = store.get(&key, MAX_LENGTH).await?;
            let marker = json.and_then(|json| Marker::from_json(&json).ok());
            Ok(marker.map(|marker| {
                let mut backup = describe::of_marker(&marker);
                if let Some(status) = &mut backup.status {
                    status.phase = Some(BackupPhase::Deleting);
                }
                backup
            }))
        }
        Err(
            RepositoryError::NotFound { .. }
            | RepositoryError::Uncommitted { .. }
            | RepositoryError::Incomplete { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many restores go with each backup, and how many of them are at work. Who may not read them is not told.
async fn restores(client: &Client, namespace: &str) -> BTreeMap<String, (usize, usize)> {
    let api: Api<Restore> = Api::namespaced(client.clone(), namespace);
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for restore in api.list(&ListParams::default()).await.into_iter().flatten() {
        let at_work = records::restore_phase(&restore) == RestorePhase::InProgress;
        let count = counts.entry(restore.spec.backup_name).or_default();
        count.0 += 1;
        count.1 += usize::from(at_work);
    }
    counts
}

/// What goes.
fn table(
    chosen: &[Candidate],
    restores: &BTreeMap<String, (usize, usize)>,
    now: Timestamp,
) -> Table {
    let mut table =
        Table::new(&["NAME", "STATUS", "AGE", "SIZE", "RESTORES", "LOCATION"]).fit(Fit {
            leave_out: &["LOCATION", "SIZE", "STATUS"],
            cut: &[],
        });
    for Candidate {
        name,
        backup,
        storage,
    } in chosen
    {
        let status = backup.as_ref().and_then(|backup| backup.status.as_ref());
        table.push(vec![
            name.clone(),
            backup.as_ref().map_or("unknown".into(), |backup| {
                records::phase(backup).to_string()
            }),
            backup
                .as_ref()
                .and_then(began)
                .map_or("unknown".into(), |began| age(began, now)),
            status
                .and_then(|status| status.size)
                .map_or("unknown".into(), bytes),
            match restores.get(name) {
                None => "0".into(),
                Some((count, 0)) => count.to_string(),
                Some((count, at_work)) => format!("{count} ({at_work} at work)"),
            },
            storage
                .location
                .clone()
                .or(storage.storage.clone())
                .unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::housekeeping::How;
    use crate::render::JobOptions;
    use serde_json::{Value, json};

    fn candidate(name: &str, location: Option<&str>, status: Value) -> Candidate {
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "Backup",
            "metadata": {"name": name, "creationTimestamp": "2026-11-20T00:00:00Z"},
            "spec": {"storageLocation": location}, "status": status,
        }))
        .unwrap();
        Candidate {
            name: name.into(),
            backup: Some(backup),
            storage: StorageFlags {
                location: location.map(str::to_owned),
                storage: None,
            },
        }
    }

    fn at(name: &str, started: &str) -> Candidate {
        candidate(
            name,
            Some("default"),
            json!({"phase": "Completed", "clusterUID": "own", "startTimestamp": started, "size": 2048}),
        )
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice.chosen.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn only_this_clusters_finished_backups_are_chosen_and_the_others_are_counted() {
        let of = |name: &str, status: Value| candidate(name, Some("default"), status);
        let all = vec![
            of("ours", json!({"phase": "Completed", "clusterUID": "own"})),
            of("failed", json!({"phase": "Failed", "clusterUID": "own"})),
            of("going", json!({"phase": "Deleting", "clusterUID": "own"})),
            of(
                "at-work",
                json!({"phase": "InProgress", "clusterUID": "own"}),
            ),
            of(
                "theirs",
                json!({"phase": "Completed", "clusterUID": "other"}),
            ),
            of("velero", json!({"phase": "Completed", "version": "Velero"})),
        ];
        let choice = choose(all, "own", None);
        assert_eq!(names(&choice), ["ours", "failed", "going"]);
        assert_eq!(
            choice.left,
            Left {
                other_cluster: 1,
                foreign: 1,
                unfinished: 1,
                elsewhere: 0
            }
        );
    }

    #[test]
    fn older_than_counts_from_the_start_of_the_backup() {
        let limit = "2026-11-22T00:00:00Z".parse::<Timestamp>().unwrap();
        let all = vec![
            at("old", "2026-11-21T23:59:59Z"),
            at("new", "2026-11-22T00:00:00Z"),
            // It has no start of its own: when its resource was made.
            candidate(
                "failed",
                Some("default"),
                json!({"phase": "Failed", "clusterUID": "own"}),
            ),
        ];
        assert_eq!(
            names(&choose(all.clone(), "own", Some(limit))),
            ["old", "failed"]
        );
        assert!(choose(all, "own", Some(Timestamp::MIN)).chosen.is_empty());
    }

    #[test]
    fn what_was_stored_at_a_url_is_left_by_what_deletes_all() {
        let status = json!({"phase": "Completed", "clusterUID": "own"});
        let local = candidate("laptop", None, status);
        let all = vec![local, at("ours", "2026-11-21T00:00:00Z")];
        let choice = choose(all, "own", None);
        assert_eq!(names(&choice), ["ours"]);
        assert_eq!(choice.left.elsewhere, 1);
    }

    #[test]
    fn each_location_has_an_operation_of_its_own() {
        let options = DeleteOptions {
            namespace: "ark".into(),
            verb: Verb::Delete,
            which: Which::Names(Vec::new()),
            storage: None,
            ask: false,
            how: How {
                requested: Timestamp::UNIX_EPOCH,
                job: JobOptions {
                    ttl_after_finished: None,
                    deadline: None,
                },
                wait: true,
                dry_run: false,
                output: None,
                local: false,
            },
        };
        let mut chosen: Vec<Candidate> = ["a", "b", "c"]
            .iter()
            .map(|name| at(name, "2026-11-21T00:00:00Z"))
            .collect();
        chosen[1].storage.location = Some("other".into());
        let argv: Vec<String> = operations(&options, chosen)
            .iter()
            .map(|args| args.to_argv().join(" "))
            .collect();
        assert_eq!(
            argv,
            [
                "delete a c --location=default --namespace=ark",
                "delete b --location=other --namespace=ark",
            ]
        );
    }

    #[test]
    fn what_goes_is_shown_before_it_is_asked_for() {
        let chosen = [
            at("demo", "2026-11-20T20:15:01Z"),
            Candidate {
                name: "unheard-of".into(),
                backup: None,
                storage: stored::at("other").storage,
            },
        ];
        let restores = [("demo".to_owned(), (3, 1))].into();
        let now = "2026-11-23T20:15:01Z".parse().unwrap();
        assert_eq!(
            table(&chosen, &restores, now).render(true),
            "NAME         STATUS      AGE       SIZE       RESTORES        LOCATION\n\
             demo         Completed   3d        2.00 KiB   3 (1 at work)   default\n\
             unheard-of   unknown     unknown   unknown    0               other\n"
        );
    }
}
