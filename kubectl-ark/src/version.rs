//! `version`: of the plugin, and of the image that Jobs use.

use crate::cli::{ClusterFlags, VersionFormat};
use crate::options::VersionOptions;
use crate::pod_template::CONTAINER;
use crate::{client, output};
use ark_job::api::{CONFIG_NAME, CONTRACT_ANNOTATION, CONTRACT_VERSION};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::core::v1::PodTemplate;
use kube::api::Api;
use serde_json::{Value, json};

/// Prints the versions. The plugin's own comes first, whatever the cluster says.
pub async fn run(cluster: &ClusterFlags, options: &VersionOptions) -> Result<Exit, Failure> {
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut all = json!({"client": {"version": version, "contract": CONTRACT_VERSION}});
    if options.output.is_none() {
        println!("Client Version: {version} (contract {CONTRACT_VERSION})");
    }
    let mut result = Ok(Exit::Done);
    if !options.client_only {
        match installed(cluster, &options.namespace).await {
            Ok(found) => {
                if options.output.is_none() {
                    println!(
                        "Installed Image: {} (contract {})",
                        found["image"].as_str().unwrap_or("none"),
                        found["contract"].as_str().unwrap_or("none")
                    );
                }
                all["installed"] = found;
            }
            Err(failure) => result = Err(failure),
        }
    }
    match options.output {
        Some(VersionFormat::Yaml) => print!("{}", output::yaml(&all)),
        Some(VersionFormat::Json) => print!("{}", output::json(&all)),
        None => {}
    }
    result
}

async fn installed(cluster: &ClusterFlags, namespace: &str) -> Result<Value, Failure> {
    let client = client::connect(cluster).await?.kube;
    let templates: Api<PodTemplate> = Api::namespaced(client, namespace);
    let what = format!("PodTemplate {CONFIG_NAME} in namespace {namespace}");
    let template = templates
        .get_opt(CONFIG_NAME)
        .await
        .map_err(|error| client::failure(&error, &format!("reading {what}")))?
        .ok_or_else(|| client::not_installed(&format!("there is no {what}")))?;
    let image = image(&template);
    let contract = template
        .metadata
        .annotations
        .and_then(|mut all| all.remove(CONTRACT_ANNOTATION));
    Ok(json!({"image": image, "contract": contract}))
}

/// The image that Jobs run.
pub fn image(template: &PodTemplate) -> Option<String> {
    let spec = template.template.as_ref()?.spec.as_ref()?;
    let container = spec.containers.iter().find(|one| one.name == CONTAINER)?;
    container.image.clone()
}
