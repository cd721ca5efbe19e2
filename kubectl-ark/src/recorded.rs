//! The backups and restores that a cluster knows of: their records, and the Jobs that have none yet.

use crate::jobs;
use crate::records::{self, Record, joined};
use crate::{client, similar};
use ark_job::api::OPERATION_LABEL;
use ark_job::api::namespace_flag;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, ListParams};

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
