//! Expiry: what has outlived its time goes, and what runs that were cut off have left is swept up.
//!
//! In four steps: [`holdings::look`] reads what there is, [`plan`](mod@plan) decides, [`refine`](mod@refine) asks
//! whether what is to go may, and the entries of the plan are printed or done, one after the other. Each may be done twice, by anyone, so twins do no harm.

mod perform;
pub mod plan;
mod refine;
mod schedules;
mod volumes;

use self::plan::{Clocks, Entry, Rules};
use crate::args::{ExpireArgs, ExpireFlags, PlanFormat, parse_duration};
use crate::context::{Context, Outcome, storage_failure};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::holdings;
use crate::layout::BACKUPS;
use crate::mode;
use crate::stdout;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    cluster_uids: Vec<String>,
    include_foreign: bool,
    grace: SignedDuration,
    /// Whether snapshots are swept up though there is no backup.
    force: bool,
    /// Whether the plan is only printed, and how.
    preview: Option<PlanFormat>,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn resolve(arguments: &ExpireArgs) -> Result<Options, Failure> {
        let ExpireArgs {
            storage: _,
            expire,
            dry_run,
            output,
            exit: _,
        } = arguments;
        let ExpireFlags {
            cluster_uid,
            include_foreign,
            grace,
            force,
        } = expire;
        let usage = |why: String| Failure::new(Exit::Usage, why);
        if cluster_uid.iter().any(|uid| uid.trim().is_empty()) {
            return Err(usage("--cluster-uid: a UID is not empty".to_owned()));
        }
        let grace = parse_duration(grace).map_err(|why| usage(format!("--grace: {why}")))?;
        Ok(Options {
            cluster_uids: cluster_uid.clone(),
            include_foreign: *include_foreign,
            grace: SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX),
            force: *force,
            preview: dry_run.then_some(*output),
        })
    }
}

/// Does it, or prints what it would do.
///
/// # Errors
/// When nothing may be deleted here, or when not everything could be listed: then nothing has been deleted.
pub async fn expire(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    if options.preview.is_none() {
        mode::refuse_unless_writable(context).await?;
    }
    let mut clusters = BTreeSet::from([context.run.cluster_uid.clone()]);
    clusters.extend(options.cluster_uids.iter().cloned());
    let mut found = holdings::look(context).await?;
    holdings::loose::look(context, &clusters, options.force, &mut found).await;
    let rules = Rules {
        clusters,
        include_foreign: options.include_foreign,
        grace: options.grace,
        force: options.force,
        schedules: schedules::schedules(context).await,
    };
    let clocks = clocks(context, options.preview.is_some()).await?;
    let entries = plan::plan(&found, &rules, clocks);
    let entries = refine::refine(context, entries).await?;
    match options.preview {
        Some(format) => preview(&entries, format).await,
        None => perform::perform(context, &entries).await,
    }
}

/// What this machine's and the store's clock say now.
///
/// A directory that must not be written cannot be asked: for a preview, this machine's clock stands for it.
async fn clocks(context: &Context, preview: bool) -> Result<Clocks, Failure> {
    let told = context.store.time(BACKUPS).await;
    let pod = Timestamp::now();
    let store = match told {
        Ok(Some(store)) => store,
        Err(error) if preview && error.is_credentials() => {
            context.log.warn(&format!(
                "ages are told by this machine's clock alone, since a file that would tell the directory's cannot be written: {}",
                chain(&error)
            ));
            pod
        }
        Err(error) => return Err(storage_failure(&error)),
        Ok(None) => {
            let text = "the store does not say what time it is (its answers have no Date), so no age can be confirmed";
            return Err(Failure::new(Exit::Failed, text)
                .hint("a proxy before the store may take the header away"));
        }
    };
    Ok(Clocks { pod, store })
}

/// Prints the plan to standard output.
async fn preview(entries: &[Entry], format: PlanFormat) -> Result<Outcome, Failure> {
    let mut text = String::new();
    for entry in entries {
        text += &match format {
            PlanFormat::Text => entry.line(),
            PlanFormat::Json => entry.json(),
        };
        text.push('\n');
    }
    stdout::write(text.into()).await?;
    let count =
        |fate: fn(&plan::Fate) -> bool| entries.iter().filter(|entry| fate(&entry.fate)).count();
    let deleted = count(|fate| matches!(fate, plan::Fate::Delete(_)));
    let doubts = count(|fate| *fate == plan::Fate::KeepInDoubt);
    let kept = entries.len() - deleted;
    let mut message = format!("nothing was deleted: {deleted} would be, {kept} would stay");
    if doubts > 0 {
        message += &format!(", {doubts} of them since something about them cannot be found out");
    }
    Ok(Outcome {
        exit: exit(doubts),
        message,
        hint: None,
    })
}

fn exit(troubles: usize) -> Exit {
    match troubles {
        0 => Exit::Done,
        _ => Exit::PartiallyFailed,
    }
}
