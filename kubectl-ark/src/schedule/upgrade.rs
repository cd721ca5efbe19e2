//! What `install` does to schedules that are there: their Jobs get the pod settings of now, and are told what they were told.

use super::{api, list, name, reference};
use crate::cli::ServerDryRun;
use crate::install::preview;
use crate::manifest::{FIELD_MANAGER, Manifest};
use crate::options::install::Options;
use crate::pod_template::Installation;
use crate::render::{self, JobOptions};
use crate::{client, create, records};
use ark_job::api::namespace_flag;
use ark_job::api::{PART_OF, PART_OF_LABEL};
use ark_job::error::Failure;
use k8s_openapi::api::batch::v1::{CronJob, JobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::PostParams;
use serde_json::Value;

/// Who owns the fields of what a restore has brought back: nobody else looks after that.
const RESTORED_BY: &str = "ark";
/// How often a schedule that changes meanwhile is looked at again.
const ATTEMPTS: u32 = 5;

/// Renders each schedule again, unless somebody else looks after it.
///
/// It is replaced as a whole, and not applied: `schedule create` has created it, so the fields are ours as of an update, and
/// applying would never take one away. Nobody is overruled for that: whoever else owns a field of the Jobs is told.
///
/// `planned` are pod settings that are not written yet: those of a dry run.
///
/// # Errors
/// When schedules cannot be listed or changed. One that cannot be rendered is told about, and left as it is.
pub async fn run(
    client: &Client,
    options: &Options,
    planned: Option<&Installation>,
) -> Result<(), Failure> {
    let ours = format!("{PART_OF_LABEL}={PART_OF}");
    for schedule in list(client, &options.namespace, Some(&ours)).await? {
        let name = name(&schedule);
        match upgrade(client, options, planned, &schedule).await? {
            Upgrade::Unchanged => {}
            Upgrade::Replaced | Upgrade::Different(_) if options.output.is_some() => {}
            Upgrade::Replaced => println!("{} replaced", reference(&schedule)),
            Upgrade::Different(text) => println!(
                "{} replaced {}\n{}",
                reference(&schedule),
                preview::NOTE,
                text.trim_end()
            ),
            Upgrade::Others(managers) => {
                eprintln!(
                    "warning: schedule {name} is left as it is: {} manages it",
                    managers.join(", ")
                );
                eprintln!(
                    "hint: render it again there, with `kubectl ark schedule create {name} … --dry-run=client -o yaml{}`; \
                     --force-conflicts takes it over",
                    namespace_flag(&options.namespace)
                );
            }
            Upgrade::Impossible(failure) => {
                let why = failure.message();
                eprintln!("warning: schedule {name} is left as it was: {why}");
                if let Some(hint) = failure.next_step() {
                    eprintln!("hint: {hint}");
                }
            }
        }
    }
    Ok(())
}

/// What became of a schedule.
enum Upgrade {
    /// It is as it would be rendered, or is no more.
    Unchanged,
    Replaced,
    /// It would be replaced: how it differs.
    Different(String),
    /// They own fields that would change.
    Others(Vec<String>),
    /// It cannot be rendered.
    Impossible(Failure),
}

async fn upgrade(
    client: &Client,
    options: &Options,
    planned: Option<&Installation>,
    schedule: &CronJob,
) -> Result<Upgrade, Failure> {
    let failed =
        |error: kube::Error| client::failure(&error, &format!("upgrading {}", reference(schedule)));
    let mut old = schedule.clone();
    for attempt in 1.. {
        let new = match rendered(client, planned, &old).await {
            Ok(new) => new,
            Err(failure) => return Ok(Upgrade::Impossible(failure)),
        };
        let written = async {
            let tried = replace(client, &new, true).await?;
            if template(&tried) == template(&old) {
                return Ok(Upgrade::Unchanged);
            }
            let others = managers(&old);
            if !others.is_empty() && !options.force_conflicts {
                return Ok(Upgrade::Others(others));
            }
            if options.dry_run != ServerDryRun::None {
                return Ok(Upgrade::Different(difference(&old, &tried)));
            }
            replace(client, &new, false).await?;
            Ok(Upgrade::Replaced)
        };
        match written.await {
            // The controller has noted the time of a Job meanwhile.
            Err(error) if client::is_conflict(&error) && attempt < ATTEMPTS => {}
            other => return other.map_err(failed),
        }
        let again = api(client, &options.namespace).get_opt(name(&old)).await;
        match again.map_err(failed)? {
            Some(again) => old = again,
            None => break,
        }
    }
    Ok(Upgrade::Unchanged)
}

async fn replace(client: &Client, new: &CronJob, dry_run: bool) -> kube::Result<CronJob> {
    let params = PostParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.into()),
    };
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    api(client, namespace)
        .replace(name(new), &params, new)
        .await
}

fn difference(old: &CronJob, new: &CronJob) -> String {
    let plain = |cron_job: &CronJob| preview::plain(Manifest::of(cron_job).value());
    preview::changed(&reference(old), Some(&plain(old)), &plain(new)).unwrap_or_default()
}

fn template(cron_job: &CronJob) -> Option<&JobTemplateSpec> {
    cron_job.spec.as_ref().map(|spec| &spec.job_template)
}

/// The CronJob with Jobs as they would be rendered now.
async fn rendered(
    client: &Client,
    planned: Option<&Installation>,
    old: &CronJob,
) -> Result<CronJob, Failure> {
    let spec = template(old).and_then(|template| template.spec.as_ref());
    let args = spec.and_then(|spec| records::args(&spec.template));
    let (Some(spec), Some(args)) = (spec, args) else {
        return Err(Failure::new(
            ark_job::exit::Exit::Failed,
            "this version does not understand what its Jobs are told",
        )
        .hint("delete it and create it again"));
    };
    let storage = args.command.storage();
    let (installation, location) = match planned {
        Some(planned) => (
            planned.clone(),
            create::read_location(client, &args.namespace, storage).await?,
        ),
        None => create::read(client, &args.namespace, storage).await?,
    };
    let hooks = create::read_hooks(client, &args).await?;
    let job = render::job(
        &args,
        &installation,
        location.as_ref(),
        hooks.as_ref(),
        &kept(spec),
    )?;
    Ok(with(old, job.metadata, job.spec))
}

/// What is said about the Jobs themselves stays.
fn kept(spec: &JobSpec) -> JobOptions {
    JobOptions {
        ttl_after_finished: spec.ttl_seconds_after_finished,
        deadline: spec.active_deadline_seconds,
    }
}

fn with(old: &CronJob, metadata: ObjectMeta, spec: Option<JobSpec>) -> CronJob {
    let mut new = old.clone();
    if let Some(new) = &mut new.spec {
        new.job_template = JobTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: metadata.labels,
                annotations: metadata.annotations,
                ..ObjectMeta::default()
            }),
            spec,
        };
    }
    new
}

/// Who else owns fields of the Jobs.
pub fn managers(cron_job: &CronJob) -> Vec<String> {
    let entries = cron_job.metadata.managed_fields.as_deref();
    let mut managers: Vec<String> = entries
        .unwrap_or_default()
        .iter()
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            fields
                .and_then(|fields: &Value| fields.pointer("/f:spec/f:jobTemplate"))
                .is_some()
        })
        .map(|entry| entry.manager.clone().unwrap_or_default())
        .filter(|manager| ![FIELD_MANAGER, RESTORED_BY].contains(&manager.as_str()))
        .collect();
    managers.dedup();
    managers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_who_owns_what_the_jobs_are_like_is_asked() {
        let entry = |manager: &str, fields: Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
        let jobs = json!({"f:spec": {"f:jobTemplate": {"f:spec": {}}}});
        let cron_job: CronJob = serde_json::from_value(json!({"metadata": {"managedFields": [
            entry("kubectl-ark", jobs.clone()),
            entry("ark", jobs.clone()),
            entry("argocd-controller", jobs),
            entry("kubectl-edit", json!({"f:spec": {"f:schedule": {}}})),
            entry("kube-controller-manager", json!({"f:status": {}})),
        ]}}))
        .unwrap();
        assert_eq!(managers(&cron_job), ["argocd-controller"]);
    }
}
