//! What of EC2 is allowed, asked without effect: reading is done, the rest is a dry run, which EC2 refuses with
//! `DryRunOperation` when it would have been allowed.
//!
//! What is deleted or tagged in the dry run does not exist, so that a service which takes no notice of that deletes nothing.

use super::failure::Failure;
use super::{Ec2, filter, tags};
use crate::volumes::disks::{DiskError, Permission, Tags};
use aws_sdk_ec2::types::{ResourceType, Tag, VolumeType};

/// A snapshot that does not exist.
const NO_SNAPSHOT: &str = "snap-0fffffffffffffff0";
/// A volume that does not exist.
const NO_VOLUME: &str = "vol-0fffffffffffffff0";

impl Ec2 {
    pub(super) async fn ask_for_permissions(
        &self,
        region: &str,
        volume_id: &str,
    ) -> Result<Vec<Permission>, DiskError> {
        let (region, client) = self.region_client(region)?;
        let mut permissions = Vec::new();
        let mut add = |action, refused| permissions.push(Permission { action, refused });
        let volumes = client
            .describe_volumes()
            .set_filters((!volume_id.is_empty()).then(|| vec![filter("volume-id", volume_id)]))
            .max_results(5)
            .send()
            .await;
        let zone = volumes.as_ref().ok().and_then(|found| {
            let volume = found.volumes().first()?;
            volume.availability_zone().map(str::to_owned)
        });
        add("ec2:DescribeVolumes", refused(volumes, |_| None));
        let snapshots = client
            .describe_snapshots()
            .owner_ids("self")
            .max_results(5)
            .send()
            .await;
        add("ec2:DescribeSnapshots", refused(snapshots, |_| None));
        let tagged: Tags = [("ark.heptio.com/doctor".to_owned(), "dry-run".to_owned())].into();
        let volume_id = if volume_id.is_empty() {
            NO_VOLUME
        } else {
            volume_id
        };
        let created = client
            .create_snapshot()
            .dry_run(true)
            .volume_id(volume_id)
            .set_tag_specifications(tags::specification(ResourceType::Snapshot, &tagged))
            .send()
            .await;
        add(
            "ec2:CreateSnapshot",
            refused(created, |made| made.snapshot_id),
        );
        let created = client
            .create_volume()
            .dry_run(true)
            .availability_zone(zone.unwrap_or_else(|| format!("{region}a")))
            .size(1)
            .volume_type(VolumeType::Gp3)
            .set_tag_specifications(tags::specification(ResourceType::Volume, &tagged))
            .send()
            .await;
        add("ec2:CreateVolume", refused(created, |made| made.volume_id));
        let deleted = client
            .delete_snapshot()
            .dry_run(true)
            .snapshot_id(NO_SNAPSHOT)
            .send()
            .await;
        add("ec2:DeleteSnapshot", refused(deleted, |_| None));
        let deleted = client
            .delete_volume()
            .dry_run(true)
            .volume_id(NO_VOLUME)
            .send()
            .await;
        add("ec2:DeleteVolume", refused(deleted, |_| None));
        let tag = Tag::builder().key("ark.heptio.com/doctor").build();
        let tagging = client
            .create_tags()
            .dry_run(true)
            .resources(NO_SNAPSHOT)
            .tags(tag.clone())
            .send()
            .await;
        add("ec2:CreateTags", refused(tagging, |_| None));
        let tagging = client
            .delete_tags()
            .dry_run(true)
            .resources(NO_VOLUME)
            .tags(tag)
            .send()
            .await;
        add("ec2:DeleteTags", refused(tagging, |_| None));
        Ok(permissions)
    }
}

/// Why an action is not allowed, if it is not; `made` tells what a service has made that takes no notice of dry runs.
fn refused<T, E>(
    answer: Result<T, aws_sdk_ec2::error::SdkError<E, aws_sdk_ec2::config::http::HttpResponse>>,
    made: impl FnOnce(T) -> Option<String>,
) -> Option<String>
where
    E: aws_sdk_ec2::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = match answer {
        Ok(done) => {
            return made(done)
                .map(|id| format!("this service takes no notice of dry runs: it has made {id}"));
        }
        Err(error) => Failure::new(&error),
    };
    let code = &*failure.code;
    // Rights are looked at before whether it exists.
    let allowed = code == "DryRunOperation" || code.ends_with(".NotFound");
    (!allowed).then(|| failure.brief().to_owned())
}
