//! The Kubernetes API server: requests with retries, and what errors mean.
//!
//! [`discover`] finds the resource types, [`list`] streams their objects, [`apply`] writes them at the [`pace`] that the
//! server likes, [`exec`] runs commands in pods. Requests are raw: bodies are passed on, not decoded, unless somebody needs what is in them.

pub mod apply;
pub mod discover;
pub mod exec;
pub mod list;
pub mod pace;

use crate::log::Log;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::{Body, Client};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::Instant;

/// No answer that is decoded as a whole may be larger: an object is at most 1.5 MB, discovery of a thousand types 3 MB.
const ANSWER_MAX: usize = 32 << 20;
/// How long a request is retried after its first failure. Long enough for an API server that restarts, short beside a Job's deadline.
const RETRY_FOR: Duration = Duration::from_secs(90);
/// Without an answer for this long, a request is given up and retried: the API server ends its own after 60 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(75);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A connection to the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    log: Option<Log>,
}

/// What went wrong in asking the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No answer.
    #[error("{doing}: the API server does not answer")]
    Unreachable {
        /// What was asked.
        doing: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that says no.
    #[error("{doing}: {message} (HTTP {code})")]
    Status {
        /// What was asked.
        doing: String,
        /// The HTTP status.
        code: u16,
        /// `reason` of the Status object: `NotFound`, `Expired`, ….
        reason: String,
        /// Its message.
        message: String,
        /// Its continue token: a list that expired goes on from here, at a newer revision.
        next: Option<String>,
        /// How long to wait, as the server says.
        retry_after: Option<Duration>,
    },
    /// An answer that is not what it must be.
    #[error("{doing}: the API server's answer is not understood")]
    Malformed {
        /// What was asked.
        doing: String,
        /// In which way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClusterError {
    fn code(&self) -> Option<u16> {
        match self {
            ClusterError::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// There is no such object, or no such type.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The rights are missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// The revision has been compacted.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// The object exists, or was changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// A webhook that has effects of its own cannot be asked by a dry run.
    pub fn is_dry_run_unsupported(&self) -> bool {
        matches!(self, ClusterError::Status { code: 400, message, .. } if message.contains("does not support dry run"))
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, ClusterError::Status { code: 409, reason, .. } if reason == "AlreadyExists")
    }

    /// Too many requests: the server has done nothing, and wants to be left alone for a while.
    pub fn is_throttling(&self) -> bool {
        self.code() == Some(429)
    }

    /// A webhook's server does not answer.
    pub fn is_of_webhook(&self) -> bool {
        matches!(self, ClusterError::Status { code: 500, message, .. }
            if message.contains("failed calling webhook") || message.contains("failed to call webhook"))
    }

    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            ClusterError::Unreachable { .. } => true,
            ClusterError::Status { code, .. } => matches!(code, 408 | 429 | 500 | 502 | 503 | 504),
            ClusterError::Malformed { .. } => false,
        }
    }

    /// The message and its causes, in one line.
    pub fn full_text(&self) -> String {
        crate::error::chain(self)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            ClusterError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Pauses between attempts: doubling, with jitter, until the budget is spent.
///
/// [`Cluster::backoff`] makes one that says so in the log; the default one is silent.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    /// From the first failure on: attempts that hang spend the budget, too.
    until: Option<Instant>,
    /// Whether the API server has had too much to do.
    throttled: bool,
    log: Option<Log>,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            pause: FIRST_PAUSE,
            until: None,
            throttled: false,
            log: None,
        }
    }
}

impl Backoff {
    /// Waits before another attempt after `error`, or returns it when it is final or the budget is spent.
    ///
    /// The first failure is logged, not each: several requests are under way when an API server is gone. Throttling
    /// never spends the budget: a server that has too much to do is waited for, however long.
    ///
    /// # Errors
    /// `error` itself.
    pub async fn after(&mut self, error: ClusterError) -> Result<(), ClusterError> {
        if !error.is_transient() {
            return Err(error);
        }
        let now = Instant::now();
        let throttling = error.is_throttling();
        let first = if throttling {
            !std::mem::replace(&mut self.throttled, true)
        } else {
            self.until.is_none()
        };
        if first && let Some(log) = &self.log {
            let how_long = if throttling {
                "until it has less to do".to_owned()
            } else {
                format!("for up to {} s", RETRY_FOR.as_secs())
            };
            log.warn(&format!("{}; trying again {how_long}", error.full_text()));
        }
        let left = if throttling {
            self.until = None;
            Duration::MAX
        } else {
            *self.until.get_or_insert(now + RETRY_FOR) - now
        };
        if left.is_zero() {
            return Err(error);
        }
        // Jitter, so that several requests refused together do not come back together; the clock's digits will do.
        let jitter =
            f64::from(jiff::Timestamp::now().subsec_nanosecond().rem_euclid(1000)) / 1000.0;
        let pause = self
            .pause
            .mul_f64(0.5 + jitter / 2.0)
            .max(error.retry_after().unwrap_or_default());
        tokio::time::sleep(pause.min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

impl Cluster {
    /// Uses `client`.
    pub fn new(client: Client) -> Cluster {
        Cluster { client, log: None }
    }

    /// From now on says in `log` what it asks again.
    pub fn with_log(self, log: &Log) -> Cluster {
        Cluster {
            log: Some(log.clone()),
            ..self
        }
    }

    /// What to wait between the attempts at one request.
    pub fn backoff(&self) -> Backoff {
        Backoff {
            log: self.log.clone(),
            ..Backoff::default()
        }
    }

    /// The client, for typed requests.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends one request once and returns the answer if it is good, its body unread.
    ///
    /// # Errors
    /// [`ClusterError`] that begins with `doing`.
    pub async fn send(
        &self,
        request: Request<Vec<u8>>,
        doing: &str,
    ) -> Result<Response<Body>, ClusterError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Unreachable {
                doing: doing.to_owned(),
                source,
            };
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.client.send(request.map(Body::from)))
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(|error| unreachable(error.into()))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(status_error(answer, doing).await)
        }
    }

    /// Sends a request, retrying while that may help.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn request(
        &self,
        request: &Request<Vec<u8>>,
        doing: &str,
    ) -> Result<Response<Body>, ClusterError> {
        let mut backoff = self.backoff();
        loop {
            match self.send(request.clone(), doing).await {
                Ok(answer) => return Ok(answer),
                Err(error) => backoff.after(error).await?,
            }
        }
    }

    /// GETs `path` and decodes the JSON that comes.
    ///
    /// # Errors
    /// As [`Cluster::request`]; or the answer is not what is expected.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        doing: &str,
    ) -> Result<T, ClusterError> {
        self.json(&get(path, "application/json"), doing).await
    }

    /// Sends a request and decodes the JSON that comes; an answer that breaks off is asked for again.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        request: &Request<Vec<u8>>,
        doing: &str,
    ) -> Result<T, ClusterError> {
        let mut backoff = self.backoff();
        loop {
            let answer = self.request(request, doing).await?;
            match collect(answer.into_body()).await {
                Ok(body) => {
                    return serde_json::from_slice(&body).map_err(|source| {
                        ClusterError::Malformed {
                            doing: doing.to_owned(),
                            source: source.into(),
                        }
                    });
                }
                Err(source) => {
                    backoff
                        .after(ClusterError::Unreachable {
                            doing: doing.to_owned(),
                            source,
                        })
                        .await?
                }
            }
        }
    }

    /// Whether the API server does its work at all, asked once: else a failure is not that of one type or object.
    pub async fn is_there(&self) -> bool {
        let request = get("/api/v1/namespaces?limit=1", "application/json");
        match self.send(request, "listing namespaces").await {
            Ok(_) => true,
            Err(error) => !error.is_transient(),
        }
    }

    /// The UID of the namespace kube-system, which tells clusters apart.
    ///
    /// Asked for as a list, for which the rights of a backup suffice.
    ///
    /// # Errors
    /// As [`Cluster::get`]; or there is no such namespace.
    pub async fn uid(&self) -> Result<String, ClusterError> {
        #[derive(serde::Deserialize)]
        struct List {
            items: Vec<Namespace>,
        }
        #[derive(serde::Deserialize)]
        struct Namespace {
            metadata: Metadata,
        }
        #[derive(serde::Deserialize)]
        struct Metadata {
            uid: String,
        }
        let doing = "reading the UID of namespace kube-system";
        let list: List = self
            .get(
                "/api/v1/namespaces?fieldSelector=metadata.name%3Dkube-system",
                doing,
            )
            .await?;
        let namespace = list
            .items
            .into_iter()
            .next()
            .ok_or_else(|| ClusterError::Malformed {
                doing: doing.to_owned(),
                source: "there is no such namespace; without it clusters cannot be told apart"
                    .into(),
            })?;
        Ok(namespace.metadata.uid)
    }
}

/// A GET request.
pub(crate) fn get(path: &str, accept: &str) -> Request<Vec<u8>> {
    let mut request = Request::new(Vec::new());
    *request.method_mut() = Method::GET;
    // Paths come from discovery and are percent-encoded where a value is put in; a stray one becomes a 404.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(accept) = accept.parse() {
        request.headers_mut().insert(http::header::ACCEPT, accept);
    }
    request
}

/// Percent-encodes a value for a query.
pub(crate) fn encode(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

async fn collect(body: Body) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(
        tokio::time::timeout(ANSWER_WITHIN, Limited::new(body, ANSWER_MAX).collect())
            .await??
            .to_bytes(),
    )
}

/// What an answer that says no means.
async fn status_error(answer: Response<Body>, doing: &str) -> ClusterError {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Status {
        message: String,
        reason: String,
        metadata: Metadata,
        details: Details,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Metadata {
        #[serde(rename = "continue")]
        next: Option<String>,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Details {
        retry_after_seconds: Option<u64>,
    }
    let code = answer.status();
    let retry_after = answer.headers().get(http::header::RETRY_AFTER);
    let retry_after: Option<u64> = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let status: Status = match collect(answer.into_body()).await {
        Ok(body) => serde_json::from_slice(&body).unwrap_or_else(|_| Status {
            // Proxies and overloaded servers answer in plain text.
            message: String::from_utf8_lossy(&body[..body.len().min(300)])
                .trim()
                .to_owned(),
            ..Status::default()
        }),
        Err(_) => Status::default(),
    };
    let message = match status.message {
        message if message.is_empty() => code
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned(),
        message => message,
    };
    // A 410 in the middle of a list is the only one that carries a token to go on with.
    let next = status
        .metadata
        .next
        .filter(|token| code == StatusCode::GONE && !token.is_empty());
    ClusterError::Status {
        doing: doing.to_owned(),
        code: code.as_u16(),
        reason: status.reason,
        message,
        next,
        retry_after: retry_after
            .or(status
                .details
                .retry_after_seconds
                .filter(|seconds| *seconds > 0))
            .map(Duration::from_secs),
    }
}
