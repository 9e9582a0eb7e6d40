//! `ottla format`: prepares a node's directories for its first start, as Apache Kafka's `kafka-storage format` does.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use ottla_broker::UNWRITTEN_HOST;
use ottla_cli::{Exit, Failure};
use ottla_config::{BrokerConfig, Formation};
use ottla_metadata::feature;

use crate::bootstrap::Levels;
use crate::configuration::{self, ConfigurationArguments};
use crate::data_directory::{Stamp, Survey};
use crate::initial_controllers::{InitialController, InitialControllers, KRAFT_VERSION};

/// Kafka's name of the only metadata version that is written here.
const RELEASE: &str = "4.3-IV0";
/// Features of Kafka that do not exist here: level 0 is all that they can have.
const MISSING_FEATURES: [&str; 4] =
    ["group.version", "share.version", "streams.version", "transaction.version"];
const KRAFT_FEATURE: &str = "kraft.version";

/// Prepare the data directories of a node of a cluster
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla format --config server.properties --random-cluster-id         a cluster of one, its id is printed
  ottla format --config node-2.properties --cluster-id 4L6g3nShT-eMCtK--X86sw
        on every node, when controller.quorum.voters names all controllers
  ottla format --config node-2.properties --cluster-id 4L6g3nShT-eMCtK--X86sw --initial-controllers \\
        1@a:9093:JEXY6aqzQY-32P5TStzaFg,2@b:9093:MvDxzVmcRsaTz33bUuRU6A,3@c:9093:07R5amHmR32VDA6jHkGbTA
        on every node; ottla random-uuid makes the ids

A node that names no other controller needs none of this: ottla serve formats what is empty.

Exit codes: 0 done, 1 could not be done, 2 wrong arguments or configuration, 5 formatted already.")]
pub(crate) struct FormatArguments {
    #[command(flatten)]
    configuration: ConfigurationArguments,
    /// The cluster's id, the same on all of its nodes
    #[arg(short = 't', long, value_name = "ID", required_unless_present = "random_cluster_id")]
    cluster_id: Option<String>,
    /// Draw an id for a new cluster, and print it
    #[arg(long, conflicts_with = "cluster_id")]
    random_cluster_id: bool,
    /// Begin a cluster that has this controller as its only one
    #[arg(short, long, conflicts_with_all = ["initial_controllers", "no_initial_controllers"])]
    standalone: bool,
    /// Begin a cluster with these controllers, the same on all of its nodes
    #[arg(short = 'I', long, value_name = "ID@HOST:PORT:DIRECTORY-ID,...")]
    initial_controllers: Option<String>,
    /// Leave it to controller.quorum.bootstrap.servers to say who the controllers are
    #[arg(short = 'N', long, conflicts_with = "initial_controllers")]
    no_initial_controllers: bool,
    /// Begin with this level of a feature, such as kraft.version=1
    #[arg(short, long, value_name = "NAME=LEVEL")]
    feature: Vec<String>,
    /// Begin with the features of this release [default: 4.3-IV0]
    #[arg(short, long, value_name = "VERSION")]
    release_version: Option<String>,
    /// Pass over directories that are formatted already
    #[arg(short = 'g', long)]
    ignore_formatted: bool,
    /// Refused: there are no users with SCRAM so far
    #[arg(short = 'S', long, value_name = "CREDENTIAL")]
    add_scram: Vec<String>,
}

pub(crate) fn run(arguments: &FormatArguments) -> ExitCode {
    match format(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// `ottla random-uuid`.
pub(crate) fn random_uuid() -> ExitCode {
    let drawn = ottla_env::random_uuid().map_err(Failure::from);
    match drawn.and_then(|id| say(&id.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn format(arguments: &FormatArguments) -> Result<(), Failure> {
    let sources = configuration::sources(&arguments.configuration);
    let loaded = sources.and_then(|mut it| configuration::load(&mut it)).map_err(usage)?;
    let config = loaded.config;
    let controllers = controllers(&config, arguments)?;
    let levels = levels(&config, arguments)?;
    if !arguments.add_scram.is_empty() {
        let message = "--add-scram: SCRAM is not there yet, and nobody could log in with it";
        return Err(Failure::new(Exit::Usage, message));
    }
    let cluster_id = match &arguments.cluster_id {
        Some(id) => check_cluster_id(id)?,
        None => ottla_env::random_uuid()?.to_string(),
    };
    let survey = Survey::of(&config.log_dirs, &config.metadata_log_dir, config.node_id);
    let survey = survey.map_err(failed)?;
    check_formatted(&survey, &cluster_id, arguments.ignore_formatted)?;
    if arguments.random_cluster_id {
        say(&format!("Cluster id {cluster_id}"))?;
    }
    if survey.empty().next().is_none() {
        return say("All of the directories are formatted already.");
    }
    let kind = describe(&config, controllers.as_ref());
    for path in survey.empty() {
        let kind = if survey.is_metadata(path) { kind } else { "data directory" };
        say(&format!("Formatting {kind} {} with metadata.version {RELEASE}.", path.display()))?;
    }
    let listener = config.controller_listener_names.first().map_or("", String::as_str);
    let stamp = Stamp {
        initial_controllers: controllers.as_ref().map(|it| (it, listener)),
        levels: Some(&levels),
        ..Stamp::of(&cluster_id)
    };
    let opened = survey.open(&stamp).map_err(failed)?;
    match opened.directories.unreadable.first() {
        None => Ok(()),
        Some(it) => {
            let message = format!("{} can't be used: {}", it.path.display(), it.reason);
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

/// Kafka's names of what a directory with metadata can be.
fn describe(config: &BrokerConfig, controllers: Option<&InitialControllers>) -> &'static str {
    match controllers.map(|it| it.get(config.node_id)) {
        None => "metadata directory",
        Some(None) => "dynamic metadata directory",
        Some(Some(_)) => "dynamic metadata voter directory",
    }
}

/// The controllers to be written down for the first start: none where the configuration names them, or others know.
fn controllers(
    config: &BrokerConfig,
    arguments: &FormatArguments,
) -> Result<Option<InitialControllers>, Failure> {
    let is_static = !config.controller_quorum_voters.is_empty();
    if is_static && (arguments.standalone || arguments.initial_controllers.is_some()) {
        return Err(Failure::new(
            Exit::Usage,
            "--standalone and --initial-controllers contradict controller.quorum.voters, which names the controllers",
        )
        .with_cure("Leave the option out, or set controller.quorum.bootstrap.servers in its place."));
    }
    if let Some(text) = &arguments.initial_controllers {
        let controllers: InitialControllers = text
            .parse()
            .map_err(|error| usage(anyhow::Error::context(error, "--initial-controllers")))?;
        if config.controller_listener_names.is_empty() {
            return Err(no_listener("--initial-controllers"));
        }
        return Ok(Some(controllers));
    }
    if arguments.standalone {
        return standalone(config).map(Some);
    }
    if arguments.no_initial_controllers && config.formation() == Formation::Alone && !is_static {
        return Err(Failure::new(
            Exit::Usage,
            "--no-initial-controllers is for a node that others let in, and this one names no other controller",
        )
        .with_cure(
            "Name one in controller.quorum.bootstrap.servers, or begin a cluster with --standalone.",
        ));
    }
    let is_open = config.formation() == Formation::RecordedVoters
        && config.process_roles.controller
        && !arguments.no_initial_controllers;
    if is_open {
        return Err(Failure::new(
            Exit::Usage,
            "controller.quorum.voters is not set, so it must be said who the controllers are",
        )
        .with_cure(
            "Add one of --standalone, --initial-controllers and --no-initial-controllers.",
        ));
    }
    Ok(None)
}

fn standalone(config: &BrokerConfig) -> Result<InitialControllers, Failure> {
    if !config.process_roles.controller {
        return Err(Failure::new(Exit::Usage, "--standalone is for controllers only"));
    }
    let Some(listener) = config.advertised_controller_listeners.first() else {
        return Err(no_listener("--standalone"));
    };
    Ok(InitialControllers::one(InitialController {
        id: config.node_id,
        host: listener.host.clone().unwrap_or_else(|| UNWRITTEN_HOST.to_owned()),
        port: listener.port,
        directory_id: ottla_env::random_uuid()?,
    }))
}

fn no_listener(option: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{option}: there is no listener for controllers")).with_cure(
        "Set controller.listener.names=CONTROLLER and add CONTROLLER://:9093 to listeners.",
    )
}

/// The levels that the cluster begins with: the latest but for those that are named.
fn levels(config: &BrokerConfig, arguments: &FormatArguments) -> Result<Levels, Failure> {
    let latest = feature::supported().map(|(name, levels)| (name.to_owned(), levels.max));
    let mut chosen: Levels = latest.collect();
    if let Some(release) = &arguments.release_version {
        check_release(release)?;
    }
    for pair in &arguments.feature {
        let level = pair
            .split_once('=')
            .and_then(|(name, level)| Some((name.trim(), level.trim().parse::<i16>().ok()?)));
        let Some((name, level)) = level else {
            let message = format!("--feature {pair} is not of the form NAME=LEVEL");
            return Err(Failure::new(Exit::Usage, message));
        };
        if name == feature::METADATA_VERSION && arguments.release_version.is_some() {
            let message = "--release-version says what metadata.version is: leave --feature metadata.version out";
            return Err(Failure::new(Exit::Usage, message));
        }
        check_feature(config, name, level)?;
        chosen.entry(name.to_owned()).and_modify(|it| *it = level);
    }
    Ok(chosen)
}

/// Kafka takes a release by its first two numbers.
fn check_release(release: &str) -> Result<(), Failure> {
    let mut numbers = release.splitn(3, '.');
    let begin = [numbers.next(), numbers.next()].map(Option::unwrap_or_default).join(".");
    if begin == RELEASE || RELEASE.strip_suffix("-IV0") == Some(&begin) {
        return Ok(());
    }
    let message = format!(
        "--release-version {release}: a cluster here begins with {RELEASE}, no other is written"
    );
    Err(Failure::new(Exit::Usage, message))
}

fn check_feature(config: &BrokerConfig, name: &str, level: i16) -> Result<(), Failure> {
    let refuse = |reason: String| {
        Err(Failure::new(Exit::Usage, format!("--feature {name}={level}: {reason}")))
    };
    let is_static = !config.controller_quorum_voters.is_empty();
    match (name, level) {
        (feature::METADATA_VERSION, feature::METADATA_VERSION_LEVEL) => Ok(()),
        (feature::METADATA_VERSION, _) => refuse(format!(
            "a cluster here begins with {} ({RELEASE}), no other is written",
            feature::METADATA_VERSION_LEVEL
        )),
        (feature::ELIGIBLE_LEADER_REPLICAS, 0..=feature::ELIGIBLE_LEADER_REPLICAS_LEVEL) => Ok(()),
        (feature::ELIGIBLE_LEADER_REPLICAS, _) => refuse("it can be 0 or 1".to_owned()),
        (KRAFT_FEATURE, 0) if is_static => Ok(()),
        (KRAFT_FEATURE, 0) => refuse("without controller.quorum.voters it must be 1".to_owned()),
        (KRAFT_FEATURE, KRAFT_VERSION) if !is_static => Ok(()),
        (KRAFT_FEATURE, KRAFT_VERSION) => {
            refuse("with controller.quorum.voters it must be 0".to_owned())
        }
        (KRAFT_FEATURE, _) => refuse("it can be 0 or 1".to_owned()),
        (missing, 0) if MISSING_FEATURES.contains(&missing) => Ok(()),
        (missing, _) if MISSING_FEATURES.contains(&missing) => {
            refuse("this feature is not there yet, so its level can only be 0".to_owned())
        }
        (_, _) => refuse(format!(
            "there is no such feature, but {KRAFT_FEATURE}, {}, {} and {}",
            feature::METADATA_VERSION,
            feature::ELIGIBLE_LEADER_REPLICAS,
            MISSING_FEATURES.join(", ")
        )),
    }
}

/// Kafka takes any text; what would not come back from the file as it was is refused.
fn check_cluster_id(id: &str) -> Result<String, Failure> {
    let is_plain = |c: char| c.is_ascii_graphic() && c != '\\';
    if !id.is_empty() && id.chars().all(is_plain) {
        return Ok(id.to_owned());
    }
    let message = format!(
        "--cluster-id {id:?} can't be one: letters, digits, dashes and the like without spaces"
    );
    Err(Failure::new(Exit::Usage, message).with_cure("Draw one with ottla random-uuid."))
}

fn check_formatted(survey: &Survey, cluster_id: &str, ignore: bool) -> Result<(), Failure> {
    let (Some(path), Some(own)) = (survey.formatted().next(), survey.cluster_id()) else {
        return Ok(());
    };
    let path = path.display();
    if own != cluster_id && ignore {
        let message = format!("{path} belongs to cluster {own}, not to {cluster_id}");
        return Err(Failure::new(Exit::Failed, message));
    }
    if !ignore {
        let message = format!("{path} is formatted already, for cluster {own}");
        return Err(Failure::new(Exit::AlreadyExists, message)
            .with_cure("Pass over it and format the others with --ignore-formatted."));
    }
    Ok(())
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

fn usage(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Usage, format!("{error:#}"))
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{error:#}"))
}
