//! `ottla log verify`: what is not as it was written, and what the broker will do about it.

use std::path::PathBuf;

use clap::Args;
use ottla_log::verify::{Finding, Options, Report, VerifyError, Weight, verify};
use serde::Serialize;

use super::{LOG_EXIT_CODES, outcome};
use crate::connection::OutputFormat;
use crate::failure::{Exit, Failure};
use crate::output::{print_json, print_line, printable};

#[derive(Debug, Args)]
#[command(after_help = format!("Checks all batches and indexes, the snapshots of producers, and the text files. \
A broker may run on the directory: nothing is locked, and what it is just writing is told apart from damage.

Examples:
  ottla log verify ./ottla-data
  ottla log verify /var/lib/kafka/data --deep
  ottla log verify ./ottla-data/orders-0 --output json | jq '.findings[]'

{LOG_EXIT_CODES}"))]
pub struct VerifyArguments {
    /// A data directory, or the directory of one partition (TOPIC-N)
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Decompress the records, too, and read each of them
    #[arg(long)]
    pub deep: bool,
}

pub(super) fn run(arguments: &VerifyArguments, output: OutputFormat) -> Result<(), Failure> {
    let report = verify(&arguments.directory, Options { deep: arguments.deep });
    let report = report.map_err(|error| cannot_read(&error))?;
    match output {
        OutputFormat::Json => print_json(&ReportJson::from(&report))?,
        OutputFormat::Table => print_line(&text(&report))?,
    }
    let damage = report.findings.iter().filter(|it| it.weight == Weight::Damage);
    outcome(damage.count() as u64)
}

pub(super) fn cannot_read(error: &VerifyError) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(finding_text).collect();
    if report.in_use {
        lines.push("a broker is running on this directory".to_owned());
    } else if !report.clean {
        lines.push("not closed properly: the next start recovers".to_owned());
    }
    let counts = [
        counted(report.partitions, "partition", "partitions"),
        counted(report.segments, "segment", "segments"),
        counted(report.batches, "batch", "batches"),
        counted(report.records, "record", "records"),
        counted(report.bytes, "byte", "bytes"),
    ];
    lines.push(format!("checked: {}", counts.join(", ")));
    lines.join("\n")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn finding_text(finding: &Finding) -> String {
    let mut place = finding.path.display().to_string();
    if let Some(position) = finding.position {
        place.push_str(&format!(" byte {position}"));
    }
    if let Some(offsets) = &finding.offsets {
        place.push_str(&format!(" offsets {}..{}", offsets.start, offsets.end));
    }
    let weight = weight_name(finding.weight);
    let (what, next_start) = (printable(&finding.what), &finding.next_start);
    format!("{weight}: {}\n  {what}\n  next start: {next_start}", printable(&place))
}

const fn weight_name(weight: Weight) -> &'static str {
    match weight {
        Weight::Note => "note",
        Weight::Unfinished => "unfinished",
        Weight::Damage => "damage",
    }
}

#[derive(Serialize)]
struct ReportJson {
    damaged: bool,
    in_use: bool,
    closed_cleanly: bool,
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct FindingJson {
    weight: &'static str,
    file: String,
    position: Option<u64>,
    first_offset: Option<i64>,
    end_offset: Option<i64>,
    what: String,
    next_start: String,
}

impl From<&Report> for ReportJson {
    fn from(report: &Report) -> Self {
        let findings = report.findings.iter().map(|finding| FindingJson {
            weight: weight_name(finding.weight),
            file: finding.path.display().to_string(),
            position: finding.position,
            first_offset: finding.offsets.as_ref().map(|offsets| offsets.start.0),
            end_offset: finding.offsets.as_ref().map(|offsets| offsets.end.0),
            what: finding.what.clone(),
            next_start: finding.next_start.clone(),
        });
        Self {
            damaged: report.is_damaged(),
            in_use: report.in_use,
            closed_cleanly: report.clean,
            partitions: report.partitions,
            segments: report.segments,
            batches: report.batches,
            records: report.records,
            bytes: report.bytes,
            findings: findings.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::Offset;

    use super::*;

    #[test]
    fn a_finding_is_told_with_its_place_and_its_fate() {
        let finding = Finding {
            weight: Weight::Damage,
            path: "t-0/00000000000000000000.log".into(),
            position: Some(73),
            offsets: Some(Offset(1)..Offset(2)),
            what: "Record is corrupt".to_owned(),
            next_start: "kept".to_owned(),
        };
        let report = Report { findings: vec![finding], clean: true, ..Report::default() };
        assert_eq!(
            text(&report),
            "damage: t-0/00000000000000000000.log byte 73 offsets 1..2\n  Record is corrupt\n  next start: kept\n\
             checked: 0 partitions, 0 segments, 0 batches, 0 records, 0 bytes"
        );
    }

    #[test]
    fn one_of_a_kind_is_told_as_one() {
        let (partitions, segments, batches, records, bytes) = (1, 1, 1, 2, 73);
        let counts = Report { partitions, segments, batches, records, bytes, ..Report::default() };
        let text = text(&Report { clean: true, ..counts });
        assert_eq!(text, "checked: 1 partition, 1 segment, 1 batch, 2 records, 73 bytes");
    }

    #[test]
    fn what_is_no_log_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let arguments = VerifyArguments { directory: directory.path().to_owned(), deep: false };
        let failure = run(&arguments, OutputFormat::Table).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }
}
