//! `install …`: what was typed.

use super::{check_name, read, usage};
use crate::cli::{CreateFormat, InstallArgs, RestoreRights, ServerDryRun};
use crate::pod_template::{CONTAINER, PodSettings};
use ark_job::api::{AccessMode, BackupStorageLocationSpec, DEFAULT_LOCATION};
use ark_job::error::{Failure, chain};
use ark_job::store::Location;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What to install.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Ark's namespace.
    pub namespace: String,
    /// The location to make.
    pub location: Option<LocationOptions>,
    /// The pods.
    pub pods: PodSettings,
    /// Forget the pod settings that are there.
    pub reset_pod_template: bool,
    /// Annotations of all service accounts.
    pub service_account_annotations: BTreeMap<String, String>,
    /// How restores get their rights, if given.
    pub restore_rights: Option<RestoreRights>,
    /// Whether backups may run hooks, if given.
    pub hooks: Option<bool>,
    /// Switch restore-only mode on.
    pub restore_only: bool,
    /// The cluster's name, if given.
    pub cluster_name: Option<String>,
    /// Whether it is done.
    pub dry_run: ServerDryRun,
    /// How to print.
    pub output: Option<CreateFormat>,
    /// Take over fields from others.
    pub force_conflicts: bool,
}

/// A BackupStorageLocation to make, or to change.
#[derive(Clone, Debug, PartialEq)]
pub struct LocationOptions {
    /// Its name.
    pub name: String,
    /// What its URL says, if one is given.
    pub place: Option<BackupStorageLocationSpec>,
    /// What may be done with it, if given.
    pub access_mode: Option<AccessMode>,
    /// The Secret with its credentials, if given.
    pub credential_secret: Option<String>,
    /// Content of the Secret to make for it.
    pub credentials: Option<String>,
}

/// Checks what was typed, and completes it.
///
/// # Errors
/// [`Exit::Usage`], with what is wrong.
pub fn resolve(namespace: &str, args: InstallArgs) -> Result<Options, Failure> {
    let InstallArgs {
        storage,
        location_name,
        access_mode,
        credentials_file,
        credentials_secret,
        image,
        image_pull_policy,
        image_pull_secret,
        toleration,
        node_selector,
        env,
        pod_template,
        reset_pod_template,
        service_account_annotation,
        restore_rights,
        hooks,
        restore_only,
        cluster_name,
        dry_run,
        output,
        force_conflicts,
    } = args;
    let location = match (&storage, access_mode, &location_name) {
        (None, None, None) => None,
        (None, None, Some(_)) => {
            return Err(usage(
                "--location-name says which location --storage makes, or --access-mode changes: neither is given".into(),
            ));
        }
        _ => {
            let name = location_name.unwrap_or_else(|| DEFAULT_LOCATION.to_owned());
            check_name(&name).map_err(usage)?;
            let credentials = credentials_file
                .map(|path| read(&path).and_then(|text| check_credentials(&path, text)))
                .transpose()?;
            Some(LocationOptions {
                place: storage.as_deref().map(location_spec).transpose()?,
                access_mode: access_mode.map(AccessMode::from),
                credential_secret: match &credentials {
                    Some(_) => Some(format!("ark-credentials-{name}")),
                    None => credentials_secret,
                },
                name,
                credentials,
            })
        }
    };
    image.as_deref().map_or(Ok(()), check_image)?;
    let template = pod_template
        .map(|path| read(&path).and_then(|text| template(&path, &text)))
        .transpose()?;
    let tolerations = toleration
        .iter()
        .map(|text| parse_toleration(text))
        .collect::<Result<Vec<_>, _>>()?;
    let env: Vec<Value> = pairs("--env", &env)?
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let pull_secrets: Vec<Value> = image_pull_secret
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    let node_selector: Map<String, Value> = pairs("--node-selector", &node_selector)?
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    // Only what was said: an empty list would still be a statement.
    let mut container = json!({"name": CONTAINER});
    let mut spec = json!({});
    if !env.is_empty() {
        container["env"] = env.into();
    }
    if let Some(policy) = image_pull_policy {
        container["imagePullPolicy"] = policy.into();
    }
    if !pull_secrets.is_empty() {
        spec["imagePullSecrets"] = pull_secrets.into();
    }
    if !tolerations.is_empty() {
        spec["tolerations"] = tolerations.into();
    }
    if !node_selector.is_empty() {
        spec["nodeSelector"] = node_selector.into();
    }
    spec["containers"] = json!([container]);
    Ok(Options {
        namespace: namespace.to_owned(),
        location,
        pods: PodSettings {
            image,
            template,
            flags: json!({"spec": spec}),
        },
        reset_pod_template,
        service_account_annotations: pairs(
            "--service-account-annotation",
            &service_account_annotation,
        )?,
        restore_rights,
        hooks,
        restore_only,
        cluster_name,
        dry_run,
        output,
        force_conflicts,
    })
}

/// Refuses what no registry can have: it would be written into all that runs pods, which then never start.
fn check_image(image: &str) -> Result<(), Failure> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash is that of a port.
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let word = |text: &str, others: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(known)
    };
    let is_image = path.split('/').all(|part| word(part, "._-:"))
        && tag.is_none_or(|tag| word(tag, "._-"))
        && digest.is_none_or(|digest| word(digest, ":+._-") && digest.contains(':'));
    if is_image {
        return Ok(());
    }
    Err(
        usage(format!("--image {image:?}: it is no name of an image"))
            .hint("it looks like this: registry.example.com/team/ark-job:v1.2.3, or …@sha256:…"),
    )
}

/// The resource that says what a storage URL says.
pub(super) fn location_spec(url: &str) -> Result<BackupStorageLocationSpec, Failure> {
    let location: Location = url.parse().map_err(|error| usage(chain(&error)))?;
    let mut spec = BackupStorageLocationSpec::default();
    match location {
        Location::File { dir } => spec.url = Location::File { dir }.to_string(),
        Location::S3(s3) => {
            if s3.credentials_file.is_some() {
                return Err(usage(
                    "storage URL: credentials-file is a path on this machine".into(),
                )
                .hint("--credentials-file FILE puts it into a Secret in the cluster"));
            }
            spec.region = s3.region.clone();
            spec.endpoint = s3.endpoint.clone();
            spec.path_style = s3.path_style.then_some(true);
            spec.checksum = s3.checksum.map(|checksum| checksum.as_str().into());
            spec.kms_key_id = s3.kms_key_id.clone();
            spec.server_side_encryption = s3.server_side_encryption.map(|one| one.as_str().into());
            spec.profile = s3.profile.clone();
            spec.role_arn = s3.role_arn.clone();
            let bare = ark_job::store::S3Location {
                bucket: s3.bucket,
                prefix: s3.prefix,
                ..Default::default()
            };
            spec.url = Location::S3(bare).to_string();
        }
    }
    Ok(spec)
}

pub(super) fn check_credentials(path: &Path, text: String) -> Result<String, Failure> {
    if text.contains("aws_access_key_id")
        || text.contains("role_arn")
        || text.contains("credential_process")
    {
        return Ok(text);
    }
    Err(usage(format!("{}: it is no AWS shared-credentials file", path.display()))
        .hint("it looks like this: [default], aws_access_key_id = …, aws_secret_access_key = …, a line each"))
}

/// A pod template from a file that holds a PodTemplate or what is under its `template`.
fn template(path: &Path, text: &str) -> Result<Value, Failure> {
    let wrong = |why: String| usage(format!("{}: {why}", path.display()));
    let mut value: Value =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if value["kind"] == "PodTemplate" {
        value = value["template"].take();
    }
    let known = |key: &String| key == "metadata" || key == "spec";
    match value.as_object() {
        Some(object) if object.keys().all(known) && object.contains_key("spec") => Ok(value),
        _ => Err(wrong(
            "it is neither a PodTemplate nor what is under its template: metadata and spec".into(),
        )),
    }
}

/// `KEY[=VALUE][:EFFECT]`, as in `kubectl taint`.
fn parse_toleration(text: &str) -> Result<Value, Failure> {
    let (taint, effect) = match text.rsplit_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (text, None),
    };
    if let Some(effect) = effect
        && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
    {
        return Err(usage(format!(
            "--toleration {text}: effect {effect:?} is not NoSchedule, PreferNoSchedule or NoExecute"
        )));
    }
    let mut toleration = match taint.split_once('=') {
        Some((key, value)) => json!({"key": key, "operator": "Equal", "value": value}),
        None => json!({"key": taint, "operator": "Exists"}),
    };
    if toleration["key"] == "" {
        return Err(usage(format!(
            "--toleration {text:?}: it has no key; KEY[=VALUE][:EFFECT] is expected"
        )));
    }
    if let Some(effect) = effect {
        toleration["effect"] = effect.into();
    }
    Ok(toleration)
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(usage(format!("{flag} {text:?}: KEY=VALUE is expected"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_says_what_its_url_says() {
        let spec = location_spec(
            "s3://b/p?region=r&endpoint=http://h:1&path-style=true&sse=aws:kms&kms-key-id=k&profile=p&role-arn=arn:x",
        )
        .unwrap();
        assert_eq!(
            serde_json::to_value(spec).unwrap(),
            json!({
                "url": "s3://b/p", "region": "r", "endpoint": "http://h:1", "pathStyle": true, "kmsKeyId": "k",
                "serverSideEncryption": "aws:kms", "profile": "p", "roleARN": "arn:x", "accessMode": "ReadWrite",
            })
        );
    }

    #[test]
    fn an_image_is_a_name_that_a_registry_can_have() {
        for image in [
            "ark-job",
            "ghcr.io/heptio/ark-job:v0.1.0",
            "localhost:5000/a_b/c--d:latest",
            "localhost/ark-job:demo",
            "r.example.com/x@sha256:0123456789abcdef",
            "r.example.com/x:1@sha256:0123456789abcdef",
        ] {
            assert!(check_image(image).is_ok(), "{image}");
        }
        for image in ["", "bad image", "a//b", "/a", "a:", "a@b", "-a", "a:b c"] {
            let failure = check_image(image).unwrap_err();
            assert_eq!(failure.exit(), ark_job::exit::Exit::Usage, "{image}");
        }
    }

    #[test]
    fn tolerations_are_written_as_taints_are() {
        for (text, expected) in [
            ("a", json!({"key": "a", "operator": "Exists"})),
            (
                "a:NoSchedule",
                json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}),
            ),
            (
                "a=b:NoExecute",
                json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"}),
            ),
            (
                "a=b",
                json!({"key": "a", "operator": "Equal", "value": "b"}),
            ),
        ] {
            assert_eq!(parse_toleration(text).unwrap(), expected);
        }
    }

    #[test]
    fn a_pod_template_file_may_be_a_whole_podtemplate() {
        let path = Path::new("t.yaml");
        let bare = template(path, "spec:\n  nodeSelector: {a: b}\n").unwrap();
        let whole = "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: x}\ntemplate:\n  spec:\n    nodeSelector: {a: b}\n";
        assert_eq!(template(path, whole).unwrap(), bare);
        template(path, "nodeSelector: {a: b}\n").unwrap_err();
    }
}
