//! Where the broker's own log lines go: standard error, as text or JSON, levels in words.

use std::io::{self, IsTerminal as _};

use ottla_config::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// Installs the log for the whole process. `OTTLA_LOG` (for example `ottla_broker=debug`) overrides `level`.
pub(crate) fn install(format: LogFormat, level: LogLevel) {
    let filter = EnvFilter::try_from_env("OTTLA_LOG").unwrap_or_else(|_| {
        // openraft's own steps are of no use to an operator.
        EnvFilter::new(format!("{},openraft=error", level.name()))
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
