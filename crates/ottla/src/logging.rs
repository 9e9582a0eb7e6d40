//! Where the broker's own log lines go: standard error, as text or JSON, levels in words.

use std::io::{self, IsTerminal as _};

use ottla_broker::LogLevels;
use ottla_config::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// Installs the log for the whole process. `OTTLA_LOG` (for example `ottla_broker=debug`) overrides `level`.
pub(crate) fn install(format: LogFormat, level: LogLevel) -> LogLevels {
    // openraft's own steps are of no use to an operator.
    let configured = || format!("{},openraft=error", level.name());
    let from_environment = std::env::var("OTTLA_LOG").ok();
    let directives = from_environment
        .filter(|directives| EnvFilter::try_new(directives).is_ok())
        .unwrap_or_else(configured);
    let filter = EnvFilter::new(&directives);
    // That nobody reads the lines any more is no reason to stop: saying so on the same stream would be a panic.
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal());
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevels::new(&directives, Box::new(move |directives| reload(&handle, directives)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LogLevels::new(&directives, Box::new(move |directives| reload(&handle, directives)))
        }
    }
}

fn reload<S>(
    handle: &tracing_subscriber::reload::Handle<EnvFilter, S>,
    directives: &str,
) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    handle.reload(filter).map_err(|error| error.to_string())
}
