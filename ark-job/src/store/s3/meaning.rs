//! The one place where the SDK's errors get their meaning.

use std::error::Error as StdError;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::super::spool::is_full;
use super::{Cause, Meaning};
use crate::aws::{chain, text};

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
    let meaning = match error {
        SdkError::ServiceError(service) => {
            service_meaning(service.err().code(), service.raw().status().as_u16())
        }
        SdkError::TimeoutError(_) => Meaning::Unreachable,
        SdkError::ResponseError(response) => {
            service_meaning(None, response.raw().status().as_u16())
        }
        other => transport_meaning(other),
    };
    Cause::new(meaning, text(error))
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
