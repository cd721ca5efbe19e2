//! What people read of an error of an SDK. What it means is decided where the service is known.

use std::error::Error as StdError;
use std::io;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The names that services have for the number of a request, for those who ask their support.
const REQUEST_ID: [&str; 2] = ["x-amz-request-id", "x-amzn-requestid"];

/// What a person should read about a failed request.
pub fn text<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let mut text = match (service.err().code(), service.err().message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(only), None) | (None, Some(only)) => only.to_owned(),
                (None, None) => "the request was refused".to_owned(),
            };
            text.push_str(&format!(" (HTTP {status}"));
            let headers = service.raw().headers();
            if let Some(id) = REQUEST_ID.iter().find_map(|name| headers.get(*name)) {
                text.push_str(&format!(", request {id}"));
            }
            text.push(')');
            text
        }
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            format!("{} (HTTP {status})", chain_text(error))
        }
        other => {
            let source = match other {
                // The two outer layers only say "dispatch failure" and "io error".
                SdkError::DispatchFailure(failure) => {
                    failure.as_connector_error().and_then(StdError::source)
                }
                _ => None,
            };
            chain_text(source.unwrap_or(other))
        }
    }
}

/// An error and what is below it. An `io::Error` hides the error that it wraps behind that one's source.
pub fn chain<'a>(
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
pub fn chain_text(error: &(dyn StdError + 'static)) -> String {
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
