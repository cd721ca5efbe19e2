//! The one place where the SDK's errors get their meaning.

use std::error::Error as StdError;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::super::spool::is_full;
use super::{Cause, Meaning};

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// What a failed request means, and what a person should read about it.
pub(super) fn cause<E>(error: &SdkError<E, HttpResponse>) -> Cause
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().code();
            let mut text = match (code, service.err().message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(only), None) | (None, Some(only)) => only.to_owned(),
                (None, None) => "the store refused".to_owned(),
            };
            text.push_str(&format!(" (HTTP {status}"));
            if let Some(id) = service.raw().headers().get("x-amz-request-id") {
                text.push_str(&format!(", request {id}"));
            }
            text.push(')');
            Cause::new(service_meaning(code, status), text)
        }
        SdkError::TimeoutError(_) => Cause::new(Meaning::Unreachable, "no answer in time"),
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            let text = format!("{} (HTTP {status})", chain_text(error));
            Cause::new(service_meaning(None, status), text)
        }
        other => {
            let source = match other {
                // The two outer layers only say "dispatch failure" and "io error".
                SdkError::DispatchFailure(failure) => {
                    failure.as_connector_error().and_then(StdError::source)
                }
                _ => None,
            };
            Cause::new(
                transport_meaning(other),
                chain_text(source.unwrap_or(other)),
            )
        }
    }
}

fn service_meaning(code: Option<&str>, status: u16) -> Meaning {
    match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Meaning::BucketMissing,
        ("NoSuchUpload", _) => Meaning::UploadGone,
        ("NoSuchKey" | "NoSuchVersion", _) => Meaning::NotFound,
        ("PreconditionFailed", _) | (_, 412) => Meaning::Precondition,
        ("ConditionalRequestConflict" | "OperationAborted", _) => Meaning::Conflict,
        (
            "AccessDenied"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed",
            _,
        ) => Meaning::Credentials,
        (
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        ) => Meaning::WrongRegion,
        // The second and third are MinIO's.
        ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _)
        | (_, 507) => Meaning::Full,
        ("NotImplemented", _) | (_, 501) => Meaning::Unsupported,
        (_, 404) => Meaning::NotFound,
        (_, 401 | 403) => Meaning::Credentials,
        (_, 409) => Meaning::Conflict,
        (_, 301 | 307) => Meaning::WrongRegion,
        (_, 408 | 429 | 500..) => Meaning::Unreachable,
        _ => Meaning::Other,
    }
}

fn transport_meaning<E>(error: &SdkError<E, HttpResponse>) -> Meaning
where
    E: StdError + 'static,
{
    let credentials = chain(error).find_map(|link| link.downcast_ref::<CredentialsError>());
    match credentials {
        // The service that gives credentials is slow: a retry may cure that.
        Some(CredentialsError::ProviderTimedOut(_)) => return Meaning::Unreachable,
        Some(_) => return Meaning::Credentials,
        None => {}
    }
    if chain(error)
        .filter_map(|link| link.downcast_ref::<rustls::Error>())
        .any(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
    {
        return Meaning::Untrusted;
    }
    // The spool under an upload: local, so no network to blame.
    if chain(error)
        .filter_map(|link| link.downcast_ref::<io::Error>())
        .any(is_full)
    {
        return Meaning::Full;
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_user() => Meaning::Other,
        SdkError::DispatchFailure(_) => Meaning::Unreachable,
        _ => Meaning::Other,
    }
}

/// An error and what is below it. An `io::Error` hides the error that it wraps behind that one's source.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// The texts of an error and what is below it, each thing said once.
pub(super) fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for link in chain(error) {
        // The SDK lists the credentials it looked for on lines of their own.
        let more = link.to_string().replace("\n ", "").replace('\n', " ");
        if more.is_empty() || text.ends_with(&more) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&more);
    }
    text
}
