//! Tables for people: columns as wide as they need to be, colours on a terminal alone.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use unicode_width::UnicodeWidthStr;

use crate::printable::is_control;

/// A cell that is longer is cut, so that one text does not push all others out of sight.
const MAX_CELL_WIDTH: usize = 80;

/// How a cell is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// Beside the point.
    Dim,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A cell's text and colour.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A coloured cell.
    pub(super) fn new(text: impl fmt::Display, tone: Tone) -> Self {
        Self { text: printable(&text.to_string(), MAX_CELL_WIDTH), tone }
    }

    /// martd's own words at the end of a row, which push nothing out of sight and are not cut.
    pub(super) fn remark(text: &str) -> Self {
        Self { text: printable(text, usize::MAX), tone: Tone::Plain }
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(super) struct TextTable {
    /// Each with whether its column is of numbers, which are aligned by their last digit.
    headings: Vec<(String, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl TextTable {
    /// A table with these headings, of which some are of numbers.
    pub(super) fn new<S: AsRef<str>>(
        headings: impl IntoIterator<Item = S>,
        numbers: &[usize],
    ) -> Self {
        let headings = headings.into_iter().enumerate().map(|(column, name)| {
            (printable(name.as_ref(), MAX_CELL_WIDTH), numbers.contains(&column))
        });
        Self { headings: headings.collect(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The table as text, every row a line.
    pub(super) fn render(&self, colours: bool) -> String {
        // Nothing stands behind the last column, so its rule is as wide as others may be at most.
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].text.width());
                let widest = cells.chain([self.headings[column].0.width()]).max().unwrap_or(0);
                widest.min(MAX_CELL_WIDTH + 1)
            })
            .collect();
        let mut out = String::new();
        let headings = self.headings.iter().map(|(name, _)| (name.as_str(), Some("1")));
        self.line(&mut out, &widths, headings, colours);
        let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        self.line(&mut out, &widths, rules.iter().map(|rule| (rule.as_str(), Some("2"))), colours);
        for row in &self.rows {
            let cells = row.iter().map(|cell| (cell.text.as_str(), cell.tone.code()));
            self.line(&mut out, &widths, cells, colours);
        }
        out
    }

    fn line<'c>(
        &self,
        out: &mut String,
        widths: &[usize],
        cells: impl Iterator<Item = (&'c str, Option<&'static str>)>,
        colours: bool,
    ) {
        let begin = out.len();
        for (column, (text, code)) in cells.enumerate() {
            let fill = " ".repeat(widths[column].saturating_sub(text.width()));
            let (before, after) = if self.headings[column].1 { (&*fill, "") } else { ("", &*fill) };
            out.push_str(if column == 0 { "" } else { "  " });
            out.push_str(before);
            match code.filter(|_| colours) {
                Some(code) => {
                    let _ = write!(out, "\x1b[{code}m{text}\x1b[0m");
                }
                None => out.push_str(text),
            }
            out.push_str(after);
        }
        let end = out[begin..].trim_end_matches(' ').len();
        out.truncate(begin + end);
        out.push('\n');
    }
}

/// Whether standard output is a terminal whose user wants colours (<https://no-color.org>).
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Text that cannot move the cursor or change the terminal, in one line of at most so many characters.
pub(super) fn printable(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut width = 0;
    for c in text.chars() {
        width += 1;
        if width > most {
            out.push('…');
            break;
        }
        if is_control(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_by_their_last_digit() {
        let mut table = TextTable::new(["name", "n"], &[1]);
        table.row(vec!["日本".into(), 7.into()]);
        table.row(vec![Cell::new("x", Tone::Bad), 1_000.into()]);
        assert_eq!(table.render(false), "name     n\n────  ────\n日本     7\nx     1000\n");
        assert!(table.render(true).contains("\x1b[31mx\x1b[0m     1000\n"));
    }

    #[test]
    fn what_a_mart_holds_cannot_take_over_the_terminal() {
        let mut table = TextTable::new(["a"], &[]);
        table.row(vec!["\x1b]0;title\x07\nb\u{202e}".into()]);
        let text = table.render(false);
        assert!(text.contains(r"\u{1b}]0;title\u{7}\nb\u{202e}"), "{text}");
        let mut long = TextTable::new(["a"], &[]);
        long.row(vec!["y".repeat(1_000).into()]);
        assert!(long.render(false).len() < 700);
    }
}
