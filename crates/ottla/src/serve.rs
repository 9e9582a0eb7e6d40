//! `ottla serve`: reads the configuration, starts the node, runs it until a signal.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use ottla_broker::{LogLevels, Node, NodeOptions};
use ottla_config::{Loaded, Severity, Sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, error, info, warn};

use crate::{data_directory, logging};

/// Start a broker
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla serve                                       127.0.0.1:9092, data in ./ottla-data
  ottla serve --config server.properties            with Kafka's own configuration file
  ottla serve --listen 0.0.0.0:9092 --set advertised.listeners=PLAINTEXT://broker.example:9092
  ottla serve --ephemeral --listen 127.0.0.1:0      for a test: a free port, data gone afterwards

Every property can also come from the environment: KAFKA_NUM_PARTITIONS=3 sets num.partitions.
The command line counts before the environment, the environment before the file.

Exit codes: 0 stopped by a signal, 1 could not start or broke, 2 wrong arguments or configuration.")]
pub(crate) struct ServeArguments {
    /// Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep the data [default: log.dirs, or ./ottla-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients connect; port 0 picks a free port [default: listeners, or 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Set one property, such as num.partitions=3
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Keep the data in a temporary directory that is gone afterwards
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Refuse a property that nobody knows, instead of warning of it
    #[arg(long)]
    strict_config: bool,
}

/// Kafka's exit code for a configuration that can't be used is 1; shells expect 2 for wrong usage.
const EXIT_USAGE: u8 = 2;

pub(crate) fn run(arguments: ServeArguments) -> ExitCode {
    let started = Instant::now();
    let temporary = match arguments.ephemeral.then(tempfile::tempdir).transpose() {
        Ok(temporary) => temporary,
        Err(error) => return fail(&format!("no temporary directory: {error}"), 1),
    };
    let loaded = match load(&arguments, temporary.as_ref().map(tempfile::TempDir::path)) {
        Ok(loaded) => loaded,
        Err(error) => return fail(&format!("{error:#}"), EXIT_USAGE),
    };
    let log_levels = logging::install(loaded.config.log_format, loaded.config.log_level);
    if let Err(error) = ottla_env::sys::disable_huge_pages() {
        debug!(%error, "huge pages stay as they are");
    }
    report_notices(&loaded);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ottla")
        .build()
        .context("the threads can't be started")
        .and_then(|runtime| runtime.block_on(serve(loaded, log_levels, started)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn load(arguments: &ServeArguments, temporary: Option<&Path>) -> anyhow::Result<Loaded> {
    let file = match &arguments.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("can't read the configuration file {}", path.display()))?;
            Some((path.display().to_string(), text))
        }
    };
    let data_dir = temporary.or(arguments.data_dir.as_deref());
    let sources = Sources {
        file,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        set: arguments.set.clone(),
        listen: arguments.listen.clone(),
        data_dir: data_dir.map(|path| path.display().to_string()),
        strict: arguments.strict_config,
    };
    ottla_config::load(&sources).map_err(|rejected| anyhow::anyhow!("{rejected}"))
}

fn report_notices(loaded: &Loaded) {
    for notice in &loaded.notices {
        match notice.severity {
            Severity::Warn => warn!(origin = %notice.origin, "{}", notice.message),
            Severity::Info => info!(origin = %notice.origin, "{}", notice.message),
            Severity::Debug => debug!(origin = %notice.origin, "{}", notice.message),
        }
    }
}

async fn serve(loaded: Loaded, log_levels: LogLevels, started: Instant) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let config = loaded.config;
    let opened = data_directory::open(&config.log_dirs, &config.metadata_log_dir, config.node_id)?;
    let log_dirs: Vec<_> = config.log_dirs.iter().map(|path| path.display().to_string()).collect();
    let options = NodeOptions {
        directories: opened.directories,
        cluster_id: opened.cluster_id,
        config,
        settings: loaded.settings,
        log_levels,
    };
    let node = tokio::select! {
        node = Node::start(options) => node?,
        () = signals.next() => return Ok(()),
    };
    announce(&node, &log_dirs.join(", "), started)?;
    let failure = tokio::select! {
        () = signals.next() => None,
        reason = node.failed() => Some(reason),
    };
    match &failure {
        None => info!("stopping: a second signal stops at once"),
        Some(reason) => error!(%reason, "stopping"),
    }
    tokio::select! {
        // What watches over the process must see that nobody asked it to stop.
        stopped = node.stop() => stopped.and_then(|()| failure.map_or(Ok(()), |why| bail!(why))),
        () = signals.next() => {
            warn!("stopped at once, as a second signal asked; the next start recovers the logs");
            std::process::exit(1)
        }
    }
}

/// The one line on standard output, for people and for scripts that wait for it.
fn announce(node: &Node, directories: &str, started: Instant) -> anyhow::Result<()> {
    let mut listeners: Vec<_> = node.listeners().iter().map(ToString::to_string).collect();
    listeners.extend(node.http_address().map(|address| format!("http://{address}")));
    writeln!(
        std::io::stdout().lock(),
        "Ottla {} ready in {} ms: listening on {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        listeners.join(", "),
        directories,
    )?;
    Ok(())
}

/// SIGTERM and SIGINT, the polite ways to ask a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "ottla: {message}");
    ExitCode::from(code)
}
