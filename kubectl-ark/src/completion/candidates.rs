//! The candidates: from the cluster, the kubeconfig or a directory. Whatever fails has none.

use super::words::{Candidate, Source, Wanted};
use crate::Surroundings;
use crate::cli::{Cli, ClusterFlags};
use crate::client::{self, Audience};
use crate::options::backup_name::LATEST;
use crate::records;
use ark_job::api::{Backup, BackupPhase, BackupStorageLocation, Restore, SCHEDULE_LABEL};
use clap::Parser as _;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

/// What `latest` is.
const NEWEST: &str = "the newest complete one";

/// More would fill the screen many times over.
const AT_MOST: u32 = 500;

/// Aggregated discovery: two requests, however many groups there are.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The candidates that fit.
pub async fn of(wanted: &Wanted, surroundings: &Surroundings) -> Vec<Candidate> {
    let all = match &wanted.source {
        Source::Known(candidates) => Some(candidates.clone()),
        Source::Files | Source::Nothing => None,
        source => named(source, wanted, surroundings).await,
    };
    all.unwrap_or_default()
        .into_iter()
        .filter(|candidate| candidate.word.starts_with(&wanted.prefix))
        .filter(|candidate| !wanted.given.contains(&candidate.word))
        .map(|candidate| Candidate {
            word: format!("{}{}", wanted.before, candidate.word),
            ..candidate
        })
        .collect()
}

async fn named(
    source: &Source,
    wanted: &Wanted,
    surroundings: &Surroundings,
) -> Option<Vec<Candidate>> {
    let flags = flags(wanted)?;
    match source {
        Source::Contexts => return Some(contexts(&client::kubeconfig(&flags).ok()?)),
        Source::Clusters => {
            let kubeconfig = client::kubeconfig(&flags).ok()?;
            let names = kubeconfig.clusters.iter().map(|one| &one.name);
            return Some(names.map(|name| Candidate::new(name, "")).collect());
        }
        Source::Users => {
            let kubeconfig = client::kubeconfig(&flags).ok()?;
            let names = kubeconfig.auth_infos.iter().map(|one| &one.name);
            return Some(names.map(|name| Candidate::new(name, "")).collect());
        }
        Source::Backups | Source::BackupNames if wanted.options.contains_key("local") => {
            let mut candidates = stored(surroundings)?;
            if *source == Source::Backups && !candidates.is_empty() {
                candidates.insert(0, Candidate::new(LATEST, NEWEST));
            }
            return Some(candidates);
        }
        _ => {}
    }
    let client = client::connect_as(&flags, Audience::Nobody).await.ok()?;
    let (client, namespace) = (client.operation, flags.namespace.as_str());
    let all = ListParams::default().limit(AT_MOST);
    match source {
        Source::Backups | Source::BackupNames => {
            let backups: Api<Backup> = Api::namespaced(client, namespace);
            let backups = backups.list(&all).await.ok()?.items;
            Some(of_backups(backups, *source == Source::Backups))
        }
        Source::Restores => {
            let restores: Api<Restore> = Api::namespaced(client, namespace);
            let mut restores = restores.list(&all).await.ok()?.items;
            restores.sort_by_key(|one| std::cmp::Reverse(one.creation_timestamp()));
            Some(
                restores
                    .iter()
                    .map(|one| {
                        let status = one.status.as_ref().and_then(|status| status.phase.as_ref());
                        Candidate::new(one.name_any(), status.map(text).unwrap_or_default())
                    })
                    .collect(),
            )
        }
        Source::Schedules => {
            let cron_jobs: Api<CronJob> = Api::namespaced(client, namespace);
            let cron_jobs = cron_jobs.list(&all.labels(SCHEDULE_LABEL)).await.ok()?;
            let when = |one: &CronJob| one.spec.as_ref().map(|spec| spec.schedule.clone());
            let candidates = cron_jobs.iter();
            Some(
                candidates
                    .map(|one| Candidate::new(one.name_any(), when(one).unwrap_or_default()))
                    .collect(),
            )
        }
        Source::Locations => {
            let locations: Api<BackupStorageLocation> = Api::namespaced(client, namespace);
            let locations = locations.list(&all).await.ok()?;
            Some(
                locations
                    .iter()
                    .map(|one| Candidate::new(one.name_any(), ""))
                    .collect(),
            )
        }
        Source::ConfigMaps => {
            let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
            // Only their names: what is in them may be large, and may be secret.
            let maps = maps.list_metadata(&all).await.ok()?;
            Some(
                maps.iter()
                    .map(|one| Candidate::new(one.name_any(), ""))
                    .collect(),
            )
        }
        Source::Namespaces => {
            let namespaces: Api<Namespace> = Api::all(client);
            let namespaces = namespaces.list_metadata(&all).await.ok()?;
            Some(
                namespaces
                    .iter()
                    .map(|one| Candidate::new(one.name_any(), ""))
                    .collect(),
            )
        }
        Source::Types => types(&client).await,
        _ => None,
    }
}

/// The names of backups, newest first; before them, if wanted, what names the newest complete ones, where there are any.
fn of_backups(mut backups: Vec<Backup>, newest: bool) -> Vec<Candidate> {
    backups.sort_by_key(|one| std::cmp::Reverse(one.creation_timestamp()));
    let complete = backups
        .iter()
        .filter(|one| newest && records::phase(one) == BackupPhase::Completed);
    let mut latest = Vec::new();
    for backup in complete {
        let schedule = backup.labels().get(SCHEDULE_LABEL);
        let names = schedule.map(|schedule| format!("{schedule}/{LATEST}"));
        for name in std::iter::once(LATEST.to_owned()).chain(names) {
            if !latest.iter().any(|known: &Candidate| known.word == name) {
                latest.push(Candidate::new(name, NEWEST));
            }
        }
    }
    let names = backups.iter().map(|one| {
        let status = one.status.as_ref().and_then(|status| status.phase.as_ref());
        Candidate::new(one.name_any(), status.map(text).unwrap_or_default())
    });
    latest.into_iter().chain(names).collect()
}

/// The cluster's flags of the line, with the environment's defaults.
fn flags(wanted: &Wanted) -> Option<ClusterFlags> {
    let mut line = vec!["kubectl-ark".to_owned()];
    let of_cluster = [
        "namespace",
        "context",
        "kubeconfig",
        "cluster",
        "user",
        "server",
        "token",
        "as",
        "as-group",
        "as-uid",
        "certificate-authority",
        "client-certificate",
        "client-key",
        "tls-server-name",
    ];
    for name in of_cluster {
        for value in wanted.options.get(name).into_iter().flatten() {
            line.push(format!("--{name}={value}"));
        }
    }
    if wanted.options.contains_key("insecure-skip-tls-verify") {
        line.push("--insecure-skip-tls-verify".to_owned());
    }
    line.push("version".to_owned());
    Cli::try_parse_from(line).ok().map(|cli| cli.cluster)
}

/// A phase, as the resource spells it.
fn text(phase: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(phase).ok();
    value
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn contexts(kubeconfig: &Kubeconfig) -> Vec<Candidate> {
    let cluster = |one: &kube::config::NamedContext| {
        let context = one.context.as_ref();
        context.map(|context| context.cluster.clone())
    };
    let candidates = kubeconfig.contexts.iter();
    candidates
        .map(|one| Candidate::new(&one.name, cluster(one).unwrap_or_default()))
        .collect()
}

/// What `--local` has stored where it stores by itself.
fn stored(surroundings: &Surroundings) -> Option<Vec<Candidate>> {
    let root = surroundings
        .home
        .as_ref()?
        .join(".kubectl-ark/backups/backups");
    let mut names: Vec<String> = std::fs::read_dir(root)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Some(
        names
            .into_iter()
            .map(|name| Candidate::new(name, ""))
            .collect(),
    )
}

/// Plural names, with their group: what can be listed can be in a backup.
async fn types(client: &Client) -> Option<Vec<Candidate>> {
    let discover = async |path: &str| {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, AGGREGATED)
            .body(Vec::new())
            .ok()?;
        client.request::<Value>(request).await.ok()
    };
    let (core, groups) = (discover("/api").await?, discover("/apis").await?);
    let mut candidates: Vec<Candidate> = [core, groups]
        .iter()
        .flat_map(|list| list["items"].as_array().into_iter().flatten())
        .flat_map(listable)
        .map(|name| Candidate::new(name, ""))
        .collect();
    candidates.sort();
    candidates.dedup();
    Some(candidates)
}

/// The types of one group of aggregated discovery.
fn listable(group: &Value) -> Vec<String> {
    let name = group["metadata"]["name"].as_str().unwrap_or_default();
    let versions = group["versions"].as_array();
    let resources = versions
        .into_iter()
        .flatten()
        .flat_map(|version| version["resources"].as_array().into_iter().flatten());
    resources
        .filter(|resource| {
            let verbs = resource["verbs"].as_array();
            verbs.is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"))
        })
        .filter_map(|resource| resource["resource"].as_str())
        .map(|resource| match name {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_are_offered_where_there_is_a_complete_one() {
        let backup = |name: &str, phase: &str, day: u8, schedule: &str| -> Backup {
            serde_json::from_value(json!({
                "apiVersion": "ark.heptio.com/v1", "kind": "Backup",
                "metadata": {
                    "name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z"),
                    "labels": {SCHEDULE_LABEL: schedule},
                },
                "spec": {}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let words = |backups: &[Backup], newest| -> Vec<String> {
            let candidates = of_backups(backups.to_vec(), newest);
            candidates.into_iter().map(|one| one.word).collect()
        };
        let backups = [
            backup("a", "Completed", 1, "nightly"),
            backup("c", "Failed", 3, "weekly"),
            backup("b", "Completed", 2, "nightly"),
        ];
        assert_eq!(
            words(&backups, true),
            ["latest", "nightly/latest", "c", "b", "a"]
        );
        assert_eq!(words(&backups, false), ["c", "b", "a"]);
        assert_eq!(words(&backups[1..2], true), ["c"]);
    }
}
