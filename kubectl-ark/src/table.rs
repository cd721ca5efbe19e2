//! Tables as kubectl prints them: upper-case headers, columns three spaces apart, nothing after the last one.
//!
//! In a terminal that is too narrow a table does not wrap: columns that matter least are left out, then what may be is cut.
//! The first column, names, is never cut: it is there to be copied. Elsewhere (a pipe, a file) all is printed.

use console::{measure_text_width, truncate_str};

/// kubectl's space between columns.
const PADDING: usize = 3;
/// kubectl's least width of a column, padding included.
const MIN_WIDTH: usize = 6;
/// A cell is not cut to less than this: it would say nothing.
const LEAST_CUT: usize = 12;

/// Rows under a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    fit: Fit,
}

/// What to do to a table in a terminal that is too narrow for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Columns to leave out, the first one first; then the others, from the right.
    pub leave_out: &'static [&'static str],
    /// Columns whose cells may be cut, since nobody copies them.
    pub cut: &'static [&'static str],
}

/// Which columns are shown, and how wide they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    columns: Vec<(usize, usize)>,
    /// How many were left out.
    pub left_out: usize,
    /// It is for a terminal, where what is too long is cut.
    narrow: bool,
}

impl Table {
    /// An empty table.
    pub fn new<T: ToString>(header: &[T]) -> Table {
        Table {
            header: header.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
            fit: Fit::default(),
        }
    }

    /// Says what to do in a narrow terminal.
    pub fn fit(mut self, fit: Fit) -> Table {
        self.fit = fit;
        self
    }

    /// Adds a row, with a cell for each column; an empty cell prints as `<none>`.
    pub fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.header.len());
        let cell = |cell: String| {
            if cell.is_empty() {
                "<none>".into()
            } else {
                // A line break in a cell would be a row of its own.
                match cell.contains(['\n', '\r', '\t']) {
                    true => cell.split_whitespace().collect::<Vec<_>>().join(" "),
                    false => cell,
                }
            }
        };
        self.rows.push(row.into_iter().map(cell).collect());
    }

    /// The table as text, each line with its newline, however wide.
    pub fn render(&self, with_header: bool) -> String {
        self.render_within(with_header, None)
    }

    /// The table as text, in a terminal of `width` columns if that is given.
    pub fn render_within(&self, with_header: bool, width: Option<usize>) -> String {
        self.render_as(with_header, &self.layout(with_header, width))
    }

    /// How the table is laid out in a terminal of `width` columns, or wherever it is printed.
    pub fn layout(&self, with_header: bool, width: Option<usize>) -> Layout {
        let lines = || {
            with_header
                .then_some(&self.header)
                .into_iter()
                .chain(&self.rows)
        };
        let longest = |column: usize| {
            let widths = lines().map(|line| measure_text_width(&line[column]));
            widths.max().unwrap_or(0)
        };
        let mut columns: Vec<(usize, usize)> = (0..self.header.len())
            .map(|column| (column, longest(column)))
            .collect();
        let Some(width) = width else {
            return Layout {
                columns: padded(columns),
                ..Layout::default()
            };
        };
        let named = |column: usize, names: &[&str]| names.contains(&self.header[column].as_str());
        // What may be cut needs no more than this.
        let needed = |columns: &[(usize, usize)]| {
            let least = |&(column, longest): &(usize, usize)| match named(column, self.fit.cut) {
                true => (
                    column,
                    longest.min(LEAST_CUT.max(self.header[column].len())),
                ),
                false => (column, longest),
            };
            total(&columns.iter().map(least).collect::<Vec<_>>())
        };
        let all = columns.len();
        for name in self.fit.leave_out {
            if needed(&columns) > width {
                columns.retain(|&(column, _)| self.header[column] != *name);
            }
        }
        while needed(&columns) > width && columns.len() > 1 {
            columns.pop();
        }
        // The widest that may be cut gives way first.
        while total(&columns) > width {
            let widest = columns
                .iter_mut()
                .filter(|(column, longest)| {
                    named(*column, self.fit.cut)
                        && *longest > LEAST_CUT.max(self.header[*column].len())
                })
                .max_by_key(|(_, longest)| *longest);
            match widest {
                Some((_, longest)) => *longest -= 1,
                None => break,
            }
        }
        Layout {
            left_out: all - columns.len(),
            columns: padded(columns),
            narrow: true,
        }
    }

    /// The table as text, laid out as another one was.
    pub fn render_as(&self, with_header: bool, layout: &Layout) -> String {
        let lines = with_header
            .then_some(&self.header)
            .into_iter()
            .chain(&self.rows);
        let mut text = String::new();
        for line in lines {
            let mut printed = String::new();
            for &(column, width) in &layout.columns {
                let cell = &line[column];
                let may_be_cut =
                    layout.narrow && self.fit.cut.contains(&self.header[column].as_str());
                let cell = match may_be_cut {
                    true => truncate_str(cell, width - PADDING, "…"),
                    false => cell.into(),
                };
                printed.push_str(&cell);
                let blanks = width.saturating_sub(measure_text_width(&cell)).max(1);
                printed.extend(std::iter::repeat_n(' ', blanks));
            }
            text.push_str(printed.trim_end());
            text.push('\n');
        }
        text
    }
}

/// With the space after each column.
fn padded(columns: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    columns
        .into_iter()
        .map(|(column, longest)| (column, (longest + PADDING).max(MIN_WIDTH)))
        .collect()
}

/// How long a line is; there is no space after its end.
fn total(columns: &[(usize, usize)]) -> usize {
    let Some(((_, last), others)) = columns.split_last() else {
        return 0;
    };
    let others = others
        .iter()
        .map(|(_, longest)| (longest + PADDING).max(MIN_WIDTH));
    others.sum::<usize>() + last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_as_kubectl_does() {
        let mut table = Table::new(&["NAME", "AGE", "STATUS"]);
        table.push(vec!["a".into(), "5m".into(), String::new()]);
        table.push(vec![
            "longer-name".into(),
            "2d3h".into(),
            "Completed".into(),
        ]);
        assert_eq!(
            table.render(true),
            "NAME          AGE    STATUS\n\
             a             5m     <none>\n\
             longer-name   2d3h   Completed\n"
        );
        assert_eq!(
            table.render(false),
            "a             5m     <none>\nlonger-name   2d3h   Completed\n"
        );
    }

    fn wide() -> Table {
        let mut table = Table::new(&["NAME", "STATUS", "MESSAGE", "AGE", "SIZE"]).fit(Fit {
            leave_out: &["SIZE"],
            cut: &["MESSAGE"],
        });
        table.push(
            [
                "nightly-20261126120000",
                "Completed",
                "everything went as it should",
                "5m",
                "1.00 KiB",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        table
    }

    #[test]
    fn a_table_never_wraps_and_names_are_never_cut() {
        let whole = wide().render(true);
        assert_eq!(wide().render_within(true, Some(200)), whole);
        for width in 22..100 {
            let text = wide().render_within(true, Some(width));
            for line in text.lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
            assert!(text.contains("nightly-20261126120000"), "{text}");
        }
        assert_eq!(
            wide().render_within(true, Some(60)),
            "NAME                     STATUS      MESSAGE             AGE\n\
             nightly-20261126120000   Completed   everything went …   5m\n"
        );
        assert_eq!(wide().layout(true, Some(60)).left_out, 1);
    }

    #[test]
    fn what_is_wide_in_a_terminal_is_counted_as_wide() {
        let mut table = Table::new(&["NAME", "X"]);
        table.push(vec!["日本".into(), "a\nb".into()]);
        assert_eq!(table.render(true), "NAME   X\n日本   a b\n");
    }
}
