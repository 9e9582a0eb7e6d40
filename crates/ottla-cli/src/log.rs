//! `ottla log`: looks into the files of a data directory. It needs no broker, and changes nothing.

mod dump;
mod verify;

use clap::{Args, Subcommand};

use crate::connection::OutputFormat;
use crate::failure::{Exit, Failure};

pub use dump::DumpArguments;
pub use verify::VerifyArguments;

const LOG_EXIT_CODES: &str =
    "Exit codes: 0 all is well; 1 damage was found; 2 wrong usage, or something can't be read";

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = LOG_EXIT_CODES)]
pub struct LogArguments {
    /// Text for people, or JSON for programs
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t = OutputFormat::Table,
        global = true
    )]
    pub output: OutputFormat,
    #[command(subcommand)]
    pub command: LogCommand,
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Check a data directory, or one partition's directory in it, without changing anything
    Verify(VerifyArguments),
    /// Print what is in the files of a log, batch by batch and entry by entry
    Dump(DumpArguments),
}

pub(crate) fn run(arguments: &LogArguments) -> Result<(), Failure> {
    match &arguments.command {
        LogCommand::Verify(verify) => verify::run(verify, arguments.output),
        LogCommand::Dump(dump) => dump::run(dump, arguments.output),
    }
}

/// How a command ends that has found so much that is not as it was written.
fn outcome(problems: u64) -> Result<(), Failure> {
    match problems {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failed, "1 problem was found")),
        count => Err(Failure::new(Exit::Failed, format!("{count} problems were found"))),
    }
}
