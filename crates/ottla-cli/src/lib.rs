//! The client side of the command line: topics, producing, consuming, groups, against any Kafka cluster. Shell.
//!
//! It knows the cluster only through `ottla-client`, and nothing of the broker. What works on files (`ottla log`, which
//! only reads, and `ottla topic adopt`) knows them only through `ottla-log`; what records say, through `ottla-records` and
//! `ottla-protocol`; how properties are called, from `ottla-config`.
//! The `ottla` binary puts [`ClientCommand`] beside `serve`, and hands it to [`main`].
//!
//! Results go to standard output and nothing else does; notes and errors go to standard error.

mod cluster;
mod config;
mod connection;
mod consume;
mod failure;
mod from;
mod group;
mod log;
mod output;
mod produce;
mod record_json;
mod template;
mod topic;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::Shell;

pub use cluster::{ClusterArguments, ClusterCommand, DemoArguments};
pub use config::{ConfigArguments, ConfigCommand};
pub use connection::{ConnectionArguments, OutputFormat};
pub use consume::{ConsumeArguments, IsolationArgument};
pub use failure::{EXIT_CODES, Exit, Failure};
pub use from::{Start, StartError};
pub use group::{
    DescribeGroupsArguments, GroupArguments, GroupCommand, ResetOffsetsArguments, TopicScope,
};
pub use log::{DumpArguments, LogArguments, LogCommand, VerifyArguments};
pub use produce::{AcksArgument, CompressionArgument, ProduceArguments};
pub use template::{Template, TemplateError};
pub use topic::{AdoptArguments, Before, CreateArguments, TopicArguments, TopicCommand};

/// What `ottla` does as a client.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, list, describe, alter and delete topics
    Topic(TopicArguments),
    /// Describe and change configuration while the cluster runs
    Config(ConfigArguments),
    /// Write lines of standard input to a topic, one record each
    Produce(ProduceArguments),
    /// Print records of a topic, and go on with new ones until interrupted
    Consume(ConsumeArguments),
    /// List, describe and delete groups, and choose where they go on reading
    Group(GroupArguments),
    /// Show the cluster: brokers, controller, feature levels; or run one to try things out
    Cluster(ClusterArguments),
    /// Check and print the files of a data directory; needs no broker
    Log(LogArguments),
    /// Print a script that completes `ottla`'s commands in a shell
    Completions(CompletionsArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla completions bash > /etc/bash_completion.d/ottla
  ottla completions zsh > ~/.zfunc/_ottla
  ottla completions fish > ~/.config/fish/completions/ottla.fish")]
pub struct CompletionsArguments {
    pub shell: Shell,
}

/// Carries a command out on a runtime of its own; the exit code is one of [`Exit`]'s.
/// `root` is the whole program's command line, which completions are made from.
#[must_use]
pub fn main(command: ClientCommand, root: clap::Command) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run(command, root));
            // A thread that is blocked on a pipe must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => Failure::from(error).report(),
    }
}

/// Like [`main`], inside of a runtime.
pub async fn run(command: ClientCommand, root: clap::Command) -> ExitCode {
    let result = match command {
        ClientCommand::Topic(arguments) => topic::run(arguments).await,
        ClientCommand::Config(arguments) => config::run(arguments).await,
        ClientCommand::Produce(arguments) => produce::run(arguments).await,
        ClientCommand::Consume(arguments) => consume::run(arguments).await,
        ClientCommand::Group(arguments) => group::run(arguments).await,
        ClientCommand::Cluster(arguments) => cluster::run(arguments).await,
        ClientCommand::Log(arguments) => log::run(&arguments),
        ClientCommand::Completions(arguments) => completions(&arguments, root),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn completions(arguments: &CompletionsArguments, mut root: clap::Command) -> Result<(), Failure> {
    let name = root.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, name, &mut script);
    output::write_out(&script)
}

#[cfg(test)]
mod tests;
