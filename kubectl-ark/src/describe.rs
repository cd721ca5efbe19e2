//! What `describe` says about a backup or restore: all of it, for a person.

pub mod command;

use crate::age::{age, bytes, time, until};
use crate::records::{expires, name, phase, place, restore_phase};
use crate::volumes;
use ark_job::api::{Backup, BackupPhase, BackupSpec, BackupStatus, Restore, namespace_flag};
use ark_job::args::NO_HOOKS;
use ark_job::foreign::Description;
use ark_job::marker::Marker;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Width of the names of fields.
const WIDTH: usize = 20;

/// What is known of an operation beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// Why nothing happens.
    Waits(&'a str),
    /// What its pod said before it failed.
    Failed(&'a str),
}

/// A thing that can be described.
pub trait Describe {
    /// The whole text; with what else is known of its operation; its tables in a terminal of `width` columns if that is given.
    fn describe(&self, told: Option<Told<'_>>, now: Timestamp, width: Option<usize>) -> String;
}

/// The Backup resource that a stored backup stands for.
pub fn of_marker(marker: &Marker) -> Backup {
    let mut backup = Backup::new(&marker.metadata.name, marker.spec.clone());
    backup.metadata.namespace = Some(marker.commit.namespace.clone());
    backup.metadata.labels = Some(marker.metadata.labels.clone());
    backup.metadata.annotations = Some(marker.metadata.annotations.clone());
    backup.status = Some(marker.status.clone());
    backup
}

/// The Backup resource that a backup of Velero's or original Ark's stands for.
pub fn of_description(name: &str, description: &Description) -> Backup {
    let mut backup = Backup::new(name, description.spec.clone());
    backup.metadata.namespace = Some(description.namespace.clone());
    backup.metadata.labels = Some(description.labels.clone());
    backup.status = Some(BackupStatus {
        version: Some(description.origin.to_string()),
        ..description.status.clone()
    });
    backup
}

/// A text of named fields.
#[derive(Default)]
pub struct Page(String);

impl Page {
    /// A field; further lines of its value are indented.
    pub fn field(&mut self, name: &str, value: impl AsRef<str>) {
        let mut lines = value.as_ref().lines();
        let first = lines
            .next()
            .filter(|line| !line.is_empty())
            .unwrap_or("<none>");
        let _infallible = writeln!(self.0, "{:WIDTH$}{first}", format!("{name}:"));
        for line in lines {
            let _infallible = writeln!(self.0, "{:WIDTH$}{line}", "");
        }
    }

    /// A field, if it has a value.
    pub fn some(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// The whole text.
    pub fn text(self) -> String {
        self.0
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.0.push('\n');
    }

    /// Name, namespace, labels and annotations.
    pub fn metadata(&mut self, metadata: &ObjectMeta, name: &str) {
        self.field("Name", name);
        self.field(
            "Namespace",
            metadata.namespace.as_deref().unwrap_or_default(),
        );
        self.field("Labels", pairs(metadata.labels.as_ref(), "="));
        self.field("Annotations", pairs(metadata.annotations.as_ref(), "="));
        self.gap();
    }

    fn selection(
        &mut self,
        included: [&[String]; 2],
        excluded: [&[String]; 2],
        cluster: Option<bool>,
    ) {
        for ((what, included), excluded) in ["Namespaces", "Resources"]
            .iter()
            .zip(included)
            .zip(excluded)
        {
            let included = if included.is_empty() {
                "*".into()
            } else {
                included.join(", ")
            };
            self.field(what, included);
            if !excluded.is_empty() {
                self.field("  Excluded", excluded.join(", "));
            }
        }
        self.field(
            "Cluster-scoped",
            match cluster {
                None => "auto",
                Some(true) => "included",
                Some(false) => "excluded",
            },
        );
    }

    /// What a backup is of, and where it goes.
    pub fn contents(&mut self, spec: &BackupSpec, place: Option<&str>) {
        self.selection(
            [&spec.included_namespaces, &spec.included_resources],
            [&spec.excluded_namespaces, &spec.excluded_resources],
            spec.include_cluster_resources,
        );
        self.field(
            "Label selector",
            spec.label_selector
                .as_ref()
                .into_iter()
                .chain(&spec.or_label_selectors)
                .map(selector)
                .collect::<Vec<_>>()
                .join(" or "),
        );
        self.some(
            "May be missing",
            (!spec.ignore_undiscoverable.is_empty()).then(|| spec.ignore_undiscoverable.join(", ")),
        );
        self.field(
            "Snapshots",
            match spec.snapshot_volumes {
                None => "auto",
                Some(true) => "wanted",
                Some(false) => "not wanted",
            },
        );
        self.some(
            "  Chosen by",
            spec.resource_policy
                .as_ref()
                .map(|name| format!("ConfigMap {name}")),
        );
        self.some("  Time-out", spec.csi_snapshot_timeout.as_ref());
        self.some("Hooks", spec.hooks.as_deref().map(hooks));
        self.field("Location", place.unwrap_or_default());
    }

    fn times(
        &mut self,
        started: Option<&Time>,
        completed: Option<&Time>,
        heartbeat: Option<&Time>,
        now: Timestamp,
    ) {
        let moment = |at: Timestamp| format!("{} ({} ago)", time(at), age(at, now));
        self.some("Started", started.map(|started| moment(started.0)));
        match (started, completed) {
            (Some(started), Some(completed)) => {
                let took = age(started.0, completed.0);
                self.field("Completed", format!("{} (took {took})", time(completed.0)));
            }
            (Some(_), None) => self.some("Last sign of life", heartbeat.map(|at| moment(at.0))),
            _ => {}
        }
    }

    fn told(&mut self, told: Option<Told<'_>>, reason: Option<&str>) {
        match told {
            None => {}
            Some(Told::Waits(what)) => self.field("Waiting for", what),
            // The record may say the same.
            Some(Told::Failed(said)) if reason.is_some_and(|reason| reason.contains(said)) => {}
            Some(Told::Failed(said)) => self.field("Its pod said", said),
        }
    }

    /// Errors and warnings, by what they are about.
    fn messages(&mut self, warnings: u64, errors: u64, messages: &[String]) {
        for (field, kind, count) in [
            ("Errors", "error: ", errors),
            ("Warnings", "warning: ", warnings),
        ] {
            self.field(field, count.to_string());
            let texts = messages.iter().filter_map(|text| text.strip_prefix(kind));
            let known = texts.clone().count() as u64;
            for (about, texts) in grouped(texts) {
                if let Some(about) = about {
                    let _infallible = writeln!(self.0, "  {about}:");
                }
                let indent = if about.is_some() { "    " } else { "  " };
                for (text, times) in texts {
                    let times = if times > 1 {
                        format!(" ({times} times)")
                    } else {
                        String::new()
                    };
                    let _infallible = writeln!(self.0, "{indent}{text}{times}");
                }
            }
            if known > 0 && known < count {
                let _infallible =
                    writeln!(self.0, "  and {} more, which the log has", count - known);
            }
        }
    }
}

/// Texts with how often each is there, in the order in which they first come.
type Counted<'a> = Vec<(&'a str, u64)>;

/// Messages by what they are about: nothing (the operation itself), `cluster`, `namespace NAME`; in the order in which they come.
fn grouped<'a>(messages: impl Iterator<Item = &'a str>) -> Vec<(Option<&'a str>, Counted<'a>)> {
    let mut groups: Vec<(Option<&str>, Counted<'_>)> = Vec::new();
    for message in messages {
        let (about, text) = match message.split_once(": ") {
            Some((about, text)) if about == "cluster" || is_namespace(about) => (Some(about), text),
            _ => (None, message),
        };
        let index = groups.iter().position(|(known, _)| *known == about);
        let index = index.unwrap_or_else(|| {
            groups.push((about, Vec::new()));
            groups.len() - 1
        });
        let texts = &mut groups[index].1;
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times += 1,
            None => texts.push((text, 1)),
        }
    }
    groups
}

fn is_namespace(about: &str) -> bool {
    let name = about.strip_prefix("namespace ");
    name.is_some_and(|name| !name.contains(' '))
}

/// The moment that all objects are of: a revision, which the API server read between two times.
fn instant(status: &BackupStatus) -> Option<String> {
    let revision = status.resource_version.as_ref()?;
    let between = match (&status.start_timestamp, &status.completion_timestamp) {
        (Some(from), Some(to)) => format!(
            ", between {} and {}",
            time(from.0),
            to.0.strftime("%H:%M:%S UTC")
        ),
        _ => String::new(),
    };
    Some(format!("resourceVersion {revision}{between}"))
}

fn pairs(map: Option<&BTreeMap<String, String>>, separator: &str) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}{separator}{value}"))
        .collect();
    lines.join("\n")
}

/// A label selector in kubectl's notation.
fn selector(selector: &LabelSelector) -> String {
    let mut terms: Vec<String> = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        terms.push(match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "DoesNotExist" => format!("!{}", one.key),
            _ => one.key.clone(),
        });
    }
    terms.join(",")
}

/// What to do about a deletion that has begun.
fn deletion(backup: &Backup) -> String {
    let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
    let (name, flag) = (name(backup), namespace_flag(namespace));
    format!(
        "has begun: `kubectl ark backup delete {name}{flag}` goes on with it,\n`kubectl ark backup undelete {name}{flag}` takes it \
         back as long as nothing is lost"
    )
}

impl Describe for Backup {
    fn describe(&self, told: Option<Told<'_>>, now: Timestamp, width: Option<usize>) -> String {
        let spec = &self.spec;
        let status = self.status.clone().unwrap_or_default();
        let mut page = Page::default();
        page.metadata(&self.metadata, name(self));
        page.field("Phase", phase(self).to_string());
        page.some("Reason", status.failure_reason.as_ref());
        page.told(told, status.failure_reason.as_deref());
        if phase(self) == BackupPhase::Deleting {
            page.field("Deletion", deletion(self));
        }
        page.gap();
        page.contents(spec, place(self));
        page.gap();
        page.times(
            status.start_timestamp.as_ref(),
            status.completion_timestamp.as_ref(),
            status.heartbeat.as_ref(),
            now,
        );
        page.field(
            "Expires",
            expires(self).map_or("never".into(), |at| {
                format!("{} ({})", time(at), until(at, now))
            }),
        );
        page.some("Instant", instant(&status));
        page.some(
            "Cluster",
            cluster(
                status.cluster_name.as_deref(),
                status.cluster_uid.as_deref(),
            ),
        );
        page.some(
            "Objects",
            status.progress.map(|progress| match progress.total_items {
                Some(total) if total != progress.items_backed_up => {
                    format!("{} of {total}", progress.items_backed_up)
                }
                _ => progress.items_backed_up.to_string(),
            }),
        );
        page.some(
            "Left out",
            (status.skipped > 0)
                .then(|| format!("{} (being deleted, or labelled so)", status.skipped)),
        );
        page.some("Size", status.size.map(bytes));
        page.some(
            "Hooks run",
            status
                .hook_status
                .map(|hooks| format!("{} ({} failed)", hooks.attempted, hooks.failed)),
        );
        let frozen = status.freeze.unwrap_or_default().pods;
        page.some(
            "Frozen",
            (!frozen.is_empty()).then(|| {
                let pods: Vec<String> = frozen
                    .iter()
                    .map(|pod| format!("{}/{}", pod.namespace, pod.name))
                    .collect();
                pods.join("\n")
            }),
        );
        page.some("Format version", status.format_version.as_ref());
        page.some("Made by", status.version.as_ref());
        if let Some(counts) = &status.volumes {
            page.gap();
            page.field("Volumes", volumes::counted(counts));
        }
        if let Some(section) = volumes::section(self, name(self), width) {
            page.0.push_str(&section);
        }
        page.gap();
        page.messages(status.warnings, status.errors, &status.messages);
        page.0
    }
}

/// Which hooks were asked for.
fn hooks(configmap: &str) -> String {
    match configmap {
        NO_HOOKS => "none are run".to_owned(),
        name => format!("of pods' annotations, and ConfigMap {name}"),
    }
}

fn cluster(name: Option<&str>, uid: Option<&str>) -> Option<String> {
    match (name.filter(|name| !name.is_empty()), uid) {
        (Some(name), Some(uid)) => Some(format!("{name} ({uid})")),
        (name, uid) => name.or(uid).map(str::to_owned),
    }
}

impl Describe for Restore {
    fn describe(&self, told: Option<Told<'_>>, now: Timestamp, _width: Option<usize>) -> String {
        let spec = &self.spec;
        let status = self.status.clone().unwrap_or_default();
        let mut page = Page::default();
        page.metadata(&self.metadata, name(self));
        page.field("Backup", &spec.backup_name);
        page.field(
            "Location",
            spec.storage_location.clone().unwrap_or_default(),
        );
        page.field("Phase", restore_phase(self).to_string());
        page.some("Reason", status.failure_reason.as_ref());
        page.told(told, status.failure_reason.as_deref());
        page.gap();
        page.selection(
            [&spec.included_namespaces, &spec.included_resources],
            [&spec.excluded_namespaces, &spec.excluded_resources],
            spec.include_cluster_resources,
        );
        page.field(
            "Label selector",
            spec.label_selector
                .as_ref()
                .into_iter()
                .chain(&spec.or_label_selectors)
                .map(selector)
                .collect::<Vec<_>>()
                .join(" or "),
        );
        page.field(
            "Namespace mapping",
            pairs(Some(&spec.namespace_mapping), " → "),
        );
        page.some(
            "Class mapping",
            (!spec.storage_class_mapping.is_empty())
                .then(|| pairs(Some(&spec.storage_class_mapping), " → ")),
        );
        page.field(
            "Existing objects",
            match spec.existing_resource_policy.as_deref() {
                None | Some("none") => "left as they are",
                Some("update") => "updated",
                Some("recreate") => "recreated",
                Some(other) => other,
            },
        );
        page.some(
            "Disks",
            spec.restore_pvs.map(|wanted| match wanted {
                true => "from snapshots",
                false => "new and empty",
            }),
        );
        page.some(
            "Zone mapping",
            (!spec.zone_mapping.is_empty()).then(|| pairs(Some(&spec.zone_mapping), " → ")),
        );
        page.some("Disks encrypted with", spec.kms_key.as_ref());
        page.some("Disks waited for", spec.volume_timeout.as_ref());
        page.some(
            "Node ports",
            spec.preserve_node_ports.map(|kept| match kept {
                true => "kept",
                false => "only those asked for",
            }),
        );
        if let Some(status) = &spec.restore_status {
            page.field("Status of", status.included_resources.join(", "));
            if !status.excluded_resources.is_empty() {
                page.field("  Excluded", status.excluded_resources.join(", "));
            }
        }
        page.some(
            "Changed by",
            spec.resource_modifier
                .as_ref()
                .map(|name| format!("ConfigMap {name}")),
        );
        page.some("Hooks", spec.hooks.as_deref().map(hooks));
        page.gap();
        page.times(
            status.start_timestamp.as_ref(),
            status.completion_timestamp.as_ref(),
            status.heartbeat.as_ref(),
            now,
        );
        page.some(
            "Objects",
            status
                .progress
                .map(|progress| format!("{} of {}", progress.items_restored, progress.total_items)),
        );
        page.field("  Created", status.created.to_string());
        page.field("  Updated", status.updated.to_string());
        page.field("  Unchanged", status.unchanged.to_string());
        page.field("  Skipped", status.skipped.to_string());
        page.field("  Failed", status.failed.to_string());
        page.some(
            "Hooks run",
            status.hooks_attempted.map(|attempted| {
                let failed = status.hooks_failed.unwrap_or_default();
                format!("{attempted} ({failed} failed)")
            }),
        );
        page.some(
            "Label",
            status
                .restore_label
                .map(|label| format!("{}={label}", ark_job::api::RESTORE_LABEL)),
        );
        page.some("Results", status.results.as_ref());
        page.gap();
        page.messages(status.warnings, status.errors, &status.messages);
        page.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(phase: &str) -> String {
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "Backup",
            "metadata": {"name": "demo", "namespace": "ark"},
            "spec": {}, "status": {"phase": phase},
        }))
        .unwrap();
        backup.describe(None, Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn messages_are_grouped_by_what_they_are_about() {
        let mut page = Page::default();
        let texts = [
            "error: cluster: nodes: forbidden",
            "error: namespace a: secret x: too large",
            "error: the store: slow",
            "error: namespace a: secret y: too large",
            "warning: namespace b: claim: no snapshot",
            "warning: namespace b: claim: no snapshot",
        ];
        page.messages(5, 4, &texts.map(str::to_owned));
        assert_eq!(
            page.text(),
            "Errors:             4\n\
             \x20 cluster:\n    nodes: forbidden\n\
             \x20 namespace a:\n    secret x: too large\n    secret y: too large\n\
             \x20 the store: slow\n\
             Warnings:           5\n\
             \x20 namespace b:\n    claim: no snapshot (2 times)\n\
             \x20 and 3 more, which the log has\n"
        );
    }

    #[test]
    fn what_a_pod_said_is_not_said_twice() {
        let told = |reason: &str| {
            let mut page = Page::default();
            page.told(Some(Told::Failed("no bucket")), Some(reason));
            page.text()
        };
        assert_eq!(
            told("BackoffLimitExceeded"),
            "Its pod said:       no bucket\n"
        );
        assert_eq!(told("storage: no bucket (403)"), "");
    }

    #[test]
    fn of_a_deletion_that_has_begun_it_is_said_how_to_take_it_back() {
        let text = described("Deleting");
        for command in [
            "`kubectl ark backup delete demo -n ark` goes on",
            "`kubectl ark backup undelete demo -n ark` takes it back",
        ] {
            assert!(text.contains(command), "{text}");
        }
        assert!(!described("Completed").contains("undelete"));
    }
}
