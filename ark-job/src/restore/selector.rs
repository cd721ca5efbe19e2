//! Label selectors as people type them (`app=nginx,tier in (a,b),!old`), evaluated on objects out of a backup.

use kube::core::{Expression, Selector};
use std::collections::{BTreeMap, BTreeSet};

/// Parses kubectl's selector syntax; nothing at all selects everything.
///
/// # Errors
/// A sentence that names the part that is not understood.
pub fn parse(text: &str) -> Result<Selector, String> {
    split(text)?
        .into_iter()
        .map(requirement)
        .collect::<Result<Selector, String>>()
        .map_err(|part| format!("the selector {text:?} is not understood at {part:?}"))
}

/// Splits at the commas that are not within parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Err(format!("the selector {text:?} has a ')' too many")),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("the selector {text:?} lacks a ')'"));
    }
    parts.push(text[start..].trim());
    if parts == [""] {
        parts.clear();
    }
    Ok(parts)
}

/// One requirement; the part itself when it is not understood.
fn requirement(part: &str) -> Result<Expression, String> {
    let wrong = || part.to_owned();
    let key = |text: &str| {
        let text = text.trim();
        is_key(text).then(|| text.to_owned()).ok_or_else(wrong)
    };
    let value = |text: &str| {
        let text = text.trim();
        is_value(text).then(|| text.to_owned()).ok_or_else(wrong)
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key(rest)?));
    }
    // `!=` and `==` before `=`, which is part of both.
    if let Some((left, right)) = part.split_once("!=") {
        return Ok(Expression::NotEqual(key(left)?, value(right)?));
    }
    if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Expression::Equal(key(left)?, value(right)?));
    }
    if let Some(left) = part.strip_suffix(')') {
        let (left, list) = left.split_once('(').ok_or_else(wrong)?;
        let values = list
            .split(',')
            .map(value)
            .collect::<Result<BTreeSet<_>, _>>()?;
        let (left, operator) = left
            .trim_end()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(wrong)?;
        return match operator {
            "in" => Ok(Expression::In(key(left)?, values)),
            "notin" => Ok(Expression::NotIn(key(left)?, values)),
            _ => Err(wrong()),
        };
    }
    Ok(Expression::Exists(key(part)?))
}

fn is_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').unwrap_or(("x", text));
    !prefix.is_empty() && !name.is_empty() && is_value(name) && prefix.split('/').count() == 1
}

fn is_value(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Labels = labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn selectors_mean_what_kubectl_means() {
        let web = [("app", "web"), ("tier", "a")];
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier = a", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app", true),
            ("!app", false),
            ("! missing", true),
            ("tier in (a, b)", true),
            ("tier in (b)", false),
            ("tier notin (b)", true),
            ("missing notin (b)", true),
            ("app=web,tier notin (a)", false),
            ("app.kubernetes.io/name=x", false),
            ("empty=", false),
        ] {
            assert_eq!(matches(selector, &web), expected, "{selector}");
        }
    }

    #[test]
    fn what_kubectl_refuses_is_refused() {
        for bad in [
            "=a", "a=b=c", "a in b", "a in (b", "a)", ",", "a,,b", "a b", "a of (b)", "/x=1",
            "a/b/c=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
