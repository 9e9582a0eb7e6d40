//! `ottla log dump`: the files of a log, batch by batch and entry by entry.
//!
//! A line of text has the names that Kafka's `kafka-dump-log.sh` gives the fields; a line of JSON has those that the
//! other commands' JSON would have. Both come from one list of fields ([`line::Line`]), so that neither says less.

mod internal;
mod line;
mod lines;

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use ottla_log::dump::{DumpError, DumpFile, Entry, Kind, files};

use super::{LOG_EXIT_CODES, outcome};
use crate::connection::OutputFormat;
use crate::failure::{Exit, Failure, note};
use crate::output::printable;
use internal::Internal;
use line::Line;

#[derive(Debug, Args)]
#[command(after_help = format!("Reads segments (.log), indexes (.index, .timeindex, .txnindex), snapshots of \
producers (.snapshot) and of the metadata (.checkpoint), leader-epoch-checkpoint, partition.metadata, and the \
checkpoints of a data directory; also files that wait to be removed (.deleted, .cleaned, .swap). Damage is shown \
where it lies, and the reading goes on behind it. A broker may run on the directory: nothing is locked.

With --records those of __consumer_offsets, __transaction_state, __share_group_state and __cluster_metadata are \
decoded, in Ottla's own notation; in a file elsewhere they are taken for an application's.

Text has one line for each batch or entry, with the names of Kafka's kafka-dump-log.sh; records begin with \"|\". \
JSON is one object a line.

Examples:
  ottla log dump ./ottla-data/orders-0
  ottla log dump ./ottla-data/orders-0/00000000000000000000.log --records
  ottla log dump /var/lib/kafka/data/__consumer_offsets-7 --records
  ottla log dump ./ottla-data/recovery-point-offset-checkpoint
  ottla log dump ./ottla-data/orders-0 -o json | jq 'select(.type == \"batch\") | .size'

{LOG_EXIT_CODES}"))]
pub struct DumpArguments {
    /// A file of a log, or the directory of one partition (TOPIC-N) with all that is in it
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Print the records of each batch, too
    #[arg(long)]
    pub records: bool,
}

pub(super) fn run(arguments: &DumpArguments, output: OutputFormat) -> Result<(), Failure> {
    run_to(arguments, output, &mut BufWriter::new(io::stdout().lock()))
}

fn run_to(
    arguments: &DumpArguments,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    outcome(dump(arguments, output, out)?)
}

/// Prints all of it, and counts what is damaged. That nobody reads on (`| head`) ends it, and is no failure.
fn dump(
    arguments: &DumpArguments,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u64, Failure> {
    let mut files_to_print = Vec::new();
    for path in &arguments.paths {
        files_to_print.extend(files(path).map_err(cannot_read)?);
    }
    let mut printer = Printer { output, records: arguments.records, out, damaged: 0, error: None };
    for file in &files_to_print {
        if printer.file(file)?.is_break() {
            break;
        }
    }
    printer.finish()
}

fn cannot_read(error: impl Into<DumpError>) -> Failure {
    let error = error.into();
    let failure = Failure::new(Exit::Usage, error.to_string());
    match error {
        DumpError::NotALogDirectory(_) => {
            failure.with_cure("Name a TOPIC-N directory in it; the shell's * names several.")
        }
        DumpError::UnknownFile(_) | DumpError::Storage(_) => failure,
    }
}

struct Printer<'a> {
    output: OutputFormat,
    records: bool,
    out: &'a mut dyn Write,
    damaged: u64,
    /// Why nothing more is written.
    error: Option<io::Error>,
}

impl Printer<'_> {
    fn file(&mut self, file: &DumpFile) -> Result<ControlFlow<()>, Failure> {
        if file.kind == Kind::Other {
            note(&format!("passed over, no file of a log: {}", file.path.display()));
            return Ok(ControlFlow::Continue(()));
        }
        let name = file.path.display().to_string();
        if self.output == OutputFormat::Table {
            let head = format!("Dumping {}", printable(&name));
            if self.write(&head).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let internal = Internal::of(file.partition.as_ref().map(|it| &*it.topic));
        let read = file.read(&mut |entry| self.entry(&name, internal, entry));
        read.map_err(cannot_read)
    }

    fn entry(
        &mut self,
        name: &str,
        internal: Option<Internal>,
        entry: Entry<'_>,
    ) -> ControlFlow<()> {
        self.line(name, &lines::of_entry(&entry))?;
        let Entry::Batch { batch, is_valid, .. } = entry else {
            return ControlFlow::Continue(());
        };
        if !self.records {
            return ControlFlow::Continue(());
        }
        lines::of_records(batch, is_valid, internal, &mut |line| self.line(name, &line))
    }

    fn line(&mut self, name: &str, line: &Line) -> ControlFlow<()> {
        self.damaged += u64::from(line.is_damage);
        match self.output {
            OutputFormat::Table => self.write(&line.text()),
            OutputFormat::Json => match line.json(name) {
                Ok(json) => self.write(&json),
                Err(error) => self.stop(error.into()),
            },
        }
    }

    fn write(&mut self, line: &str) -> ControlFlow<()> {
        match writeln!(self.out, "{line}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => self.stop(error),
        }
    }

    fn stop(&mut self, error: io::Error) -> ControlFlow<()> {
        self.error = Some(error);
        ControlFlow::Break(())
    }

    fn finish(self) -> Result<u64, Failure> {
        match self.error.map_or_else(|| self.out.flush(), Err) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(self.damaged),
        }
    }
}

#[cfg(test)]
mod tests;
