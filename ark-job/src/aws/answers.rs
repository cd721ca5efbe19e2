//! What is seen of a service's answers, whatever the request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use jiff::Timestamp;

use super::chain_text;
use crate::log::Log;

/// Watches the answers: whether there was one, what the clock of the other side said, and what the SDK asks again. Clones watch
/// together.
#[derive(Clone, Debug, Default)]
pub struct Answers {
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
    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Says in `log` what is asked again; the first log stays.
    pub fn log_to(&self, log: &Log) {
        let _ = self.log.set(log.clone());
    }

    /// Warns in the log, if there is one.
    pub fn warn(&self, text: &str) {
        if let Some(log) = self.log.get() {
            log.warn(text);
        }
    }

    /// What the clock of the other side says now, since its first answer.
    pub fn clock(&self) -> Option<Timestamp> {
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
