//! What was typed and is no command: which command may have been meant.
//!
//! clap suggests what is nearly spelled so at the same place; here it is looked for everywhere: `kubectl ark download x` is
//! `kubectl ark backup download x`, and `kubectl ark restore diff` is `kubectl ark diff`.

use crate::cli::Cli;
use crate::similar;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};
use std::ffi::{OsStr, OsString};

/// Verbs of kubectl and others, and what they are called here.
const SYNONYMS: [(&str, &str); 9] = [
    ("ls", "get"),
    ("show", "describe"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("new", "create"),
    ("add", "create"),
    ("log", "logs"),
    ("upgrade", "install"),
    ("resume", "unpause"),
];

/// The error, with the commands that may have been meant.
pub fn with_suggestions(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    // The most similar is the last; the others are mostly further names of the same.
    let similar = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(all)) => all.last().cloned(),
        Some(ContextValue::String(one)) => Some(one.clone()),
        _ => None,
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let found = commands(typed, similar.is_none(), &usage);
    // Without a suggestion there must be no such context: clap would print an empty tip.
    error.remove(ContextKind::SuggestedSubcommand);
    // What is really called so elsewhere is a better guess.
    if let Some(similar) = similar.filter(|_| found.is_empty()) {
        error.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::String(similar),
        );
    }
    if !found.is_empty() {
        let tips = found
            .iter()
            .map(|command| StyledStr::from(format!("'{command}' may be meant")));
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(tips.collect()),
        );
    }
    error
}

/// The commands that are called so, wherever they are; else, if asked for, those that are nearly called so, above all where this
/// was typed, which the usage says.
fn commands(typed: &str, or_near: bool, usage: &str) -> Vec<String> {
    let root = Cli::command();
    let all = paths(&root);
    let meant = SYNONYMS
        .iter()
        .find(|(synonym, _)| *synonym == typed)
        .map(|(_, here)| *here);
    let called = |name: &str| -> Vec<String> {
        all.iter()
            .filter(|(last, _)| last == name)
            .map(|(_, path)| path.clone())
            .collect()
    };
    // A verb of every noun is written first.
    let one_verb = |found: Vec<String>| match found.iter().find(|path| path.split(' ').count() == 3)
    {
        Some(verb) if found.len() > 1 => vec![verb.clone()],
        _ => found,
    };
    for name in [Some(typed), meant].into_iter().flatten() {
        let found = called(name);
        if !found.is_empty() {
            return one_verb(found);
        }
    }
    if !or_near {
        return Vec::new();
    }
    let near = similar::near(typed, all.iter().map(|(last, _)| last.as_str()));
    let found = near.first().map(|name| called(name)).unwrap_or_default();
    let is_here = |path: &String| {
        let parent = path.rsplit_once(' ').map_or("", |(parent, _)| parent);
        usage.contains(&format!("{parent} ["))
    };
    match found.iter().find(|path| is_here(path)) {
        Some(here) => vec![here.clone()],
        None => one_verb(found),
    }
}

/// The last word and all words of every command.
fn paths(root: &Command) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for noun in root.get_subcommands().filter(|one| !one.is_hide_set()) {
        let path = format!("kubectl ark {}", noun.get_name());
        for verb in noun.get_subcommands().filter(|one| !one.is_hide_set()) {
            // The noun behind a verb is known already.
            if !is_verb(noun.get_name()) {
                let name = verb.get_name().to_owned();
                all.push((name, format!("{path} {}", verb.get_name())));
            }
        }
        all.push((noun.get_name().to_owned(), path));
    }
    all
}

fn is_verb(name: &str) -> bool {
    ["create", "get", "describe", "delete", "logs"].contains(&name)
}

/// `TYPE/NAME`, as `-o name` prints it and kubectl takes it, as the two words that it stands for: `describe backup/first` is
/// `describe backup first`.
pub fn spelled_out(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = argv.into_iter().collect();
    let Some(verb) = argv.iter().position(|word| {
        let verb = word.to_str();
        verb.is_some_and(|verb| ["get", "describe", "delete", "logs"].contains(&verb))
    }) else {
        return argv;
    };
    // Only flags of the whole may stand before the verb: behind a noun, this is its verb.
    let before = argv.get(1..verb).unwrap_or_default();
    if before.iter().any(|word| is_command(word)) {
        return argv;
    }
    let Some((noun, name)) = argv
        .get(verb + 1)
        .and_then(|word| word.to_str()?.split_once('/'))
    else {
        return argv;
    };
    let (noun, name) = (noun.to_owned(), OsString::from(name));
    let same = format!("{noun}/");
    argv.splice(verb + 1..=verb + 1, [type_name(&noun).into(), name]);
    for word in &mut argv[verb + 3..] {
        if let Some(name) = word.to_str().and_then(|word| word.strip_prefix(&same)) {
            *word = name.into();
        }
    }
    argv
}

fn is_command(word: &OsStr) -> bool {
    let root = Cli::command();
    word.to_str()
        .is_some_and(|word| root.find_subcommand(word).is_some())
}

/// `backup.ark.heptio.com` is `backup`.
fn type_name(noun: &str) -> &str {
    noun.strip_suffix(ark_job::api::GROUP)
        .and_then(|noun| noun.strip_suffix('.'))
        .unwrap_or(noun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn said(line: &str) -> String {
        let argv = std::iter::once("kubectl-ark").chain(line.split(' '));
        let error = Cli::try_parse_from(argv).unwrap_err();
        with_suggestions(error).render().to_string()
    }

    #[test]
    fn what_is_nearly_a_command_is_suggested() {
        for (line, command) in [
            ("bakcup get", "'backup'"),
            ("backup gte", "'kubectl ark backup get'"),
            ("get bakcups", "'backups'"),
            (
                "backup create x --include-namespace a",
                "'--include-namespaces'",
            ),
            ("download x", "'kubectl ark backup download'"),
            ("undelete x", "'kubectl ark backup undelete'"),
            ("pause nightly", "'kubectl ark schedule pause'"),
            ("backup diff x", "'kubectl ark diff'"),
            ("restore status", "'kubectl ark status'"),
            ("ls backups", "'kubectl ark get'"),
            ("rm backup x", "'kubectl ark delete'"),
            ("downlaod x", "'kubectl ark backup download'"),
            ("plan x", "'kubectl ark restore plan'"),
        ] {
            let said = said(line);
            assert!(said.contains(command), "{line}: {said}");
        }
        assert!(!said("frobnicate").contains("may be meant"));
        // No empty tip where there is nothing to suggest, nor before another one.
        assert!(!said("frobnicate").contains("tip:"));
        assert!(!said("logs frobnicate").contains("tip:"));
        assert_eq!(said("backup gte").matches("tip:").count(), 1);
        // One guess, and not all the names of everything that is a little like it.
        assert!(!said("bakcup get").contains("backup-location"));
        assert!(!said("pause x").contains("'status'"));
    }

    #[test]
    fn a_type_and_a_name_are_two_words() {
        let spelled = |line: &str| {
            let argv = line.split(' ').map(OsString::from);
            let argv: Vec<String> = spelled_out(argv)
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect();
            argv.join(" ")
        };
        for (typed, meant) in [
            ("k describe backup/first", "k describe backup first"),
            (
                "k get backup.ark.heptio.com/a backup.ark.heptio.com/b -o json",
                "k get backup a b -o json",
            ),
            ("k -n ark delete restore/r", "k -n ark delete restore r"),
            (
                "k describe backup/nightly/latest",
                "k describe backup nightly/latest",
            ),
            (
                "k backup describe nightly/latest",
                "k backup describe nightly/latest",
            ),
            (
                "k describe backup nightly/latest",
                "k describe backup nightly/latest",
            ),
            (
                "k backup show get a/configmaps/x",
                "k backup show get a/configmaps/x",
            ),
            ("k", "k"),
            ("k get", "k get"),
        ] {
            assert_eq!(spelled(typed), meant);
        }
    }

    #[test]
    fn every_noun_is_known_by_each_of_its_names_in_both_orders() {
        for names in [
            ["backup", "backups", "bk"],
            ["restore", "restores", "rs"],
            ["schedule", "schedules", "sc"],
            ["location", "locations", "loc"],
        ] {
            for noun in names {
                for verb in ["get", "describe x", "delete x"] {
                    let (verb, name) = verb.split_once(' ').unwrap_or((verb, ""));
                    for line in [
                        format!("{noun} {verb} {name}"),
                        format!("{verb} {noun} {name}"),
                    ] {
                        let words = line.split_whitespace();
                        Cli::try_parse_from(std::iter::once("kubectl-ark").chain(words)).unwrap();
                    }
                }
            }
        }
    }
}
