//! Changes that a user wants made to objects before they are restored: the rules of a ConfigMap in Velero's format
//! (its `internal/resourcemodifiers`), checked completely before anything is restored. Pure.
//!
//! Two things are not as in Velero. A rule that cannot be applied is an error of the object, which is then not restored;
//! Velero restores it unchanged. And `*` in a group matches groups with dots, as Velero's documentation says.

mod parse;
mod strategic;

use self::parse::parse_rules;
use crate::filter::Filter;
use crate::selector::AnyOf;
use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchError, PatchOperation};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// What no rule may change: the object would be another one.
const IDENTITY: [&str; 4] = [
    "/apiVersion",
    "/kind",
    "/metadata/name",
    "/metadata/namespace",
];

/// The rules of one ConfigMap.
#[derive(Clone, Debug)]
pub struct Modifiers {
    /// The ConfigMap's name, for messages.
    name: String,
    rules: Vec<Rule>,
}

/// Why a ConfigMap holds no usable rules.
#[derive(Debug, thiserror::Error)]
pub enum ModifiersError {
    /// There must be one document.
    #[error("ConfigMap {name} has {count} keys; resource modifiers are in exactly one")]
    Keys {
        /// The ConfigMap.
        name: String,
        /// How many keys it has.
        count: usize,
    },
    /// It is not YAML, or has a field that is not known.
    #[error("ConfigMap {name}, key {key}: these are no resource modifiers")]
    Yaml {
        /// The ConfigMap.
        name: String,
        /// Its key.
        key: String,
        /// What is wrong, and where.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// It is of another version.
    #[error("ConfigMap {name}: resource modifiers of version {version:?} are not known, only v1")]
    Version {
        /// The ConfigMap.
        name: String,
        /// Its version.
        version: String,
    },
    /// It says nothing.
    #[error("ConfigMap {name} has no resource modifier rules")]
    NoRules {
        /// The ConfigMap.
        name: String,
    },
    /// A rule is not valid.
    #[error("ConfigMap {name}, rule {rule}: {why}")]
    Rule {
        /// The ConfigMap.
        name: String,
        /// The rule, counted from 1.
        rule: usize,
        /// A sentence about it.
        why: String,
    },
}

/// Why a rule cannot be applied to an object that it is for.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The patch does not fit the object.
    #[error("rule {rule} of the resource modifiers {name} cannot be applied")]
    Patch {
        /// The ConfigMap.
        name: String,
        /// The rule, counted from 1.
        rule: usize,
        /// The operation that failed.
        #[source]
        source: PatchError,
    },
    /// The strategic merge patch does not fit the object.
    #[error("rule {rule} of the resource modifiers {name} cannot be applied: {why}")]
    Strategic {
        /// The ConfigMap.
        name: String,
        /// The rule, counted from 1.
        rule: usize,
        /// A sentence about it.
        why: String,
    },
    /// It would be another object.
    #[error("rule {rule} of the resource modifiers {name} would change {field}, which it must not")]
    Identity {
        /// The ConfigMap.
        name: String,
        /// The rule, counted from 1.
        rule: usize,
        /// JSON pointer of the field.
        field: &'static str,
    },
}

#[derive(Clone, Debug)]
struct Rule {
    conditions: Conditions,
    patches: Patches,
}

/// Which objects a rule is for.
#[derive(Clone, Debug)]
struct Conditions {
    resource: GroupResource,
    /// Of the name, if not all are meant.
    name: Option<Regex>,
    /// In the backup; does not concern cluster-scoped objects.
    namespaces: Filter,
    selector: AnyOf,
    /// What must be where.
    matches: Vec<(PointerBuf, Value)>,
}

/// A pattern of `resource` or `resource.group`.
#[derive(Clone, Debug)]
struct GroupResource {
    resource: Filter,
    /// The core group when absent.
    group: Option<Filter>,
}

#[derive(Clone, Debug)]
enum Patches {
    Json(Patch),
    Merge(Vec<Value>),
    Strategic(Vec<Value>),
}

impl Modifiers {
    /// Reads the `data` of the ConfigMap called `name`, and checks all of it.
    ///
    /// # Errors
    /// [`ModifiersError`], about the first thing that is wrong.
    pub fn parse(name: &str, data: &BTreeMap<String, String>) -> Result<Modifiers, ModifiersError> {
        let mut keys = data.iter();
        let (Some((key, text)), None) = (keys.next(), keys.next()) else {
            return Err(ModifiersError::Keys {
                name: name.to_owned(),
                count: data.len(),
            });
        };
        Ok(Modifiers {
            name: name.to_owned(),
            rules: parse_rules(name, key, text)?,
        })
    }

    /// Changes an object that is about to be restored, as the rules say; `namespace` is the one in the backup. Returns
    /// whether anything was changed.
    ///
    /// Which rules apply is decided by the object as it comes; then each that applies changes what the ones before it
    /// left. A `test` operation that fails drops its rule, which is no error.
    ///
    /// # Errors
    /// [`ApplyError`], when a rule that applies does not fit. `object` is then as far as the rules before it came.
    pub fn apply(
        &self,
        resource: &str,
        namespace: Option<&str>,
        object: &mut Value,
    ) -> Result<bool, ApplyError> {
        let applying: Vec<(usize, &Rule)> = self
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.conditions.hold(resource, namespace, object))
            .map(|(index, rule)| (index + 1, rule))
            .collect();
        let mut changed = false;
        for (number, rule) in applying {
            let mut patched = object.clone();
            if !self.patch(number, rule, resource, &mut patched)? {
                continue;
            }
            let identity = IDENTITY.into_iter();
            let mut other =
                identity.filter(|field| object.pointer(field) != patched.pointer(field));
            if let Some(field) = other.next() {
                return Err(ApplyError::Identity {
                    name: self.name.clone(),
                    rule: number,
                    field,
                });
            }
            changed |= *object != patched;
            *object = patched;
        }
        Ok(changed)
    }

    /// Applies one rule; `false` when a test of its own drops it.
    fn patch(
        &self,
        number: usize,
        rule: &Rule,
        resource: &str,
        object: &mut Value,
    ) -> Result<bool, ApplyError> {
        match &rule.patches {
            Patches::Json(patch) => match json_patch::patch(object, patch) {
                Ok(()) => Ok(true),
                Err(error)
                    if matches!(patch.get(error.operation), Some(PatchOperation::Test(_))) =>
                {
                    Ok(false)
                }
                Err(source) => Err(ApplyError::Patch {
                    name: self.name.clone(),
                    rule: number,
                    source,
                }),
            },
            Patches::Merge(patches) => {
                for patch in patches {
                    json_patch::merge(object, patch);
                }
                Ok(true)
            }
            Patches::Strategic(patches) => {
                for patch in patches {
                    strategic::merge(resource, object, patch).map_err(|why| {
                        ApplyError::Strategic {
                            name: self.name.clone(),
                            rule: number,
                            why,
                        }
                    })?;
                }
                Ok(true)
            }
        }
    }
}

impl Conditions {
    fn hold(&self, resource: &str, namespace: Option<&str>, object: &Value) -> bool {
        let name = || object["metadata"]["name"].as_str().unwrap_or_default();
        self.resource.matches(resource)
            && namespace.is_none_or(|namespace| self.namespaces.includes(namespace))
            && self
                .name
                .as_ref()
                .is_none_or(|regex| regex.is_match(name()))
            && (self.selector.selects_all() || self.selector.matches(&labels(object)))
            && self
                .matches
                .iter()
                .all(|(pointer, value)| pointer.resolve(object).is_ok_and(|found| found == value))
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

impl GroupResource {
    fn matches(&self, resource: &str) -> bool {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.resource.includes(resource)
            && match &self.group {
                Some(pattern) => pattern.includes(group),
                None => group.is_empty(),
            }
    }
}

#[cfg(test)]
mod tests;
