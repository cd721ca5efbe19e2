//! Credential plugins: the program that a kubeconfig names under `exec`, as kubectl runs it.
//!
//! kube would run it for each client and again for each one's TLS, four times a command; here it runs once, and again when
//! what it gave expires, or is not accepted.

use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use serde::{Deserialize, Serialize};
use std::future::{Ready, ready};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tower::BoxError;
use tower::filter::AsyncPredicate;
use tower::retry::Policy;

/// A token is not used up to its last moment: a request takes time, and clocks differ.
const BEFORE_EXPIRY: SignedDuration = SignedDuration::from_secs(10);

/// The versions of the protocol that kubectl speaks.
const VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig asks for what nobody can do.
    #[error("the kubeconfig's credential plugin {command}: {why}")]
    Unusable {
        /// The program.
        command: String,
        /// What is wrong.
        why: String,
    },
    /// It is not there, or may not be run.
    #[error("starting the credential plugin {command}")]
    Start {
        /// The program.
        command: String,
        /// How to get it, by the kubeconfig.
        hint: Option<String>,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It gave up.
    #[error("the credential plugin {command} failed: {status}")]
    Failed {
        /// The program, with its arguments.
        command: String,
        /// How it ended.
        status: String,
    },
    /// What it printed is not what the protocol says.
    #[error("the credential plugin {command} {why}")]
    Answer {
        /// The program.
        command: String,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// What it means to a person.
    pub fn failure(&self) -> Failure {
        let failure = Failure::new(Exit::Failed, ark_job::error::chain(self));
        match self {
            Error::Start {
                hint: Some(hint), ..
            } => failure.hint(hint.trim()),
            Error::Start { .. } | Error::Unusable { .. } => {
                failure.hint("the kubeconfig names it, under the user's `exec`")
            }
            Error::Failed { .. } | Error::Answer { .. } => {
                failure.hint("log in to the cluster again, or choose another --context")
            }
        }
    }
}

/// A plugin, as a kubeconfig has it.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The `exec` of the user.
    pub exec: ExecConfig,
    /// The cluster, for a plugin that wants to know it (`provideClusterInfo`).
    pub cluster: Option<ExecAuthCluster>,
    /// Whether a person can be asked: standard input is a terminal.
    pub terminal: bool,
    /// Let it say nothing, and ask nobody: for completion.
    pub quiet: bool,
}

/// What a plugin gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// A bearer token.
    pub token: Option<String>,
    /// A client certificate and its key, as PEM.
    pub certificate: Option<(String, String)>,
    /// When it expires.
    pub expires: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    api_version: &'a str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a ExecAuthCluster>,
    interactive: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: Option<String>,
    kind: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Timestamp>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Plugin {
    fn command(&self) -> String {
        self.exec.command.clone().unwrap_or_default()
    }

    fn unusable(&self, why: &str) -> Error {
        Error::Unusable {
            command: self.command(),
            why: why.to_owned(),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be run, fails, or does not answer as it should.
    pub async fn run(&self) -> Result<Credential, Error> {
        let version = self.version()?;
        let interactive = self.interactive()?;
        let asked = Asked {
            api_version: version,
            kind: "ExecCredential",
            spec: Spec {
                cluster: self.cluster.as_ref(),
                interactive,
            },
        };
        let asked =
            serde_json::to_string(&asked).map_err(|error| self.unusable(&error.to_string()))?;
        let program = self.exec.command.as_deref().unwrap_or_default();
        if program.is_empty() {
            return Err(self.unusable("there is no command"));
        }
        let mut command = tokio::process::Command::new(program);
        command.args(self.exec.args.iter().flatten());
        for variable in self.exec.env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                command.env(name, value);
            }
        }
        command
            .env("KUBERNETES_EXEC_INFO", asked)
            .stdin(if interactive {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            // What it has to say, such as where to log in, is for the person.
            .stderr(if self.quiet {
                Stdio::null()
            } else {
                Stdio::inherit()
            })
            .kill_on_drop(true);
        let output = command
            .spawn()
            .map_err(|source| Error::Start {
                command: self.command(),
                hint: self.exec.install_hint.clone(),
                source,
            })?
            .wait_with_output()
            .await
            .map_err(|error| self.answer(&error.to_string()))?;
        if !output.status.success() {
            let words = self.exec.args.iter().flatten().map(String::as_str);
            let words: Vec<&str> = std::iter::once(program).chain(words).collect();
            return Err(Error::Failed {
                command: words.join(" "),
                status: output.status.to_string(),
            });
        }
        self.understand(version, &output.stdout)
    }

    fn version(&self) -> Result<&str, Error> {
        let version = self.exec.api_version.as_deref().unwrap_or_default();
        if VERSIONS.contains(&version) {
            return Ok(version);
        }
        Err(self.unusable(&format!(
            "its apiVersion is {version:?}, which must be one of {}",
            VERSIONS.join(", ")
        )))
    }

    fn interactive(&self) -> Result<bool, Error> {
        let terminal = self.terminal && !self.quiet;
        match self.exec.interactive_mode {
            Some(ExecInteractiveMode::Never) => Ok(false),
            Some(ExecInteractiveMode::Always) if !terminal => Err(self.unusable(
                "it wants to ask (interactiveMode Always), and standard input is not a terminal",
            )),
            Some(ExecInteractiveMode::Always) => Ok(true),
            Some(ExecInteractiveMode::IfAvailable) | None => Ok(terminal),
        }
    }

    fn answer(&self, why: &str) -> Error {
        Error::Answer {
            command: self.command(),
            why: why.to_owned(),
        }
    }

    fn understand(&self, version: &str, printed: &[u8]) -> Result<Credential, Error> {
        // YAML, too, as kubectl; the text itself is never shown, for it may hold a token.
        let answer: Answer = serde_saphyr::from_slice(printed)
            .map_err(|_| self.answer("printed no ExecCredential"))?;
        if answer.kind.as_deref() != Some("ExecCredential") {
            return Err(self.answer("printed no ExecCredential"));
        }
        if answer.api_version.as_deref() != Some(version) {
            return Err(self.answer(&format!(
                "answers in version {}, and the kubeconfig says {version}",
                answer.api_version.as_deref().unwrap_or("none")
            )));
        }
        let status = answer.status.ok_or_else(|| self.answer("gave no status"))?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let token = given(status.token);
        let certificate = match (
            given(status.client_certificate_data),
            given(status.client_key_data),
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(self.answer("gave a client certificate or key without the other")),
        };
        if token.is_none() && certificate.is_none() {
            return Err(self.answer("gave neither a token nor a client certificate"));
        }
        Ok(Credential {
            token,
            certificate,
            expires: status.expiration_timestamp,
        })
    }
}

/// Puts the token of a plugin on every request, and asks the plugin again when it expires.
#[derive(Clone, Debug)]
pub struct Bearer {
    plugin: Arc<Plugin>,
    credential: Arc<Mutex<Credential>>,
    /// It gives tokens: a certificate is not on the request.
    tokens: bool,
    /// How often the plugin has run.
    runs: Arc<AtomicU64>,
    /// How often it had run when a token was refused; that one is not used again.
    refused: Arc<AtomicU64>,
}

impl Bearer {
    /// With what the plugin gave first.
    pub fn new(plugin: Plugin, credential: Credential) -> Self {
        Bearer {
            plugin: Arc::new(plugin),
            tokens: credential.token.is_some(),
            credential: Arc::new(Mutex::new(credential)),
            runs: Arc::new(AtomicU64::new(1)),
            refused: Arc::default(),
        }
    }

    async fn header(&self) -> Result<Option<HeaderValue>, BoxError> {
        let mut credential = self.credential.lock().await;
        let refused = self.refused.load(Ordering::Relaxed) == self.runs.load(Ordering::Relaxed);
        let expired = credential
            .expires
            .is_some_and(|expires| Timestamp::now() + BEFORE_EXPIRY >= expires);
        if refused || expired {
            *credential = self.plugin.run().await?;
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
        let Some(token) = &credential.token else {
            return Ok(None);
        };
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| self.plugin.answer("gave a token that no header can hold"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

impl AsyncPredicate<Request<Body>> for Bearer {
    type Future = BoxFuture<'static, Result<Request<Body>, BoxError>>;
    type Request = Request<Body>;

    fn check(&mut self, mut request: Request<Body>) -> Self::Future {
        let bearer = self.clone();
        Box::pin(async move {
            if let Some(header) = bearer.header().await? {
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            Ok(request)
        })
    }
}

/// Asks the plugin once more when the API server does not accept its token (401), and repeats the request once: a token may be
/// revoked before it expires, or say nothing of when it does.
#[derive(Clone)]
pub struct AskAgain {
    bearer: Bearer,
    /// How often the plugin had run when the request was first sent; zero when it was repeated.
    runs: u64,
    repeat: RetryPolicy,
}

impl AskAgain {
    /// For requests with the tokens of this one, if it gives any.
    pub fn new(bearer: Bearer) -> Option<Self> {
        bearer.tokens.then(|| AskAgain {
            runs: bearer.runs.load(Ordering::Relaxed),
            bearer,
            repeat: RetryPolicy::default(),
        })
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for AskAgain {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Ready<()>> {
        let refused =
            matches!(result, Ok(response) if response.status() == StatusCode::UNAUTHORIZED);
        if !refused || self.runs == 0 {
            return None;
        }
        // Of requests that are refused together, the first asks.
        self.bearer.refused.fetch_max(self.runs, Ordering::Relaxed);
        self.runs = 0;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        if self.runs != 0 {
            self.runs = self.bearer.runs.load(Ordering::Relaxed);
        }
        // kube's, for how a request is copied.
        Policy::<_, Response<B>, _>::clone_request(&mut self.repeat, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(mode: Option<ExecInteractiveMode>, version: &str, terminal: bool) -> Plugin {
        Plugin {
            exec: ExecConfig {
                api_version: Some(version.to_owned()),
                command: Some("log-in".to_owned()),
                interactive_mode: mode,
                ..ExecConfig::default()
            },
            cluster: None,
            terminal,
            quiet: false,
        }
    }

    #[test]
    fn it_may_ask_where_somebody_can_answer() {
        let interactive = |mode, terminal| plugin(mode, VERSIONS[0], terminal).interactive().ok();
        assert_eq!(interactive(None, true), Some(true));
        assert_eq!(interactive(None, false), Some(false));
        assert_eq!(
            interactive(Some(ExecInteractiveMode::Never), true),
            Some(false)
        );
        assert_eq!(
            interactive(Some(ExecInteractiveMode::Always), true),
            Some(true)
        );
        assert_eq!(interactive(Some(ExecInteractiveMode::Always), false), None);
    }

    #[test]
    fn an_answer_is_understood_or_refused_without_showing_it() {
        let plugin = plugin(None, VERSIONS[1], false);
        let understand = |text: &str| plugin.understand(VERSIONS[1], text.as_bytes());
        let answer = |status: &str| {
            format!(
                "{{apiVersion: client.authentication.k8s.io/v1beta1, kind: ExecCredential, status: {status}}}"
            )
        };
        assert_eq!(
            understand(&answer(
                "{token: t, expirationTimestamp: '2030-01-02T03:04:05Z'}"
            ))
            .unwrap(),
            Credential {
                token: Some("t".to_owned()),
                certificate: None,
                expires: Some("2030-01-02T03:04:05Z".parse().unwrap()),
            }
        );
        for (wrong, why) in [
            (
                "secret",
                "the credential plugin log-in printed no ExecCredential",
            ),
            (
                "{apiVersion: client.authentication.k8s.io/v1, kind: ExecCredential, status: {token: secret}}",
                "the credential plugin log-in answers in version client.authentication.k8s.io/v1, and the kubeconfig says \
                 client.authentication.k8s.io/v1beta1",
            ),
            (
                &answer("{clientKeyData: secret}"),
                "the credential plugin log-in gave a client certificate or key without the other",
            ),
            (
                &answer("{}"),
                "the credential plugin log-in gave neither a token nor a client certificate",
            ),
        ] {
            assert_eq!(understand(wrong).unwrap_err().to_string(), why);
        }
        assert!(
            super::Plugin::version(&self::plugin(
                None,
                "client.authentication.k8s.io/v1alpha1",
                true
            ))
            .is_err()
        );
    }
}
