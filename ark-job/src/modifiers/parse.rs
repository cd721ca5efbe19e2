//! Reading resource modifier rules: strictly, so that a misspelt field is not silently without effect.

use super::{Conditions, GroupResource, ModifiersError, Patches, Rule};
use crate::filter::Filter;
use crate::selector::AnyOf;
use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, CopyOperation, MoveOperation, Patch, PatchOperation, RemoveOperation,
    ReplaceOperation, TestOperation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    version: String,
    #[serde(default)]
    resource_modifier_rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule {
    conditions: RawConditions,
    #[serde(default)]
    patches: Vec<RawPatch>,
    #[serde(default)]
    merge_patches: Vec<RawMerge>,
    #[serde(default)]
    strategic_patches: Vec<RawMerge>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawConditions {
    #[serde(default)]
    group_resource: String,
    #[serde(default)]
    resource_name_regex: String,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    label_selector: Option<RawSelector>,
    #[serde(default)]
    matches: Vec<RawMatch>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<RawExpression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    #[serde(default)]
    path: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPatch {
    #[serde(default)]
    operation: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMerge {
    patch_data: String,
}

/// Reads the rules out of the text under `key` of the ConfigMap `name`.
pub(super) fn parse_rules(name: &str, key: &str, text: &str) -> Result<Vec<Rule>, ModifiersError> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|source| ModifiersError::Yaml {
            name: name.to_owned(),
            key: key.to_owned(),
            source: Box::new(source),
        })?;
    if !document.version.eq_ignore_ascii_case("v1") {
        return Err(ModifiersError::Version {
            name: name.to_owned(),
            version: document.version,
        });
    }
    if document.resource_modifier_rules.is_empty() {
        return Err(ModifiersError::NoRules {
            name: name.to_owned(),
        });
    }
    let rules = document.resource_modifier_rules.into_iter().enumerate();
    rules
        .map(|(index, raw)| {
            rule(raw).map_err(|why| ModifiersError::Rule {
                name: name.to_owned(),
                rule: index + 1,
                why,
            })
        })
        .collect()
}

fn rule(raw: RawRule) -> Result<Rule, String> {
    let RawRule {
        conditions,
        patches,
        merge_patches,
        strategic_patches,
    } = raw;
    let patches = match (&patches[..], &merge_patches[..], &strategic_patches[..]) {
        ([_, ..], [], []) => {
            let operations = patches.into_iter().enumerate().map(|(index, raw)| {
                operation(raw).map_err(|why| format!("patch {}: {why}", index + 1))
            });
            Patches::Json(Patch(operations.collect::<Result<_, _>>()?))
        }
        ([], [_, ..], []) => Patches::Merge(merge_data("mergePatches", merge_patches)?),
        ([], [], [_, ..]) => Patches::Strategic(merge_data("strategicPatches", strategic_patches)?),
        ([], [], []) => {
            return Err("it has none of patches, mergePatches and strategicPatches".into());
        }
        _ => {
            return Err(
                "it has more than one of patches, mergePatches and strategicPatches".into(),
            );
        }
    };
    Ok(Rule {
        conditions: compile(conditions)?,
        patches,
    })
}

fn compile(raw: RawConditions) -> Result<Conditions, String> {
    let RawConditions {
        group_resource,
        resource_name_regex,
        namespaces,
        label_selector,
        matches,
    } = raw;
    let name = if resource_name_regex.is_empty() {
        None
    } else {
        Some(Regex::new(&resource_name_regex).map_err(|error| {
            format!("resourceNameRegex {resource_name_regex:?} is no regular expression: {error}")
        })?)
    };
    let matches = matches.into_iter().map(|raw| {
        Ok((
            pointer("the path of a match", &raw.path)?,
            value(raw.value)?,
        ))
    });
    Ok(Conditions {
        resource: pattern(&group_resource)?,
        name,
        namespaces: Filter::namespaces(&namespaces, &[])?,
        selector: AnyOf::new(&label_selector.map(selector))
            .map_err(|why| format!("labelSelector: {why}"))?,
        matches: matches.collect::<Result<_, String>>()?,
    })
}

fn pattern(text: &str) -> Result<GroupResource, String> {
    if text.is_empty() {
        return Err("its conditions have no groupResource".into());
    }
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*?[]".contains(c);
    let (resource, group) = match text.split_once('.') {
        Some((resource, group)) => (resource, Some(group)),
        None => (text, None),
    };
    let balanced = |part: &str| {
        let (open, close) = (part.matches('[').count(), part.matches(']').count());
        open == close && !part.contains("[]") && !part.is_empty()
    };
    if !text.chars().all(known) || !balanced(resource) || !group.is_none_or(balanced) {
        return Err(format!(
            "groupResource {text:?} cannot match a type; it is the plural with its group, such as deployments.apps"
        ));
    }
    let filter = |part: &str| Filter::resolved_resources(&[part.to_owned()], &[]);
    Ok(GroupResource {
        resource: filter(resource),
        group: group.map(filter),
    })
}

fn selector(raw: RawSelector) -> LabelSelector {
    let expressions = raw.match_expressions.into_iter();
    LabelSelector {
        match_labels: Some(raw.match_labels),
        match_expressions: Some(
            expressions
                .map(|raw| LabelSelectorRequirement {
                    key: raw.key,
                    operator: raw.operator,
                    values: Some(raw.values),
                })
                .collect(),
        ),
    }
}

fn operation(raw: RawPatch) -> Result<PatchOperation, String> {
    let RawPatch {
        operation,
        from,
        path,
        value: text,
    } = raw;
    let path = || pointer("its path", &path);
    let from = || pointer("its from", &from);
    Ok(match operation.as_str() {
        "add" => PatchOperation::Add(AddOperation {
            path: path()?,
            value: value(text)?,
        }),
        "remove" => PatchOperation::Remove(RemoveOperation { path: path()? }),
        "replace" => PatchOperation::Replace(ReplaceOperation {
            path: path()?,
            value: value(text)?,
        }),
        "move" => PatchOperation::Move(MoveOperation {
            from: from()?,
            path: path()?,
        }),
        "copy" => PatchOperation::Copy(CopyOperation {
            from: from()?,
            path: path()?,
        }),
        "test" => PatchOperation::Test(TestOperation {
            path: path()?,
            value: value(text)?,
        }),
        "" => return Err("it has no operation".into()),
        other => {
            return Err(format!(
                "its operation {other:?} is none of add, remove, replace, move, copy and test"
            ));
        }
    })
}

fn pointer(what: &str, text: &str) -> Result<PointerBuf, String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    PointerBuf::parse(text).map_err(|error| format!("{what} {text:?} is no JSON pointer: {error}"))
}

/// A value as Velero reads it: text, of which `null`, `true`, `false`, numbers, and what begins like an object or an
/// array are JSON. Text in double quotes is a string, whatever is in it. What is no text in the YAML is taken as it is,
/// which Velero refuses.
fn value(raw: Value) -> Result<Value, String> {
    let text = match raw {
        Value::String(text) => text,
        // As Velero: no value is an empty string.
        Value::Null => return Ok(Value::from("")),
        other => return Ok(other),
    };
    if text.starts_with(['{', '[']) {
        return serde_json::from_str(&text)
            .map_err(|error| format!("its value {text:?} is no JSON: {error}"));
    }
    if let Some(quoted) = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        let plain = || quoted.to_owned();
        return Ok(serde_json::from_str(&text).unwrap_or_else(|_| plain().into()));
    }
    match serde_json::from_str(&text) {
        Ok(json @ (Value::Null | Value::Bool(_) | Value::Number(_))) if text.trim() == text => {
            Ok(json)
        }
        _ => Ok(text.into()),
    }
}

/// The patches of a list, each JSON or YAML text that is an object.
fn merge_data(field: &str, patches: Vec<RawMerge>) -> Result<Vec<Value>, String> {
    let patches = patches.into_iter().enumerate();
    patches
        .map(|(index, raw)| {
            let text = &raw.patch_data;
            let patch = serde_json::from_str(text)
                .or_else(|_| serde_saphyr::from_str::<Value>(text))
                .map_err(|error| {
                    format!(
                        "the patchData of number {} of {field} is neither JSON nor YAML: {error}",
                        index + 1
                    )
                })?;
            if patch.is_object() {
                Ok(patch)
            } else {
                Err(format!(
                    "the patchData of number {} of {field} is no object",
                    index + 1
                ))
            }
        })
        .collect()
}
