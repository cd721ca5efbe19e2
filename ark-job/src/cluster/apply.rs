//! Writing objects: create first, ask only when the answer is no.
//!
//! An object that is not there costs one request. Everything a busy, restarting or throttling API server answers is
//! retried; what is left are answers about the object itself.

use super::discover::{Discovery, ResourceType, discover};
use super::{Backoff, Cluster, ClusterError, collect, get, status_error};
use crate::cluster::ANSWER_WITHIN;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use kube::client::Body;
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How often a condition is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Namespaces take minutes to go when a controller has much to clean up, or hangs (Velero's number).
pub const NAMESPACE_GONE_WITHIN: Duration = Duration::from_secs(600);
/// Other objects go at once, or wait for a finalizer that may never be taken off.
pub const OBJECT_GONE_WITHIN: Duration = Duration::from_secs(20);
/// A definition is established within a second or two, unless its names are taken.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
/// Then it is in discovery within a second or two, later when the API server is busy.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// A namespace's default service account and quota appear shortly after the namespace, and pods need them.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// Only metadata comes back: nobody reads the rest, and the API server need not encode it.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The answer to a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is there now.
    New {
        /// What the API server remarked.
        warnings: Vec<String>,
    },
    /// An object of that name was there.
    Exists {
        /// An answer to an earlier attempt was lost: it may be the object of this very create.
        maybe_ours: bool,
    },
}

/// Creates an object from its JSON.
///
/// # Errors
/// What the API server has against it. Some answers (of webhooks, quotas, or about a port) come before it looks
/// whether the object exists: callers look.
pub async fn create(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    body: Bytes,
) -> Result<Created, ClusterError> {
    let doing = doing("creating", resource_type, namespace, name);
    let path = format!("{}?fieldManager=ark", resource_type.path(namespace));
    let mut backoff = Backoff::default();
    let mut maybe_ours = false;
    let give_up = Instant::now() + SETTLED_WITHIN;
    loop {
        let error = match post(cluster, &path, body.clone(), &doing).await {
            Ok(warnings) => return Ok(Created::New { warnings }),
            Err(error) if error.is_already_exists() => {
                return Ok(Created::Exists { maybe_ours });
            }
            Err(error) => error,
        };
        // A refusal has done nothing; no answer, or a broken one, may have.
        maybe_ours |= !is_throttling(&error);
        if is_settling(&error) {
            if Instant::now() >= give_up {
                return Err(error);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        } else {
            if is_throttling(&error) {
                // An API server that has too much to do is waited for, however long.
                backoff = Backoff::default();
            }
            backoff.after(error).await?;
        }
    }
}

fn is_throttling(error: &ClusterError) -> bool {
    error.code() == Some(429)
}

/// What passes by itself: a quota that several requests update at once, a service account or a webhook's server that is
/// just coming.
fn is_settling(error: &ClusterError) -> bool {
    match error {
        ClusterError::Status {
            code: 409, reason, ..
        } => reason == "Conflict",
        ClusterError::Status {
            code: 403, message, ..
        } => {
            message.contains("error looking up service account")
                || message.contains("status unknown for quota")
        }
        // Retried like the rest, a webhook whose server is down would hold up every object for minutes.
        ClusterError::Status {
            code: 500, message, ..
        } => is_webhook(message),
        _ => false,
    }
}

fn is_webhook(message: &str) -> bool {
    message.contains("failed calling webhook") || message.contains("failed to call webhook")
}

/// POSTs once; returns what the API server remarked about fields that it dropped.
async fn post(
    cluster: &Cluster,
    path: &str,
    body: Bytes,
    doing: &str,
) -> Result<Vec<String>, ClusterError> {
    let unreachable =
        |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Unreachable {
            doing: doing.to_owned(),
            source,
        };
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static(METADATA_ONLY));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let answer = tokio::time::timeout(ANSWER_WITHIN, cluster.client.send(request))
        .await
        .map_err(|elapsed| unreachable(elapsed.into()))?
        .map_err(|error| unreachable(error.into()))?;
    if !answer.status().is_success() {
        return Err(status_error(answer, doing).await);
    }
    let warnings = answer
        .headers()
        .get_all(header::WARNING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(remark)
        .collect();
    // The connection is used again only when the body has been read.
    collect(answer.into_body()).await.map_err(unreachable)?;
    Ok(warnings)
}

/// The text of a warning header (`299 - "text"`), if it says that something of the object was dropped.
fn remark(header: &str) -> Option<String> {
    let text = header.split_once('"')?.1;
    let text = text.strip_suffix('"').unwrap_or(text);
    let dropped = text.starts_with("unknown field") || text.starts_with("duplicate field");
    dropped.then(|| text.replace("\\\"", "\""))
}

/// The object as it is in the cluster.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn read(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, ClusterError> {
    let path = object_path(resource_type, namespace, name);
    match cluster
        .get(&path, &doing("reading", resource_type, namespace, name))
        .await
    {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the object is on its way out.
pub fn is_being_deleted(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
}

/// Waits until an object that is being deleted is gone; false when it is still there after `within`.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn wait_until_gone(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    within: Duration,
) -> Result<bool, ClusterError> {
    wait(within, async || {
        let object = read(cluster, resource_type, namespace, name).await?;
        Ok(object.is_none_or(|object| !is_being_deleted(&object)))
    })
    .await
}

/// Waits until the API server has accepted a definition; false when it has not after a while.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn wait_until_established(
    cluster: &Cluster,
    definitions: &ResourceType,
    name: &str,
) -> Result<bool, ClusterError> {
    wait(ESTABLISHED_WITHIN, async || {
        let object = read(cluster, definitions, None, name).await?;
        Ok(object.is_some_and(|object| is_established(&object)))
    })
    .await
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    ["Established", "NamesAccepted"].iter().all(|wanted| {
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one["type"] == *wanted && one["status"] == "True")
        })
    })
}

/// Discovers until `enough` is satisfied, or for a while; returns what was found last.
///
/// # Errors
/// When discovery fails.
pub async fn discover_until(
    cluster: &Cluster,
    enough: impl Fn(&Discovery) -> bool,
) -> Result<Discovery, ClusterError> {
    let give_up = Instant::now() + SERVED_WITHIN;
    loop {
        let discovery = discover(cluster).await?;
        if enough(&discovery) || Instant::now() >= give_up {
            return Ok(discovery);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until this process may do everything, as a restore must; false when it may not after `within`.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn wait_for_all_rights(
    cluster: &Cluster,
    within: Duration,
) -> Result<bool, ClusterError> {
    wait(within, async || may_do_everything(cluster).await).await
}

async fn may_do_everything(cluster: &Cluster) -> Result<bool, ClusterError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}},
    });
    let request = write(
        Method::POST,
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        &review,
    );
    let answer: Value = cluster
        .json(&request, "asking for the rights to restore")
        .await?;
    Ok(answer["status"]["allowed"] == true)
}

/// Deletes an object, if it is still the one that was read.
///
/// # Errors
/// As [`Cluster::request`]; [`ClusterError::is_conflict`] when it has changed.
pub async fn delete_unchanged(
    cluster: &Cluster,
    path: &str,
    resource_version: &str,
    doing: &str,
) -> Result<(), ClusterError> {
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"resourceVersion": resource_version},
    });
    cluster
        .request(&write(Method::DELETE, path, &options), doing)
        .await
        .map(drop)
}

/// Looks at a condition until it holds; false when it does not within `within`.
async fn wait<F>(within: Duration, mut holds: impl FnMut() -> F) -> Result<bool, ClusterError>
where
    F: Future<Output = Result<bool, ClusterError>>,
{
    let give_up = Instant::now() + within;
    loop {
        if holds().await? {
            return Ok(true);
        }
        if Instant::now() >= give_up {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn write(method: Method, path: &str, body: &Value) -> Request<Vec<u8>> {
    let mut request = get(path, "application/json");
    *request.method_mut() = method;
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    *request.body_mut() = body.to_string().into_bytes();
    request
}

fn object_path(resource_type: &ResourceType, namespace: Option<&str>, name: &str) -> String {
    // Names of some types (of RBAC) may hold what has a meaning in a path.
    let name: String = name
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    format!("{}/{name}", resource_type.path(namespace))
}

fn doing(verb: &str, resource_type: &ResourceType, namespace: Option<&str>, name: &str) -> String {
    let kind = &resource_type.kind;
    match namespace {
        Some(namespace) => format!("{verb} {kind} {namespace}/{name}"),
        None => format!("{verb} {kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remarks_about_what_was_dropped_are_passed_on() {
        assert_eq!(
            remark(r#"299 - "unknown field \"spec.foo\"""#).as_deref(),
            Some(r#"unknown field "spec.foo""#)
        );
        assert_eq!(
            remark(r#"299 - "v1 ComponentStatus is deprecated in v1.19+""#),
            None
        );
    }

    #[test]
    fn a_definition_is_usable_when_established_with_its_names() {
        let definition = |conditions: Value| json!({"status": {"conditions": conditions}});
        let both = json!([{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]);
        assert!(is_established(&definition(both)));
        assert!(!is_established(&definition(json!([
            {"type": "NamesAccepted", "status": "False"}, {"type": "Established", "status": "True"}
        ]))));
        assert!(!is_established(&json!({})));
    }
}
