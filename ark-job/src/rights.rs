//! The rights to restore: waited for before, given up after.
//!
//! They are a cluster-admin's, so they are bound only while restores run, or plans of restores are made. The plugin creates
//! the Job first and writes the binding then, always: whoever ends and finds no other Job deletes the binding only as it was
//! before it looked, so it never takes the rights of a Job that it did not see.

use crate::api::{
    GROUP, OPERATION_LABEL, PLAN_OPERATION, REQUEST_ANNOTATION, RUN_ANNOTATION, Restore,
    RestorePhase, restore_binding,
};
use crate::cluster::apply::{delete_unchanged, wait_for_all_rights};
use crate::cluster::{Cluster, ClusterError, encode};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::identity::{Origin, RunId};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;
use std::time::Duration;

/// Waits until the rights have been granted.
///
/// # Errors
/// When they have not been within the time, or the API server cannot be asked.
pub async fn wait_for(cluster: &Cluster, namespace: &str, within: Duration) -> Result<(), Failure> {
    let granted = wait_for_all_rights(cluster, within)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    if granted {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!("this service account has not been given the rights to restore within {within:?}"),
    )
    .hint(format!(
        "bind it to cluster-admin: `kubectl ark restore create` writes ClusterRoleBinding {} beside the Job; \
         `kubectl ark install --restore-rights standing` does so for good",
        restore_binding(namespace)
    )))
}

/// Deletes the binding if it is there on demand and nobody else needs it.
pub async fn give_up(context: &Context) {
    let given_up = give_up_after(
        &context.cluster,
        &context.namespace,
        &context.run.cluster_uid,
        Some(&context.run.id),
    );
    match given_up.await {
        Ok(Some(what)) => context.log.info(what),
        Ok(None) => {}
        Err(error) => context.log.warn(&not_given_up(&context.namespace, &error)),
    }
}

/// What is to be said when the binding could not be deleted.
pub fn not_given_up(namespace: &str, error: &ClusterError) -> String {
    format!(
        "the rights to restore could not be given up: {}; delete ClusterRoleBinding {} when no restore \
         runs",
        error.full_text(),
        restore_binding(namespace)
    )
}

/// Deletes the binding if it is there on demand and no Job but that of the run `own` needs it; says what it did, if anything.
///
/// Whoever gives up for a plan, which has no record, deletes its Job before: of two that end together, the later one to look
/// must see that the other is done.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub async fn give_up_after(
    cluster: &Cluster,
    namespace: &str,
    cluster_uid: &str,
    own: Option<&RunId>,
) -> Result<Option<&'static str>, ClusterError> {
    match try_to_give_up(cluster, namespace, cluster_uid, own).await {
        // Another restore has come, or the binding has gone: nothing is left to do.
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
        result => result,
    }
}

async fn try_to_give_up(
    cluster: &Cluster,
    namespace: &str,
    cluster_uid: &str,
    own: Option<&RunId>,
) -> Result<Option<&'static str>, ClusterError> {
    let path = format!(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{}",
        encode(&restore_binding(namespace))
    );
    let binding: ClusterRoleBinding =
        match cluster.get(&path, "reading the rights to restore").await {
            Ok(binding) => binding,
            // Who may not even look at it does not restore by it.
            Err(error) if error.is_not_found() || error.is_forbidden() => return Ok(None),
            Err(error) => return Err(error),
        };
    // The version is that of before the Jobs are listed.
    let Some(version) = version_on_demand(&binding.metadata) else {
        return Ok(None);
    };
    if others_at_work(cluster, namespace, cluster_uid, own).await? {
        return Ok(Some(
            "another restore is under way and keeps the rights to restore",
        ));
    }
    delete_unchanged(cluster, &path, version, "giving up the rights to restore").await?;
    Ok(Some("the rights to restore have been given up"))
}

/// The version of a binding that was written for a request; somebody else's of that name is not ours to delete.
fn version_on_demand(binding: &ObjectMeta) -> Option<&str> {
    let annotations = binding.annotations.as_ref()?;
    annotations.get(REQUEST_ANNOTATION)?;
    binding.resource_version.as_deref()
}

async fn others_at_work(
    cluster: &Cluster,
    namespace: &str,
    cluster_uid: &str,
    own: Option<&RunId>,
) -> Result<bool, ClusterError> {
    #[derive(serde::Deserialize)]
    struct List<T> {
        items: Vec<T>,
    }
    let selector = encode(&format!("{OPERATION_LABEL} in (restore,{PLAN_OPERATION})"));
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?labelSelector={selector}");
    let jobs: List<Job> = cluster.get(&path, "listing restores").await?;
    // A Job is complete some seconds after its pod; the record says so at once. Without this, restores that end
    // together would each leave the rights to the others.
    let path = format!("/apis/{GROUP}/v1/namespaces/{namespace}/restores");
    let records: List<Restore> = match cluster.get(&path, "listing restores").await {
        Ok(records) => records,
        Err(error) if error.is_not_found() => List { items: Vec::new() },
        Err(error) => return Err(error),
    };
    let done: BTreeSet<&str> = records.items.iter().filter_map(run_of_done).collect();
    let at_work = |job: &Job| {
        let run = job.metadata.uid.as_ref().map(|uid| {
            let origin = Origin::Job { uid: uid.clone() };
            RunId::new(cluster_uid, namespace, &origin)
        });
        let over = |run: &RunId| Some(run) == own || done.contains(run.as_str());
        !has_ended(job) && !run.as_ref().is_some_and(over)
    };
    Ok(jobs.items.iter().any(at_work))
}

/// The run of a restore that needs its rights no more. One that Failed may be tried again by its Job.
fn run_of_done(record: &Restore) -> Option<&str> {
    let phase = record.status.as_ref().and_then(|status| status.phase);
    if !matches!(
        phase,
        Some(RestorePhase::Completed | RestorePhase::PartiallyFailed)
    ) {
        return None;
    }
    record
        .metadata
        .annotations
        .as_ref()?
        .get(RUN_ANNOTATION)
        .map(String::as_str)
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| &status.conditions);
    conditions.flatten().any(|condition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_binding_on_demand_is_given_up() {
        let metadata = |annotations| ObjectMeta {
            resource_version: Some("7".into()),
            annotations,
            ..ObjectMeta::default()
        };
        let requested = [(REQUEST_ANNOTATION.to_owned(), "restore b".to_owned())];
        assert_eq!(
            version_on_demand(&metadata(Some(requested.into()))),
            Some("7")
        );
        assert_eq!(version_on_demand(&metadata(None)), None);
    }

    #[test]
    fn a_restore_that_may_be_tried_again_is_not_done() {
        let record = |phase| {
            let mut record = Restore::new("r", Default::default());
            record.metadata.annotations =
                Some([(RUN_ANNOTATION.to_owned(), "run".to_owned())].into());
            record.status = Some(crate::api::RestoreStatus {
                phase: Some(phase),
                ..Default::default()
            });
            record
        };
        assert_eq!(run_of_done(&record(RestorePhase::Completed)), Some("run"));
        assert_eq!(
            run_of_done(&record(RestorePhase::PartiallyFailed)),
            Some("run")
        );
        for phase in [
            RestorePhase::New,
            RestorePhase::InProgress,
            RestorePhase::Failed,
        ] {
            assert_eq!(run_of_done(&record(phase)), None);
        }
    }

    #[test]
    fn a_job_has_ended_when_a_condition_says_so() {
        let job = |status: serde_json::Value| -> Job {
            serde_json::from_value(json!({"status": status})).unwrap()
        };
        let condition =
            |kind: &str, value: &str| job(json!({"conditions": [{"type": kind, "status": value}]}));
        assert!(has_ended(&condition("Complete", "True")));
        assert!(has_ended(&condition("Failed", "True")));
        assert!(!has_ended(&condition("Failed", "False")));
        assert!(!has_ended(&condition("Suspended", "True")));
        assert!(!has_ended(&job(json!({}))));
    }
}
