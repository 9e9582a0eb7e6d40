//! The `ottla` binary: a broker (`serve`), and the command line that talks to any Kafka cluster.

mod bootstrap;
mod configuration;
mod data_directory;
mod foreign;
mod format;
mod forming;
mod initial_controllers;
mod joining;
mod logging;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use ottla_cli::ClientCommand;

/// Produces allocate and free from several threads; glibc's allocator keeps several times as much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ottla: event streaming that speaks Kafka's protocol, in one binary
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Examples:
  ottla serve                                   a broker on 127.0.0.1:9092, data in ./ottla-data
  ottla topic create orders --partitions 3
  echo 'order 1 placed' | ottla produce orders
  ottla consume orders --from beginning")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Format(format::FormatArguments),
    /// Print a new random id, for a cluster or a directory
    RandomUuid,
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Format(arguments) => format::run(&arguments),
        Command::RandomUuid => format::random_uuid(),
        Command::Client(command) => ottla_cli::main(command, Arguments::command()),
    }
}
