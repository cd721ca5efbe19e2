//! What an operation has to say: warnings and errors, counted all, kept the first hundred of each.
//!
//! The stored form is Velero's results file, so that `velero backup describe` shows ours.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Messages that fit into one line for people.
const SHOWN: usize = 3;
/// Texts kept of each kind; more would make memory and resources grow with the trouble.
pub const KEPT: usize = 100;

/// Warnings and errors in the form of Velero's `<name>-results.gz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// What the user should know; nothing is missing.
    pub warnings: Messages,
    /// What is missing.
    pub errors: Messages,
}

/// Messages, by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Messages {
    /// About the operation itself.
    #[serde(rename = "velero", skip_serializing_if = "Vec::is_empty")]
    pub ark: Vec<String>,
    /// About cluster-scoped objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<String>,
    /// About objects in a namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, Vec<String>>,
}

/// `1 backup`, `2 backups`.
pub fn plural(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// The first few messages in one line, with how many more there are when there are `all` of them.
pub fn first_few(messages: &[String], all: u64) -> String {
    let shown = &messages[..messages.len().min(SHOWN)];
    let more = all.saturating_sub(shown.len() as u64);
    let mut line = shown.join("; ");
    if more > 0 {
        line += &format!("; and {more} more");
    }
    line
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// The operation itself.
    Operation,
    /// A cluster-scoped object or type.
    Cluster,
    /// An object in this namespace.
    Namespace(&'a str),
}

impl Messages {
    fn add(&mut self, about: About<'_>, text: String) {
        match about {
            About::Operation => self.ark.push(text),
            About::Cluster => self.cluster.push(text),
            About::Namespace(namespace) => self
                .namespaces
                .entry(namespace.to_owned())
                .or_default()
                .push(text),
        }
    }

    /// The same, with texts of at most `max` characters.
    fn shortened(&self, max: usize) -> Messages {
        let shorten = |texts: &Vec<String>| -> Vec<String> {
            let each = texts.iter().map(|text| match text.char_indices().nth(max) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text.clone(),
            });
            each.collect()
        };
        Messages {
            ark: shorten(&self.ark),
            cluster: shorten(&self.cluster),
            namespaces: self
                .namespaces
                .iter()
                .map(|(namespace, texts)| (namespace.clone(), shorten(texts)))
                .collect(),
        }
    }

    /// All texts, each with what it is about.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let cluster = self.cluster.iter().map(|text| format!("cluster: {text}"));
        let namespaced = self.namespaces.iter().flat_map(|(ns, texts)| {
            texts
                .iter()
                .map(move |text| format!("namespace {ns}: {text}"))
        });
        self.ark.iter().cloned().chain(cluster).chain(namespaced)
    }
}

impl Results {
    /// The same, with texts of at most `max` characters: for where there is little room.
    pub fn shortened(&self, max: usize) -> Results {
        Results {
            warnings: self.warnings.shortened(max),
            errors: self.errors.shortened(max),
        }
    }
}

/// Collects warnings and errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The first of them, by kind.
    pub results: Results,
    /// Number of warnings.
    pub warnings: u64,
    /// Number of errors.
    pub errors: u64,
}

impl Report {
    /// Adds a warning.
    pub fn warn(&mut self, about: About<'_>, text: impl Into<String>) {
        self.warnings += 1;
        if self.warnings <= KEPT as u64 {
            self.results.warnings.add(about, text.into());
        }
    }

    /// Adds an error.
    pub fn error(&mut self, about: About<'_>, text: impl Into<String>) {
        self.errors += 1;
        if self.errors <= KEPT as u64 {
            self.results.errors.add(about, text.into());
        }
    }

    /// The kept texts as one list for a resource's status: errors first, at most [`KEPT`].
    pub fn messages(&self) -> Vec<String> {
        let errors = self
            .results
            .errors
            .lines()
            .map(|line| format!("error: {line}"));
        let warnings = self
            .results
            .warnings
            .lines()
            .map(|line| format!("warning: {line}"));
        errors.chain(warnings).take(KEPT).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_one() {
        let texts: Vec<String> = (0..3).map(|count| plural(count, "backup")).collect();
        assert_eq!(texts, ["0 backups", "1 backup", "2 backups"]);
    }

    #[test]
    fn all_are_counted_and_the_first_are_kept() {
        let mut report = Report::default();
        for n in 0..KEPT + 5 {
            report.warn(About::Namespace("a"), format!("w{n}"));
        }
        report.error(About::Cluster, "e");
        assert_eq!((report.warnings, report.errors), (KEPT as u64 + 5, 1));
        let messages = report.messages();
        assert_eq!(messages.len(), KEPT);
        assert_eq!(messages[0], "error: cluster: e");
        assert_eq!(messages[1], "warning: namespace a: w0");
    }

    #[test]
    fn a_line_has_the_first_few_and_how_many_more_there_are() {
        let messages = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(first_few(&messages[..1], 1), "a");
        assert_eq!(first_few(&messages[..3], 3), "a; b; c");
        // Not all of them are kept.
        assert_eq!(first_few(&messages, 500), "a; b; c; and 497 more");
        assert_eq!(first_few(&[], 0), "");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut report = Report::default();
        report.error(About::Operation, "äöü");
        report.warn(About::Namespace("n"), "äö");
        let short = report.results.shortened(2);
        assert_eq!(short.errors.ark, ["äö…"]);
        assert_eq!(short.warnings, report.results.warnings);
    }

    #[test]
    fn results_have_veleros_shape() {
        let mut report = Report::default();
        report.error(About::Operation, "x");
        report.warn(About::Namespace("n"), "y");
        let json = serde_json::to_string(&report.results).unwrap();
        assert_eq!(
            json,
            r#"{"warnings":{"namespaces":{"n":["y"]}},"errors":{"velero":["x"]}}"#
        );
    }
}
