//! A plan as it is printed: what a restore would do with each object, and why.

use super::compare::Difference;
use super::target::{Done, Fate};
use super::volumes::Source;
use crate::archive::footer::TypeEntry;
use crate::args::PlanFormat;
use crate::error::Failure;
use crate::exit::Exit;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Text is written in pieces of about this many bytes.
const PIECE: usize = 32 * 1024;
/// A value in a text is cut after this many characters; JSON has it whole.
const VALUE_SHOWN: usize = 120;
/// Actions, in the order in which the last line counts them.
const COUNTED: [(&str, &str); 7] = [
    ("create", "to create"),
    ("update", "to update"),
    ("recreate", "to recreate"),
    ("leave", "different and left as they are"),
    ("unchanged", "unchanged"),
    ("skip", "left out"),
    ("refuse", "refused"),
];

/// A plan being printed to standard output.
#[derive(Debug)]
pub struct Preview {
    format: PlanFormat,
    text: String,
    counts: [u64; COUNTED.len()],
    not_checkable: u64,
}

/// What is said of an object.
struct Line<'a> {
    action: &'static str,
    checked: bool,
    why: Option<String>,
    differences: &'a [Difference],
    /// Where the data of what would be created comes from.
    source: Option<&'a Source>,
}

impl Preview {
    /// Begins a plan.
    pub fn new(format: PlanFormat) -> Preview {
        Preview {
            format,
            text: String::new(),
            counts: [0; COUNTED.len()],
            not_checkable: 0,
        }
    }

    /// Adds what would become of an object.
    ///
    /// # Errors
    /// When standard output is gone.
    pub async fn add(
        &mut self,
        entry: &TypeEntry,
        namespace: Option<&str>,
        done: &Done,
        fate: &Fate,
    ) -> Result<(), Failure> {
        let Some(mut line) = line(fate) else {
            return Ok(());
        };
        if line.action == "create" {
            line.source = done.source.as_ref();
        }
        let name = &done.name;
        if let Some(at) = COUNTED
            .iter()
            .position(|(action, _)| *action == line.action)
        {
            self.counts[at] += 1;
        }
        self.not_checkable += u64::from(!line.checked);
        match self.format {
            PlanFormat::Text => self.add_text(entry, namespace, name, &line),
            PlanFormat::Json => self.add_json(entry, namespace, name, &line),
        }
        if self.text.len() >= PIECE {
            self.write().await?;
        }
        Ok(())
    }

    /// Adds what would not be restored of a type that the cluster does not serve.
    ///
    /// # Errors
    /// When standard output is gone.
    pub async fn add_type(
        &mut self,
        entry: &TypeEntry,
        objects: u64,
        refused: Option<&str>,
    ) -> Result<(), Failure> {
        let (action, why) = match refused {
            Some(why) => ("refuse", why),
            None => ("create", "not checkable before their definition is there"),
        };
        let checked = refused.is_some();
        if let Some(at) = COUNTED.iter().position(|(counted, _)| *counted == action) {
            self.counts[at] += objects;
        }
        self.not_checkable += if checked { 0 } else { objects };
        let TypeEntry {
            api_version, kind, ..
        } = entry;
        self.text += &match self.format {
            PlanFormat::Text => {
                format!("{action:9} {api_version}/{kind}: all {objects} ({why})\n")
            }
            PlanFormat::Json => format!(
                "{}\n",
                json!({"action": action, "apiVersion": api_version, "kind": kind, "objects": objects,
                    "checked": checked, "reason": why})
            ),
        };
        self.write().await
    }

    /// Ends the plan with its counts, and returns these in words.
    ///
    /// # Errors
    /// When standard output is gone.
    pub async fn finish(mut self) -> Result<String, Failure> {
        let counted = COUNTED.iter().zip(self.counts);
        let words: Vec<String> = counted
            .clone()
            .map(|((_, words), count)| format!("{count} {words}"))
            .collect();
        let mut summary = words.join(", ");
        if self.not_checkable > 0 {
            summary += &format!(" ({} not checkable yet)", self.not_checkable);
        }
        self.text += &match self.format {
            PlanFormat::Text => format!("Plan: {summary}\n"),
            PlanFormat::Json => {
                let mut counts: Map<String, Value> = counted
                    .map(|((action, _), count)| ((*action).to_owned(), count.into()))
                    .collect();
                counts.insert("notCheckable".into(), self.not_checkable.into());
                format!("{}\n", json!({ "summary": counts }))
            }
        };
        self.write().await?;
        Ok(summary)
    }

    fn add_text(
        &mut self,
        entry: &TypeEntry,
        namespace: Option<&str>,
        name: &str,
        line: &Line<'_>,
    ) {
        // They are many, and nothing happens to them.
        if line.action == "unchanged" {
            return;
        }
        let TypeEntry {
            api_version, kind, ..
        } = entry;
        let place = namespace.map_or(String::new(), |namespace| format!("{namespace}/"));
        self.text += &format!("{:9} {api_version}/{kind} {place}{name}", line.action);
        if let Some(why) = &line.why {
            self.text += &format!(" ({why})");
        }
        if let Some(from) = line.source.and_then(Source::in_words) {
            self.text += &format!(", {from}");
        }
        self.text.push('\n');
        for Difference { path, live, backup } in line.differences {
            let hidden = is_secret(entry, path);
            let shown = |value: &Option<Value>| shown(hidden, value);
            self.text += &format!("            {path}: {} → {}\n", shown(live), shown(backup));
        }
    }

    fn add_json(
        &mut self,
        entry: &TypeEntry,
        namespace: Option<&str>,
        name: &str,
        line: &Line<'_>,
    ) {
        let mut object = json!({"action": line.action, "apiVersion": entry.api_version, "kind": entry.kind,
            "name": name, "checked": line.checked});
        if let Some(namespace) = namespace {
            object["namespace"] = namespace.into();
        }
        if let Some(why) = &line.why {
            object["reason"] = why.as_str().into();
        }
        if let Some(from) = line.source.and_then(Source::in_json) {
            object["from"] = from;
        }
        if !line.differences.is_empty() {
            let differences = line.differences.iter().map(|difference| {
                let Difference { path, live, backup } = difference;
                let value = |value: &Option<Value>| match value {
                    Some(_) if is_secret(entry, path) => Value::from(HIDDEN),
                    Some(value) => value.clone(),
                    None => Value::Null,
                };
                json!({"path": path, "live": value(live), "backup": value(backup)})
            });
            object["differences"] = differences.collect();
        }
        self.text += &format!("{object}\n");
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        // Whoever reads may be slow, and the runtime has one thread.
        let writing = tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush())
        });
        let failed = |why: String| {
            Failure::new(
                Exit::Failed,
                format!("writing to standard output: {why}; nobody may be reading any more"),
            )
        };
        match writing.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(panicked) => Err(failed(panicked.to_string())),
        }
    }
}

/// Values of Secrets are not for screens and logs.
const HIDDEN: &str = "***";

/// Annotations too: kubectl keeps there what was applied.
fn is_secret(entry: &TypeEntry, path: &str) -> bool {
    let places = [".data", ".stringData", ".metadata.annotations"];
    entry.resource == "secrets" && places.iter().any(|place| path.starts_with(place))
}

fn shown(hidden: bool, value: &Option<Value>) -> String {
    match value {
        None => "(nothing)".to_owned(),
        Some(_) if hidden => HIDDEN.to_owned(),
        Some(value) => {
            let text = value.to_string();
            match text.char_indices().nth(VALUE_SHOWN) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

fn line(fate: &Fate) -> Option<Line<'_>> {
    let line = |action, why, differences| Line {
        action,
        checked: true,
        why,
        differences,
        source: None,
    };
    Some(match fate {
        Fate::Created { warnings } => {
            let why = (!warnings.is_empty()).then(|| warnings.join("; "));
            line("create", why, &[])
        }
        Fate::NotCheckable(why) => Line {
            action: "create",
            checked: false,
            why: Some(format!("not checkable: {why}")),
            differences: &[],
            source: None,
        },
        // Nothing is done with it, and nobody asked for it.
        Fate::Provided => return None,
        Fate::Unchanged => line("unchanged", None, &[]),
        Fate::Left(differences) => line("leave", None, differences),
        Fate::Updated(differences) => line("update", None, differences),
        Fate::Recreated(differences) => line("recreate", None, differences),
        Fate::Skipped(why) => line("skip", Some(why.to_string()), &[]),
        Fate::Failed { why, differences } => line("refuse", Some(why.clone()), differences),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::restore::AfterCreation;

    fn entry(resource: &str, kind: &str) -> TypeEntry {
        TypeEntry {
            resource: resource.into(),
            api_version: "v1".into(),
            kind: kind.into(),
            namespaced: true,
            items: 0,
            bytes: 0,
            unsorted: false,
            resource_version: None,
        }
    }

    fn difference(path: &str, live: Option<Value>, backup: Option<Value>) -> Difference {
        Difference {
            path: path.into(),
            live,
            backup,
        }
    }

    fn printed(format: PlanFormat, entry: &TypeEntry, fate: &Fate) -> String {
        let mut preview = Preview::new(format);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let done = Done {
            namespace: Some("a".into()),
            name: "n".into(),
            size: 0,
            after: AfterCreation::default(),
            remark: None,
            source: None,
            fate: Ok(Fate::Unchanged),
        };
        runtime
            .block_on(preview.add(entry, Some("a"), &done, fate))
            .unwrap();
        preview.text
    }

    #[test]
    fn a_difference_is_shown_from_the_cluster_to_the_backup() {
        let fate = Fate::Updated(vec![
            difference(".spec.replicas", Some(json!(3)), Some(json!(2))),
            difference(".spec.paused", Some(json!(true)), None),
        ]);
        assert_eq!(
            printed(PlanFormat::Text, &entry("configmaps", "ConfigMap"), &fate),
            "update    v1/ConfigMap a/n\n            .spec.replicas: 3 → 2\n            .spec.paused: true → (nothing)\n"
        );
    }

    #[test]
    fn values_of_secrets_are_hidden_in_both_formats() {
        let fate = Fate::Left(vec![difference(".data.k", Some(json!("aGk=")), None)]);
        for format in [PlanFormat::Text, PlanFormat::Json] {
            let text = printed(format, &entry("secrets", "Secret"), &fate);
            assert!(text.contains(HIDDEN) && !text.contains("aGk="), "{text}");
        }
        let fate = Fate::Left(vec![difference(".type", Some(json!("Opaque")), None)]);
        let text = printed(PlanFormat::Text, &entry("secrets", "Secret"), &fate);
        assert!(text.contains("Opaque"), "{text}");
    }

    #[test]
    fn long_values_are_cut_in_text() {
        let fate = Fate::Left(vec![difference(
            ".data",
            Some(json!("é".repeat(500))),
            None,
        )]);
        let text = printed(PlanFormat::Text, &entry("configmaps", "ConfigMap"), &fate);
        assert!(text.chars().count() < 250, "{text}");
    }
}
