//! `location …`: the places where backups are, as resources with an hourly sync and expiry.
//!
//! Making one is what `install --storage` does to a location. Forgetting one touches nothing that is stored; what uses it
//! keeps it.

use crate::Surroundings;
use crate::age::{age, time};
use crate::cli::ClusterFlags;
use crate::client::{self, Connection};
use crate::describe::Page;
use crate::install::{self, Existing, Located};
use crate::manifest;
use crate::manifest::{Manifest, reference};
use crate::options::location::{CreateOptions, Options};
use crate::options::schedule::{Chosen, GetOptions};
use crate::output::{self, Asked, Printable, Watch};
use crate::pod_template::Installation;
use crate::records::{self, Record};
use crate::table::Fit;
use crate::watch::{self, Watched};
use crate::{hourly, names, recorded, schedule, similar};
use ark_job::api::namespace_flag;
use ark_job::api::{
    AccessMode, Backup, BackupStorageLocation, BackupStorageLocationSpec, DEFAULT_LOCATION, Restore,
};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::report::plural;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::core::ApiResource;
use serde_json::Value;

/// Does it.
pub async fn run(
    cluster: &ClusterFlags,
    options: Options,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let now = surroundings.now;
    let connection = client::connect(cluster).await?;
    match options {
        Options::Create(options) => create(&connection, &options).await,
        Options::Get(options) => get(&connection.kube, &options, surroundings, interrupt).await,
        Options::Describe(chosen) => describe(&connection.kube, &chosen, now).await,
        Options::Delete(chosen) => delete(&connection.kube, &chosen).await,
    }
}

/// Everything to create for a location: the Secret with its credentials, itself, and what keeps house there each hour; and why
/// nothing does, if no pod could.
///
/// # Errors
/// When there is one of that name, or Ark is not installed.
pub fn plan(
    options: &CreateOptions,
    existing: &Existing,
) -> Result<(Vec<Manifest>, Option<String>), Failure> {
    let CreateOptions {
        namespace,
        name,
        spec,
        credentials,
        dry_run: _,
        output: _,
    } = options;
    let flag = namespace_flag(namespace);
    if existing
        .locations
        .iter()
        .any(|there| there.metadata.name.as_ref() == Some(name))
    {
        return Err(Failure::new(
            Exit::Conflict,
            format!("there is a location {name} already in namespace {namespace}"),
        )
        .hint(format!(
            "choose another name; `kubectl ark install --location-name {name}{flag}` with --storage, --access-mode or \
             --credentials-file changes it"
        )));
    }
    let Some(template) = &existing.template else {
        return Err(client::not_installed(&format!(
            "there is no PodTemplate ark in namespace {namespace}"
        )));
    };
    let around = hourly::Surroundings {
        namespace,
        installation: &Installation::of(template)?,
        existing: &existing.cron_jobs,
        cluster_uid: existing.cluster_uid.as_deref(),
        restore_only: install::is_restore_only(existing),
        switching_on: false,
    };
    let (cron_jobs, warning) = match hourly::cron_jobs(name, spec, &around) {
        Ok(cron_jobs) => (cron_jobs, None),
        // As a directory of this machine, for --local.
        Err(failure) if failure.exit() == Exit::Usage => {
            let warning = format!(
                "location {name} is neither synced nor expired: {}",
                failure.message()
            );
            (Vec::new(), Some(warning))
        }
        Err(failure) => return Err(failure),
    };
    let located = Located {
        name,
        spec: spec.clone(),
        credentials: credentials.as_deref(),
    };
    let mut objects = install::location_objects(namespace, &located);
    objects.extend(cron_jobs.iter().map(Manifest::of));
    Ok((objects, warning))
}

async fn create(connection: &Connection, options: &CreateOptions) -> Result<Exit, Failure> {
    let namespace = &options.namespace;
    let existing = install::read_existing(connection, namespace).await?;
    if existing.template.is_none() {
        let what = format!("there is no PodTemplate ark in namespace {namespace}");
        return Err(client::not_here(&connection.kube, namespace, &what).await);
    }
    let (objects, warning) = plan(options, &existing)?;
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
    if options.dry_run {
        manifest::print(&objects, options.output, " (dry run)");
        return Ok(Exit::Done);
    }
    for object in &objects {
        install::apply(&connection.kube, object, false).await?;
    }
    manifest::print(&objects, options.output, "");
    let flag = namespace_flag(namespace);
    let place = match options.name.as_str() {
        DEFAULT_LOCATION => String::new(),
        name => format!(" --location {name}"),
    };
    eprintln!(
        "next: {}",
        match options.spec.access_mode {
            AccessMode::ReadOnly => format!("kubectl ark sync{place}{flag} lists its backups now"),
            AccessMode::ReadWrite => format!("kubectl ark backup create NAME --wait{place}{flag}"),
        }
    );
    Ok(Exit::Done)
}

/// The columns of the table.
fn header(wide: bool) -> &'static [&'static str] {
    const WIDE: [&str; 8] = [
        "NAME",
        "STATUS",
        "ACCESS",
        "LAST-SYNC",
        "URL",
        "REGION",
        "ENDPOINT",
        "CREDENTIALS",
    ];
    if wide { &WIDE } else { &WIDE[..5] }
}

fn row(location: &BackupStorageLocation, wide: bool, now: Timestamp) -> Vec<String> {
    let spec = &location.spec;
    let mut row = vec![
        name(location).to_owned(),
        state(location).to_owned(),
        access(spec).to_owned(),
        last_sync(location).map_or("never".into(), |at| age(at, now)),
        without_secrets(&spec.url),
    ];
    if wide {
        row.extend([
            spec.region.clone().unwrap_or_default(),
            spec.endpoint
                .as_deref()
                .map(without_secrets)
                .unwrap_or_default(),
            spec.credential_secret.clone().unwrap_or_default(),
        ]);
    }
    row
}

fn name(location: &BackupStorageLocation) -> &str {
    location.metadata.name.as_deref().unwrap_or_default()
}

/// How it was when it was last looked at.
fn state(location: &BackupStorageLocation) -> &'static str {
    match &location.status {
        Some(status) if status.unreachable.is_some() => "Unreachable",
        Some(status) if status.last_sync_time.is_some() => "Available",
        _ => "Unknown",
    }
}

fn last_sync(location: &BackupStorageLocation) -> Option<Timestamp> {
    let status = location.status.as_ref()?;
    status.last_sync_time.as_ref().map(|time| time.0)
}

fn access(spec: &BackupStorageLocationSpec) -> &'static str {
    match spec.access_mode {
        AccessMode::ReadWrite => "ReadWrite",
        AccessMode::ReadOnly => "ReadOnly",
    }
}

/// A URL as it may be shown: somebody may have written a user and a password, or keys as parameters, into the resource.
pub fn without_secrets(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = match rest.split_once('/') {
                Some((host, path)) => (host, format!("/{path}")),
                None => (rest, String::new()),
            };
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => bare.to_owned(),
    }
}

impl Printable for BackupStorageLocation {
    const FIT: Fit = Fit {
        leave_out: &["AGE", "LAST-SYNC"],
        cut: &["URL", "ENDPOINT"],
    };

    fn header(wide: bool) -> &'static [&'static str] {
        header(wide)
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        row(self, wide, now)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).expect("Kubernetes objects can be written as JSON")
    }

    fn reference(&self) -> String {
        let resource = ApiResource::erase::<BackupStorageLocation>(&());
        reference(&resource, name(self))
    }
}

/// Lists locations.
pub async fn get(
    client: &Client,
    options: &GetOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let GetOptions {
        chosen: which,
        printing,
    } = options;
    let look = async || chosen(client, which).await;
    let asked = Asked {
        namespace: &which.namespace,
        by_name: which.names.len() == 1,
    };
    if printing.watch != Watch::No {
        let watched = [Watched::of::<BackupStorageLocation>(which.selector.clone())];
        return watch::run(
            client,
            &watched,
            look,
            asked,
            printing,
            surroundings,
            interrupt,
        )
        .await;
    }
    let (found, missing) = look().await?;
    output::print_found(found, missing, asked, printing, surroundings)
}

/// What is there beside a location.
struct Around {
    cron_jobs: Vec<CronJob>,
    backups: Vec<Backup>,
    restores: Vec<Restore>,
}

impl Around {
    async fn read(client: &Client, namespace: &str) -> Result<Around, Failure> {
        let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), namespace);
        let all = ListParams::default();
        let (cron_jobs, backups, restores) = futures::join!(
            cron_jobs.list(&all),
            recorded::list::<Backup>(client, namespace, None),
            recorded::list::<Restore>(client, namespace, None)
        );
        let cron_jobs = cron_jobs.map_err(|error| {
            client::failure(
                &error,
                &format!("listing CronJobs in namespace {namespace}"),
            )
        })?;
        Ok(Around {
            cron_jobs: cron_jobs.items,
            backups: backups?,
            restores: restores?,
        })
    }

    /// The backups of a location.
    fn backups<'a>(&'a self, location: &'a str) -> impl Iterator<Item = &'a Backup> {
        let of = move |one: &&Backup| one.spec.storage_location.as_deref() == Some(location);
        self.backups.iter().filter(of)
    }

    /// The restores from a location.
    fn restores<'a>(&'a self, location: &'a str) -> impl Iterator<Item = &'a Restore> {
        let of = move |one: &&Restore| one.spec.storage_location.as_deref() == Some(location);
        self.restores.iter().filter(of)
    }

    /// The CronJobs that `install` and `location create` make for a location.
    fn own<'a>(&'a self, location: &'a str) -> impl Iterator<Item = &'a CronJob> {
        self.cron_jobs
            .iter()
            .filter(move |one| is_own(one, location))
    }

    /// What uses a location, and would fail without it.
    fn users(&self, location: &str) -> Vec<String> {
        let cron_jobs = self
            .cron_jobs
            .iter()
            .filter(|one| uses(one, location) && !is_own(one, location))
            .map(|one| {
                let name = one.metadata.name.as_deref().unwrap_or_default();
                match schedule::of_cron_job(one) {
                    Some(_) => format!("schedule {name}"),
                    None => format!("cronjob.batch/{name}"),
                }
            });
        let backups = self
            .backups(location)
            .filter(|one| is_at_work(*one))
            .map(|one| format!("backup {}, which is at work", records::name(one)));
        let restores = self
            .restores(location)
            .filter(|one| is_at_work(*one))
            .map(|one| format!("restore {}, which is at work", records::name(one)));
        cron_jobs.chain(backups).chain(restores).collect()
    }
}

/// Whether it may still write. A backup whose deletion has begun needs its location, too.
fn is_at_work<R: Record>(record: &R) -> bool {
    record.end().is_none()
}

fn is_own(cron_job: &CronJob, location: &str) -> bool {
    hourly::operation(cron_job).is_some_and(|operation| {
        cron_job.metadata.name == Some(names::cron_job(operation, location))
    })
}

/// Whether a CronJob's Jobs are told to use a location.
fn uses(cron_job: &CronJob, location: &str) -> bool {
    let template = cron_job
        .spec
        .as_ref()
        .and_then(|spec| spec.job_template.spec.as_ref());
    let args = template.and_then(|job| records::args(&job.template));
    args.is_some_and(|args| args.command.storage().location.as_deref() == Some(location))
}

/// Shows locations in full.
async fn describe(client: &Client, which: &Chosen, now: Timestamp) -> Result<Exit, Failure> {
    let (locations, missing) = chosen(client, which).await?;
    let around = match locations.is_empty() {
        true => None,
        false => Some(Around::read(client, &which.namespace).await?),
    };
    for (index, location) in locations.iter().enumerate() {
        if index > 0 {
            print!("\n\n");
        }
        if let Some(around) = &around {
            print!("{}", described(location, around, now));
        }
    }
    missing.map_or(Ok(Exit::Done), Err)
}

fn described(location: &BackupStorageLocation, around: &Around, now: Timestamp) -> String {
    let (spec, name) = (&location.spec, name(location));
    let mut page = Page::default();
    page.metadata(&location.metadata, name);
    page.field("URL", without_secrets(&spec.url));
    page.some("Region", spec.region.as_ref());
    page.some("Endpoint", spec.endpoint.as_deref().map(without_secrets));
    page.field("Access", access(spec));
    page.field(
        "Credentials",
        match &spec.credential_secret {
            Some(secret) => format!("Secret {secret}"),
            None => "the pod's own identity".to_owned(),
        },
    );
    page.some("Profile", spec.profile.as_ref());
    page.some("Role", spec.role_arn.as_ref());
    page.some(
        "Certificates",
        spec.ca_config_map
            .as_ref()
            .map(|name| format!("ConfigMap {name}")),
    );
    page.some("Encryption", spec.server_side_encryption.as_ref());
    page.some("KMS key", spec.kms_key_id.as_ref());
    page.some("Velero snapshots", spec.velero_snapshot_location.as_ref());
    page.gap();
    page.field("Status", state(location));
    let status = location.status.as_ref();
    page.some(
        "Reason",
        status.and_then(|status| status.unreachable.as_ref()),
    );
    page.field(
        "Last sync",
        last_sync(location).map_or("never".into(), |at| {
            format!("{} ({} ago)", time(at), age(at, now))
        }),
    );
    page.gap();
    page.field("Backups", around.backups(name).count().to_string());
    page.field("Used by", around.users(name).join("\n"));
    let hourly: Vec<&str> = around.own(name).filter_map(hourly::operation).collect();
    page.field("Each hour", hourly.join(", "));
    page.text()
}

/// Forgets locations, those that nothing uses.
async fn delete(client: &Client, which: &Chosen) -> Result<Exit, Failure> {
    let (locations, missing) = chosen(client, which).await?;
    if !locations.is_empty() {
        let around = Around::read(client, &which.namespace).await?;
        // All are looked at before one is deleted.
        for location in &locations {
            refuse_used(name(location), &around, &which.namespace)?;
        }
        for location in &locations {
            delete_one(client, location, &around, &which.namespace).await?;
        }
    }
    missing.map_or(Ok(Exit::Done), Err)
}

fn refuse_used(location: &str, around: &Around, namespace: &str) -> Result<(), Failure> {
    let users = around.users(location);
    let Some(first) = users.first() else {
        return Ok(());
    };
    let flag = namespace_flag(namespace);
    let way_out = match first.strip_prefix("schedule ") {
        Some(name) => {
            format!("`kubectl ark schedule delete {name}{flag}` deletes it and keeps its backups")
        }
        None if first.starts_with("cronjob") => {
            format!("`kubectl delete {first} -n {namespace}` deletes it")
        }
        None => "wait for its end".to_owned(),
    };
    Err(Failure::new(
        Exit::Conflict,
        format!(
            "location {location} is in use, and was not deleted: by {}",
            users.join("; ")
        ),
    )
    .hint(way_out))
}

async fn delete_one(
    client: &Client,
    location: &BackupStorageLocation,
    around: &Around,
    namespace: &str,
) -> Result<(), Failure> {
    let (name, reference) = (name(location), location.reference());
    // Those first: without their location they would only fail.
    for cron_job in around.own(name) {
        let cron_job = Manifest::of(cron_job);
        if cron_job.delete(client).await? {
            println!("{} deleted", cron_job.reference());
        }
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: location.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api(client, namespace).delete(name, &params).await {
        Ok(_) => println!("{reference} deleted"),
        // Somebody else was quicker.
        Err(error) if client::is_not_found(&error) => {}
        Err(error) => return Err(client::failure(&error, &format!("deleting {reference}"))),
    }
    for line in stays(location, around, namespace) {
        eprintln!("{line}");
    }
    Ok(())
}

/// What is left, and how it would be got rid of.
fn stays(location: &BackupStorageLocation, around: &Around, namespace: &str) -> Vec<String> {
    let (name, flag) = (name(location), namespace_flag(namespace));
    let mut lines = vec![format!(
        "what is stored in {} stays",
        without_secrets(&location.spec.url)
    )];
    let backups = around.backups(name).count() as u64;
    let restores = around.restores(name).count() as u64;
    if backups > 0 {
        lines.push(format!(
            "the resources of {} stay in namespace {namespace}; restoring needs a location {name} again",
            plural(backups, "backup")
        ));
    }
    if restores > 0 {
        lines.push(format!(
            "the resources of {} stay: `kubectl ark restore delete NAME{flag}` deletes one",
            plural(restores, "restore")
        ));
    }
    if let Some(secret) = &location.spec.credential_secret {
        lines.push(format!(
            "its credentials stay: `kubectl delete secret {secret} -n {namespace}` deletes them"
        ));
    }
    lines
}

fn api(client: &Client, namespace: &str) -> Api<BackupStorageLocation> {
    Api::namespaced(client.clone(), namespace)
}

/// All locations, or those with these labels, by name.
pub async fn list(
    client: &Client,
    namespace: &str,
    selector: Option<&str>,
) -> Result<Vec<BackupStorageLocation>, Failure> {
    let params = match selector {
        Some(selector) => ListParams::default().labels(selector),
        None => ListParams::default(),
    };
    let listed = api(client, namespace).list(&params).await;
    let mut locations = listed
        .map_err(|error| match client::is_not_found(&error) {
            true => client::not_installed("it does not know storage locations"),
            false => client::failure(
                &error,
                &format!("listing storage locations in namespace {namespace}"),
            ),
        })?
        .items;
    locations.sort_by(|one, other| name(one).cmp(name(other)));
    Ok(locations)
}

/// Those that were chosen, and the first failure among names that were given: the others are gone through all the same.
async fn chosen(
    client: &Client,
    chosen: &Chosen,
) -> Result<(Vec<BackupStorageLocation>, Option<Failure>), Failure> {
    let Chosen {
        namespace,
        names,
        selector,
    } = chosen;
    // There are few.
    let all = list(client, namespace, selector.as_deref()).await?;
    if names.is_empty() {
        return Ok((all, None));
    }
    let (mut found, mut missing) = (Vec::new(), None);
    for wanted in names {
        match all.iter().find(|one| name(one) == wanted) {
            Some(location) => found.push(location.clone()),
            None => {
                missing.get_or_insert_with(|| not_there(wanted, namespace, &all));
            }
        }
    }
    Ok((found, missing))
}

/// That there is no location of this name.
pub fn not_there(wanted: &str, namespace: &str, there: &[BackupStorageLocation]) -> Failure {
    let flag = namespace_flag(namespace);
    let question = similar::did_you_mean(wanted, there.iter().map(name));
    Failure::new(
        Exit::NotFound,
        format!("there is no BackupStorageLocation {wanted} in namespace {namespace}"),
    )
    .hint(similar::with_question(
        question,
        format!(
            "`kubectl ark location get{flag}` lists them, `kubectl ark location create {wanted} --storage s3://BUCKET/PREFIX{flag}` \
             makes it"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::api::{BackupPhase, BackupSpec, BackupStatus, BackupStorageLocationStatus};
    use serde_json::json;

    fn location(status: Option<BackupStorageLocationStatus>) -> BackupStorageLocation {
        let mut location = BackupStorageLocation::new(
            "default",
            BackupStorageLocationSpec {
                url: "s3://user:planted@bucket/prefix?secret=planted".into(),
                endpoint: Some("http://user:planted@h:1".into()),
                credential_secret: Some("creds".into()),
                ..BackupStorageLocationSpec::default()
            },
        );
        location.metadata.namespace = Some("ark".into());
        location.status = status;
        location
    }

    fn cron_job(name: &str, labels: Value, argv: &[&str]) -> CronJob {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{"name": "ark-job", "args": argv}]}}}}},
        }))
        .unwrap()
    }

    fn backup(name: &str, phase: BackupPhase) -> Backup {
        let mut backup = Backup::new(
            name,
            BackupSpec {
                storage_location: Some("default".into()),
                ..BackupSpec::default()
            },
        );
        backup.status = Some(BackupStatus {
            phase: Some(phase),
            ..BackupStatus::default()
        });
        backup
    }

    fn around() -> Around {
        let ours =
            json!({"app.kubernetes.io/part-of": "kubectl-ark", "ark.heptio.com/operation": "sync"});
        let of_schedule = json!({"ark.heptio.com/schedule": "nightly"});
        Around {
            cron_jobs: vec![
                cron_job("ark-sync-default", ours, &["sync", "--location=default"]),
                cron_job(
                    "nightly",
                    of_schedule,
                    &["backup", "--schedule=nightly", "--location=default"],
                ),
                cron_job("by-hand", json!({}), &["expire", "--location=default"]),
                cron_job("elsewhere", json!({}), &["expire", "--location=other"]),
            ],
            backups: vec![
                backup("a", BackupPhase::Completed),
                backup("b", BackupPhase::InProgress),
            ],
            restores: Vec::new(),
        }
    }

    #[test]
    fn no_secret_of_a_url_is_shown() {
        let now = "2026-11-23T20:15:01Z".parse().unwrap();
        let seen = location(Some(BackupStorageLocationStatus {
            last_sync_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                "2026-11-23T20:10:01Z".parse().unwrap(),
            )),
            unreachable: None,
        }));
        assert_eq!(
            row(&seen, true, now),
            [
                "default",
                "Available",
                "ReadWrite",
                "5m",
                "s3://bucket/prefix",
                "",
                "http://h:1",
                "creds"
            ]
        );
        let text = described(&seen, &around(), now);
        assert!(!text.contains("planted"), "{text}");
        assert!(text.contains("Backups:            2\n"), "{text}");
        assert!(text.contains("Each hour:          sync\n"), "{text}");
        assert_eq!(without_secrets("file:///a/b@c"), "file:///a/b@c");
    }

    #[test]
    fn a_location_is_as_it_was_last_seen() {
        assert_eq!(state(&location(None)), "Unknown");
        let broken = BackupStorageLocationStatus {
            last_sync_time: None,
            unreachable: Some("no route".into()),
        };
        assert_eq!(state(&location(Some(broken))), "Unreachable");
    }

    #[test]
    fn what_uses_a_location_keeps_it() {
        let mut around = around();
        assert_eq!(
            around.users("default"),
            [
                "schedule nightly",
                "cronjob.batch/by-hand",
                "backup b, which is at work"
            ]
        );
        let refused = refuse_used("default", &around, "ark").unwrap_err();
        assert_eq!(refused.exit(), Exit::Conflict);
        assert!(
            refused
                .next_step()
                .unwrap()
                .contains("schedule delete nightly -n ark")
        );
        around.cron_jobs.truncate(1);
        around.backups.truncate(1);
        refuse_used("default", &around, "ark").unwrap();
        assert_eq!(
            stays(&location(None), &around, "ark"),
            [
                "what is stored in s3://bucket/prefix stays",
                "the resources of 1 backup stay in namespace ark; restoring needs a location default again",
                "its credentials stay: `kubectl delete secret creds -n ark` deletes them"
            ]
        );
    }
}
