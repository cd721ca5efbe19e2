//! What a restore has come to: counts, warnings and errors, and what is said of each object.

use super::compare::Difference;
use super::order::VOLUMES;
use super::target::{Done, Fate};
use crate::api::HookStatus;
use crate::archive::footer::TypeEntry;
use crate::log::Log;
use crate::report::{About, Report};

/// What a restore has come to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Objects created.
    pub created: u64,
    /// Existing objects changed or created again.
    pub updated: u64,
    /// Existing objects that were as in the backup.
    pub unchanged: u64,
    /// Objects left out, or left as they are.
    pub skipped: u64,
    /// Objects that could not be restored.
    pub failed: u64,
    /// Hooks of pods that were created, and those of them that failed; none if there were none.
    pub hooks: Option<HookStatus>,
    /// Warnings and errors.
    pub report: Report,
}

impl Tally {
    /// Counts what became of an object, reports it, and returns the word for the list of results. With `without_volumes`
    /// claims get new volumes.
    pub fn count(
        &mut self,
        log: &Log,
        entry: &TypeEntry,
        done: &Done,
        fate: &Fate,
        without_volumes: bool,
    ) -> Option<&'static str> {
        let about = match &done.namespace {
            Some(namespace) => About::Namespace(namespace),
            None => About::Cluster,
        };
        let what = format!("{} {}", entry.kind, done.name);
        let place = match &done.namespace {
            Some(namespace) => format!("{what} in namespace {namespace}"),
            None => what.clone(),
        };
        if let Some(remark) = done.remark {
            log.warn(&format!("{place}: {remark}"));
            self.report.warn(about, format!("{what}: {remark}"));
        }
        match fate {
            Fate::Created { warnings } => {
                self.created += 1;
                for warning in warnings {
                    log.warn(&format!("{place}: {warning}"));
                    self.report.warn(about, format!("{what}: {warning}"));
                }
                Some("created")
            }
            Fate::NotCheckable(_) => {
                self.created += 1;
                Some("created")
            }
            Fate::Provided => None,
            Fate::Unchanged => {
                self.unchanged += 1;
                Some("unchanged")
            }
            Fate::Updated(differences) | Fate::Recreated(differences) => {
                self.updated += 1;
                let how = match fate {
                    Fate::Recreated(_) => "is created again",
                    _ => "is changed",
                };
                log.info(&format!("{place} {how} (at {})", places(differences)));
                Some("updated")
            }
            Fate::Left(differences) => {
                self.skipped += 1;
                let text = left(&entry.resource, differences, without_volumes);
                log.warn(&format!("{place} {text}"));
                self.report.warn(about, format!("{what} {text}"));
                Some("skipped")
            }
            Fate::Skipped(why) => {
                self.skipped += 1;
                log.info(&format!("{place} is left out: {why}"));
                Some("skipped")
            }
            Fate::Failed { why, .. } => {
                self.failed += 1;
                log.error(&format!("{place}: {why}"));
                self.report.error(about, format!("{what}: {why}"));
                Some("failed")
            }
        }
    }
}

/// What is said of an object that is left as it is. Pure.
fn left(resource: &str, differences: &[Difference], without_volumes: bool) -> String {
    let at = places(differences);
    let text = format!("exists and is different (at {at}); it is left as it is");
    let elsewhere = |difference: &Difference| difference.path.starts_with(".spec.claimRef");
    if resource != VOLUMES || !differences.iter().any(elsewhere) {
        return text;
    }
    let meaning = match without_volumes {
        true => "the one that had it in the backup gets a new volume",
        false => {
            "one that is restored for it stays Pending (--restore-volumes=false gives claims new volumes)"
        }
    };
    format!("{text}, bound to another claim: {meaning}")
}

/// The first of the places where objects differ.
fn places(differences: &[Difference]) -> String {
    const SHOWN: usize = 3;
    let mut text = differences
        .iter()
        .take(SHOWN)
        .map(|difference| difference.path.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    if differences.len() > SHOWN {
        text += &format!(" and {} more", differences.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_another_claim_is_explained_by_what_its_claim_gets() {
        let at = |path: &str| Difference {
            path: path.into(),
            live: None,
            backup: None,
        };
        let elsewhere = [at(".spec.claimRef.name")];
        let text = left(VOLUMES, &elsewhere, false);
        assert!(
            text.contains("stays Pending (--restore-volumes=false "),
            "{text}"
        );
        let text = left(VOLUMES, &elsewhere, true);
        assert!(
            text.ends_with(
                "bound to another claim: the one that had it in the backup gets a new volume"
            ),
            "{text}"
        );
        assert!(!text.contains("--restore-volumes"), "{text}");
        for (resource, path) in [(VOLUMES, ".spec.capacity"), ("services", ".spec.claimRef")] {
            assert!(left(resource, &[at(path)], false).ends_with("it is left as it is"));
        }
    }
}
