//! Who is running, and what things are called: run ids, attempts, and names derived from other names.
//!
//! A *run* is one request for a backup or restore. Retries of its Job, twin pods and re-created Jobs of the same
//! schedule tick are the same run; anything else is a stranger to it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Longest label value that Kubernetes takes.
const LABEL_VALUE_MAX: usize = 63;
/// Longest part of a restore label that comes from the backup's name: the rest is `-` and fourteen digits.
const RESTORE_LABEL_BACKUP_MAX: usize = 48;

/// Identity of a run: 64 hexadecimal digits. Two runs are the same exactly if their ids are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunId(String);

impl RunId {
    /// Derives the id from the cluster, Ark's namespace in it, and what asked for the run.
    pub fn new(cluster_uid: &str, namespace: &str, origin: &Origin) -> RunId {
        RunId(match origin {
            Origin::Schedule { name, scheduled } => {
                let scheduled = scheduled.to_string();
                hash_of(&[cluster_uid, namespace, "schedule", name, &scheduled])
            }
            Origin::Job { uid } => hash_of(&[cluster_uid, namespace, "job", uid]),
            Origin::Local { nonce } => hash_of(&[cluster_uid, namespace, "local", nonce]),
        })
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, for people and for names of things that collide.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

/// SHA-256 of texts that cannot run into each other, since each comes with its length: 64 hexadecimal digits.
pub fn hash_of(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hex::encode(hasher.finalize())
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What asked for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A tick of a schedule: every Job made for it is the same run.
    Schedule {
        /// The schedule's name.
        name: String,
        /// The tick.
        scheduled: Timestamp,
    },
    /// A Job: its retries are the same run.
    Job {
        /// The Job's UID.
        uid: String,
    },
    /// A process on somebody's machine: every start is a run of its own.
    Local {
        /// A random text.
        nonce: String,
    },
}

/// A run, and which attempt at it this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// The attempt: the pod's UID, or a random text.
    pub attempt: String,
    /// The UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
}

/// `name` as a label value: itself when it fits, else its first 57 characters and six digits of its SHA-256.
///
/// Velero's rule (`GetValidName`), so that both find the same objects.
pub fn label_value(name: &str) -> String {
    shorten(name, LABEL_VALUE_MAX)
}

/// The value of the `ark-restore` label: `<BACKUP>-<YYYYMMDDhhmmss>`, the time in UTC.
pub fn restore_label(backup: &str, requested: Timestamp) -> String {
    format!(
        "{}-{}",
        shorten(backup, RESTORE_LABEL_BACKUP_MAX),
        timestamp(requested)
    )
}

/// A time as `YYYYMMDDhhmmss` in UTC, as Ark and Velero put it in names.
pub fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y%m%d%H%M%S").to_string()
}

/// Keeps `max - 6` characters and appends six digits of the SHA-256 when `name` is longer than `max`.
fn shorten(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let kept: String = name.chars().take(max - 6).collect();
    format!("{kept}{}", &digest[..6])
}

/// Checks that `name` can name a Backup or Restore: a DNS-1123 subdomain, so that it is a valid resource name, a safe
/// directory name in storage, and a valid start of a label value.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() {
        return Err("a name must not be empty".into());
    }
    if name.len() > 200 {
        return Err(format!(
            "{name:?} has {} characters; at most 200 are allowed",
            name.len()
        ));
    }
    if let Some(c) = name.chars().find(|&c| !allowed(c)) {
        return Err(format!(
            "{name:?} contains {c:?}; lower-case letters, digits, '-' and '.' are allowed"
        ));
    }
    for part in name.split('.') {
        if part.is_empty() || part.starts_with('-') || part.ends_with('-') {
            return Err(format!(
                "{name:?} must start and end with a letter or digit, also around each '.'"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened_as_velero_does() {
        // The pair stands in Velero's own tests of GetValidName.
        let name = "this-is-a-very-long-name-that-is-longer-than-sixty-three-characters-in-total";
        let short = label_value(name);
        assert_eq!(short.len(), 63);
        assert_eq!(&short[..57], &name[..57]);
        assert_eq!(label_value("short"), "short");
    }

    #[test]
    fn restore_label_always_fits_and_keeps_its_time() {
        let at: Timestamp = "2026-11-23T20:15:01.9Z".parse().unwrap();
        assert_eq!(restore_label("daily", at), "daily-20261123201501");
        let long = restore_label(&"x".repeat(200), at);
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("-20261123201501"));
    }

    #[test]
    fn a_run_is_told_apart_by_everything_that_makes_it() {
        let job = |uid: &str| Origin::Job { uid: uid.into() };
        let base = RunId::new("c", "n", &job("u"));
        assert_eq!(base, RunId::new("c", "n", &job("u")));
        assert_ne!(base, RunId::new("c2", "n", &job("u")));
        assert_ne!(base, RunId::new("c", "n2", &job("u")));
        assert_ne!(base, RunId::new("c", "n", &job("u2")));
        assert_ne!(
            base,
            RunId::new("c", "n", &Origin::Local { nonce: "u".into() })
        );
        // Fields cannot run into each other.
        assert_ne!(
            RunId::new("ab", "c", &job("u")),
            RunId::new("a", "bc", &job("u"))
        );
    }

    #[test]
    fn names_that_kubernetes_or_a_bucket_would_refuse_are_refused() {
        for bad in [
            "",
            "Upper",
            "a/b",
            "..",
            "-a",
            "a-",
            "a..b",
            "ä",
            "a b",
            &"x".repeat(201),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "daily-20261123201501", "a.b", "0"] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
    }
}
