//! What the docs say, compared with the code: commands parse, links lead somewhere, help fits a screen, and the reference is
//! made of the code (`make manifests`, ARK_UPDATE=1, writes it anew; then read the difference).
//!
//! The commands are run by tests/scenarios/docs.rs. This is the part that is quick.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as tests do"
)]

mod reference;
mod shell;

use clap::Command;
use clap::error::ErrorKind;
use kubectl_ark::cli::{self, examples};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What `-h` fits in: a terminal of 80 columns that is somewhat higher than the 24 lines of old.
const SCREEN: (usize, usize) = (80, 40);
/// What a block of code may be called. `sh` is run by a test; `console` is a transcript; `text` is neither.
const FENCES: [&str; 7] = ["", "sh", "console", "text", "yaml", "json", "lua"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// README.md and the pages in docs/, with their paths from the root.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// A block of code, or the prose between two.
struct Part {
    /// What the block is called; prose has none.
    fence: Option<String>,
    line: usize,
    text: String,
}

fn parts(page: &str) -> Vec<Part> {
    let mut parts = vec![Part {
        fence: None,
        line: 1,
        text: String::new(),
    }];
    for (number, line) in page.lines().enumerate() {
        let inside = parts.last().is_some_and(|part| part.fence.is_some());
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            parts.push(Part {
                fence: (!inside).then(|| fence.trim().to_owned()),
                line: number + 1,
                text: String::new(),
            });
            continue;
        }
        let last = parts.last_mut().unwrap();
        last.text.push_str(line);
        last.text.push('\n');
    }
    parts
}

/// The commands in a block: all of a script, the lines with a prompt of a transcript.
fn commands(part: &Part) -> Vec<Vec<String>> {
    match part.fence.as_deref() {
        Some("sh") => shell::commands(&part.text),
        Some("console") => part
            .text
            .lines()
            .filter_map(|line| {
                let (prompt, command) = line.split_once("$ ")?;
                let is_prompt = prompt.chars().all(|c| c.is_ascii_alphanumeric());
                is_prompt.then(|| shell::commands(command))
            })
            .flatten()
            .collect(),
        // Not run, but there all the same.
        Some("text") => part
            .text
            .lines()
            .filter(|line| line.starts_with("kubectl ark ") && !line.contains(['…', '[']))
            .flat_map(shell::commands)
            .collect(),
        _ => Vec::new(),
    }
}

/// The words after `kubectl ark`, if it is that.
fn ours(words: &[String]) -> Option<&[String]> {
    match words {
        [kubectl, ark, rest @ ..] if kubectl == "kubectl" && ark == "ark" => Some(rest),
        [ark, rest @ ..] if ark == "kubectl-ark" => Some(rest),
        _ => None,
    }
}

fn parse(words: &[String]) -> Result<(), clap::Error> {
    let argv = std::iter::once("kubectl-ark".to_owned()).chain(words.iter().cloned());
    // As main does.
    let argv = kubectl_ark::mistyped::spelled_out(argv.map(OsString::from));
    cli::parse(argv).map(drop)
}

#[test]
fn every_block_is_of_a_known_kind() {
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        for part in parts(&page) {
            if let Some(fence) = part.fence
                && !FENCES.contains(&fence.as_str())
            {
                wrong.push(format!("{name}:{}: ```{fence}", part.line));
            }
        }
    }
    assert!(wrong.is_empty(), "not one of {FENCES:?}: {wrong:#?}");
}

#[test]
fn every_command_in_the_docs_parses() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, page) in pages() {
        for part in parts(&page) {
            for command in commands(&part) {
                let Some(words) = ours(&command) else {
                    continue;
                };
                count += 1;
                if let Err(error) = parse(words)
                    && error.use_stderr()
                {
                    wrong.push(format!(
                        "{name}:{}: {}\n{error}",
                        part.line,
                        command.join(" ")
                    ));
                }
            }
        }
    }
    assert!(count > 50, "only {count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// In prose, names stand for arguments and some are left out; but what is there must exist.
#[test]
fn every_command_in_prose_exists() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, page) in pages() {
        for part in parts(&page).iter().filter(|part| part.fence.is_none()) {
            let prose = part.text.replace("``", "");
            for code in prose.split('`').skip(1).step_by(2) {
                let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
                if !code.starts_with("kubectl ark ") || code.contains('…') || code.contains("...")
                {
                    continue;
                }
                for command in shell::commands(&code) {
                    let Some(words) = ours(&command) else {
                        continue;
                    };
                    count += 1;
                    // `kubectl ark COMMAND -h`
                    let Err(error) = parse(words) else { continue };
                    if words[0].chars().all(|c| c.is_ascii_uppercase()) {
                        continue;
                    }
                    if matches!(
                        error.kind(),
                        ErrorKind::UnknownArgument
                            | ErrorKind::InvalidSubcommand
                            | ErrorKind::ArgumentConflict
                    ) {
                        wrong.push(format!("{name}: `{code}`\n{error}"));
                    }
                }
            }
        }
    }
    assert!(count > 20, "only {count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        let file = root().join(&name);
        for part in parts(&page).iter().filter(|part| part.fence.is_none()) {
            for link in part.text.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match path {
                    "" => file.clone(),
                    path => file.parent().unwrap().join(path),
                };
                if !target.exists() {
                    wrong.push(format!("{name}: {link}: there is no such file"));
                } else if !anchor.is_empty()
                    && !anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor)
                {
                    wrong.push(format!("{name}: {link}: there is no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_contents() {
    let contents = std::fs::read_to_string(root().join("docs/README.md")).unwrap();
    let missing: Vec<String> = pages()
        .into_iter()
        .filter_map(|(name, _)| Some(name.strip_prefix("docs/")?.to_owned()))
        .filter(|name| name != "README.md" && !contents.contains(&format!("]({name}")))
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:#?}");
}

/// The headings of a page, as GitHub names them in links.
fn anchors(page: &str) -> BTreeSet<String> {
    parts(page)
        .iter()
        .filter(|part| part.fence.is_none())
        .flat_map(|part| part.text.lines())
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// All commands of the plugin that do something, with their paths.
pub fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    let mut subcommands = command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .peekable();
    if subcommands.peek().is_none() {
        found.push((path.to_owned(), command.clone()));
    }
    for sub in subcommands {
        let path = format!("{path} {}", sub.get_name());
        leaves(sub, path.trim_start(), found);
    }
}

fn all_leaves() -> Vec<(String, Command)> {
    let mut command = cli::command();
    command.build();
    let mut found = Vec::new();
    leaves(&command, "", &mut found);
    found
}

#[test]
fn every_command_has_two_examples_that_parse() {
    let mut wrong = Vec::new();
    for (path, _) in all_leaves() {
        if examples::of(&path).is_none_or(|examples| examples.len() < 2) {
            wrong.push(format!("{path} has no two examples in cli/examples.rs"));
        }
    }
    let paths: BTreeSet<String> = all_leaves().into_iter().map(|(path, _)| path).collect();
    for (path, examples) in examples::EXAMPLES {
        // One whose command is not there is never shown.
        if !paths.contains(*path) {
            continue;
        }
        for (what, line) in *examples {
            let found = shell::commands(line);
            let words = found.first().and_then(|command| ours(command));
            match words.map(parse) {
                Some(Ok(())) => {}
                Some(Err(error)) => wrong.push(format!("{path}: {what}: {line}\n{error}")),
                None => wrong.push(format!("{path}: {what}: {line} is not kubectl ark")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn page(path: &str, flag: &str) -> String {
    let argv = std::iter::once("kubectl-ark")
        .chain(path.split_whitespace())
        .chain([flag]);
    cli::command()
        .term_width(SCREEN.0)
        .try_get_matches_from(argv)
        .unwrap_err()
        .render()
        .to_string()
}

#[test]
fn help_fits_a_screen_and_calls_itself_kubectl_ark() {
    let mut wrong = Vec::new();
    let mut paths = vec![String::new()];
    paths.extend(all_leaves().into_iter().map(|(path, _)| path));
    for path in paths {
        for flag in ["-h", "--help"] {
            let page = page(&path, flag);
            for line in page.lines().filter(|line| line.chars().count() > SCREEN.0) {
                wrong.push(format!("{path} {flag}: too wide: {line}"));
            }
            let lines = page.lines().count();
            if flag == "-h" && lines > SCREEN.1 {
                wrong.push(format!("{path} {flag}: {lines} lines:\n{page}"));
            }
            if !page.contains("Usage: kubectl ark") || page.contains("kubectl-ark ") {
                wrong.push(format!(
                    "{path} {flag}: usage is not of kubectl ark:\n{page}"
                ));
            }
            if !path.is_empty() && !page.contains("Examples:\n  # ") {
                wrong.push(format!("{path} {flag}: no examples:\n{page}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_is_made_of_the_code() {
    for (name, text) in [
        ("docs/reference/kubectl-ark.md", reference::plugin()),
        ("docs/reference/ark-job.md", reference::job()),
        ("docs/reference/resources.md", reference::resources()),
        ("docs/reference/names.md", reference::names()),
    ] {
        check(name, &text);
    }
}

#[test]
fn generated_parts_of_pages_are_made_of_the_code() {
    for (name, what, text) in [
        ("README.md", "exit codes", reference::exit_codes()),
        ("docs/security.md", "rights", reference::rights()),
    ] {
        let path = root().join(name);
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page
            .split_once(&format!("<!-- generated: {what} -->\n"))
            .unwrap_or_else(|| panic!("{name} has no generated {what}"));
        let (_, after) = rest
            .split_once("<!-- end -->")
            .unwrap_or_else(|| panic!("{name}: generated {what} have no end"));
        let whole = format!("{before}<!-- generated: {what} -->\n{text}<!-- end -->{after}");
        check(name, &whole);
    }
}

fn check(name: &str, text: &str) {
    let path = root().join(name);
    if std::env::var_os("ARK_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "{name} is not what the code makes (`make manifests` writes it anew):\n{text}"
    );
}

/// Names of ours and of Velero's that the code has are in the reference, and no others.
#[test]
fn every_label_and_annotation_is_in_the_reference() {
    let known: BTreeSet<&str> = reference::known_names().collect();
    let mut code = BTreeSet::new();
    let mut folders = vec![root().join("ark-job/src"), root().join("kubectl-ark/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.ends_with(".rs") || name == "tests.rs" || name == "known.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            code.extend(texts(text).filter(|text| is_name(text)).map(str::to_owned));
        }
    }
    let unknown: Vec<&String> = code
        .iter()
        .filter(|name| !known.contains(name.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "not in ark-job/src/api/known.rs: {unknown:#?}"
    );
    let stale: Vec<&&str> = known
        .iter()
        .filter(|name| is_name(name) && !code.contains(**name))
        .collect();
    assert!(stale.is_empty(), "not in the code any more: {stale:#?}");
}

/// The texts in a source file, comments left out.
fn texts(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}

/// `PREFIX.ark.heptio.com/NAME`, but not a group and version.
fn is_name(text: &str) -> bool {
    let Some((domain, name)) = text.split_once('/') else {
        return false;
    };
    let ours = ["ark.heptio.com", "velero.io"]
        .iter()
        .any(|known| domain == *known || domain.ends_with(&format!(".{known}")));
    let version = name.starts_with('v') && name[1..].starts_with(|c: char| c.is_ascii_digit());
    // "ark.heptio.com/" alone is the start of a name.
    ours && !version
        && (!name.is_empty() || domain.contains("hook"))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
