//! Which version of a type is restored, when a backup holds its objects in several.
//!
//! Velero's rule (its feature EnableAPIGroupVersions), without the ConfigMap that overrides it.

use std::cmp::Ordering;

/// A version of a type that a backup has objects in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// `v1`, `v2beta1`
    pub version: String,
    /// Whether the source cluster preferred it.
    pub preferred: bool,
}

/// The index of the version to restore. `served` are those of the target, the preferred one first.
///
/// The target's preferred version; else the source's preferred, if the target serves it; else the highest that both have;
/// else the source's preferred, or its highest: the target may not know the type yet.
pub fn choose(backed_up: &[BackedUp], served: &[String]) -> Option<usize> {
    let is_served = |candidate: &BackedUp| served.contains(&candidate.version);
    let position = |wanted: &dyn Fn(&BackedUp) -> bool| backed_up.iter().position(wanted);
    let highest = |wanted: &dyn Fn(&BackedUp) -> bool| {
        let candidates = backed_up.iter().enumerate();
        candidates
            .filter(|(_, candidate)| wanted(candidate))
            .max_by(|(_, a), (_, b)| compare(&b.version, &a.version))
            .map(|(index, _)| index)
    };
    let targets = served.first();
    position(&|candidate| Some(&candidate.version) == targets)
        .or_else(|| position(&|candidate| candidate.preferred && is_served(candidate)))
        .or_else(|| highest(&is_served))
        .or_else(|| position(&|candidate| candidate.preferred))
        .or_else(|| highest(&|_| true))
}

/// Kubernetes' order of versions, the highest first: stable before beta before alpha, higher numbers first, and all
/// other names after them in the order of their letters.
pub fn compare(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major number, minor number: `v2beta1` is (1, 2, 1).
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((2, number(rest)?, 0))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_versions_sort_as_kubernetes_sorts_them() {
        let sorted = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
            "v",
            "v1gamma1",
        ];
        let mut versions = sorted;
        versions.reverse();
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(versions, sorted);
    }

    #[test]
    fn i10_the_version_is_the_targets_else_the_sources_else_the_highest_of_both() {
        let backed_up: Vec<BackedUp> = [
            ("v1beta1", false),
            ("v2", false),
            ("v1", true),
            ("v3alpha1", false),
        ]
        .into_iter()
        .map(|(version, preferred)| BackedUp {
            version: version.into(),
            preferred,
        })
        .collect();
        let chosen = |served: &[&str]| {
            let served: Vec<String> = served.iter().map(|&version| version.into()).collect();
            choose(&backed_up, &served).map(|index| backed_up[index].version.as_str())
        };
        assert_eq!(chosen(&["v2", "v1"]), Some("v2"));
        assert_eq!(chosen(&["v4", "v1", "v2"]), Some("v1"));
        assert_eq!(chosen(&["v4", "v3alpha1", "v1beta1"]), Some("v1beta1"));
        assert_eq!(chosen(&["v4"]), Some("v1"));
        assert_eq!(chosen(&[]), Some("v1"));
        assert_eq!(choose(&backed_up[..2], &[]), Some(1));
        assert_eq!(choose(&[], &["v1".into()]), None);
    }
}
