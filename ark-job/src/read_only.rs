//! ReadOnly locations: which places they protect.
//!
//! A ReadOnly location protects a *place*, not a name: endpoint, bucket and prefix in one spelling. Whoever comes to that
//! place by a URL, or by another location, is refused as well. So is who comes to a place that lies in the directories of
//! a ReadOnly one (`backups/`, `restores/`, …), or around it in that way: what is written or deleted there would be part of
//! the other's backups. Prefixes that only share their beginning (`clusters/one` under the root of a bucket) are two places,
//! and keep out of each other's way.

use crate::api::{AccessMode, BackupStorageLocation};
use crate::cluster::Cluster;
use crate::error::Failure;
use crate::exit::Exit;
use crate::layout::TOP_LEVEL;
use crate::location;
use crate::store::{Credentials, Location, Store};

/// Why nothing may be written to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnly {
    /// What forbids it.
    pub why: String,
    /// The way out.
    pub hint: String,
}

impl ReadOnly {
    /// As the end of an operation that would write.
    pub fn into_failure(self) -> Failure {
        Failure::new(Exit::Refused, self.why).hint(self.hint)
    }
}

/// Why nothing may be written to `place`, opened as `store`, if a location forbids it: the one called `name` itself, whose
/// mode is `own`, or another that is the same place.
pub async fn read_only(
    cluster: &Cluster,
    namespace: &str,
    name: Option<&str>,
    own: AccessMode,
    place: &Location,
    store: &Store,
) -> Option<ReadOnly> {
    if let (AccessMode::ReadOnly, Some(name)) = (own, name) {
        return Some(named(name, namespace));
    }
    let locations = match location::list(cluster, Some(namespace)).await {
        Ok(locations) => locations,
        // Ark's resource types are not installed.
        Err(error) if error.is_not_found() => return None,
        Err(error) => {
            return Some(ReadOnly {
                why: format!(
                    "whether a ReadOnly storage location is this place cannot be found out, so this counts as \
                     restore-only: {}",
                    error.full_text()
                ),
                hint: format!(
                    "`kubectl get backupstoragelocations -n {namespace}` must work for who runs this"
                ),
            });
        }
    };
    let here = [place.canonical(), store.canonical().to_owned()];
    for location in locations {
        if location.spec.access_mode == AccessMode::ReadOnly
            && let Some(read_only) = concerns(&location, namespace, place, &here).await
        {
            return Some(read_only);
        }
    }
    None
}

/// Whether a ReadOnly location is the place whose spellings are `here`.
pub async fn concerns(
    resource: &BackupStorageLocation,
    namespace: &str,
    place: &Location,
    here: &[String],
) -> Option<ReadOnly> {
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let other = match location::place(&resource.spec, None) {
        Ok(other) => other,
        // Nobody knows what it was meant to protect.
        Err(why) => {
            return Some(ReadOnly {
                why: format!(
                    "storage location {name} in namespace {namespace} is ReadOnly, and what place it is cannot be \
                     understood: {why}"
                ),
                hint: format!(
                    "correct it, or delete it: `kubectl edit backupstoragelocation {name} -n {namespace}`"
                ),
            });
        }
    };
    let mut there = vec![other.canonical()];
    if let (Location::S3(one), Location::S3(two)) = (&other, place)
        && one.bucket == two.bucket
        // The surroundings may say where a bucket without an endpoint is, for both alike.
        && let Ok(opened) = Store::open(&other, &Credentials::Chain).await
    {
        there.push(opened.canonical().to_owned());
    }
    let same = there
        .iter()
        .any(|there| here.iter().any(|here| overlap(here, there)));
    same.then(|| in_place_of(here.last().map_or("this", String::as_str), name, namespace))
}

/// What the ReadOnly location called `name` says to who comes to its place in another way.
pub fn in_place_of(place: &str, name: &str, namespace: &str) -> ReadOnly {
    let ReadOnly { why: _, hint } = named(name, namespace);
    ReadOnly {
        why: format!(
            "{place} is in the place of storage location {name} in namespace {namespace}, which is ReadOnly: nothing is \
             written there, nothing deleted"
        ),
        hint,
    }
}

/// What a ReadOnly location says to who names it.
pub fn named(name: &str, namespace: &str) -> ReadOnly {
    ReadOnly {
        why: format!(
            "storage location {name} in namespace {namespace} is ReadOnly: nothing is written to it, nothing deleted"
        ),
        hint: format!(
            "choose another with --location, or `kubectl patch backupstoragelocation {name} -n {namespace} --type merge \
             -p '{{\"spec\":{{\"accessMode\":\"ReadWrite\"}}}}'` allows it"
        ),
    }
}

/// Whether what is kept at one place could be part of what is kept at another: they are the same, or one lies in a
/// directory of the other's. Both in the spelling of [`Location::canonical`].
pub fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer.strip_suffix('/').unwrap_or(outer))
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| {
                let top = rest.split('/').next().unwrap_or_default();
                TOP_LEVEL.contains(&top)
            })
    };
    one == other || within(one, other) || within(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_in_any_spelling_and_holds_what_is_in_its_directories() {
        let canonical = |url: &str| url.parse::<Location>().unwrap().canonical();
        let overlapping = |one: &str, other: &str| {
            let (one, other) = (canonical(one), canonical(other));
            assert_eq!(overlap(&one, &other), overlap(&other, &one));
            overlap(&one, &other)
        };
        for (one, other) in [
            ("s3://b/p", "s3://b/p/"),
            ("s3://b/p?region=eu-west-1", "s3://b/p?profile=x"),
            (
                "s3://b/p?endpoint=https://s3.local",
                "s3://b/p?endpoint=https://S3.Local.:443&path-style=true",
            ),
            ("s3://b/p", "s3://b/p/backups"),
            ("s3://b/p", "s3://b/p/backups/nightly"),
            ("s3://b", "s3://b/restores"),
            ("file:///a/b", "file:///a/./b/"),
            ("file:///", "file:///backups/x"),
        ] {
            assert!(overlapping(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("s3://b", "s3://b/clusters/one"),
            ("s3://b/p", "s3://b/p2"),
            ("s3://b/p", "s3://b/pbackups"),
            ("s3://b/p", "s3://c/p"),
            ("s3://b/p", "s3://b/p?endpoint=https://s3.local"),
            ("file:///a", "file:///a/b"),
        ] {
            assert!(!overlapping(one, other), "{one} {other}");
        }
    }
}
