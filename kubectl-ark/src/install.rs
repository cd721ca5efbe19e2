//! `kubectl ark install`: everything that Ark keeps in a cluster, as objects, and applying them.
//!
//! Nothing here runs: no pod, no controller, no webhook. Installing again upgrades.

pub(crate) mod preview;

use crate::cli::{RestoreRights, ServerDryRun};
use crate::client::{self, Connection};
use crate::manifest;
use crate::manifest::Manifest;
use crate::options::install::{LocationOptions, Options};
use crate::pod_template::{
    self, HOOKS_ANNOTATION, Installation, ON_DEMAND, RESTORE_RIGHTS_ANNOTATION, STANDING,
};
use crate::{admission, hourly, names, restore_only, rights, schedule};
use ark_job::api::namespace_flag;
use ark_job::api::{
    AccessMode, Backup, BackupStorageLocation, BackupStorageLocationSpec, CLUSTER_NAME_KEY,
    CONFIG_NAME, CONTRACT_ANNOTATION, CREDENTIALS_KEY, DEFAULT_LOCATION, EXCLUDE_LABEL, MODE_KEY,
    NORMAL, RESTORE_ONLY, Restore, VELERO_EXCLUDE_LABEL, is_restore_binding, of_installation,
};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PodTemplate, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::{Client, CustomResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the API server may take to serve a new resource type.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// What is in the cluster already and stays unless a flag says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// ConfigMap `ark`.
    pub config: Option<ConfigMap>,
    /// PodTemplate `ark`.
    pub template: Option<PodTemplate>,
    /// Annotations of Ark's service accounts, by name.
    pub account_annotations: BTreeMap<String, BTreeMap<String, String>>,
    /// The kubeconfig's name for the cluster.
    pub cluster_name: Option<String>,
    /// The cluster's UID: that of namespace kube-system.
    pub cluster_uid: Option<String>,
    /// The storage locations.
    pub locations: Vec<BackupStorageLocation>,
    /// The CronJobs in Ark's namespace.
    pub cron_jobs: Vec<CronJob>,
    /// The roles in the whole cluster that some installation has made.
    pub cluster_roles: Vec<ClusterRole>,
    /// The bindings in the whole cluster that some installation has made.
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    /// The roles of Ark's in its namespace.
    pub roles: Vec<Role>,
    /// The bindings of Ark's in its namespace.
    pub role_bindings: Vec<RoleBinding>,
    /// The cluster is too old for admission policies.
    pub without_admission_policies: bool,
}

/// Everything to apply, in order.
///
/// # Errors
/// When the pod settings make no pod template.
pub fn plan(options: &Options, existing: &Existing) -> Result<Vec<Manifest>, Failure> {
    plan_and_warnings(options, existing).map(|(objects, _)| objects)
}

/// The plan, and what is left out of it.
fn plan_and_warnings(
    options: &Options,
    existing: &Existing,
) -> Result<(Vec<Manifest>, Vec<String>), Failure> {
    let Options {
        namespace,
        location,
        pods,
        reset_pod_template,
        service_account_annotations,
        restore_rights,
        hooks,
        restore_only,
        cluster_name,
        dry_run: _,
        output: _,
        force_conflicts: _,
    } = options;
    let old_template = existing.template.as_ref().filter(|_| !reset_pod_template);
    let standing = match restore_rights {
        Some(rights) => *rights == RestoreRights::Standing,
        None => existing.template.as_ref().is_some_and(has_standing_rights),
    };
    let hooks = match hooks {
        Some(hooks) => *hooks,
        None => existing.template.as_ref().is_some_and(has_hooks),
    };
    let (template, contract) = pod_template::plan(pods, old_template)?;

    let mut objects = vec![namespace_object(namespace)];
    objects.extend(resource_types());
    if !existing.without_admission_policies {
        objects.extend(admission::objects());
    }
    objects.extend(rights::objects(
        namespace,
        &account_annotations(existing, service_account_annotations),
        standing,
        hooks,
    ));
    objects.push(config(
        namespace,
        existing,
        *restore_only,
        cluster_name.as_deref(),
    ));
    let template = PodTemplate {
        metadata: ObjectMeta {
            annotations: Some(
                [
                    (CONTRACT_ANNOTATION.to_owned(), contract),
                    (
                        RESTORE_RIGHTS_ANNOTATION.to_owned(),
                        if standing { STANDING } else { ON_DEMAND }.to_owned(),
                    ),
                    (HOOKS_ANNOTATION.to_owned(), hooks.to_string()),
                ]
                .into(),
            ),
            ..named(CONFIG_NAME, namespace)
        },
        template: Some(template),
    };
    objects.push(Manifest::of(&template));
    let location = location
        .as_ref()
        .map(|location| located(location, namespace, existing))
        .transpose()?;
    if let Some(location) = &location {
        objects.extend(location_objects(namespace, location));
    }
    let mut warnings = Vec::new();
    match Installation::of(&template) {
        Ok(installation) => {
            let around = hourly::Surroundings {
                namespace,
                installation: &installation,
                existing: &existing.cron_jobs,
                cluster_uid: existing.cluster_uid.as_deref(),
                restore_only: *restore_only || is_restore_only(existing),
                switching_on: *restore_only,
            };
            for (name, spec) in all_locations(location.as_ref(), existing) {
                match hourly::cron_jobs(name, spec, &around) {
                    Ok(cron_jobs) => objects.extend(cron_jobs.iter().map(Manifest::of)),
                    // A location that no pod can use is no reason not to install the rest.
                    Err(failure) if failure.exit() == Exit::Usage => warnings.push(format!(
                        "location {name} is neither synced nor expired: {}",
                        failure.message()
                    )),
                    Err(failure) => return Err(failure),
                }
            }
        }
        // An image of the administrator's own, which is older: what runs it stays as it was.
        Err(failure) => warnings.push(format!(
            "expiry and sync are not updated: {}",
            failure.message()
        )),
    }
    Ok((objects, warnings))
}

/// Whether nothing may be backed up, deleted or expired.
pub fn is_restore_only(existing: &Existing) -> bool {
    ark_job::mode::refuse_by(existing.config.as_ref(), "").is_err()
}

/// The locations that there will be.
fn all_locations<'a>(
    new: Option<&'a Located<'_>>,
    existing: &'a Existing,
) -> BTreeMap<&'a str, &'a BackupStorageLocationSpec> {
    let existing = existing
        .locations
        .iter()
        .filter_map(|location| Some((location.metadata.name.as_deref()?, &location.spec)));
    existing
        .chain(new.map(|location| (location.name, &location.spec)))
        .collect()
}

fn has_standing_rights(template: &PodTemplate) -> bool {
    annotation(template, RESTORE_RIGHTS_ANNOTATION) == Some(STANDING)
}

fn has_hooks(template: &PodTemplate) -> bool {
    annotation(template, HOOKS_ANNOTATION) == Some("true")
}

fn annotation<'a>(template: &'a PodTemplate, name: &str) -> Option<&'a str> {
    let annotations = template.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn namespace_object(namespace: &str) -> Manifest {
    let mut labels = rights::labels();
    labels.insert(
        "pod-security.kubernetes.io/enforce".into(),
        "restricted".into(),
    );
    Manifest::of(&Namespace {
        metadata: ObjectMeta {
            name: Some(namespace.into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    })
}

/// The CustomResourceDefinitions.
pub fn resource_types() -> Vec<Manifest> {
    [Backup::crd(), Restore::crd(), BackupStorageLocation::crd()]
        .into_iter()
        .map(|mut definition| {
            definition.metadata.labels = Some(rights::labels());
            Manifest::of(&definition)
        })
        .collect()
}

/// What was there, for each account, under what all of them get now.
fn account_annotations(
    existing: &Existing,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeMap<String, String>> {
    use ark_job::api::service_account::{BACKUP, HOUSEKEEPING, RESTORE};
    [BACKUP, RESTORE, HOUSEKEEPING]
        .into_iter()
        .map(|account| {
            let mut annotations = existing
                .account_annotations
                .get(account)
                .cloned()
                .unwrap_or_default();
            annotations.extend(given.clone());
            (account.to_owned(), annotations)
        })
        .collect()
}

/// Never ends restore-only mode: an upgrade in the middle of a recovery must not let backups be deleted.
fn config(
    namespace: &str,
    existing: &Existing,
    restore_only: bool,
    cluster_name: Option<&str>,
) -> Manifest {
    let mut data = existing
        .config
        .as_ref()
        .and_then(|config| config.data.clone())
        .unwrap_or_default();
    if restore_only {
        data.insert(MODE_KEY.into(), RESTORE_ONLY.into());
    }
    // Normal is said by saying nothing: applying a printed text again must not end restore-only mode.
    if data.get(MODE_KEY).is_some_and(|mode| mode == NORMAL) {
        data.remove(MODE_KEY);
    }
    let known = data
        .get(CLUSTER_NAME_KEY)
        .cloned()
        .filter(|name| !name.is_empty());
    let name = cluster_name
        .map(str::to_owned)
        .or(known)
        .or(existing.cluster_name.clone());
    data.insert(CLUSTER_NAME_KEY.into(), name.unwrap_or_default());
    Manifest::of(&ConfigMap {
        metadata: named(CONFIG_NAME, namespace),
        data: Some(data),
        ..ConfigMap::default()
    })
}

/// A location as it will be.
pub struct Located<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it says.
    pub spec: BackupStorageLocationSpec,
    /// Content of the Secret to make for it.
    pub credentials: Option<&'a str>,
}

/// What is asked for over what is there: neither its mode nor its credentials change unless a flag says so.
///
/// # Errors
/// [`Exit::NotFound`] when a location is to be changed that is not there.
fn located<'a>(
    location: &'a LocationOptions,
    namespace: &str,
    existing: &Existing,
) -> Result<Located<'a>, Failure> {
    let LocationOptions {
        name,
        place,
        access_mode,
        credential_secret,
        credentials,
    } = location;
    let there = existing
        .locations
        .iter()
        .find(|there| there.metadata.name.as_ref() == Some(name))
        .map(|there| &there.spec);
    let Some(place) = place.as_ref().or(there) else {
        let text = format!("there is no BackupStorageLocation {name} in namespace {namespace}");
        return Err(Failure::new(Exit::NotFound, text).hint("--storage URL makes it"));
    };
    let kept = there.cloned().unwrap_or_default();
    Ok(Located {
        name,
        spec: BackupStorageLocationSpec {
            access_mode: access_mode.unwrap_or(kept.access_mode),
            credential_secret: credential_secret.clone().or(kept.credential_secret),
            ca_config_map: place.ca_config_map.clone().or(kept.ca_config_map),
            velero_snapshot_location: place
                .velero_snapshot_location
                .clone()
                .or(kept.velero_snapshot_location),
            ..place.clone()
        },
        credentials: credentials.as_deref(),
    })
}

/// The location, and before it the Secret with its credentials.
pub fn location_objects(namespace: &str, location: &Located<'_>) -> Vec<Manifest> {
    let Located {
        name,
        spec,
        credentials,
    } = location;
    let mut objects = Vec::new();
    if let (Some(credentials), Some(secret)) = (credentials, &spec.credential_secret) {
        let mut metadata = named(secret, namespace);
        // A backup must not hold the key to itself.
        for label in [EXCLUDE_LABEL, VELERO_EXCLUDE_LABEL] {
            metadata
                .labels
                .get_or_insert_default()
                .insert(label.into(), "true".into());
        }
        objects.push(Manifest::of(&Secret {
            metadata,
            type_: Some("Opaque".into()),
            data: Some(
                [(
                    CREDENTIALS_KEY.to_owned(),
                    k8s_openapi::ByteString(credentials.as_bytes().to_vec()),
                )]
                .into(),
            ),
            ..Secret::default()
        }));
    }
    let mut resource = BackupStorageLocation::new(name, spec.clone());
    resource.metadata = named(name, namespace);
    objects.push(Manifest::of(&resource));
    objects
}

fn named(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.into()),
        labels: Some(rights::labels()),
        ..ObjectMeta::default()
    }
}

/// Applies the plan, or prints it.
pub async fn run(connection: &Connection, options: &Options) -> Result<Exit, Failure> {
    let client = &connection.kube;
    let mut existing = read_existing(connection, &options.namespace).await?;
    let (mut objects, warnings) = plan_and_warnings(options, &existing)?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    match options.dry_run {
        ServerDryRun::None => {}
        ServerDryRun::Client => {
            manifest::print(&objects, options.output, " (dry run)");
            return Ok(Exit::Done);
        }
        ServerDryRun::Server => return preview::run(client, options, &existing, &objects).await,
    }
    // What is there stops first, schedules included; what is new comes stopped.
    if options.restore_only && existing.template.is_some() {
        restore_only::on(client, &options.namespace).await?;
        existing = read_existing(connection, &options.namespace).await?;
        objects = plan(options, &existing)?;
    }
    for object in &objects {
        let applied = apply(client, object, options.force_conflicts).await?;
        if applied && options.output.is_none() {
            println!("{} serverside-applied", object.reference());
        }
    }
    schedule::upgrade::run(client, options, None).await?;
    for Leftover { object, why } in leftovers(options, &existing, &objects)? {
        if object.delete(client).await? {
            eprintln!("{} deleted: {why}", object.reference());
        }
    }
    let location = options
        .location
        .as_ref()
        .map(|location| located(location, &options.namespace, &existing))
        .transpose()?;
    if options.output.is_some() {
        manifest::print(&objects, options.output, "");
    }
    if options.restore_only || is_restore_only(&existing) {
        eprintln!(
            "next: kubectl ark restore create BACKUP --wait{flag}; `kubectl ark restore-only off{flag}` ends restore-only mode",
            flag = namespace_flag(&options.namespace)
        );
    } else if let Some(location) = &location {
        let next = match location.spec.access_mode {
            AccessMode::ReadOnly => "restore create BACKUP",
            AccessMode::ReadWrite => "backup create NAME",
        };
        let place = match location.name {
            DEFAULT_LOCATION => String::new(),
            name => format!(" --location {name}"),
        };
        eprintln!(
            "next: kubectl ark {next} --wait{place}{}",
            namespace_flag(&options.namespace)
        );
    } else if existing.template.is_none() {
        eprintln!("next: kubectl ark install --storage s3://BUCKET/PREFIX says where backups go");
    }
    Ok(Exit::Done)
}

/// Something that an earlier installation has made, and this one does not have.
struct Leftover {
    object: Manifest,
    why: &'static str,
}

/// What goes once `objects` are there, bindings before the roles that give nothing without them.
fn leftovers(
    options: &Options,
    existing: &Existing,
    objects: &[Manifest],
) -> Result<Vec<Leftover>, Failure> {
    let namespace = options.namespace.as_str();
    let is_planned = |kind: &str, name: &str| {
        objects
            .iter()
            .any(|object| object.kind() == kind && object.name() == name)
    };
    // A restore that runs has that binding, and gives it up.
    let is_kept = |kind: &str, name: &str| {
        is_planned(kind, name) || kind == "ClusterRoleBinding" && is_restore_binding(name)
    };
    let (bindings, roles) = rights::leftovers(
        namespace,
        &existing.cluster_bindings,
        &existing.cluster_roles,
        is_kept,
    );
    let rights = bindings
        .iter()
        .map(Manifest::of)
        .chain(roles.iter().map(Manifest::of));
    let standing = of_installation(rights::STANDING_BINDING, namespace);
    let hooks = of_installation(rights::HOOKS_ROLE, namespace);
    let mut leftovers: Vec<Leftover> = rights
        .map(|object| {
            let why = match object.name() {
                name if name == standing => "restores get their rights on demand",
                name if name == hooks => "backups run no hooks",
                _ => "this version has no use for it",
            };
            Leftover { object, why }
        })
        .collect();
    let (bindings, roles) =
        rights::leftovers_of_namespace(&existing.role_bindings, &existing.roles, is_planned);
    let unused = bindings
        .into_iter()
        .map(Manifest::of)
        .chain(roles.into_iter().map(Manifest::of));
    leftovers.extend(unused.map(|object| Leftover {
        object,
        why: "this version has no use for it",
    }));
    let location = options
        .location
        .as_ref()
        .map(|location| located(location, namespace, existing))
        .transpose()?;
    let locations = all_locations(location.as_ref(), existing);
    let stale = existing
        .cron_jobs
        .iter()
        .filter(|one| is_stale(one, &locations));
    leftovers.extend(stale.map(|cron_job| Leftover {
        object: Manifest::of(cron_job),
        why: "its location is gone, or ReadOnly",
    }));
    Ok(leftovers)
}

/// Whether a CronJob keeps house where there is nothing to do: its location is gone, or has become ReadOnly.
fn is_stale(cron_job: &CronJob, locations: &BTreeMap<&str, &BackupStorageLocationSpec>) -> bool {
    let Some(operation) = hourly::operation(cron_job) else {
        return false;
    };
    !locations.iter().any(|(name, spec)| {
        let needed = operation == hourly::SYNC || spec.access_mode == AccessMode::ReadWrite;
        needed && cron_job.metadata.name == Some(names::cron_job(operation, name))
    })
}

/// Applies an object, and waits until a new resource type is served; says whether it was applied, since a CronJob that
/// somebody else looks after is left to them.
///
/// # Errors
/// When it cannot be applied, or somebody else's field would be overridden.
pub async fn apply(client: &Client, object: &Manifest, force: bool) -> Result<bool, Failure> {
    match object.apply(client, force, false).await {
        Ok(_) => {}
        Err(error) if is_left(object, &error) => {
            tell_left(object, &error);
            return Ok(false);
        }
        Err(error) => return Err(not_applied(object, &error)),
    }
    if object.kind() == "CustomResourceDefinition" {
        established(client, object.name()).await?;
    }
    Ok(true)
}

/// Whether the error says that somebody else looks after a CronJob of ours, from Git for instance.
fn is_left(object: &Manifest, error: &kube::Error) -> bool {
    object.kind() == "CronJob" && client::is_conflict(error)
}

fn tell_left(object: &Manifest, error: &kube::Error) {
    eprintln!(
        "warning: {} is left as it is: {}",
        object.reference(),
        client::failure(error, "somebody else manages it").message()
    );
    eprintln!(
        "hint: change it there, to what `kubectl ark install --dry-run=client -o yaml{}` prints; --force-conflicts takes it over",
        object.namespace().map(namespace_flag).unwrap_or_default()
    );
}

fn not_applied(object: &Manifest, error: &kube::Error) -> Failure {
    let failure = client::failure(error, &format!("applying {}", object.reference()));
    if client::is_conflict(error) {
        failure.hint("someone else has changed it; --force-conflicts overrides that")
    } else {
        failure
    }
}

/// Waits until a new resource type is served.
async fn established(client: &Client, name: &str) -> Result<(), Failure> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let doing = format!("waiting for {name} to be served");
    let poll = async {
        loop {
            let definition = api
                .get(name)
                .await
                .map_err(|error| client::failure(&error, &doing))?;
            let conditions = definition
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            if conditions
                .iter()
                .any(|one| one.type_ == "Established" && one.status == "True")
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ESTABLISH_TIMEOUT, poll)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::Failed,
                format!("{doing}: it is not after 30 seconds"),
            ))
        })
}

/// What is in the cluster already.
///
/// # Errors
/// When it cannot be read.
pub async fn read_existing(connection: &Connection, namespace: &str) -> Result<Existing, Failure> {
    let client = &connection.kube;
    let doing = |what: &str| format!("reading {what} in namespace {namespace}");
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let templates: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!(
        "{}={}",
        ark_job::api::PART_OF_LABEL,
        ark_job::api::PART_OF
    ));
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), namespace);
    let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), namespace);
    let all = ListParams::default();
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    let cluster_bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
    let role_bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let (config, template, accounts, cluster_uid, locations, cron_jobs, rights, admission) = futures::join!(
        configs.get_opt(CONFIG_NAME),
        templates.get_opt(CONFIG_NAME),
        accounts.list(&params),
        client::cluster_uid(client),
        locations.list(&all),
        cron_jobs.list(&all),
        async {
            futures::try_join!(
                cluster_roles.list(&params),
                cluster_bindings.list(&params),
                roles.list(&params),
                role_bindings.list(&params)
            )
        },
        admission::is_served(client),
    );
    let (cluster_roles, cluster_bindings, roles, role_bindings) =
        rights.map_err(|error| client::failure(&error, "reading roles and their bindings"))?;
    let admission = admission
        .map_err(|error| client::failure(&error, "asking for types of admission policies"))?;
    let cluster_uid = cluster_uid
        .map_err(|error| client::failure(&error, "reading the UID of namespace kube-system"))?;
    let locations = match locations {
        Ok(list) => list.items,
        // The resource type is not there yet.
        Err(error) if client::is_not_found(&error) => Vec::new(),
        Err(error) => return Err(client::failure(&error, &doing("storage locations"))),
    };
    let cron_jobs = cron_jobs.map_err(|error| client::failure(&error, &doing("CronJobs")))?;
    let accounts = accounts.map_err(|error| client::failure(&error, &doing("service accounts")))?;
    Ok(Existing {
        config: config.map_err(|error| client::failure(&error, &doing("ConfigMap ark")))?,
        template: template.map_err(|error| client::failure(&error, &doing("PodTemplate ark")))?,
        account_annotations: accounts
            .items
            .into_iter()
            .filter_map(|account| {
                let mut annotations = account.metadata.annotations?;
                // kubectl's notes to itself are not ours to keep.
                annotations.retain(|key, _| !key.starts_with("kubectl.kubernetes.io/"));
                Some((account.metadata.name?, annotations))
            })
            .collect(),
        cluster_name: connection.cluster_name.clone(),
        cluster_uid,
        locations,
        cron_jobs: cron_jobs.items,
        cluster_roles: cluster_roles.items,
        cluster_bindings: cluster_bindings.items,
        roles: roles.items,
        role_bindings: role_bindings.items,
        without_admission_policies: !admission,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing(mode: AccessMode) -> Existing {
        let spec = BackupStorageLocationSpec {
            url: "s3://b/p".into(),
            region: Some("r".into()),
            credential_secret: Some("secret".into()),
            ca_config_map: Some("ca".into()),
            access_mode: mode,
            ..BackupStorageLocationSpec::default()
        };
        let mut location = BackupStorageLocation::new("default", spec);
        location.metadata.namespace = Some("ark".into());
        Existing {
            locations: vec![location],
            ..Existing::default()
        }
    }

    fn asked(place: Option<&str>, access_mode: Option<AccessMode>) -> LocationOptions {
        LocationOptions {
            name: "default".into(),
            place: place.map(|url| BackupStorageLocationSpec {
                url: url.into(),
                ..BackupStorageLocationSpec::default()
            }),
            access_mode,
            credential_secret: None,
            credentials: None,
        }
    }

    #[test]
    fn a_location_that_is_there_keeps_its_mode_and_its_credentials() {
        let there = existing(AccessMode::ReadOnly);
        let again = asked(Some("s3://b/p"), None);
        let spec = located(&again, "ark", &there).unwrap().spec;
        assert_eq!(spec.access_mode, AccessMode::ReadOnly);
        assert_eq!(spec.credential_secret.as_deref(), Some("secret"));
        assert_eq!(spec.ca_config_map.as_deref(), Some("ca"));
        assert_eq!(spec.region, None, "the URL says the place, and all of it");
        let new = located(&again, "ark", &Existing::default()).unwrap().spec;
        assert_eq!(new.access_mode, AccessMode::ReadWrite);
    }

    #[test]
    fn the_mode_of_a_location_is_changed_without_its_url() {
        let only = asked(None, Some(AccessMode::ReadOnly));
        let there = existing(AccessMode::ReadWrite);
        let spec = located(&only, "ark", &there).unwrap().spec;
        assert_eq!(
            spec,
            BackupStorageLocationSpec {
                access_mode: AccessMode::ReadOnly,
                ..there.locations[0].spec.clone()
            }
        );
        let missing = located(&only, "ark", &Existing::default()).err().unwrap();
        assert_eq!(missing.exit(), Exit::NotFound);
    }
}
