//! The objects of one type on one side of a comparison, streamed: out of an archive, or out of the cluster.

use crate::archive::footer::{Footer, Member, TypeEntry};
use crate::archive::key;
use crate::archive::read::OpenMember;
use crate::cluster::ClusterError;
use crate::cluster::list::{Batch, List};
use crate::filter::Filter;
use crate::item::{ScanError, type_prefix};
use crate::repository::{OpenBackup, RepositoryError};
use futures::stream::{BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;

/// Members on their way while one is compared: each is about 1 MiB.
const MEMBERS_AHEAD: usize = 2;

/// An object of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Its place in the order of its type.
    pub key: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its JSON.
    pub body: Vec<u8>,
    /// Whether a label says that no backup takes it.
    pub excluded: bool,
    /// The member of the archive that it is in.
    pub member: usize,
}

/// Why a side cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// The backup cannot be read.
    #[error(transparent)]
    Backup(#[from] RepositoryError),
    /// The API server does not answer well.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An object of a list has no metadata that can be read.
    #[error("the API server lists something that is no object")]
    Item(#[from] ScanError),
    /// Objects that do not come in order cannot be joined.
    #[error("{after} is listed after {before}: objects that come in no order cannot be compared")]
    Disorder {
        /// The earlier one.
        before: String,
        /// The later one, which belongs before it.
        after: String,
    },
}

/// Objects of one type, in order of their keys unless the type has none.
pub struct Side<'a> {
    from: From<'a>,
    ready: VecDeque<Object>,
    in_order: bool,
    last: Option<String>,
}

enum From<'a> {
    Nothing,
    Archive(BoxStream<'static, Result<VecDeque<Object>, RepositoryError>>),
    Cluster {
        lists: VecDeque<List<'a>>,
        prefix: Vec<u8>,
    },
}

impl<'a> Side<'a> {
    /// A side without objects of the type.
    pub fn nothing() -> Side<'a> {
        Side::new(From::Nothing, true)
    }

    /// The objects in those members of a backup.
    pub fn archive(backup: &Arc<OpenBackup>, members: Vec<usize>, in_order: bool) -> Side<'a> {
        // Where a member is in the footer is not told when it is opened, so it is looked up by what is unique to it.
        let footer = Arc::clone(backup);
        let pieces = backup.read_members(members, MEMBERS_AHEAD, move |member, opened| {
            let place = footer
                .footer
                .members
                .partition_point(|other| other.offset < member.offset);
            objects(&opened, place)
        });
        Side::new(From::Archive(pieces.boxed()), in_order)
    }

    /// The objects of lists that follow each other.
    pub fn cluster(
        lists: VecDeque<List<'a>>,
        api_version: &str,
        kind: &str,
        in_order: bool,
    ) -> Side<'a> {
        let prefix = type_prefix(api_version, kind);
        Side::new(From::Cluster { lists, prefix }, in_order)
    }

    fn new(from: From<'a>, in_order: bool) -> Side<'a> {
        Side {
            from,
            ready: VecDeque::new(),
            in_order,
            last: None,
        }
    }

    /// The next object.
    ///
    /// # Errors
    /// When there may be more that cannot be read.
    pub async fn next(&mut self) -> Result<Option<Object>, SideError> {
        while self.ready.is_empty() {
            match &mut self.from {
                From::Nothing => return Ok(None),
                From::Archive(pieces) => match pieces.next().await {
                    Some(objects) => self.ready = objects?,
                    None => return Ok(None),
                },
                From::Cluster { lists, prefix } => {
                    let Some(list) = lists.front_mut() else {
                        return Ok(None);
                    };
                    match list.next().await? {
                        Some(batch) => self.ready = listed(&batch, prefix)?,
                        None => drop(lists.pop_front()),
                    }
                }
            }
        }
        let Some(object) = self.ready.pop_front() else {
            return Ok(None);
        };
        if self.in_order {
            if let Some(before) = &self.last
                && *before >= object.key
            {
                return Err(SideError::Disorder {
                    before: before.clone(),
                    after: object.key,
                });
            }
            self.last = Some(object.key.clone());
        }
        Ok(Some(object))
    }
}

/// The objects of a member, which is the `place`-th of the archive.
pub fn objects(opened: &OpenMember, place: usize) -> VecDeque<Object> {
    opened
        .entries()
        .map(|entry| Object {
            key: key(entry.namespace, entry.name),
            namespace: entry.namespace.map(str::to_owned),
            name: entry.name.to_owned(),
            body: entry.body.to_vec(),
            excluded: false,
            member: place,
        })
        .collect()
}

fn listed(batch: &Batch<'_>, prefix: &[u8]) -> Result<VecDeque<Object>, ScanError> {
    batch
        .items()
        .map(|item| {
            let metadata = item.metadata()?;
            let prefix = if item.typed { &[] } else { prefix };
            Ok(Object {
                key: key(metadata.namespace.as_deref(), &metadata.name),
                body: [prefix, item.rest()].concat(),
                excluded: metadata.is_excluded() || metadata.is_of_a_snapshot(),
                namespace: metadata.namespace.map(|namespace| namespace.into_owned()),
                name: metadata.name.into_owned(),
                member: 0,
            })
        })
        .collect()
}

/// The members that may hold objects of a type in the selected namespaces, in order of their keys.
pub fn members(footer: &Footer, entry: &TypeEntry, namespaces: &Filter) -> Vec<usize> {
    let named = namespaces.plain_names().filter(|_| entry.namespaced);
    let may_hold = |member: &Member, namespace: &str| match &member.part {
        Some(part) => part == namespace,
        // `0` follows `/`: all keys of the namespace are between.
        None => {
            entry.unsorted
                || member.last.as_str() >= format!("{namespace}/").as_str()
                    && member.first.as_str() < format!("{namespace}0").as_str()
        }
    };
    let mut found: Vec<(String, usize)> = footer
        .members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.resource == entry.resource)
        .filter(|(_, member)| {
            let wanted = |names: &Vec<&str>| names.iter().any(|name| may_hold(member, name));
            named.as_ref().is_none_or(wanted)
        })
        // What was read namespace by namespace may lie mixed, but each namespace is in order. The slash, since
        // `a-b/x` comes before `a/x`.
        .map(|(index, member)| {
            let part = member.part.as_ref();
            (
                part.map(|part| format!("{part}/")).unwrap_or_default(),
                index,
            )
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(part: Option<&str>, first: &str, last: &str) -> Member {
        Member {
            offset: 0,
            length: 1,
            size: 1,
            sha256: String::new(),
            resource: "secrets".into(),
            part: part.map(str::to_owned),
            items: 1,
            first: first.into(),
            last: last.into(),
        }
    }

    #[test]
    fn members_come_in_the_order_of_their_keys_and_only_those_of_the_namespaces() {
        let entry = TypeEntry {
            resource: "secrets".into(),
            api_version: "v1".into(),
            kind: "Secret".into(),
            namespaced: true,
            items: 1,
            bytes: 1,
            unsorted: false,
            resource_version: None,
        };
        let parts = Footer {
            members: vec![
                member(Some("a"), "a/a", "a/k"),
                member(Some("a-b"), "a-b/a", "a-b/z"),
                member(Some("a"), "a/l", "a/z"),
            ],
            ..Footer::default()
        };
        let some = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            Filter::namespaces(&names, &[]).unwrap()
        };
        assert_eq!(members(&parts, &entry, &some(&[])), [1, 0, 2]);
        assert_eq!(members(&parts, &entry, &some(&["a"])), [0, 2]);
        let whole = Footer {
            members: vec![member(None, "a-b/a", "a/k"), member(None, "a/l", "b/z")],
            ..Footer::default()
        };
        assert_eq!(members(&whole, &entry, &some(&["a-b"])), [0]);
        assert_eq!(members(&whole, &entry, &some(&["a"])), [0, 1]);
        assert_eq!(members(&whole, &entry, &some(&["b", "c"])), [1]);
    }
}
