//! The connection to the cluster, and what its errors mean to a person.

use crate::cli::ClusterFlags;
use crate::credentials::{self, AskAgain, Bearer, Plugin};
use crate::kubeconfig::{self, Missing, no_cluster};
use crate::network_proxy::ProxyVariables;
use ark_job::api::{CONFIG_NAME, DEFAULT_NAMESPACE, PART_OF, PART_OF_LABEL};
use ark_job::args::parse_duration;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use base64::Engine as _;
use k8s_openapi::api::core::v1::{Namespace, PodTemplate};
use kube::api::{Api, ListParams};
use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::config::{
    Context, ExecAuthCluster, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Client, Config};
use std::error::Error as StdError;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use tower::ServiceBuilder;
use tower::buffer::BufferLayer;
use tower::filter::AsyncFilterLayer;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;

/// Long enough for a far cluster, short enough for a person.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the answer begins: an API server gives up on a request after sixty seconds by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);
/// Requests at a time; nobody makes as many.
const BUFFERED: usize = 1024;

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
/// Sends no request to the cluster; runs the credential plugin, if the kubeconfig names one.
///
/// # Errors
/// When there is no cluster to talk to, or the kubeconfig cannot be used.
pub async fn connect(flags: &ClusterFlags) -> Result<Connection, Failure> {
    connect_as(flags, Audience::Person).await
}

/// Who sees what a credential plugin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever has typed the command, and can be asked.
    Person,
    /// Nobody: completion must not disturb the line that is being typed.
    Nobody,
}

/// As [`connect`], for this audience.
///
/// # Errors
/// As [`connect`].
pub async fn connect_as(flags: &ClusterFlags, audience: Audience) -> Result<Connection, Failure> {
    let timeout = request_timeout(flags.connection.request_timeout.as_deref())?;
    let (mut config, plugin, cluster_name) = configure(flags).await?;
    config.connect_timeout =
        Some(timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.min(CONNECT_TIMEOUT)));
    let mut bearer = None;
    if let Some(mut plugin) = plugin {
        plugin.quiet = audience == Audience::Nobody;
        let credential = plugin.run().await.map_err(|error| error.failure())?;
        if let Some((certificate, key)) = &credential.certificate {
            let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            config.auth_info.client_certificate_data = Some(encoded(certificate));
            config.auth_info.client_key_data = Some(encoded(key).into());
        }
        bearer = Some(Bearer::new(plugin, credential));
    }
    // Its own retries: up to 15, silently, of which the last ones wait for minutes.
    config.default_retry = false;
    Ok(Connection {
        kube: client(
            config.clone(),
            bearer.clone(),
            Some(retry()),
            timeout.or(Some(ANSWER_TIMEOUT)),
        )?,
        operation: client(config, bearer, None, timeout)?,
        cluster_name,
    })
}

/// An API server that is overloaded or starting is asked again, for some twenty seconds.
fn retry() -> RetryPolicy {
    let (first, longest) = (Duration::from_millis(50), Duration::from_secs(5));
    RetryPolicy::new(first, longest, 10, true).expect("these delays are in order")
}

fn client(
    config: Config,
    bearer: Option<Bearer>,
    retry: Option<RetryPolicy>,
    timeout: Option<Duration>,
) -> Result<Client, Failure> {
    let builder = ClientBuilder::try_from(config).map_err(|error| no_cluster(&chain(&error)))?;
    let around = ServiceBuilder::new()
        .option_layer(
            timeout
                .filter(|timeout| !timeout.is_zero())
                .map(TimeoutLayer::new),
        )
        .option_layer(retry.map(RetryLayer::new))
        .option_layer(bearer.clone().and_then(AskAgain::new).map(RetryLayer::new))
        .option_layer(bearer.map(AsyncFilterLayer::new))
        // Only what can be cloned can be tried again.
        .layer(BufferLayer::new(BUFFERED));
    Ok(builder.with_layer(&around).build())
}

/// The configuration, the plugin that has the credentials, and what the kubeconfig calls the cluster.
async fn configure(
    flags: &ClusterFlags,
) -> Result<(Config, Option<Plugin>, Option<String>), Failure> {
    let kubeconfig = kubeconfig(flags)?;
    let proxies = ProxyVariables::from_environment();
    if kubeconfig::is_empty(&kubeconfig)
        && flags.context.is_none()
        && flags.connection.server.is_none()
    {
        let mut config = Config::incluster().map_err(|error| {
            let asked = files(flags).0;
            let asked: Vec<String> = asked
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            no_cluster(&format!(
                "there is no kubeconfig ({}), and this is no pod ({})",
                asked.join(", "),
                chain(&error)
            ))
        })?;
        let connection = &flags.connection;
        if let Some(token) = &connection.token {
            config.auth_info.token_file = None;
            config.auth_info.token = Some(token.clone().into());
        }
        config
            .auth_info
            .impersonate
            .clone_from(&connection.impersonate);
        config
            .auth_info
            .impersonate_uid
            .clone_from(&connection.impersonate_uid);
        config.auth_info.impersonate_groups = Some(connection.impersonate_groups.clone());
        set_proxy(&mut config, None, &proxies)?;
        return Ok((config, None, None));
    }
    let kubeconfig::Chosen {
        cluster_name,
        user_name,
        mut cluster,
        mut user,
    } = kubeconfig::choose(&kubeconfig, flags)?;
    // As kubectl: a token or a certificate of the kubeconfig comes first.
    let exec = user
        .exec
        .take()
        .filter(|_| user.token.is_none() && user.token_file.is_none() && user.username.is_none());
    let plugin = exec
        .map(|exec| -> Result<Plugin, Failure> {
            let told = exec
                .provide_cluster_info
                .then(|| ExecAuthCluster::try_from(&cluster))
                .transpose()
                .map_err(|error| no_cluster(&chain(&error)))?;
            Ok(Plugin {
                exec,
                cluster: told,
                terminal: std::io::stdin().is_terminal(),
                quiet: false,
            })
        })
        .transpose()?;
    let proxy = cluster.proxy_url.take().filter(|proxy| !proxy.is_empty());
    let name = cluster_name.clone().unwrap_or_default();
    let one = Kubeconfig {
        contexts: vec![NamedContext {
            name: name.clone(),
            context: Some(Context {
                cluster: name.clone(),
                user: Some(user_name.clone().unwrap_or_default()),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: user_name.unwrap_or_default(),
            auth_info: Some(user),
            ..NamedAuthInfo::default()
        }],
        current_context: Some(name),
        ..Kubeconfig::default()
    };
    let mut config = Config::from_custom_kubeconfig(one, &KubeConfigOptions::default())
        .await
        .map_err(|error| no_cluster(&chain(&error)))?;
    set_proxy(&mut config, proxy, &proxies)?;
    Ok((config, plugin, cluster_name))
}

/// The proxy that the kubeconfig names, else that of the environment.
fn set_proxy(
    config: &mut Config,
    named: Option<String>,
    variables: &ProxyVariables,
) -> Result<(), Failure> {
    let proxy = named.or_else(|| variables.proxy_of(&config.cluster_url));
    // Never the text itself: it may hold a password.
    let wrong = |why: &str| {
        no_cluster(&format!(
            "the proxy for the API server (proxy-url or HTTPS_PROXY) {why}"
        ))
    };
    config.proxy_url = proxy
        .map(|proxy| {
            // To Go, socks5h is the same: names are resolved by the proxy in either.
            let proxy = proxy.replacen("socks5h://", "socks5://", 1);
            let url: http::Uri = proxy.parse().map_err(|_| wrong("is not a URL"))?;
            match url.scheme_str() {
                Some("http" | "https" | "socks5") => Ok(url),
                _ => Err(wrong("is not http, https or socks5")),
            }
        })
        .transpose()?;
    Ok(())
}

/// The merged kubeconfig of these flags and this process's environment.
///
/// # Errors
/// When a file of it cannot be read.
pub fn kubeconfig(flags: &ClusterFlags) -> Result<Kubeconfig, Failure> {
    let (files, missing) = files(flags);
    kubeconfig::read(&files, missing)
}

fn files(flags: &ClusterFlags) -> (Vec<PathBuf>, Missing) {
    kubeconfig::files(
        flags.kubeconfig.as_deref(),
        std::env::var_os("KUBECONFIG").as_deref(),
        std::env::home_dir().as_deref(),
    )
}

/// As kubectl has it: a Go duration, or a number of seconds; zero is for ever.
fn request_timeout(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(seconds) = text.parse() {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    parse_duration(text)
        .map(Some)
        .map_err(|why| Failure::new(Exit::Usage, format!("--request-timeout: {why}")))
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
        kube::Error::Service(cause) => {
            if let Some(error) = cause_of::<credentials::Error>(cause.as_ref()) {
                return error.failure();
            }
            if cause_of::<Elapsed>(cause.as_ref()).is_some() {
                return no_answer("it took too long (--request-timeout says how long it may take)");
            }
            no_answer(&chain(cause.as_ref()))
        }
        kube::Error::HyperError(cause) => no_answer(&chain(cause)),
        kube::Error::Auth(_) => {
            failed(&chain(error)).hint("log in to the cluster again, or choose another --context")
        }
        error => failed(&chain(error)),
    }
}

/// The error of this type in a chain of causes.
fn cause_of<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
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
    not_in(namespace, what, &others(client, namespace).await)
}

/// The other namespaces that Ark is in.
async fn others(client: &Client, namespace: &str) -> Vec<String> {
    let templates: Api<PodTemplate> = Api::all(client.clone());
    let ours = ListParams::default()
        .labels(&format!("{PART_OF_LABEL}={PART_OF}"))
        .fields(&format!("metadata.name={CONFIG_NAME}"));
    // Who may not look everywhere learns less.
    let found = templates.list(&ours).await.map(|list| list.items);
    found
        .unwrap_or_default()
        .into_iter()
        .filter_map(|template| template.metadata.namespace)
        .filter(|other| other != namespace)
        .collect()
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
