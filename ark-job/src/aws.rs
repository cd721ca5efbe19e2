//! What the SDKs of S3 and EC2 have in common: connections, trust, credentials and the bounds of waiting.
//!
//! The place of the backups says who we are ([`S3Location`]: a mounted Secret, a profile, a role); without it, the SDK's own
//! chain looks into the environment, for web identity (IRSA), a container endpoint (Pod Identity) and the instance.

mod answers;
mod errors;

pub use self::answers::Answers;
pub use self::errors::{chain, chain_text, text};

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpClientBuilder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::SdkConfig;
use aws_types::region::Region;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::store::{Credentials, S3Location};

/// Attempts in all, with 0.5, 1, 2, 4 and 8 seconds at most between them (half of that on average): a restart of the
/// other side is survived.
pub const ATTEMPTS: u32 = 6;

/// The longest first wait.
pub const INITIAL_BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// For the TCP and TLS connection; across an ocean it takes a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one attempt at a request without much of a body, until its answer begins.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A mounted Secret with credentials, if the location names one.
fn profile_files(location: &S3Location) -> Option<EnvConfigFiles> {
    let path = location.credentials_file.as_ref()?;
    let files = EnvConfigFiles::builder()
        .include_default_config_file(true)
        .with_file(EnvConfigFileKind::Credentials, path);
    Some(files.build())
}

/// The region that the environment or the profile names, else that of the location: a bucket may be in another region than what
/// is backed up to it, and another store may have a region that AWS does not know.
#[cfg(feature = "ec2")]
pub async fn configured_region(location: &S3Location) -> Option<Region> {
    use aws_config::environment::EnvironmentVariableRegionProvider;
    use aws_config::meta::region::ProvideRegion;
    use aws_config::profile::ProfileFileRegionProvider;
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(files) = profile_files(location) {
        profile = profile.profile_files(files);
    }
    if let Some(name) = &location.profile {
        profile = profile.profile_name(name);
    }
    match EnvironmentVariableRegionProvider::new().region().await {
        Some(region) => Some(region),
        None => profile.build().region().await,
    }
    .or_else(|| location.region.clone().map(Region::new))
}

/// Finds credentials and, unless `region` is given, the region. Contacts nobody but the instance's metadata, which may know the
/// region; credentials are found at the first request.
pub async fn load_config(
    location: &S3Location,
    credentials: &Credentials,
    region: Option<Region>,
    http_client: SharedHttpClient,
) -> SdkConfig {
    let files = profile_files(location);
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

/// A client over rustls with ring, with the system's certificate authorities and those of `ca_bundle`, through the
/// proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name.
pub fn http_client(ca_bundle: Option<&[u8]>) -> Result<SharedHttpClient, String> {
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

/// Bounds for a request: an attempt may take `answer`, all of them together twice that and the waits between them. A
/// store that hung once may be back; one that hangs again and again is gone, and a Job should end before its deadline.
pub fn timeouts(answer: Duration, attempts: u32) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(answer)
        .operation_timeout(answer * 2 + MAX_BACKOFF * attempts)
        .build()
}

/// The wait before attempt `failures + 1`, somewhere between half and all of an exponentially growing time.
pub fn backoff(failures: u32) -> Duration {
    let full = (INITIAL_BACKOFF * 2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_BACKOFF);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}
