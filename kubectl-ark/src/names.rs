//! What Jobs are called.

use sha2::{Digest, Sha256};

/// Longest name of a Job: its pods carry it as a label.
const JOB_NAME_MAX: usize = 63;
/// Longest name of a CronJob: its Jobs add eleven characters.
const CRON_JOB_NAME_MAX: usize = 52;
/// Digits of a digest that keep shortened names apart.
const DIGEST_DIGITS: usize = 6;

/// Name of the Job that performs `operation` on the backup or restore called `name`: `backup-NAME`.
///
/// The same name always gives the same Job, so that creating a backup twice is refused by the API server. A name that is
/// too long, or has dots (which would end up in host names), is cut and gets digits of its SHA-256.
pub fn job(operation: &str, name: &str) -> String {
    joined(operation, name, JOB_NAME_MAX)
}

/// Name of the CronJob that performs `operation` on the location called `name`: `ark-OPERATION-NAME`, made to fit likewise.
pub fn cron_job(operation: &str, name: &str) -> String {
    joined(&format!("ark-{operation}"), name, CRON_JOB_NAME_MAX)
}

fn joined(operation: &str, name: &str, longest: usize) -> String {
    let plain = format!("{operation}-{name}");
    if plain.len() <= longest && !plain.contains('.') {
        return plain;
    }
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let kept: String = plain
        .replace('.', "-")
        .chars()
        .take(longest - DIGEST_DIGITS - 1)
        .collect();
    format!(
        "{}-{}",
        kept.trim_end_matches('-'),
        &digest[..DIGEST_DIGITS]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_kept() {
        assert_eq!(job("backup", "demo"), "backup-demo");
        let longest = "x".repeat(56);
        assert_eq!(job("backup", &longest), format!("backup-{longest}"));
    }

    #[test]
    fn a_cron_job_leaves_room_for_the_names_of_its_jobs() {
        assert_eq!(cron_job("sync", "default"), "ark-sync-default");
        let long = |last: &str| cron_job("expire", &format!("{}{last}", "y".repeat(200)));
        assert_eq!(long("a").len(), 52);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn long_and_dotted_names_fit_and_stay_apart() {
        let long = |last: &str| job("restore", &format!("{}{last}", "y".repeat(199)));
        assert!(long("a").len() <= 63);
        assert_ne!(long("a"), long("b"));
        assert_eq!(job("backup", "a.b"), "backup-a-b-2e7336");
        assert_ne!(job("backup", "a.b"), job("backup", "a-b"));
        for name in [
            "x".repeat(57),
            format!("{}-y", "x".repeat(48)),
            "a.b".into(),
        ] {
            let job = job("backup", &name);
            assert!(
                job.len() <= 63 && !job.contains("--") && !job.ends_with('-'),
                "{job}"
            );
        }
    }
}
