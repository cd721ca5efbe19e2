//! What is shown of the measurements: a table, whether each limit is held, and a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::load::{Load, Source};
use crate::restore::Restores;
use crate::used::Used;

/// The parts of docs/benchmarks.md that `--write` replaces.
const BEGIN: &str = "<!-- written by make bench: begin -->\n";
const BEGIN_RESTORE: &str = "<!-- written by make bench: begin restore -->\n";
const END: &str = "<!-- written by make bench: end -->\n";

/// What was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Paging all lists.
    Floor,
    /// A backup to a directory.
    File,
    /// A backup to an S3 server on the same machine.
    S3,
    /// kubectl get of everything.
    Kubectl,
}

impl What {
    fn title(self) -> &'static str {
        match self {
            What::Floor => "paging the lists (floor)",
            What::File => "ark-job backup to file",
            What::S3 => "ark-job backup to S3",
            What::Kubectl => "kubectl get -A -o json",
        }
    }

    fn color(self) -> &'static str {
        match self {
            What::Floor => "#8c8c8c",
            What::File => "#117a65",
            What::S3 => "#2e6da4",
            What::Kubectl => "#c0561f",
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    what: What,
    used: Used,
}

impl Row {
    /// The fastest run.
    pub fn best(what: What, runs: &[Used]) -> Row {
        Row::of(what, runs, |sorted| sorted.first().copied())
    }

    /// The run in the middle.
    pub fn median(what: What, runs: &[Used]) -> Row {
        Row::of(what, runs, |sorted| sorted.get(sorted.len() / 2).copied())
    }

    fn of(what: What, runs: &[Used], choose: impl Fn(&[f64]) -> Option<f64>) -> Row {
        let chosen = |value: &dyn Fn(&Used) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            choose(&values).unwrap_or(f64::NAN)
        };
        let servers = chosen(&|used| used.servers.unwrap_or(f64::NAN));
        Row {
            what,
            used: Used {
                wall: chosen(&|used| used.wall),
                cpu: chosen(&|used| used.cpu),
                servers: (!servers.is_nan()).then_some(servers),
                // The worst, whatever is chosen of the rest: a limit is a limit.
                peak_mib: runs.iter().map(|used| used.peak_mib).fold(0.0, f64::max),
            },
        }
    }
}

/// What was measured with one load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The load.
    pub load: Load,
    /// What lists are answered from.
    pub source: Source,
    /// What was run, the floor first.
    pub rows: Vec<Row>,
    /// Length of the archive against that of `gzip -6` of the same tar.
    pub against_gzip: f64,
}

impl Measured {
    fn title(&self) -> String {
        match self.source {
            Source::Etcd => self.load.to_string(),
            Source::Cache => format!("{}, watch cache", self.load),
        }
    }

    fn used(&self, what: What) -> Option<&Used> {
        let row = self.rows.iter().find(|row| row.what == what)?;
        Some(&row.used)
    }

    /// Wall time of a row, the floor's being 1.
    fn ratio(&self, used: &Used) -> f64 {
        used.wall / self.used(What::Floor).map_or(f64::NAN, |floor| floor.wall)
    }

    fn file_ratio(&self) -> f64 {
        self.used(What::File)
            .map_or(f64::NAN, |used| self.ratio(used))
    }

    /// Of the backup to a directory, for which the limits are; that to S3 is reported beside it.
    fn peak_mib(&self) -> f64 {
        self.used(What::File).map_or(f64::NAN, |used| used.peak_mib)
    }
}

/// All measurements, and what must hold of them, as Markdown.
pub fn table(all: &[Measured]) -> String {
    let mut text = String::from(
        "| objects | what | wall s | floor = 1 | CPU s | servers' CPU s | peak MiB | archive, `gzip -6` = 1 |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for measured in all {
        for row in &measured.rows {
            let used = &row.used;
            let servers = used
                .servers
                .map_or("–".to_owned(), |servers| format!("{servers:.2}"));
            let against_gzip = if row.what == What::File {
                format!("{:.2}", measured.against_gzip)
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} | {:.2} | {servers} | {:.1} | {against_gzip} |",
                measured.title(),
                row.what.title(),
                used.wall,
                measured.ratio(used),
                used.cpu,
                used.peak_mib,
            );
        }
    }
    write_limits(&mut text, &limits(all));
    text
}

/// Appends what must hold.
pub fn write_limits(text: &mut String, limits: &[Limit]) {
    if !limits.is_empty() {
        text.push_str("\n| must hold | measured | |\n|---|---:|---|\n");
    }
    for limit in limits {
        let held = if limit.measured <= limit.at_most {
            "held"
        } else {
            "**not held**"
        };
        let _ = writeln!(text, "| {} | {:.2} | {held} |", limit.text, limit.measured);
    }
}

/// What must hold.
#[derive(Clone, Debug)]
pub struct Limit {
    /// In words.
    pub text: String,
    /// What it is.
    pub measured: f64,
    /// What it may be.
    pub at_most: f64,
}

/// The middle of each figure, but for the peak of memory, of which it is the worst.
pub fn median(runs: &[Used]) -> Used {
    Row::median(What::File, runs).used
}

/// The limits of docs/design.md that these measurements say something of.
fn limits(all: &[Measured]) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut limit = |text: String, measured: f64, at_most: f64| {
        limits.push(Limit {
            text,
            measured,
            at_most,
        });
    };
    let peak_of_few = all
        .iter()
        .find(|measured| matches!(measured.load, Load::ConfigMaps(50_000..100_000)))
        .map(Measured::peak_mib);
    for measured in all {
        let load = measured.title();
        match measured.load {
            Load::ConfigMaps(objects) => {
                if (50_000..100_000).contains(&objects) {
                    let text = format!("{load}: backup to file ≤ 0.7 × the floor");
                    limit(text, measured.file_ratio(), 0.7);
                } else if objects >= 300_000 {
                    let text = format!("{load}: backup to file ≤ 0.4 × the floor");
                    limit(text, measured.file_ratio(), 0.4);
                }
                limit(
                    format!("{load}: peak memory of backup to file ≤ 32 MiB"),
                    measured.peak_mib(),
                    32.0,
                );
                if let Some(few) = peak_of_few
                    && objects >= 300_000
                {
                    let text = format!(
                        "{load}: peak memory of backup to file ≤ 1.1 × that of a tenth of the objects"
                    );
                    limit(text, measured.peak_mib() / few, 1.1);
                }
            }
            Load::Large(_) => limit(
                format!("{load}: peak memory of backup to file ≤ 48 MiB"),
                measured.peak_mib(),
                48.0,
            ),
            Load::Mixture(_) | Load::Partial(_) => {}
        }
        limit(
            format!("{load}: archive ≤ 1.25 × `gzip -6`"),
            measured.against_gzip,
            1.25,
        );
    }
    limits
}

/// Writes tables and plot into the documentation of this checkout.
pub fn write(all: &[Measured], restores: &Restores) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("benchmarks.md");
    let mut text =
        std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    if !all.is_empty() {
        let table = table(all);
        let part = format!("![plot](benchmarks.svg)\n\n{table}");
        text = replace(&text, BEGIN, &part).with_context(|| format!("in {}", page.display()))?;
        let plot = docs.join("benchmarks.svg");
        std::fs::write(&plot, svg(all)).with_context(|| format!("writing {}", plot.display()))?;
    }
    if !restores.is_empty() {
        text = replace(&text, BEGIN_RESTORE, &restores.table())
            .with_context(|| format!("in {}", page.display()))?;
    }
    std::fs::write(&page, text).with_context(|| format!("writing {}", page.display()))?;
    eprintln!("wrote {}", page.display());
    Ok(())
}

/// The text with the part that begins like this replaced.
fn replace(text: &str, begin: &str, part: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(begin)
        .with_context(|| format!("there is no {begin}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("there is no {END} after {begin}"))?;
    Ok(format!("{before}{begin}\n{part}\n{END}{after}"))
}

const WIDTH: f64 = 920.0;
const LABEL: f64 = 180.0;
const PANEL: f64 = 250.0;
/// Where the panels begin: wall time, and memory.
const WALL: f64 = LABEL + 16.0;
const MEMORY: f64 = WALL + PANEL + 150.0;
const TOP: f64 = 64.0;
const LINE: f64 = 20.0;
/// Between two loads.
const GAP: f64 = 34.0;
/// Wall times are drawn up to this multiple of the floor; the number beside the bar is always the true one.
const LONGEST: f64 = 4.0;
/// The logarithmic axis of memory, MiB.
const SMALLEST_MIB: f64 = 4.0;
const LARGEST_MIB: f64 = 16_384.0;

/// The plot: for each load and each of what was run, wall time as a bar and peak memory as a dot.
fn svg(all: &[Measured]) -> String {
    let height = TOP
        + all
            .iter()
            .map(|measured| GAP + LINE * measured.rows.len() as f64)
            .sum::<f64>()
        + 24.0;
    let wall_x = |ratio: f64| WALL + PANEL * ratio.min(LONGEST) / LONGEST;
    let memory_x =
        |mib: f64| MEMORY + PANEL * (mib / SMALLEST_MIB).ln() / (LARGEST_MIB / SMALLEST_MIB).ln();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut text = |x: f64, y: f64, rest: &str, content: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" {rest}>{content}</text>"
        );
    };
    text(
        WALL,
        22.0,
        "font-weight=\"bold\"",
        "Wall time, paging the lists = 1",
    );
    text(
        MEMORY,
        22.0,
        "font-weight=\"bold\"",
        "Peak memory (logarithmic)",
    );
    let grey = "fill=\"#666\" text-anchor=\"middle\"";
    let whole = LONGEST as usize;
    for ratio in 0..=whole {
        text(wall_x(ratio as f64), 44.0, grey, &ratio.to_string());
    }
    let marks = [
        (4.0, "4 MiB"),
        (32.0, "32"),
        (256.0, "256"),
        (2048.0, "2 GiB"),
        (LARGEST_MIB, "16"),
    ];
    for (mib, label) in marks {
        text(memory_x(mib), 44.0, grey, label);
    }
    let mut y = TOP;
    let mut shapes = String::new();
    for measured in all {
        text(12.0, y + 10.0, "font-weight=\"bold\"", &measured.title());
        y += GAP - LINE / 2.0;
        for row in &measured.rows {
            let (used, color, ratio) = (&row.used, row.what.color(), measured.ratio(&row.used));
            text(
                LABEL + 8.0,
                y + 4.0,
                "text-anchor=\"end\"",
                row.what.title(),
            );
            let cut = if ratio > LONGEST { " ›" } else { "" };
            let label = format!("{ratio:.2}{cut} · {:.1} s", used.wall);
            text(wall_x(ratio) + 6.0, y + 4.0, "", &label);
            let _ = writeln!(
                shapes,
                "<rect x=\"{WALL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{color}\"/>",
                y - 6.0,
                wall_x(ratio) - WALL
            );
            let peak = if used.peak_mib < 1024.0 {
                format!("{:.0} MiB", used.peak_mib)
            } else {
                format!("{:.1} GiB", used.peak_mib / 1024.0)
            };
            text(memory_x(used.peak_mib) + 10.0, y + 4.0, "", &peak);
            let _ = writeln!(
                shapes,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\"/>",
                memory_x(used.peak_mib)
            );
            y += LINE;
        }
        y += LINE / 2.0;
    }
    let mut lines = String::new();
    let verticals = (0..=whole)
        .map(|ratio| (wall_x(ratio as f64), ratio == 1))
        .chain(marks.map(|(mib, _)| (memory_x(mib), mib == 32.0)));
    for (x, strong) in verticals {
        let color = if strong { "#888" } else { "#ddd" };
        let _ = writeln!(
            lines,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"50\" y2=\"{:.1}\" stroke=\"{color}\"/>",
            height - 12.0
        );
    }
    // Lines lie under shapes, and shapes under text.
    let text_begins = svg.find("<text").unwrap_or(svg.len());
    svg.insert_str(text_begins, &format!("{lines}{shapes}"));
    svg.push_str("</svg>\n");
    svg
}
