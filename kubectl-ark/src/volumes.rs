//! What `describe` and `get` say about the volumes of a backup: how many, which snapshots, and how those are now.
//!
//! What the record has is printed at once. How a snapshot is now, the cloud and the cluster know: `ark-job volumes` asks
//! them, in a pod, and [`states`] reads what it has printed.

use crate::age::bytes;
use crate::table::{Fit, Table};
use ark_job::api::{Backup, BackupStatus, VolumeBackup, VolumeCounts, namespace_flag};
use ark_job::report::plural;
use serde_json::{Deserializer, Value};

/// One line on how many volumes there were, by what became of their data.
pub fn counted(counts: &VolumeCounts) -> String {
    let VolumeCounts {
        snapshotted,
        skipped,
        missing,
    } = counts;
    let mut text = format!("{snapshotted} with a snapshot");
    for (count, what) in [(skipped, "skipped"), (missing, "without a snapshot")] {
        if *count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// The cell of a table: how many have a snapshot, of those that should have one; empty when there was no volume.
pub fn cell(status: &BackupStatus) -> String {
    status
        .volumes
        .map(|counts| {
            let VolumeCounts {
                snapshotted,
                skipped: _,
                missing,
            } = counts;
            format!("{snapshotted}/{}", snapshotted + missing)
        })
        .unwrap_or_default()
}

/// Whether a backup has snapshots, as far as its record says.
pub fn has_snapshots(backup: &Backup) -> bool {
    let Some(status) = &backup.status else {
        return false;
    };
    let counted = status.volumes.is_some_and(|counts| counts.snapshotted > 0);
    counted || !status.volume_backups.is_empty()
}

/// The table of snapshots that the record has, in a terminal of `width` columns if that is given, and where the rest and the present are to be found.
pub fn section(backup: &Backup, name: &str, width: Option<usize>) -> Option<String> {
    let status = backup.status.as_ref()?;
    let recorded = &status.volume_backups;
    if recorded.is_empty() {
        return None;
    }
    let header = ["VOLUME", "DRIVER", "SNAPSHOT", "SIZE", "TYPE", "ZONE"];
    let mut table = Table::new(&header).fit(Fit {
        leave_out: &["TYPE", "ZONE", "DRIVER", "SIZE"],
        cut: &[],
    });
    for (persistent_volume, snapshot) in recorded {
        let VolumeBackup {
            snapshot_id,
            driver,
            size,
            volume_type,
            availability_zone,
        } = snapshot;
        table.push(vec![
            persistent_volume.clone(),
            driver.clone(),
            snapshot_id.clone(),
            size.map(bytes).unwrap_or_default(),
            volume_type.clone().unwrap_or_default(),
            availability_zone.clone().unwrap_or_default(),
        ]);
    }
    let mut text = indented(&within(&table, width));
    let known = u64::try_from(recorded.len()).unwrap_or(u64::MAX);
    let all = status.volumes.map_or(known, |counts| counts.snapshotted);
    let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
    let command = format!("`kubectl ark volumes {name}{}`", namespace_flag(namespace));
    if all > known {
        text.push_str(&format!("  and {} more: {command}\n", all - known));
    }
    text.push_str(&format!("  How they are now: {command}\n"));
    Some(text)
}

/// The table of how snapshots are now, from what `ark-job volumes -o json` has printed, in a terminal of `width` columns if that is
/// given; empty when there is none.
///
/// # Errors
/// When that is no JSON.
pub fn states(printed: &[u8], width: Option<usize>) -> Result<String, serde_json::Error> {
    let mut table = Table::new(&["VOLUME", "SNAPSHOT", "SIZE", "STATE"]).fit(Fit {
        leave_out: &["SIZE"],
        cut: &["STATE"],
    });
    let mut count = 0;
    for row in rows(printed)? {
        count += 1;
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        table.push(vec![
            text("persistentVolume"),
            text("snapshot"),
            row["size"].as_i64().map(bytes).unwrap_or_default(),
            text("state"),
        ]);
    }
    if count == 0 {
        return Ok(String::new());
    }
    let title = format!("\nSnapshots now ({}):\n", plural(count, "snapshot"));
    Ok(title + &indented(&within(&table, width)))
}

/// One object a line.
fn rows(printed: &[u8]) -> Result<Vec<Value>, serde_json::Error> {
    let mut rows = Vec::new();
    for value in Deserializer::from_slice(printed).into_iter::<Value>() {
        rows.push(value?);
    }
    Ok(rows)
}

/// How far a table of snapshots is indented.
const INDENTED: usize = 2;

/// A table that is then indented.
fn within(table: &Table, width: Option<usize>) -> String {
    table.render_within(true, width.map(|width| width.saturating_sub(INDENTED)))
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(status: Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "Backup", "metadata": {"name": "demo", "namespace": "ark"},
            "spec": {}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn without_volumes_nothing_is_said_of_them() {
        let none = backup(json!({"phase": "Completed"}));
        assert_eq!(section(&none, "demo", None), None);
        assert!(!has_snapshots(&none));
        let status = none.status.unwrap();
        assert_eq!(cell(&status), "");
        let skipped = backup(json!({"volumes": {"snapshotted": 0, "skipped": 2, "missing": 0}}));
        assert!(!has_snapshots(&skipped));
        let counts = skipped.status.unwrap().volumes.unwrap();
        assert_eq!(counted(&counts), "0 with a snapshot, 2 skipped");
    }

    #[test]
    fn states_are_those_that_were_printed() {
        assert_eq!(states(b"", None).unwrap(), "");
        let printed = b"{\"backup\":\"demo\",\"persistentVolume\":\"pv-1\",\"driver\":\"ebs.csi.aws.com\",\"snapshot\":\"snap-1\",\
            \"size\":1073741824,\"state\":\"pending 42%\"}\n{\"persistentVolume\":\"pv-2\",\"snapshot\":\"h\",\"state\":\"recorded\"}\n";
        assert_eq!(
            states(printed, None).unwrap(),
            "\nSnapshots now (2 snapshots):\n\
            \x20 VOLUME   SNAPSHOT   SIZE       STATE\n\
            \x20 pv-1     snap-1     1.00 GiB   pending 42%\n\
            \x20 pv-2     h          <none>     recorded\n"
        );
        states(b"not here", None).unwrap_err();
    }

    #[test]
    fn what_the_record_leaves_out_is_counted() {
        let many = backup(json!({
            "volumes": {"snapshotted": 201, "skipped": 0, "missing": 1},
            "volumeBackups": {"pv-1": {"snapshotID": "snap-1", "driver": "ebs.csi.aws.com", "size": 1_073_741_824}},
        }));
        assert!(has_snapshots(&many));
        assert_eq!(cell(many.status.as_ref().unwrap()), "201/202");
        let text = section(&many, "demo", Some(24)).unwrap();
        assert!(
            text.starts_with("  VOLUME   SNAPSHOT\n  pv-1     snap-1\n"),
            "{text}"
        );
        let text = section(&many, "demo", None).unwrap();
        assert!(text.contains("ebs.csi.aws.com"), "{text}");
        assert!(
            text.contains("and 200 more: `kubectl ark volumes demo -n ark`"),
            "{text}"
        );
    }
}
