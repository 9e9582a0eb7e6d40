//! The options that every command which talks to a cluster has.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use ottla_client::{Client, ClientOptions};

use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub struct ConnectionArguments {
    /// Brokers to ask first, separated by commas; they name the others
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT",
        env = "OTTLA_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        global = true
    )]
    pub bootstrap: Vec<String>,
    /// How long to try before giving up, such as 500ms, 10s, 2m; a bare number is seconds
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = parse_duration,
        global = true
    )]
    pub timeout: Duration,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Table,
    Json,
}

impl ConnectionArguments {
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            client_id: "ottla-cli".to_owned(),
            connect_timeout: self.timeout.min(CONNECT_TIMEOUT),
            request_timeout: self.timeout,
            timeout: self.timeout,
        };
        Ok(Client::connect(&self.bootstrap, options).await?)
    }

    pub(crate) fn wants_json(&self) -> bool {
        self.output == OutputFormat::Json
    }
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let written = || text.parse::<SignedDuration>().ok()?.try_into().ok();
    seconds
        .or_else(written)
        .filter(|duration: &Duration| !duration.is_zero())
        .ok_or_else(|| "write a duration above zero, such as 500ms, 10s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0", "0s", "-1s", "x"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
