//! Label selectors as people type them, in kubectl's grammar.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

/// Selectors of which an object must match one; none at all select everything.
#[derive(Clone, Debug, Default)]
pub struct AnyOf(Vec<Selector>);

impl AnyOf {
    /// Compiles `selectors`.
    ///
    /// # Errors
    /// When one has an operator that does not exist.
    pub fn new<'a>(
        selectors: impl IntoIterator<Item = &'a LabelSelector>,
    ) -> Result<AnyOf, String> {
        let compile = |selector: &LabelSelector| {
            Selector::try_from(selector.clone()).map_err(|error| error.to_string())
        };
        selectors
            .into_iter()
            .map(compile)
            .collect::<Result<_, _>>()
            .map(AnyOf)
    }

    /// Whether everything matches.
    pub fn selects_all(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(Selector::selects_all)
    }

    /// Whether an object with these labels matches.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.is_empty() || self.0.iter().any(|selector| selector.matches(labels))
    }

    /// What the API server can be asked to select by: it takes one selector, not a choice of several.
    pub fn for_server(&self) -> Option<String> {
        match &self.0[..] {
            [one] if !one.selects_all() => Some(one.to_string()),
            _ => None,
        }
    }
}

/// Splits `app=a or app=b` (Velero's notation) and parses what it joins.
///
/// # Errors
/// As [`parse`].
pub fn parse_choice(text: &str) -> Result<Vec<LabelSelector>, String> {
    text.split(" or ").map(parse).collect()
}

/// Parses `app=nginx,tier in (a,b),!old` as kubectl does.
///
/// # Errors
/// A sentence that says which requirement is wrong, and how.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    for requirement in split(text)? {
        let requirement = requirement.trim();
        if requirement.is_empty() {
            return Err(format!("selector {text:?}: a requirement is empty"));
        }
        add(&mut selector, requirement).map_err(|why| format!("selector {text:?}: {why}"))?;
    }
    Ok(selector)
}

/// Checks that `key=value` can be a label.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_label(key: &str, value: &str) -> Result<(), String> {
    check_key(key).and_then(|()| check_value(value))
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| format!("selector {text:?}: ')' without '('"))?;
            }
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("selector {text:?}: '(' without ')'"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn add(selector: &mut LabelSelector, requirement: &str) -> Result<(), String> {
    if let Some(key) = requirement.strip_prefix('!') {
        return expression(selector, key.trim(), "DoesNotExist", Vec::new());
    }
    if let Some((key, value)) = requirement.split_once("!=") {
        return expression(selector, key.trim(), "NotIn", vec![value.trim().to_owned()]);
    }
    if let Some((key, value)) = requirement.split_once('=') {
        let (key, value) = (key.trim(), value.strip_prefix('=').unwrap_or(value).trim());
        check_key(key)?;
        check_value(value)?;
        let labels = selector.match_labels.get_or_insert_default();
        return match labels.insert(key.to_owned(), value.to_owned()) {
            // Two values for one label can only be said as expressions; nothing matches, as in kubectl.
            Some(other) if other != value => expression(selector, key, "In", vec![other]),
            _ => Ok(()),
        };
    }
    let Some((head, rest)) = requirement.split_once('(') else {
        return expression(selector, requirement, "Exists", Vec::new());
    };
    let values = rest
        .trim_end()
        .strip_suffix(')')
        .ok_or_else(|| format!("{requirement:?} does not end with ')'"))?;
    let values: Vec<String> = values
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => expression(selector, key, "In", values),
        [key, "notin"] => expression(selector, key, "NotIn", values),
        _ => Err(format!(
            "{requirement:?} is neither 'key in (…)' nor 'key notin (…)'"
        )),
    }
}

fn expression(
    selector: &mut LabelSelector,
    key: &str,
    operator: &str,
    values: Vec<String>,
) -> Result<(), String> {
    check_key(key)?;
    values.iter().try_for_each(|value| check_value(value))?;
    selector
        .match_expressions
        .get_or_insert_default()
        .push(LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (!values.is_empty()).then_some(values),
        });
    Ok(())
}

/// A label key: an optional DNS subdomain and slash, then at most 63 of the characters that a name may have.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix
        .is_none_or(|prefix| prefix.len() <= 253 && crate::identity::check_name(prefix).is_ok());
    if prefix_ok && !name.is_empty() && is_name(name) {
        Ok(())
    } else {
        Err(format!("{key:?} is not a label key"))
    }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        Ok(())
    } else {
        Err(format!("{value:?} is not a label value"))
    }
}

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<String, String> = labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Selector::try_from(parse(text).unwrap())
            .unwrap()
            .matches(&labels)
    }

    #[test]
    fn kubectls_grammar_is_understood() {
        let web = [("app", "web"), ("tier", "a")];
        for (text, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("app = db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("other!=x", true),
            ("tier in (a, b)", true),
            ("tier in (b)", false),
            ("tier notin (b,c),app=web", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web,app=db", false),
            ("example.com/x=", false),
        ] {
            assert_eq!(matches(text, &web), expected, "{text}");
        }
    }

    #[test]
    fn one_of_several_is_enough() {
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let choice = AnyOf::new(&parse_choice("a=x or b in (x,or),!c").unwrap()).unwrap();
        assert!(choice.matches(&labels("a")) && choice.matches(&labels("b")));
        assert!(!choice.matches(&labels("c")) && !choice.selects_all());
        assert_eq!(choice.for_server(), None);
        let one = AnyOf::new(&parse_choice("a=x").unwrap()).unwrap();
        assert_eq!(one.for_server().as_deref(), Some("a=x"));
        let all = AnyOf::default();
        assert!(all.selects_all() && all.matches(&labels("c")) && all.for_server().is_none());
        assert!(parse_choice("a=x or ").is_err());
    }

    #[test]
    fn what_kubectl_refuses_is_refused() {
        for text in [
            "",
            "a=b,",
            "a in b",
            "a in (b",
            "a)",
            "=b",
            "a=b c",
            "-a",
            "a/b/c=d",
            &format!("a={}", "x".repeat(64)),
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
