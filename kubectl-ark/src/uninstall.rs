//! `kubectl ark uninstall`: removes what `install` has made, and says what stays.
//!
//! What stays is what cannot be made again: backups and snapshots always; records, and the locations that say where the
//! backups are, unless the resource types go as well. What makes Jobs goes first, so that none starts under way; every step
//! may be cut off and done again. `find` asks, [`plan`] decides, [`run`] removes what the plan has.

mod others;

use crate::cli::{ClusterFlags, ServerDryRun};
use crate::client::{self, Connection};
use crate::consent::{self, Answer};
use crate::manifest::Manifest;
use crate::options::uninstall::Options;
use crate::{admission, rights, wait};
use ark_job::api::{
    Backup, BackupStorageLocation, CONFIG_NAME, OPERATION_LABEL, PART_OF, PART_OF_LABEL, Restore,
    SCHEDULE_LABEL,
};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::mode::refuse_by;
use ark_job::report::plural;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, PodTemplate, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

/// Namespaces that every cluster has, and that nobody removes.
const PROTECTED: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// How long a namespace or a resource type may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What there is of Ark in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Ark's namespace, unless it is being deleted.
    pub namespace: Option<Namespace>,
    /// CronJobs: schedules, expiry, sync.
    pub cron_jobs: Vec<CronJob>,
    /// Jobs of operations, at work and done.
    pub jobs: Vec<Job>,
    /// Their pods, if they may be read.
    pub pods: Vec<Pod>,
    /// What else there is in the namespace.
    pub settings: Settings,
    /// Rights in the whole cluster, of all installations.
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    /// Roles likewise.
    pub cluster_roles: Vec<ClusterRole>,
    /// The admission policy and its binding, the binding first.
    pub policy: Vec<Manifest>,
    /// The resource types.
    pub types: Vec<CustomResourceDefinition>,
    /// Backups, in all namespaces.
    pub backups: Vec<Backup>,
    /// Restores, in all namespaces.
    pub restores: Vec<Restore>,
    /// Locations, in all namespaces.
    pub locations: Vec<BackupStorageLocation>,
    /// Namespaces with another installation.
    pub other_installations: BTreeSet<String>,
    /// What others have in the namespace, as kubectl names it.
    pub others: Vec<String>,
}

/// What `install` has made in the namespace.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    role_bindings: Vec<RoleBinding>,
    roles: Vec<Role>,
    accounts: Vec<ServiceAccount>,
    templates: Vec<PodTemplate>,
    config_maps: Vec<ConfigMap>,
    secrets: Vec<Secret>,
}

/// What goes, in this order, and what stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What makes Jobs.
    pub first: Vec<Manifest>,
    /// All else.
    pub then: Vec<Manifest>,
    /// What stays, a line each.
    pub stays: Vec<String>,
    /// Restore-only mode is on, and goes with its ConfigMap.
    pub ends_restore_only: bool,
}

/// Removes it, or shows what would be removed.
pub async fn run(
    cluster: &ClusterFlags,
    options: Options,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let connection = client::connect(cluster).await?;
    let found = find(&connection, &options.namespace).await?;
    let plan = plan(&found, &options)?;
    if plan.first.is_empty() && plan.then.is_empty() {
        eprintln!(
            "nothing to remove: Ark is not installed in namespace {}",
            options.namespace
        );
        tell_what_stays(&plan);
        return Ok(Exit::Done);
    }
    if options.ask {
        for object in plan.objects() {
            eprintln!("{}", named(object));
        }
        tell_what_stays(&plan);
        let question = format!("Remove Ark from namespace {}?", options.namespace);
        match consent::answer(&question, interrupt.as_mut()).await {
            Answer::Yes => {}
            Answer::No => return Ok(not_done(Exit::Failed)),
            Answer::Interrupted => return Ok(not_done(Exit::Interrupted)),
        }
    }
    match perform(&connection.kube, &options, &plan, interrupt).await? {
        Exit::Done if !options.ask => tell_what_stays(&plan),
        Exit::Done => {}
        other => return Ok(other),
    }
    Ok(Exit::Done)
}

fn not_done(exit: Exit) -> Exit {
    eprintln!("nothing was removed");
    exit
}

impl Plan {
    fn objects(&self) -> impl Iterator<Item = &Manifest> {
        self.first.iter().chain(&self.then)
    }
}

/// A schedule is named as one: it is what a person has made.
fn named(object: &Manifest) -> String {
    let schedule = object
        .value()
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(SCHEDULE_LABEL));
    match schedule.and_then(serde_json::Value::as_str) {
        Some(schedule) if object.kind() == "CronJob" => {
            format!("{} (schedule {schedule})", object.reference())
        }
        _ => object.reference(),
    }
}

fn tell_what_stays(plan: &Plan) {
    for line in &plan.stays {
        eprintln!("stays: {line}");
    }
    if plan.ends_restore_only {
        eprintln!(
            "warning: restore-only mode goes, too: `kubectl ark install --restore-only` is how to install again without \
             backing up, deleting or expiring anything"
        );
    }
}

async fn perform(
    client: &Client,
    options: &Options,
    plan: &Plan,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let note = match options.dry_run {
        ServerDryRun::None => "",
        ServerDryRun::Client => " (dry run)",
        ServerDryRun::Server => " (server dry run)",
    };
    let remove = async |objects: &[Manifest]| -> Result<(), Failure> {
        for object in objects {
            let gone = match options.dry_run {
                ServerDryRun::Client => true,
                ServerDryRun::Server => object.try_to_delete(client, true).await?,
                ServerDryRun::None => object.delete(client).await?,
            };
            if gone {
                println!("{} deleted{note}", named(object));
            }
        }
        Ok(())
    };
    let removing = async {
        remove(&plan.first).await?;
        // One may have been made since they were looked for; now none is made any more.
        if options.dry_run == ServerDryRun::None {
            let jobs = jobs(client, &options.namespace).await?;
            let pods = pods(client, &options.namespace).await;
            refuse_while_at_work(&jobs, &pods, &options.namespace)?;
        }
        remove(&plan.then).await?;
        if options.dry_run == ServerDryRun::None {
            wait_until_gone(client, plan).await?;
        }
        Ok(Exit::Done)
    };
    tokio::select! {
        removed = removing => removed,
        () = interrupt.as_mut() => {
            eprintln!("interrupted: the same command again goes on");
            Ok(Exit::Interrupted)
        }
    }
}

/// What the API server deletes at leisure is waited for: `install` fails while it is on its way out.
async fn wait_until_gone(client: &Client, plan: &Plan) -> Result<(), Failure> {
    let slow = ["CustomResourceDefinition", "Namespace"];
    for object in plan.then.iter().filter(|one| slow.contains(&one.kind())) {
        let doing = format!("waiting until {} is gone", object.reference());
        let uid = object.value()["metadata"]["uid"].as_str();
        let gone = async {
            loop {
                let there = object
                    .fetch(client)
                    .await
                    .map_err(|error| client::failure(&error, &doing))?;
                if there.is_none_or(|there| there.metadata.uid.as_deref() != uid) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(GONE_WITHIN, gone)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    Exit::Failed,
                    format!("{doing}: it is not after {} seconds", GONE_WITHIN.as_secs()),
                )
                .hint(format!(
                    "its status says what it waits for: `kubectl get {} -o yaml`",
                    object.reference()
                )))
            })?;
    }
    Ok(())
}

/// Decides.
///
/// # Errors
/// [`Exit::Conflict`] while an operation runs, or when another installation needs what is to go.
pub fn plan(found: &Found, options: &Options) -> Result<Plan, Failure> {
    let namespace = options.namespace.as_str();
    refuse_while_at_work(&found.jobs, &found.pods, namespace)?;
    if options.crds {
        refuse_if_others_need_types(found, namespace)?;
    }
    let here = |metadata: &ObjectMeta| metadata.namespace.as_deref() == Some(namespace);
    let backups: Vec<&Backup> = found
        .backups
        .iter()
        .filter(|one| here(&one.metadata))
        .collect();
    let restores = found
        .restores
        .iter()
        .filter(|one| here(&one.metadata))
        .count();
    let locations: Vec<&BackupStorageLocation> = found
        .locations
        .iter()
        .filter(|one| here(&one.metadata))
        .collect();
    let no_records = backups.is_empty() && restores == 0 && locations.is_empty();
    let records_stay = !options.crds && !no_records;

    let mut plan = Plan {
        first: found.cron_jobs.iter().map(Manifest::of).collect(),
        ..Plan::default()
    };
    let (bindings, roles) = rights::leftovers(
        namespace,
        &found.cluster_bindings,
        &found.cluster_roles,
        |_, _| false,
    );
    plan.then.extend(bindings.iter().map(Manifest::of));
    plan.then.extend(roles.iter().map(Manifest::of));
    if found.other_installations.is_empty() {
        plan.then.extend(found.policy.iter().cloned());
    }
    let Settings {
        role_bindings,
        roles,
        accounts,
        templates,
        config_maps,
        secrets,
    } = &found.settings;
    plan.then.extend(found.jobs.iter().map(Manifest::of));
    plan.then.extend(role_bindings.iter().map(Manifest::of));
    plan.then.extend(roles.iter().map(Manifest::of));
    plan.then.extend(accounts.iter().map(Manifest::of));
    plan.then.extend(templates.iter().map(Manifest::of));
    // Logs and results belong to records, credentials to locations.
    let is_needed =
        |map: &&ConfigMap| records_stay && map.metadata.name.as_deref() != Some(CONFIG_NAME);
    plan.then.extend(
        config_maps
            .iter()
            .filter(|map| !is_needed(map))
            .map(Manifest::of),
    );
    let is_used = |secret: &&Secret| {
        let used = |location: &&BackupStorageLocation| {
            location.spec.credential_secret.is_some()
                && location.spec.credential_secret == secret.metadata.name
        };
        !options.crds && locations.iter().any(used)
    };
    plan.then.extend(
        secrets
            .iter()
            .filter(|secret| !is_used(secret))
            .map(Manifest::of),
    );
    if options.crds {
        plan.then.extend(found.types.iter().map(Manifest::of));
    }
    let ours = found.namespace.as_ref().filter(|one| {
        let labels = one.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(PART_OF_LABEL))
            .map(String::as_str)
            == Some(PART_OF)
    });
    if let Some(one) = ours
        && !PROTECTED.contains(&namespace)
        && !records_stay
        && found.others.is_empty()
    {
        plan.then.push(Manifest::of(one));
    }
    let config = config_maps
        .iter()
        .find(|map| map.metadata.name.as_deref() == Some(CONFIG_NAME));
    plan.ends_restore_only = config.is_some() && refuse_by(config, "").is_err();
    plan.stays = stays(found, options, &backups, restores, &locations);
    Ok(plan)
}

/// Removing the rights under an operation would leave half a restore, or a snapshot that nobody records.
fn refuse_while_at_work(jobs: &[Job], pods: &[Pod], namespace: &str) -> Result<(), Failure> {
    let running: Vec<&str> = jobs
        .iter()
        .filter(|job| !wait::is_over(job, pods))
        .filter_map(|job| job.metadata.name.as_deref())
        .collect();
    let [first, ..] = running.as_slice() else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Conflict,
        format!(
            "Ark is at work in namespace {namespace}: job.batch/{}",
            running.join(", job.batch/")
        ),
    )
    .hint(format!(
        "wait for it (`kubectl wait --for=condition=complete --timeout=1h job/{first} -n {namespace}`), or give it up \
         (`kubectl delete job {first} -n {namespace}`), and repeat the command"
    )))
}

fn refuse_if_others_need_types(found: &Found, namespace: &str) -> Result<(), Failure> {
    let places = found
        .backups
        .iter()
        .map(|one| &one.metadata)
        .chain(found.restores.iter().map(|one| &one.metadata))
        .chain(found.locations.iter().map(|one| &one.metadata))
        .filter_map(|metadata| metadata.namespace.as_deref());
    let others: BTreeSet<&str> = places
        .chain(found.other_installations.iter().map(String::as_str))
        .filter(|place| *place != namespace)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let others: Vec<&str> = others.into_iter().collect();
    Err(Failure::new(
        Exit::Conflict,
        format!(
            "the resource types are used elsewhere, too: in namespace {}",
            others.join(", ")
        ),
    )
    .hint("uninstall Ark there first, or leave out --crds"))
}

/// What stays, a line each; nothing of what was never there.
fn stays(
    found: &Found,
    options: &Options,
    backups: &[&Backup],
    restores: usize,
    locations: &[&BackupStorageLocation],
) -> Vec<String> {
    let namespace = options.namespace.as_str();
    let mut lines = Vec::new();
    for location in locations {
        let name = location.metadata.name.as_deref().unwrap_or_default();
        lines.push(format!(
            "the backups in {} (location {name})",
            location.spec.url
        ));
    }
    let statuses = backups.iter().filter_map(|backup| backup.status.as_ref());
    let snapshots: usize = statuses.map(|status| status.volume_backups.len()).sum();
    if snapshots > 0 {
        lines.push(format!(
            "{} of volumes, which these backups record",
            plural(snapshots as u64, "snapshot")
        ));
    }
    if !options.crds && !found.types.is_empty() {
        let mut kept = Vec::new();
        for (count, thing) in [
            (backups.len(), "backup"),
            (restores, "restore"),
            (locations.len(), "location"),
        ] {
            if count > 0 {
                kept.push(plural(count as u64, thing));
            }
        }
        let records = match kept.is_empty() {
            true => String::new(),
            false => format!(
                ", the records of {} in namespace {namespace}, and the credentials that locations name",
                kept.join(", ")
            ),
        };
        lines.push(format!(
            "{}{records} (--crds removes them)",
            plural(found.types.len() as u64, "resource type")
        ));
    }
    if !found.others.is_empty() {
        lines.push(format!(
            "namespace {namespace}, where others have {}",
            found.others.join(", ")
        ));
    }
    if !found.other_installations.is_empty() {
        let others: Vec<&str> = found
            .other_installations
            .iter()
            .map(String::as_str)
            .collect();
        lines.push(format!(
            "the installation in namespace {}, and the admission policy",
            others.join(", ")
        ));
    }
    lines
}

/// Asks the cluster what there is.
async fn find(connection: &Connection, namespace: &str) -> Result<Found, Failure> {
    let client = &connection.kube;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let there = namespaces
        .get_opt(namespace)
        .await
        .map_err(|error| client::failure(&error, &format!("reading namespace {namespace}")))?;
    let there = there.filter(|one| one.metadata.deletion_timestamp.is_none());
    let ours = format!("{PART_OF_LABEL}={PART_OF}");
    let ours = ours.as_str();
    let (in_namespace, in_cluster, records) = futures::try_join!(
        async {
            futures::try_join!(
                list::<CronJob>(Api::namespaced(client.clone(), namespace), ours),
                jobs(client, namespace),
                list::<RoleBinding>(Api::namespaced(client.clone(), namespace), ours),
                list::<Role>(Api::namespaced(client.clone(), namespace), ours),
                list::<ServiceAccount>(Api::namespaced(client.clone(), namespace), ours),
                list::<ConfigMap>(Api::namespaced(client.clone(), namespace), ours),
                list::<Secret>(Api::namespaced(client.clone(), namespace), ours),
            )
        },
        async {
            futures::try_join!(
                list::<ClusterRoleBinding>(Api::all(client.clone()), ours),
                list::<ClusterRole>(Api::all(client.clone()), ours),
                list::<ValidatingAdmissionPolicyBinding>(Api::all(client.clone()), ours),
                list::<ValidatingAdmissionPolicy>(Api::all(client.clone()), ours),
                list::<CustomResourceDefinition>(Api::all(client.clone()), ours),
                list::<PodTemplate>(Api::all(client.clone()), ours),
            )
        },
        async {
            futures::try_join!(
                list::<Backup>(Api::all(client.clone()), ""),
                list::<Restore>(Api::all(client.clone()), ""),
                list::<BackupStorageLocation>(Api::all(client.clone()), ""),
            )
        },
    )?;
    let (cron_jobs, jobs, role_bindings, roles, accounts, config_maps, secrets) = in_namespace;
    let (cluster_bindings, cluster_roles, policy_bindings, policies, types, all_templates) =
        in_cluster;
    let (backups, restores, locations) = records;
    let (templates, elsewhere): (Vec<PodTemplate>, Vec<PodTemplate>) = all_templates
        .into_iter()
        .filter(|one| one.metadata.name.as_deref() == Some(CONFIG_NAME))
        .partition(|one| one.metadata.namespace.as_deref() == Some(namespace));
    let others = match &there {
        Some(_) => others::in_namespace(connection, namespace).await?,
        None => Vec::new(),
    };
    let policy = policy_bindings.iter().map(Manifest::of);
    Ok(Found {
        namespace: there,
        cron_jobs,
        pods: pods(client, namespace).await,
        jobs,
        settings: Settings {
            role_bindings,
            roles,
            accounts,
            templates,
            config_maps,
            secrets,
        },
        cluster_bindings,
        cluster_roles,
        policy: policy
            .chain(policies.iter().map(Manifest::of))
            .filter(|one| one.name() == admission::POLICY)
            .collect(),
        types,
        backups,
        restores,
        locations,
        other_installations: elsewhere
            .into_iter()
            .filter_map(|one| one.metadata.namespace)
            .collect(),
        others,
    })
}

/// The Jobs of operations, at work and done.
async fn jobs(client: &Client, namespace: &str) -> Result<Vec<Job>, Failure> {
    list(Api::namespaced(client.clone(), namespace), OPERATION_LABEL).await
}

/// Their pods: they only show that a Job is over before it has ended. Who may not read them takes it for one at work.
async fn pods(client: &Client, namespace: &str) -> Vec<Pod> {
    let pods = list(Api::namespaced(client.clone(), namespace), OPERATION_LABEL);
    pods.await.unwrap_or_default()
}

/// Objects with these labels; none of a type that is not served.
async fn list<K>(api: Api<K>, labels: &str) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.list(&ListParams::default().labels(labels)).await {
        Ok(list) => Ok(list.items),
        Err(error) if client::is_not_found(&error) => Ok(Vec::new()),
        Err(error) => {
            let doing = format!("listing {}", K::plural(&()));
            Err(client::failure(&error, &doing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of<K: DeserializeOwned>(value: serde_json::Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn ours(name: &str) -> serde_json::Value {
        json!({"metadata": {"name": name, "namespace": "ark", "labels": {PART_OF_LABEL: PART_OF}}})
    }

    fn binding(name: &str, role: &str, namespace: &str) -> ClusterRoleBinding {
        rights::cluster_binding(name, role, namespace, "ark-backup")
    }

    fn installed() -> Found {
        let mut location: BackupStorageLocation = of(json!({
            "metadata": {"name": "default", "namespace": "ark"},
            "spec": {"url": "s3://b/p", "credentialSecret": "ark-credentials-default"},
        }));
        location.metadata.namespace = Some("ark".into());
        Found {
            namespace: Some(of(
                json!({"metadata": {"name": "ark", "labels": {PART_OF_LABEL: PART_OF}}}),
            )),
            cron_jobs: vec![of(ours("ark-sync-default"))],
            settings: Settings {
                config_maps: vec![of(ours("ark")), of(ours("log-of-a-backup"))],
                secrets: vec![of(ours("ark-credentials-default")), of(ours("forgotten"))],
                ..Settings::default()
            },
            cluster_bindings: vec![
                binding("ark-backup", "ark-backup", "ark"),
                binding("ark-backup:other", "ark-backup:other", "other"),
            ],
            cluster_roles: vec![
                of(json!({"metadata": {"name": "ark-backup"}})),
                of(json!({"metadata": {"name": "ark-backup:other"}})),
            ],
            policy: admission::objects().into(),
            types: vec![of(json!({
                "metadata": {"name": "backups.ark.heptio.com"},
                "spec": {"group": "", "names": {"kind": "", "plural": ""}, "scope": "", "versions": []},
            }))],
            locations: vec![location],
            ..Found::default()
        }
    }

    fn planned(found: &Found, crds: bool) -> Result<(Vec<String>, String), Failure> {
        let options = Options {
            namespace: "ark".into(),
            crds,
            ask: false,
            dry_run: ServerDryRun::None,
        };
        let plan = plan(found, &options)?;
        let going = plan.objects().map(Manifest::reference).collect();
        Ok((going, plan.stays.join("\n")))
    }

    #[test]
    fn records_and_the_way_to_the_backups_stay() {
        let (going, stays) = planned(&installed(), false).unwrap();
        assert_eq!(
            going,
            [
                "cronjob.batch/ark-sync-default",
                "clusterrolebinding.rbac.authorization.k8s.io/ark-backup",
                "clusterrole.rbac.authorization.k8s.io/ark-backup",
                "validatingadmissionpolicy.admissionregistration.k8s.io/records.ark.heptio.com",
                "validatingadmissionpolicybinding.admissionregistration.k8s.io/records.ark.heptio.com",
                "configmap/ark",
                "secret/forgotten",
            ]
        );
        assert!(stays.contains("s3://b/p (location default)"), "{stays}");
        assert!(stays.contains("1 location"), "{stays}");
    }

    #[test]
    fn with_the_types_goes_all_but_what_others_have() {
        let (going, stays) = planned(&installed(), true).unwrap();
        for gone in [
            "configmap/log-of-a-backup",
            "secret/ark-credentials-default",
            "customresourcedefinition.apiextensions.k8s.io/backups.ark.heptio.com",
        ] {
            assert!(going.iter().any(|one| one == gone), "{going:?}");
        }
        assert_eq!(going.last().unwrap(), "namespace/ark");
        assert!(stays.contains("s3://b/p"), "{stays}");
        let found = Found {
            others: vec!["deployment.apps/web".into()],
            ..installed()
        };
        let (going, stays) = planned(&found, true).unwrap();
        assert!(!going.iter().any(|one| one == "namespace/ark"));
        assert!(stays.contains("deployment.apps/web"), "{stays}");
    }

    #[test]
    fn what_another_installation_needs_stays() {
        let found = Found {
            other_installations: ["other".to_owned()].into(),
            ..installed()
        };
        let refused = planned(&found, true).unwrap_err();
        assert_eq!(refused.exit(), Exit::Conflict);
        assert!(
            refused.message().contains("namespace other"),
            "{}",
            refused.message()
        );
        let (going, _) = planned(&found, false).unwrap();
        assert!(
            !going
                .iter()
                .any(|one| one.contains("admission") || one.contains("other")),
            "{going:?}"
        );
    }

    #[test]
    fn nothing_goes_while_an_operation_is_at_work() {
        let found = Found {
            jobs: vec![of(ours("backup-nightly"))],
            ..installed()
        };
        let refused = planned(&found, false).unwrap_err();
        assert_eq!(refused.exit(), Exit::Conflict);
        assert!(
            refused.message().contains("job.batch/backup-nightly"),
            "{}",
            refused.message()
        );
        let done = json!({"metadata": {"name": "j"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}});
        let found = Found {
            jobs: vec![of(done)],
            ..installed()
        };
        let (going, _) = planned(&found, false).unwrap();
        assert!(going.iter().any(|one| one == "job.batch/j"));
    }
}
