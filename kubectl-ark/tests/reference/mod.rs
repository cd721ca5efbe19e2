//! The pages of docs/reference/, made of the code: clap's commands, the schemas of resources, the tables of names.

use ark_job::api::known::{self, Known};
use ark_job::exit::Exit;
use clap::{Arg, Command, CommandFactory};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kubectl_ark::{cli, install, rights};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const MADE: &str = "<!-- Made by `make manifests`; do not edit. -->\n";
/// Verbs that may come first: what follows has the flags of the noun's.
const VERBS: [&str; 5] = ["create", "get", "describe", "delete", "logs"];

macro_rules! line {
    ($text:ident, $($what:tt)*) => {
        writeln!($text, $($what)*).unwrap()
    };
}

/// docs/reference/kubectl-ark.md
pub fn plugin() -> String {
    let mut command = cli::command();
    command.build();
    let mut text = String::new();
    line!(text, "# kubectl ark: every command and flag\n\n{MADE}");
    line!(
        text,
        "`kubectl ark COMMAND -h` shows the flags that most people need and two examples, `--help` all of them. Nouns and verbs may \
         change places, nouns may be plural: `kubectl ark get backups` is `kubectl ark backup get`.\n"
    );
    let mut found = Vec::new();
    crate::leaves(&command, "", &mut found);
    let verb_first = |path: &str| {
        path.split_once(' ')
            .is_some_and(|(first, _)| VERBS.contains(&first))
    };
    found.retain(|(path, _)| !verb_first(path));
    for (path, _) in &found {
        line!(text, "- [{path}](#{})", anchor(path));
    }
    line!(text, "\n## Flags of every command\n");
    flags(&mut text, command.get_arguments(), |arg| {
        arg.is_global_set()
    });
    for (path, leaf) in found {
        section(&mut text, &path, "kubectl ark", &leaf);
    }
    text
}

/// docs/reference/ark-job.md
pub fn job() -> String {
    let mut command = ark_job::args::Args::command();
    command.build();
    let mut text = String::new();
    line!(text, "# ark-job: every operation and flag\n\n{MADE}");
    line!(
        text,
        "What Jobs run, and what `kubectl ark` renders into them; for Jobs that are kept in Git. Its version is {}: an image and a plugin \
         that have the same one fit together.\n",
        ark_job::api::CONTRACT_VERSION
    );
    let mut found = Vec::new();
    crate::leaves(&command, "", &mut found);
    for (path, _) in &found {
        line!(text, "- [{path}](#{})", anchor(path));
    }
    line!(text, "\n## Flags of every operation\n");
    flags(&mut text, command.get_arguments(), |arg| {
        arg.is_global_set()
    });
    for (path, leaf) in found {
        section(&mut text, &path, "ark-job", &leaf);
    }
    text
}

fn anchor(path: &str) -> String {
    path.replace(' ', "-")
}

fn section(text: &mut String, path: &str, program: &str, leaf: &Command) {
    line!(text, "\n## {path}\n");
    let about = leaf.get_long_about().or_else(|| leaf.get_about());
    if let Some(about) = about {
        line!(text, "{}.\n", about.to_string().trim_end_matches('.'));
    }
    let usage = leaf.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    line!(text, "```text");
    for one in usage.lines().map(str::trim) {
        // Of ark-job, clap knows the whole path; of a program that is called by another, too.
        let known = one.starts_with(program);
        line!(text, "{}{one}", if known { "" } else { "  " });
    }
    line!(text, "```\n");
    flags(text, leaf.get_arguments(), |arg| !arg.is_global_set());
    if let Some(after) = leaf.get_after_long_help().or_else(|| leaf.get_after_help()) {
        let after = after.to_string();
        let (examples, note) = match after.strip_prefix("Examples:\n") {
            Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
            None => ("", after.as_str()),
        };
        if !note.is_empty() {
            line!(text, "\n{}", note.replace('<', "\\<"));
        }
        if !examples.is_empty() {
            // They are run where the help pages are tested.
            line!(text, "\n```text");
            for one in examples.lines() {
                line!(text, "{}", one.strip_prefix("  ").unwrap_or(one));
            }
            line!(text, "```");
        }
    }
}

fn flags<'a>(
    text: &mut String,
    args: impl Iterator<Item = &'a Arg>,
    wanted: impl Fn(&Arg) -> bool,
) {
    let mut rows = Vec::new();
    for arg in args {
        if !wanted(arg) || arg.is_hide_set() || ["help", "version"].contains(&arg.get_id().as_str())
        {
            continue;
        }
        rows.push(format!("| {} | {} |", spelled(arg), told(arg)));
    }
    if rows.is_empty() {
        return;
    }
    line!(text, "| | |\n|---|---|");
    for row in rows {
        line!(text, "{row}");
    }
}

fn spelled(arg: &Arg) -> String {
    let value = arg
        .get_value_names()
        .filter(|_| arg.get_action().takes_values())
        .map(|names| {
            names
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        });
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        names.push(format!("--{long}"));
    }
    let text = match (names.is_empty(), value) {
        (true, value) => value.unwrap_or_default(),
        (false, None) => names.join(", "),
        (false, Some(value)) if arg.is_require_equals_set() => {
            format!("{}[={value}]", names.join(", "))
        }
        (false, Some(value)) => format!("{} {value}", names.join(", ")),
    };
    format!("`{}`", text.replace('|', "\\|"))
}

fn told(arg: &Arg) -> String {
    let help = arg
        .get_long_help()
        .or_else(|| arg.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut text = cell(&help);
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({})", value.get_name(), cell(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    let is_bool = values == ["`true`", "`false`"];
    if !values.is_empty() && !is_bool && arg.get_action().takes_values() {
        write!(text, ". One of: {}", values.join(", ")).unwrap();
    }
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        write!(text, ". Default: {}", defaults.join(", ")).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(
            text,
            ". Or in the variable `{}`",
            variable.to_string_lossy()
        )
        .unwrap();
    }
    text
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('<', "\\<")
        .replace('*', "\\*")
}

/// docs/reference/resources.md
pub fn resources() -> String {
    let mut text = String::new();
    line!(text, "# The resources\n\n{MADE}");
    line!(
        text,
        "Of the group `{}`. Backup and Restore are records: `ark-job` writes them. To ask for something, use `kubectl ark`, or create \
         a Job.\n",
        ark_job::api::GROUP
    );
    for definition in install::resource_types() {
        let value = definition.value();
        let kind = value["spec"]["names"]["kind"].as_str().unwrap();
        let version = &value["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        line!(text, "## {kind}\n");
        line!(
            text,
            "`{}`, version `{}`.\n\n| field | type | |\n|---|---|---|",
            value["metadata"]["name"].as_str().unwrap(),
            version["name"].as_str().unwrap()
        );
        for part in ["spec", "status"] {
            fields(&mut text, part, &schema["properties"][part]);
        }
        line!(text, "");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn fields(text: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        let about = field["description"].as_str().unwrap_or_default();
        let mut about = cell(about);
        if let Some(values) = field["enum"].as_array() {
            let values: Vec<String> = values
                .iter()
                .filter_map(Value::as_str)
                .map(|value| format!("`{value}`"))
                .collect();
            write!(about, " One of: {}.", values.join(", ")).unwrap();
        }
        line!(text, "| `{path}` | {} | {about} |", type_of(field));
        // Kubernetes' own type is known.
        if name.to_lowercase().ends_with("labelselector")
            || name.to_lowercase().ends_with("labelselectors")
        {
            continue;
        }
        fields(text, &path, field);
        fields(text, &format!("{path}[]"), &field["items"]);
    }
}

fn type_of(field: &Value) -> String {
    let named = field["type"].as_str().unwrap_or("any");
    match named {
        "array" => format!("list of {}", type_of(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&field["additionalProperties"]))
        }
        "string" if field["format"] == "date-time" => "time".into(),
        other => other.into(),
    }
}

/// docs/reference/names.md
pub fn names() -> String {
    let mut text = String::new();
    line!(
        text,
        "# Exit codes, labels, annotations, variables, keys\n\n{MADE}"
    );
    line!(text, "## Exit codes\n");
    text.push_str(&exit_codes());
    for (title, table) in [
        ("Labels and annotations that you may set", known::FOR_PEOPLE),
        ("Labels, annotations and tags that Ark sets", known::OF_ARK),
        ("What Ark reads in Velero's backups", known::OF_VELERO),
        ("Environment variables", known::ENVIRONMENT),
        (
            "Keys of ConfigMaps and Secrets in Ark's namespace",
            known::KEYS,
        ),
    ] {
        line!(text, "\n## {title}\n\n| | of | |\n|---|---|---|");
        for Known { name, on, meaning } in table {
            line!(
                text,
                "| `{name}` | {on} | {} |",
                meaning.replace('|', "\\|")
            );
        }
    }
    text
}

/// The names in the tables.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    known::FOR_PEOPLE
        .iter()
        .chain(known::OF_ARK)
        .chain(known::OF_VELERO)
        .map(|known| known.name)
}

/// The table of exit codes.
pub fn exit_codes() -> String {
    let mut text = String::from("| code | meaning | does the Job retry? |\n|---:|---|---|\n");
    for exit in Exit::ALL {
        let retries = match exit {
            Exit::Done => "",
            exit if Exit::FINAL.contains(&exit) => "no",
            _ => "yes",
        };
        line!(text, "| {} | {} | {retries} |", exit.code(), exit.meaning());
    }
    text
}

/// Who may do what: of each service account, the rules of its roles.
pub fn rights() -> String {
    let objects = rights::objects("heptio-ark", &BTreeMap::new(), true, true);
    let rules = |kind: &str, name: &str| -> Vec<PolicyRule> {
        objects
            .iter()
            .find(|one| one.kind() == kind && one.name() == name)
            .map(|one| serde_json::from_value(one.value()["rules"].clone()).unwrap())
            .unwrap_or_default()
    };
    let mut text = String::from("| account | where | verbs | on | by |\n|---|---|---|---|---|\n");
    let mut rows: Vec<[String; 5]> = Vec::new();
    for one in &objects {
        if !one.kind().ends_with("Binding") {
            continue;
        }
        let value = one.value();
        let role = value["roleRef"]["name"].as_str().unwrap();
        let kind = value["roleRef"]["kind"].as_str().unwrap();
        let account = value["subjects"][0]["name"].as_str().unwrap();
        let place = if one.kind() == "RoleBinding" {
            "Ark's namespace"
        } else {
            "everywhere"
        };
        let by = format!(
            "{} `{role}`",
            if kind == "Role" {
                "role"
            } else {
                "cluster role"
            }
        );
        let granted = rules(kind, role);
        if granted.is_empty() {
            rows.push([
                account.into(),
                place.into(),
                "all".into(),
                "all".into(),
                format!("{by}, bound as `{}`", one.name()),
            ]);
        }
        for rule in granted {
            rows.push([
                account.into(),
                place.into(),
                rule.verbs.join(", "),
                resources_of(&rule),
                by.clone(),
            ]);
        }
    }
    rows.sort_by(|a, b| a[..2].cmp(&b[..2]));
    for [account, place, verbs, on, by] in rows {
        line!(text, "| `{account}` | {place} | {verbs} | {on} | {by} |");
    }
    text
}

fn resources_of(rule: &PolicyRule) -> String {
    let group = rule
        .api_groups
        .iter()
        .flatten()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",");
    let resources = rule.resources.clone().unwrap_or_default();
    if group == "*" && resources == ["*"] {
        return "**everything**, Secrets too".into();
    }
    let mut named: Vec<String> = resources
        .iter()
        .map(|resource| match group.as_str() {
            "" => format!("`{resource}`"),
            // A subresource comes after the group.
            group => match resource.split_once('/') {
                Some((resource, sub)) => format!("`{resource}.{group}/{sub}`"),
                None => format!("`{resource}.{group}`"),
            },
        })
        .collect();
    named.dedup();
    let mut text = named.join(", ");
    if let Some(names) = rule
        .resource_names
        .as_ref()
        .filter(|names| !names.is_empty())
    {
        write!(text, " named `{}`", names.join("`, `")).unwrap();
    }
    text
}
