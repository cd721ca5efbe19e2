//! The examples in help pages, and which flags `-h` leaves to `--help`.
//!
//! The examples are one table, so that tests can walk it: every command has two examples at least, each of them parses, and the
//! scenarios run them (tests/scenarios/docs.rs).

mod table;

pub use table::{EXAMPLES, Example};

use super::Cli;
use ark_job::api::DEFAULT_NAMESPACE;
use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::fmt::Write as _;

/// Flags that `-h` leaves out: few need them, and with them no page fits a screen. `--help` has all.
const FOR_FEW: &[&str] = &[
    "access-mode",
    "again",
    "allow-partially-failed",
    "certificate-authority",
    "client-certificate",
    "client-key",
    "cluster",
    "cluster-name",
    "compression-level",
    "context",
    "credentials-secret",
    "csi-snapshot-timeout",
    "deadline",
    "env",
    "force",
    "force-conflicts",
    "grace",
    "hooks",
    "if-exists",
    "ignore-undiscoverable",
    "image-pull-policy",
    "image-pull-secret",
    "include-cluster-resources",
    "insecure-skip-tls-verify",
    "kms-key",
    "kubeconfig",
    "labels",
    "location-name",
    "max-in-flight",
    "max-writes-per-second",
    "node-selector",
    "or-selector",
    "partial-exit-code",
    "pod-template",
    "preserve-nodeports",
    "request-timeout",
    "reset-pod-template",
    "resource-modifier-configmap",
    "resource-policies-configmap",
    "restore-rights",
    "restore-volumes",
    "server",
    "service-account-annotation",
    "sort-by",
    "starting-deadline",
    "status-exclude-resources",
    "status-include-resources",
    "storage-class-mappings",
    "tls-server-name",
    "token",
    "toleration",
    "ttl-after-finished",
    "user",
    "volume-timeout",
    "watch-only",
    "zone-mappings",
];

/// What `-h` says of a flag whose text begins so: a line of a screen has room for some 35 characters beside a flag.
const IN_SHORT: &[(&str, &str, &str)] = &[
    ("all", "All of this cluster's", "All of this cluster's"),
    (
        "cluster-uid",
        "Also backups of another",
        "Also those of this lost cluster",
    ),
    (
        "credentials-file",
        "AWS shared",
        "AWS shared-credentials file",
    ),
    ("dry-run", "", "Print it, and do nothing"),
    ("exclude-namespaces", "", "Not these namespaces"),
    ("exclude-resources", "", "Not these types"),
    (
        "existing-resource-policy",
        "",
        "none|update|recreate if different",
    ),
    ("from-schedule", "", "The newest backup of a schedule"),
    ("include-foreign", "", "Also Velero's and original Ark's"),
    (
        "include-namespaces",
        "",
        "Only these namespaces; globs work",
    ),
    ("include-resources", "", "Only these types"),
    ("keep-last", "", "So many never expire"),
    ("local", "", "Here, with your own rights"),
    (
        "location",
        "BackupStorageLocation",
        "BackupStorageLocation to use",
    ),
    ("namespace-mappings", "", "Under other names: old:new,…"),
    ("older-than", "", "Begun longer ago, such as 720h"),
    ("paused", "", "Make no backups until unpaused"),
    ("restore-only", "", "Only restore in this cluster"),
    ("restore-volumes", "", "false: claims get new, empty ones"),
    ("schedule", "When", "When: '0 3 * * *' or '@every 6h'"),
    ("selector", "", "Only those with these labels"),
    ("snapshot-volumes", "", "Disks: must be in, or stay out"),
    ("storage", "Storage URL", "URL to use instead: s3://…"),
    ("time-zone", "", "Time zone, such as Europe/Berlin"),
    ("ttl", "How long to keep", "How long to keep it: 720h"),
    ("wait", "Wait until", "Wait for its end"),
    ("yes", "", "Do not ask"),
];

/// The examples of a command, if the table has them; of `get backups`, those of `backup get`.
pub fn of(path: &str) -> Option<&'static [Example]> {
    let find = |path: &str| {
        EXAMPLES
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, examples)| *examples)
    };
    find(path).or_else(|| {
        let (verb, noun) = path.split_once(' ')?;
        find(&format!("{} {verb}", noun.trim_end_matches('s')))
    })
}

/// The command line with its examples: what is parsed, and what help pages are made of.
pub fn command() -> Command {
    with_examples(Cli::command(), "")
}

/// Parses a command line.
///
/// # Errors
/// Also "errors" that ask for a help page or the version.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(argv)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn with_examples(command: Command, path: &str) -> Command {
    let command = command.mut_args(in_short).mut_subcommands(|sub| {
        let path = match path {
            "" => sub.get_name().to_owned(),
            path => format!("{path} {}", sub.get_name()),
        };
        with_examples(sub, &path)
    });
    let Some(examples) = of(path) else {
        return command;
    };
    let mut text = String::from("Examples:");
    for (what, line) in examples {
        // A String takes all that is written to it.
        let _ = write!(text, "\n  # {what}\n  {line}");
    }
    let command = match command.get_after_help() {
        Some(note) => {
            let note = format!("{text}\n\n{note}");
            command.after_long_help(note)
        }
        None => command,
    };
    // Ours is as short as what stands beside it.
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help_heading(Resettable::Reset)
        .help("Print this; --help prints all");
    command.after_help(text).disable_help_flag(true).arg(help)
}

/// The flag, with less about it in `-h`; `--help` says the same as before.
fn in_short(arg: Arg) -> Arg {
    let Some(long) = arg.get_long().map(str::to_owned) else {
        return arg;
    };
    let told = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let is_bool = values == ["true", "false"];
    let mut arg = arg.hide_short_help(FOR_FEW.contains(&long.as_str()));
    if is_bool {
        arg = arg.hide_possible_values(true);
    }
    if long == "output" && !values.is_empty() {
        let values = values.join("|");
        return arg
            .hide_possible_values(true)
            .hide_default_value(true)
            .help(values.clone())
            .long_help(format!("{told}: {values}"));
    }
    if long == "dry-run" {
        arg = arg.hide_default_value(true);
    }
    if long == "existing-resource-policy" {
        let choices = format!("{told}: none, update or recreate");
        arg = arg
            .value_name("POLICY")
            .hide_default_value(true)
            .long_help(choices);
    }
    if long == "namespace" {
        return arg
            .hide_env(true)
            .hide_default_value(true)
            .help("Ark's own namespace")
            .long_help(format!(
                "{told}: {DEFAULT_NAMESPACE}, or what the variable ARK_NAMESPACE says"
            ));
    }
    let short = IN_SHORT
        .iter()
        .find(|(name, begins, _)| *name == long && told.starts_with(begins));
    match short {
        Some((_, _, short)) => {
            let longer = arg.get_long_help().map(ToString::to_string).unwrap_or(told);
            arg.help(*short).long_help(longer)
        }
        None => arg,
    }
}
