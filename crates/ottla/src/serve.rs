//! `ottla serve`: reads the configuration, starts the node, runs it until a signal.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use ottla_base::BrokerId;
use ottla_broker::{InitialVoter, LogLevels, Node, NodeOptions};
use ottla_config::{BrokerConfig, Formation, Formatted, Loaded, Severity, Sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::configuration::{self, ConfigurationArguments};
use crate::data_directory::{self, Opened, Stamp, Survey};
use crate::forming::network::{Answering, Configured};
use crate::forming::{self, NodeDirectories, Standing};
use crate::joining::{self, Joined};
use crate::logging;

/// Start a broker
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla serve                                       127.0.0.1:9092, data in ./ottla-data
  ottla serve --config server.properties            with Kafka's own configuration file
  ottla serve --listen 0.0.0.0:9092 --set advertised.listeners=PLAINTEXT://broker.example:9092
  ottla serve --ephemeral --listen 127.0.0.1:0      for a test: a free port, data gone afterwards

A cluster of three, each command on a machine of its own:
  ottla serve --listen a.example:9092
  ottla serve --listen b.example:9092 --join a.example:9092
  ottla serve --listen c.example:9092 --join a.example:9092
From their second start on none of them needs --join.

Every property can also come from the environment: KAFKA_NUM_PARTITIONS=3 sets num.partitions.
The command line counts before the environment, the environment before the file.

Exit codes: 0 stopped by a signal, 1 could not start or broke, 2 wrong arguments or configuration.")]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    configuration: ConfigurationArguments,
    /// Where clients connect; port 0 picks a free port [default: listeners, or 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Join the cluster of the node at this address, as a new node of it; may be given again, or as a list with commas
    #[arg(long, value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Keep the data in a temporary directory that is gone afterwards
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Stop when standard input ends: with the process that holds the other end, however that one ends
    #[arg(long)]
    until_stdin_ends: bool,
}

/// Kafka's exit code for a configuration that can't be used is 1; shells expect 2 for wrong usage.
const EXIT_USAGE: u8 = 2;

pub(crate) fn run(arguments: ServeArguments) -> ExitCode {
    let started = Instant::now();
    let temporary = match arguments.ephemeral.then(tempfile::tempdir).transpose() {
        Ok(temporary) => temporary,
        Err(error) => return fail(&format!("no temporary directory: {error}"), 1),
    };
    let stdin = arguments.until_stdin_ends;
    let (sources, loaded) = match load(arguments, temporary.as_ref().map(tempfile::TempDir::path)) {
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
        .and_then(|runtime| {
            let stdin = stdin.then(end_of_stdin);
            runtime.block_on(serve(sources, loaded, log_levels, started, stdin))
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&told(&error), 1),
    }
}

/// All causes of an error, but for those that the one before has told with itself.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

fn load(arguments: ServeArguments, temporary: Option<&Path>) -> anyhow::Result<(Sources, Loaded)> {
    let given = configuration::sources(&arguments.configuration)?;
    let temporary = temporary.map(|path| path.display().to_string());
    let mut sources = Sources {
        data_dir: temporary.or(given.data_dir),
        listen: arguments.listen,
        join: arguments.join,
        ..given
    };
    let loaded = configuration::load(&mut sources)?;
    Ok((sources, loaded))
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

async fn serve(
    sources: Sources,
    loaded: Loaded,
    log_levels: LogLevels,
    started: Instant,
    stdin: Option<oneshot::Receiver<()>>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new(stdin)?;
    let prepared = tokio::select! {
        prepared = prepare(sources, loaded) => prepared?,
        () = signals.first() => return Ok(()),
    };
    let Prepared { loaded: Loaded { config, settings, .. }, opened } = prepared;
    let initial_voters = initial_voters(&config, &opened);
    let log_dirs: Vec<_> = config.log_dirs.iter().map(|path| path.display().to_string()).collect();
    let options = NodeOptions {
        directories: opened.directories,
        cluster_id: opened.cluster_id,
        initial_voters,
        levels: opened.levels,
        config,
        settings,
        log_levels,
    };
    let node = tokio::select! {
        node = Node::start(options) => node?,
        () = signals.first() => return Ok(()),
    };
    announce(&node, &log_dirs.join(", "), started);
    let failure = tokio::select! {
        () = signals.first() => None,
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

/// What a node is started with.
struct Prepared {
    loaded: Loaded,
    opened: Opened,
}

/// Finds out which cluster this node belongs to, and formats what is empty.
async fn prepare(sources: Sources, loaded: Loaded) -> anyhow::Result<Prepared> {
    let to_format = configuration::format_command(&sources);
    let survey = data_directory::survey(&loaded.config, &to_format)?;
    if survey.standing() == Standing::Empty && !sources.join.is_empty() {
        return join(sources, &loaded.config).await;
    }
    let cluster_id = cluster_id(&sources, &loaded.config, &survey).await?;
    // Agreeing with others has formatted what was empty.
    let survey = data_directory::survey(&loaded.config, &to_format)?;
    let opened = survey.open(&Stamp::of(&cluster_id))?;
    Ok(Prepared { loaded, opened })
}

/// Joins a cluster, as the node that it says that this one is.
async fn join(mut sources: Sources, config: &BrokerConfig) -> anyhow::Result<Prepared> {
    let Joined { cluster_id, node_id, controllers } = joining::join(config, ASKING_PAUSE).await?;
    let is_id_given = config.node_id != BrokerId::NONE;
    sources.formatted = Some(Formatted {
        path: config.metadata_log_dir.display().to_string(),
        node_id: node_id.0,
        joined: Some(controllers.clone()),
    });
    let loaded = configuration::load_as_given(&sources)?;
    let stamp = Stamp { joined: Some(&controllers), ..Stamp::of(&cluster_id) };
    let to_format = configuration::format_command(&sources);
    let opened = data_directory::survey(&loaded.config, &to_format)?.open(&stamp)?;
    say_joined(&cluster_id, node_id, is_id_given);
    Ok(Prepared { loaded, opened })
}

/// A node that has lost its disk and comes without its id is another node to the cluster, which waits for the lost one.
fn say_joined(cluster_id: &str, node_id: BrokerId, is_id_given: bool) {
    if is_id_given {
        info!(
            "the data directories were empty: formatted as node {node_id} of cluster {cluster_id}"
        );
    } else {
        info!(
            "the data directories were empty: formatted as a new node, {node_id}, of cluster {cluster_id}. If this was a node \
             of it that has lost its disk, let it be that one again: stop it, empty its directories, and start it with \
             --join and --set node.id= its old id"
        );
    }
}

/// The cluster that this node's directories belong to. Directories that are all empty are formatted at once only where
/// nobody else could know of a cluster, and by agreement where the properties name all who have to agree.
async fn cluster_id(
    sources: &Sources,
    config: &BrokerConfig,
    survey: &Survey,
) -> anyhow::Result<String> {
    if let Some(own) = config.own_voter() {
        forming::network::check_unique(own).await?;
    }
    match (survey.standing(), config.formation()) {
        (Standing::Formed(id), _) if config.joins => {
            let has_joined = |it: &Formatted| it.joined.is_some();
            match joining::check_cluster(config, &id).await {
                // The log knows others, and theirs may be another address by now.
                Err(why) if sources.formatted.as_ref().is_some_and(has_joined) => warn!("{why:#}"),
                checked => checked?,
            }
            Ok(id)
        }
        (Standing::Formed(id), _) => {
            forming::network::check_cluster(config.node_id, &id, &controllers(config)).await?;
            Ok(id)
        }
        (Standing::Empty, Formation::Alone) => Ok(ottla_env::random_uuid()?.to_string()),
        (Standing::Empty, _) if !config.process_roles.controller => {
            let id = forming::network::wait_for_cluster(&controllers(config), ASKING_PAUSE).await;
            warn_of_empty_directories(&id);
            Ok(id)
        }
        (standing, Formation::StaticVoters) => {
            agree(config, standing, &configuration::format_command(sources)).await
        }
        (Standing::Empty, Formation::RecordedVoters) => {
            let id = forming::network::cluster(&controllers(config)).await.context(
                "the data directories are not formatted, and no controller that is named knows a cluster. If this node was \
                 in one, start the others first. For a new cluster run ottla format with the same --cluster-id and \
                 --initial-controllers on all nodes, or with --standalone on the first one",
            )?;
            warn_of_empty_directories(&id);
            Ok(id)
        }
        (Standing::Forming(id), Formation::Alone | Formation::RecordedVoters) => bail!(
            "this node has begun to form cluster {id} with the others of controller.quorum.voters, which does not name \
             them any more"
        ),
    }
}

/// A disk that is not mounted looks like a new one.
fn warn_of_empty_directories(cluster_id: &str) {
    warn!(
        cluster_id,
        "the data directories were empty: they are formatted for the cluster that the controllers know, and filled by \
         the other nodes; if there was data here before, look whether the disks are mounted"
    );
}

/// Where other controllers may be, by the properties.
fn controllers(config: &BrokerConfig) -> Vec<(&str, u16)> {
    let voters = config.controller_quorum_voters.iter().filter(|it| it.id != config.node_id.0);
    let voters = voters.map(|voter| (&*voter.host, voter.port));
    let servers = config.controller_quorum_bootstrap_servers.iter();
    voters.chain(servers.map(|(host, port)| (&**host, *port))).collect()
}

/// How long a voter waits before it asks the others again.
const ASKING_PAUSE: Duration = Duration::from_millis(200);

/// Agrees with the other voters on one cluster, and formats what is empty.
async fn agree(
    config: &BrokerConfig,
    standing: Standing,
    to_format: &str,
) -> anyhow::Result<String> {
    let listener = config.quorum_listener().context("a voter listens for the others")?;
    let socket = ottla_broker::bind(config, listener).await?;
    let (own, answers) = watch::channel(standing);
    let answering = Answering::start(socket, config.node_id, answers);
    let (voters, directories) = (&config.controller_quorum_voters, NodeDirectories(config));
    let peers = Configured::default();
    forming::form(config.node_id, voters, &own, &peers, &directories, to_format, ASKING_PAUSE)
        .await?;
    answering.stop().await;
    let id = own.borrow().cluster_id().map(str::to_owned);
    id.context("whoever has formed belongs to a cluster")
}

/// The voters that `ottla format` has written down for the first start of a cluster.
fn initial_voters(config: &BrokerConfig, opened: &Opened) -> Vec<InitialVoter> {
    let listener = config.controller_listener_names.first().map_or("", String::as_str);
    let controllers = opened.initial_controllers.as_ref();
    controllers.map(|it| it.to_voters(listener)).unwrap_or_default()
}

/// The one line on standard output, for people and for scripts that wait for it. Nobody may read it: `ottla serve | head -1`.
fn announce(node: &Node, directories: &str, started: Instant) {
    let mut listeners: Vec<_> = node.listeners().iter().map(ToString::to_string).collect();
    listeners.extend(node.http_address().map(|address| format!("http://{address}")));
    let told = writeln!(
        std::io::stdout().lock(),
        "Ottla {} ready in {} ms: listening on {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        listeners.join(", "),
        directories,
    );
    if let Err(error) = told {
        warn!(%error, "standard output can't be written to");
    }
}

/// A second signal of the same kind that comes sooner is the first one once more.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// SIGTERM and SIGINT, the polite ways to ask a server to stop, and the end of standard input where that is one.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    stdin: Option<oneshot::Receiver<()>>,
    /// The signal that came first, if it was one.
    first: Option<SignalKind>,
}

impl Signals {
    fn new(stdin: Option<oneshot::Receiver<()>>) -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stdin,
            first: None,
        })
    }

    /// Whatever asks first.
    async fn first(&mut self) {
        let ended = async {
            match &mut self.stdin {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        self.first = tokio::select! {
            () = ended => None,
            _ = self.terminate.recv() => Some(SignalKind::terminate()),
            _ = self.interrupt.recv() => Some(SignalKind::interrupt()),
        };
    }

    /// The next one that was meant for itself: `timeout` signals a process and then its whole group.
    async fn next(&mut self) {
        let since = Instant::now();
        loop {
            let asked = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
            };
            if self.first != Some(asked) || since.elapsed() >= SAME_SIGNAL {
                return;
            }
        }
    }
}

/// Reads standard input to its end, on a thread that nobody waits for.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    end
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "ottla: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the errors of the rooms are: each tells what it comes from, and gives it as its source.
    #[derive(Debug)]
    struct CannotOpen(std::io::Error);

    impl std::fmt::Display for CannotOpen {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "open .lock: {}", self.0)
        }
    }

    impl std::error::Error for CannotOpen {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let denied = CannotOpen(std::io::Error::from_raw_os_error(13));
        let error = anyhow::Error::from(denied).context("can't start");
        let expected = "can't start: open .lock: Permission denied (os error 13)";
        assert_eq!(told(&error), expected);
    }
}
