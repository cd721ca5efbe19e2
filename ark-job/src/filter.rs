//! Which namespaces and which resource types an operation is about.

use crate::archive::footer::TypeEntry;
use std::collections::BTreeSet;

/// Included and excluded names, as a user gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// A name or a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    glob: bool,
}

impl Pattern {
    fn resource(text: &str) -> Pattern {
        Pattern {
            text: text.to_owned(),
            glob: text.contains(['*', '?', '[']),
        }
    }

    fn matches(&self, name: &str) -> bool {
        if self.glob {
            glob(self.text.as_bytes(), name.as_bytes())
        } else {
            self.text == name
        }
    }
}

impl Filter {
    /// A filter of namespaces from `--include-namespaces` and `--exclude-namespaces`; nothing or `*` includes all.
    ///
    /// # Errors
    /// As Velero: `*` beside other names, `*` excluded, a name both included and excluded, a pattern that could never
    /// match a namespace.
    pub fn namespaces(include: &[String], exclude: &[String]) -> Result<Filter, String> {
        Filter::new("namespaces", include, exclude, namespace_pattern)
    }

    /// A filter of resource types as a user names them, to be checked before any work.
    ///
    /// # Errors
    /// As [`Filter::namespaces`].
    pub fn resources(include: &[String], exclude: &[String]) -> Result<Filter, String> {
        Filter::new("resources", include, exclude, |text| {
            Ok(Pattern::resource(text))
        })
    }

    /// A filter of resource types whose names have been resolved to `resource.group`. Globs have been expanded, so a
    /// type may be on both sides; it is left out then.
    pub fn resolved_resources(include: &[String], exclude: &[String]) -> Filter {
        let compile = |names: &[String]| names.iter().map(|name| Pattern::resource(name)).collect();
        Filter {
            include: if include == ["*"] {
                Vec::new()
            } else {
                compile(include)
            },
            exclude: compile(exclude),
        }
    }

    fn new(
        what: &str,
        include: &[String],
        exclude: &[String],
        pattern: impl Fn(&str) -> Result<Pattern, String>,
    ) -> Result<Filter, String> {
        if include.len() > 1 && include.iter().any(|name| name == "*") {
            return Err(format!("included {what}: '*' must stand alone"));
        }
        if exclude.iter().any(|name| name == "*") {
            return Err(format!("excluded {what}: '*' would leave nothing"));
        }
        let included: BTreeSet<&String> = include.iter().collect();
        if let Some(both) = exclude.iter().find(|name| included.contains(name)) {
            return Err(format!(
                "{both:?} is both among the included and the excluded {what}"
            ));
        }
        let compile = |names: &[String]| {
            names
                .iter()
                .map(|name| pattern(name))
                .collect::<Result<Vec<_>, _>>()
        };
        let include = if include == ["*"] {
            Vec::new()
        } else {
            compile(include)?
        };
        Ok(Filter {
            include,
            exclude: compile(exclude)?,
        })
    }

    /// Whether `name` passes.
    pub fn includes(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(name)))
            && !self.excludes(name)
    }

    /// Whether `name` is left out explicitly.
    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether every name passes.
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether names are included explicitly, or by glob.
    pub fn selects(&self) -> bool {
        !self.include.is_empty()
    }

    /// The included names, without the globs.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let plain = self.include.iter().filter(|pattern| !pattern.glob);
        plain
            .map(|pattern| pattern.text.as_str())
            .filter(|name| !self.excludes(name))
    }

    /// The included globs that match none of `names`.
    pub fn idle_globs(&self, names: &[String]) -> Vec<&str> {
        let idle =
            |pattern: &&Pattern| pattern.glob && !names.iter().any(|name| pattern.matches(name));
        self.include
            .iter()
            .filter(idle)
            .map(|pattern| pattern.text.as_str())
            .collect()
    }

    /// The included names when all are plain names: then only they need be asked for.
    pub fn plain_names(&self) -> Option<Vec<&str>> {
        if self.include.is_empty() || self.include.iter().any(|pattern| pattern.glob) {
            return None;
        }
        Some(
            self.include
                .iter()
                .map(|pattern| pattern.text.as_str())
                .filter(|name| !self.excludes(name))
                .collect(),
        )
    }
}

/// A namespace's name, or a glob of `*`, `?` and `[…]` that could match one.
fn namespace_pattern(text: &str) -> Result<Pattern, String> {
    let glob = text.contains(['*', '?', '[']);
    let mut in_class = false;
    for c in text.chars() {
        match c {
            '[' if !in_class => in_class = true,
            ']' if in_class => in_class = false,
            'a'..='z' | '0'..='9' | '-' => {}
            '*' | '?' if !in_class => {}
            _ => {
                return Err(format!(
                    "{text:?} cannot match a namespace: {c:?} does not occur in one"
                ));
            }
        }
    }
    if text.is_empty() {
        return Err("the name of a namespace must not be empty".into());
    }
    if in_class || text.contains("[]") {
        return Err(format!("{text:?} has an empty or unclosed [...]"));
    }
    Ok(Pattern {
        text: text.to_owned(),
        glob,
    })
}

/// Matches `*`, `?` and `[a-z]`; backtracks only to the last star, so it takes time linear in the product at worst.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(&c) if c == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((star_p, star_t))) => {
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// If `pattern` begins with a class that holds `c`: the class's length.
fn class(pattern: &[u8], c: u8) -> Option<usize> {
    let end = pattern.iter().position(|&b| b == b']')?;
    let body = &pattern[1..end];
    let mut i = 0;
    while i < body.len() {
        let (low, high, length) = if i + 2 < body.len() && body[i + 1] == b'-' {
            (body[i], body[i + 2], 3)
        } else {
            (body[i], body[i], 1)
        };
        if (low..=high).contains(&c) {
            return Some(end + 1);
        }
        i += length;
    }
    None
}

/// A resource type that names can be resolved against.
pub trait Named {
    /// `resource` or `resource.group`.
    fn group_resource(&self) -> String;
    /// Whether `name`, in lower case and without group, means this type: plural, singular, short name or kind.
    fn is_called(&self, name: &str) -> bool;
}

impl Named for TypeEntry {
    fn group_resource(&self) -> String {
        self.resource.clone()
    }

    fn is_called(&self, name: &str) -> bool {
        let plural = self.resource.split('.').next().unwrap_or(&self.resource);
        let short = SHORT_NAMES
            .iter()
            .any(|&(short, resource)| short == name && resource == self.resource);
        plural == name || self.kind.eq_ignore_ascii_case(name) || short
    }
}

/// Short names of Kubernetes' own types: a backup does not hold any, and is read without a cluster, too.
const SHORT_NAMES: [(&str, &str); 29] = [
    ("cm", "configmaps"),
    ("cj", "cronjobs.batch"),
    ("crd", "customresourcedefinitions.apiextensions.k8s.io"),
    ("crds", "customresourcedefinitions.apiextensions.k8s.io"),
    ("csr", "certificatesigningrequests.certificates.k8s.io"),
    ("deploy", "deployments.apps"),
    ("ds", "daemonsets.apps"),
    ("ep", "endpoints"),
    ("ev", "events"),
    ("hpa", "horizontalpodautoscalers.autoscaling"),
    ("ing", "ingresses.networking.k8s.io"),
    ("limits", "limitranges"),
    ("netpol", "networkpolicies.networking.k8s.io"),
    ("no", "nodes"),
    ("ns", "namespaces"),
    ("pc", "priorityclasses.scheduling.k8s.io"),
    ("pdb", "poddisruptionbudgets.policy"),
    ("po", "pods"),
    ("pv", "persistentvolumes"),
    ("pvc", "persistentvolumeclaims"),
    ("quota", "resourcequotas"),
    ("rc", "replicationcontrollers"),
    ("rs", "replicasets.apps"),
    ("sa", "serviceaccounts"),
    ("sc", "storageclasses.storage.k8s.io"),
    ("sts", "statefulsets.apps"),
    ("svc", "services"),
    ("vac", "volumeattributesclasses.storage.k8s.io"),
    ("vs", "volumesnapshots.snapshot.storage.k8s.io"),
];

/// Resolves what a user called resource types to `resource.group`; globs are matched against that.
///
/// A name with a dot is `resource.group`; without, the first type in discovery's order that is called so, as kubectl.
///
/// # Errors
/// A sentence that names those that no type is called.
pub fn resolve_resources<T: Named>(names: &[String], types: &[T]) -> Result<Vec<String>, String> {
    let mut resolved = Vec::new();
    let mut unknown = Vec::new();
    for name in names {
        if name == "*" {
            resolved.push(name.clone());
            continue;
        }
        let before = resolved.len();
        let lower = name.to_lowercase();
        if lower.contains(['*', '?', '[']) {
            let all = types.iter().map(Named::group_resource);
            resolved.extend(all.filter(|resource| glob(lower.as_bytes(), resource.as_bytes())));
        } else {
            let (plain, group) = lower
                .split_once('.')
                .map_or((&lower[..], None), |(plain, group)| (plain, Some(group)));
            let found = types.iter().find(|candidate| {
                let resource = candidate.group_resource();
                let its_group = resource.split_once('.').map_or("", |(_, group)| group);
                candidate.is_called(plain) && group.is_none_or(|group| group == its_group)
            });
            resolved.extend(found.map(Named::group_resource));
        }
        if resolved.len() == before {
            unknown.push(name.as_str());
        }
    }
    if unknown.is_empty() {
        Ok(resolved)
    } else {
        Err(format!("no resource type is called {}", unknown.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    fn namespaces(include: &[&str], exclude: &[&str]) -> Result<Filter, String> {
        Filter::namespaces(&names(include), &names(exclude))
    }

    #[test]
    fn nothing_included_is_everything() {
        for include in [&[][..], &["*"]] {
            let filter = namespaces(include, &[]).unwrap();
            assert!(filter.is_everything() && !filter.selects() && filter.includes("x"));
        }
    }

    #[test]
    fn excludes_win() {
        let filter = namespaces(&["a*"], &["ab"]).unwrap();
        assert!(filter.includes("a") && filter.includes("abc"));
        assert!(!filter.includes("ab") && !filter.includes("b"));
        assert_eq!(filter.plain_names(), None);
        assert_eq!(
            namespaces(&["a", "b"], &["b"]).unwrap_err(),
            "\"b\" is both among the included and the excluded namespaces"
        );
        assert_eq!(
            namespaces(&["a", "b"], &["c"]).unwrap().plain_names(),
            Some(vec!["a", "b"])
        );
    }

    #[test]
    fn contradictions_and_impossible_names_are_refused() {
        for (include, exclude) in [
            (&["*", "a"][..], &[][..]),
            (&[], &["*"]),
            (&["a"], &["a"]),
            (&["A"], &[]),
            (&["a/b"], &[]),
            (&["a[b"], &[]),
            (&["a[]"], &[]),
            (&[""], &[]),
            (&["{a,b}"], &[]),
        ] {
            assert!(
                namespaces(include, exclude).is_err(),
                "{include:?} {exclude:?}"
            );
        }
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[-a]x", "-x", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("prod-*", "prod-", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn types_are_found_by_every_name_they_have() {
        let entry = |resource: &str, kind: &str| TypeEntry {
            resource: resource.into(),
            api_version: "v1".into(),
            kind: kind.into(),
            namespaced: true,
            items: 0,
            bytes: 0,
            unsorted: false,
            resource_version: None,
        };
        let types = [
            entry("services", "Service"),
            entry("deployments.apps", "Deployment"),
            entry("services.serving.knative.dev", "Service"),
        ];
        let resolve = |list: &[&str]| resolve_resources(&names(list), &types);
        assert_eq!(
            resolve(&["Deployment", "services", "services.serving.knative.dev"]).unwrap(),
            [
                "deployments.apps",
                "services",
                "services.serving.knative.dev"
            ]
        );
        assert_eq!(
            resolve(&["*.apps", "*"]).unwrap(),
            ["deployments.apps", "*"]
        );
        assert_eq!(
            resolve(&["deploymets", "x.y"]).unwrap_err(),
            "no resource type is called deploymets, x.y"
        );
    }
}
