//! Standard output's side of `ottla consume`.
//!
//! A thread formats and writes, because a write to a pipe that nobody empties cannot be called
//! off: however long it blocks, an interrupt still ends the command.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ottla_client::{ConsumedRecord, Receipt};
use tokio::sync::{mpsc, oneshot};

use super::{ANSWERS_MAX, ConsumeArguments};
use crate::record_json::RecordJson;
use crate::template::Template;

const WRITE_BUFFER_LEN: usize = 128 << 10;

/// Records on their way to standard output.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<ConsumedRecord>,
    /// Handed back once the records are written.
    pub(super) receipt: Option<Receipt>,
    pub(super) wanted: Wanted,
}

/// Shared by the pages of one assignment, which others may get before all of its pages are printed.
#[derive(Debug, Clone)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Wanted {
    /// Pages that are not begun yet are passed over from now on.
    pub(super) fn give_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Page {
    /// Whoever prints it, nobody waits for it.
    pub(super) fn of(records: Vec<ConsumedRecord>) -> Self {
        Self { records, receipt: None, wanted: Wanted::default() }
    }
}

/// The first channel takes pages, the second hands back receipts, the third tells when all is written.
pub(super) fn print_in_background(
    arguments: &ConsumeArguments,
) -> (mpsc::Sender<Page>, mpsc::UnboundedReceiver<Receipt>, oneshot::Receiver<io::Result<()>>) {
    let (pages, to_print) = mpsc::channel(ANSWERS_MAX);
    let (write, written) = mpsc::unbounded_channel();
    let (done, printed) = oneshot::channel();
    let style = if arguments.json || arguments.connection.wants_json() {
        Style::Json
    } else {
        let template = arguments.format.clone();
        Style::Text(template.unwrap_or_else(Template::value_lines), arguments.null.clone())
    };
    let topic: Arc<str> = arguments.topic.as_str().into();
    std::thread::spawn(move || {
        let out = BufWriter::with_capacity(WRITE_BUFFER_LEN, io::stdout());
        let result = match print(out, &topic, &style, to_print, &write) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        };
        // Nobody may be waiting any more.
        let _ = done.send(result);
    });
    (pages, written, printed)
}

#[derive(Debug)]
enum Style {
    Json,
    Text(Template, String),
}

/// Flushes whenever no more records are at hand, so that a follower sees each at once. Receipts are handed back after
/// that, never before.
fn print(
    mut out: impl Write,
    topic: &str,
    style: &Style,
    mut pages: mpsc::Receiver<Page>,
    written: &mpsc::UnboundedSender<Receipt>,
) -> io::Result<()> {
    let mut receipts = Vec::new();
    while let Some(page) = pages.blocking_recv() {
        if page.wanted.holds() {
            write_page(&mut out, topic, style, &page.records)?;
            receipts.extend(page.receipt);
        }
        if pages.is_empty() {
            out.flush()?;
            // Nobody may want them any more.
            receipts.drain(..).for_each(|receipt| drop(written.send(receipt)));
        }
    }
    out.flush()
}

fn write_page(
    out: &mut impl Write,
    topic: &str,
    style: &Style,
    records: &[ConsumedRecord],
) -> io::Result<()> {
    for record in records {
        match style {
            Style::Text(template, null) => template.write(out, topic, record, null)?,
            Style::Json => {
                serde_json::to_writer(&mut *out, &RecordJson { topic, record })?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_json::tests::record;

    fn printed_pages(style: &Style, printed: Vec<Page>) -> String {
        let (pages, to_print) = mpsc::channel(9);
        printed.into_iter().for_each(|page| pages.try_send(page).unwrap());
        drop(pages);
        let (written, _) = mpsc::unbounded_channel();
        let mut out = Vec::new();
        print(&mut out, "orders", style, to_print, &written).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn printed(style: &Style) -> String {
        printed_pages(style, vec![Page::of(vec![record(), record()])])
    }

    fn offsets() -> Style {
        Style::Text("%o".parse().unwrap(), String::new())
    }

    #[test]
    fn records_are_printed_in_order_one_after_the_other() {
        let template = "%o %v".parse().unwrap();
        assert_eq!(printed(&Style::Text(template, String::new())), "42 hello\n42 hello\n");
    }

    #[test]
    fn json_is_one_record_a_line() {
        let json = printed(&Style::Json);
        assert_eq!(json.lines().count(), 2);
        assert!(json.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    }

    #[test]
    fn a_page_that_nobody_wants_any_more_is_passed_over() {
        let (kept, given_up) = (Page::of(vec![record()]), Page::of(vec![record(), record()]));
        given_up.wanted.give_up();
        assert_eq!(printed_pages(&offsets(), vec![given_up, kept]), "42\n");
    }
}
