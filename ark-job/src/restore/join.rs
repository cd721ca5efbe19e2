//! The objects of one type as they come out of the archive, each with what is known of the one in the cluster.
//!
//! Both sides are in the order of `<namespace>/<name>`, so neither is held. What the list says is a hint: what the API
//! server answers to a write decides.

use super::compare::{Digest, digest};
use super::decide::as_compared;
use super::live::{Hint, Live, Scope};
use super::order::VOLUMES;
use super::prepare::{Rules, Skip};
use super::selection::Choice;
use super::volumes::{Source, Standing, standing};
use crate::archive::key;
use crate::cluster::Cluster;
use crate::cluster::discover::ResourceType;
use crate::hooks::restore::AfterCreation;
use crate::log::Log;
use crate::repository::RepositoryError;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Poll;

/// When no more objects than this wait to be sent, the next member is on its way: what it takes to fetch and prepare it is
/// hidden, and no more than one member waits.
const LOW_WATER: usize = 256;

/// An object of the backup, ready to be sent.
#[derive(Debug)]
pub struct Ready {
    /// Why it is restored.
    pub choice: Choice,
    /// The target namespace.
    pub namespace: Option<String>,
    /// The name in the target.
    pub name: String,
    /// What there is to send.
    pub content: Content,
    /// What is to be done once it has been created.
    pub after: AfterCreation,
    /// What is odd about it, to be said once it has been created.
    pub remarks: Vec<String>,
    /// Whether it is called otherwise than in the backup: then it is not where it should be in the order.
    pub renamed: bool,
}

impl Ready {
    /// Where its data comes from, if it is made from a snapshot.
    pub fn source(&self) -> Option<&Source> {
        match &self.content {
            Content::Object(object) => object.source.as_ref(),
            Content::Skip(_) | Content::Unusable(_) => None,
        }
    }

    /// Whether the list says enough when it has the same object: not of pods with commands, nor of volumes, which may stay
    /// a while when their claims are gone.
    pub fn is_settled_by_list(&self) -> bool {
        !self.has_commands() && !matches!(self.source(), Some(Source::Disk(_)))
    }

    /// Whether commands are to be run in it: then it matters who has created the one that is there.
    pub fn has_commands(&self) -> bool {
        !self.after.exec.is_empty()
    }
}

/// What an object of the backup has become.
#[derive(Debug)]
pub enum Content {
    /// An object to create.
    Object(Object),
    /// It is left out.
    Skip(Skip),
    /// It cannot be used.
    Unusable(String),
}

/// An object to create.
#[derive(Debug)]
pub struct Object {
    /// Its JSON, with the restore's label.
    pub json: Bytes,
    /// Of what is compared.
    pub digest: Digest,
    /// What is written after it is created.
    pub status: Option<Value>,
    /// Where its data comes from: what its JSON lacks until that is made.
    pub source: Option<Source>,
}

impl Content {
    /// Bytes held.
    pub fn size(&self) -> usize {
        match self {
            Content::Object(object) => object.json.len(),
            Content::Skip(_) | Content::Unusable(_) => 0,
        }
    }
}

/// How the cluster's objects are looked up.
#[derive(Debug)]
pub enum Lookup {
    /// By one list of the whole type.
    Everywhere,
    /// By a list of each namespace.
    ByNamespace,
    /// Not at all: the archive is in another order.
    Never,
}

/// The objects of one type, joined.
pub struct Join<'a> {
    cluster: &'a Cluster,
    log: &'a Log,
    resource_type: &'a ResourceType,
    resource: &'a str,
    of_live: Arc<Rules>,
    lookup: Lookup,
    /// Namespaces that this restore has made: nothing is in them that is not ours.
    made: &'a BTreeSet<String>,
    members: BoxStream<'a, Result<Vec<Ready>, RepositoryError>>,
    queue: VecDeque<Ready>,
    live: Option<(Option<String>, Live)>,
}

impl<'a> Join<'a> {
    /// Joins what comes out of `members` with the cluster.
    #[expect(clippy::too_many_arguments, reason = "all of it is what a join is of")]
    pub fn new(
        cluster: &'a Cluster,
        log: &'a Log,
        resource_type: &'a ResourceType,
        resource: &'a str,
        of_live: &Rules,
        lookup: Lookup,
        made: &'a BTreeSet<String>,
        members: BoxStream<'a, Result<Vec<Ready>, RepositoryError>>,
    ) -> Join<'a> {
        Join {
            cluster,
            log,
            resource_type,
            resource,
            of_live: Arc::new(of_live.clone()),
            lookup,
            made,
            members: members.fuse().boxed(),
            queue: VecDeque::new(),
            live: None,
        }
    }

    /// The next object, with what is known of the one in the cluster.
    ///
    /// # Errors
    /// When the archive cannot be read on.
    pub async fn next(&mut self) -> Result<Option<(Ready, Hint)>, RepositoryError> {
        loop {
            if self.queue.len() <= LOW_WATER
                && let Poll::Ready(Some(objects)) = futures::poll!(self.members.next())
            {
                self.queue.extend(objects?);
            }
            if let Some(object) = self.queue.pop_front() {
                let hint = match object.content {
                    Content::Object(_) => self.look_up(&object).await,
                    Content::Skip(_) | Content::Unusable(_) => Hint::Unknown,
                };
                return Ok(Some((object, hint)));
            }
            match self.members.next().await {
                Some(objects) => self.queue.extend(objects?),
                None => return Ok(None),
            }
        }
    }

    async fn look_up(&mut self, object: &Ready) -> Hint {
        if object.renamed {
            return Hint::Unknown;
        }
        let namespace = object.namespace.as_deref();
        if namespace.is_some_and(|namespace| self.made.contains(namespace)) {
            return Hint::Absent;
        }
        let wanted = match self.lookup {
            Lookup::Never => return Hint::Unknown,
            Lookup::Everywhere => None,
            Lookup::ByNamespace => namespace,
        };
        if self
            .live
            .as_ref()
            .is_none_or(|(listed, _)| listed.as_deref() != wanted)
        {
            self.live = Some((wanted.map(str::to_owned), self.list(wanted)));
        }
        match &mut self.live {
            Some((_, live)) => live.look_up(&key(namespace, &object.name)).await,
            None => Hint::Unknown,
        }
    }

    fn list(&self, namespace: Option<&str>) -> Live {
        let scope = match namespace {
            Some(namespace) => Scope::Namespace(namespace.to_owned()),
            None => Scope::Everywhere,
        };
        let (resource, rules) = (self.resource.to_owned(), Arc::clone(&self.of_live));
        Live::new(
            self.cluster,
            self.log,
            self.resource_type,
            scope,
            move |live| {
                // There is something to be said of a volume that nobody can bind.
                if resource == VOLUMES && standing(&live) != Standing::Fine {
                    return None;
                }
                Some(digest(&as_compared(&resource, live, &rules)))
            },
        )
    }
}
