//! `get --watch`: prints what is there, and then what changes, until nobody wants to know.
//!
//! What is printed comes of several types (a backup is a Backup, or a Job that has not written one), so a change of any of them
//! is only a reason to look again; what looks different from before is printed. A watch that ends, or whose revision is too old
//! (410), begins anew from now, and we look again, so nothing is missed.

use crate::Surroundings;
use crate::client;
use crate::output::{Asked, Format, Printable, Printing, STATUS, Watch, table, text, write};
use crate::table::Table;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::StreamExt;
use futures::stream::{FuturesUnordered, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Changes come in bursts: a Job, its pod and its record. They are looked at together.
const GATHER: Duration = Duration::from_millis(300);
/// How long we wait after a first failure; twice as long after each further one, up to
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The API server ends a watch after this many seconds, and a connection that hangs is noticed then.
const WATCH_SECONDS: u32 = 290;

/// A type whose changes are a reason to look again.
#[derive(Clone, Debug)]
pub struct Watched {
    resource: ApiResource,
    labels: Option<String>,
    optional: bool,
}

impl Watched {
    /// Objects of this type in Ark's namespace, with these labels.
    pub fn of<K>(labels: Option<String>) -> Watched
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Watched {
            resource: ApiResource::erase::<K>(&()),
            labels,
            optional: false,
        }
    }

    /// Who may not see them sees less, and that is all.
    pub fn optional(self) -> Watched {
        Watched {
            optional: true,
            ..self
        }
    }

    /// Tells of each change, for ever.
    ///
    /// # Errors
    /// When they may not be watched, or there is no such type.
    async fn tell(&self, client: &Client, namespace: &str, changed: &Notify) -> Failure {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), namespace, &self.resource);
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let Err(error) = self.once(&api, changed).await else {
                // It ended as it should: begin anew.
                continue;
            };
            if let kube::Error::Api(status) = &error
                && matches!(status.code, 401 | 403 | 404 | 405)
            {
                if self.optional {
                    std::future::pending::<()>().await;
                }
                let doing = format!("watching {} in namespace {namespace}", self.resource.plural);
                return client::failure(&error, &doing);
            }
            // It had worked for a while.
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            // Looking again tells a person that the cluster does not answer, if that is so.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            changed.notify_one();
        }
    }

    /// One watch, from now to its end.
    async fn once(&self, api: &Api<DynamicObject>, changed: &Notify) -> kube::Result<()> {
        let (mut list, mut watch) = (ListParams::default().limit(1), WatchParams::default());
        if let Some(labels) = &self.labels {
            (list, watch) = (list.labels(labels), watch.labels(labels));
        }
        let now = api.list_metadata(&list).await?;
        let from = now.metadata.resource_version.unwrap_or_default();
        // What has changed before the watch begins.
        changed.notify_one();
        let events = api
            .watch_metadata(&watch.timeout(WATCH_SECONDS), &from)
            .await?;
        let mut events = events.boxed();
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {
                    changed.notify_one();
                }
                WatchEvent::Bookmark(_) => {}
                // Its revision is too old, mostly.
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(())
    }
}

/// Prints what `look` finds, and what changes in it, until `interrupt` or until nobody reads any more.
///
/// # Errors
/// When what is first looked at cannot be read or found, or changes of it may not be watched.
pub async fn run<T: Printable + Clone + PartialEq>(
    client: &Client,
    watched: &[Watched],
    look: impl AsyncFn() -> Result<(Vec<T>, Option<Failure>), Failure>,
    asked: Asked<'_>,
    printing: &Printing,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let changed = Notify::new();
    let mut telling: FuturesUnordered<_> = watched
        .iter()
        .map(|one| one.tell(client, asked.namespace, &changed))
        .collect();
    let showing = show(&look, &changed, asked, printing, surroundings);
    tokio::select! {
        // A person who ends it is told nothing more.
        biased;
        () = interrupt => Ok(Exit::Interrupted),
        ended = showing => ended,
        Some(failure) = telling.next() => Err(failure),
    }
}

async fn show<T: Printable + Clone + PartialEq>(
    look: &impl AsyncFn() -> Result<(Vec<T>, Option<Failure>), Failure>,
    changed: &Notify,
    asked: Asked<'_>,
    printing: &Printing,
    surroundings: &Surroundings,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let (mut before, missing) = look().await?;
    if let Some(missing) = missing {
        return Err(missing);
    }
    if let Some(sort_by) = &printing.sort_by
        && !before.is_empty()
    {
        sort_by.sort(&mut before)?;
    }
    let mut printer = Printer {
        asked,
        printing,
        surroundings: surroundings.clone(),
        header: !printing.no_headers,
        documents: false,
    };
    if printing.watch != Watch::Only && !printer.print(&before, &before) {
        return Ok(Exit::Done);
    }
    let mut pause = FIRST_PAUSE;
    loop {
        changed.notified().await;
        tokio::time::sleep(GATHER).await;
        let after = match look().await {
            Ok((after, _)) => after,
            Err(failure) => {
                if pause == FIRST_PAUSE {
                    eprintln!("warning: {}; trying again", failure.message());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                changed.notify_one();
                continue;
            }
        };
        pause = FIRST_PAUSE;
        let elapsed = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        let now = surroundings
            .now
            .checked_add(jiff::SignedDuration::from_secs(elapsed));
        let then = std::mem::replace(
            &mut printer.surroundings.now,
            now.unwrap_or(surroundings.now),
        );
        let (news, gone) = differences(&before, &after, printing, then);
        let shown = printer.print(&news, &after) && printer.print_gone(&gone, &after);
        if !shown {
            return Ok(Exit::Done);
        }
        before = after;
    }
}

/// What is new or looks different, and what is gone. That a thing grows older is no difference.
fn differences<T: Printable + Clone + PartialEq>(
    before: &[T],
    after: &[T],
    printing: &Printing,
    now: jiff::Timestamp,
) -> (Vec<T>, Vec<T>) {
    let same = |one: &T, other: &T| match printing.format {
        Format::Table => one.row(false, now) == other.row(false, now),
        Format::Wide => one.row(true, now) == other.row(true, now),
        _ => one == other,
    };
    let by_reference = |all: &[T]| -> BTreeMap<String, T> {
        let all = all.iter().cloned();
        all.map(|one| (one.reference(), one)).collect()
    };
    let (old, new) = (by_reference(before), by_reference(after));
    let news = after.iter().filter(|one| {
        let old = old.get(&one.reference());
        old.is_none_or(|old| !same(old, one))
    });
    let gone = before
        .iter()
        .filter(|one| !new.contains_key(&one.reference()));
    (news.cloned().collect(), gone.cloned().collect())
}

/// Prints objects as they come.
struct Printer<'a> {
    asked: Asked<'a>,
    printing: &'a Printing,
    surroundings: Surroundings,
    /// The header has not been printed.
    header: bool,
    /// A document has been printed, from which the next one is to be told.
    documents: bool,
}

impl Printer<'_> {
    /// Prints some of all objects; says whether anybody still reads.
    fn print<T: Printable + Clone>(&mut self, some: &[T], all: &[T]) -> bool {
        match table(some, self.printing, self.surroundings.now) {
            Some(rows) => self.rows(some.len(), &rows, all),
            None => some.iter().all(|one| self.document(one)),
        }
    }

    /// Prints what is gone: in a table with that as its status, else as it was at last, as kubectl does.
    fn print_gone<T: Printable + Clone>(&mut self, gone: &[T], all: &[T]) -> bool {
        let wide = match self.printing.format {
            Format::Table => false,
            Format::Wide => true,
            _ => return self.print(gone, all),
        };
        let status = T::header(wide).iter().position(|name| *name == STATUS);
        let mut rows = Table::new(T::header(wide)).fit(T::FIT);
        for one in gone {
            let mut row = one.row(wide, self.surroundings.now);
            if let Some(status) = status.and_then(|at| row.get_mut(at)) {
                *status = "Deleted".into();
            }
            rows.push(row);
        }
        self.rows(gone.len(), &rows, all)
    }

    fn rows<T: Printable>(&mut self, count: usize, rows: &Table, all: &[T]) -> bool {
        if count == 0 {
            return true;
        }
        let header = std::mem::take(&mut self.header);
        let width = self.surroundings.width;
        // Under the header, as long as what is there is no wider.
        let laid_out = table(all, self.printing, self.surroundings.now);
        let layout = laid_out
            .filter(|_| !all.is_empty())
            .as_ref()
            .unwrap_or(rows)
            .layout(!self.printing.no_headers, width);
        write(&rows.render_as(header, &layout))
    }

    fn document<T: Printable + Clone>(&mut self, one: &T) -> bool {
        let single = Asked {
            by_name: true,
            ..self.asked
        };
        let (text, _) = text(
            std::slice::from_ref(one),
            single,
            self.printing,
            &self.surroundings,
        );
        let separator = match self.printing.format {
            Format::Yaml if std::mem::replace(&mut self.documents, true) => "---\n",
            _ => "",
        };
        write(&format!("{separator}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    #[derive(Clone, Debug, PartialEq)]
    struct Thing(&'static str, &'static str, i64);

    impl Printable for Thing {
        fn header(_: bool) -> &'static [&'static str] {
            &["NAME", "STATUS", "AGE"]
        }

        fn row(&self, _: bool, now: Timestamp) -> Vec<String> {
            vec![
                self.0.into(),
                self.1.into(),
                (now.as_second() - self.2).to_string(),
            ]
        }

        fn value(&self) -> Value {
            json!({"metadata": {"name": self.0}})
        }

        fn reference(&self) -> String {
            format!("thing/{}", self.0)
        }
    }

    #[test]
    fn only_what_looks_different_is_news() {
        let printing = Printing::default();
        let now = Timestamp::from_second(100).unwrap();
        let before = [
            Thing("a", "New", 1),
            Thing("b", "New", 1),
            Thing("c", "New", 1),
        ];
        let after = [
            Thing("a", "New", 1),
            Thing("b", "Completed", 1),
            Thing("d", "New", 2),
        ];
        let (news, gone) = differences(&before, &after, &printing, now);
        assert_eq!(news, after[1..]);
        assert_eq!(gone, before[2..]);
        let (news, gone) = differences(&after, &after, &printing, now);
        assert!(news.is_empty() && gone.is_empty());
    }
}
