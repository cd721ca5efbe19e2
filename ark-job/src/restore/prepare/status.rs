//! Whose status is restored: normally nobody's, since controllers write it anew.

use crate::filter::Filter;
use serde_json::Value;

/// Annotations by which an object says itself whether its status is restored; ours first.
const ANNOTATIONS: [&str; 2] = ["ark.heptio.com/restore-status", "velero.io/restore-status"];

/// The types whose status is restored; by default none.
#[derive(Clone, Debug, Default)]
pub struct StatusChoice(Option<Filter>);

impl StatusChoice {
    /// Of the types that pass the filter of `resource.group`; none if absent.
    pub fn new(resources: Option<Filter>) -> StatusChoice {
        StatusChoice(resources)
    }

    /// Whether the status of an object of the backup is restored. Its annotation wins; one that is neither `true` nor
    /// `false` says nothing.
    pub fn wants(&self, resource: &str, object: &Value) -> bool {
        let annotations = &object["metadata"]["annotations"];
        let said = ANNOTATIONS.iter().find_map(|key| {
            let value = annotations.get(*key)?.as_str()?.trim();
            value.to_lowercase().parse::<bool>().ok()
        });
        let resources = self.0.as_ref();
        said.unwrap_or_else(|| resources.is_some_and(|filter| filter.includes(resource)))
    }
}
