//! `schedule …`: CronJobs that back up, and what came of them.

pub mod change;
pub mod create;
pub mod times;
pub mod upgrade;
pub mod view;

use crate::cli::ClusterFlags;
use crate::options::schedule::{Chosen, Options};
use crate::{Surroundings, client, similar};
use ark_job::api::SCHEDULE_LABEL;
use ark_job::api::namespace_flag;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::batch::v1::CronJob;
use kube::Client;
use kube::api::{Api, ListParams};

/// Does it.
pub async fn run(
    cluster: &ClusterFlags,
    options: Options,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let client = client::connect(cluster).await?.kube;
    let now = surroundings.now;
    match options {
        Options::Create(options) => create::run(&client, *options, surroundings, interrupt).await,
        Options::Run(options) => create::run_now(&client, &options, surroundings, interrupt).await,
        Options::Get(options) => view::get(&client, &options, surroundings, interrupt).await,
        Options::Describe(chosen) => view::describe(&client, &chosen, now).await,
        Options::Pause(chosen) => change::pause(&client, &chosen).await,
        Options::Unpause(chosen) => change::unpause(&client, &chosen).await,
        Options::Delete(chosen) => change::delete(&client, &chosen).await,
    }
}

/// The schedule that a CronJob is, if it is one.
pub fn of_cron_job(cron_job: &CronJob) -> Option<&str> {
    let labels = cron_job.metadata.labels.as_ref()?;
    labels.get(SCHEDULE_LABEL).map(String::as_str)
}

fn name(cron_job: &CronJob) -> &str {
    cron_job.metadata.name.as_deref().unwrap_or_default()
}

fn reference(cron_job: &CronJob) -> String {
    format!("cronjob.batch/{}", name(cron_job))
}

fn api(client: &Client, namespace: &str) -> Api<CronJob> {
    Api::namespaced(client.clone(), namespace)
}

/// The CronJob of a schedule.
///
/// # Errors
/// [`Exit::NotFound`] when there is none of that name, or one that is no schedule.
async fn find(client: &Client, namespace: &str, name: &str) -> Result<CronJob, Failure> {
    let found = api(client, namespace)
        .get_opt(name)
        .await
        .map_err(|error| {
            let doing = format!("reading schedule {name} in namespace {namespace}");
            client::failure(&error, &doing)
        })?;
    let why = match found {
        Some(cron_job) if of_cron_job(&cron_job).is_some() => return Ok(cron_job),
        Some(_) => format!(": cronjob.batch/{name} has no label {SCHEDULE_LABEL}"),
        None => String::new(),
    };
    let all = list(client, namespace, None).await.unwrap_or_default();
    let question = similar::did_you_mean(name, all.iter().map(self::name));
    let flag = namespace_flag(namespace);
    Err(Failure::new(
        Exit::NotFound,
        format!("there is no schedule {name} in namespace {namespace}{why}"),
    )
    .hint(similar::with_question(
        question,
        format!("`kubectl ark schedule get{flag}` lists them"),
    )))
}

/// All schedules, or those with these labels, by name.
async fn list(
    client: &Client,
    namespace: &str,
    selector: Option<&str>,
) -> Result<Vec<CronJob>, Failure> {
    let labels = match selector {
        Some(selector) => format!("{SCHEDULE_LABEL},{selector}"),
        None => SCHEDULE_LABEL.to_owned(),
    };
    let mut schedules = api(client, namespace)
        .list(&ListParams::default().labels(&labels))
        .await
        .map_err(|error| {
            let doing = format!("listing schedules in namespace {namespace}");
            client::failure(&error, &doing)
        })?
        .items;
    schedules.sort_by(|one, other| name(one).cmp(name(other)));
    Ok(schedules)
}

/// Those that were chosen, and the first failure among names that were given: the others are gone through all the same.
async fn chosen(
    client: &Client,
    chosen: &Chosen,
) -> Result<(Vec<CronJob>, Option<Failure>), Failure> {
    let Chosen {
        namespace,
        names,
        selector,
    } = chosen;
    if names.is_empty() {
        let found = list(client, namespace, selector.as_deref()).await?;
        return Ok((found, None));
    }
    let (mut found, mut missing) = (Vec::new(), None);
    for name in names {
        match find(client, namespace, name).await {
            Ok(cron_job) => found.push(cron_job),
            Err(failure) if failure.exit() == Exit::NotFound => {
                missing = missing.or(Some(failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok((found, missing))
}
