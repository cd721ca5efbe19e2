//! The screen: what needs attention first, with what to run; then what there is. Nothing is wider than the terminal but
//! commands, which are to be copied. Pure.

use super::assess::{Health, Housekeeping, Item, LocationHealth, OperationHealth, ScheduleHealth};
use crate::age::{age, until};
use crate::records::Progress;
use crate::table::Table;
use ark_job::report::plural;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Width of the names of fields.
const FIELD: usize = 12;
/// Rows of a table, and things that need attention: a screen has room for so many. `-o yaml` has all.
const ROWS: usize = 10;
/// No name is cut to less.
const SHORTEST: usize = 8;

/// The whole text; lines are as long as they are without a width.
pub fn text(health: &Health, width: Option<usize>) -> String {
    let mut lines = Vec::new();
    let count = u64::try_from(health.attention.len()).unwrap_or(u64::MAX);
    lines.push(match count {
        0 => "Healthy".to_owned(),
        1 => "NOT HEALTHY: 1 thing needs attention".to_owned(),
        _ => format!("NOT HEALTHY: {} need attention", plural(count, "thing")),
    });
    lines.push(String::new());
    items(&health.attention, "!", width, &mut lines);
    facts(health, width, &mut lines);
    table(locations(health), width, health.locations.len(), &mut lines);
    table(schedules(health), width, health.schedules.len(), &mut lines);
    running(health, width, &mut lines);
    items(&health.notes, "note:", width, &mut lines);
    for one in &health.not_seen {
        wrapped(&format!("not seen: {one}"), "", width, &mut lines);
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn items(items: &[Item], mark: &str, width: Option<usize>, lines: &mut Vec<String>) {
    if items.is_empty() {
        return;
    }
    for item in items.iter().take(ROWS) {
        wrapped(&format!("{mark} {}", item.message), "  ", width, lines);
        lines.push(format!("  {}", item.command));
        if let Some(hint) = &item.hint {
            wrapped(&format!("  hint: {hint}"), "  ", width, lines);
        }
    }
    if items.len() > ROWS {
        lines.push(format!(
            "{mark} and {} more: -o yaml has all",
            items.len() - ROWS
        ));
    }
    lines.push(String::new());
}

fn facts(health: &Health, width: Option<usize>, lines: &mut Vec<String>) {
    let versions = &health.versions;
    let contract = match versions.agree {
        true => String::new(),
        false => format!(
            " (contract {}, not {})",
            versions.image_contract.as_deref().unwrap_or("none"),
            versions.plugin_contract
        ),
    };
    let mode = &health.mode;
    let suspended = match mode.suspended.len() {
        0 => String::new(),
        1 => ", 1 CronJob suspended".to_owned(),
        count => format!(", {count} CronJobs suspended"),
    };
    let paused = match mode.paused.len() {
        0 => String::new(),
        count => format!(", {count} paused by hand"),
    };
    for (name, value) in [
        ("Plugin", versions.plugin.clone()),
        (
            "Image",
            format!(
                "{}{contract}",
                versions.image.as_deref().unwrap_or("<none>")
            ),
        ),
        ("Mode", format!("{}{suspended}{paused}", mode.mode)),
    ] {
        lines.push(fit(&format!("{:FIELD$}{value}", format!("{name}:")), width));
    }
    lines.push(String::new());
}

fn ago(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or("never".to_owned(), |time| {
        format!("{} ago", age(time.0, now))
    })
}

fn locations(health: &Health) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let now = health.checked_at.0;
    let rows = health.locations.iter().map(|location| {
        let LocationHealth {
            name,
            url: _,
            access_mode,
            last_sync_time,
            reachable,
            unreachable: _,
            sync: _,
            expiry,
        } = location;
        vec![
            name.clone(),
            access_mode.clone(),
            match reachable {
                Some(true) => "yes".into(),
                Some(false) => "NO".into(),
                None => "not tried".into(),
            },
            ago(last_sync_time.as_ref(), now),
            match expiry {
                Housekeeping { cron_job: None, .. } => "none".into(),
                Housekeeping {
                    suspended: true, ..
                } => "suspended".into(),
                Housekeeping { failed: true, .. } => "FAILED".into(),
                done => ago(done.last_success_time.as_ref(), now),
            },
        ]
    });
    (
        vec!["LOCATION", "ACCESS", "REACHABLE", "SYNC", "EXPIRY"],
        rows.collect(),
    )
}

fn schedules(health: &Health) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let now = health.checked_at.0;
    let mut all: Vec<&ScheduleHealth> = health.schedules.iter().collect();
    // Those in trouble are on the screen, however many there are.
    all.sort_by_key(|one| !(one.overdue || one.failures_in_row > 0));
    let rows = all.into_iter().map(|schedule| {
        let good = schedule.last_good_backup.as_ref();
        vec![
            schedule.name.clone(),
            schedule.status.clone(),
            ago(good.and_then(|good| good.start_time.as_ref()), now),
            schedule.failures_in_row.to_string(),
            match &schedule.next_time {
                Some(next) => format!("in {}", until(next.0, now)),
                None => "-".into(),
            },
        ]
    });
    (
        vec!["SCHEDULE", "STATUS", "LAST-GOOD", "FAILED", "NEXT"],
        rows.collect(),
    )
}

/// A table whose names give way when the terminal is narrow.
fn table(
    (header, mut rows): (Vec<&'static str>, Vec<Vec<String>>),
    width: Option<usize>,
    count: usize,
    lines: &mut Vec<String>,
) {
    if rows.is_empty() {
        return;
    }
    rows.truncate(ROWS);
    let render = |rows: &[Vec<String>]| {
        let mut table = Table::new(&header);
        rows.iter().for_each(|row| table.push(row.clone()));
        table.render(true)
    };
    let longest = |text: &str| text.lines().map(|line| line.chars().count()).max();
    let mut text = render(&rows);
    if let (Some(width), Some(longest)) = (width, longest(&text))
        && longest > width
    {
        let name = rows.iter().map(|row| row[0].chars().count()).max();
        let room = name
            .unwrap_or(0)
            .saturating_sub(longest - width)
            .max(SHORTEST);
        for row in &mut rows {
            row[0] = fit(&row[0], Some(room));
        }
        text = render(&rows);
    }
    lines.extend(text.lines().map(|line| fit(line, width)));
    if count > rows.len() {
        lines.push(format!("and {} more: -o yaml has all", count - rows.len()));
    }
    lines.push(String::new());
}

fn running(health: &Health, width: Option<usize>, lines: &mut Vec<String>) {
    let now = health.checked_at.0;
    let all = &health.operations;
    for (index, operation) in all.iter().take(ROWS).enumerate() {
        let field = if index == 0 { "Running:" } else { "" };
        lines.push(fit(
            &format!("{field:FIELD$}{}", line(operation, now)),
            width,
        ));
    }
    if all.len() > ROWS {
        lines.push(format!("{:FIELD$}and {} more", "", all.len() - ROWS));
    }
    if all.is_empty() {
        lines.push(format!("{:FIELD$}nothing", "Running:"));
    }
    lines.push(String::new());
}

fn line(operation: &OperationHealth, now: Timestamp) -> String {
    let OperationHealth {
        operation: what,
        name,
        job: _,
        state,
        waiting_for,
        start_time,
        heartbeat: _,
        items,
        total_items,
    } = operation;
    let since = start_time
        .as_ref()
        .map(|time| format!(" ({})", age(time.0, now)));
    let progress = items.map(|items| Progress {
        items,
        total: *total_items,
        bytes: 0,
    });
    let far = match (state.as_str(), progress) {
        (
            "Running" | "Unknown",
            Some(Progress {
                items,
                total: Some(total),
                ..
            }),
        ) => {
            format!(": {items} of {total} objects")
        }
        ("Running" | "Unknown", Some(Progress { items, .. })) => {
            format!(": {}", plural(items, "object"))
        }
        ("Pending" | "Stuck", _) => match waiting_for {
            Some(note) => format!(": waits: {note}"),
            None => ": waits".into(),
        },
        _ => String::new(),
    };
    format!("{what} {name}{}{far}", since.unwrap_or_default())
}

/// A line that is cut when it is too long.
fn fit(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
            cut.push('…');
            cut
        }
        _ => line.to_owned(),
    }
}

/// A text in as many lines as it takes; all but the first are indented.
fn wrapped(text: &str, indent: &str, width: Option<usize>, lines: &mut Vec<String>) {
    let leading: String = text.chars().take_while(|one| *one == ' ').collect();
    let mut line = leading;
    let mut empty = true;
    for word in text.split_whitespace() {
        let longer = line.chars().count() + usize::from(!empty) + word.chars().count();
        if !empty && width.is_some_and(|width| longer > width) {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
}
