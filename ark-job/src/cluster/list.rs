//! Streams all objects of a type, page by page, at one revision.
//!
//! What decides the speed (docs/benchmarks.md): the page size, because a page costs the API server work in proportion to
//! the objects that remain; and asking for the next page as soon as its token is known, so that the server works while
//! this page is read. A page that breaks off is asked for again, and what has been handed out is skipped.

use super::discover::ResourceType;
use super::{ANSWER_WITHIN, Backoff, Cluster, ClusterError, encode, get};
use crate::filter::Named;
use crate::item::{Item, ListScanner, ScanError, Span};
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::task::JoinHandle;

/// Most objects asked for in the first page (client-go's number): what one of them tells of their size is not enough to
/// ask for more.
const FIRST_LIMIT: u64 = 500;
/// Bytes aimed at in every later page.
const PAGE_BYTES: u64 = 9 << 19;
/// Bounds of a page: fewer cost round trips, more gain nothing.
const LIMITS: std::ops::RangeInclusive<u64> = 20..=10_000;
/// Objects that must have been seen before their size says how many fit the next page.
const SAMPLE: u64 = 16;

/// Which revision to list at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Exactly this one.
    Exact(String),
    /// Whatever is current.
    Now,
}

/// A list under way.
pub struct List<'a> {
    cluster: &'a Cluster,
    resource_type: &'a ResourceType,
    namespace: Option<String>,
    selector: Option<String>,
    scanner: ListScanner,
    page: Page,
    body: Option<Body>,
    early: Option<Early>,
    first_limit: u64,
    most: u64,
    may_look_ahead: bool,
    backoff: Backoff,
    spans: Vec<Span>,
    /// Items of this page handed out, and still to skip after it was asked for again.
    handed_out: u64,
    skip: u64,
    summary: Summary,
}

/// What a list has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects handed out.
    pub items: u64,
    /// Their length as JSON, bytes.
    pub bytes: u64,
    /// The revision of the first page.
    pub resource_version: Option<String>,
    /// The newer revision of the rest, when the first expired on the way.
    pub resumed_at: Option<String>,
}

/// Which page to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    First(At),
    Next { token: String, limit: u64 },
    None,
}

/// How far a step through the list went.
enum Advance {
    /// To the items in `spans`.
    Items,
    /// To the end of a page.
    PageEnd,
    /// To the end of the list.
    End,
}

/// The next page, asked for before this one has been read.
struct Early {
    page: Page,
    answer: JoinHandle<Result<Response<Body>, ClusterError>>,
}

impl Drop for Early {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

/// Items that have arrived together.
pub struct Batch<'a> {
    scanner: &'a ListScanner,
    spans: &'a [Span],
}

impl<'a> Batch<'a> {
    /// The items.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> {
        let scanner = self.scanner;
        self.spans.iter().map(move |span| scanner.item(span))
    }
}

impl<'a> List<'a> {
    /// Lists objects of `resource_type`, in `namespace` or all, that match `selector`.
    pub fn new(
        cluster: &'a Cluster,
        resource_type: &'a ResourceType,
        namespace: Option<&str>,
        selector: Option<&str>,
        at: At,
    ) -> List<'a> {
        List {
            cluster,
            resource_type,
            namespace: namespace.map(str::to_owned),
            selector: selector.map(str::to_owned),
            scanner: ListScanner::default(),
            page: Page::First(at),
            body: None,
            early: None,
            first_limit: FIRST_LIMIT,
            most: *LIMITS.end(),
            may_look_ahead: true,
            backoff: cluster.backoff(),
            spans: Vec::new(),
            handed_out: 0,
            skip: 0,
            summary: Summary::default(),
        }
    }

    /// With a first page that is not too large for objects like the one that was seen.
    #[must_use]
    pub fn like(mut self, stand: &Stand) -> List<'a> {
        self.first_limit = limit(stand.bytes).min(FIRST_LIMIT);
        self
    }

    /// What the list has come to so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// With no page of more objects than that.
    #[must_use]
    pub fn at_most(mut self, objects: u64) -> List<'a> {
        self.most = objects;
        self.first_limit = self.first_limit.min(objects);
        self
    }

    /// Whether the next page may be asked for before this one has been read, as it is unless said otherwise. Its body
    /// then has to be read soon: API servers end an answer that takes a minute.
    pub fn look_ahead(&mut self, may: bool) {
        self.may_look_ahead = may;
    }

    /// The next items, or `None` at the end of the list.
    ///
    /// # Errors
    /// When retries did not help: what has been handed out stays valid, the list is incomplete.
    pub async fn next(&mut self) -> Result<Option<Batch<'_>>, ClusterError> {
        loop {
            match self.advance().await? {
                Advance::Items => break,
                Advance::PageEnd => {}
                Advance::End => return Ok(None),
            }
        }
        Ok(Some(self.batch()))
    }

    /// The next items of this page, or `None` at its end: [`List::is_at_end`] says whether another follows.
    ///
    /// # Errors
    /// As [`List::next`].
    pub async fn next_of_page(&mut self) -> Result<Option<Batch<'_>>, ClusterError> {
        match self.advance().await? {
            Advance::Items => Ok(Some(self.batch())),
            Advance::PageEnd | Advance::End => Ok(None),
        }
    }

    /// Whether everything has been read.
    pub fn is_at_end(&self) -> bool {
        self.body.is_none() && self.page == Page::None
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            scanner: &self.scanner,
            spans: &self.spans,
        }
    }

    async fn advance(&mut self) -> Result<Advance, ClusterError> {
        loop {
            if self.body.is_none() {
                if self.page == Page::None {
                    return Ok(Advance::End);
                }
                self.open().await?;
            }
            match self.read().await {
                Ok(true) if self.spans.is_empty() => {}
                Ok(true) => return Ok(Advance::Items),
                Ok(false) => {
                    self.turn()?;
                    return Ok(Advance::PageEnd);
                }
                Err(error) => {
                    let error = self.pin(error)?;
                    self.backoff.after(error).await?;
                    self.body = None;
                    self.skip = self.handed_out;
                    self.handed_out = 0;
                }
            }
        }
    }

    /// Before a page that broke off is asked for again: its revision must be fixed, or skipping what has been handed
    /// out would skip the wrong objects.
    fn pin(&mut self, error: ClusterError) -> Result<ClusterError, ClusterError> {
        if self.page == Page::First(At::Now) && self.handed_out > 0 {
            let Some(version) = &self.scanner.head().resource_version else {
                return Err(error);
            };
            self.page = Page::First(At::Exact(version.clone()));
        }
        Ok(error)
    }

    /// Opens the page that is due: the early one if it is that, else a new request.
    async fn open(&mut self) -> Result<(), ClusterError> {
        if let Some(mut early) = self
            .early
            .take_if(|early| early.page.same_place(&self.page))
        {
            self.page = std::mem::replace(&mut early.page, Page::None);
            // An error is not looked at: the page is asked for again below, with retries.
            if let Ok(Ok(answer)) = (&mut early.answer).await {
                self.start(answer);
                return Ok(());
            }
        }
        loop {
            let answer = self
                .cluster
                .send(
                    get(&self.path(&self.page), "application/json"),
                    &self.doing(),
                )
                .await;
            match answer {
                Ok(answer) => {
                    self.start(answer);
                    return Ok(());
                }
                Err(error) if error.is_expired() && self.skip == 0 => self.resume(error)?,
                Err(error) => self.backoff.after(error).await?,
            }
        }
    }

    fn start(&mut self, answer: Response<Body>) {
        self.scanner.reset();
        self.body = Some(answer.into_body());
    }

    /// The revision has been compacted: goes on at the current one, which the summary then names.
    fn resume(&mut self, error: ClusterError) -> Result<(), ClusterError> {
        self.page = match (&self.page, &error) {
            (
                Page::Next { limit, .. },
                ClusterError::Status {
                    next: Some(token), ..
                },
            ) => Page::Next {
                token: token.clone(),
                limit: *limit,
            },
            (Page::First(At::Exact(_)), _) => Page::First(At::Now),
            _ => return Err(error),
        };
        Ok(())
    }

    /// Reads what has arrived of the page into `spans`; false at its end.
    async fn read(&mut self) -> Result<bool, ClusterError> {
        self.spans.clear();
        let piece = loop {
            let Some(body) = &mut self.body else {
                return Ok(false);
            };
            match tokio::time::timeout(ANSWER_WITHIN, body.frame()).await {
                Err(elapsed) => return Err(self.broken(Box::new(elapsed))),
                Ok(None) => {
                    let whole = self.scanner.finish().map(|_| false);
                    return whole.map_err(|error| self.not_a_list(error));
                }
                Ok(Some(Err(error))) => return Err(self.broken(Box::new(error))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => break piece,
                    Err(_trailers) => {}
                },
            }
        };
        self.scan(&piece)?;
        self.ask_early();
        Ok(true)
    }

    fn scan(&mut self, piece: &Bytes) -> Result<(), ClusterError> {
        self.scanner.feed(piece);
        loop {
            let span = match self.scanner.next_item() {
                Ok(Some(span)) => span,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.not_a_list(error)),
            };
            if self.skip > 0 {
                // Handed out before the page broke off: the token pins revision and order.
                self.skip -= 1;
            } else {
                self.summary.items += 1;
                self.summary.bytes += self.scanner.item(&span).json.len() as u64;
                self.spans.push(span);
            }
            self.handed_out += 1;
        }
    }

    /// Asks for the next page as soon as its token and the size of the objects are known.
    fn ask_early(&mut self) {
        let Some(token) = &self.scanner.head().next else {
            return;
        };
        if !self.may_look_ahead || self.early.is_some() || self.summary.items < SAMPLE {
            return;
        }
        let page = Page::Next {
            token: token.clone(),
            limit: self.next_limit(),
        };
        let (cluster, request, doing) = (
            self.cluster.clone(),
            get(&self.path(&page), "application/json"),
            self.doing(),
        );
        let answer = tokio::spawn(async move { cluster.send(request, &doing).await });
        self.early = Some(Early { page, answer });
    }

    fn next_limit(&self) -> u64 {
        limit(self.summary.bytes / self.summary.items.max(1)).min(self.most)
    }

    /// The page has been read to its end: makes the next one due.
    fn turn(&mut self) -> Result<(), ClusterError> {
        if self.skip > 0 {
            return Err(self.not_a_list(ScanError::NotAList(
                "a page asked for again is shorter than before",
            )));
        }
        let head = self.scanner.head().clone();
        if self.summary.resource_version.is_none() {
            self.summary.resource_version = head.resource_version;
        } else if self.summary.resource_version != head.resource_version
            && head.resource_version.is_some()
        {
            self.summary.resumed_at = head.resource_version;
        }
        self.body = None;
        self.handed_out = 0;
        self.backoff = self.cluster.backoff();
        self.page = match head.next {
            Some(token) => Page::Next {
                token,
                limit: self.next_limit(),
            },
            None => Page::None,
        };
        Ok(())
    }

    fn path(&self, page: &Page) -> String {
        let mut path = self.resource_type.path(self.namespace.as_deref());
        path.push_str(&match page {
            Page::First(At::Exact(version)) => {
                format!(
                    "?limit={}&resourceVersion={}&resourceVersionMatch=Exact",
                    self.first_limit,
                    encode(version)
                )
            }
            Page::First(At::Now) | Page::None => format!("?limit={}", self.first_limit),
            Page::Next { token, limit } => format!("?limit={limit}&continue={}", encode(token)),
        });
        if let Some(selector) = &self.selector {
            path.push_str("&labelSelector=");
            path.push_str(&encode(selector));
        }
        path
    }

    fn doing(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!(
                "listing {} in namespace {namespace}",
                self.resource_type.group_resource()
            ),
            None => format!("listing {}", self.resource_type.group_resource()),
        }
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClusterError {
        ClusterError::Unreachable {
            doing: self.doing(),
            source,
        }
    }

    /// A body that ends early may do better next time; one that is something else will not.
    fn not_a_list(&self, error: ScanError) -> ClusterError {
        match error {
            ScanError::Truncated => self.broken(Box::new(error)),
            error => ClusterError::Malformed {
                doing: self.doing(),
                source: Box::new(error),
            },
        }
    }
}

impl Page {
    /// Whether both are the same place in the list; the limit may differ.
    fn same_place(&self, other: &Page) -> bool {
        match (self, other) {
            (Page::Next { token: a, .. }, Page::Next { token: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

/// How many objects of that size make a page.
fn limit(bytes: u64) -> u64 {
    (PAGE_BYTES / bytes.max(1)).clamp(*LIMITS.start(), *LIMITS.end())
}

/// Where a type stands, as a list of one of its objects tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// The revision of the list.
    pub version: Option<String>,
    /// How many objects there are, when the server says.
    pub objects: Option<u64>,
    /// About how long the object is, bytes.
    pub bytes: u64,
}

/// Lists one object of the type, to see where the type stands.
///
/// # Errors
/// As [`Cluster::get`].
pub async fn stand(
    cluster: &Cluster,
    resource_type: &ResourceType,
    at: At,
) -> Result<Stand, ClusterError> {
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(default)]
        metadata: ProbeMetadata,
        #[serde(default)]
        items: Option<Vec<Box<serde_json::value::RawValue>>>,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ProbeMetadata {
        #[serde(default)]
        resource_version: Option<String>,
        #[serde(default, rename = "continue")]
        next: Option<String>,
        #[serde(default)]
        remaining_item_count: Option<u64>,
    }
    let mut path = format!("{}?limit=1", resource_type.path(None));
    if let At::Exact(version) = at {
        path.push_str("&resourceVersionMatch=Exact&resourceVersion=");
        path.push_str(&encode(&version));
    }
    let doing = format!("listing {}", resource_type.group_resource());
    let Probe { metadata, items } = cluster.get(&path, &doing).await?;
    let items = items.unwrap_or_default();
    let is_last = metadata.next.is_none_or(|token| token.is_empty());
    let remaining = metadata.remaining_item_count.or(is_last.then_some(0));
    Ok(Stand {
        version: metadata.resource_version,
        objects: remaining.map(|remaining| remaining + items.len() as u64),
        bytes: items.iter().map(|item| item.get().len() as u64).sum(),
    })
}
