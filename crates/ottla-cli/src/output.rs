//! Standard output: tables for people, JSON for programs, and quiet when the reader has gone away.

use std::io::{self, Write};
use std::os::fd::AsFd as _;

use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::failure::Failure;

/// Writes all of it. That nobody reads on (`| head`) is no failure.
pub(crate) fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Completes when the reader of a pipe has gone away, which a command that has nothing to write would not notice. Never
/// where standard output is a file.
pub(crate) async fn reader_gone() {
    // Unchecked, since making the pipe non-blocking would do so for every program that shares it. Only its state is looked
    // at, and the operating system watches no files.
    let out = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    let Ok(out) = out else { return std::future::pending().await };
    if out.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    write_out(format!("{line}\n").as_bytes())
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    print_line(&json)
}

/// Columns with two spaces between them and no lines, so that `awk` can read them, too.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let head = head.map(str::to_owned);
    let mut widths = [0; N];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&head).chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

/// Numbers with commas between them.
pub(crate) fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// The text, or a dash for what is not known.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Text that strangers chose, as a terminal may show it: control characters are escaped.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |character: char| {
        let visible = (!character.is_control()).then_some(character);
        visible.into_iter().chain(character.escape_default().filter(move |_| visible.is_none()))
    };
    text.chars().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_columns_without_lines() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table(["TOPIC", "N"], vec![row("orders", "3"), row("a", "12")]);
        assert_eq!(text, "TOPIC   N\norders  3\na       12");
    }

    #[test]
    fn strangers_cannot_control_the_terminal() {
        assert_eq!(printable("größer \u{1b}[31m\n"), "größer \\u{1b}[31m\\n");
    }
}
