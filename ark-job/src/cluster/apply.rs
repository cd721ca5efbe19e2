//! Writing objects: create first, ask only when the answer is no.
//!
//! An object that is not there costs one request. Everything a busy, restarting or throttling API server answers is
//! retried, each attempt at the [`pace`](super::pace); what is left are answers about the object itself.

use super::discover::{Discovery, ResourceType, discover};
use super::pace::{Outcome, Pace};
use super::{Backoff, Cluster, ClusterError, collect, encode, get, status_error};
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
/// A pod's grace period may be days; nobody waits for that.
const GRACE_MAX: Duration = Duration::from_secs(600);
/// Groups whose objects own nothing whose loss matters: at most what controllers make anew, as they do endpoint slices. Of
/// the core group ([`CORE_OWNER`]) all but one.
const GROUPS_OF_NO_OWNERS: [&str; 15] = [
    "",
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
    "autoscaling",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
/// The type of the core group that owns pods.
const CORE_OWNER: &str = "replicationcontrollers";
/// A definition is established within a second or two, unless its names are taken.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
/// Then it is in discovery within a second or two, later when the API server is busy.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
/// A namespace's default service account and quota appear shortly after the namespace, and pods need them.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
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

/// Creates an object from its JSON; with `dry_run` only asks whether it could be.
///
/// # Errors
/// What the API server has against it. Some answers (of webhooks, quotas, or about a port) come before it looks
/// whether the object exists: callers look.
pub async fn create(
    cluster: &Cluster,
    pace: &Pace,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    body: Bytes,
    dry_run: bool,
) -> Result<Created, ClusterError> {
    let write = Write {
        method: Method::POST,
        path: format!("{}{}", resource_type.path(namespace), options(dry_run)),
        accept: METADATA_ONLY,
        content_type: JSON,
        body,
        doing: doing("creating", resource_type, namespace, name),
    };
    let patience = patience(dry_run);
    let (answer, maybe_done) = write.send(cluster, pace, is_settling, patience).await;
    match answer {
        Ok(answer) => Ok(Created::New {
            warnings: answer.warnings,
        }),
        Err(error) if error.is_already_exists() => Ok(Created::Exists {
            maybe_ours: maybe_done,
        }),
        Err(error) => Err(error),
    }
}

/// Changes an object by a JSON merge patch (RFC 7386) and returns it as it is then; with `dry_run` as it would be.
///
/// A patch that names `metadata.resourceVersion` is carried out on that version only: [`ClusterError::is_conflict`] when
/// the object has changed since, also when it was changed by an earlier attempt whose answer was lost. Callers look.
///
/// # Errors
/// What the API server has against it; [`ClusterError::is_not_found`] when there is no such object.
pub async fn merge_patch(
    cluster: &Cluster,
    pace: &Pace,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    patch: Bytes,
    dry_run: bool,
) -> Result<Value, ClusterError> {
    let write = Write {
        method: Method::PATCH,
        path: object_path(resource_type, namespace, name) + options(dry_run),
        accept: JSON,
        content_type: MERGE_PATCH,
        body: patch,
        doing: doing("changing", resource_type, namespace, name),
    };
    let (answer, _) = write
        .send(cluster, pace, is_settling_change, patience(dry_run))
        .await;
    write.object(answer?)
}

/// Sets the status of an object by a JSON merge patch of its status subresource, and returns the object.
///
/// With `resource_version` only if the object is at that version.
///
/// # Errors
/// As [`merge_patch`]; [`ClusterError::is_not_found`] also when the type has no status subresource.
pub async fn patch_status(
    cluster: &Cluster,
    pace: &Pace,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    status: &Value,
    resource_version: Option<&str>,
) -> Result<Value, ClusterError> {
    let mut patch = json!({"status": status});
    if let Some(version) = resource_version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    let path = object_path(resource_type, namespace, name);
    let write = Write {
        method: Method::PATCH,
        path: format!("{path}/status{}", options(false)),
        accept: JSON,
        content_type: MERGE_PATCH,
        body: patch.to_string().into(),
        doing: doing("setting the status of", resource_type, namespace, name),
    };
    let (answer, _) = write
        .send(cluster, pace, is_settling_change, SETTLED_WITHIN)
        .await;
    write.object(answer?)
}

/// Deletes an object to make room for another of its name, if it is still the one with this UID; false when there was
/// none any more. It may take a while to go: see [`wait_until_gone`].
///
/// What it may own is orphaned, not deleted with it: a Deployment that is replaced must not take its replica sets and their
/// pods along, nor a custom resource the claim with the data. Controllers adopt again what their selectors match. The
/// price is that such an object goes when the garbage collector has let go of what it owned, not at once.
///
/// # Errors
/// What the API server has against it; [`ClusterError::is_conflict`] when another object has the name now.
pub async fn delete_with_uid(
    cluster: &Cluster,
    pace: &Pace,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
    uid: &str,
) -> Result<bool, ClusterError> {
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": uid},
        "propagationPolicy": propagation_policy(&resource_type.group, &resource_type.resource),
    });
    let write = Write {
        method: Method::DELETE,
        path: object_path(resource_type, namespace, name),
        accept: METADATA_ONLY,
        content_type: JSON,
        body: options.to_string().into(),
        doing: doing("deleting", resource_type, namespace, name),
    };
    match write
        .send(cluster, pace, is_settling_change, SETTLED_WITHIN)
        .await
        .0
    {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What becomes of what an object of this type owns when it is deleted to be replaced.
fn propagation_policy(group: &str, resource: &str) -> &'static str {
    let owns_nothing = GROUPS_OF_NO_OWNERS.contains(&group);
    if owns_nothing && (group, resource) != ("", CORE_OWNER) {
        "Background"
    } else {
        "Orphan"
    }
}

/// How long an object may take to go: longer than [`OBJECT_GONE_WITHIN`] if it is a pod, which may end in peace.
pub fn gone_within(object: &Value) -> Duration {
    let seconds = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .or_else(|| object.pointer("/spec/terminationGracePeriodSeconds"))
        .and_then(Value::as_u64)
        .filter(|_| object["kind"] == "Pod");
    OBJECT_GONE_WITHIN + Duration::from_secs(seconds.unwrap_or_default()).min(GRACE_MAX)
}

/// What follows the path of a write.
fn options(dry_run: bool) -> &'static str {
    if dry_run {
        "?fieldManager=ark&dryRun=All"
    } else {
        "?fieldManager=ark"
    }
}

/// How long to wait for what passes by itself: what a dry run misses does not come.
fn patience(dry_run: bool) -> Duration {
    if dry_run {
        Duration::ZERO
    } else {
        SETTLED_WITHIN
    }
}

/// What passes by itself: a quota that several requests update at once, a service account or a webhook's server that is
/// just coming.
fn is_settling(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Status { code: 409, reason, .. } if reason == "Conflict")
        || is_settling_change(error)
}

/// As [`is_settling`], for what is there already: a conflict is one with somebody else's change.
fn is_settling_change(error: &ClusterError) -> bool {
    match error {
        ClusterError::Status {
            code: 403, message, ..
        } => {
            message.contains("error looking up service account")
                || message.contains("status unknown for quota")
        }
        // Retried like the rest, a webhook whose server is down would hold up every object for minutes.
        error => error.is_of_webhook(),
    }
}

/// A request that changes something.
struct Write {
    method: Method,
    path: String,
    accept: &'static str,
    content_type: &'static str,
    body: Bytes,
    /// For errors.
    doing: String,
}

/// A good answer to a [`Write`].
struct Answer {
    /// What the API server remarked about fields that it dropped.
    warnings: Vec<String>,
    body: Bytes,
}

impl Write {
    /// Sends it until the answer is about the object itself; and whether an earlier attempt may have been carried out.
    async fn send(
        &self,
        cluster: &Cluster,
        pace: &Pace,
        is_settling: fn(&ClusterError) -> bool,
        patience: Duration,
    ) -> (Result<Answer, ClusterError>, bool) {
        // Silent: the requests of all objects under way fail together.
        let mut backoff = Backoff::default();
        let mut maybe_done = false;
        let give_up = Instant::now() + patience;
        loop {
            let permit = pace.permit().await;
            let answer = self.send_once(cluster).await;
            permit.done(Outcome::of(&answer));
            let error = match answer {
                Ok(answer) => return (Ok(answer), maybe_done),
                Err(error) => error,
            };
            // A refusal has done nothing; no answer, or a broken one, may have.
            let settling = is_settling(&error);
            maybe_done |= !settling && !error.is_throttling() && error.is_transient();
            if settling {
                if Instant::now() >= give_up {
                    return (Err(error), maybe_done);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            if error.is_throttling() {
                // The pace keeps all away for as long as the server says; nothing adds up here.
                backoff = Backoff::default();
            }
            if let Err(error) = backoff.after(error).await {
                return (Err(error), maybe_done);
            }
        }
    }

    async fn send_once(&self, cluster: &Cluster) -> Result<Answer, ClusterError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Unreachable {
                doing: self.doing.clone(),
                source,
            };
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(self.accept));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        let answer = tokio::time::timeout(ANSWER_WITHIN, cluster.client.send(request))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|error| unreachable(error.into()))?;
        if !answer.status().is_success() {
            return Err(status_error(answer, &self.doing).await);
        }
        let warnings = answer
            .headers()
            .get_all(header::WARNING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(remark)
            .collect();
        // The connection is used again only when the body has been read.
        let body = collect(answer.into_body()).await.map_err(unreachable)?;
        Ok(Answer { warnings, body })
    }

    /// The object that the answer holds.
    fn object(&self, answer: Answer) -> Result<Value, ClusterError> {
        serde_json::from_slice(&answer.body).map_err(|source| ClusterError::Malformed {
            doing: self.doing.clone(),
            source: source.into(),
        })
    }
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

/// As [`read`], with no other right than to list.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn read_by_list(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, ClusterError> {
    let collection = resource_type.path(namespace);
    let path = format!(
        "{collection}?fieldSelector=metadata.name%3D{}",
        encode(name)
    );
    let doing = doing("reading", resource_type, namespace, name);
    let mut list: Value = cluster.get(&path, &doing).await?;
    let found = list["items"].as_array_mut().and_then(|items| {
        // A server that does not know the field may send all.
        items
            .iter_mut()
            .find(|item| item["metadata"]["name"] == name)
            .map(Value::take)
    });
    Ok(found.map(|mut object| {
        // Items of a list of a built-in type do not say what they are.
        if object["kind"].is_null() {
            object["kind"] = resource_type.kind.as_str().into();
            object["apiVersion"] = resource_type.api_version().into();
        }
        object
    }))
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
    fn only_what_may_own_something_of_worth_is_deleted_as_an_orphan_maker() {
        for (group, resource, expected) in [
            ("", "configmaps", "Background"),
            ("", "pods", "Background"),
            ("", "services", "Background"),
            ("", "replicationcontrollers", "Orphan"),
            ("rbac.authorization.k8s.io", "roles", "Background"),
            ("policy", "poddisruptionbudgets", "Background"),
            ("apps", "deployments", "Orphan"),
            ("batch", "jobs", "Orphan"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "Orphan",
            ),
            // Custom resources, also in groups that look like Kubernetes' own.
            ("snapshot.storage.k8s.io", "volumesnapshots", "Orphan"),
            ("example.com", "replicationcontrollers", "Orphan"),
        ] {
            assert_eq!(
                propagation_policy(group, resource),
                expected,
                "{resource}.{group}"
            );
        }
    }

    #[test]
    fn a_pod_is_given_its_grace_period_to_go() {
        let within = |object: Value| gone_within(&object).as_secs();
        assert_eq!(within(json!({"kind": "ConfigMap"})), 20);
        assert_eq!(
            within(json!({"kind": "Pod", "spec": {"terminationGracePeriodSeconds": 30}})),
            50
        );
        // Somebody has deleted it with another one.
        assert_eq!(
            within(
                json!({"kind": "Pod", "metadata": {"deletionGracePeriodSeconds": 5},
                "spec": {"terminationGracePeriodSeconds": 30}})
            ),
            25
        );
        assert_eq!(
            within(json!({"kind": "Pod", "spec": {"terminationGracePeriodSeconds": 86400}})),
            620
        );
        assert_eq!(
            within(json!({"kind": "Widget", "spec": {"terminationGracePeriodSeconds": 30}})),
            20
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
