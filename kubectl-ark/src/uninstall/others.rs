//! What others have in Ark's namespace: while there is any, the namespace stays.

use crate::client::Connection;
use ark_job::api::{GROUP, OPERATION_LABEL, PART_OF, PART_OF_LABEL};
use ark_job::cluster::discover::{ResourceType, discover};
use ark_job::cluster::{Cluster, ClusterError};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Types that are listed at once: a cluster has about a hundred, and nobody waits long.
const LISTS_AT_ONCE: usize = 8;
/// Objects of a type that are looked at; more need not be named.
const LOOKED_AT: usize = 500;
/// How many of others' objects are named.
const NAMED: usize = 5;

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metadata: ObjectMeta,
    /// Of a Secret.
    #[serde(rename = "type")]
    type_: Option<String>,
}

/// What is there that neither Ark nor the cluster itself has made, as kubectl names it, or that cannot be told.
///
/// # Errors
/// When the API server does not answer.
pub async fn in_namespace(
    connection: &Connection,
    namespace: &str,
) -> Result<Vec<String>, Failure> {
    let cluster = Cluster::new(connection.operation.clone());
    let failed = |error: ClusterError| Failure::from_error(Exit::Failed, &error);
    let discovery = discover(&cluster).await.map_err(failed)?;
    let unknown = discovery.missing.iter().map(|missing| {
        format!(
            "perhaps objects of {}, which does not answer",
            missing.group_version
        )
    });
    let types: Vec<&ResourceType> = discovery
        .restorable()
        .filter(|one| one.namespaced && one.group != GROUP)
        .collect();
    let lists: Vec<Vec<String>> = stream::iter(types)
        .map(|one| of_type(&cluster, one, namespace))
        .buffered(LISTS_AT_ONCE)
        .try_collect()
        .await
        .map_err(failed)?;
    let mut others: Vec<String> = lists.into_iter().flatten().chain(unknown).collect();
    if others.len() > NAMED {
        let more = others.len() - NAMED;
        others.truncate(NAMED);
        others.push(format!("{more} more"));
    }
    Ok(others)
}

async fn of_type(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespace: &str,
) -> Result<Vec<String>, ClusterError> {
    let resource = match resource_type.group.as_str() {
        "" => resource_type.singular.clone(),
        group => format!("{}.{group}", resource_type.singular),
    };
    let path = format!("{}?limit={LOOKED_AT}", resource_type.path(Some(namespace)));
    let list: List = match cluster.get(&path, &format!("listing {resource}")).await {
        Ok(list) => list,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) if error.is_forbidden() => {
            return Ok(vec![format!("perhaps {resource}, which you may not list")]);
        }
        Err(error) => return Err(error),
    };
    let others = list
        .items
        .iter()
        .filter(|item| !is_known(resource_type, item));
    Ok(others
        .map(|item| {
            let name = item.metadata.name.as_deref().unwrap_or_default();
            format!("{resource}/{name}")
        })
        .collect())
}

/// Whether it is Ark's, or what a cluster puts into every namespace, or goes with its owner, which is named.
fn is_known(resource_type: &ResourceType, item: &Item) -> bool {
    let labels = item.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let name = item.metadata.name.as_deref().unwrap_or_default();
    if label(PART_OF_LABEL).is_some_and(|of| of == PART_OF) || label(OPERATION_LABEL).is_some() {
        return true;
    }
    if item
        .metadata
        .owner_references
        .as_ref()
        .is_some_and(|owners| !owners.is_empty())
    {
        return true;
    }
    match (
        resource_type.group.as_str(),
        resource_type.resource.as_str(),
    ) {
        ("", "serviceaccounts") => ["default", "builder", "deployer"].contains(&name),
        ("", "configmaps") => [
            "kube-root-ca.crt",
            "istio-ca-root-cert",
            "openshift-service-ca.crt",
        ]
        .contains(&name),
        ("", "secrets") => item.type_.as_deref().is_some_and(|of| {
            of == "kubernetes.io/service-account-token" || of == "kubernetes.io/dockercfg"
        }),
        ("" | "events.k8s.io", "events") | ("coordination.k8s.io", "leases") => true,
        ("rbac.authorization.k8s.io", "rolebindings") => name.starts_with("system:"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_every_namespace_has_is_nobodys() {
        let known = |group: &str, resource: &str, item: serde_json::Value| {
            let item: Item = serde_json::from_value(item).unwrap();
            is_known(
                &ResourceType::known(group, "v1", resource, "X", true),
                &item,
            )
        };
        let metadata = |metadata: serde_json::Value| json!({"metadata": metadata});
        for (group, resource, item) in [
            (
                "",
                "configmaps",
                metadata(json!({"name": "kube-root-ca.crt"})),
            ),
            ("", "serviceaccounts", metadata(json!({"name": "default"}))),
            ("", "events", metadata(json!({"name": "x.1"}))),
            (
                "",
                "configmaps",
                metadata(json!({"name": "ark", "labels": {PART_OF_LABEL: PART_OF}})),
            ),
            (
                "",
                "pods",
                metadata(json!({"name": "p", "labels": {OPERATION_LABEL: "backup"}})),
            ),
            (
                "apps",
                "replicasets",
                metadata(json!({"name": "r", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}]})),
            ),
            (
                "",
                "secrets",
                json!({"metadata": {"name": "t"}, "type": "kubernetes.io/service-account-token"}),
            ),
        ] {
            assert!(known(group, resource, item.clone()), "{item}");
        }
        for (group, resource, item) in [
            ("", "configmaps", metadata(json!({"name": "mine"}))),
            ("apps", "deployments", metadata(json!({"name": "default"}))),
            (
                "",
                "secrets",
                json!({"metadata": {"name": "t"}, "type": "Opaque"}),
            ),
            (
                "",
                "configmaps",
                metadata(json!({"name": "m", "labels": {PART_OF_LABEL: "other"}})),
            ),
        ] {
            assert!(!known(group, resource, item.clone()), "{item}");
        }
    }
}
