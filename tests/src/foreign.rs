//! Backups as Velero and original Ark store them, made from what is known of their formats; and our own, forged.
//!
//! Nothing here shares code with the readers, but for the forged ones: what signs them is our writer.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ark_job::api::{BackupSpec, BackupStatus, FORMAT_VERSION};
use ark_job::archive::footer::{Footer, Head, TypeEntry};
use ark_job::archive::write::{Block, Compressor, FooterPlace, Index, end_member};
use ark_job::marker::{ArchiveDigest, Commit, Marker, Metadata};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Whose format a backup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Velero since v1.4 (format 1.1.0): each object also in a directory of its preferred version.
    Velero,
    /// Velero before v1.4, and v0.11 of Ark.
    OldVelero,
    /// Original Ark 0.10: Velero's places.
    Ark10,
    /// Original Ark v0.5 to v0.9: at the top of the bucket.
    Ark05,
    /// Original Ark v0.3 and v0.4: another layout of the archive.
    Ark03,
}

impl Maker {
    /// All of them.
    pub const ALL: [Maker; 5] = [
        Maker::Velero,
        Maker::OldVelero,
        Maker::Ark10,
        Maker::Ark05,
        Maker::Ark03,
    ];
}

/// A backup on its way to be stored.
#[derive(Clone, Debug)]
pub struct ForeignBackup {
    name: String,
    maker: Maker,
    /// What its description says of how it went.
    pub phase: String,
    /// Annotations of its description.
    pub annotations: Value,
    /// Paths and contents of the archive.
    pub entries: Vec<(String, Vec<u8>)>,
}

impl ForeignBackup {
    /// An empty one.
    pub fn new(maker: Maker, name: &str) -> ForeignBackup {
        let mut backup = ForeignBackup {
            name: name.to_owned(),
            maker,
            phase: "Completed".to_owned(),
            annotations: Value::Null,
            entries: Vec::new(),
        };
        match maker {
            Maker::Velero => backup.raw("metadata/version", "1.1.0\n"),
            Maker::OldVelero => backup.raw("metadata/version", "1\n"),
            Maker::Ark10 | Maker::Ark05 | Maker::Ark03 => {}
        }
        backup
    }

    /// Adds an entry.
    pub fn raw(&mut self, path: &str, body: &str) {
        self.entries
            .push((path.to_owned(), body.as_bytes().to_vec()));
    }

    /// Adds an object of the type `resource[.group]`, in the version that it says.
    pub fn object(&mut self, resource: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let body = object.to_string();
        let scope = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("namespaces/{namespace}"),
            None => "cluster".to_owned(),
        };
        if self.maker == Maker::Ark03 {
            return self.raw(&format!("{scope}/{resource}/{name}.json"), &body);
        }
        self.raw(&format!("resources/{resource}/{scope}/{name}.json"), &body);
        if self.maker == Maker::Velero {
            let version = version(object);
            let path =
                format!("resources/{resource}/{version}-preferredversion/{scope}/{name}.json");
            self.raw(&path, &body);
        }
    }

    /// Adds an object in a version that its cluster did not prefer, as Velero's EnableAPIGroupVersions does.
    pub fn other_version(&mut self, resource: &str, object: &Value) {
        let metadata = &object["metadata"];
        let path = format!(
            "resources/{resource}/{}/namespaces/{}/{}.json",
            version(object),
            metadata["namespace"].as_str().unwrap_or_default(),
            metadata["name"].as_str().unwrap_or_default()
        );
        self.raw(&path, &object.to_string());
    }

    /// Its archive.
    ///
    /// # Errors
    /// When a path does not fit.
    pub fn archive(&self) -> Result<Vec<u8>> {
        tar_gz(
            self.entries
                .iter()
                .map(|(path, body)| (path.as_str(), &body[..])),
        )
    }

    /// Its description: of Velero with every field, of original Ark with the nulls that it wrote.
    pub fn description(&self) -> Value {
        let metadata = json!({"name": self.name, "namespace": "heptio-ark", "uid": "u", "resourceVersion": "7",
            "annotations": self.annotations, "labels": {"app": "test"}, "creationTimestamp": "2017-07-27T20:05:24Z"});
        match self.maker {
            Maker::Velero | Maker::OldVelero => {
                let mut status = json!({"version": 1, "phase": self.phase, "expiration": "2037-01-01T00:00:00Z",
                    "startTimestamp": "2026-01-01T00:00:00Z", "completionTimestamp": "2026-01-01T00:00:01Z",
                    "progress": {"totalItems": 1, "itemsBackedUp": 1}, "errors": 0});
                if self.maker == Maker::Velero {
                    status["formatVersion"] = "1.1.0".into();
                }
                json!({"kind": "Backup", "apiVersion": "velero.io/v1", "metadata": metadata, "status": status,
                    "spec": {"metadata": {}, "hooks": {}, "ttl": "720h0m0s", "includedNamespaces": ["*"], "csiSnapshotTimeout": "0s"}})
            }
            Maker::Ark10 | Maker::Ark05 | Maker::Ark03 => {
                json!({"kind": "Backup", "apiVersion": "ark.heptio.com/v1", "metadata": metadata,
                "spec": {"includedNamespaces": ["*"], "excludedNamespaces": null, "includedResources": ["*"],
                    "excludedResources": null, "labelSelector": null, "snapshotVolumes": null, "ttl": "24h0m0s"},
                "status": {"version": 1, "expiration": "2037-01-01T00:00:00Z", "phase": self.phase,
                    "volumeBackups": null, "validationErrors": null}})
            }
        }
    }

    /// Stores it under a directory that is a location; gives the path of its archive.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn store(&self, root: &Path) -> Result<PathBuf> {
        let name = &self.name;
        let (directory, description) = match self.maker {
            Maker::Velero | Maker::OldVelero => {
                (root.join("backups").join(name), "velero-backup.json")
            }
            Maker::Ark10 => (root.join("backups").join(name), "ark-backup.json"),
            Maker::Ark05 | Maker::Ark03 => (root.join(name), "ark-backup.json"),
        };
        fs::create_dir_all(&directory)?;
        let text = serde_json::to_vec_pretty(&self.description())?;
        fs::write(directory.join(description), text)?;
        let archive = directory.join(format!("{name}.tar.gz"));
        fs::write(&archive, self.archive()?)?;
        Ok(archive)
    }
}

fn version(object: &Value) -> &str {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    api_version.rsplit('/').next().unwrap_or_default()
}

/// A tar.gz as Go's packages write it: mode 0755, no directories, long paths by pax headers.
///
/// # Errors
/// When it cannot be compressed.
pub fn tar_gz<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for (path, body) in entries {
        append(&mut tar, path, tar::EntryType::Regular, body);
    }
    tar.extend_from_slice(&[0; 1024]);
    gzip(&tar)
}

/// Compresses as anybody does.
///
/// # Errors
/// When it cannot be compressed.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Appends an entry of any kind to a tar.
pub fn append(tar: &mut Vec<u8>, path: &str, kind: tar::EntryType, body: &[u8]) {
    if path.len() > 100 {
        let mut length = path.len() + 8;
        while length != path.len() + 7 + length.to_string().len() {
            length += 1;
        }
        let record = format!("{length} path={path}\n");
        append(
            tar,
            "PaxHeaders.0/x",
            tar::EntryType::XHeader,
            record.as_bytes(),
        );
    }
    let mut header = tar::Header::new_ustar();
    let name = &path.as_bytes()[..path.len().min(100)];
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(body.len() as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A backup of ours with every digest right, whatever else is wrong with it.
#[derive(Debug)]
pub struct Forged {
    /// The bytes of the members.
    pub members: Vec<Vec<u8>>,
    /// What the footer says.
    pub footer: Footer,
}

impl Forged {
    /// Config maps, one list of `(namespace, name, json)` a member.
    pub fn new(name: &str, members: &[&[(&str, &str, &str)]]) -> Forged {
        let mut compressor = Compressor::new(1);
        let (mut index, mut all) = (Index::default(), Vec::new());
        let (mut items, mut bytes) = (0, 0);
        let blocks = members.iter().map(|objects| {
            let mut block = Block::new("configmaps", None, 0);
            for (namespace, name, json) in *objects {
                block.push(Some(namespace), name, &[json.as_bytes()]);
                items += 1;
                bytes += json.len() as u64;
            }
            block
        });
        for block in std::iter::once(Block::version(0)).chain(blocks) {
            let (member, _) = compressor.compress(block);
            index.append(&member);
            all.push(member.bytes);
        }
        let head = Head {
            format_version: FORMAT_VERSION.into(),
            encryption: "none".into(),
            backup: name.into(),
            run_id: "forged".into(),
            types: vec![TypeEntry {
                resource: "configmaps".into(),
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                namespaced: true,
                items,
                bytes,
                unsorted: false,
                resource_version: None,
            }],
            ..Head::default()
        };
        Forged {
            members: all,
            footer: Footer {
                head,
                members: index.into_members(),
            },
        }
    }

    /// Replaces the raw tar of a member, with length and digest.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn replace(&mut self, index: usize, tar: &[u8]) -> Result<()> {
        let bytes = gzip(tar)?;
        let line = &mut self.footer.members[index];
        line.length = bytes.len() as u64;
        line.size = tar.len() as u64;
        line.sha256 = hex::encode(Sha256::digest(&bytes));
        self.members[index] = bytes;
        let mut offset = 0;
        for line in &mut self.footer.members {
            line.offset = offset;
            offset += line.length;
        }
        Ok(())
    }

    /// Archive and marker.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn build(&self) -> Result<(Vec<u8>, Marker)> {
        let mut archive = self.members.concat();
        let mut tar = Vec::new();
        let json = self.footer.to_json();
        append(
            &mut tar,
            "metadata/ark.json",
            tar::EntryType::Regular,
            &json,
        );
        let footer = gzip(&tar)?;
        let place = FooterPlace {
            offset: archive.len() as u64,
            length: footer.len() as u64,
            sha256: Sha256::digest(&footer).into(),
        };
        archive.extend_from_slice(&footer);
        archive.extend_from_slice(&end_member(&place));
        let head = &self.footer.head;
        let marker = Marker {
            api_version: Marker::api_version(),
            kind: "Backup".into(),
            metadata: Metadata {
                name: head.backup.clone(),
                ..Metadata::default()
            },
            spec: BackupSpec::default(),
            status: BackupStatus::default(),
            commit: Commit {
                format_version: FORMAT_VERSION.into(),
                encryption: "none".into(),
                run_id: head.run_id.clone(),
                attempt: String::new(),
                cluster_uid: String::new(),
                namespace: String::new(),
                schedule: None,
                keep_last: None,
                volumes: Vec::new(),
                archive: ArchiveDigest {
                    length: archive.len() as u64,
                    footer_offset: place.offset,
                    footer_length: place.length,
                    footer_sha256: hex::encode(place.sha256),
                },
                files: BTreeMap::new(),
            },
        };
        Ok((archive, marker))
    }

    /// Stores it under a directory that is a location.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn store(&self, root: &Path) -> Result<()> {
        let name = &self.footer.head.backup;
        let directory = root.join("backups").join(name);
        fs::create_dir_all(&directory)?;
        let (archive, marker) = self.build()?;
        fs::write(directory.join(format!("{name}.tar.gz")), archive)?;
        fs::write(directory.join("ark-backup.json"), marker.to_json())?;
        Ok(())
    }
}
