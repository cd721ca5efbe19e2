//! What an answer of EC2 that says no means, what to do about it, and how long it is worth trying again.

use crate::aws::{ATTEMPTS, backoff, chain, text};
use crate::volumes::disks::DiskError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as StdError;
use std::time::Duration;

/// How long a request that is throttled is tried again. EC2 allows a snapshot of a volume every 15 seconds and refills the
/// account's requests by a few every second.
const THROTTLED_FOR: Duration = Duration::from_secs(180);

/// How long a request without a clear answer is tried again; attempts may take half a minute each.
const UNCLEAR_FOR: Duration = Duration::from_secs(120);

/// Where the SDK has looked, and what it says of each place, takes a dozen lines.
const NO_CREDENTIALS: &str = "no AWS credentials were found (environment, web identity, Pod Identity, instance metadata, \
                              Secret of the location): docs/volumes.md";

/// What a failure means for trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Too many requests: nothing was done.
    Throttled,
    /// No answer, or an error of EC2's own: it may have been done.
    Unclear,
    /// No.
    Refused,
}

/// An answer that says no, or no answer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    /// Code of the API, or empty.
    pub code: String,
    /// What people read.
    text: String,
    /// What to do about what is no answer of EC2's.
    advice: Option<&'static str>,
}

impl Failure {
    pub fn new<E>(error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let (code, status) = match error {
            SdkError::ServiceError(service) => (
                service.err().code().unwrap_or_default(),
                Some(service.raw().status().as_u16()),
            ),
            SdkError::ResponseError(response) => ("", Some(response.raw().status().as_u16())),
            _ => ("", None),
        };
        if status.is_none() && nobody_has_credentials(error) {
            return Failure {
                kind: Kind::Refused,
                code: String::new(),
                text: NO_CREDENTIALS.to_owned(),
                advice: None,
            };
        }
        let (kind, advice) = match status {
            Some(_) => (kind(code, status), None),
            None => unsent(error),
        };
        Failure {
            kind,
            code: code.to_owned(),
            text: without_encoded(&text(error)),
            advice,
        }
    }

    /// In short, for the log.
    pub fn brief(&self) -> &str {
        &self.text
    }

    /// The error of whoever was `doing` something by `action`, such as `ec2:CreateSnapshot`.
    pub fn into_error(self, doing: &str, action: &str) -> DiskError {
        let message = match advice(&self, action) {
            Some(advice) => format!("{}; {advice}", self.text),
            None => self.text,
        };
        DiskError::Refused {
            doing: doing.to_owned(),
            code: self.code,
            message,
        }
    }
}

/// Whether the SDK has looked everywhere for credentials and there are none; of a profile that has none it says more itself.
fn nobody_has_credentials(error: &(dyn StdError + 'static)) -> bool {
    // The error of its chain has no public type (aws_config::meta::ProviderChainError).
    let mut links = chain(error).skip_while(|link| !link.is::<CredentialsError>());
    links.any(|link| {
        link.to_string()
            .starts_with("no credentials found in chain")
    })
}

/// What it means that there is no answer, and what to do.
fn unsent<E>(error: &SdkError<E, HttpResponse>) -> (Kind, Option<&'static str>)
where
    E: StdError + 'static,
{
    let network = "check the region, the network between here and EC2, AWS_ENDPOINT_URL_EC2, HTTPS_PROXY and NO_PROXY";
    let credentials = chain(error).find_map(|link| link.downcast_ref::<CredentialsError>());
    let untrusted = chain(error)
        .filter_map(|link| link.downcast_ref::<rustls::Error>())
        .any(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)));
    match credentials {
        // The service that gives credentials is slow: another attempt may cure that.
        Some(CredentialsError::ProviderTimedOut(_)) => (Kind::Unclear, None),
        Some(_) => (
            Kind::Refused,
            Some("check the credentials: Secret, profile, role or AWS_* variables"),
        ),
        None if untrusted => (
            Kind::Refused,
            Some(
                "give the certificate authority of the endpoint: the location's CA reference, or AWS_CA_BUNDLE",
            ),
        ),
        None if matches!(error, SdkError::ConstructionFailure(_)) => (Kind::Refused, None),
        None => (Kind::Unclear, Some(network)),
    }
}

/// The part of a refusal that only `aws sts decode-authorization-message` understands is a thousand characters.
fn without_encoded(text: &str) -> String {
    const MARK: &str = " Encoded authorization failure message: ";
    let Some((before, encoded)) = text.split_once(MARK) else {
        return text.to_owned();
    };
    let after = encoded.find(' ').map_or("", |end| &encoded[end..]);
    format!("{before}{after}")
}

fn kind(code: &str, status: Option<u16>) -> Kind {
    match (code, status) {
        (
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "RequestThrottled"
            | "EC2ThrottledException"
            | "SnapshotCreationPerVolumeRateExceeded"
            // Too many are being taken now; they end.
            | "ConcurrentSnapshotLimitExceeded"
            | "PendingSnapshotLimitExceeded",
            _,
        ) => Kind::Throttled,
        (_, Some(429)) => Kind::Throttled,
        (_, Some(408 | 500..) | None) => Kind::Unclear,
        // An answer that cannot be read: it may have been yes.
        (_, Some(200..300)) => Kind::Unclear,
        _ => Kind::Refused,
    }
}

fn advice(failure: &Failure, action: &str) -> Option<String> {
    let advice = match &*failure.code {
        // AccessDenied is what other services that speak EC2's language say.
        "UnauthorizedOperation" | "AccessDenied" => {
            let action = denied_action(&failure.text).unwrap_or(action);
            return Some(format!(
                "allow {action}: the smallest policy is in docs/volumes.md"
            ));
        }
        "AuthFailure" | "InvalidClientTokenId" | "ExpiredToken" | "RequestExpired" => {
            "check the credentials (Secret, profile, role or AWS_* variables), the region, and the clock of the node"
        }
        "InvalidSnapshot.InUse" => {
            "deregister that image first (aws ec2 deregister-image), then delete the backup again"
        }
        "VolumeInUse" => "detach it first, or leave it to whoever uses it",
        "IdempotentParameterMismatch" => {
            "an earlier attempt of this restore has asked for this volume with another zone, key or tags: delete that volume, \
             or restore under another name"
        }
        "InvalidZone.NotFound" => "map the zone to one of this region: --zone-mappings",
        "SnapshotLimitExceeded" | "VolumeLimitExceeded" => {
            "delete what is not needed, or have the quota of the account raised"
        }
        "IncorrectState" => {
            "the snapshot is not complete, or archived; wait until it is, or restore it from the archive"
        }
        _ => failure.advice?,
    };
    Some(advice.to_owned())
}

/// The action that a refusal names: tags at creation need another one than the call is named after.
fn denied_action(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("not authorized to perform: ")?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let action = &rest[..end.unwrap_or(rest.len())];
    action.starts_with("ec2:").then_some(action)
}

/// How much longer something is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// How long to wait before the next attempt, after one failed `elapsed` after the first began; `None` when it was the last.
    pub fn next(&mut self, kind: Kind, elapsed: Duration) -> Option<Duration> {
        self.failures += 1;
        let wait = backoff(self.failures);
        let more = match kind {
            Kind::Throttled => elapsed + wait <= THROTTLED_FOR,
            Kind::Unclear => self.failures < ATTEMPTS && elapsed + wait <= UNCLEAR_FOR,
            Kind::Refused => false,
        };
        more.then_some(wait)
    }

    /// How many attempts have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_throttled_was_not_done_and_what_has_no_answer_may_have_been() {
        for (code, status, expected) in [
            ("RequestLimitExceeded", Some(503), Kind::Throttled),
            ("Throttling", Some(400), Kind::Throttled),
            (
                "SnapshotCreationPerVolumeRateExceeded",
                Some(400),
                Kind::Throttled,
            ),
            (
                "ConcurrentSnapshotLimitExceeded",
                Some(400),
                Kind::Throttled,
            ),
            ("", Some(429), Kind::Throttled),
            ("InternalError", Some(500), Kind::Unclear),
            ("Unavailable", Some(503), Kind::Unclear),
            ("", Some(504), Kind::Unclear),
            ("", Some(200), Kind::Unclear),
            ("", None, Kind::Unclear),
            ("UnauthorizedOperation", Some(403), Kind::Refused),
            ("InvalidVolume.NotFound", Some(400), Kind::Refused),
        ] {
            assert_eq!(kind(code, status), expected, "{code} {status:?}");
        }
    }

    #[test]
    fn patience_ends() {
        let mut patience = Patience::default();
        let mut elapsed = Duration::ZERO;
        while let Some(wait) = patience.next(Kind::Throttled, elapsed) {
            elapsed += wait;
        }
        assert!(elapsed <= THROTTLED_FOR && elapsed > THROTTLED_FOR - Duration::from_secs(10));

        let mut patience = Patience::default();
        let quick = std::iter::from_fn(|| patience.next(Kind::Unclear, Duration::ZERO));
        assert_eq!(quick.count() as u32, ATTEMPTS - 1);
        let mut patience = Patience::default();
        assert_eq!(patience.next(Kind::Unclear, UNCLEAR_FOR), None);
        assert_eq!(
            Patience::default().next(Kind::Refused, Duration::ZERO),
            None
        );
    }

    #[tokio::test]
    async fn that_there_are_no_credentials_is_said_in_one_sentence() {
        use aws_config::meta::credentials::CredentialsProviderChain;
        use aws_credential_types::provider::{ProvideCredentials, future};
        use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsError;

        #[derive(Debug)]
        struct Empty;
        impl ProvideCredentials for Empty {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("empty")))
            }
        }
        let chain = CredentialsProviderChain::first_try("Environment", Empty)
            .or_else("Ec2InstanceMetadata", Empty);
        let none = chain.provide_credentials().await.unwrap_err();
        let failed = |error: CredentialsError| {
            let error =
                SdkError::<DescribeSnapshotsError, HttpResponse>::construction_failure(error);
            let failure = Failure::new(&error);
            assert_eq!(failure.kind, Kind::Refused);
            failure
                .into_error("listing snapshots in r", "ec2:DescribeSnapshots")
                .to_string()
        };
        assert_eq!(
            failed(none),
            format!("listing snapshots in r: {NO_CREDENTIALS}")
        );
        let profile = failed(CredentialsError::not_loaded("profile `x` was not defined"));
        assert!(profile.contains("profile `x` was not defined"), "{profile}");
    }

    #[test]
    fn a_refusal_names_the_action_that_is_missing() {
        let failure = |code: &str, text: &str| Failure {
            kind: Kind::Refused,
            code: code.to_owned(),
            text: without_encoded(text),
            advice: None,
        };
        // As EC2 writes it.
        let text = "UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::1:user/u is not \
                    authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-central-1::snapshot/* because no \
                    identity-based policy allows the ec2:CreateTags action. Encoded authorization failure message: aBcD-_e (HTTP 403)";
        let error = failure("UnauthorizedOperation", text)
            .into_error("creating a snapshot of vol-1", "ec2:CreateSnapshot");
        let said = error.to_string();
        assert!(said.starts_with("creating a snapshot of vol-1: UnauthorizedOperation: "));
        assert!(said.ends_with(
            "allows the ec2:CreateTags action. (HTTP 403); allow ec2:CreateTags: the smallest policy is in docs/volumes.md"
        ));
        let brief = failure("UnauthorizedOperation", "You are not authorized")
            .into_error("deleting snap-1", "ec2:DeleteSnapshot");
        assert!(brief.to_string().contains("; allow ec2:DeleteSnapshot: "));
        let other = failure("InvalidParameterValue", "no").into_error("deleting snap-1", "ec2:X");
        assert_eq!(other.to_string(), "deleting snap-1: no");
    }
}
