//! The log of a backup that failed, kept in a ConfigMap beside its Backup resource: its pod goes, and nothing of it is in
//! storage.
//!
//! It is kept where Backup resources are, and only for people: whatever goes wrong here is a warning.

use crate::api::{
    BACKUP_LABEL, Backup, BackupPhase, EXCLUDE_LABEL, FAILED_LOG_KEY, FAILED_REASON_KEY,
    OPERATION_LABEL, PART_OF, PART_OF_LABEL, RUN_ANNOTATION, failed_log_name,
};
use crate::cluster::{ClusterError, get};
use crate::context::Context;
use crate::identity::label_value;
use crate::records::request;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The last lines say why it failed; an object may have 1 MiB, and a hundred failed backups must not burden etcd.
const TAIL_MAX: u64 = 256 << 10;

/// Keeps the last lines of the log of the backup called `name`, unless a twin has completed it.
pub async fn keep(context: &Context, name: &str, reason: &str) {
    if !context.records.keeps::<Backup>() {
        return;
    }
    match context.records.find::<Backup>(name).await {
        Ok(Some(backup)) if is_good(&backup) => return,
        Ok(_) => {}
        Err(error) => context.log.warn(&error.full_text()),
    }
    let tail = match context.log.tail(TAIL_MAX) {
        Ok(tail) => tail,
        Err(error) => {
            return context
                .log
                .warn(&format!("the log cannot be read back to be kept: {error}"));
        }
    };
    if let Err(error) = write(context, &config_map(context, name, reason, tail)).await {
        context.log.warn(&format!(
            "the log of the failure is only here: {}",
            error.full_text()
        ));
    }
}

/// Removes what earlier attempts kept: there is a backup of that name now, with a log of its own.
pub async fn remove(context: &Context, name: &str) {
    if !context.records.keeps::<Backup>() {
        return;
    }
    let path = format!("{}/{}", collection(context), failed_log_name(name));
    let doing = format!("removing ConfigMap {}", failed_log_name(name));
    let mut request = get(&path, "application/json");
    *request.method_mut() = Method::DELETE;
    match context.cluster.request(&request, &doing).await {
        Err(error) if !error.is_not_found() => context.log.warn(&format!(
            "the log of an earlier attempt is still kept: {}",
            error.full_text()
        )),
        _ => {}
    }
}

fn is_good(backup: &Backup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(
        phase,
        Some(BackupPhase::Completed | BackupPhase::PartiallyFailed)
    )
}

fn config_map(context: &Context, name: &str, reason: &str, tail: String) -> ConfigMap {
    let labels = [
        (PART_OF_LABEL, PART_OF.to_owned()),
        (OPERATION_LABEL, "backup".to_owned()),
        (BACKUP_LABEL, label_value(name)),
        (EXCLUDE_LABEL, "true".to_owned()),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(failed_log_name(name)),
            namespace: Some(context.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            annotations: Some([(RUN_ANNOTATION.to_owned(), context.run.id.to_string())].into()),
            ..ObjectMeta::default()
        },
        data: Some(
            [
                (FAILED_LOG_KEY.to_owned(), tail),
                (FAILED_REASON_KEY.to_owned(), reason.to_owned()),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    }
}

/// Creates it, or replaces that of an earlier attempt: the last one is what people look for.
async fn write(context: &Context, map: &ConfigMap) -> Result<(), ClusterError> {
    let name = map.metadata.name.as_deref().unwrap_or_default();
    let doing = format!("keeping the log in ConfigMap {name}");
    let collection = collection(context);
    let create = request(Method::POST, &collection, "application/json", map);
    match context.cluster.request(&create, &doing).await {
        Err(error) if error.is_already_exists() => {}
        other => return other.map(drop),
    }
    let path = format!("{collection}/{name}");
    let replace = request(Method::PUT, &path, "application/json", map);
    context.cluster.request(&replace, &doing).await.map(drop)
}

fn collection(context: &Context) -> String {
    format!("/api/v1/namespaces/{}/configmaps", context.namespace)
}
