//! Which backup is meant by what was typed: its name, `latest`, `SCHEDULE/latest`, or the unique beginning of its name.
//!
//! A name that is there always wins. What was chosen otherwise is said on standard error. Only what reads a backup or restores
//! it looks it up so: what deletes takes whole names.
//!
//! Names come from the Backup resources; with `--local`, which may know no cluster, from storage. With `--storage` alone only
//! the cluster may be able to read storage: there, names are taken as they are.

use crate::cli::ClusterFlags;
use crate::options::backup_name::{LATEST, newest_of};
use crate::options::restore_name;
use crate::recorded;
use crate::{client, newest, records, similar, stored};
use ark_job::api::Backup;
use ark_job::args::{Args, Command, StorageFlags};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::layout::BACKUPS;

/// How many candidates are told.
const TOLD: usize = 8;

/// Where backups are looked up.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The cluster, and Ark's namespace in it.
    pub cluster: &'a ClusterFlags,
    /// Where it was said that they are; without, wherever resources say.
    pub storage: Option<&'a StorageFlags>,
    /// By this process.
    pub local: bool,
}

impl Place<'_> {
    /// The location whose resources count; `None` inside if all do, `None` outside if there are no resources to ask.
    pub fn records(&self) -> Option<Option<&str>> {
        match self.storage {
            _ if self.local => None,
            None => Some(None),
            Some(StorageFlags {
                storage: Some(_), ..
            }) => None,
            Some(StorageFlags { location, .. }) => Some(location.as_deref()),
        }
    }
}

/// The name of the backup that is meant. One that nothing is known of is taken as it is: it may be there all the same, and who
/// reads it says so if not.
///
/// # Errors
/// [`Exit::NotFound`] when there is no newest one, or several names begin so.
pub async fn backup(place: &Place<'_>, typed: &str) -> Result<String, Failure> {
    named(place, typed, true).await
}

/// As [`backup`], for what then reads the record: if there is none, that says which names are nearly the same.
///
/// # Errors
/// As [`backup`].
pub async fn recorded(place: &Place<'_>, typed: &str) -> Result<String, Failure> {
    named(place, typed, false).await
}

async fn named(place: &Place<'_>, typed: &str, warn: bool) -> Result<String, Failure> {
    if let Some(wanted) = newest_of(typed) {
        // A backup that is really called so.
        if wanted.schedule.is_none() && is_there(place, typed).await {
            return Ok(typed.to_owned());
        }
        return newest::find(place, &wanted).await;
    }
    let names = match place.records() {
        Some(_) if is_there(place, typed).await => return Ok(typed.to_owned()),
        None if !place.local => return Ok(typed.to_owned()),
        _ => names(place).await,
    };
    match choose(typed, &names) {
        Choice::Exact => Ok(typed.to_owned()),
        Choice::Only(name) => {
            eprintln!("{typed} is backup {name}: the only one whose name begins so");
            Ok(name.to_owned())
        }
        Choice::Many(candidates) => Err(ambiguous(typed, &candidates)),
        Choice::None => {
            let question = similar::did_you_mean(typed, names.iter().map(String::as_str));
            if let Some(question) = question.filter(|_| warn) {
                eprintln!("warning: no backup {typed} is known here: {question}");
            }
            Ok(typed.to_owned())
        }
    }
}

/// As [`backup`], for all that a command reads.
///
/// # Errors
/// As [`backup`].
pub async fn fill(place: &Place<'_>, args: &mut Args) -> Result<(), Failure> {
    match &mut args.command {
        Command::Restore(restore) => {
            let found = backup(place, &restore.backup).await?;
            if found != restore.backup {
                let requested = restore.requested.unwrap_or_default();
                // One that was given no name is called after its backup.
                if restore.name == Some(restore_name(&restore.backup, requested)) {
                    restore.name = Some(restore_name(&found, requested));
                }
                restore.backup = found;
            }
        }
        Command::Show(show) => show.backup = backup(place, &show.backup).await?,
        Command::Diff(diff) => {
            diff.backup = backup(place, &diff.backup).await?;
            if let Some(other) = &mut diff.other {
                *other = backup(place, other).await?;
            }
        }
        Command::Volumes(volumes) => {
            for name in &mut volumes.backups {
                *name = backup(place, name).await?;
            }
        }
        // They read no backup, or are not asked for by a person.
        Command::Backup(_)
        | Command::Fetch(_)
        | Command::List(_)
        | Command::Delete(_)
        | Command::Undelete(_)
        | Command::DeleteRestore(_)
        | Command::Expire(_)
        | Command::Doctor(_)
        | Command::Sync(_) => {}
    }
    Ok(())
}

/// Whether there is a backup of exactly this name. That this cannot be found out is for others to tell.
async fn is_there(place: &Place<'_>, name: &str) -> bool {
    let Some(location) = place.records() else {
        return names(place).await.iter().any(|one| one == name);
    };
    let Ok(connection) = client::connect(place.cluster).await else {
        return true;
    };
    match recorded::exact::<Backup>(&connection.kube, &place.cluster.namespace, name).await {
        Ok(Some(backup)) => {
            location.is_none() || backup.spec.storage_location.as_deref() == location
        }
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The names of all backups there, as far as they may be read.
pub async fn names(place: &Place<'_>) -> Vec<String> {
    let Some(location) = place.records() else {
        let Some(storage) = place.storage else {
            return Vec::new();
        };
        return match stored::open(place.cluster, storage).await {
            Ok(store) => store.list_directories(BACKUPS).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
    };
    let Ok(connection) = client::connect(place.cluster).await else {
        return Vec::new();
    };
    let all = recorded::list::<Backup>(&connection.kube, &place.cluster.namespace, None).await;
    all.unwrap_or_default()
        .iter()
        .filter(|backup| location.is_none() || backup.spec.storage_location.as_deref() == location)
        .map(|backup| records::name(backup).to_owned())
        .collect()
}

/// What a text means among names.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Exact,
    Only(&'a str),
    Many(Vec<&'a str>),
    None,
}

fn choose<'a>(typed: &str, names: &'a [String]) -> Choice<'a> {
    if names.iter().any(|name| name == typed) {
        return Choice::Exact;
    }
    let mut found: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with(typed))
        .collect();
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [] => Choice::None,
        [one] => Choice::Only(one),
        _ => Choice::Many(found),
    }
}

fn ambiguous(typed: &str, candidates: &[&str]) -> Failure {
    // The newest of a schedule come first.
    let told: Vec<&str> = candidates.iter().rev().take(TOLD).copied().collect();
    let more = match candidates.len() - told.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let text = format!(
        "no backup is called {typed}, and the names of {} begin so: {}{more}",
        candidates.len(),
        told.join(", ")
    );
    let schedule = told.first().and_then(|name| records::stem(name));
    let failure = Failure::new(Exit::NotFound, text);
    match schedule {
        Some(schedule) if schedule.starts_with(typed) => failure.hint(format!(
            "type more of the name; {schedule}/{LATEST} is the newest complete one of schedule {schedule}"
        )),
        _ => failure.hint("type more of the name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_name_wins_over_what_it_begins() {
        let all = names(&["shop", "shop-2", "web-1"]);
        assert_eq!(choose("shop", &all), Choice::Exact);
        assert_eq!(choose("shop-", &all), Choice::Only("shop-2"));
        assert_eq!(choose("web", &all), Choice::Only("web-1"));
        assert_eq!(choose("sho", &all), Choice::Many(vec!["shop", "shop-2"]));
        assert_eq!(choose("hop", &all), Choice::None);
    }

    #[test]
    fn candidates_are_listed_the_newest_of_a_schedule_first() {
        let all: Vec<String> = (1..=9)
            .map(|day| format!("nightly-2026112{day}000000"))
            .collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let failure = ambiguous("night", &all);
        assert_eq!(failure.exit(), Exit::NotFound);
        let begins = "no backup is called night, and the names of 9 begin so: nightly-20261129000000, nightly-20261128000000";
        assert!(
            failure.message().starts_with(begins),
            "{}",
            failure.message()
        );
        assert!(failure.message().ends_with(", and 1 more"));
        assert!(failure.next_step().unwrap().contains("nightly/latest"));
    }

    #[test]
    fn resources_are_asked_where_there_are_some() {
        let cluster = ClusterFlags::default();
        let storage = |location: Option<&str>, url: Option<&str>| StorageFlags {
            location: location.map(str::to_owned),
            storage: url.map(str::to_owned),
        };
        let at = |storage: Option<&StorageFlags>, local| {
            let place = Place {
                cluster: &cluster,
                storage,
                local,
            };
            place.records().map(|location| location.map(str::to_owned))
        };
        assert_eq!(at(None, false), Some(None));
        let named = storage(Some("other"), None);
        assert_eq!(at(Some(&named), false), Some(Some("other".into())));
        assert_eq!(at(Some(&named), true), None);
        assert_eq!(at(Some(&storage(None, Some("s3://b"))), false), None);
    }
}
