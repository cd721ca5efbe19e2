//! A proxy that breaks things on purpose, in front of the real S3, EC2 or API server.
//!
//! It passes bodies on as they come, keeps the Host header (S3 signatures cover it), records every request, and applies
//! the first [`Rule`] that wants a request. It speaks HTTP/1.1; upgraded connections (exec) pass.
//!
//! ```no_run
//! # use ark_tests::{S3Server, FaultProxy, Rule, Victim};
//! # async fn example() -> anyhow::Result<()> {
//! let s3 = S3Server::start().await?;
//! let proxy = FaultProxy::start(s3.url()).await?;
//! let job = Victim::default();
//! let killed = proxy.add(Rule::on(|request| request.is_write()).only(3).kill_before(&job));
//! // … start the job with proxy.url() as its endpoint, then job.is(child.id()) …
//! assert_eq!(killed.applied(), 1);
//! # Ok(()) }
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{ControlPlane, background, process};

const POISON: &str = "no thread panics while it holds this lock";

/// A request that the proxy saw.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counted from 1, over all requests.
    pub number: u64,
    /// GET, PUT, …
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// What follows the question mark, or nothing.
    pub query: String,
    /// The body, if it is a form (EC2's requests are: `Action=CreateSnapshot&…`); else empty.
    pub form: String,
    /// As the client sent them.
    pub headers: HeaderMap,
    /// When it arrived.
    pub at: Instant,
    /// What the client was answered; none while it waits, and when its connection was reset.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body so far.
    pub sent: u64,
    /// Bytes of the answer's body so far.
    pub received: u64,
}

impl Request {
    /// Whether it may change something: PUT, POST, PATCH, DELETE.
    pub fn is_write(&self) -> bool {
        matches!(
            self.method,
            Method::PUT | Method::POST | Method::PATCH | Method::DELETE
        )
    }
}

/// Which of the requests that match, counted from 1.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Every,
    Only(u64),
    UpTo(u64),
    From(u64),
}

type Hook = Arc<dyn Fn(&Request) + Send + Sync>;

#[derive(Clone)]
enum Action {
    Pass,
    Answer(StatusCode, Vec<(HeaderName, HeaderValue)>, Bytes),
    ResetBefore,
    ResetAfter,
    Delay(Duration),
    Hold(Gate),
    TruncateRequest(u64),
    TruncateAnswer(u64),
    FlipBit(u64),
    ChangeLength(i64),
    ShiftDate(i64),
    Rewrite(Arc<dyn Fn(String) -> String + Send + Sync>),
}

/// What happens to which requests. Without more said, a rule takes every match and only passes it on.
#[derive(Clone)]
pub struct Rule {
    matches: Arc<dyn Fn(&Request) -> bool + Send + Sync>,
    turn: Turn,
    action: Action,
    before: Option<Hook>,
    after: Option<Hook>,
}

impl Rule {
    /// A rule for the requests that the predicate takes.
    pub fn on(matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Rule {
            matches: Arc::new(matches),
            turn: Turn::Every,
            action: Action::Pass,
            before: None,
            after: None,
        }
    }

    /// A rule for every request.
    pub fn on_all() -> Self {
        Rule::on(|_| true)
    }

    /// Only the n-th match, counted from 1.
    pub fn only(mut self, n: u64) -> Self {
        self.turn = Turn::Only(n);
        self
    }

    /// The first n matches.
    pub fn up_to(mut self, n: u64) -> Self {
        self.turn = Turn::UpTo(n);
        self
    }

    /// The n-th match and all later ones.
    pub fn from(mut self, n: u64) -> Self {
        self.turn = Turn::From(n);
        self
    }

    /// Answered here, not passed on; the request's body is read and thrown away, as servers do that close politely.
    pub fn answer(
        mut self,
        status: u16,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Self {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a test's header value is valid"),
            )
        });
        let status = StatusCode::from_u16(status).expect("a test's status is valid");
        self.action = Action::Answer(status, headers.collect(), body.into());
        self
    }

    /// The connection is reset, and the server never sees the request.
    pub fn reset(mut self) -> Self {
        self.action = Action::ResetBefore;
        self
    }

    /// The server does what was asked, and the connection is reset in place of its answer.
    pub fn lose_answer(mut self) -> Self {
        self.action = Action::ResetAfter;
        self
    }

    /// Passed on only after that time.
    pub fn delay(mut self, time: Duration) -> Self {
        self.action = Action::Delay(time);
        self
    }

    /// Passed on only when the gate is open.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.action = Action::Hold(gate.clone());
        self
    }

    /// The connection breaks, on both sides, after that many bytes of the request's body.
    pub fn truncate_request(mut self, bytes: u64) -> Self {
        self.action = Action::TruncateRequest(bytes);
        self
    }

    /// The connection breaks after that many bytes of the answer's body.
    pub fn truncate_answer(mut self, bytes: u64) -> Self {
        self.action = Action::TruncateAnswer(bytes);
        self
    }

    /// The lowest bit of that byte (from 0) of the answer's body is flipped.
    pub fn flip_bit(mut self, byte: u64) -> Self {
        self.action = Action::FlipBit(byte);
        self
    }

    /// The answer's Content-Length is changed: shorter loses the end silently, longer breaks the connection.
    pub fn change_length(mut self, by: i64) -> Self {
        self.action = Action::ChangeLength(by);
        self
    }

    /// The answer's Date is so many seconds later, or earlier: a server whose clock is wrong.
    pub fn shift_date(mut self, seconds: i64) -> Self {
        self.action = Action::ShiftDate(seconds);
        self
    }

    /// The answer's body is another text.
    pub fn rewrite(mut self, text: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        self.action = Action::Rewrite(Arc::new(text));
        self
    }

    /// Runs before the request goes to the server. It holds up everything that passes this process's proxies: be quick.
    pub fn before(mut self, hook: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        self.before = Some(Arc::new(hook));
        self
    }

    /// Runs when the server has answered, before the client hears of it. Be quick here, too.
    pub fn after(mut self, hook: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        self.after = Some(Arc::new(hook));
        self
    }

    /// Kills the process (SIGKILL) before the request reaches the server, which never sees it.
    pub fn kill_before(self, victim: &Victim) -> Self {
        let victim = victim.clone();
        self.before(move |_| victim.kill()).reset()
    }

    /// Kills the process (SIGKILL) when the server has done what was asked, before the process hears of it.
    pub fn kill_after(self, victim: &Victim) -> Self {
        let victim = victim.clone();
        self.after(move |_| victim.kill()).lose_answer()
    }
}

/// Holds requests until a test has done something meanwhile.
#[derive(Clone)]
pub struct Gate(Arc<tokio::sync::watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Gate(Arc::new(tokio::sync::watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets through what is held, and all that comes.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        let mut receiver = self.0.subscribe();
        // The sender is ours, so it is not gone.
        let _ = receiver.wait_for(|open| *open).await;
    }
}

/// The process that a rule kills; named after it was started, which is after the rule was made.
#[derive(Clone, Default)]
pub struct Victim(Arc<AtomicU32>);

impl Victim {
    /// From now on this process.
    pub fn is(&self, process_id: u32) {
        self.0.store(process_id, Ordering::SeqCst);
    }

    /// Kills it and waits until it is dead; without a process named, nothing.
    pub fn kill(&self) {
        let process_id = self.0.load(Ordering::SeqCst);
        if process_id != 0
            && let Err(error) = process::kill_and_wait(process_id)
        {
            eprintln!("warning: {error:#}");
        }
    }
}

/// A rule in a proxy: tells how often it was met.
#[derive(Clone)]
pub struct Added {
    rule: Rule,
    matched: Arc<AtomicU64>,
    applied: Arc<AtomicU64>,
}

impl Added {
    /// How many requests the predicate took.
    pub fn matched(&self) -> u64 {
        self.matched.load(Ordering::SeqCst)
    }

    /// How many of them had their turn and met the fault.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }
}

/// A running proxy on loopback; ends when dropped.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: Upstream,
    rules: RwLock<Vec<Added>>,
    requests: Mutex<Vec<Arc<Mutex<Request>>>>,
}

struct Upstream {
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl FaultProxy {
    /// Starts one in front of a server at `http://HOST:PORT`.
    pub async fn start(upstream: &str) -> Result<Self> {
        let authority = upstream
            .strip_prefix("http://")
            .with_context(|| format!("{upstream} is not http"))?;
        let upstream = Upstream {
            authority: authority.trim_end_matches('/').into(),
            tls: None,
        };
        Self::start_with(upstream, None).await
    }

    /// Starts one that speaks TLS, in front of a server at `http://HOST:PORT`, with a certificate of an authority of its own in
    /// `directory` ([`crate::certificates::write`]): `ca.crt`.
    pub async fn start_tls(upstream: &str, directory: &Path) -> Result<Self> {
        crate::certificates::write(directory)?;
        let authority = upstream
            .strip_prefix("http://")
            .with_context(|| format!("{upstream} is not http"))?;
        let upstream = Upstream {
            authority: authority.trim_end_matches('/').into(),
            tls: None,
        };
        let (certificate, key) = (
            directory.join("apiserver.crt"),
            directory.join("apiserver.key"),
        );
        Self::start_with(upstream, Some(acceptor(&certificate, &key)?)).await
    }

    /// Starts one in front of a cluster's API server.
    ///
    /// It shows the API server's own certificate, so that a kubeconfig or a pod that uses it differs only in the
    /// address: [`ControlPlane::kubeconfig_for`], or KUBERNETES_SERVICE_HOST and _PORT in a pod's environment.
    pub async fn start_before(cluster: &ControlPlane) -> Result<Self> {
        let authority = cluster
            .url()
            .strip_prefix("https://")
            .with_context(|| format!("{} is not https", cluster.url()))?;
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let (certificate, key) = cluster.certificate()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(
            cluster.certificate_authority()?,
        )?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let connector = TlsConnector::from(Arc::new(
            connector
                .with_root_certificates(roots)
                .with_no_client_auth(),
        ));
        let acceptor = acceptor(&certificate, &key)?;
        let tls = Some((connector, ServerName::try_from(host.to_string())?));
        Self::start_with(
            Upstream {
                authority: authority.into(),
                tls,
            },
            Some(acceptor),
        )
        .await
    }

    async fn start_with(upstream: Upstream, tls: Option<TlsAcceptor>) -> Result<Self> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            upstream,
            rules: RwLock::default(),
            requests: Mutex::default(),
        });
        let (started, port) = tokio::sync::oneshot::channel();
        let serving = shared.clone();
        let accepting = background::spawn(async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let port = listener
                .as_ref()
                .map_err(|error| anyhow!("{error}"))
                .and_then(|listener| Ok(listener.local_addr()?.port()));
            let _ = started.send(port);
            let Ok(listener) = listener else { return };
            // Connections end with the task that accepts them: a dropped proxy is a server that is gone.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(serve(stream, tls.clone(), serving.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        let port = port
            .await
            .context("the proxy did not start")?
            .context("listening")?;
        Ok(FaultProxy {
            url: format!("{scheme}://127.0.0.1:{port}"),
            shared,
            accepting,
        })
    }

    /// The address for the client, `http://127.0.0.1:PORT` (https in front of an API server).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a rule after those there are. Of several whose turn it is, the first applies.
    pub fn add(&self, rule: Rule) -> Added {
        let added = Added {
            rule,
            matched: Arc::default(),
            applied: Arc::default(),
        };
        self.shared.rules.write().expect(POISON).push(added.clone());
        added
    }

    /// Removes all rules.
    pub fn clear_rules(&self) {
        self.shared.rules.write().expect(POISON).clear();
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared
            .requests
            .lock()
            .expect(POISON)
            .iter()
            .map(|request| request.lock().expect(POISON).clone())
            .collect()
    }

    /// How many requests so far the predicate takes.
    pub fn count(&self, matches: impl Fn(&Request) -> bool) -> usize {
        self.requests()
            .iter()
            .filter(|request| matches(request))
            .count()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.requests.lock().expect(POISON).clear();
    }
}

/// What speaks TLS with that certificate.
fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let certificate = vec![CertificateDer::from_pem_file(certificate)?];
    let server = server.with_single_cert(certificate, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A body on its way, or a form, which was read before.
type MaybeForm = Either<Incoming, Form>;

/// A form, and its body.
struct Form(String, Full<Bytes>);

impl Body for Form {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.1).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.1.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.1.size_hint()
    }
}

/// Reads the body if it is a form, for rules that look into it.
async fn with_form(request: hyper::Request<Incoming>) -> Result<hyper::Request<MaybeForm>> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Ok(request.map(MaybeForm::Left));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let form = Form(text, Full::new(body));
    Ok(hyper::Request::from_parts(parts, MaybeForm::Right(form)))
}

type AnyBody = BoxBody<Bytes, anyhow::Error>;

/// Serves one client connection over at most one connection to the server at a time.
async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    let _ = stream.set_nodelay(true);
    let client = Client {
        stream,
        reset: reset.clone(),
    };
    let server: Arc<tokio::sync::Mutex<Option<SendRequest<AnyBody>>>> = Arc::default();
    let service = hyper::service::service_fn(move |request| {
        let (shared, server, reset) = (shared.clone(), server.clone(), reset.clone());
        async move { exchange(request, &shared, &server, &reset).await }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.preserve_header_case(true);
    // An error here is a client that went away, or a fault of ours.
    match tls {
        None => drop(
            builder
                .serve_connection(TokioIo::new(client), service)
                .with_upgrades()
                .await,
        ),
        Some(tls) => {
            if let Ok(client) = tls.accept(client).await {
                let _ = builder
                    .serve_connection(TokioIo::new(client), service)
                    .with_upgrades()
                    .await;
            }
        }
    }
}

/// One request from the client to the server and back, with what the rules do to it.
async fn exchange(
    request: hyper::Request<Incoming>,
    shared: &Shared,
    server: &tokio::sync::Mutex<Option<SendRequest<AnyBody>>>,
    reset: &AtomicBool,
) -> Result<hyper::Response<AnyBody>> {
    let mut request = with_form(request).await?;
    let record = shared.record(&request);
    let seen = record.lock().expect(POISON).clone();
    let rule = shared.rule_for(&seen);
    let action = rule
        .as_ref()
        .map_or(Action::Pass, |rule| rule.action.clone());
    let broken = |what: &str| {
        reset.store(true, Ordering::SeqCst);
        anyhow!("{what}, as a rule wants")
    };

    if let Some(before) = rule.as_ref().and_then(|rule| rule.before.as_ref()) {
        before(&seen);
    }
    match &action {
        Action::ResetBefore => return Err(broken("reset before the request was passed on")),
        Action::Delay(time) => tokio::time::sleep(*time).await,
        Action::Hold(gate) => gate.opened().await,
        Action::Answer(status, headers, body) => {
            // A client that cannot send on would take the answer for a broken connection.
            let _ = request.body_mut().collect().await;
            record.lock().expect(POISON).status = Some(*status);
            let mut response = hyper::Response::new(full(body.clone()));
            *response.status_mut() = *status;
            response.headers_mut().extend(headers.iter().cloned());
            return Ok(response);
        }
        _ => {}
    }

    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let limit = if let Action::TruncateRequest(bytes) = action {
        Fault::Break(bytes)
    } else {
        Fault::None
    };
    let counter = record.clone();
    let request = request.map(|body| {
        let count = move |bytes| counter.lock().expect(POISON).sent += bytes;
        Passing {
            body,
            passed: 0,
            fault: limit,
            count: Box::new(count),
            flushing: None,
        }
        .boxed()
    });
    let answer = shared.upstream.send(request, server).await;
    if let Action::TruncateRequest(_) = action {
        return Err(broken("reset in the middle of the request"));
    }
    let mut answer = answer?;

    if let Some(after) = rule.as_ref().and_then(|rule| rule.after.as_ref()) {
        after(&seen);
    }
    if let Action::ResetAfter = action {
        // The server's work is done when its whole answer is there.
        let _ = answer.into_body().collect().await;
        return Err(broken("reset in place of the answer"));
    }
    record.lock().expect(POISON).status = Some(answer.status());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut answer);
        if let Some(near) = upgrade {
            tokio::spawn(async move {
                if let (Ok(near), Ok(far)) = (near.await, far.await) {
                    let _ = tokio::io::copy_bidirectional(
                        &mut TokioIo::new(near),
                        &mut TokioIo::new(far),
                    )
                    .await;
                }
            });
        }
        return Ok(answer.map(|_| full(Bytes::new())));
    }
    if let Action::ShiftDate(seconds) = action {
        let date = answer
            .headers()
            .get(header::DATE)
            .context("the server gives no Date")?;
        let date = jiff::fmt::rfc2822::parse(date.to_str()?)?.timestamp();
        let date = date + jiff::SignedDuration::from_secs(seconds);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        answer
            .headers_mut()
            .insert(header::DATE, HeaderValue::from_str(&date)?);
    }
    if let Action::Rewrite(rewrite) = &action {
        let (mut parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = rewrite(String::from_utf8_lossy(&body).into_owned());
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        return Ok(hyper::Response::from_parts(parts, full(body.into())));
    }
    let mut fault = match action {
        Action::TruncateAnswer(bytes) => Fault::Break(bytes),
        Action::FlipBit(byte) => Fault::Flip(byte),
        _ => Fault::None,
    };
    if let Action::ChangeLength(by) = action {
        let length: i64 = answer
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        if by > 0 {
            // Else hyper, which has sent all there is, would leave the client waiting for the rest.
            fault = Fault::Break(length.unsigned_abs());
        }
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        answer.headers_mut().insert(
            header::CONTENT_LENGTH,
            HeaderValue::from((length + by).max(0)),
        );
    }
    Ok(answer.map(|body| {
        let count = move |bytes| record.lock().expect(POISON).received += bytes;
        Passing {
            body,
            passed: 0,
            fault,
            count: Box::new(count),
            flushing: None,
        }
        .boxed()
    }))
}

impl Shared {
    fn record(&self, request: &hyper::Request<MaybeForm>) -> Arc<Mutex<Request>> {
        let mut requests = self.requests.lock().expect(POISON);
        let record = Arc::new(Mutex::new(Request {
            number: requests.len() as u64 + 1,
            method: request.method().clone(),
            path: request.uri().path().into(),
            query: request.uri().query().unwrap_or_default().into(),
            form: match request.body() {
                MaybeForm::Left(_) => String::new(),
                MaybeForm::Right(form) => form.0.clone(),
            },
            headers: request.headers().clone(),
            at: Instant::now(),
            status: None,
            sent: 0,
            received: 0,
        }));
        requests.push(record.clone());
        record
    }

    fn rule_for(&self, request: &Request) -> Option<Rule> {
        let mut chosen: Option<&Added> = None;
        let rules = self.rules.read().expect(POISON);
        // Every rule counts its matches, also those that another rule gets.
        for added in rules.iter().filter(|added| (added.rule.matches)(request)) {
            let number = added.matched.fetch_add(1, Ordering::SeqCst) + 1;
            let its_turn = match added.rule.turn {
                Turn::Every => true,
                Turn::Only(n) => number == n,
                Turn::UpTo(n) => number <= n,
                Turn::From(n) => number >= n,
            };
            if its_turn && chosen.is_none() {
                chosen = Some(added);
            }
        }
        chosen.map(|added| {
            added.applied.fetch_add(1, Ordering::SeqCst);
            added.rule.clone()
        })
    }
}

impl Upstream {
    async fn send(
        &self,
        request: hyper::Request<AnyBody>,
        server: &tokio::sync::Mutex<Option<SendRequest<AnyBody>>>,
    ) -> Result<hyper::Response<Incoming>> {
        let mut server = server.lock().await;
        // One that the server closed between two requests is replaced: nothing of this request is lost.
        let reused = match server.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match reused {
            Some(sender) => sender,
            None => self
                .connect()
                .await
                .with_context(|| format!("connecting to {}", self.authority))?,
        };
        let answer = sender.send_request(request).await?;
        *server = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<AnyBody>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                handshake(connector.connect(name.clone(), stream).await?).await
            }
        }
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<AnyBody>> {
    let builder = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .to_owned();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// One request to a plain HTTP server whose answer is JSON.
pub(crate) async fn request_json(request: http::Request<String>) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&request_bytes(request).await?)?)
}

/// One request to a plain HTTP server.
pub(crate) async fn request_bytes(request: http::Request<String>) -> Result<Bytes> {
    let authority = request
        .uri()
        .authority()
        .context("the URL has no host")?
        .to_string();
    let mut sender = Upstream {
        authority: authority.clone(),
        tls: None,
    }
    .connect()
    .await?;
    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .parse()?;
    parts
        .headers
        .insert(header::HOST, HeaderValue::from_str(&authority)?);
    let answer = sender
        .send_request(hyper::Request::from_parts(parts, full(body.into())))
        .await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

fn full(body: Bytes) -> AnyBody {
    Full::new(body).map_err(|never| match never {}).boxed()
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    Break(u64),
    Flip(u64),
}

/// A body on its way through: counted, and broken where a rule wants.
struct Passing<B> {
    body: B,
    passed: u64,
    fault: Fault,
    count: Box<dyn Fn(u64) + Send + Sync>,
    /// Runs between the last bytes and the break, so that they are sent first.
    flushing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<B> Body for Passing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Fault::Break(at) = self.fault
            && self.passed >= at
        {
            let flushing = self
                .flushing
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(20))));
            ready!(flushing.as_mut().poll(context));
            return Poll::Ready(Some(Err(anyhow!(
                "broken after {at} bytes, as a rule wants"
            ))));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(anyhow!(error.into())))),
            Some(Ok(frame)) => frame,
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        match self.fault {
            Fault::Break(at) => {
                data.truncate(usize::try_from(at - self.passed).unwrap_or(usize::MAX))
            }
            Fault::Flip(at) if (self.passed..self.passed + data.len() as u64).contains(&at) => {
                let mut flipped = data.to_vec();
                flipped[(at - self.passed) as usize] ^= 1;
                data = flipped.into();
            }
            _ => {}
        }
        self.passed += data.len() as u64;
        (self.count)(data.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !matches!(self.fault, Fault::Break(_))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The client's connection, which can end with a reset instead of a close.
struct Client {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.reset.load(Ordering::SeqCst) {
            // A FIN first would tell the client of an orderly end.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
