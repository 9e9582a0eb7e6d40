//! Where the broker's own log lines go: standard error, as text or JSON, levels in words.

use std::io::{self, IsTerminal as _};

use ottla_broker::LogLevels;
use ottla_config::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Installs the log for the whole process. `OTTLA_LOG` (for example `ottla_broker=debug`) overrides `level`.
pub(crate) fn install(format: LogFormat, level: LogLevel) -> LogLevels {
    // openraft's own steps are of no use to an operator.
    let configured = || format!("{},{OPENRAFT}", level.name());
    let from_environment = std::env::var("OTTLA_LOG").ok();
    let directives =
        from_environment.filter(|directives| filter(directives).is_ok()).unwrap_or_else(configured);
    let filter = filter(&directives).expect("it was tried, or is put together here");
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
    let filter = filter(directives).map_err(|error| error.to_string())?;
    handle.reload(filter).map_err(|error| error.to_string())
}

const OPENRAFT: &str = "openraft=error";

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(without_echoes(directives))
}

/// openraft calls it an error to be asked something once it has stopped, in an orderly stop, too. Why it has stopped is said
/// by itself elsewhere, and by whoever it has failed. Whoever wants more of openraft than errors gets all.
fn without_echoes(directives: &str) -> String {
    if directives.split(',').any(|it| it.trim() == OPENRAFT) {
        format!("{directives},openraft::raft::raft_inner=off")
    } else {
        directives.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openraft_says_of_its_stop_is_left_out_unless_somebody_wants_more_of_it() {
        let quiet = "info,openraft=error,openraft::raft::raft_inner=off";
        assert_eq!(without_echoes("info,openraft=error"), quiet);
        for asked in ["debug", "info,openraft=debug"] {
            assert_eq!(without_echoes(asked), asked);
        }
        assert!(filter("info,openraft=error").is_ok());
    }
}
