//! What the plugin sees itself: the cluster's version, the installation, what the caller and the service accounts may do.

use super::arguments;
use crate::client::{self, Connection};
use crate::options::doctor::DoctorOptions;
use crate::pod_template::Installation;
use crate::{create, render, rights};
use ark_job::api::namespace_flag;
use ark_job::api::{CONFIG_NAME, CONTRACT_ANNOTATION, GROUP, service_account};
use ark_job::doctor::Check;
use ark_job::doctor::cluster::{Needed, OLDEST, is_new_enough};
use ark_job::error::chain;
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::PodTemplate;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Questions under way at once.
const AT_ONCE: usize = 16;
/// A person waits.
const WITHIN: Duration = Duration::from_secs(30);

/// What was seen.
pub struct Looked {
    /// The checks.
    pub checks: Vec<Check>,
    /// Whether the cluster answers.
    pub answers: bool,
    /// Whether Ark is installed, so that a Job can be rendered.
    pub installed: bool,
}

/// Looks.
pub async fn look(connection: &Connection, options: &DoctorOptions) -> Looked {
    let client = &connection.kube;
    let mut checks = Vec::new();
    let (cluster, answers) = cluster(client).await;
    checks.push(cluster);
    if !answers {
        return Looked {
            checks,
            answers,
            installed: false,
        };
    }
    let (check, installation) = installed(client, options).await;
    checks.push(check);
    if !options.local {
        checks.push(your_rights(client, &options.namespace).await);
    }
    if let Some(installation) = &installation {
        checks.push(binding(client, options, installation).await);
        for account in [service_account::RESTORE, service_account::HOUSEKEEPING] {
            checks.push(account_rights(client, &options.namespace, account, installation).await);
        }
        if installation.hooks {
            checks.push(hooks(client, &options.namespace).await);
        }
    }
    Looked {
        checks,
        answers,
        installed: installation.is_some(),
    }
}

async fn cluster(client: &Client) -> (Check, bool) {
    const NAME: &str = "cluster";
    match tokio::time::timeout(WITHIN, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            let check = match is_new_enough(&version.major, &version.minor) {
                true => Check::ok(NAME, format!("Kubernetes {}", version.git_version)),
                false => Check::failed(NAME, format!("Kubernetes {}", version.git_version))
                    .fix(format!("upgrade it to 1.{OLDEST} or later")),
            };
            (check, true)
        }
        Ok(Err(error)) => {
            let failure = client::failure(&error, "asking for the cluster's version");
            (Check::of_failure(NAME, &failure), false)
        }
        Err(_) => {
            let fix = "`kubectl cluster-info` shows whether it can be reached";
            (Check::failed(NAME, "it does not answer").fix(fix), false)
        }
    }
}

async fn installed(client: &Client, options: &DoctorOptions) -> (Check, Option<Installation>) {
    const NAME: &str = "installed";
    let namespace = &options.namespace;
    let templates: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    let doing = format!("reading PodTemplate {CONFIG_NAME} in namespace {namespace}");
    let template = match templates.get_opt(CONFIG_NAME).await {
        Ok(Some(template)) => template,
        Ok(None) if options.local => {
            return (Check::skipped(NAME, "--local does without"), None);
        }
        Ok(None) => {
            let what = format!("there is no PodTemplate {CONFIG_NAME} in namespace {namespace}");
            let failure = client::not_here(client, namespace, &what).await;
            return (Check::of_failure(NAME, &failure), None);
        }
        Err(error) => {
            return (
                Check::of_failure(NAME, &client::failure(&error, &doing)),
                None,
            );
        }
    };
    let annotations = template.metadata.annotations.as_ref();
    let contract = annotations.and_then(|all| all.get(CONTRACT_ANNOTATION));
    let contract = contract.cloned().unwrap_or_else(|| "none".to_owned());
    match Installation::of(&template) {
        Ok(installation) => {
            let image = installation.image().unwrap_or("none");
            let detail = format!("{image}, contract {contract}, in namespace {namespace}");
            (Check::ok(NAME, detail), Some(installation))
        }
        Err(failure) => (Check::of_failure(NAME, &failure), None),
    }
}

/// What the commands of the plugin do as whoever runs them.
fn needed_by_you(namespace: &str) -> Vec<Needed> {
    [
        ("batch", "jobs", &["create", "get", "list", "delete"][..]),
        ("batch", "cronjobs", &["create", "get", "list"]),
        ("", "pods", &["list"]),
        ("", "pods/log", &["get"]),
        ("", "pods/exec", &["get", "create"]),
        ("", "events", &["list"]),
        ("", "podtemplates", &["get"]),
        (GROUP, "backups", &["get", "list"]),
        (GROUP, "restores", &["get", "list"]),
        (GROUP, "backupstoragelocations", &["get", "list"]),
    ]
    .into_iter()
    .flat_map(|(group, resource, verbs)| {
        verbs.iter().map(move |verb| Needed {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: (*verb).to_owned(),
            namespace: Some(namespace.to_owned()),
            name: None,
        })
    })
    .collect()
}

async fn your_rights(client: &Client, namespace: &str) -> Check {
    const NAME: &str = "your-rights";
    let needed = needed_by_you(namespace);
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let ask = async |one: &Needed| {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: serde_json::from_value(one.attributes()).ok(),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    match missing(&needed, ask).await {
        Ok(missing) if missing.is_empty() => {
            Check::ok(NAME, "you may start operations and follow them")
        }
        Ok(missing) => Check::failed(
            NAME,
            format!("you may not in namespace {namespace}: {}", missing.join(", ")),
        )
        .fix("have an administrator bind a role with these to you (`kubectl create role`, `kubectl create rolebinding`)"),
        Err(error) => Check::of_failure(NAME, &client::failure(&error, "asking what you may do")),
    }
}

/// Whether the caller may give a restore its rights: the binding is written for a try.
async fn binding(client: &Client, options: &DoctorOptions, installation: &Installation) -> Check {
    const NAME: &str = "restore-binding";
    if installation.standing_rights {
        return Check::ok(NAME, "restores have standing rights; you need none to give");
    }
    let binding = render::restore_binding(&arguments(options));
    match create::bind(client, &binding, true).await {
        Ok(()) => Check::ok(NAME, "you may give a restore its rights"),
        Err(failure) => {
            let check = Check::of_failure(NAME, &failure);
            // Whoever only backs up does without.
            Check {
                result: ark_job::doctor::Verdict::Warning,
                ..check
            }
        }
    }
}

/// What a service account was given by `install`: the rules of the roles that are bound to it.
fn needed_by(namespace: &str, account: &str, installation: &Installation) -> Vec<Needed> {
    let objects = rights::objects(
        namespace,
        &BTreeMap::new(),
        installation.standing_rights,
        installation.hooks,
    );
    let values: Vec<&Value> = objects.iter().map(|object| object.value()).collect();
    let mut needed = Vec::new();
    for bound in &values {
        let is_binding = bound["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("Binding"));
        let subjects = bound["subjects"].as_array();
        let ours = |subjects: &Vec<Value>| subjects.iter().any(|one| one["name"] == account);
        if !is_binding || !subjects.is_some_and(ours) {
            continue;
        }
        let role = values.iter().find(|one| {
            one["kind"] == bound["roleRef"]["kind"]
                && one["metadata"]["name"] == bound["roleRef"]["name"]
        });
        let within = bound["metadata"]["namespace"].as_str();
        let rules = match role {
            Some(role) => serde_json::from_value(role["rules"].clone()).unwrap_or_default(),
            // Kubernetes' own.
            None => vec![everything()],
        };
        for rule in &rules {
            expand(rule, within, &mut needed);
        }
    }
    needed
}

fn everything() -> PolicyRule {
    let all = || Some(vec!["*".to_owned()]);
    PolicyRule {
        api_groups: all(),
        resources: all(),
        verbs: vec!["*".to_owned()],
        ..PolicyRule::default()
    }
}

fn expand(rule: &PolicyRule, namespace: Option<&str>, needed: &mut Vec<Needed>) {
    let names = match &rule.resource_names {
        Some(names) if !names.is_empty() => names.iter().cloned().map(Some).collect(),
        _ => vec![None],
    };
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                needed.extend(names.iter().map(|name| Needed {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    namespace: namespace.map(str::to_owned),
                    name: name.clone(),
                }));
            }
        }
    }
}

async fn account_rights(
    client: &Client,
    namespace: &str,
    account: &str,
    installation: &Installation,
) -> Check {
    let name = match account {
        service_account::RESTORE => "rights-restore",
        _ => "rights-housekeeping",
    };
    let needed = needed_by(namespace, account, installation);
    let also = match account {
        service_account::RESTORE if !installation.standing_rights => "; the rest when it runs",
        _ => "",
    };
    review(client, namespace, account, name, &needed, also).await
}

/// Whether backups may run hooks, as they were said to.
async fn hooks(client: &Client, namespace: &str) -> Check {
    let needed: Vec<Needed> = ["get", "create"]
        .map(|verb| Needed {
            group: String::new(),
            resource: "pods/exec".to_owned(),
            verb: verb.to_owned(),
            namespace: None,
            name: None,
        })
        .into();
    let account = service_account::BACKUP;
    review(client, namespace, account, "rights-hooks", &needed, "").await
}

async fn review(
    client: &Client,
    namespace: &str,
    account: &str,
    name: &str,
    needed: &[Needed],
    also: &str,
) -> Check {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let ask = async |one: &Needed| {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                groups: Some(groups.into()),
                resource_attributes: serde_json::from_value(one.attributes()).ok(),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    match missing(needed, ask).await {
        Ok(missing) if missing.is_empty() => Check::ok(
            name,
            format!("{account} has all {} that it needs{also}", needed.len()),
        ),
        Ok(missing) => {
            let flags = match name {
                "rights-hooks" => " --hooks",
                _ => "",
            };
            Check::failed(name, format!("{account} may not {}", missing.join(", "))).fix(format!(
                "`kubectl ark install{flags}{}` gives it its rights",
                namespace_flag(namespace)
            ))
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Check::skipped(name, "you may not ask (create subjectaccessreviews)")
        }
        Err(error) => Check::failed(
            name,
            format!("asking what {account} may do: {}", chain(&error)),
        ),
    }
}

/// What of it is not allowed, in words.
async fn missing(
    needed: &[Needed],
    ask: impl AsyncFn(&Needed) -> kube::Result<bool>,
) -> kube::Result<Vec<String>> {
    let answers: Vec<kube::Result<Option<String>>> = stream::iter(needed)
        .map(async |one| {
            ask(one)
                .await
                .map(|allowed| (!allowed).then(|| one.words()))
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let missing: kube::Result<Vec<Option<String>>> = answers.into_iter().collect();
    // The same in two places reads the same.
    let once: BTreeSet<String> = missing?.into_iter().flatten().collect();
    Ok(once.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::doctor::cluster::needed_by_backup;
    use serde_json::json;

    fn installation(standing_rights: bool) -> Installation {
        Installation {
            template: json!({}),
            standing_rights,
            hooks: false,
        }
    }

    fn allows(rule: &Needed, asked: &Needed) -> bool {
        let fits = |rule: &str, asked: &str| rule == "*" || rule == asked;
        fits(&rule.group, &asked.group)
            && fits(&rule.resource, &asked.resource)
            && fits(&rule.verb, &asked.verb)
            && (rule.namespace.is_none() || rule.namespace == asked.namespace)
    }

    #[test]
    fn what_a_backup_needs_is_what_install_gives() {
        let given = needed_by("ark", service_account::BACKUP, &installation(false));
        for needed in needed_by_backup("ark") {
            assert!(given.iter().any(|rule| allows(rule, &needed)), "{needed:?}");
        }
    }

    #[test]
    fn standing_rights_are_all_rights() {
        let all = |standing| {
            needed_by("ark", service_account::RESTORE, &installation(standing))
                .iter()
                .any(|one| one.verb == "*" && one.resource == "*" && one.namespace.is_none())
        };
        assert!(all(true));
        assert!(!all(false));
    }
}
