//! A small table: columns as wide as they need, no borders, no wrapping.

use unicode_width::UnicodeWidthStr;

use super::{Output, Tone, visible};

/// Rows under headings. Cells are made visible when rendered; the last column is never padded.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
    empty: &'static str,
}

impl Table {
    /// A table with these headings, and what to say when it has no rows.
    pub fn new(head: &[&'static str], empty: &'static str) -> Table {
        Table { head: head.to_vec(), rows: Vec::new(), empty }
    }

    /// Adds a row; each cell takes the tone of its word.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) -> &mut Table {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| {
                    let word = cell.trim_start_matches(|c: char| !c.is_alphanumeric());
                    (Tone::of(word), cell)
                })
                .collect(),
        );
        self
    }

    /// The table as text.
    pub fn render(&self, output: &Output) -> String {
        if self.rows.is_empty() {
            return output.paint(Tone::Dim, self.empty);
        }
        let head: Vec<(Tone, String)> =
            self.head.iter().map(|name| (Tone::Strong, (*name).to_owned())).collect();
        let all: Vec<&Vec<(Tone, String)>> = std::iter::once(&head).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let width =
                    |row: &&Vec<(Tone, String)>| row.get(column).map_or(0, |(_, cell)| visible(cell).width());
                all.iter().map(width).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in all {
            let mut line = String::new();
            let last = row.len().saturating_sub(1);
            for (column, (tone, cell)) in row.iter().enumerate() {
                line.push_str(&output.paint(*tone, cell));
                if column != last {
                    let used = visible(cell).width();
                    line.push_str(
                        &" ".repeat(widths.get(column).copied().unwrap_or(0).saturating_sub(used) + 2),
                    );
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_seen() {
        let mut table = Table::new(&["HOST", "STATE"], "no agents");
        table.row(["web-1".into(), "connected".into()]);
        table.row(["漢字".into(), "away".into()]);
        table.row(["a\u{7}b".into(), "away".into()]);
        insta::assert_snapshot!(table.render(&Output::plain(Format::Table)), @r"
        HOST     STATE
        web-1    connected
        漢字     away
        a\u{7}b  away
        ");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::new(&["HOST"], "no agents").render(&Output::plain(Format::Table)), "no agents");
    }
}
