//! A Kubernetes object of any type, with what is needed to print, create and apply it.

use crate::cli::CreateFormat;
use crate::output;
use ark_job::error::Failure;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::Value;

use crate::client;

/// Who owns the fields that the plugin writes.
pub const FIELD_MANAGER: &str = "kubectl-ark";

/// An object to create or apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    resource: ApiResource,
    value: Value,
}

impl Manifest {
    /// Of a typed object.
    pub fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Manifest {
        Manifest {
            resource: ApiResource::erase::<K>(&()),
            value: serde_json::to_value(object).expect("Kubernetes objects can be written as JSON"),
        }
    }

    /// The same object as somebody else has it.
    pub fn with_value(&self, value: Value) -> Manifest {
        Manifest {
            resource: self.resource.clone(),
            value,
        }
    }

    /// As JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`, of a namespaced object.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// The kind, `CustomResourceDefinition`.
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// As kubectl names it: `job.batch/backup-demo`.
    pub fn reference(&self) -> String {
        reference(&self.resource, self.name())
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match self.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// Applies it on the server, as field manager `kubectl-ark`.
    pub async fn apply(
        &self,
        client: &Client,
        force: bool,
        dry_run: bool,
    ) -> kube::Result<DynamicObject> {
        let params = PatchParams {
            force,
            dry_run,
            ..PatchParams::apply(FIELD_MANAGER)
        };
        self.api(client)
            .patch(self.name(), &params, &Patch::Apply(&self.value))
            .await
    }

    /// Creates it.
    pub async fn create(&self, client: &Client) -> kube::Result<DynamicObject> {
        let object: DynamicObject =
            serde_json::from_value(self.value.clone()).map_err(kube::Error::SerdeError)?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        self.api(client).create(&params, &object).await
    }

    /// As it is in the cluster, if it is there.
    pub async fn fetch(&self, client: &Client) -> kube::Result<Option<DynamicObject>> {
        self.api(client).get_opt(self.name()).await
    }

    /// Deletes it, and what it owns, if it is there; says whether it was.
    pub async fn delete(&self, client: &Client) -> Result<bool, Failure> {
        self.try_to_delete(client, false).await
    }

    /// As [`Manifest::delete`], or only asks the server whether it would.
    pub async fn try_to_delete(&self, client: &Client, dry_run: bool) -> Result<bool, Failure> {
        let params = DeleteParams {
            dry_run,
            // Said, because a Job's pods would stay by default.
            ..DeleteParams::background()
        };
        match self.api(client).delete(self.name(), &params).await {
            Ok(_) => Ok(true),
            Err(error) if client::is_not_found(&error) => Ok(false),
            Err(error) => Err(client::failure(
                &error,
                &format!("deleting {}", self.reference()),
            )),
        }
    }
}

/// The name of an object in kubectl's way: `backup.ark.heptio.com/demo`, `pod/x`.
pub fn reference(resource: &ApiResource, name: &str) -> String {
    let kind = resource.kind.to_lowercase();
    match resource.group.as_str() {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

/// Prints objects in a format, or what happens to each.
pub fn print(objects: &[Manifest], format: Option<CreateFormat>, note: &str) {
    let values: Vec<_> = objects
        .iter()
        .map(|object| object.value().clone())
        .collect();
    match format {
        Some(CreateFormat::Yaml) => print!("{}", output::documents(&values)),
        Some(CreateFormat::Json) => match <[_; 1]>::try_from(values) {
            Ok([single]) => print!("{}", output::json(&single)),
            Err(values) => print!("{}", output::json(&output::list(values))),
        },
        Some(CreateFormat::Name) => objects
            .iter()
            .for_each(|object| println!("{}", object.reference())),
        None => objects
            .iter()
            .for_each(|object| println!("{} created{note}", object.reference())),
    }
}
