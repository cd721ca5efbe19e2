//! PodTemplate `ark`: the one place where an administrator says what Ark's pods are like.
//!
//! `install` writes it; everything that runs is rendered over it. What a pod must be to work and to be safe is not here,
//! but in [`crate::render`].

use crate::merge::{default_pull_policy, merge, without_server_defaults};
use ark_job::api::{CONFIG_NAME, CONTRACT_ANNOTATION, CONTRACT_VERSION};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::core::v1::{PodTemplate, PodTemplateSpec};
use serde_json::{Value, json};

/// Name of the container that runs `ark-job`.
pub const CONTAINER: &str = "ark-job";
/// Name of the volume at `/tmp`.
pub const TMP_VOLUME: &str = "tmp";
/// Annotation: whether restores bind their rights on demand or have them all the time.
pub const RESTORE_RIGHTS_ANNOTATION: &str = "ark.heptio.com/restore-rights";
/// Its value for standing rights.
pub const STANDING: &str = "standing";
/// Its value for rights on demand.
pub const ON_DEMAND: &str = "on-demand";

/// Annotation: whether backups may run hooks (`true` or `false`).
pub const HOOKS_ANNOTATION: &str = "ark.heptio.com/hooks";

/// Where the image is when nobody says otherwise.
const IMAGE_REPOSITORY: &str = "ghcr.io/heptio/ark-job";

/// The image of this version.
pub fn default_image() -> String {
    format!("{IMAGE_REPOSITORY}:v{}", env!("CARGO_PKG_VERSION"))
}

/// What `install` was told about pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSettings {
    /// The image, if given.
    pub image: Option<String>,
    /// A template to merge in.
    pub template: Option<Value>,
    /// What single flags say, as a template.
    pub flags: Value,
}

/// The settings that a first `install` writes.
pub fn defaults() -> Value {
    let mut defaults = json!({
        "metadata": {
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
                "sidecar.istio.io/inject": "false",
            },
        },
        "spec": {
            // OpenShift chooses the user; there, `runAsUser: null` in a --pod-template leaves it to it.
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [{
                "name": CONTAINER,
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"memory": "256Mi"},
                },
            }],
            "volumes": [tmp_volume()],
        },
    });
    // Jobs get this anyway; here, it keeps the API server from warning about the PodTemplate.
    merge(&mut defaults, restricted());
    defaults
}

/// What the restricted Pod Security level asks for, and a root file system that is not written to.
pub fn restricted() -> Value {
    json!({
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": CONTAINER,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                },
            }],
        },
    })
}

/// `/tmp`: room for what is on its way to storage, and an end to it before a node's disk is full.
pub fn tmp_volume() -> Value {
    json!({"name": TMP_VOLUME, "emptyDir": {"sizeLimit": "10Gi"}})
}

/// The template and the contract version of its image: what is there (or the defaults), under a file, under flags.
///
/// # Errors
/// When the result is not a pod template.
pub fn plan(
    settings: &PodSettings,
    existing: Option<&PodTemplate>,
) -> Result<(PodTemplateSpec, String), Failure> {
    let mut template = match existing.and_then(|existing| existing.template.as_ref()) {
        Some(existing) => {
            let mut value =
                serde_json::to_value(existing).expect("Kubernetes objects can be written as JSON");
            without_server_defaults(&mut value);
            value
        }
        None => defaults(),
    };
    let before = image(&template).map(str::to_owned);
    if let Some(file) = &settings.template {
        merge(&mut template, file.clone());
    }
    merge(&mut template, settings.flags.clone());
    let there = image(&template).map(str::to_owned);
    let ours = |image: &str| image.starts_with(IMAGE_REPOSITORY);
    let from_file = settings.template.as_ref().and_then(image).is_some();
    // Resource types, rights and Jobs of an older version would not fit the image that stays, nor what newer plugins made.
    let version = |text: &str| text.parse::<u32>().ok();
    let known = contract(existing);
    if version(&known) > version(CONTRACT_VERSION) && settings.image.is_none() && !from_file {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "what is installed is newer: PodTemplate {CONFIG_NAME} has contract version {known}, this plugin speaks \
                 {CONTRACT_VERSION}"
            ),
        )
        .hint("use the newer plugin; to go back to this version, say its image with --image"));
    }
    // An image that someone chose stays until someone chooses another; its contract version stays with it.
    let (image, contract) = match (&settings.image, there) {
        (Some(image), _) => (image.clone(), CONTRACT_VERSION.to_owned()),
        (None, Some(image)) if from_file => (image, CONTRACT_VERSION.to_owned()),
        (None, Some(image)) if !ours(&image) => (image, contract(existing)),
        (None, _) => (default_image(), CONTRACT_VERSION.to_owned()),
    };
    let mut container = json!({"name": CONTAINER, "image": image});
    // The API server would keep the policy that it chose for the image before.
    if before.is_some_and(|before| before != image)
        && of_container(&template, "imagePullPolicy").is_none()
    {
        container["imagePullPolicy"] = default_pull_policy(&image).into();
    }
    merge(&mut template, json!({"spec": {"containers": [container]}}));
    let template = serde_json::from_value(template).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("the pod settings are not a pod template: {error}"),
        )
        .hint("`kubectl explain podtemplate.template` shows what it may hold")
    })?;
    Ok((template, contract))
}

fn image(template: &Value) -> Option<&str> {
    of_container(template, "image")
}

fn of_container<'a>(template: &'a Value, field: &str) -> Option<&'a str> {
    let containers = template.pointer("/spec/containers")?.as_array()?;
    containers.iter().find(|one| one["name"] == CONTAINER)?[field].as_str()
}

fn contract(existing: Option<&PodTemplate>) -> String {
    existing
        .and_then(|existing| {
            existing
                .metadata
                .annotations
                .as_ref()?
                .get(CONTRACT_ANNOTATION)
        })
        .cloned()
        .unwrap_or_else(|| CONTRACT_VERSION.to_owned())
}

/// What every Job is rendered over.
#[derive(Clone, Debug, PartialEq)]
pub struct Installation {
    /// The pod template, as JSON.
    pub template: Value,
    /// Whether restores have their rights all the time.
    pub standing_rights: bool,
    /// Whether backups may run hooks.
    pub hooks: bool,
}

impl Installation {
    /// The image of `ark-job`.
    pub fn image(&self) -> Option<&str> {
        image(&self.template)
    }

    /// Reads the settings from PodTemplate `ark`.
    ///
    /// # Errors
    /// When it has no image, or one that does not understand what this plugin would render.
    pub fn of(template: &PodTemplate) -> Result<Installation, Failure> {
        let annotation =
            |name: &str| Some(template.metadata.annotations.as_ref()?.get(name)?.as_str());
        let broken = |why: &str| {
            Failure::new(Exit::Failed, format!("PodTemplate {CONFIG_NAME}: {why}"))
                .hint("`kubectl ark install` with the same flags as before (and --image, if it is your own) puts it right")
        };
        let mut value = serde_json::to_value(template.template.clone().unwrap_or_default())
            .expect("Kubernetes objects can be written as JSON");
        without_server_defaults(&mut value);
        let image =
            image(&value).ok_or_else(|| broken("it has no container ark-job with an image"))?;
        let version = |text: &str| text.parse::<u32>().ok();
        let understood = annotation(CONTRACT_ANNOTATION).and_then(version);
        if understood < version(CONTRACT_VERSION) {
            let understood = annotation(CONTRACT_ANNOTATION).unwrap_or("none");
            return Err(broken(&format!(
                "image {image} understands contract version {understood}, this plugin speaks {CONTRACT_VERSION}"
            )));
        }
        Ok(Installation {
            standing_rights: annotation(RESTORE_RIGHTS_ANNOTATION) == Some(STANDING),
            hooks: annotation(HOOKS_ANNOTATION) == Some("true"),
            template: value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn installed(contract: &str, template: Value) -> PodTemplate {
        PodTemplate {
            metadata: ObjectMeta {
                name: Some(CONFIG_NAME.into()),
                annotations: Some([(CONTRACT_ANNOTATION.to_owned(), contract.to_owned())].into()),
                ..ObjectMeta::default()
            },
            template: Some(serde_json::from_value(template).unwrap()),
        }
    }

    fn with_image(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": CONTAINER, "image": image}], "nodeSelector": {"a": "b"}}})
    }

    #[test]
    fn the_first_install_has_defaults_and_the_released_image() {
        let (template, contract) = plan(
            &PodSettings {
                flags: json!({}),
                ..PodSettings::default()
            },
            None,
        )
        .unwrap();
        let template = serde_json::to_value(template).unwrap();
        assert_eq!(image(&template), Some(default_image().as_str()));
        assert_eq!(
            template.pointer("/spec/containers/0/resources/limits"),
            Some(&json!({"memory": "256Mi"}))
        );
        assert_eq!(contract, CONTRACT_VERSION);
    }

    #[test]
    fn the_pull_policy_follows_the_image_unless_it_was_chosen() {
        let policy = |there: &str, policy: &str, image: Option<&str>| {
            let mut template = with_image(there);
            template["spec"]["containers"][0]["imagePullPolicy"] = policy.into();
            let settings = PodSettings {
                image: image.map(str::to_owned),
                flags: json!({}),
                template: None,
            };
            let (template, _) = plan(&settings, Some(&installed("1", template))).unwrap();
            let template = serde_json::to_value(template).unwrap();
            of_container(&template, "imagePullPolicy").map(str::to_owned)
        };
        let said = |policy: &str| Some(policy.to_owned());
        assert_eq!(policy("ark:1", "IfNotPresent", None), None);
        assert_eq!(
            policy("ark:1", "IfNotPresent", Some("ark:latest")),
            said("Always")
        );
        assert_eq!(
            policy("ark:latest", "Always", Some("ark:1")),
            said("IfNotPresent")
        );
        assert_eq!(policy("ark:1", "Never", Some("ark:latest")), said("Never"));
    }

    #[test]
    fn an_upgrade_keeps_settings_and_a_chosen_image_with_its_contract() {
        let existing = installed("0", with_image("registry.local/ark:1"));
        let settings = PodSettings {
            flags: json!({"spec": {"nodeSelector": {"c": "d"}}}),
            ..PodSettings::default()
        };
        let (template, contract) = plan(&settings, Some(&existing)).unwrap();
        let template = serde_json::to_value(template).unwrap();
        assert_eq!(image(&template), Some("registry.local/ark:1"));
        assert_eq!(
            template["spec"]["nodeSelector"],
            json!({"a": "b", "c": "d"})
        );
        assert_eq!(contract, "0");
        let settings = PodSettings {
            image: Some("registry.local/ark:2".into()),
            flags: json!({}),
            template: None,
        };
        let (template, contract) = plan(&settings, Some(&existing)).unwrap();
        assert_eq!(
            image(&serde_json::to_value(template).unwrap()),
            Some("registry.local/ark:2")
        );
        assert_eq!(contract, CONTRACT_VERSION);
    }

    #[test]
    fn an_upgrade_replaces_the_released_image() {
        let existing = installed("0", with_image("ghcr.io/heptio/ark-job:v0.0.1"));
        let (template, contract) = plan(
            &PodSettings {
                flags: json!({}),
                ..PodSettings::default()
            },
            Some(&existing),
        )
        .unwrap();
        assert_eq!(
            image(&serde_json::to_value(template).unwrap()),
            Some(default_image().as_str())
        );
        assert_eq!(contract, CONTRACT_VERSION);
    }

    #[test]
    fn what_is_installed_goes_back_to_an_older_version_only_by_name() {
        let newer = installed("7", with_image("registry.local/ark:7"));
        let with = |image: Option<&str>| PodSettings {
            image: image.map(str::to_owned),
            flags: json!({}),
            template: None,
        };
        let refused = plan(&with(None), Some(&newer)).unwrap_err();
        assert!(
            refused.message().contains("contract version 7"),
            "{}",
            refused.message()
        );
        assert!(refused.next_step().unwrap().contains("--image"));
        let (_, contract) = plan(&with(Some("registry.local/ark:1")), Some(&newer)).unwrap();
        assert_eq!(contract, CONTRACT_VERSION);
    }

    #[test]
    fn an_older_image_is_refused_and_a_newer_one_taken() {
        let error = Installation::of(&installed("0", with_image("i"))).unwrap_err();
        assert!(
            error.message().contains("contract version 0"),
            "{}",
            error.message()
        );
        assert!(error.next_step().unwrap().contains("kubectl ark install"));
        Installation::of(&installed("7", with_image("i"))).unwrap();
        Installation::of(&installed("1", json!({"spec": {"containers": []}}))).unwrap_err();
    }
}
