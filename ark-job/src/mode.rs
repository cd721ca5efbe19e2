//! Restore-only mode: whether anything may be written to a location, or deleted from it.
//!
//! The mode is install-wide (ConfigMap `ark`) and per location (`accessMode`). Whoever writes or deletes asks before it
//! touches anything, and again right before each step that cannot be taken back. A mode that cannot be read counts as
//! restore-only; a ConfigMap that is not there is an installation that is not there, and forbids nothing.
//!
//! A ReadOnly location protects a *place*, not a name: endpoint, bucket and prefix in one spelling. Whoever comes to that
//! place by a URL, or by another location, is refused as well. So is who comes to a place that lies in the directories of
//! a ReadOnly one (`backups/`, `restores/`, …), or around it in that way: what is written or deleted there would be part of
//! the other's backups. Prefixes that only share their beginning (`clusters/one` under the root of a bucket) are two places,
//! and keep out of each other's way.

use crate::api::{
    AccessMode, BackupStorageLocation, CONFIG_NAME, GROUP, MODE_KEY, NORMAL, RESTORE_ONLY,
    namespace_flag,
};
use crate::cluster::{Cluster, ClusterError};
use crate::context::{self, Context};
use crate::error::Failure;
use crate::exit::Exit;
use crate::layout::TOP_LEVEL;
use crate::store::{Credentials, Location, Store};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;
use std::collections::BTreeSet;

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

/// Refuses when the installation or the location is restore-only, or when that cannot be found out.
///
/// # Errors
/// [`Exit::Refused`], with what forbids it.
pub async fn refuse_unless_writable(context: &Context) -> Result<(), Failure> {
    if let Some(read_only) = &context.read_only {
        return Err(read_only.clone().into_failure());
    }
    let namespace = &context.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
    match context.cluster.get::<ConfigMap>(&path, READING).await {
        Ok(map) => refuse_by(Some(&map), namespace),
        Err(error) if error.is_not_found() => refuse_by_others(context).await,
        Err(error) => Err(unreadable(&error.full_text(), namespace)),
    }
}

/// Refuses by the mode of an installation in another namespace that has a location at this place: who runs something by hand
/// in a namespace without Ark, or forgets `-n`, must not come round it.
async fn refuse_by_others(context: &Context) -> Result<(), Failure> {
    let here = [
        context.place.canonical(),
        context.store.canonical().to_owned(),
    ];
    let Ok(locations) = list(&context.cluster, None).await else {
        // Ark is not installed, or not for who runs this.
        return Ok(());
    };
    let mut asked = BTreeSet::new();
    for location in &locations {
        let namespace = location.metadata.namespace.as_deref().unwrap_or_default();
        if asked.contains(namespace)
            || concerns(location, namespace, &context.place, &here)
                .await
                .is_none()
        {
            continue;
        }
        asked.insert(namespace);
        if location.spec.access_mode == AccessMode::ReadOnly {
            return Err(named(
                location.metadata.name.as_deref().unwrap_or_default(),
                namespace,
            )
            .into_failure());
        }
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
        match context.cluster.get::<ConfigMap>(&path, READING).await {
            Ok(map) => refuse_by(Some(&map), namespace)?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(unreadable(&error.full_text(), namespace)),
        }
    }
    Ok(())
}

const READING: &str = "reading the mode";

/// Refuses when what ConfigMap `ark` says is not that backups are made; `None` is one that is not there.
///
/// # Errors
/// [`Exit::Refused`], with what it says and how that is changed.
pub fn refuse_by(config: Option<&ConfigMap>, namespace: &str) -> Result<(), Failure> {
    let data = config.and_then(|map| map.data.as_ref());
    let off = format!(
        "`kubectl ark restore-only off{}`",
        namespace_flag(namespace)
    );
    match data.and_then(|data| data.get(MODE_KEY)).map(String::as_str) {
        None | Some(NORMAL) => Ok(()),
        Some(RESTORE_ONLY) => Err(Failure::new(
            Exit::Refused,
            format!(
                "Ark is in restore-only mode (ConfigMap {CONFIG_NAME} in namespace {namespace}): nothing is backed up, \
                 deleted or expired"
            ),
        )
        .hint(format!("{off} ends it"))),
        Some(other) => Err(Failure::new(
            Exit::Refused,
            format!(
                "ConfigMap {CONFIG_NAME} in namespace {namespace}: {MODE_KEY} is {other:?}, neither {NORMAL} nor \
                 {RESTORE_ONLY}; so this counts as restore-only"
            ),
        )
        .hint(format!("{off} makes it {NORMAL}"))),
    }
}

fn unreadable(why: &str, namespace: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        format!(
            "the mode cannot be read from ConfigMap {CONFIG_NAME} in namespace {namespace}, so this counts as \
             restore-only: {why}"
        ),
    )
    .hint(format!(
        "`kubectl get configmap {CONFIG_NAME} -n {namespace}` must work for who runs this; `kubectl ark install` gives \
         Ark's own service accounts that right"
    ))
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
    let locations = match list(cluster, Some(namespace)).await {
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

/// The locations of a namespace, or of all.
async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<BackupStorageLocation>, ClusterError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<BackupStorageLocation>,
    }
    let (path, doing) = match namespace {
        Some(namespace) => (
            format!("/apis/{GROUP}/v1/namespaces/{namespace}/backupstoragelocations"),
            format!("listing the storage locations in namespace {namespace}"),
        ),
        None => (
            format!("/apis/{GROUP}/v1/backupstoragelocations"),
            "listing the storage locations of all namespaces".to_owned(),
        ),
    };
    let list: List = cluster.get(&path, &doing).await?;
    Ok(list.items)
}

/// Whether a ReadOnly location is the place whose spellings are `here`.
async fn concerns(
    location: &BackupStorageLocation,
    namespace: &str,
    place: &Location,
    here: &[String],
) -> Option<ReadOnly> {
    let name = location.metadata.name.as_deref().unwrap_or_default();
    let other = match context::place(&location.spec, None) {
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

    fn config(mode: Option<&str>) -> ConfigMap {
        ConfigMap {
            data: mode.map(|mode| [(MODE_KEY.to_owned(), mode.to_owned())].into()),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn only_what_is_known_to_be_normal_is_normal() {
        let refused = |map: Option<&ConfigMap>| {
            let failure = refuse_by(map, "ark").err()?;
            assert_eq!(failure.exit(), Exit::Refused);
            assert!(
                failure
                    .next_step()
                    .is_some_and(|hint| hint.contains("restore-only off -n ark"))
            );
            Some(failure.message().to_owned())
        };
        assert_eq!(refused(None), None);
        assert_eq!(refused(Some(&config(None))), None);
        assert_eq!(refused(Some(&config(Some("Normal")))), None);
        let on = refused(Some(&config(Some("RestoreOnly"))));
        assert!(on.is_some_and(|text| text.contains("namespace ark")));
        for mode in ["", "normal", "restoreonly", "Off"] {
            let bad = refused(Some(&config(Some(mode))));
            assert!(bad.is_some_and(|text| text.contains(&format!("{mode:?}"))));
        }
    }

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
