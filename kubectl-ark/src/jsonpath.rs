//! kubectl's JSONPath: templates (`{range .items[*]}{.metadata.name}{"\n"}{end}`) and the paths in them.
//!
//! It is older than RFC 9535 and another language: names may have dashes and escaped dots (`.metadata.labels.app\.kubernetes\.io/name`),
//! a quoted name is a path of its own (`['metadata.name', 'kind']`), and there are `range`, `end` and literals. So libraries for the
//! RFC cannot read it. As with `kubectl get`, a key that is not there gives nothing. Everything here is pure.

use serde_json::Value;
use std::cmp::Ordering;

/// A template that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Path),
    /// `{range PATH} … {end}`
    Range(Path, Vec<Part>),
}

/// Where values are in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// `$`
    Root,
    /// `.name`
    Field(String),
    /// `*`, `[*]`
    All,
    /// `[1]`, `[-1]`
    Index(i64),
    /// `[from:to:step]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `..`
    Within,
    /// `['a','b']`, `[0,2]`
    Union(Vec<Path>),
    /// `[?(@.a == "b")]`; without a comparison, where there is such a thing
    Filter(Operand, Option<(Compare, Operand)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Path(Path),
    /// As JSON, so that it can be compared with itself.
    Literal(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Template {
    /// Reads `text {PATH} {"text\n"} {range PATH}…{end}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut open: Vec<(Path, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let (action, after) = action(&rest[start + 1..])?;
            rest = after;
            let action = action.trim();
            if action == "end" {
                let (path, before) = open.pop().ok_or("{end} without {range …}")?;
                let inner = std::mem::replace(&mut parts, before);
                parts.push(Part::Range(path, inner));
            } else if let Some(path) = action
                .strip_prefix("range")
                .filter(|path| !path.starts_with(|next: char| next.is_alphanumeric()))
            {
                open.push((Path::parse(path.trim())?, std::mem::take(&mut parts)));
            } else if action.starts_with(['"', '\'']) {
                parts.push(Part::Text(literal(action)?));
            } else if !action.is_empty() {
                parts.push(Part::Path(Path::parse(action)?));
            }
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        match open.pop() {
            Some(_) => Err("{range …} without {end}".into()),
            None => Ok(Template(parts)),
        }
    }

    /// What it makes of a value.
    pub fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render(&self.0, value, value, &mut text);
        text
    }

    /// The values that its paths find, for `jsonpath-as-json`.
    pub fn values<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let paths = self.0.iter().filter_map(|part| match part {
            Part::Path(path) | Part::Range(path, _) => Some(path),
            Part::Text(_) => None,
        });
        paths.flat_map(|path| path.find(value)).collect()
    }
}

fn render(parts: &[Part], root: &Value, current: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => {
                let found = path.find_from(root, current);
                let found: Vec<String> = found.into_iter().map(printed).collect();
                text.push_str(&found.join(" "));
            }
            Part::Range(path, inner) => {
                for value in path.find_from(root, current) {
                    render(inner, root, value, text);
                }
            }
        }
    }
}

/// The inside of `{…}`, and what is after it; a brace in a quoted text ends nothing.
fn action(text: &str) -> Result<(&str, &str), String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, one) in text.char_indices() {
        match (quote, one) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(end), one) if one == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(one),
            (None, '}') => return Ok((&text[..at], &text[at + 1..])),
            (None, '{') => return Err("'{' within '{'".into()),
            (None, _) => {}
        }
    }
    Err(match quote {
        Some(_) => "a quoted text does not end".into(),
        None => "'{' without '}'".into(),
    })
}

/// A quoted text, without its quotes.
fn literal(text: &str) -> Result<String, String> {
    let quote = text.chars().next().unwrap_or('"');
    let inner = text
        .strip_prefix(quote)
        .and_then(|text| text.strip_suffix(quote))
        .filter(|_| text.len() >= 2)
        .ok_or_else(|| format!("{text} is no quoted text"))?;
    let mut unquoted = String::new();
    let mut all = inner.chars();
    while let Some(one) = all.next() {
        match one {
            '\\' => match all.next() {
                Some('n') => unquoted.push('\n'),
                Some('t') => unquoted.push('\t'),
                Some('r') => unquoted.push('\r'),
                Some(other) => unquoted.push(other),
                None => return Err(format!("{text} ends with a backslash")),
            },
            one if one == quote => return Err(format!("{text} is more than one quoted text")),
            one => unquoted.push(one),
        }
    }
    Ok(unquoted)
}

/// As kubectl prints a value: a text as it is, the rest as JSON.
pub fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => sorted(other).to_string(),
    }
}

/// With the keys of objects in order, as Go writes them.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(all) => {
            let mut all: Vec<(&String, &Value)> = all.iter().collect();
            all.sort_by_key(|(key, _)| *key);
            let all = all.into_iter();
            Value::Object(all.map(|(key, one)| (key.clone(), sorted(one))).collect())
        }
        Value::Array(all) => Value::Array(all.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

impl Path {
    /// Reads a path in a template: `.items[*].metadata.name`, `$.kind`, `@`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Path, String> {
        let path = Reader(text).path(false)?;
        Ok(path)
    }

    /// Reads what custom columns and `--sort-by` take: braces and the first dot may be missing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn relaxed(text: &str) -> Result<Path, String> {
        let inner = text.trim();
        let inner = inner
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
            .unwrap_or(inner)
            .trim();
        if inner.is_empty() {
            return Err("the path is empty".into());
        }
        match inner.chars().next() {
            Some('.' | '$' | '@' | '[') => Path::parse(inner),
            _ => Path::parse(&format!(".{inner}")),
        }
    }

    /// What is there.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.find_from(value, value)
    }

    fn find_from<'a>(&self, root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![current];
        for step in &self.0 {
            found = match step {
                Step::Root => vec![root],
                // As kubectl: all that the first finds, then all that the second does.
                Step::Union(paths) => paths
                    .iter()
                    .flat_map(|path| {
                        let found = found.iter();
                        found.flat_map(|value| path.find_from(root, value))
                    })
                    .collect(),
                step => found
                    .into_iter()
                    .flat_map(|value| step.take(root, value))
                    .collect(),
            };
        }
        found
    }
}

impl Step {
    fn take<'a>(&self, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Root => vec![root],
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::All => children(value),
            Step::Index(index) => {
                let length = value.as_array().map_or(0, Vec::len);
                let at = place(*index, length);
                at.and_then(|at| value.get(at)).into_iter().collect()
            }
            Step::Slice(from, to, step) => {
                let Some(all) = value.as_array() else {
                    return Vec::new();
                };
                let bound = |index: i64| match index {
                    index if index < 0 => all
                        .len()
                        .saturating_sub(usize::try_from(-index).unwrap_or(usize::MAX)),
                    index => usize::try_from(index).unwrap_or(usize::MAX).min(all.len()),
                };
                let (from, to) = (from.map_or(0, bound), to.map_or(all.len(), bound));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                all.get(from..to)
                    .unwrap_or_default()
                    .iter()
                    .step_by(step)
                    .collect()
            }
            Step::Within => {
                let mut all = Vec::new();
                within(value, &mut all);
                all
            }
            Step::Union(paths) => paths
                .iter()
                .flat_map(|path| path.find_from(root, value))
                .collect(),
            Step::Filter(left, comparison) => children(value)
                .into_iter()
                .filter(|child| holds(left, comparison.as_ref(), root, child))
                .collect(),
        }
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    match index {
        index if index < 0 => length.checked_sub(usize::try_from(-index).ok()?),
        index => usize::try_from(index).ok(),
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(all) => all.iter().collect(),
        Value::Object(all) => all.values().collect(),
        _ => Vec::new(),
    }
}

fn within<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(value);
    for child in children(value) {
        within(child, all);
    }
}

fn holds(
    left: &Operand,
    comparison: Option<&(Compare, Operand)>,
    root: &Value,
    child: &Value,
) -> bool {
    let values = |operand: &Operand| -> Vec<Value> {
        match operand {
            Operand::Literal(text) => serde_json::from_str(text).into_iter().collect(),
            Operand::Path(path) => path.find_from(root, child).into_iter().cloned().collect(),
        }
    };
    let lefts = values(left);
    let Some((compare, right)) = comparison else {
        return !lefts.is_empty();
    };
    let rights = values(right);
    let (Some(left), Some(right)) = (lefts.first(), rights.first()) else {
        return false;
    };
    match compare {
        Compare::Equal => order(left, right) == Ordering::Equal,
        Compare::Unequal => order(left, right) != Ordering::Equal,
        Compare::Less => order(left, right) == Ordering::Less,
        Compare::AtMost => order(left, right) != Ordering::Greater,
        Compare::Greater => order(left, right) == Ordering::Greater,
        Compare::AtLeast => order(left, right) != Ordering::Less,
    }
}

/// Numbers by value, texts by their characters, as kubectl does; what is of different types, by type.
pub fn order(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one
                .as_f64()
                .unwrap_or_default()
                .total_cmp(&other.as_f64().unwrap_or_default()),
        },
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (one, other) => rank(one)
            .cmp(&rank(other))
            .then_with(|| one.to_string().cmp(&other.to_string())),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// What is left to read of a path.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    fn skip(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }

    /// A path to the end, or in a filter, to what cannot be part of one.
    fn path(&mut self, in_filter: bool) -> Result<Path, String> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                None => break,
                Some('$') => {
                    self.skip(1);
                    steps.push(Step::Root);
                }
                Some('@') => self.skip(1),
                Some('.') if self.0.starts_with("..") => {
                    self.skip(2);
                    steps.push(Step::Within);
                    match self.peek() {
                        Some('[' | '*') => {}
                        _ => steps.push(Step::Field(self.name(in_filter)?)),
                    }
                }
                Some('.') => {
                    self.skip(1);
                    match self.peek() {
                        Some('*') => {}
                        // `.` is the object itself, and `.[0]` is `[0]`.
                        None | Some('[') => {}
                        _ => steps.push(Step::Field(self.name(in_filter)?)),
                    }
                }
                Some('*') => {
                    self.skip(1);
                    steps.push(Step::All);
                }
                Some('[') => {
                    self.skip(1);
                    let inner = self.bracket()?;
                    steps.push(bracketed(inner)?);
                }
                Some(blank) if blank.is_whitespace() && !in_filter => self.skip(blank.len_utf8()),
                Some(_) if in_filter => break,
                Some(other) => {
                    return Err(format!("unexpected {other:?} at {:?}", self.0));
                }
            }
        }
        Ok(Path(steps))
    }

    /// A name; a backslash takes away what the next character means.
    fn name(&mut self, in_filter: bool) -> Result<String, String> {
        let mut name = String::new();
        let mut escaped = false;
        let mut end = self.0.len();
        for (at, one) in self.0.char_indices() {
            let ends = matches!(one, '.' | '[' | ']' | '$' | '@' | '{' | '}' | '*' | ',')
                || one.is_whitespace()
                || (in_filter && matches!(one, '=' | '!' | '<' | '>' | ')'));
            if escaped {
                name.push(one);
                escaped = false;
            } else if one == '\\' {
                escaped = true;
            } else if ends {
                end = at;
                break;
            } else {
                name.push(one);
            }
        }
        let seen = self.0;
        self.skip(end);
        match name.is_empty() {
            true => Err(format!("a name is missing at {seen:?}")),
            false => Ok(name),
        }
    }

    /// What is in brackets, up to their end.
    fn bracket(&mut self) -> Result<&'a str, String> {
        let text = self.0;
        let (mut depth, mut quote, mut escaped) = (0, None, false);
        for (at, one) in text.char_indices() {
            match (quote, one) {
                _ if escaped => escaped = false,
                (_, '\\') => escaped = true,
                (Some(end), one) if one == end => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(one),
                (None, '[') => depth += 1,
                (None, ']') if depth > 0 => depth -= 1,
                (None, ']') => {
                    self.skip(at + 1);
                    return Ok(text[..at].trim());
                }
                (None, _) => {}
            }
        }
        Err("'[' without ']'".into())
    }
}

/// What `[…]` says.
fn bracketed(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = text.strip_prefix('?') {
        let filter = filter.trim();
        let inner = filter
            .strip_prefix('(')
            .and_then(|inner| inner.strip_suffix(')'))
            .ok_or_else(|| format!("a filter is [?(…)], not [{text}]"))?;
        return filtered(inner);
    }
    let choices = split(text);
    if choices.len() > 1 {
        let paths = choices
            .into_iter()
            .map(|one| bracketed(one.trim()).map(|step| Path(vec![step])));
        return Ok(Step::Union(paths.collect::<Result<_, _>>()?));
    }
    if text.starts_with(['\'', '"']) {
        // As kubectl: what is quoted is a path.
        let quote = text.chars().next().unwrap_or('\'');
        let inner = text
            .strip_prefix(quote)
            .and_then(|inner| inner.strip_suffix(quote))
            .filter(|_| text.len() > 2)
            .ok_or_else(|| format!("[{text}] names nothing"))?;
        let path = Path::parse(&format!(".{inner}"))?;
        return Ok(match <[Step; 1]>::try_from(path.0) {
            Ok([single]) => single,
            Err(steps) => Step::Union(vec![Path(steps)]),
        });
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| format!("[{text}] is neither an index nor a quoted name")),
    };
    let bounds: Vec<&str> = text.split(':').collect();
    match bounds[..] {
        [index] => number(index)?
            .map(Step::Index)
            .ok_or_else(|| "[] is empty".to_owned()),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            match step > 0 {
                true => Ok(Step::Slice(number(from)?, number(to)?, step)),
                false => Err(format!("the step of [{text}] must be positive")),
            }
        }
        _ => Err(format!("[{text}] has too many colons")),
    }
}

/// Splits at commas outside of quoted texts.
fn split(text: &str) -> Vec<&str> {
    let (mut all, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, one) in text.char_indices() {
        match (quote, one) {
            (Some(end), one) if one == end => quote = None,
            (None, '"' | '\'') => quote = Some(one),
            (None, ',') => {
                all.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(&text[start..]);
    all
}

fn filtered(text: &str) -> Result<Step, String> {
    let mut reader = Reader(text.trim());
    let left = operand(&mut reader)?;
    reader.0 = reader.0.trim_start();
    if reader.0.is_empty() {
        return Ok(Step::Filter(left, None));
    }
    const OPERATORS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::Unequal),
        ("<=", Compare::AtMost),
        (">=", Compare::AtLeast),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found = OPERATORS
        .iter()
        .find(|(operator, _)| reader.0.starts_with(operator));
    let (operator, compare) =
        found.ok_or_else(|| format!("no comparison that is known at {:?}", reader.0))?;
    reader.skip(operator.len());
    reader.0 = reader.0.trim_start();
    let right = operand(&mut reader)?;
    match reader.0.trim() {
        "" => Ok(Step::Filter(left, Some((*compare, right)))),
        rest => Err(format!("unexpected {rest:?} in a filter")),
    }
}

fn operand(reader: &mut Reader<'_>) -> Result<Operand, String> {
    match reader.peek() {
        Some('@' | '$' | '.') => reader.path(true).map(Operand::Path),
        Some(quote @ ('"' | '\'')) => {
            let after = &reader.0[1..];
            let end = after.find(quote).ok_or("a quoted text does not end")?;
            let text = literal(&reader.0[..end + 2])?;
            reader.skip(end + 2);
            Ok(Operand::Literal(Value::String(text).to_string()))
        }
        _ => {
            let end = reader
                .0
                .find(|one: char| one.is_whitespace() || "=!<>)".contains(one))
                .unwrap_or(reader.0.len());
            let word = &reader.0[..end];
            let literal: Value = serde_json::from_str(word)
                .map_err(|_| format!("{word:?} is neither a path, a number nor a quoted text"))?;
            reader.skip(end);
            Ok(Operand::Literal(literal.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> Value {
        json!({"kind": "List", "items": [
            {"kind": "Backup", "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web", "a-b": "c"}},
             "status": {"errors": 0, "phase": "Completed", "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]}},
            {"kind": "Backup", "metadata": {"name": "b"}, "status": {"errors": 12, "phase": "Failed"}},
        ]})
    }

    fn rendered(template: &str) -> String {
        Template::parse(template).unwrap().render(&list())
    }

    #[test]
    fn templates_render_as_kubectl_renders_them() {
        for (template, text) in [
            ("{.kind}", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{$.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[1:].metadata.name}", "b"),
            ("{.items[0,1].metadata.name}", "a b"),
            (
                "{range .items[*]}{.metadata.name}{\"\\t\"}{.status.errors}{\"\\n\"}{end}",
                "a\t0\nb\t12\n",
            ),
            ("{range .items[*]}[{@.metadata.name}]{end}", "[a][b]"),
            ("{range.items[*]}{.metadata.name},{end}", "a,b,"),
            (
                "{range .items[*]}{range .status.conditions[*]}{.type};{end}{end}",
                "Ready;Old;",
            ),
            (
                "names: {.items[*]['metadata.name', 'status.errors']}",
                "names: a b 0 12",
            ),
            (
                r"{.items[0].metadata.labels.app\.kubernetes\.io/name}",
                "web",
            ),
            (
                r"{.items[0].metadata.labels['app\.kubernetes\.io/name']}",
                "web",
            ),
            ("{.items[0].metadata.labels.a-b}", "c"),
            ("{.items[?(@.status.phase==\"Failed\")].metadata.name}", "b"),
            ("{.items[?(@.status.phase != 'Failed')].metadata.name}", "a"),
            ("{.items[?(@.status.errors>3)].metadata.name}", "b"),
            ("{.items[?(@.status.conditions)].metadata.name}", "a"),
            (
                "{.items[0].status.conditions[?(@.type=='Ready')].status}",
                "True",
            ),
            ("{..name}", "a b"),
            (
                "{.items[0].status.conditions[0]}",
                r#"{"status":"True","type":"Ready"}"#,
            ),
            ("{'}'}{\"{\"}", "}{"),
            ("{.items[0].nothing.here}{.items[9].kind}|", "|"),
            ("text", "text"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, why) in [
            ("{.a", "without '}'"),
            ("{range .items[*]}x", "without {end}"),
            ("x{end}", "without {range"),
            ("{.a[}", "without ']'"),
            ("{.a[x]}", "neither an index nor"),
            ("{.a[?(@.b=1)]}", "no comparison"),
            ("{\"a}", "does not end"),
            ("{a}", "unexpected 'a'"),
            ("{.a[1:2:0]}", "positive"),
            ("{...}", "name is missing"),
        ] {
            let told = Template::parse(template).unwrap_err();
            assert!(told.contains(why), "{template}: {told}");
        }
    }

    #[test]
    fn paths_of_columns_may_lack_dot_and_braces() {
        for text in [
            ".metadata.name",
            "metadata.name",
            "{.metadata.name}",
            "{metadata.name}",
        ] {
            let path = Path::relaxed(text).unwrap();
            assert_eq!(path.find(&list()["items"][1]), vec![&json!("b")], "{text}");
        }
        assert!(Path::relaxed("").is_err());
    }

    #[test]
    fn numbers_are_ordered_by_value_and_texts_by_their_characters() {
        let ordered = |one: Value, other: Value| order(&one, &other) == Ordering::Less;
        assert!(ordered(json!(2), json!(10)));
        assert!(ordered(json!(1.5), json!(2)));
        assert!(ordered(
            json!("2026-11-26T12:00:00Z"),
            json!("2026-11-26T12:00:01Z")
        ));
        assert!(ordered(json!("b10"), json!("b2")));
        assert!(ordered(json!(false), json!(true)));
        assert!(ordered(json!(9), json!("1")));
        assert_eq!(order(&json!("a"), &json!("a")), Ordering::Equal);
    }
}
