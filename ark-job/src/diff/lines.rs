//! The difference of two objects, as `kubectl diff` prints it: a unified diff of their YAML. Pure.

use crate::yaml::yaml;
use serde_json::{Map, Value};
use similar::TextDiff;

/// Lines shown around a change, as kubectl's `diff -u`.
const CONTEXT: usize = 3;
/// Takes the place of a secret value, as kubectl does it.
const HIDDEN: &str = "***";
const HIDDEN_BEFORE: &str = "*** (before)";
const HIDDEN_AFTER: &str = "*** (after)";
/// Holds the whole object once more, secret values too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the two sides are called: `the cluster`, `backup monday`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Titles {
    /// The side of `-`.
    pub old: String,
    /// The side of `+`.
    pub new: String,
}

/// The difference of an object that is on one side or both, or `None` when there is none.
///
/// `place` is how the object is called in the heading. Values of Secrets are hidden.
pub fn difference(
    titles: &Titles,
    place: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Option<String> {
    if old == new {
        return None;
    }
    let (old, new) = hide_secrets(old.cloned(), new.cloned());
    let text = |side: &Option<Value>| side.as_ref().map(yaml).unwrap_or_default();
    let file = |side: &Option<Value>, title: &str| match side {
        Some(_) => format!("{place} ({title})"),
        None => "/dev/null".to_owned(),
    };
    let only = match (&old, &new) {
        (Some(_), None) => format!(": only in {}", titles.old),
        (None, Some(_)) => format!(": only in {}", titles.new),
        _ => String::new(),
    };
    let (before, after) = (text(&old), text(&new));
    let diff = TextDiff::from_lines(&before, &after);
    let body = diff
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&file(&old, &titles.old), &file(&new, &titles.new))
        .to_string();
    Some(format!("diff {place}{only}\n{body}"))
}

/// Hides the values of Secrets; that one has changed stays visible.
fn hide_secrets(old: Option<Value>, new: Option<Value>) -> (Option<Value>, Option<Value>) {
    let is_secret = |side: &Option<Value>| {
        side.as_ref()
            .is_some_and(|object| object["kind"] == "Secret" && object["apiVersion"] == "v1")
    };
    if !is_secret(&old) && !is_secret(&new) {
        return (old, new);
    }
    let (mut old, mut new) = (old, new);
    for pointer in ["/data", "/stringData"] {
        hide(map_at(&mut old, pointer), map_at(&mut new, pointer), |_| {
            true
        });
    }
    let annotations = "/metadata/annotations";
    hide(
        map_at(&mut old, annotations),
        map_at(&mut new, annotations),
        |key| key == LAST_APPLIED,
    );
    (old, new)
}

fn map_at<'a>(side: &'a mut Option<Value>, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    side.as_mut()?.pointer_mut(pointer)?.as_object_mut()
}

fn hide(
    mut old: Option<&mut Map<String, Value>>,
    mut new: Option<&mut Map<String, Value>>,
    secret: impl Fn(&str) -> bool,
) {
    let keys = |side: &Option<&mut Map<String, Value>>| -> Vec<String> {
        let keys = side.iter().flat_map(|map| map.keys());
        keys.filter(|key| secret(key)).cloned().collect()
    };
    let mut all = keys(&old);
    all.extend(keys(&new));
    all.sort();
    all.dedup();
    for key in all {
        let before = old.as_deref_mut().and_then(|map| map.get_mut(&key));
        let after = new.as_deref_mut().and_then(|map| map.get_mut(&key));
        match (before, after) {
            (Some(before), Some(after)) if before != after => {
                *before = HIDDEN_BEFORE.into();
                *after = HIDDEN_AFTER.into();
            }
            (before, after) => {
                for value in [before, after].into_iter().flatten() {
                    *value = HIDDEN.into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(old: Option<Value>, new: Option<Value>) -> Option<String> {
        let titles = Titles {
            old: "the cluster".into(),
            new: "backup b".into(),
        };
        difference(&titles, "a/configmaps/x", old.as_ref(), new.as_ref())
    }

    #[test]
    fn the_same_is_no_difference_whatever_the_order_of_keys() {
        let one = json!({"kind": "ConfigMap", "data": {"a": "1", "b": "2"}});
        let other = json!({"data": {"b": "2", "a": "1"}, "kind": "ConfigMap"});
        assert_eq!(shown(Some(one), Some(other)), None);
    }

    #[test]
    fn a_changed_field_is_a_hunk_with_its_surroundings() {
        let with = |colour: &str| json!({"data": {"a": "1", "b": "2", "c": colour, "d": "4", "e": "5", "f": "6", "g": "7"}});
        assert_eq!(
            shown(Some(with("red")), Some(with("green"))).unwrap(),
            "diff a/configmaps/x\n\
             --- a/configmaps/x (the cluster)\n\
             +++ a/configmaps/x (backup b)\n\
             @@ -1,7 +1,7 @@\n \
             data:\n   a: \"1\"\n   b: \"2\"\n\
             -  c: red\n\
             +  c: green\n   d: \"4\"\n   e: \"5\"\n   f: \"6\"\n"
        );
    }

    #[test]
    fn an_object_of_one_side_is_shown_whole_and_named_so() {
        let object = json!({"data": {"a": "b"}});
        assert_eq!(
            shown(Some(object.clone()), None).unwrap(),
            "diff a/configmaps/x: only in the cluster\n\
             --- a/configmaps/x (the cluster)\n\
             +++ /dev/null\n\
             @@ -1,2 +0,0 @@\n\
             -data:\n\
             -  a: b\n"
        );
        assert_eq!(
            shown(None, Some(object)).unwrap(),
            "diff a/configmaps/x: only in backup b\n\
             --- /dev/null\n\
             +++ a/configmaps/x (backup b)\n\
             @@ -0,0 +1,2 @@\n\
             +data:\n\
             +  a: b\n"
        );
    }

    #[test]
    fn values_of_secrets_are_hidden_and_changes_are_not() {
        let secret = |data: Value| {
            let applied = json!({"data": data}).to_string();
            json!({"apiVersion": "v1", "kind": "Secret", "data": data,
                   "metadata": {"annotations": {LAST_APPLIED: applied, "mine": "plain"}}})
        };
        let old = secret(
            json!({"changed": "c2VjcmV0MQ==", "gone": "c2VjcmV0Mg==", "same": "c2VjcmV0Mw=="}),
        );
        let new = secret(
            json!({"changed": "c2VjcmV0NA==", "new": "c2VjcmV0NQ==", "same": "c2VjcmV0Mw=="}),
        );
        let text = shown(Some(old.clone()), Some(new)).unwrap();
        for line in [
            "\n-  changed: \"*** (before)\"\n",
            "\n+  changed: \"*** (after)\"\n",
            "\n-  gone: \"***\"\n",
            "\n+  new: \"***\"\n",
            "\n   same: \"***\"\n",
            "\n     mine: plain\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("c2Vj"), "{text}");
        let alone = shown(Some(old), None).unwrap();
        assert!(
            !alone.contains("c2Vj") && alone.contains("-  same: \"***\""),
            "{alone}"
        );
    }
}
