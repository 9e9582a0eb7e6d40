//! Starts Ottla itself: the release build of this checkout (shell).

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::broker::{Launch, Launched};
use crate::process::{Process, run_showing};
use crate::workspace;

const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Starts a broker and waits for its ready line.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Launched> {
    let mut command = Command::new(binary()?);
    command.arg("serve");
    if !launch.settings.iter().any(|(name, _)| name == "log.dirs") {
        command.arg("--data-dir").arg(launch.data_directory);
    }
    command.args(["--listen", launch.address.unwrap_or("127.0.0.1:0")]);
    // Several brokers run at once; whoever wants a fixed port says so in the settings.
    command.args(["--set", "ottla.http.listener=127.0.0.1:0"]);
    for (name, value) in launch.settings {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    let mut process = Process::spawn("Ottla", command, launch.log)?;
    let (address, ready_after) = process.wait_for_line(launch.limit, address_in)?;
    Ok(Launched { process, address, ready_after })
}

/// The binary under test: `OTTLA_BINARY`, else a release build made once per run.
pub(crate) fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| match std::env::var_os("OTTLA_BINARY") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build().map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--quiet", "--release", "--package", "ottla", "--bin", "ottla"]);
    build_with(command, BUILD_LIMIT)
}

/// Runs a build, and gives the program that came of it.
pub(crate) fn build_with(mut command: Command, limit: Duration) -> Result<PathBuf> {
    command.arg("--message-format=json-render-diagnostics");
    let mut executable = None;
    let status = run_showing(command, limit, |line| {
        executable = executable_in(line).or_else(|| executable.take());
    })?;
    if !status.success() {
        bail!("the build of ottla failed");
    }
    executable.context("cargo named no executable")
}

fn executable_in(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

/// The loopback address in the ready line, whatever words surround it.
fn address_in(line: &str) -> Option<String> {
    let start = line.find("127.0.0.1:")?;
    let address = line.get(start..)?;
    let after_host = "127.0.0.1:".len();
    let digits = address.get(after_host..)?.bytes().take_while(u8::is_ascii_digit).count();
    let port: u16 = address.get(after_host..after_host + digits)?.parse().ok()?;
    (port != 0).then(|| format!("127.0.0.1:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_any_ready_line() {
        let line = "ottla 0.1.0 ready listener=127.0.0.1:41234 data=./ottla-data 12 ms";
        assert_eq!(address_in(line).as_deref(), Some("127.0.0.1:41234"));
        assert_eq!(
            address_in("listening on 127.0.0.1:9, data in x").as_deref(),
            Some("127.0.0.1:9")
        );
    }

    #[test]
    fn a_line_without_a_bound_port_is_not_the_ready_line() {
        assert_eq!(address_in("binding 127.0.0.1:0"), None);
        assert_eq!(address_in("starting"), None);
    }
}
