//! The connection to the cluster, and what its errors mean to a person.

use crate::cli::ClusterFlags;
use ark_job::api::{CONFIG_NAME, DEFAULT_NAMESPACE, PART_OF, PART_OF_LABEL};
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use k8s_openapi::api::core::v1::{Namespace, PodTemplate};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::time::Duration;

/// Long enough for a far cluster, short enough for a person.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client, and what the kubeconfig calls the cluster.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub kube: Client,
    /// One for an operation of ark-job, which retries by itself, and says so in its log.
    pub operation: Client,
    /// Name of the cluster in the kubeconfig.
    pub cluster_name: Option<String>,
}

/// Finds the cluster as kubectl does: `--kubeconfig`, KUBECONFIG, `~/.kube/config`, else the pod's own cluster.
///
/// Sends no request.
///
/// # Errors
/// When there is no cluster to talk to, or the kubeconfig cannot be used.
pub async fn connect(flags: &ClusterFlags) -> Result<Connection, Failure> {
    let no_cluster = |why: String| {
        Failure::new(Exit::Failed, format!("no cluster: {why}")).hint(
            "set KUBECONFIG, or choose with --kubeconfig and --context; `kubectl cluster-info` shows whether it works",
        )
    };
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let kubeconfig = match &flags.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path).map_err(|error| {
            no_cluster(format!("reading {}: {}", path.display(), chain(&error)))
        })?),
        None => match Kubeconfig::read() {
            Ok(kubeconfig) => Some(kubeconfig),
            // In a pod there is no kubeconfig, and none is needed.
            Err(_) if flags.context.is_none() && Config::incluster().is_ok() => None,
            Err(error) => return Err(no_cluster(chain(&error))),
        },
    };
    let (config, cluster_name) = match kubeconfig {
        Some(kubeconfig) => {
            let name = cluster_name(&kubeconfig, flags.context.as_deref());
            let config = Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| no_cluster(chain(&error)))?;
            (config, name)
        }
        None => (
            Config::incluster().map_err(|error| no_cluster(chain(&error)))?,
            None,
        ),
    };
    let mut config = config;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let client = |config| Client::try_from(config).map_err(|error| no_cluster(chain(&error)));
    let kube = client(config.clone())?;
    config.default_retry = false;
    Ok(Connection {
        kube,
        operation: client(config)?,
        cluster_name,
    })
}

fn cluster_name(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|one| one.name == name)?;
    context
        .context
        .as_ref()
        .map(|context| context.cluster.clone())
}

/// The cluster's UID: that of namespace kube-system.
///
/// # Errors
/// When it may not be read.
pub async fn cluster_uid(client: &Client) -> kube::Result<Option<String>> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get_metadata("kube-system").await?;
    Ok(system.metadata.uid)
}

/// Whether the server says that there is no such thing.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the server says that something of this name exists.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// Whether the server says that another owner of a field would be overridden.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// What a failed request means: what we were doing, why it failed, what to do next.
pub fn failure(error: &kube::Error, doing: &str) -> Failure {
    let failed = |why: &str| Failure::new(Exit::Failed, format!("{doing}: {why}"));
    let no_answer = |why: &str| {
        failed(&format!("the cluster does not answer: {why}")).hint(
            "`kubectl cluster-info` shows whether it can be reached; choose another with --context or --kubeconfig",
        )
    };
    match error {
        kube::Error::Api(status) if status.code == 401 => {
            failed("the cluster does not know who you are (401)")
                .hint("log in to the cluster again, or choose another --context")
        }
        kube::Error::Api(status) if status.code == 403 => {
            failed(&status.message).hint("ask for these rights, or choose another --context")
        }
        kube::Error::Api(status) => failed(&status.message),
        kube::Error::Service(cause) => no_answer(&chain(cause.as_ref())),
        kube::Error::HyperError(cause) => no_answer(&chain(cause)),
        kube::Error::Auth(_) => {
            failed(&chain(error)).hint("log in to the cluster again, or choose another --context")
        }
        error => failed(&chain(error)),
    }
}

/// Ark, or this part of it, is not installed.
pub fn not_installed(what: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("Ark is not installed in this cluster: {what}")).hint(
        "`kubectl ark install --storage s3://BUCKET/PREFIX` installs it; `-n NAMESPACE` says where if not here; \
         `kubectl ark backup create NAME --local` does without",
    )
}

/// Ark is not in this namespace: it may be in another, and what was meant may be what is backed up.
pub async fn not_here(client: &Client, namespace: &str, what: &str) -> Failure {
    let templates: Api<PodTemplate> = Api::all(client.clone());
    let ours = ListParams::default()
        .labels(&format!("{PART_OF_LABEL}={PART_OF}"))
        .fields(&format!("metadata.name={CONFIG_NAME}"));
    // Who may not look everywhere learns less.
    let found = templates.list(&ours).await.map(|list| list.items);
    let elsewhere: Vec<String> = found
        .unwrap_or_default()
        .into_iter()
        .filter_map(|template| template.metadata.namespace)
        .filter(|other| other != namespace)
        .collect();
    not_in(namespace, what, &elsewhere)
}

fn not_in(namespace: &str, what: &str, elsewhere: &[String]) -> Failure {
    let meant = match namespace {
        DEFAULT_NAMESPACE => String::new(),
        other => format!(
            "-n is where Ark is: `--include-namespaces {other}` says that namespace {other} is backed up or restored"
        ),
    };
    let Some(first) = elsewhere.first() else {
        let failure = not_installed(what);
        return match (meant.as_str(), failure.next_step()) {
            ("", _) | (_, None) => failure,
            (meant, Some(hint)) => {
                let hint = format!("{meant}; {hint}");
                failure.hint(hint)
            }
        };
    };
    let there = match elsewhere {
        [one] => format!("it is in namespace {one}"),
        more => format!("it is in namespaces {}", more.join(" and ")),
    };
    let failure = Failure::new(
        Exit::NotFound,
        format!("Ark is not in namespace {namespace} ({what}): {there}"),
    );
    let flag = match elsewhere.iter().any(|other| other == DEFAULT_NAMESPACE) {
        true => format!("leave out `-n {namespace}`"),
        false => format!("use `-n {first}`"),
    };
    failure.hint(match meant.as_str() {
        "" => flag,
        meant => format!("{flag}; {meant}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_names_the_namespace_to_back_up_is_told_how() {
        let what = "there is no PodTemplate ark in namespace prod";
        let there = not_in("prod", what, &["heptio-ark".into()]);
        assert_eq!(there.exit(), Exit::NotFound);
        assert_eq!(
            there.message(),
            "Ark is not in namespace prod (there is no PodTemplate ark in namespace prod): it is in namespace heptio-ark"
        );
        assert_eq!(
            there.next_step().unwrap(),
            "leave out `-n prod`; -n is where Ark is: `--include-namespaces prod` says that namespace prod is backed up or restored"
        );
        let nowhere = not_in("prod", what, &[]);
        let hint = nowhere.next_step().unwrap();
        assert!(
            hint.contains("`--include-namespaces prod`") && hint.contains("kubectl ark install")
        );
        let default = not_in(DEFAULT_NAMESPACE, "x", &["ark".into()]);
        assert_eq!(default.next_step().unwrap(), "use `-n ark`");
        let none = not_in(DEFAULT_NAMESPACE, "x", &[]);
        assert_eq!(none.message(), not_installed("x").message());
        assert_eq!(none.next_step(), not_installed("x").next_step());
    }
}
