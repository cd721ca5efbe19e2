//! How a bucket is reached: its client, retries and the bounds of waiting. Connections, trust and credentials are in
//! [`crate::aws`].
//!
//! Retries are the SDK's, configured here once: attempts with exponential backoff and jitter for server errors, 503
//! SlowDown, time-outs and broken connections. A store that has never answered gets fewer of them, since then a wrong
//! URL is likelier than a hiccup.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use jiff::Timestamp;

use super::{Cause, Checksum, Credentials, Log, Meaning, S3Location};
use crate::aws::{
    ANSWER_TIMEOUT, ATTEMPTS, Answers, INITIAL_BACKOFF, MAX_BACKOFF, http_client, load_config,
    timeouts,
};

/// Attempts for a store that has not answered anything yet.
const FIRST_ATTEMPTS: u32 = 3;

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
        self.answers.log_to(log);
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
    let region = location.region.clone().map(Region::new);
    let config = load_config(location, credentials, region, http_client).await;
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

pub(super) fn upload_timeouts(length: u64) -> aws_sdk_s3::config::Builder {
    let body = Duration::from_secs(length / SLOWEST_UPLOAD);
    aws_sdk_s3::Config::builder().timeout_config(timeouts(ANSWER_TIMEOUT + body, ATTEMPTS))
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
