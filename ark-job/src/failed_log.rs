//! The log of a backup that failed, kept in a ConfigMap beside its Backup resource: its pod goes, and nothing of it is in
//! storage.
//!
//! It is kept where Backup resources are, and only for people: whatever goes wrong here is a warning.

use crate::api::{
    BACKUP_LABEL, Backup, BackupPhase, FAILED_LOG_KEY, FAILED_REASON_KEY, failed_log_name,
};
use crate::context::Context;
use crate::kept::{self, Kept, log_tail};
use std::collections::BTreeMap;

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
    let kept = Kept {
        name: failed_log_name(name),
        operation: "backup",
        label: (BACKUP_LABEL, name.to_owned()),
        data: [
            (FAILED_LOG_KEY.to_owned(), log_tail(context)),
            (FAILED_REASON_KEY.to_owned(), reason.to_owned()),
        ]
        .into(),
        binary_data: BTreeMap::new(),
    };
    if let Err(error) = kept.write(context).await {
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
    if let Err(error) = kept::remove(context, &failed_log_name(name)).await {
        context.log.warn(&format!(
            "the log of an earlier attempt is still kept: {}",
            error.full_text()
        ));
    }
}

fn is_good(backup: &Backup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(
        phase,
        Some(BackupPhase::Completed | BackupPhase::PartiallyFailed)
    )
}
