//! What objects are changed by: read and checked before any work.

use super::hooks;
use super::options::Options;
use super::order::CLASSES;
use super::prepare::Rules;
use super::selection::resolve;
use crate::archive::footer::Footer;
use crate::cluster::apply;
use crate::cluster::discover::Discovery;
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::filter::Filter;
use crate::modifiers::Modifiers;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The rules that were asked for, with what the ConfigMaps say that they name.
///
/// # Errors
/// [`Exit::NotFound`] without such a ConfigMap, [`Exit::Usage`] with the place of a mistake in it or of a type that
/// nobody knows.
pub async fn read(
    context: &Context,
    options: &Options,
    discovery: &Discovery,
    footer: &Footer,
) -> Result<Rules, Failure> {
    let spec = &options.spec;
    let hooks = hooks::read(context, spec.hooks.as_deref(), &discovery.types).await?;
    let modifiers = match &spec.resource_modifier {
        Some(name) => Some(read_modifiers(context, name).await?),
        None => None,
    };
    let status = spec
        .restore_status
        .as_ref()
        .map(|status| {
            let named = |names: &[String]| resolve(names, &discovery.types, footer);
            let included = named(&status.included_resources)?;
            let excluded = named(&status.excluded_resources)?;
            Filter::resources(&included, &excluded)
        })
        .transpose()
        .map_err(|why| {
            Failure::new(
                Exit::Usage,
                format!("--status-include-resources, --status-exclude-resources: {why}"),
            )
        })?;
    Ok(Rules::from_spec(
        spec,
        status,
        modifiers.map(Arc::new),
        Some(Arc::new(hooks)),
    ))
}

async fn read_modifiers(context: &Context, name: &str) -> Result<Modifiers, Failure> {
    let map = context.config_map(name, "resource modifiers").await?;
    Modifiers::parse(name, &map.data.unwrap_or_default())
        .map_err(|error| Failure::from_error(Exit::Usage, &error))
}

/// Storage classes that claims are mapped to and that the cluster does not have: they must come with the backup.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn classes_missing(
    context: &Context,
    rules: &Rules,
    discovery: &Discovery,
) -> Result<BTreeSet<String>, Failure> {
    let mut missing = BTreeSet::new();
    let Some(classes) = discovery.find(CLASSES, "storage.k8s.io/v1") else {
        return Ok(missing);
    };
    for name in rules.storage_classes_needed() {
        let found = apply::read(&context.cluster, classes, None, name)
            .await
            .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        if found.is_none() {
            missing.insert(name.to_owned());
        }
    }
    Ok(missing)
}
