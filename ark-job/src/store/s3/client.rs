//! How a bucket is reached: connections, trust, credentials, retries and the bounds of all waiting.
//!
//! Retries are the SDK's, configured here once: attempts with exponential backoff and jitter for server errors, 503
//! SlowDown, time-outs and broken connections. A store that has never answered gets fewer of them, since then a wrong
//! URL is likelier than a hiccup.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{
    ConfigBag, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, SharedHttpClient,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpClientBuilder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::meaning::chain_text;
use super::{Cause, Checksum, Credentials, Log, Meaning, S3Location};

/// Attempts in all, with 0.5, 1, 2, 4 and 8 seconds at most between them (half of that on average): a restart of the
/// store is survived.
pub(super) const ATTEMPTS: u32 = 6;

/// Attempts for a store that has not answered anything yet.
const FIRST_ATTEMPTS: u32 = 3;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);

const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// For the TCP and TLS connection; across an ocean it takes a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one attempt at a request without much of a body, until its answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a store that has not answered anything yet: one that accepts connections and says nothing.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A slower store (in bytes a second) is taken for one that hangs.
const SLOWEST_UPLOAD: u64 = 64 * 1024;

/// How long a body may bring or take no byte at all.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Ready for requests, and what was found out on the way.
pub(super) struct Clients {
    patient: Client,
    first: Client,
    answers: Answers,
    pub(super) checksum: Checksum,
    /// Of the location or the environment; none for AWS.
    pub(super) endpoint: Option<String>,
    pub(super) region: Region,
}

impl Clients {
    /// The client for the next request.
    pub(super) fn get(&self) -> &Client {
        if self.answers.any() {
            &self.patient
        } else {
            &self.first
        }
    }

    /// Says in `log` what is asked again; the first log stays.
    pub(super) fn log_to(&self, log: &Log) {
        let _ = self.answers.log.set(log.clone());
    }

    pub(super) fn warn(&self, text: &str) {
        self.answers.warn(text);
    }

    /// The store's clock, since its first answer.
    pub(super) fn clock(&self) -> Option<Timestamp> {
        self.answers.clock()
    }
}

/// Finds certificates, configuration, region and endpoint. Contacts nobody; credentials are found at the first request.
pub(super) async fn connect(
    location: &S3Location,
    credentials: &Credentials,
) -> Result<Clients, Cause> {
    let wrong = |text: String| Cause::new(Meaning::Other, text);
    location
        .validate()
        .map_err(|error| wrong(error.to_string()))?;
    let http_client = http_client(location.ca_bundle.as_deref()).map_err(wrong)?;
    let config = load_config(location, credentials, http_client).await;
    let endpoint = location
        .endpoint
        .clone()
        .or_else(|| endpoint_of_environment(&config));
    let region = match (config.region(), &endpoint) {
        (Some(region), _) => region.clone(),
        // Other stores mostly do not care, but a signature needs one.
        (None, Some(_)) => Region::from_static("us-east-1"),
        (None, None) => return Err(Cause::new(Meaning::WrongRegion, "no region is known")),
    };
    let checksum = location.checksum.unwrap_or(match endpoint {
        Some(_) => Checksum::WhenRequired,
        None => Checksum::Always,
    });
    let (request_checksum, response_checksum) = match checksum {
        Checksum::WhenRequired => (
            RequestChecksumCalculation::WhenRequired,
            ResponseChecksumValidation::WhenRequired,
        ),
        Checksum::Always => (
            RequestChecksumCalculation::WhenSupported,
            ResponseChecksumValidation::WhenSupported,
        ),
    };
    let answers = Answers::default();
    let mut builder = aws_sdk_s3::config::Builder::from(&config)
        .region(region.clone())
        .force_path_style(location.path_style)
        .request_checksum_calculation(request_checksum)
        .response_checksum_validation(response_checksum)
        .retry_config(retries(ATTEMPTS))
        .timeout_config(timeouts(ANSWER_TIMEOUT, ATTEMPTS))
        // Downloads are watched by `Reader`, which also resumes them.
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .download_enabled(false)
                .grace_period(STALL_TIMEOUT)
                .build(),
        )
        .interceptor(answers.clone());
    builder.set_endpoint_url(endpoint.clone());
    let config = builder.build();
    let first = config
        .to_builder()
        .retry_config(retries(FIRST_ATTEMPTS))
        .timeout_config(timeouts(FIRST_ANSWER_TIMEOUT, FIRST_ATTEMPTS));
    Ok(Clients {
        first: Client::from_conf(first.build()),
        patient: Client::from_conf(config),
        answers,
        checksum,
        endpoint,
        region,
    })
}

fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(INITIAL_BACKOFF)
        .with_max_backoff(MAX_BACKOFF)
}

/// Bounds for a request: an attempt may take `answer`, all of them together twice that and the waits between them. A
/// store that hung once may be back; one that hangs again and again is gone, and a Job should end before its deadline.
pub(super) fn timeouts(answer: Duration, attempts: u32) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(answer)
        .operation_timeout(answer * 2 + MAX_BACKOFF * attempts)
        .build()
}

pub(super) fn upload_timeouts(length: u64) -> aws_sdk_s3::config::Builder {
    let body = Duration::from_secs(length / SLOWEST_UPLOAD);
    aws_sdk_s3::Config::builder().timeout_config(timeouts(ANSWER_TIMEOUT + body, ATTEMPTS))
}

/// The wait before attempt `failures + 1`, somewhere between half and all of an exponentially growing time.
pub(super) fn backoff(failures: u32) -> Duration {
    let full = (INITIAL_BACKOFF * 2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_BACKOFF);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A client over rustls with ring, with the system's certificate authorities and those of `ca_bundle`, through the
/// proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name.
pub(super) fn http_client(ca_bundle: Option<&[u8]>) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(pem) = ca_bundle {
        check_certificates(pem)?;
        trust = trust.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| chain_text(&error))?;
    Ok(
        HttpClientBuilder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .proxy_config(ProxyConfig::from_env())
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(tls.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.build()
        }),
    )
}

/// The SDK panics at a certificate that it cannot read, so this looks first.
fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("CA bundle: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("CA bundle: {error}"))?;
    }
    if roots.is_empty() {
        return Err("CA bundle: there is no certificate in it".to_owned());
    }
    Ok(())
}

async fn load_config(
    location: &S3Location,
    credentials: &Credentials,
    http_client: SharedHttpClient,
) -> SdkConfig {
    let files = location.credentials_file.as_ref().map(|path| {
        EnvConfigFiles::builder()
            .include_default_config_file(true)
            .with_file(EnvConfigFileKind::Credentials, path)
            .build()
    });
    let region = location.region.clone().map(Region::new);
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http_client.clone());
    if let Some(region) = region.clone() {
        loader = loader.region(region);
    }
    if let Some(profile) = &location.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(files) = files.clone() {
        loader = loader.profile_files(files);
    }
    match credentials {
        Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let keys = aws_credential_types::Credentials::new(
                access_key_id,
                secret_access_key,
                session_token.clone(),
                None,
                "ark",
            );
            loader = loader.credentials_provider(keys);
        }
        // The default chain asks the environment first; what the location names comes before that.
        Credentials::Chain if files.is_some() || location.profile.is_some() => {
            let configuration = ProviderConfig::default()
                .with_http_client(http_client)
                .with_region(region);
            let mut provider = ProfileFileCredentialsProvider::builder().configure(&configuration);
            if let Some(files) = files {
                provider = provider.profile_files(files);
            }
            if let Some(profile) = &location.profile {
                provider = provider.profile_name(profile);
            }
            loader = loader.credentials_provider(provider.build());
        }
        Credentials::Chain => {}
    }
    let config = loader.load().await;
    let Some(role) = &location.role_arn else {
        return config;
    };
    let assumed = AssumeRoleProvider::builder(role)
        .session_name("ark")
        .configure(&config)
        .build()
        .await;
    config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(assumed))
        .build()
}

/// The endpoint of `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the profile, which the SDK would use by itself, but then
/// nobody could say where the backups really are.
fn endpoint_of_environment(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|service| service.load_config(key))
        .or_else(|| config.endpoint_url().map(str::to_owned))
}

/// Watches the answers of the store: whether there was one, what its clock said, and what has to be asked again.
#[derive(Clone, Debug, Default)]
struct Answers {
    latest: Arc<Mutex<Option<(Timestamp, Instant)>>>,
    any: Arc<AtomicBool>,
    log: Arc<OnceLock<Log>>,
}

/// Why the attempt before failed.
#[derive(Debug)]
struct Failed(String);

impl Storable for Failed {
    type Storer = StoreReplace<Self>;
}

impl Answers {
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn warn(&self, text: &str) {
        if let Some(log) = self.log.get() {
            log.warn(text);
        }
    }

    fn clock(&self) -> Option<Timestamp> {
        let (date, seen) = (*self.latest.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(seen.elapsed()).ok()
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "Answers"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.any.store(true, Ordering::Relaxed);
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Some((date.timestamp(), Instant::now()));
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(Err(error)) = context.output_or_error() {
            let text = match context.response() {
                Some(answer) => answered(answer.status().as_u16(), answer.body().bytes()),
                None => chain_text(error),
            };
            cfg.interceptor_state().store_put(Failed(text));
        }
        Ok(())
    }

    fn read_before_attempt(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Once a request: what follows is mostly more of the same, and the last failure becomes the error.
        let second = cfg
            .load::<RequestAttempts>()
            .is_some_and(|attempt| attempt.attempts() == 2);
        if let (true, Some(Failed(why))) = (second, cfg.load::<Failed>()) {
            let request = context.request();
            let (method, uri) = (request.method(), request.uri());
            // Without the query, which may hold a signature.
            let url = uri.split('?').next().unwrap_or_default();
            self.warn(&format!("{method} {url}: {why}; trying again"));
        }
        Ok(())
    }
}

/// An answer that says no, in short: `HTTP 503 SlowDown`.
fn answered(status: u16, body: Option<&[u8]>) -> String {
    let body = String::from_utf8_lossy(body.unwrap_or_default());
    let code = body
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code);
    match code {
        Some(code) => format!("HTTP {status} {code}"),
        None => format!("HTTP {status}"),
    }
}
