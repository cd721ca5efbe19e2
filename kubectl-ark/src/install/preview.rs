//! `install --dry-run=server`: what would become of each object, in the API server's own words, as `kubectl diff` shows it.
//!
//! It goes the same way as `install`, with dry runs for writes. What cannot be tried, since its namespace or its resource
//! type is not there yet, is shown as it would be sent.

use super::{Existing, Leftover, is_left, leftovers, not_applied, tell_left};
use crate::client;
use crate::manifest;
use crate::manifest::Manifest;
use crate::options::install::Options;
use crate::pod_template::Installation;
use crate::schedule;
use ark_job::diff::lines::{Titles, difference};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::core::v1::PodTemplate;
use kube::Client;
use kube::api::DynamicObject;
use serde_json::Value;

/// What follows the name of an object, as kubectl says it.
pub const NOTE: &str = "(server dry run)";

/// Shows it all; fails in the end if the API server refuses something.
pub async fn run(
    client: &Client,
    options: &Options,
    existing: &Existing,
    objects: &[Manifest],
) -> Result<Exit, Failure> {
    let mut refused = None;
    let mut printed = Vec::new();
    for object in objects {
        let there = object.fetch(client).await;
        let there = there.or_else(|error| match client::is_not_found(&error) {
            true => Ok(None),
            false => Err(client::failure(
                &error,
                &format!("reading {}", object.reference()),
            )),
        })?;
        let before = there.as_ref().map(value);
        let after = match object.apply(client, options.force_conflicts, true).await {
            Ok(applied) => value(&applied),
            Err(error) if client::is_not_found(&error) => object.value().clone(),
            Err(error) if is_left(object, &error) => {
                tell_left(object, &error);
                continue;
            }
            Err(error) => {
                let failure = not_applied(object, &error);
                eprintln!("error: {}", failure.message());
                refused = refused.or(Some(failure));
                continue;
            }
        };
        match options.output {
            Some(_) => printed.push(object.with_value(after)),
            None => print!("{}", shown(object, before.as_ref(), &after)),
        }
    }
    if options.output.is_some() {
        manifest::print(&printed, options.output, "");
    }
    let planned = installation(objects);
    schedule::upgrade::run(client, options, planned.as_ref()).await?;
    for Leftover { object, why } in leftovers(options, existing, objects)? {
        eprintln!("{} deleted {NOTE}: {why}", object.reference());
    }
    if options.restore_only && !super::is_restore_only(existing) && existing.template.is_some() {
        eprintln!("schedules and expiry suspended {NOTE}: restore-only mode");
    }
    refused.map_or(Ok(Exit::Done), Err)
}

/// The pod settings that would be written; without, schedules are left as they are.
fn installation(objects: &[Manifest]) -> Option<Installation> {
    let template = objects.iter().find(|one| one.kind() == "PodTemplate")?;
    let template: PodTemplate = serde_json::from_value(template.value().clone()).ok()?;
    Installation::of(&template).ok()
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("Kubernetes objects can be written as JSON")
}

/// What becomes of an object, and how it differs.
fn shown(object: &Manifest, before: Option<&Value>, after: &Value) -> String {
    let reference = object.reference();
    let (before, after) = (before.map(plain), plain(after));
    let difference = changed(&reference, before.as_ref(), &after);
    match (&before, difference) {
        (_, None) => format!("{reference} unchanged {NOTE}\n"),
        // Thousands of lines that nobody reads.
        (None, Some(_)) if object.kind() == "CustomResourceDefinition" => {
            format!("{reference} created {NOTE}\n")
        }
        (None, Some(text)) => format!("{reference} created {NOTE}\n{text}"),
        (Some(_), Some(text)) => format!("{reference} configured {NOTE}\n{text}"),
    }
}

/// How an object differs from what it would be.
pub fn changed(reference: &str, before: Option<&Value>, after: &Value) -> Option<String> {
    let titles = Titles {
        old: "the cluster".into(),
        new: "install".into(),
    };
    difference(&titles, reference, before, Some(after))
}

/// Without what the API server keeps for itself, and what controllers say.
pub fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "resourceVersion",
            "uid",
        ] {
            metadata.remove(field);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    fn secret(key: &str, version: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "resourceVersion": version},
               "data": {"cloud": key}})
    }

    #[test]
    fn what_changes_is_shown_and_secrets_are_not() {
        let manifest = Manifest::of(&Secret {
            metadata: kube::api::ObjectMeta {
                name: Some("s".into()),
                ..Default::default()
            },
            ..Secret::default()
        });
        let old = secret("b2xk", "1");
        assert_eq!(
            shown(&manifest, Some(&old), &secret("b2xk", "2")),
            "secret/s unchanged (server dry run)\n"
        );
        let text = shown(&manifest, Some(&old), &secret("bmV3", "1"));
        assert!(text.starts_with("secret/s configured (server dry run)\ndiff secret/s\n"));
        assert!(text.contains("+  cloud: \"*** (after)\"\n"), "{text}");
        let new = shown(&manifest, None, &secret("bmV3", "1"));
        assert!(new.starts_with("secret/s created"), "{new}");
        for text in [text, new] {
            assert!(!text.contains("b2xk") && !text.contains("bmV3"), "{text}");
        }
    }
}
