//! Which properties of a volume are recorded, and which are asked for when one is made. Pure.

use crate::volumes::EbsSnapshot;
use crate::volumes::disks::WantedVolume;
use aws_sdk_ec2::types::Volume;

/// Whether operations a second are provisioned for volumes of this type. For others EC2 tells some, which follow from the size,
/// and refuses to be told.
fn has_iops(volume_type: &str) -> bool {
    matches!(volume_type, "io1" | "io2" | "gp3")
}

/// Whether throughput is provisioned for volumes of this type.
fn has_throughput(volume_type: &str) -> bool {
    volume_type == "gp3"
}

/// What is recorded of a volume; what is known of its snapshot is added later.
pub fn recorded(volume: &Volume, volume_id: &str, region: &str) -> EbsSnapshot {
    let volume_type = volume.volume_type().map_or("", |known| known.as_str());
    let encrypted = volume.encrypted().unwrap_or(false);
    EbsSnapshot {
        snapshot_id: String::new(),
        volume_id: volume_id.to_owned(),
        region: region.to_owned(),
        availability_zone: volume.availability_zone().unwrap_or_default().to_owned(),
        volume_type: volume_type.to_owned(),
        iops: volume.iops().filter(|_| has_iops(volume_type)),
        throughput: volume.throughput().filter(|_| has_throughput(volume_type)),
        size_gib: volume.size(),
        encrypted: Some(encrypted),
        kms_key_id: volume.kms_key_id().filter(|_| encrypted).map(str::to_owned),
        started: None,
    }
}

/// What EC2 is asked for; it chooses what is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `gp3`, …
    pub volume_type: Option<String>,
    /// Operations a second.
    pub iops: Option<i32>,
    /// MiB/s.
    pub throughput: Option<i32>,
    /// GiB.
    pub size_gib: Option<i32>,
    /// Whether to encrypt.
    pub encrypted: Option<bool>,
    /// With which key.
    pub kms_key: Option<String>,
}

/// The properties of a volume that is to be made from a snapshot of `snapshot_size` GiB.
///
/// Encryption: a volume from an encrypted snapshot is encrypted by EC2, whatever is said, with the key of the snapshot if none is
/// named (of a snapshot that another account shares: with the account's default key). From one that is not encrypted it is
/// encrypted only if asked for, or if the account encrypts by default. So nothing is said of a volume that was not encrypted or
/// of which that is not known.
pub fn asked(wanted: &WantedVolume, snapshot_size: Option<i32>) -> Asked {
    let recorded = &wanted.snapshot;
    let volume_type = &*recorded.volume_type;
    let kms_key = match &wanted.kms_key {
        Some(key) => Some(key.clone()),
        None if recorded.encrypted == Some(true) => recorded.kms_key_id.clone(),
        None => None,
    };
    let encrypted = kms_key.is_some() || recorded.encrypted == Some(true);
    Asked {
        volume_type: (!volume_type.is_empty()).then(|| volume_type.to_owned()),
        iops: recorded.iops.filter(|_| has_iops(volume_type)),
        throughput: recorded.throughput.filter(|_| has_throughput(volume_type)),
        // Smaller than the snapshot is refused; a volume that was smaller cannot have made it.
        size_gib: recorded.size_gib.max(snapshot_size),
        encrypted: encrypted.then_some(true),
        kms_key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::VolumeType;

    fn volume(volume_type: &str) -> Volume {
        Volume::builder()
            .volume_type(VolumeType::from(volume_type))
            .iops(4000)
            .throughput(250)
            .size(20)
            .availability_zone("eu-central-1b")
            .encrypted(false)
            .kms_key_id("key")
            .build()
    }

    #[test]
    fn provisioned_performance_is_recorded_and_asked_for_where_there_is_any() {
        for (volume_type, iops, throughput) in [
            ("io1", Some(4000), None),
            ("io2", Some(4000), None),
            ("gp3", Some(4000), Some(250)),
            ("gp2", None, None),
            ("st1", None, None),
            ("sc1", None, None),
            ("standard", None, None),
            ("later", None, None),
        ] {
            let recorded = recorded(&volume(volume_type), "vol-1", "eu-central-1");
            assert_eq!(
                recorded,
                EbsSnapshot {
                    volume_id: "vol-1".to_owned(),
                    region: "eu-central-1".to_owned(),
                    availability_zone: "eu-central-1b".to_owned(),
                    volume_type: volume_type.to_owned(),
                    iops,
                    throughput,
                    size_gib: Some(20),
                    encrypted: Some(false),
                    ..EbsSnapshot::default()
                }
            );
            // Velero records 0 or more for any type.
            let others = EbsSnapshot {
                iops: Some(4000),
                throughput: Some(250),
                ..recorded
            };
            let asked = asked(&wanted(others, None), Some(20));
            assert_eq!((asked.iops, asked.throughput), (iops, throughput));
        }
    }

    fn wanted(snapshot: EbsSnapshot, kms_key: Option<&str>) -> WantedVolume {
        WantedVolume {
            snapshot,
            availability_zone: "eu-central-1b".to_owned(),
            kms_key: kms_key.map(str::to_owned),
            client_token: "token".to_owned(),
            tags: Default::default(),
        }
    }

    #[test]
    fn a_volume_is_encrypted_with_the_key_it_had_unless_another_is_named() {
        for (encrypted, recorded, named, expected) in [
            (None, None, None, (None, None)),
            (Some(false), None, None, (None, None)),
            (Some(true), None, None, (Some(true), None)),
            (Some(true), Some("old"), None, (Some(true), Some("old"))),
            (
                Some(true),
                Some("old"),
                Some("new"),
                (Some(true), Some("new")),
            ),
            (Some(false), None, Some("new"), (Some(true), Some("new"))),
            (None, None, Some("new"), (Some(true), Some("new"))),
            // Not of a volume that says it is not encrypted.
            (Some(false), Some("old"), None, (None, None)),
        ] {
            let snapshot = EbsSnapshot {
                encrypted,
                kms_key_id: recorded.map(str::to_owned),
                ..EbsSnapshot::default()
            };
            let asked = asked(&wanted(snapshot, named), None);
            assert_eq!((asked.encrypted, asked.kms_key.as_deref()), expected);
        }
    }

    #[test]
    fn a_volume_is_as_large_as_it_was_and_never_smaller_than_its_snapshot() {
        for (recorded, snapshot, expected) in [
            (Some(20), Some(20), Some(20)),
            (Some(30), Some(20), Some(30)),
            (Some(10), Some(20), Some(20)),
            (None, Some(20), Some(20)),
            (None, None, None),
        ] {
            let record = EbsSnapshot {
                size_gib: recorded,
                ..EbsSnapshot::default()
            };
            assert_eq!(asked(&wanted(record, None), snapshot).size_gib, expected);
        }
    }
}
