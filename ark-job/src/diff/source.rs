//! One of the two that are compared: which types and objects it has, and how they are read.

use super::coverage::Coverage;
use super::side::{Object, Side, SideError, members, objects};
use crate::archive::footer::TypeEntry;
use crate::archive::read::Entry;
use crate::cluster::discover::{Discovery, ResourceType};
use crate::cluster::list::{At, List};
use crate::cluster::{Cluster, apply};
use crate::filter::{Filter, Named};
use crate::repository::OpenBackup;
use crate::restore::plan::Plan;
use crate::restore::selection::Choice;
use std::collections::VecDeque;
use std::sync::Arc;

/// One of the two that are compared.
pub(super) struct Source<'a> {
    pub(super) holder: Holder<'a>,
    /// Which of its objects are meant.
    pub(super) plan: Plan,
    /// What it would hold; everything, if it is the cluster.
    pub(super) coverage: Option<Coverage>,
}

pub(super) enum Holder<'a> {
    Cluster(&'a Cluster, &'a Discovery),
    Backup(Arc<OpenBackup>),
}

impl<'a> Source<'a> {
    /// The types that it has.
    pub(super) fn types(&self) -> Vec<TypeEntry> {
        match &self.holder {
            Holder::Backup(backup) => backup.footer.head.types.clone(),
            Holder::Cluster(_, discovery) => discovery.restorable().map(as_entry).collect(),
        }
    }

    pub(super) fn covers_type(&self, entry: &TypeEntry) -> bool {
        let coverage = self.coverage.as_ref();
        coverage.is_none_or(|coverage| coverage.covers_type(entry))
    }

    /// Whether an object that only the other side has would be here, too.
    pub(super) fn covers(&self, entry: &TypeEntry, object: &Object) -> bool {
        self.coverage.as_ref().is_none_or(|coverage| {
            !object.excluded
                && coverage.covers(
                    entry,
                    object.namespace.as_deref(),
                    &object.name,
                    &object.body,
                )
        })
    }

    pub(super) fn chooses(&self, entry: &TypeEntry, object: &Object) -> bool {
        let object = Entry {
            namespace: object.namespace.as_deref(),
            name: &object.name,
            body: &object.body,
        };
        self.plan.choose(entry, &object) == Choice::Restore
    }

    pub(super) fn reader(&self) -> Reader<'a> {
        match &self.holder {
            Holder::Cluster(cluster, _) => Reader::Cluster(cluster),
            Holder::Backup(backup) => Reader::Backup(Arc::clone(backup)),
        }
    }
}

impl Holder<'_> {
    /// What it has of a type: in the version of `entry` if it can, so that both sides look the same.
    pub(super) fn of(&self, entry: &TypeEntry) -> Of {
        match self {
            Holder::Backup(backup) => match backup.footer.type_entry(&entry.resource) {
                Some(entry) => Of::Archive(entry.clone()),
                None => Of::Nothing,
            },
            Holder::Cluster(_, discovery) => {
                let same = discovery.find(&entry.resource, &entry.api_version);
                match same.or_else(|| discovery.preferred(&entry.resource)) {
                    Some(served) => Of::Cluster(Box::new(served.clone())),
                    None => Of::Nothing,
                }
            }
        }
    }
}

/// A type as one side has it.
pub(super) enum Of {
    Archive(TypeEntry),
    Cluster(Box<ResourceType>),
    Nothing,
}

fn as_entry(served: &ResourceType) -> TypeEntry {
    TypeEntry {
        resource: served.group_resource(),
        api_version: served.api_version(),
        kind: served.kind.clone(),
        namespaced: served.namespaced,
        items: 0,
        bytes: 0,
        unsorted: false,
        resource_version: None,
    }
}

/// What reads the objects of a source.
pub(super) enum Reader<'a> {
    Cluster(&'a Cluster),
    Backup(Arc<OpenBackup>),
}

impl Reader<'_> {
    /// Its objects of a type; of other namespaces than these, there may be some.
    pub(super) fn side<'s>(&'s self, of: &'s Of, namespaces: &Filter, in_order: bool) -> Side<'s> {
        match (self, of) {
            (Reader::Backup(backup), Of::Archive(entry)) => {
                let members = members(&backup.footer, entry, namespaces);
                Side::archive(backup, members, in_order)
            }
            (Reader::Cluster(cluster), Of::Cluster(served)) => {
                let list = |namespace| List::new(cluster, served, namespace, None, At::Now);
                let named = namespaces.plain_names();
                let lists: VecDeque<List<'s>> = match named.filter(|_| served.namespaced) {
                    None => [list(None)].into(),
                    Some(mut names) => {
                        // The order of keys, in which `a-b/` comes before `a/`.
                        names.sort_by_key(|name| format!("{name}/"));
                        names.dedup();
                        names.into_iter().map(|name| list(Some(name))).collect()
                    }
                };
                Side::cluster(lists, &served.api_version(), &served.kind, in_order)
            }
            _ => Side::nothing(),
        }
    }
}

/// Reads objects a second time.
#[derive(Default)]
pub(super) struct Again {
    member: Option<(usize, VecDeque<Object>)>,
}

impl Again {
    /// The object with its body; `None` when it has been deleted meanwhile.
    pub(super) async fn read(
        &mut self,
        reader: &Reader<'_>,
        of: &Of,
        object: Object,
    ) -> Result<Option<Object>, SideError> {
        match (reader, of) {
            (Reader::Backup(backup), _) => {
                let index = object.member;
                if self.member.as_ref().is_none_or(|(held, _)| *held != index) {
                    let opened = backup.read_member(index).await?;
                    self.member = Some((index, objects(&opened, index)));
                }
                let held = self.member.iter().flat_map(|(_, objects)| objects);
                Ok(held
                    .into_iter()
                    .find(|held| held.key == object.key)
                    .cloned())
            }
            (Reader::Cluster(cluster), Of::Cluster(served)) => {
                let namespace = object.namespace.as_deref();
                let found = apply::read_by_list(cluster, served, namespace, &object.name).await?;
                Ok(found.map(|found| Object {
                    body: found.to_string().into_bytes(),
                    ..object
                }))
            }
            _ => Ok(None),
        }
    }
}
