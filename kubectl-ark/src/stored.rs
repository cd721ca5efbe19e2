//! Stored files of a backup, fetched into a temporary directory that is laid out like a location.
//!
//! They come through a [`HeldPod`], or straight from storage when this process is to read itself. In the directory they are
//! read with the code that reads any location, which checks every byte.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::client;
use crate::held_pod::{About, Ended, HeldPod, Purpose, Started, Subject};
use crate::options::ReadFrom;
use crate::progress::Display;
use ark_job::api::Backup;
use ark_job::args::{Args, Command, FetchFile, StorageFlags};
use ark_job::cluster::Cluster;
use ark_job::context::{open_place, open_store, parse_url};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::fetch::{self, Stored};
use ark_job::layout::BackupKeys;
use ark_job::store::{Location, Store};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// What is to be read.
pub struct Reading<'a> {
    /// How to reach the cluster, if it is needed.
    pub cluster: &'a ClusterFlags,
    /// The process.
    pub surroundings: &'a Surroundings,
    /// The backup.
    pub backup: &'a str,
    /// Where it is.
    pub from: &'a ReadFrom,
    /// What a pod is held for, if one is needed.
    pub purpose: Purpose<'a>,
    /// What is shown meanwhile.
    pub display: &'a Display,
}

/// Where files come from.
pub struct Source<'a> {
    backup: &'a str,
    way: Way<'a>,
}

enum Way<'a> {
    Here(Store),
    Pod(Started<'a>),
}

impl Reading<'_> {
    /// Runs `work` with a source, and removes what was started for it, whatever happens; `None` when interrupted.
    ///
    /// # Errors
    /// Those of `work`, or that there is no source.
    pub async fn run<T>(
        &self,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
        work: impl AsyncFnOnce(&Source<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let ReadFrom { storage, local } = self.from;
        let purpose = self.purpose;
        let backup = self.backup;
        if *local {
            let reading = async {
                let way = Way::Here(open(self.cluster, storage).await?);
                work(&Source { backup, way }).await.map(Some)
            };
            return tokio::select! {
                result = reading => result,
                () = &mut interrupt => Ok(None),
            };
        }
        let subject = Subject {
            namespace: &self.cluster.namespace,
            about: About::Backup(backup),
            storage,
        };
        let connection = client::connect(self.cluster).await?;
        let nonce = &self.surroundings.nonce;
        let pod = HeldPod::create(&connection, subject, purpose, nonce).await?;
        let reading = async {
            let way = Way::Pod(pod.started(self.display).await?);
            work(&Source { backup, way }).await.map(Some)
        };
        let result = tokio::select! {
            result = reading => result,
            () = &mut interrupt => Ok(None),
        };
        pod.remove().await;
        result
    }
}

impl Source<'_> {
    /// The backup that is read.
    pub fn backup(&self) -> &str {
        self.backup
    }

    /// One object of the backup as it was stored, as JSON.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub async fn object(&self, args: &Args, temporary: &Path) -> Result<Vec<u8>, Failure> {
        let Command::Show(show) = &args.command else {
            return Err(Failure::new(
                Exit::Usage,
                "only one object can be asked for",
            ));
        };
        match &self.way {
            Way::Here(store) => ark_job::show::show(store, show, temporary)
                .await
                .map(String::into_bytes),
            Way::Pod(pod) => {
                let (printed, ended) = pod.printed(args).await?;
                ended.failure.map_or(Ok(printed), Err)
            }
        }
    }

    /// All that `ark-job` prints in the pod with these arguments, and how it ended; `None` when there is no pod.
    ///
    /// # Errors
    /// When it could not be run, or the connection broke.
    pub async fn printed(&self, args: &Args) -> Result<Option<(Vec<u8>, Ended)>, Failure> {
        match &self.way {
            Way::Here(_) => Ok(None),
            Way::Pod(pod) => pod.printed(args).await.map(Some),
        }
    }
}

/// Storage, opened by this process. Without a location's name no cluster is needed.
///
/// # Errors
/// When it cannot be used.
pub async fn open(cluster: &ClusterFlags, storage: &StorageFlags) -> Result<Store, Failure> {
    let StorageFlags { location, storage } = storage;
    if let Some(url) = storage {
        return open_place(&parse_url(url)?).await;
    }
    let namespace = &cluster.namespace;
    let cluster = Cluster::new(client::connect(cluster).await?.kube);
    open_store(&cluster, namespace, location.as_deref(), None).await
}

/// Where the record says that a backup is.
///
/// # Errors
/// When it does not say.
pub fn place(backup: &Backup, name: &str) -> Result<ReadFrom, Failure> {
    match &backup.spec.storage_location {
        Some(location) => Ok(at(location)),
        None => Err(Failure::new(
            Exit::Usage,
            format!("backup {name} was stored at a URL, which its resource does not say"),
        )
        .hint("say where it is: --storage URL, or --local for a backup that was made with it")),
    }
}

/// A location, read by a pod.
pub fn at(location: &str) -> ReadFrom {
    ReadFrom {
        storage: StorageFlags {
            location: Some(location.to_owned()),
            storage: None,
        },
        local: false,
    }
}

/// Fetched files of one backup; gone when dropped.
pub struct Mirror {
    directory: TempDir,
    store: Store,
    keys: BackupKeys,
    backup: String,
}

impl Mirror {
    /// An empty one, as a hidden directory in `parent`.
    ///
    /// # Errors
    /// When it cannot be made there.
    pub async fn new(parent: &Path, backup: &str) -> Result<Mirror, Failure> {
        let failed = |error: io::Error| {
            let parent = parent.display();
            Failure::new(
                Exit::Failed,
                format!("making a directory in {parent}: {error}"),
            )
        };
        // Only its owner can look into it: backups hold Secrets.
        let directory = tempfile::Builder::new()
            .prefix(&format!(".{backup}."))
            .tempdir_in(parent)
            .map_err(failed)?;
        let dir = std::path::absolute(directory.path()).map_err(failed)?;
        let keys = BackupKeys::new(backup);
        std::fs::create_dir_all(dir.join(keys.directory())).map_err(failed)?;
        Ok(Mirror {
            store: open_place(&Location::File { dir }).await?,
            directory,
            keys,
            backup: backup.to_owned(),
        })
    }

    /// Fetches a file; `passed` is told how many bytes have come. Of all but the archive, every byte has been checked then.
    ///
    /// The marker must be the first.
    ///
    /// # Errors
    /// When the file is not there, does not come completely, or is damaged.
    pub async fn fetch(
        &self,
        source: &Source<'_>,
        file: FetchFile,
        mut passed: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let path = self.path(file);
        let failed = |error: io::Error| {
            Failure::new(Exit::Failed, format!("writing {}: {error}", path.display()))
        };
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let mut to = options.open(&path).await.map_err(failed)?;
        match &source.way {
            Way::Here(store) => {
                let mut stored = Stored::open(store, source.backup, file).await?;
                let mut total = 0;
                while let Some(piece) = stored.next().await? {
                    to.write_all(&piece).await.map_err(failed)?;
                    total += piece.len() as u64;
                    passed(total);
                }
                to.flush().await.map_err(failed)?;
            }
            Way::Pod(pod) => pod.fetch(file, &mut to, passed).await?,
        }
        if file == FetchFile::Archive {
            return Ok(());
        }
        let mut stored = match file {
            FetchFile::Footer => {
                let key = self.key(file);
                Stored::footer_copy(&self.store, &self.backup, &key).await?
            }
            _ => Stored::open(&self.store, &self.backup, file).await?,
        };
        while stored.next().await?.is_some() {}
        Ok(())
    }

    /// The files, as a location.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn key(&self, file: FetchFile) -> String {
        match file {
            // In storage it is a part of the archive, which is not fetched for it.
            FetchFile::Footer => format!("{}footer.gz", self.keys.directory()),
            file => fetch::key(&self.keys, file),
        }
    }

    /// Where a file is.
    pub fn path(&self, file: FetchFile) -> PathBuf {
        self.directory.path().join(self.key(file))
    }
}
