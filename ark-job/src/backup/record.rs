//! The Backup resource of a run: claimed at the start, kept alive, and told when there is no backup.

use super::frozen::{FrozenRecord, freeze_field};
use super::gather::Progress;
use super::options::Options;
use crate::api::{
    Backup, BackupPhase, BackupProgress, BackupStatus, FORMAT_VERSION, STORAGE_ANNOTATION,
};
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::records;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::atomic::Ordering;

/// What to do when another run has the name.
const WAY_OUT: &str = "choose another name, or wait: a run that was killed gives its name free ten minutes after its last sign of life, and the next backup of that name thaws what it has frozen";

/// Says in the Backup resource that this run is at work, or finds that another one is.
pub async fn claim(
    context: &Context,
    options: &Options,
    started: Timestamp,
) -> Result<(), Failure> {
    let mut record = Backup::new(&options.name, options.spec.clone());
    record.metadata.namespace = Some(context.namespace.clone());
    record.metadata.labels = records::labels(&options.labels);
    if context.location.is_none() {
        let place = context.store.canonical().to_owned();
        record.metadata.annotations = Some([(STORAGE_ANNOTATION.to_owned(), place)].into());
    }
    context
        .records
        .claim(record, &context.run.id, started)
        .await
        .map_err(|error| error.into_failure(WAY_OUT))?;
    write_status(context, options, |_| {
        Some(status_in_progress(
            context,
            options,
            started,
            &Progress::default(),
        ))
    })
    .await
    .map_err(|error| Failure::from_error(Exit::Failed, &error))
}

/// Writes the status that `make` makes of the one that is there, if it makes one. What is frozen is always kept in it.
pub async fn write_status(
    context: &Context,
    options: &Options,
    make: impl Fn(Option<&BackupStatus>) -> Option<BackupStatus>,
) -> Result<(), ClusterError> {
    let change = |record: &mut Backup| {
        let Some(status) = make(record.status.as_ref()) else {
            return false;
        };
        let freeze = freeze_field(context, record.status.as_ref());
        record.status = Some(BackupStatus { freeze, ..status });
        true
    };
    context
        .records
        .update_status::<Backup>(&options.name, change)
        .await
}

pub fn status_in_progress(
    context: &Context,
    options: &Options,
    started: Timestamp,
    progress: &Progress,
) -> BackupStatus {
    BackupStatus {
        phase: Some(BackupPhase::InProgress),
        start_timestamp: Some(Time(started)),
        // Here already: whoever says that a killed run has failed leaves it, and the record expires by it.
        expiration: options.expiration(started).map(Time),
        heartbeat: Some(Time(Timestamp::now())),
        progress: Some(BackupProgress {
            total_items: None,
            items_backed_up: progress.items.load(Ordering::Relaxed),
            bytes_read: progress.bytes.load(Ordering::Relaxed),
        }),
        cluster_uid: Some(context.run.cluster_uid.clone()),
        cluster_name: context.cluster_name.clone(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        format_version: Some(FORMAT_VERSION.to_owned()),
        ..BackupStatus::default()
    }
}

/// Writes progress and a sign of life, for ever.
pub async fn heartbeat(
    context: &Context,
    options: &Options,
    started: Timestamp,
    progress: &Progress,
) {
    let beat = async || {
        let written = write_status(context, options, |_| {
            Some(status_in_progress(context, options, started, progress))
        })
        .await;
        let beaten = match context.frozen.is_held() {
            true => FrozenRecord::new(context, &options.name).save_map().await,
            false => Ok(()),
        };
        written.and(beaten)
    };
    records::heartbeat(&context.log, beat).await;
}

/// Says in the record that there is no backup, and why.
pub async fn fail(context: &Context, options: &Options, started: Timestamp, reason: &str) {
    let status = BackupStatus {
        phase: Some(BackupPhase::Failed),
        failure_reason: Some(reason.to_owned()),
        completion_timestamp: Some(Time(Timestamp::now())),
        heartbeat: None,
        errors: 1,
        ..status_in_progress(context, options, started, &Progress::default())
    };
    let written = write_status(context, options, |there| {
        let ended = there.and_then(|there| there.phase);
        // A twin may have completed what this attempt could not, or still be at work.
        let completed = matches!(
            ended,
            Some(BackupPhase::Completed | BackupPhase::PartiallyFailed)
        );
        let twin = freeze_field(context, there)
            .is_some_and(|freeze| freeze.attempt != context.run.attempt);
        let began = there.and_then(|there| there.start_timestamp.clone());
        let began = began.map_or(started, |began| began.0);
        (!completed && !twin).then(|| BackupStatus {
            start_timestamp: Some(Time(began)),
            expiration: options.expiration(began).map(Time),
            ..status.clone()
        })
    });
    records::fail(&context.log, reason, written).await;
}
