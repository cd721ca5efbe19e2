//! List: what backups are in storage, without a cluster; and those whose deletion has begun.

use crate::api::BackupStatus;
use crate::args::{ListArgs, PlanFormat};
use crate::context::{Outcome, storage_failure};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::foreign::Origin;
use crate::removal::intact::{Depth, examine};
use crate::repository::inventory::{self, Stored};
use crate::repository::{Described, RepositoryError, find};
use crate::stdout;
use crate::store::Store;
use crate::tombstone::{self, Cause, Found};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use std::collections::BTreeSet;

/// Backups looked at at once; each takes two small reads at a time.
const AT_ONCE: usize = 32;

/// One line.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    /// The cluster's name, or if it has none its UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// Length of the archive, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
}

/// How far it is with one whose deletion has begun.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deletion {
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Whether it can be taken back.
    intact: bool,
    /// What is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

/// Prints them.
///
/// # Errors
/// When storage cannot be listed. What cannot be read of one backup is said in its line.
pub async fn run(store: &Store, arguments: &ListArgs) -> Result<Outcome, Failure> {
    let ListArgs {
        storage: _,
        deleted,
        output,
    } = arguments;
    let listed = listing(store).await?;
    let rows: Vec<Row> = stream::iter(listed)
        .map(|stored| async move {
            match deleted {
                true => deleted_row(store, &stored).await,
                false => row(store, &stored).await,
            }
        })
        .buffered(AT_ONCE)
        .filter_map(async |row| row)
        .collect()
        .await;
    let text = match output {
        PlanFormat::Text => table(&rows, *deleted),
        PlanFormat::Json => lines(&rows),
    };
    stdout::write(text.into()).await?;
    let unreadable = rows.iter().filter(|row| row.error.is_some()).count();
    let what = if *deleted { " being deleted" } else { "" };
    let message = format!("{} backups{what} in {}", rows.len(), store.canonical());
    if unreadable == 0 {
        return Ok(Outcome {
            exit: Exit::Done,
            message,
            hint: None,
        });
    }
    Ok(Outcome {
        exit: Exit::PartiallyFailed,
        message: format!("{message}, of which {unreadable} cannot be read"),
        hint: None,
    })
}

/// What is there, in order of names; original Ark's backups from the top of the bucket among it.
async fn listing(store: &Store) -> Result<Vec<Stored>, Failure> {
    let mut listed = inventory::all(store)
        .await
        .map_err(|error| storage_failure(&error))?;
    let taken: BTreeSet<&str> = listed.iter().map(|stored| stored.name.as_str()).collect();
    let originals = inventory::originals(store, &taken)
        .await
        .map_err(|error| storage_failure(&error))?;
    listed.extend(originals.into_iter().map(|name| Stored {
        name,
        ..Stored::default()
    }));
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// A backup that is there; nothing when there is none, or it is being deleted, or was never committed.
async fn row(store: &Store, stored: &Stored) -> Option<Row> {
    let name = stored.name.clone();
    let found = match find(store, &name).await {
        Ok(found) => found,
        Err(
            RepositoryError::NotFound { .. }
            | RepositoryError::BeingDeleted { .. }
            | RepositoryError::Uncommitted { .. },
        ) => return None,
        Err(RepositoryError::Incomplete { origin, phase, .. }) => {
            return Some(Row {
                name,
                origin: Some(word(origin)),
                phase: Some(phase),
                ..Row::default()
            });
        }
        Err(error) => {
            return Some(Row {
                name,
                error: Some(chain(&error)),
                ..Row::default()
            });
        }
    };
    let origin = found.origin();
    let mut row = match &found.described {
        Described::Ours(marker) => {
            let mut row = of_status(name, Some(&marker.status));
            let uid = || marker.commit.cluster_uid.clone();
            row.cluster = row.cluster.or_else(|| Some(uid()));
            let recorded = marker.commit.archive.length;
            row.size = Some(recorded);
            let length = stored.archive.as_ref().map(|archive| archive.length);
            if length != Some(recorded) {
                row.error = Some(match length {
                    None => format!("{} is missing", found.archive),
                    Some(length) => format!(
                        "{} has {length} bytes, not the recorded {recorded}",
                        found.archive
                    ),
                });
            }
            row
        }
        Described::Foreign(description) => {
            let mut row = of_status(name, Some(&description.status));
            row.phase = Some(description.phase.clone());
            row.size = stored.archive.as_ref().map(|archive| archive.length);
            row
        }
    };
    row.origin = Some(word(origin));
    Some(row)
}

/// A backup that is being deleted; nothing when there is none.
async fn deleted_row(store: &Store, stored: &Stored) -> Option<Row> {
    let listed = stored.tombstone.as_ref()?;
    let name = stored.name.clone();
    let looked = async {
        let tombstone = tombstone::read(store, &listed.key).await?;
        let examined = examine(store, &name, Depth::Listed).await?;
        Ok::<_, crate::removal::RemovalError>((tombstone, examined))
    };
    let (tombstone, examined) = match looked.await {
        Ok((Some(tombstone), mut examined)) => {
            let doubt = examined.doubt();
            examined.missing.extend(doubt);
            (tombstone, examined)
        }
        // Somebody has just finished.
        Ok((None, _)) => return None,
        Err(error) => {
            return Some(Row {
                error: Some(chain(&error)),
                name,
                ..Row::default()
            });
        }
    };
    if tombstone.cause() == Cause::Sweep && examined.target.marker().is_some() {
        // It is void.
        return None;
    }
    let mut row = of_status(name, examined.status.as_ref());
    row.origin = examined.origin.map(word);
    row.size = examined.target.archive().map(|archive| archive.length);
    let (since, cause) = match tombstone {
        Found::Readable(tombstone) => (Some(tombstone.at), Some(tombstone.cause.to_string())),
        Found::Unreadable => (None, None),
    };
    row.deletion = Some(Deletion {
        since,
        cause,
        intact: examined.missing.is_empty(),
        missing: examined.missing,
    });
    Some(row)
}

fn of_status(name: String, status: Option<&BackupStatus>) -> Row {
    let Some(status) = status else {
        return Row {
            name,
            ..Row::default()
        };
    };
    let time = |time: &Option<Time>| time.as_ref().map(|Time(at)| *at);
    Row {
        name,
        phase: status.phase.map(|phase| phase.to_string()),
        started: time(&status.start_timestamp),
        expires: time(&status.expiration),
        cluster: status.cluster_name.clone().or(status.cluster_uid.clone()),
        ..Row::default()
    }
}

fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Ark => "ark",
        Origin::Velero => "velero",
        Origin::OriginalArk => "original",
    }
}

fn lines(rows: &[Row]) -> String {
    let line = |row| serde_json::to_string(row).expect("a line holds only what JSON can say");
    rows.iter().map(|row| line(row) + "\n").collect()
}

fn table(rows: &[Row], deleted: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let titles: &[&str] = match deleted {
        true => &["NAME", "ORIGIN", "SINCE", "CAUSE", "SIZE", "STATE"],
        false => &[
            "NAME", "ORIGIN", "PHASE", "STARTED", "EXPIRES", "CLUSTER", "SIZE", "ERROR",
        ],
    };
    let mut cells: Vec<Vec<String>> = vec![titles.iter().map(|&title| title.to_owned()).collect()];
    for row in rows {
        let origin = row.origin.unwrap_or("-").to_owned();
        let size = row
            .size
            .map_or_else(|| "-".to_owned(), |size| size.to_string());
        cells.push(match deleted {
            true => {
                let deletion = row.deletion.as_ref();
                let state = match (&row.error, deletion) {
                    (Some(error), _) => error.clone(),
                    (None, Some(deletion)) if deletion.intact => "intact".to_owned(),
                    (None, deletion) => {
                        deletion.map_or_else(String::new, |found| found.missing.join("; "))
                    }
                };
                vec![
                    row.name.clone(),
                    origin,
                    time(deletion.and_then(|found| found.since)),
                    text(&deletion.and_then(|found| found.cause.clone())),
                    size,
                    state,
                ]
            }
            false => vec![
                row.name.clone(),
                origin,
                text(&row.phase),
                time(row.started),
                time(row.expires),
                text(&row.cluster),
                size,
                row.error.clone().unwrap_or_default(),
            ],
        });
    }
    align(&cells)
}

/// Columns as wide as their widest cell, three spaces apart, as kubectl's.
pub(crate) fn align(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths);
        let line: String = padded
            .map(|(cell, width)| format!("{cell:<width$}   "))
            .collect();
        line.trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_says_why_a_backup_cannot_be_read() {
        let rows = [
            Row {
                name: "long-name".into(),
                origin: Some("ark"),
                phase: Some("Completed".into()),
                started: Some("2026-11-23T20:15:01Z".parse().unwrap()),
                cluster: Some("west".into()),
                size: Some(2469),
                ..Row::default()
            },
            Row {
                name: "b".into(),
                error: Some("it is malformed".into()),
                ..Row::default()
            },
        ];
        assert_eq!(
            table(&rows, false),
            "NAME        ORIGIN   PHASE       STARTED                EXPIRES   CLUSTER   SIZE   ERROR\n\
             long-name   ark      Completed   2026-11-23T20:15:01Z   -         west      2469\n\
             b           -        -           -                      -         -         -      it is malformed\n"
        );
        assert_eq!(
            lines(&rows[1..]),
            "{\"name\":\"b\",\"error\":\"it is malformed\"}\n"
        );
    }

    #[test]
    fn of_a_deletion_it_is_said_whether_it_can_be_taken_back() {
        let of = |missing: Vec<String>| Row {
            name: "b".into(),
            origin: Some("velero"),
            deletion: Some(Deletion {
                since: Some("2026-11-23T20:15:01Z".parse().unwrap()),
                cause: Some("expire".into()),
                intact: missing.is_empty(),
                missing,
            }),
            ..Row::default()
        };
        let rows = [of(vec![]), of(vec!["x is gone".into(), "y is gone".into()])];
        assert_eq!(
            table(&rows, true),
            "NAME   ORIGIN   SINCE                  CAUSE    SIZE   STATE\n\
             b      velero   2026-11-23T20:15:01Z   expire   -      intact\n\
             b      velero   2026-11-23T20:15:01Z   expire   -      x is gone; y is gone\n"
        );
    }
}
