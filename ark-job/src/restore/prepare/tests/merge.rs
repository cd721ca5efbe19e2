//! Service accounts that exist already.

use super::*;

fn account(secrets: &[&str], pull_secrets: &[&str], labels: Value, annotations: Value) -> Value {
    let named =
        |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
    json!({"metadata": {"name": "sa", "labels": labels, "annotations": annotations},
           "secrets": named(secrets), "imagePullSecrets": named(pull_secrets)})
}

fn merged(live: &Value, wanted: &Value) -> Option<Value> {
    merge_service_account(live, wanted)
}

#[test]
fn h1_h7_what_the_cluster_has_already_needs_no_patch() {
    let live = account(&["sa-token-x"], &[], json!({}), json!({}));
    assert_eq!(merged(&live, &json!({"metadata": {"name": "sa"}})), None);
    assert_eq!(merged(&live, &live), None);
    let (fewer, more) = (
        account(&["a"], &[], json!({"x": "1"}), json!({})),
        account(&["b", "a"], &["p"], json!({"x": "2"}), json!({"y": "1"})),
    );
    assert_eq!(merged(&more, &fewer), None);
    assert_eq!(merged(&json!({}), &json!({})), None);
}

#[test]
fn h2_h4_h5_h7_lists_become_the_union_with_the_clusters_first() {
    let live = account(&["a", "b"], &["p"], json!({}), json!({}));
    let wanted = account(&["c", "b", "d"], &["q"], json!({}), json!({}));
    assert_eq!(
        merged(&live, &wanted),
        Some(json!({
            "secrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}],
            "imagePullSecrets": [{"name": "p"}, {"name": "q"}]}))
    );
    let overlapping = account(&["b", "a"], &["q", "p"], json!({}), json!({}));
    assert_eq!(
        merged(&live, &overlapping),
        Some(json!({"imagePullSecrets": [{"name": "p"}, {"name": "q"}]}))
    );
    assert_eq!(
        merged(
            &json!({"metadata": {"name": "sa"}}),
            &json!({"secrets": [{"name": "a"}]})
        ),
        Some(json!({"secrets": [{"name": "a"}]}))
    );
}

#[test]
fn h3_h6_h7_labels_and_annotations_are_added_and_never_changed() {
    let live = account(&[], &[], json!({"a": "1"}), json!({"x": "1"}));
    let wanted = account(&[], &[], json!({"a": "2", "b": "2"}), json!({"x": "2"}));
    assert_eq!(
        merged(&live, &wanted),
        Some(json!({"metadata": {"labels": {"b": "2"}}}))
    );
    let wanted = account(&[], &[], json!({}), json!({"y": "2"}));
    assert_eq!(
        merged(&live, &wanted),
        Some(json!({"metadata": {"annotations": {"y": "2"}}}))
    );
    let bare = json!({"metadata": {"name": "sa"}});
    assert_eq!(
        merged(&bare, &wanted),
        Some(json!({"metadata": {"annotations": {"y": "2"}}}))
    );
}

#[test]
fn the_mark_of_a_restore_is_put_on_only_with_something_else() {
    let live = account(&["a"], &[], json!({}), json!({}));
    let marked = account(&["a"], &[], json!({RESTORE_LABEL: "b-1"}), json!({}));
    assert_eq!(merged(&live, &marked), None);
    let more = account(&["b"], &[], json!({RESTORE_LABEL: "b-1"}), json!({}));
    assert_eq!(
        merged(&live, &more),
        Some(json!({"secrets": [{"name": "a"}, {"name": "b"}],
                    "metadata": {"labels": {RESTORE_LABEL: "b-1"}}}))
    );
}
