//! Which tags a snapshot has, and which a volume made from it. Pure.

use crate::volumes::disks::Tags;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

/// Tags that a resource of EC2 may have.
const MOST: usize = 50;
/// What the keys of our own tags start with.
const OURS: &str = "ark.heptio.com/";
/// What the keys of AWS's own tags start with, in any case; nobody else may set them.
const RESERVED: &str = "aws:";

/// The tags of a snapshot, and the keys that had no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Ours, and as many as fit of those of the volume.
    pub tags: Tags,
    /// Keys of the volume's that did not fit.
    pub dropped: Vec<String>,
}

/// `ours` and those of the source, of which ours win; the source's fill up what room there is, in the order of their keys.
pub fn merge(ours: &Tags, source: &Tags) -> Merged {
    let mut merged = Merged {
        tags: ours.clone(),
        dropped: Vec::new(),
    };
    for (key, value) in source {
        if is_reserved(key) || merged.tags.contains_key(key) {
            continue;
        }
        if merged.tags.len() < MOST {
            merged.tags.insert(key.clone(), value.clone());
        } else {
            merged.dropped.push(key.clone());
        }
    }
    merged
}

/// Of the tags of a snapshot those that a volume made from it gets too: the source volume's. They decide who may delete it (the
/// CSI driver of EBS deletes only volumes with tags of its own) and who pays. In a cluster that is called `cluster`, tags that
/// say to which cluster a volume belongs say that one, as Velero's do.
pub fn of_volume(snapshot: &Tags, cluster: Option<&str>) -> Tags {
    let of_cluster =
        |key: &str| key.starts_with("kubernetes.io/cluster/") || key == "KubernetesCluster";
    let mut tags = snapshot.clone();
    tags.retain(|key, _| {
        !key.starts_with(OURS) && !is_reserved(key) && (cluster.is_none() || !of_cluster(key))
    });
    if let Some(cluster) = cluster {
        tags.insert(
            format!("kubernetes.io/cluster/{cluster}"),
            "owned".to_owned(),
        );
        tags.insert("KubernetesCluster".to_owned(), cluster.to_owned());
    }
    tags
}

fn is_reserved(key: &str) -> bool {
    let start = key.get(..RESERVED.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

/// As EC2 says them.
pub fn from_ec2(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or("").to_owned()));
    tags.iter().filter_map(pair).collect()
}

/// For what is being made; none when there are no tags, which EC2 refuses.
pub fn specification(of: ResourceType, tags: &Tags) -> Option<Vec<TagSpecification>> {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
    let specification = TagSpecification::builder()
        .resource_type(of)
        .set_tags(Some(tags.iter().map(tag).collect()))
        .build();
    (!tags.is_empty()).then(|| vec![specification])
}

/// Filters for what has all these tags.
pub fn filters(tags: &Tags) -> Vec<Filter> {
    let filter = |(key, value): (&String, &String)| {
        // A filter takes * and ? for any characters; what it finds is compared again by `has_all`.
        Filter::builder()
            .name(format!("tag:{key}"))
            .values(value)
            .build()
    };
    tags.iter().map(filter).collect()
}

/// Whether `tags` has all of `wanted`.
pub fn has_all(tags: &Tags, wanted: &Tags) -> bool {
    wanted
        .iter()
        .all(|(key, value)| tags.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn ours_win_over_those_of_the_volume() {
        let ours = tags(&[("ark.heptio.com/pv", "data"), ("both", "ours")]);
        for (source, expected) in [
            (tags(&[]), ours.clone()),
            (
                tags(&[("both", "theirs"), ("theirs", "")]),
                tags(&[
                    ("ark.heptio.com/pv", "data"),
                    ("both", "ours"),
                    ("theirs", ""),
                ]),
            ),
            (
                tags(&[
                    ("aws:autoscaling:groupName", "x"),
                    ("AWS:x", "y"),
                    ("aws", "z"),
                ]),
                tags(&[
                    ("ark.heptio.com/pv", "data"),
                    ("aws", "z"),
                    ("both", "ours"),
                ]),
            ),
        ] {
            let merged = Merged {
                tags: expected,
                dropped: Vec::new(),
            };
            assert_eq!(merge(&ours, &source), merged);
        }
    }

    #[test]
    fn what_exceeds_fifty_tags_is_dropped_and_named() {
        let ours = tags(&[("zz-1", "ours"), ("zz-2", "ours")]);
        let mut source: Tags = (0..50)
            .map(|n| (format!("k{n:02}"), n.to_string()))
            .collect();
        // Takes no room of its own.
        source.insert("zz-1".to_owned(), "theirs".to_owned());
        let merged = merge(&ours, &source);
        assert_eq!(merged.tags.len(), 50);
        assert_eq!(merged.dropped, ["k48", "k49"]);
        assert_eq!(merged.tags["zz-1"], "ours");
        assert!(has_all(&merged.tags, &ours));
    }

    #[test]
    fn a_volume_has_the_tags_of_the_one_it_was_made_from() {
        let snapshot = tags(&[
            ("ark.heptio.com/pv", "data"),
            ("ebs.csi.aws.com/cluster", "true"),
            ("kubernetes.io/cluster/old", "owned"),
            ("KubernetesCluster", "old"),
            ("team", "a"),
        ]);
        assert_eq!(
            of_volume(&snapshot, None),
            tags(&[
                ("ebs.csi.aws.com/cluster", "true"),
                ("kubernetes.io/cluster/old", "owned"),
                ("KubernetesCluster", "old"),
                ("team", "a"),
            ])
        );
        assert_eq!(
            of_volume(&snapshot, Some("new")),
            tags(&[
                ("ebs.csi.aws.com/cluster", "true"),
                ("kubernetes.io/cluster/new", "owned"),
                ("KubernetesCluster", "new"),
                ("team", "a"),
            ])
        );
        assert_eq!(
            of_volume(&tags(&[]), Some("new")),
            tags(&[
                ("kubernetes.io/cluster/new", "owned"),
                ("KubernetesCluster", "new")
            ])
        );
    }
}
