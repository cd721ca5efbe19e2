//! What a record says when its run has ended without a result: what happened, and the next command. Pure.

use super::plan::Ended;
use crate::api::{FrozenPod, namespace_flag};
use jiff::Timestamp;
use std::fmt::Write as _;

/// Pods that are named; a reason is read by people.
const PODS: usize = 10;

/// Which record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// A backup, whose storage is the one that was looked at, or is not.
    Backup {
        /// Whether storage was looked at, and has none.
        looked: bool,
        /// What it has frozen and may not have thawed.
        frozen: &'a [FrozenPod],
    },
    /// A restore of this backup.
    Restore {
        /// The backup.
        backup: &'a str,
    },
}

/// Why a record becomes Failed, and what to do.
pub fn reason(of: Of<'_>, name: &str, why: &Ended, namespace: &str) -> String {
    let flag = namespace_flag(namespace);
    let delete = |job: &str| format!("`kubectl delete job {job} -n {namespace}` ends it for good");
    let mut text = match why {
        Ended::ByHand => return by_hand(of, name, &flag),
        Ended::Silent { since, job, gone } => {
            let since = since.map_or_else(|| "ever".to_owned(), moment);
            let mut text = format!(
                "its run has given no sign of life since {since}: it was killed, or its node is lost"
            );
            match job {
                Some(job) => {
                    let delete = delete(job);
                    let _infallible = write!(text, "; its Job {job} is still there, {delete}");
                }
                None if *gone => text.push_str("; it has no Job (any more)"),
                None => {}
            }
            text
        }
        Ended::JobFailed { job, why } => {
            format!("its Job {job} has failed ({why}), and could not say so here")
        }
        Ended::JobFailing { job, why } => format!(
            "its Job {job} is failing ({why}), and has a pod that does not end, as on a node that is lost; {}",
            delete(job)
        ),
        Ended::JobComplete { job } => format!(
            "its Job {job} is complete, but could not write here what came of it; `kubectl logs job/{job} -n {namespace}` \
             tells"
        ),
    };
    match of {
        Of::Backup { looked, frozen } => {
            if !looked {
                let _infallible = write!(
                    text,
                    "; its storage is given by a URL and was not looked at: `kubectl ark sync --storage URL{flag}` does"
                );
            }
            thaw(&mut text, frozen);
        }
        Of::Restore { backup } => {
            let _infallible = write!(
                text,
                "; `kubectl ark restore create {backup}{flag}` goes on, and leaves what is restored as it is"
            );
        }
    }
    text
}

fn by_hand(of: Of<'_>, name: &str, flag: &str) -> String {
    match of {
        Of::Backup { .. } => format!(
            "a Backup resource only records what ark-job does, and nothing was done: delete it, and run `kubectl ark backup \
             create {name}{flag}`"
        ),
        Of::Restore { backup } => format!(
            "a Restore resource only records what ark-job does, and nothing was done: delete it, and run `kubectl ark \
             restore create {name} --from-backup {backup}{flag}`"
        ),
    }
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Names pods that may be frozen, with what thaws them.
fn thaw(text: &mut String, frozen: &[FrozenPod]) {
    if frozen.is_empty() {
        return;
    }
    text.push_str("; these pods may still be frozen, until the next backup of this name or these commands thaw them:");
    for pod in frozen.iter().take(PODS) {
        let FrozenPod {
            namespace, name, ..
        } = pod;
        let _infallible = write!(text, " {namespace}/{name}");
        for hook in &pod.hooks {
            let command: Vec<String> = hook.command.iter().map(|word| quoted(word)).collect();
            let _infallible = write!(
                text,
                " `kubectl exec -n {namespace} {name} -c {} -- {}`",
                hook.container,
                command.join(" ")
            );
        }
    }
    if frozen.len() > PODS {
        let _infallible = write!(text, " and {} more in status.freeze", frozen.len() - PODS);
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FrozenHook;

    #[test]
    fn what_is_frozen_is_named_with_the_command_that_thaws() {
        let pods = [FrozenPod {
            namespace: "app".into(),
            name: "db-0".into(),
            uid: "u".into(),
            hooks: vec![FrozenHook {
                name: "h".into(),
                container: "db".into(),
                command: ["fsfreeze", "-u", "it's here"].map(str::to_owned).into(),
                timeout_milliseconds: 1,
            }],
        }];
        let of = Of::Backup {
            looked: true,
            frozen: &pods,
        };
        let why = Ended::JobFailing {
            job: "j".into(),
            why: "DeadlineExceeded".into(),
        };
        let text = reason(of, "b", &why, "backups");
        assert!(text.contains("`kubectl delete job j -n backups`"), "{text}");
        let thaw = r"app/db-0 `kubectl exec -n app db-0 -c db -- fsfreeze -u 'it'\''s here'`";
        assert!(text.contains(thaw), "{text}");
    }

    #[test]
    fn whoever_made_a_record_by_hand_is_told_the_command() {
        let of = Of::Backup {
            looked: true,
            frozen: &[],
        };
        let text = reason(of, "b", &Ended::ByHand, "backups");
        assert!(
            text.ends_with("`kubectl ark backup create b -n backups`"),
            "{text}"
        );
        let text = reason(
            Of::Restore { backup: "b" },
            "r",
            &Ended::ByHand,
            "heptio-ark",
        );
        assert!(
            text.ends_with("`kubectl ark restore create r --from-backup b`"),
            "{text}"
        );
    }
}
