//! Restore-only mode: whether anything may be written to a location, or deleted from it.
//!
//! The mode is install-wide (ConfigMap `ark`) and per location (`accessMode`). Whoever writes or deletes asks before it
//! touches anything, and again right before each step that cannot be taken back. A mode that cannot be read counts as
//! restore-only; a ConfigMap that is not there is an installation that is not there, and forbids nothing.

use crate::api::{AccessMode, CONFIG_NAME, MODE_KEY, NORMAL, RESTORE_ONLY, namespace_flag};
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::location;
use crate::read_only::{concerns, named};
use crate::store::{Location, Store};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeSet;

/// Refuses when the installation or the location is restore-only, or when that cannot be found out.
///
/// # Errors
/// [`Exit::Refused`], with what forbids it.
pub async fn refuse_unless_writable(context: &Context) -> Result<(), Failure> {
    if let Some(read_only) = &context.read_only {
        return Err(read_only.clone().into_failure());
    }
    let Context {
        cluster,
        namespace,
        place,
        store,
        ..
    } = context;
    refuse_by_installation(cluster, namespace, place, store).await
}

/// Refuses when the installation in `namespace` is restore-only, or when that cannot be found out; where there is none, by
/// those whose place this is.
///
/// # Errors
/// [`Exit::Refused`], with what forbids it.
pub async fn refuse_by_installation(
    cluster: &Cluster,
    namespace: &str,
    place: &Location,
    store: &Store,
) -> Result<(), Failure> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
    match cluster.get::<ConfigMap>(&path, READING).await {
        Ok(map) => refuse_by(Some(&map), namespace),
        Err(error) if error.is_not_found() => refuse_by_others(cluster, place, store).await,
        Err(error) => Err(unreadable(&error.full_text(), namespace)),
    }
}

/// Refuses by the mode of an installation in another namespace that has a location at this place: who runs something by hand
/// in a namespace without Ark, or forgets `-n`, must not come round it.
async fn refuse_by_others(
    cluster: &Cluster,
    place: &Location,
    store: &Store,
) -> Result<(), Failure> {
    let here = [place.canonical(), store.canonical().to_owned()];
    let Ok(locations) = location::list(cluster, None).await else {
        // Ark is not installed, or not for who runs this.
        return Ok(());
    };
    let mut asked = BTreeSet::new();
    for resource in &locations {
        let namespace = resource.metadata.namespace.as_deref().unwrap_or_default();
        if asked.contains(namespace) || concerns(resource, namespace, place, &here).await.is_none()
        {
            continue;
        }
        asked.insert(namespace);
        if resource.spec.access_mode == AccessMode::ReadOnly {
            return Err(named(
                resource.metadata.name.as_deref().unwrap_or_default(),
                namespace,
            )
            .into_failure());
        }
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
        match cluster.get::<ConfigMap>(&path, READING).await {
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
}
