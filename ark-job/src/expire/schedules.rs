//! The keep rules of this cluster's schedules, as their CronJobs say them now.

use super::plan::Schedules;
use crate::api::SCHEDULE_LABEL;
use crate::args::{Args, Command};
use crate::context::Context;
use crate::holdings::list;
use crate::schedule::DEFAULT_KEEP_LAST;
use clap::Parser;
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What this cluster's schedules in Ark's namespace say now of how much they keep.
///
/// What cannot be read is said there: then nothing of those schedules may go.
pub async fn schedules(context: &Context) -> Schedules {
    let mut schedules = Schedules {
        cluster_uid: context.run.cluster_uid.clone(),
        namespace: context.namespace.clone(),
        ..Schedules::default()
    };
    let path = format!("/apis/batch/v1/namespaces/{}/cronjobs", context.namespace);
    let listed = list::<CronJob>(context, &path, SCHEDULE_LABEL, "listing schedules").await;
    match listed {
        Ok(jobs) => schedules.live = keep_rules(&jobs),
        Err(error) => schedules.unknown = Some(error.full_text()),
    }
    schedules
}

/// The keep rules in CronJobs: that of the container that backs up. Of two for one schedule, the larger.
fn keep_rules(jobs: &[CronJob]) -> BTreeMap<String, Result<u32, String>> {
    let mut rules = BTreeMap::new();
    for job in jobs {
        let Some(label) = job.labels().get(SCHEDULE_LABEL).cloned() else {
            continue;
        };
        let (schedule, rule) = match keep_rule(job) {
            Ok((schedule, keep)) => (schedule, Ok(keep)),
            Err(why) => (label, Err(why)),
        };
        rules
            .entry(schedule)
            .and_modify(|known: &mut Result<u32, String>| {
                *known = match (&*known, &rule) {
                    (Ok(known), Ok(other)) => Ok(*known.max(other)),
                    (Err(why), _) | (_, Err(why)) => Err(why.clone()),
                };
            })
            .or_insert(rule);
    }
    rules
}

/// The schedule that a CronJob's containers name, and how many backups of it are kept.
fn keep_rule(job: &CronJob) -> Result<(String, u32), String> {
    let spec = job.spec.as_ref();
    let pod = spec.and_then(|spec| spec.job_template.spec.as_ref()?.template.spec.as_ref());
    let name = job.name_any();
    let mut why = "it has no container".to_owned();
    for container in pod.into_iter().flat_map(|pod| &pod.containers) {
        let arguments = container.args.iter().flatten().cloned();
        let arguments = std::iter::once("ark-job".to_owned()).chain(arguments);
        match Args::try_parse_from(arguments).map(|args| args.command) {
            Ok(Command::Backup(backup)) => {
                if let Some(schedule) = backup.tick.schedule {
                    let keep = backup.tick.keep_last.unwrap_or(DEFAULT_KEEP_LAST);
                    return Ok((schedule, keep));
                }
                why = "its backup names no --schedule".to_owned();
            }
            Ok(_) => why = "its container does not back up".to_owned(),
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                why = format!("the arguments of its container are not understood: {first}");
            }
        }
    }
    Err(format!("CronJob {name}: {why}"))
}
