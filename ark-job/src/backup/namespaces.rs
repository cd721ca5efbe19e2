//! The namespaces at the instant of a backup: which there are, which are wanted, and which carry an exclude label.

use super::instant::Instant;
use crate::cluster::discover::ResourceType;
use crate::cluster::list::List;
use crate::cluster::{Cluster, ClusterError};
use crate::filter::Filter;
use std::collections::BTreeSet;

/// Up to so many selected namespaces are listed one by one; of more, everything is listed and the rest thrown away.
const ONE_BY_ONE: usize = 32;

/// What is known of namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// The names of all, in the order of keys: that of `<namespace>/<name>`, in which `a-b/` comes before `a/`.
    pub all: Vec<String>,
    /// The wanted ones, in the same order, when they are selected and few: then only they are listed.
    pub few: Option<Vec<String>>,
    /// Those that carry an exclude label.
    pub left_out: BTreeSet<String>,
    /// Those that were named and do not exist.
    pub absent: Vec<String>,
    /// Globs that match none.
    pub idle: Vec<String>,
}

impl Namespaces {
    /// Lists them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn read(
        cluster: &Cluster,
        instant: &Instant,
        filter: &Filter,
    ) -> Result<Namespaces, ClusterError> {
        let namespaces = ResourceType::namespaces();
        let (mut all, mut left_out) = (Vec::new(), BTreeSet::new());
        let at = instant.at(&namespaces);
        let mut list = List::new(cluster, &namespaces, None, None, at);
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                let metadata = item.metadata().map_err(|source| ClusterError::Malformed {
                    doing: "listing namespaces".into(),
                    source: source.into(),
                })?;
                if metadata.is_excluded() {
                    left_out.insert(metadata.name.clone().into_owned());
                }
                all.push(metadata.name.into_owned());
            }
        }
        all.sort_by_cached_key(|name| format!("{name}/"));
        Ok(Namespaces::chosen(all, left_out, filter))
    }

    fn chosen(all: Vec<String>, left_out: BTreeSet<String>, filter: &Filter) -> Namespaces {
        if !filter.selects() {
            return Namespaces {
                all,
                left_out,
                ..Namespaces::default()
            };
        }
        let existing: BTreeSet<&str> = all.iter().map(String::as_str).collect();
        let absent = filter.named().filter(|name| !existing.contains(name));
        let absent = absent.map(str::to_owned).collect();
        let idle = filter.idle_globs(&all).into_iter().map(str::to_owned);
        let idle = idle.collect();
        let wanted = all
            .iter()
            .filter(|name| filter.includes(name) && !left_out.contains(*name));
        let wanted: Vec<String> = wanted.cloned().collect();
        Namespaces {
            few: (wanted.len() <= ONE_BY_ONE).then_some(wanted),
            all,
            left_out,
            absent,
            idle,
        }
    }
}
