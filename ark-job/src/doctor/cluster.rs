//! What the API server says: its version, Ark's resource types, what the service account may do.

use super::{Check, within};
use crate::api::{GROUP, namespace_flag, service_account};
use crate::cluster::{Cluster, ClusterError, get};
use crate::volumes::csi::{RIGHTS_OF_BACKUP, Right};
use futures::{StreamExt, stream};
use http::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

/// The oldest Kubernetes that is supported.
pub const OLDEST: u32 = 29;
/// Questions under way at once: each is answered from the API server's memory.
const AT_ONCE: usize = 16;

/// Whether it answers, is new enough, and how many seconds its clock is ahead of this one.
pub async fn api_server(cluster: &Cluster) -> (Check, Option<i64>) {
    const NAME: &str = "api-server";
    let began = Instant::now();
    let request = get("/version", "application/json");
    // Asked once: whoever waits wants to know now.
    let answer = match within(cluster.send(request, "asking for the version")).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return (
                Check::failed(NAME, error.full_text()).fix(
                    "pods must reach the API server: check network policies (egress to the kubernetes service) and the CNI",
                ),
                None,
            );
        }
        Err(why) => return (Check::failed(NAME, why), None),
    };
    let took = began.elapsed().as_millis();
    let date = answer.headers().get(http::header::DATE);
    let clock = date
        .and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok())
        .map(|date| date.timestamp().duration_since(Timestamp::now()).as_secs());
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        major: String,
        minor: String,
        git_version: String,
    }
    let version: Result<Version, ClusterError> =
        cluster.get("/version", "asking for the version").await;
    let check = match version {
        Ok(version) => {
            let detail = format!("Kubernetes {}, answers in {took} ms", version.git_version);
            match is_new_enough(&version.major, &version.minor) {
                true => Check::ok(NAME, detail),
                false => Check::failed(NAME, detail)
                    .fix(format!("upgrade the cluster to 1.{OLDEST} or later")),
            }
        }
        Err(error) => Check::failed(NAME, error.full_text()),
    };
    (check, clock)
}

/// Whether this version is supported; clouds write `29+`.
pub fn is_new_enough(major: &str, minor: &str) -> bool {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    };
    number(major) > 1 || (number(major) == 1 && number(minor) >= OLDEST)
}

/// Whether Ark's resource types are served. With a URL, backups do without.
pub async fn resource_types(cluster: &Cluster, by_url: bool) -> Check {
    const NAME: &str = "resource-types";
    const WANTED: [&str; 3] = ["backups", "backupstoragelocations", "restores"];
    #[derive(Deserialize)]
    struct List {
        resources: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let path = format!("/apis/{GROUP}/v1");
    let asking = cluster.get::<List>(&path, "reading Ark's resource types");
    let missing: Vec<&str> = match within(asking).await {
        Ok(Ok(list)) => {
            let served = |wanted: &&str| list.resources.iter().any(|one| one.name == **wanted);
            WANTED.into_iter().filter(|one| !served(one)).collect()
        }
        Ok(Err(error)) if error.is_not_found() => WANTED.into(),
        Ok(Err(error)) => return Check::failed(NAME, error.full_text()),
        Err(why) => return Check::failed(NAME, why),
    };
    if missing.is_empty() {
        return Check::ok(NAME, format!("{GROUP}/v1 is served"));
    }
    let detail = format!("not served of {GROUP}/v1: {}", missing.join(", "));
    if by_url {
        return Check::warning(NAME, format!("{detail}; backups leave no record"));
    }
    Check::failed(NAME, detail).fix("`kubectl ark install` makes them")
}

/// Something that must be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// API group.
    pub group: String,
    /// Resource, with its subresource: `backups/status`.
    pub resource: String,
    /// Verb.
    pub verb: String,
    /// Where; in all namespaces if not given.
    pub namespace: Option<String>,
    /// Of which object; of all if not given.
    pub name: Option<String>,
}

impl Needed {
    /// For people: `list persistentvolumes`, `create backups.ark.heptio.com`.
    pub fn words(&self) -> String {
        let Needed {
            group,
            resource,
            verb,
            ..
        } = self;
        match group.as_str() {
            "" | "*" => format!("{verb} {resource}"),
            group => format!("{verb} {resource}.{group}"),
        }
    }

    /// `resourceAttributes` of an access review.
    pub fn attributes(&self) -> Value {
        let Needed {
            group,
            resource,
            verb,
            namespace,
            name,
        } = self;
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, sub)) => (resource, sub),
            None => (resource.as_str(), ""),
        };
        json!({
            "group": group, "resource": resource, "subresource": subresource, "verb": verb,
            "namespace": namespace.as_deref().unwrap_or_default(), "name": name.as_deref().unwrap_or_default(),
        })
    }
}

/// What a backup does with its service account.
pub fn needed_by_backup(namespace: &str) -> Vec<Needed> {
    let of = |group: &str, resource: &str, verb: &str, namespace: Option<&str>| Needed {
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: None,
    };
    let mut needed = vec![of("*", "*", "list", None)];
    for Right {
        group,
        resources,
        verbs,
    } in &RIGHTS_OF_BACKUP
    {
        for resource in *resources {
            needed.extend(verbs.iter().map(|verb| of(group, resource, verb, None)));
        }
    }
    let here = Some(namespace);
    for resource in ["backups", "backups/status"] {
        for verb in ["get", "create", "update", "patch"] {
            needed.push(of(GROUP, resource, verb, here));
        }
    }
    needed.push(of(GROUP, "backupstoragelocations", "get", here));
    for verb in ["get", "create", "update", "delete"] {
        needed.push(of("", "configmaps", verb, here));
    }
    needed.push(of("batch", "jobs", "get", here));
    needed
}

/// Whether whoever runs this may do what a backup does.
pub async fn rights(cluster: &Cluster, namespace: &str) -> Vec<Check> {
    const NAME: &str = "rights-backup";
    let needed = needed_by_backup(namespace);
    let asked = within(missing(cluster, &needed)).await;
    vec![judge(
        NAME,
        service_account::BACKUP,
        namespace,
        needed.len(),
        asked,
    )]
}

/// What was found out about rights.
fn judge(
    name: &str,
    account: &str,
    namespace: &str,
    needed: usize,
    asked: Result<Result<Vec<String>, ClusterError>, String>,
) -> Check {
    match asked {
        Ok(Ok(missing)) if missing.is_empty() => {
            Check::ok(name, format!("all {needed} that a backup needs"))
        }
        Ok(Ok(missing)) => {
            Check::failed(name, format!("missing: {}", missing.join(", "))).fix(format!(
                "`kubectl ark install{}` gives {account} its rights",
                namespace_flag(namespace)
            ))
        }
        Ok(Err(error)) => Check::failed(name, error.full_text()),
        Err(why) => Check::failed(name, why),
    }
}

/// Of what is needed, what is not allowed to whoever runs this.
async fn missing(cluster: &Cluster, needed: &[Needed]) -> Result<Vec<String>, ClusterError> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        allowed: bool,
    }
    let answers: Vec<Result<Option<String>, ClusterError>> = stream::iter(needed)
        .map(async |one| {
            let body = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": one.attributes()},
            });
            let mut request = Request::new(body.to_string().into_bytes());
            *request.method_mut() = Method::POST;
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            *request.uri_mut() = http::Uri::from_static(path);
            let json = http::HeaderValue::from_static("application/json");
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, json);
            let review: Review = cluster.json(&request, "asking what is allowed").await?;
            Ok((!review.status.allowed).then(|| one.words()))
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let missing: Result<Vec<Option<String>>, ClusterError> = answers.into_iter().collect();
    Ok(missing?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_clouds_write_them() {
        assert!(is_new_enough("1", "29+"));
        assert!(is_new_enough("1", "34"));
        assert!(is_new_enough("2", "0"));
        assert!(!is_new_enough("1", "28"));
        assert!(!is_new_enough("1", ""));
    }

    #[test]
    fn a_subresource_is_asked_for_as_one() {
        let needed = needed_by_backup("ark");
        let status = needed
            .iter()
            .find(|one| one.resource == "backups/status")
            .unwrap();
        let attributes = status.attributes();
        assert_eq!(attributes["resource"], "backups");
        assert_eq!(attributes["subresource"], "status");
        assert_eq!(attributes["namespace"], "ark");
        assert_eq!(status.words(), "get backups/status.ark.heptio.com");
    }
}
