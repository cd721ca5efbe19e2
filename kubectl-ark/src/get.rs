//! `get` and `describe`: reads records and Jobs, and prints them.

use crate::cli::GetFormat;
use crate::describe::Describe;
use crate::manifest::reference;
use crate::names;
use crate::options::{DescribeOptions, GetOptions, Noun};
use crate::records::{self, Record, joined};
use crate::table::Table;
use crate::{client, output, wait};
use ark_job::api::{Backup, OPERATION_LABEL, Restore};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::ApiResource;
use serde_json::Value;

/// `backup get`, `restore get`
pub async fn get(client: &Client, options: &GetOptions, now: Timestamp) -> Result<Exit, Failure> {
    match options.noun {
        Noun::Backup => get_records::<Backup>(client, options, now).await,
        Noun::Restore => get_records::<Restore>(client, options, now).await,
    }
}

/// `backup describe`, `restore describe`
pub async fn describe(
    client: &Client,
    options: &DescribeOptions,
    now: Timestamp,
) -> Result<Exit, Failure> {
    match options.noun {
        Noun::Backup => describe_records::<Backup>(client, options, now).await,
        Noun::Restore => describe_records::<Restore>(client, options, now).await,
    }
}

async fn get_records<R: Record>(
    client: &Client,
    options: &GetOptions,
    now: Timestamp,
) -> Result<Exit, Failure> {
    let GetOptions {
        noun: _,
        namespace,
        names,
        selector,
        output,
        no_headers,
    } = options;
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
    let wide = *output == GetFormat::Wide;
    match output {
        GetFormat::Table | GetFormat::Wide if records.is_empty() => {
            if missing.is_none() {
                eprintln!("No resources found in {namespace} namespace.");
            }
        }
        GetFormat::Table | GetFormat::Wide => {
            let mut table = Table::new(R::header(wide));
            records
                .iter()
                .for_each(|record| table.push(record.row(wide, now)));
            print!("{}", table.render(!no_headers));
        }
        GetFormat::Name => {
            let resource = ApiResource::erase::<R>(&());
            records
                .iter()
                .for_each(|record| println!("{}", reference(&resource, records::name(record))));
        }
        GetFormat::Json | GetFormat::Yaml => {
            let mut values: Vec<Value> = records
                .iter()
                .map(|record| {
                    serde_json::to_value(record).expect("Kubernetes objects can be written as JSON")
                })
                .collect();
            let value = match (names.as_slice(), values.len()) {
                // kubectl's rule: one that was asked for by name is printed as itself.
                ([_], 1) => values.remove(0),
                ([_], 0) => {
                    return Err(
                        missing.unwrap_or_else(|| Failure::new(Exit::NotFound, "not found"))
                    );
                }
                _ => output::list(values),
            };
            match output {
                GetFormat::Json => print!("{}", output::json(&value)),
                _ => print!("{}", output::yaml(&value)),
            }
        }
    }
    match missing {
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

async fn describe_records<R: Record + Describe>(
    client: &Client,
    options: &DescribeOptions,
    now: Timestamp,
) -> Result<Exit, Failure> {
    for (index, name) in options.names.iter().enumerate() {
        let record = find::<R>(client, &options.namespace, name).await?;
        if index > 0 {
            print!("\n\n");
        }
        let waiting = match record.end() {
            Some(_) => None,
            None => wait::cause::<R>(client, &options.namespace, name).await,
        };
        print!("{}", record.describe(waiting.as_deref(), now));
    }
    Ok(Exit::Done)
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
pub async fn find<R: Record>(client: &Client, namespace: &str, name: &str) -> Result<R, Failure> {
    let word = R::NOUN.word();
    let doing = format!("reading {word} {name} in namespace {namespace}");
    let records: Api<R> = Api::namespaced(client.clone(), namespace);
    let error = match records.get(name).await {
        Ok(record) => return Ok(record),
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
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let job = jobs.get_opt(&names::job(word, name)).await.ok().flatten();
    job.and_then(|job| records::of_job(&job)).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("there is no {word} {name} in namespace {namespace}"),
        )
        .hint(format!(
            "`kubectl ark {word} get{}` lists them",
            crate::install::flag(namespace)
        ))
    })
}
