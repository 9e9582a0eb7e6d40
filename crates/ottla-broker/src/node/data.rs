//! What a node has before it hears from its cluster: its log directories, and what works on them. Shell.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ottla_base::Uuid;
use ottla_env::{Clock, SystemClock};
use ottla_log::LogCleaner;

use super::NodeOptions;
use super::options::{directory_options, fetch_settings, milliseconds, throttle_windows};
use crate::cleaner;
use crate::configuration::Configuration;
use crate::directory_reports::{DirectoryReports, FailureWatch};
use crate::fetchers::Fetchers;
use crate::group_coordinator::GroupCoordinator;
use crate::hang_ups::HangUps;
use crate::log_directories::LogDirectories;
use crate::log_moves::LogMoves;
use crate::replicas::Replicas;
use crate::throttles::Throttles;
use crate::topic_config;
use crate::topics::plan::Incarnation;
use crate::topics::{MissingLogs, Topics};

/// The data of a node. Nothing of it is touched before the metadata says what it is.
pub(super) struct Data {
    pub clock: Arc<dyn Clock>,
    /// Of this start.
    pub incarnation_id: Uuid,
    pub directories: Arc<LogDirectories>,
    pub failures: Arc<FailureWatch>,
    pub reports: Arc<DirectoryReports>,
    pub replicas: Arc<Replicas>,
    pub configuration: Arc<Configuration>,
    pub groups: Arc<GroupCoordinator>,
    pub moves: Arc<LogMoves>,
    pub cleaner: Option<Arc<LogCleaner>>,
    pub hang_ups: Arc<HangUps>,
    pub throttles: Arc<Throttles>,
    pub fetchers: Arc<Fetchers>,
    /// Keeps the rest equal to the metadata.
    pub topics: Arc<Topics>,
}

impl Data {
    /// Opens the directories, which may take a recovery. `open_files_max` is how many files logs may have open.
    ///
    /// # Errors
    /// When the data can't be used.
    pub(super) async fn open(options: &NodeOptions, open_files_max: usize) -> anyhow::Result<Self> {
        let config = &options.config;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let replicas = Arc::new(Replicas::default());
        let directories = open_directories(options, &clock, open_files_max).await?;
        let reports = Arc::<DirectoryReports>::default();
        let failures = Arc::new(FailureWatch::new(&directories, Arc::clone(&reports)));
        directories.add_listener(&(Arc::clone(&replicas) as _));
        directories.add_listener(&(Arc::clone(&failures) as _));
        let configuration = Arc::new(Configuration::new(config.node_id, options.settings.clone()));
        let groups = Arc::new(GroupCoordinator::new(config, Arc::clone(&clock)));
        let moves = Arc::new(LogMoves::new(
            Arc::clone(&directories),
            Arc::clone(&replicas),
            Arc::clone(&reports),
            Arc::clone(&configuration),
        ));
        directories.add_listener(&moves.failure_watch());
        let cleaner = cleaner::start(&configuration.live().cleaner, &replicas, &clock)?;
        let incarnation_id = ottla_env::random_uuid()?;
        let hang_ups = Arc::<HangUps>::default();
        let throttles = Arc::new(Throttles::new(throttle_windows(config)));
        let fetchers = Arc::new(Fetchers::new(
            Arc::clone(&directories),
            Arc::clone(&clock),
            fetch_settings(config),
            Arc::clone(&throttles),
            Arc::clone(&hang_ups),
        ));
        let topics = Arc::new(Topics {
            me: Incarnation { broker: config.node_id, id: incarnation_id },
            clock: Arc::clone(&clock),
            lag_max: milliseconds(config.replica_lag_time_max_ms),
            fetch_backoff: milliseconds(config.replica_fetch_backoff_ms.into()),
            fetchers: Arc::clone(&fetchers),
            throttles: Arc::clone(&throttles),
            directories: Arc::clone(&directories),
            replicas: Arc::clone(&replicas),
            configuration: Arc::clone(&configuration),
            groups: Arc::clone(&groups),
            reports: Arc::clone(&reports),
            moves: Arc::clone(&moves),
            started: AtomicBool::new(false),
            strays: parking_lot::Mutex::default(),
            absent: parking_lot::Mutex::default(),
            returned: parking_lot::Mutex::default(),
            missing: MissingLogs::default(),
            cleaner: cleaner.clone(),
            published: parking_lot::Mutex::default(),
        });
        Ok(Self {
            clock,
            incarnation_id,
            directories,
            failures,
            reports,
            replicas,
            configuration,
            groups,
            moves,
            cleaner,
            hang_ups,
            throttles,
            fetchers,
            topics,
        })
    }
}

async fn open_directories(
    options: &NodeOptions,
    clock: &Arc<dyn Clock>,
    open_files_max: usize,
) -> anyhow::Result<Arc<LogDirectories>> {
    let config = &options.config;
    let log_config = topic_config::log_config(&config.topic_defaults);
    let count = options.directories.to_open().count();
    let directory_options = directory_options(config, open_files_max, count);
    let (given, clock) = (options.directories.clone(), Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || {
        LogDirectories::open(&given, &log_config, &directory_options, &clock)
    });
    Ok(Arc::new(opened.await??))
}
