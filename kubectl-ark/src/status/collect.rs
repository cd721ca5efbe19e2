//! What `status` looks at: a dozen requests, all but the events at once. Nothing in storage is read.

use crate::client;
use crate::records::{self, ended, joined};
use crate::wait;
use ark_job::api::{
    Backup, BackupStorageLocation, CONFIG_NAME, OPERATION_LABEL, PART_OF, PART_OF_LABEL, Restore,
    restore_binding,
};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, PodTemplate};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Objects in one answer: an installation may have 10,000 backups.
const PAGE: u32 = 500;
/// Jobs without a running pod whose events are read: more say the same.
const EXPLAINED: usize = 3;

/// What was seen of an installation.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Ark's namespace.
    pub namespace: String,
    /// When.
    pub now: Timestamp,
    /// The pod settings.
    pub template: Option<PodTemplate>,
    /// Mode and name of the cluster.
    pub config: Option<ConfigMap>,
    /// Where backups are.
    pub locations: Vec<BackupStorageLocation>,
    /// Backups, with Jobs that have no record yet; without messages and snapshots.
    pub backups: Vec<Backup>,
    /// Restores, likewise.
    pub restores: Vec<Restore>,
    /// Schedules and housekeeping.
    pub cron_jobs: Vec<CronJob>,
    /// Jobs of ours.
    pub jobs: Vec<Job>,
    /// Their pods; `None` when they may not be read.
    pub pods: Option<Vec<Pod>>,
    /// Events about Jobs and pods that have not started.
    pub events: Vec<Event>,
    /// What gives restores their rights while they run.
    pub binding: Option<ClusterRoleBinding>,
    /// Which cluster this is, if that may be read.
    pub cluster_uid: Option<String>,
    /// What could not be looked at, and is not needed to judge the rest.
    pub not_seen: Vec<String>,
}

/// Looks at everything.
///
/// # Errors
/// When Ark is not installed here, or what must be known cannot be read.
pub async fn collect(client: &Client, namespace: &str, now: Timestamp) -> Result<Seen, Failure> {
    let templates: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let restores_rights = restore_binding(namespace);
    let (template, config, locations, backups, restores, cron_jobs, jobs, pods, binding, uid) = futures::join!(
        templates.get_opt(CONFIG_NAME),
        configs.get_opt(CONFIG_NAME),
        all::<BackupStorageLocation>(client, namespace, None, |_| {}),
        all::<Backup>(client, namespace, None, lighten),
        all::<Restore>(client, namespace, None, |_| {}),
        all::<CronJob>(client, namespace, None, |_| {}),
        all::<Job>(client, namespace, Some(OPERATION_LABEL), |_| {}),
        all::<Pod>(client, namespace, Some(OPERATION_LABEL), |_| {}),
        bindings.get_opt(&restores_rights),
        client::cluster_uid(client),
    );
    let doing = |what: &str| format!("reading {what} in namespace {namespace}");
    let template = template.map_err(|error| client::failure(&error, &doing("PodTemplate ark")))?;
    let locations = served(locations, &doing("the storage locations"))?;
    if template.is_none() && locations.as_ref().is_none_or(Vec::is_empty) {
        return Err(not_installed(client, namespace).await);
    }
    let config = config.map_err(|error| client::failure(&error, &doing("ConfigMap ark")))?;
    let jobs = jobs.map_err(|error| client::failure(&error, &doing("the Jobs")))?;
    let cron_jobs = cron_jobs.map_err(|error| client::failure(&error, &doing("the CronJobs")))?;
    let backups = served(backups, &doing("the backups"))?.unwrap_or_default();
    let restores = served(restores, &doing("the restores"))?.unwrap_or_default();
    let mut not_seen = Vec::new();
    let mut optional = |what: &str, error: kube::Error| {
        not_seen.push(client::failure(&error, what).message().to_owned());
    };
    let pods = pods
        .map_err(|error| optional("the pods of Jobs", error))
        .ok();
    let binding = binding
        .map_err(|error| optional("the rights of restores", error))
        .ok()
        .flatten();
    let cluster_uid = uid
        .map_err(|error| optional("which cluster this is", error))
        .ok()
        .flatten();
    let events = events(client, namespace, &jobs, pods.as_deref()).await;
    Ok(Seen {
        namespace: namespace.to_owned(),
        now,
        template,
        config,
        locations: locations.unwrap_or_default(),
        backups: joined(backups, &jobs),
        restores: joined(restores, &jobs),
        cron_jobs,
        jobs,
        pods,
        events,
        binding,
        cluster_uid,
        not_seen,
    })
}

/// What is not looked at: ten thousand records hold much of it.
fn lighten(backup: &mut Backup) {
    backup.metadata.managed_fields = None;
    if let Some(status) = &mut backup.status {
        status.messages = Vec::new();
        status.volume_backups.clear();
    }
}

/// All objects, page by page.
async fn all<K>(
    client: &Client,
    namespace: &str,
    labels: Option<&str>,
    each: impl Fn(&mut K),
) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = labels.map(str::to_owned);
    let mut found = Vec::new();
    loop {
        let mut page = api.list(&params).await?;
        page.items.iter_mut().for_each(&each);
        found.append(&mut page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// `None` when the cluster does not know the resource type.
fn served<T>(listed: kube::Result<Vec<T>>, doing: &str) -> Result<Option<Vec<T>>, Failure> {
    match listed {
        Ok(list) => Ok(Some(list)),
        Err(error) if client::is_not_found(&error) => Ok(None),
        Err(error) => Err(client::failure(&error, doing)),
    }
}

/// There is nothing here; perhaps in another namespace.
async fn not_installed(client: &Client, namespace: &str) -> Failure {
    let templates: Api<PodTemplate> = Api::all(client.clone());
    let ours = ListParams::default()
        .labels(&format!("{PART_OF_LABEL}={PART_OF}"))
        .fields(&format!("metadata.name={CONFIG_NAME}"));
    // Who may not look everywhere is told what is known.
    let elsewhere = templates
        .list_metadata(&ours)
        .await
        .map(|list| list.items)
        .unwrap_or_default();
    let namespaces: Vec<String> = elsewhere
        .into_iter()
        .filter_map(|template| template.metadata.namespace)
        .collect();
    let Some(first) = namespaces.first() else {
        return client::not_installed(&format!(
            "namespace {namespace} has neither its settings nor a storage location"
        ));
    };
    Failure::new(
        Exit::NotFound,
        format!(
            "Ark is not installed in namespace {namespace}, but in {}",
            namespaces.join(", ")
        ),
    )
    .hint(format!("`kubectl ark status -n {first}`"))
}

/// Events about the first few Jobs that have no running pod.
async fn events(
    client: &Client,
    namespace: &str,
    jobs: &[Job],
    pods: Option<&[Pod]>,
) -> Vec<Event> {
    let Some(pods) = pods else {
        return Vec::new();
    };
    let unstarted = jobs
        .iter()
        .filter(|job| ended(job).is_none())
        .filter_map(|job| {
            let own = wait::pods_of(job, pods);
            let waits = !matches!(wait::judge(job, &own, &[]), wait::State::Running);
            waits.then_some((job.metadata.name.as_deref()?, own))
        })
        .take(EXPLAINED);
    let asked =
        unstarted.map(|(job, own)| async move { wait::events(client, namespace, job, &own).await });
    let found = futures::future::join_all(asked).await;
    found.into_iter().flatten().collect()
}

/// The name of what a Job does: that of its backup or restore.
pub fn subject(job: &Job) -> Option<String> {
    records::subject::<Backup>(job).or_else(|| records::subject::<Restore>(job))
}
