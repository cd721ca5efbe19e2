//! What is wanted at the cursor: pure, from the words of the line and the definition of the command line.
//!
//! What a value is, its value name says (NAMESPACES, TYPES, BACKUP, …), or for a plain NAME the noun of its command; so a
//! new command is completed without being mentioned here.

use crate::output;
use clap::{Arg, ArgAction, Command};
use std::collections::BTreeMap;

/// What the shell may do besides offering the candidates: cobra's ShellCompDirective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive(pub u8);

impl Directive {
    /// No names of files when there are no candidates.
    pub const NO_FILES: u8 = 4;
    /// In the order of the candidates: the newest first.
    pub const KEEP_ORDER: u8 = 32;
}

/// Where candidates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are known.
    Known(Vec<Candidate>),
    /// Names of files, which the shell knows best.
    Files,
    /// Backup resources, or with `--local` directories; and `latest`.
    Backups,
    /// The same by their own names alone, where one must be meant for sure: to delete it.
    BackupNames,
    /// Restore resources.
    Restores,
    /// CronJobs that are schedules.
    Schedules,
    /// BackupStorageLocation resources.
    Locations,
    /// ConfigMaps in Ark's namespace.
    ConfigMaps,
    /// Namespaces of the cluster.
    Namespaces,
    /// Resource types of the cluster.
    Types,
    /// Contexts of the kubeconfig.
    Contexts,
    /// Clusters of the kubeconfig.
    Clusters,
    /// Users of the kubeconfig.
    Users,
    /// A new name, a number, a text: nobody knows.
    Nothing,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// What is typed.
    pub word: String,
    /// What it is; may be empty.
    pub about: String,
}

impl Candidate {
    /// A word, with the first line of what it is.
    pub fn new(word: impl Into<String>, about: impl AsRef<str>) -> Self {
        let about = about.as_ref().lines().next().unwrap_or_default();
        Candidate {
            word: word.into(),
            about: about.replace('\t', " "),
        }
    }

    /// As the protocol has it.
    pub fn line(&self) -> String {
        if self.about.is_empty() {
            self.word.clone()
        } else {
            format!("{}\t{}", self.word, self.about)
        }
    }
}

/// What is wanted at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where candidates come from.
    pub source: Source,
    /// What stands before the candidate in the same word: the names of a list that are there already.
    pub before: String,
    /// What candidates start with.
    pub prefix: String,
    /// What need not be offered, as it is on the line already.
    pub given: Vec<String>,
    /// Values of the options on the line, by the option's long name.
    pub options: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// What the shell may do besides.
    pub fn directive(&self) -> Directive {
        Directive(match self.source {
            Source::Files => 0,
            Source::Backups | Source::BackupNames | Source::Restores => {
                Directive::NO_FILES | Directive::KEEP_ORDER
            }
            _ => Directive::NO_FILES,
        })
    }
}

/// Reads the words after the program's name; the last one is at the cursor. The command must be built.
pub fn wanted(root: &Command, words: &[String]) -> Wanted {
    let (current, complete) = match words.split_last() {
        Some((current, complete)) => (current.as_str(), complete),
        None => ("", words),
    };
    let mut line = Line {
        command: root,
        path: Vec::new(),
        positionals: Vec::new(),
        options: BTreeMap::new(),
        pending: None,
        only_positionals: false,
    };
    for word in complete {
        line.read(word);
    }
    line.at(current)
}

/// The line up to the cursor's word.
struct Line<'a> {
    command: &'a Command,
    path: Vec<&'a str>,
    positionals: Vec<String>,
    options: BTreeMap<String, Vec<String>>,
    /// The option whose value the next word is.
    pending: Option<&'a Arg>,
    /// After `--`.
    only_positionals: bool,
}

impl<'a> Line<'a> {
    fn read(&mut self, word: &str) {
        if let Some(arg) = self.pending.take() {
            self.record(arg, word);
        } else if self.only_positionals {
            self.positionals.push(word.to_owned());
        } else if word == "--" {
            self.only_positionals = true;
        } else if let Some(rest) = word.strip_prefix("--") {
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (rest, None),
            };
            if let Some(arg) = self.long(name) {
                self.option(arg, value);
            }
        } else if word.len() > 1 && word.starts_with('-') {
            if let Some((arg, value)) = self.shorts(word) {
                self.option(arg, value);
            }
        } else if let Some(command) = self.subcommand(word) {
            self.path.push(command.get_name());
            self.command = command;
        } else {
            self.positionals.push(word.to_owned());
        }
    }

    fn option(&mut self, arg: &'a Arg, value: Option<&str>) {
        match value {
            Some(value) => self.record(arg, value),
            None if takes_word(arg) => self.pending = Some(arg),
            None => self.record(arg, ""),
        }
    }

    fn record(&mut self, arg: &Arg, value: &str) {
        if let Some(name) = arg.get_long() {
            let values = self.options.entry(name.to_owned()).or_default();
            values.push(value.to_owned());
        }
    }

    fn subcommand(&self, word: &str) -> Option<&'a Command> {
        self.positionals
            .is_empty()
            .then(|| self.command.find_subcommand(word))
            .flatten()
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| {
            arg.get_long() == Some(name)
                || arg
                    .get_all_aliases()
                    .is_some_and(|aliases| aliases.contains(&name))
        })
    }

    /// The last option of `-wn`, and what stands right after it: `-n=NAME`, `-nNAME`.
    fn shorts<'w>(&self, word: &'w str) -> Option<(&'a Arg, Option<&'w str>)> {
        let mut last = None;
        for (at, short) in word.char_indices().skip(1) {
            let arg = self
                .command
                .get_arguments()
                .find(|arg| arg.get_short() == Some(short))?;
            let rest = &word[at + short.len_utf8()..];
            if arg.get_action().takes_values() {
                let value = rest.strip_prefix('=').unwrap_or(rest);
                return Some((arg, (!rest.is_empty()).then_some(value)));
            }
            last = Some((arg, None));
        }
        last
    }

    /// What is wanted for the word at the cursor.
    fn at(self, current: &str) -> Wanted {
        if let Some(arg) = self.pending {
            return self.value(arg, current);
        }
        if !self.only_positionals && current.starts_with('-') {
            let inline = match current.strip_prefix("--") {
                Some(rest) => rest
                    .split_once('=')
                    .and_then(|(name, value)| Some((self.long(name)?, value))),
                None => self
                    .shorts(current)
                    .and_then(|(arg, value)| Some((arg, value?))),
            };
            if let Some((arg, value)) = inline {
                return self.value(arg, value);
            }
            if current.contains('=') {
                return self.wanted(Source::Nothing, "", current, Vec::new());
            }
            let flags = self.flags();
            return self.wanted(Source::Known(flags), "", current, Vec::new());
        }
        if self.command.has_subcommands() && self.positionals.is_empty() && !self.only_positionals {
            let commands = self.commands();
            return self.wanted(Source::Known(commands), "", current, Vec::new());
        }
        let many = |arg: &Arg| {
            arg.get_num_args()
                .is_some_and(|range| range.max_values() > 1)
                || matches!(arg.get_action(), ArgAction::Append)
        };
        let places: Vec<&Arg> = self.command.get_positionals().collect();
        let at = self.positionals.len();
        let place = places
            .get(at)
            .or_else(|| places.last().filter(|last| many(last)))
            .copied();
        match place {
            Some(arg) => {
                let given = self.positionals.clone();
                let source = self.source(arg);
                self.wanted(source, "", current, given)
            }
            None => self.wanted(Source::Nothing, "", current, Vec::new()),
        }
    }

    /// What a value of an option may be; of a list, the part after its last comma.
    fn value(self, arg: &Arg, current: &str) -> Wanted {
        let source = self.source(arg);
        let list = arg.get_value_delimiter().is_some();
        match current.rsplit_once(',').filter(|_| list) {
            Some((before, prefix)) => {
                let given = before.split(',').map(str::to_owned).collect();
                self.wanted(source, &format!("{before},"), prefix, given)
            }
            None => self.wanted(source, "", current, Vec::new()),
        }
    }

    fn wanted(self, source: Source, before: &str, prefix: &str, given: Vec<String>) -> Wanted {
        Wanted {
            source,
            before: before.to_owned(),
            prefix: prefix.to_owned(),
            given,
            options: self.options,
        }
    }

    fn commands(&self) -> Vec<Candidate> {
        self.command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| {
                let about = command.get_about().map(ToString::to_string);
                Candidate::new(command.get_name(), about.unwrap_or_default())
            })
            .collect()
    }

    /// Those that are in the help, and not on the line yet unless they may be repeated.
    fn flags(&self) -> Vec<Candidate> {
        let again = |arg: &Arg| matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
        self.command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set())
            .filter_map(|arg| {
                let long = arg.get_long()?;
                if self.options.contains_key(long) && !again(arg) {
                    return None;
                }
                let about = arg.get_help().map(ToString::to_string);
                Some(Candidate::new(
                    format!("--{long}"),
                    about.unwrap_or_default(),
                ))
            })
            .collect()
    }

    fn source(&self, arg: &Arg) -> Source {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            let values = possible.iter().filter(|value| !value.is_hide_set());
            let candidate = |value: &clap::builder::PossibleValue| {
                let about = value.get_help().map(ToString::to_string);
                Candidate::new(value.get_name(), about.unwrap_or_default())
            };
            return Source::Known(values.map(candidate).collect());
        }
        let name = arg
            .get_value_names()
            .and_then(|names| names.first())
            .map_or("", |name| name.as_str());
        match name {
            "BOOL" => Source::Known(
                ["true", "false"]
                    .map(|word| Candidate::new(word, ""))
                    .into(),
            ),
            "NAMESPACE" | "NAMESPACES" => Source::Namespaces,
            "TYPES" | "TYPE" => Source::Types,
            "FILE" | "DIRECTORY" => Source::Files,
            "SCHEDULE" => Source::Schedules,
            "RESTORE" => Source::Restores,
            "LOCATION" => Source::Locations,
            "CONFIGMAP" | "CONFIGMAP|none" => Source::ConfigMaps,
            // With the backup named by a flag, the name is that of the new restore.
            "BACKUP | NAME"
                if self.options.contains_key("from-backup")
                    || self.options.contains_key("from-schedule") =>
            {
                Source::Nothing
            }
            "BACKUP" | "BACKUP2" | "BACKUP | NAME" => Source::Backups,
            // Of get: some take more after a `=`, which nobody can know.
            "FORMAT" => Source::Known(
                output::KINDS
                    .iter()
                    .map(|kind| Candidate::new(*kind, ""))
                    .collect(),
            ),
            "NAME" => self.name(arg),
            _ => Source::Nothing,
        }
    }

    /// A plain name: of what, its option says, or the noun of the command.
    fn name(&self, arg: &Arg) -> Source {
        match arg.get_long() {
            Some("context") => return Source::Contexts,
            Some("cluster") => return Source::Clusters,
            Some("user") => return Source::Users,
            Some("location") => return Source::Locations,
            Some(_) => return Source::Nothing,
            None => {}
        }
        if self.path.contains(&"create") || self.path.contains(&"install") {
            return Source::Nothing;
        }
        let by_whole_name = ["delete", "undelete"]
            .iter()
            .any(|command| self.path.contains(command));
        for word in &self.path {
            match word.trim_end_matches('s') {
                "backup" if by_whole_name => return Source::BackupNames,
                "backup" => return Source::Backups,
                "restore" => return Source::Restores,
                "schedule" => return Source::Schedules,
                "location" | "backup-location" | "storage-location" => return Source::Locations,
                _ => {}
            }
        }
        Source::Nothing
    }
}

/// Whether the value is the next word: not of a switch, nor where it must follow `=`.
fn takes_word(arg: &Arg) -> bool {
    arg.get_action().takes_values()
        && !arg.is_require_equals_set()
        && arg
            .get_num_args()
            .is_none_or(|range| range.min_values() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    fn at(line: &str) -> Wanted {
        let mut root = Cli::command();
        root.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        wanted(&root, &words)
    }

    fn known(line: &str) -> Vec<String> {
        let wanted = at(line);
        let Source::Known(candidates) = wanted.source else {
            panic!("{line}: {wanted:?}");
        };
        let words = candidates.into_iter().map(|candidate| candidate.word);
        words
            .filter(|word| word.starts_with(&wanted.prefix))
            .collect()
    }

    #[test]
    fn commands_flags_and_their_values_are_known() {
        assert!(known("").contains(&"backup".to_owned()));
        assert_eq!(known("inst"), ["install"]);
        assert_eq!(known("-n ark restore-only o"), ["on", "off"]);
        assert_eq!(
            known("backup create x --include-n"),
            ["--include-namespaces"]
        );
        assert_eq!(
            known("backup create x --kubec"),
            ["--kubeconfig"],
            "global ones, too"
        );
        assert!(
            known("backup create x --wait --w").is_empty(),
            "given already"
        );
        assert_eq!(known("install --hooks="), ["true", "false"]);
        assert!(known("backup get -o ").contains(&"yaml".to_owned()));
        assert!(
            known("backup get -o")
                .iter()
                .all(|flag| flag.starts_with("-o"))
        );
        assert!(known("completion ").contains(&"zsh".to_owned()));
        assert!(
            known("backup create x --as-g").is_empty(),
            "what the help leaves out"
        );
    }

    #[test]
    fn names_are_those_of_the_noun_in_both_orders() {
        for line in [
            "backup describe ",
            "describe backup ",
            "get backups ",
            "backups get first ",
            "restore create ",
            "diff first ",
            "volumes ",
            "backup get --no-headers ",
            "backup describe -- ",
        ] {
            assert_eq!(at(line).source, Source::Backups, "{line}");
        }
        for line in ["backup delete ", "delete backups ", "backup undelete "] {
            assert_eq!(at(line).source, Source::BackupNames, "{line}");
        }
        assert_eq!(at("delete schedule a ").source, Source::Schedules);
        assert_eq!(at("delete schedule a ").given, ["a"]);
        assert_eq!(at("restore describe ").source, Source::Restores);
        assert_eq!(at("loc get ").source, Source::Locations);
        assert_eq!(
            at("restore create --from-schedule ").source,
            Source::Schedules
        );
        for new in [
            "backup create ",
            "create schedule ",
            "restore create --from-backup first ",
            "backup create x --storage ",
            "backup describe --unknown=",
        ] {
            assert_eq!(at(new).source, Source::Nothing, "{new}");
        }
    }

    #[test]
    fn values_of_options_are_found_however_they_are_written() {
        for line in [
            "-n ",
            "backup get -n ",
            "backup get -nx",
            "backup get --namespace=x",
            "backup create y --wait -n x",
        ] {
            assert_eq!(at(line).source, Source::Namespaces, "{line}");
        }
        let list = at("backup create x --include-namespaces a,b,c");
        assert_eq!((list.before.as_str(), list.prefix.as_str()), ("a,b,", "c"));
        assert_eq!(list.given, ["a", "b"]);
        assert_eq!(
            at("backup create x --exclude-resources p").source,
            Source::Types
        );
        assert_eq!(at("--context ").source, Source::Contexts);
        assert_eq!(at("--kubeconfig ").source, Source::Files);
        assert_eq!(at("--kubeconfig ").directive(), Directive(0));
        let options = at("-n one --context=two backup get ").options;
        assert_eq!(options["namespace"], ["one"]);
        assert_eq!(options["context"], ["two"]);
    }

    #[test]
    fn no_words_make_it_panic() {
        for line in [
            "",
            "-",
            "--",
            "-é",
            "--=",
            "-n",
            "backup -- --x",
            "é\u{fc} é",
            "-nnn",
            "help backup ",
        ] {
            at(line);
        }
        let mut root = Cli::command();
        root.build();
        wanted(&root, &[]);
    }
}
