//! Tables as kubectl prints them: upper-case headers, columns three spaces apart, nothing after the last one.

/// kubectl's space between columns.
const PADDING: usize = 3;
/// kubectl's least width of a column, padding included.
const MIN_WIDTH: usize = 6;

/// Rows under a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&'static str]) -> Table {
        Table {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column; an empty cell prints as `<none>`.
    pub fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.header.len());
        let cell = |cell: String| {
            if cell.is_empty() {
                "<none>".into()
            } else {
                cell
            }
        };
        self.rows.push(row.into_iter().map(cell).collect());
    }

    /// The table as text, each line with its newline.
    pub fn render(&self, with_header: bool) -> String {
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        let lines: Vec<&Vec<String>> = with_header
            .then_some(&header)
            .into_iter()
            .chain(&self.rows)
            .collect();
        let width = |column: usize| {
            let longest = lines.iter().map(|line| line[column].chars().count()).max();
            (longest.unwrap_or(0) + PADDING).max(MIN_WIDTH)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut printed = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                printed.push_str(&format!("{cell:width$}"));
            }
            text.push_str(printed.trim_end());
            text.push('\n');
        }
        text
    }
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
}
