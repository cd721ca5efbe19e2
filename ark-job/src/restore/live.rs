//! What the cluster already has of one type: a hint, so that what is there as it should be costs no request.
//!
//! A task reads the type's LIST, whose order is that of the archive, and keeps of each object the key and a digest. It is
//! a page or two ahead of whoever asks and reads every page to its end at once: a restore may take an hour, but an API
//! server ends an answer that takes a minute. So memory is bounded as well, to less than 2 MiB.
//!
//! The answers are hints. The list is older than the moment they are used, so a create that meets an object, or an
//! update that meets a change, decides. Where the list cannot be had or trusted the hint is [`Hint::Unknown`]; nothing
//! fails for that.

use super::compare::Digest;
use crate::cluster::discover::ResourceType;
use crate::cluster::list::{At, List};
use crate::cluster::{Cluster, ClusterError};
use crate::filter::Named;
use crate::item::ScanError;
use crate::lean;
use crate::log::Log;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

/// Most objects of a page: with keys of 60 bytes, 400 KB of entries.
const PAGE_OBJECTS: u64 = 5_000;
/// Pages read and not yet asked about: one in use, one ready.
const PAGES: usize = 2;
/// JSON of live objects that is digested in one go, bytes: enough to be worth handing over to another thread.
const PIECE: usize = 256 << 10;

/// What is known of an object in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It was not there.
    Absent,
    /// It was there.
    Present {
        /// Of the normalised object.
        digest: Digest,
    },
    /// Ask.
    Unknown,
}

/// Which objects are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of all namespaces, or a type without.
    Everywhere,
    /// Those of this one.
    Namespace(String),
}

/// The list of one type, to be asked about keys in ascending order.
#[derive(Debug)]
pub struct Live {
    messages: mpsc::UnboundedReceiver<Message>,
    reader: Option<JoinHandle<()>>,
    entries: Entries,
    at: usize,
    asked: String,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    /// More entries may come.
    Reading,
    /// All have come.
    Complete,
    /// Nothing can be said any more.
    Lost,
}

#[derive(Debug)]
enum Message {
    Entries(Entries),
    /// A page has been handed over: another may be read once this has been taken.
    Page(OwnedSemaphorePermit),
    Complete,
}

/// Keys and digests of objects, in one piece of memory each.
#[derive(Debug, Default)]
struct Entries {
    keys: String,
    /// Where each key ends, and its object's digest; none when nothing can be said of it.
    entries: Vec<(u32, Option<Digest>)>,
}

/// Why the list is of no use, or no longer.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Object(#[from] ScanError),
    #[error("the list is not sorted")]
    Unsorted,
    #[error("an object cannot be digested")]
    Digest(#[from] tokio::task::JoinError),
}

impl Live {
    /// Starts to list the objects of a type. `digest` is given each, with its kind and apiVersion, on another thread;
    /// none where nothing shall be said about an object. One on its way out is not given: ask.
    ///
    /// Nothing is listed for types that do not have the verb, nor anything for a restore of few objects: then creating,
    /// and asking about what exists, costs less. That is for the caller to know.
    pub fn new(
        cluster: &Cluster,
        log: &Log,
        resource_type: &ResourceType,
        scope: Scope,
        digest: impl Fn(Value) -> Option<Digest> + Send + Sync + 'static,
    ) -> Live {
        let (sender, messages) = mpsc::unbounded_channel();
        let can_list = resource_type.verbs.iter().any(|verb| verb == "list");
        let reader = can_list.then(|| {
            let reader = Reader {
                cluster: cluster.clone(),
                resource_type: Arc::new(resource_type.clone()),
                scope,
                digest: Arc::new(digest),
                sender,
                last_key: String::new(),
            };
            tokio::spawn(reader.read(log.clone()))
        });
        Live {
            messages,
            state: match reader {
                Some(_) => State::Reading,
                None => State::Lost,
            },
            reader,
            entries: Entries::default(),
            at: 0,
            asked: String::new(),
        }
    }

    /// What is known of the object with this key: `namespace/name`, or the name of one without a namespace.
    ///
    /// Keys have to come in the order of their bytes; after one that is lower than the one before, every answer is
    /// [`Hint::Unknown`].
    pub async fn look_up(&mut self, key: &str) -> Hint {
        if key < self.asked.as_str() {
            self.lose();
        }
        key.clone_into(&mut self.asked);
        loop {
            if self.state == State::Lost {
                return Hint::Unknown;
            }
            while let Some((found, digest)) = self.entries.get(self.at) {
                match found.cmp(key) {
                    std::cmp::Ordering::Less => self.at += 1,
                    std::cmp::Ordering::Equal => {
                        return digest.map_or(Hint::Unknown, |digest| Hint::Present { digest });
                    }
                    std::cmp::Ordering::Greater => return Hint::Absent,
                }
            }
            if self.state == State::Complete {
                return Hint::Absent;
            }
            match self.messages.recv().await {
                Some(Message::Entries(entries)) => {
                    self.entries = entries;
                    self.at = 0;
                }
                Some(Message::Page(_room)) => {}
                Some(Message::Complete) => self.state = State::Complete,
                None => self.lose(),
            }
        }
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.entries = Entries::default();
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Entries {
    fn push(&mut self, key: &str, digest: Option<Digest>) {
        self.keys.push_str(key);
        // A piece of a page is far smaller than 4 GiB.
        self.entries.push((self.keys.len() as u32, digest));
    }

    fn get(&self, at: usize) -> Option<(&str, Option<Digest>)> {
        let (end, digest) = *self.entries.get(at)?;
        let start = match at.checked_sub(1) {
            Some(before) => self.entries[before].0,
            None => 0,
        };
        Some((self.keys.get(start as usize..end as usize)?, digest))
    }
}

type DigestOf = dyn Fn(Value) -> Option<Digest> + Send + Sync;

/// Reads the list ahead.
struct Reader {
    cluster: Cluster,
    resource_type: Arc<ResourceType>,
    scope: Scope,
    digest: Arc<DigestOf>,
    sender: mpsc::UnboundedSender<Message>,
    last_key: String,
}

/// Live objects on their way to be digested.
#[derive(Default)]
struct Piece {
    keys: Entries,
    json: Vec<u8>,
    ends: Vec<usize>,
}

impl Reader {
    async fn read(mut self, log: Log) {
        if let Err(why) = self.read_all().await {
            let resource = self.resource_type.group_resource();
            let why = crate::error::chain(&why);
            log.warn(&format!(
                "which {resource} are in the cluster is asked one by one from here on: {why}"
            ));
        }
    }

    async fn read_all(&mut self) -> Result<(), Useless> {
        let (cluster, resource_type) = (self.cluster.clone(), Arc::clone(&self.resource_type));
        let namespace = match &self.scope {
            Scope::Everywhere => None,
            Scope::Namespace(name) => Some(name.clone()),
        };
        let mut list = List::new(
            &cluster,
            &resource_type,
            namespace.as_deref(),
            None,
            At::Now,
        )
        .at_most(PAGE_OBJECTS);
        let pages = Arc::new(Semaphore::new(PAGES));
        let mut next_room = None;
        while !list.is_at_end() {
            let room = match next_room.take() {
                Some(room) => room,
                None => match Arc::clone(&pages).acquire_owned().await {
                    Ok(room) => room,
                    Err(_closed) => return Ok(()),
                },
            };
            let mut piece = Piece::default();
            let mut digesting: Option<JoinHandle<Entries>> = None;
            loop {
                if next_room.is_none() {
                    next_room = Arc::clone(&pages).try_acquire_owned().ok();
                }
                list.look_ahead(next_room.is_some());
                let Some(batch) = list.next_of_page().await? else {
                    break;
                };
                for item in batch.items() {
                    let metadata = item.metadata()?;
                    let key = match metadata.namespace.as_deref() {
                        Some(namespace) => format!("{namespace}/{}", metadata.name),
                        None => metadata.name.clone().into_owned(),
                    };
                    if key <= self.last_key {
                        return Err(Useless::Unsorted);
                    }
                    let is_going = metadata.deletion_timestamp.is_some();
                    piece.push(&key, if is_going { &[] } else { item.json });
                    self.last_key = key;
                }
                if piece.json.len() >= PIECE {
                    self.hand_over(digesting.take()).await?;
                    digesting = Some(self.digest(std::mem::take(&mut piece)));
                }
            }
            self.hand_over(digesting).await?;
            let last = self.digest(piece);
            self.hand_over(Some(last)).await?;
            self.tell(Message::Page(room));
        }
        self.tell(Message::Complete);
        Ok(())
    }

    /// Digests a piece on another thread.
    fn digest(&self, piece: Piece) -> JoinHandle<Entries> {
        let (resource_type, digest) = (Arc::clone(&self.resource_type), Arc::clone(&self.digest));
        spawn_blocking(move || piece.digest(&resource_type, &*digest))
    }

    async fn hand_over(&self, digesting: Option<JoinHandle<Entries>>) -> Result<(), Useless> {
        if let Some(digesting) = digesting {
            self.tell(Message::Entries(digesting.await?));
        }
        Ok(())
    }

    fn tell(&self, message: Message) {
        // Nobody listens any more: this task is being stopped.
        drop(self.sender.send(message));
    }
}

impl Piece {
    fn push(&mut self, key: &str, json: &[u8]) {
        self.keys.push(key, None);
        self.json.extend_from_slice(json);
        self.ends.push(self.json.len());
    }

    fn digest(mut self, resource_type: &ResourceType, digest: &DigestOf) -> Entries {
        let (resource, api_version) = (resource_type.group_resource(), resource_type.api_version());
        let mut start = 0;
        for (end, (_, place)) in self.ends.iter().zip(&mut self.keys.entries) {
            let json = &self.json[start..*end];
            start = *end;
            // One on its way out has none.
            let Ok(Value::Object(mut object)) = lean::decode(&resource, json) else {
                continue;
            };
            object.insert("apiVersion".into(), api_version.as_str().into());
            object.insert("kind".into(), resource_type.kind.as_str().into());
            *place = digest(Value::Object(object));
        }
        self.keys
    }
}
