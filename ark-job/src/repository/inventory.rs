//! What is in a location: one listing, one backup after the other. Nothing is read of them here.

use crate::identity::check_name;
use crate::layout::{BACKUPS, BackupKeys, TOP_LEVEL};
use crate::store::{Listing, ObjectMeta, Store, StoreError};
use std::collections::{BTreeSet, VecDeque};

/// Descriptions read at once by who reads those of a whole location. Each is a small read whose time is the way to the store:
/// 64 of them make 10,000 backups a matter of seconds, and are few enough not to be throttled.
pub const READ_AT_ONCE: usize = 64;

/// What a listing shows of one backup's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its marker, or original Ark's metadata of the same name.
    pub marker: Option<ObjectMeta>,
    /// Its tombstone.
    pub tombstone: Option<ObjectMeta>,
    /// Its archive.
    pub archive: Option<ObjectMeta>,
    /// The description that Velero reads.
    pub velero: Option<ObjectMeta>,
    /// Number of all its objects.
    pub objects: usize,
    /// Their length together, bytes.
    pub bytes: u64,
}

/// A listing of all backups, in byte order of their names. Its end (`None`) means that it was complete.
#[derive(Debug)]
pub struct Inventory {
    listing: Listing,
    listed: VecDeque<ObjectMeta>,
    current: Option<Stored>,
}

/// All backups, in byte order of their names.
///
/// # Errors
/// When the store fails: what was seen until then says nothing.
pub async fn all(store: &Store) -> Result<Vec<Stored>, StoreError> {
    let mut inventory = Inventory::of(store);
    let mut stored = Vec::new();
    while let Some(one) = inventory.next().await? {
        stored.push(one);
    }
    Ok(stored)
}

impl Inventory {
    /// Starts to list.
    pub fn of(store: &Store) -> Inventory {
        Inventory {
            listing: store.list(BACKUPS),
            listed: VecDeque::new(),
            current: None,
        }
    }

    /// The next backup's directory.
    ///
    /// # Errors
    /// When the store fails; the listing is of no more use then.
    pub async fn next(&mut self) -> Result<Option<Stored>, StoreError> {
        loop {
            while let Some(object) = self.listed.pop_front() {
                let Some((name, _)) = object
                    .key
                    .strip_prefix(BACKUPS)
                    .and_then(|rest| rest.split_once('/'))
                else {
                    continue;
                };
                let finished = match &self.current {
                    Some(current) if current.name == name => None,
                    _ => self.current.replace(Stored {
                        name: name.to_owned(),
                        ..Stored::default()
                    }),
                };
                if let Some(current) = &mut self.current {
                    current.add(object);
                }
                if finished.is_some() {
                    return Ok(finished);
                }
            }
            match self.listing.next_page().await? {
                Some(page) => self.listed = page.into(),
                None => return Ok(self.current.take()),
            }
        }
    }
}

impl Stored {
    fn add(&mut self, object: ObjectMeta) {
        self.objects += 1;
        self.bytes += object.length;
        let keys = BackupKeys::new(&self.name);
        let place = if object.key == keys.marker() {
            &mut self.marker
        } else if object.key == keys.tombstone() {
            &mut self.tombstone
        } else if object.key == keys.archive() {
            &mut self.archive
        } else if object.key == keys.velero_backup() {
            &mut self.velero
        } else {
            return;
        };
        *place = Some(object);
    }
}

/// Names at the top of the location that may be backups of original Ark's, from before 0.10, when it had the whole bucket;
/// but those that are `taken`, since what is under `backups/` is what a name means.
///
/// # Errors
/// When the store fails.
pub async fn originals(store: &Store, taken: &BTreeSet<&str>) -> Result<Vec<String>, StoreError> {
    let mut names = store.list_directories("").await?;
    names.retain(|name| {
        !TOP_LEVEL.contains(&name.as_str())
            && check_name(name).is_ok()
            && !taken.contains(name.as_str())
    });
    Ok(names)
}
