//! Restore-only mode: whether anything may be written to a location, or deleted from it.
//!
//! The mode is install-wide (ConfigMap `ark`) and per location (`accessMode`). Whoever writes or deletes asks before it
//! touches anything, and again right before each step that cannot be taken back. A mode that cannot be read counts as
//! restore-only; a ConfigMap that is not there is an installation that is not there, and forbids nothing.

use crate::api::{AccessMode, CONFIG_NAME, MODE_KEY, NORMAL, RESTORE_ONLY};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use k8s_openapi::api::core::v1::ConfigMap;

/// Refuses when the installation or the location is restore-only, or when that cannot be found out.
///
/// # Errors
/// [`Exit::Refused`], with what forbids it.
pub async fn refuse_unless_writable(context: &Context) -> Result<(), Failure> {
    if context.access_mode == AccessMode::ReadOnly {
        let location = context.location.as_deref().unwrap_or_default();
        let text = format!("storage location {location} is ReadOnly: nothing is written to it");
        return Err(Failure::new(Exit::Refused, text).hint("choose another with --location"));
    }
    let namespace = &context.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{CONFIG_NAME}");
    let doing = format!("reading the mode from ConfigMap {CONFIG_NAME} in namespace {namespace}");
    let mode = match context.cluster.get::<ConfigMap>(&path, &doing).await {
        Ok(map) => map.data.and_then(|mut data| data.remove(MODE_KEY)),
        Err(error) if error.is_not_found() => None,
        Err(error) => {
            let text = format!("{}; so this counts as restore-only", error.full_text());
            return Err(Failure::new(Exit::Refused, text));
        }
    };
    match mode.as_deref() {
        None | Some(NORMAL) => Ok(()),
        Some(RESTORE_ONLY) => Err(Failure::new(
            Exit::Refused,
            format!("Ark in namespace {namespace} is in restore-only mode"),
        )
        .hint("`kubectl ark restore-only off` ends it")),
        Some(other) => Err(Failure::new(
            Exit::Refused,
            format!("{doing}: {other:?} is no mode; so this counts as restore-only"),
        )),
    }
}
