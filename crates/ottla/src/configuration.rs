//! Where a node's configuration comes from: the options that `serve` and `format` share.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use ottla_config::{Loaded, Sources};

#[derive(Debug, Args)]
pub(crate) struct ConfigurationArguments {
    /// Kafka's server.properties
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to keep the data [default: log.dirs, or ./ottla-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Set one property, such as num.partitions=3
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Refuse a property that nobody knows, instead of warning of it
    #[arg(long)]
    pub(crate) strict_config: bool,
}

/// What [`ConfigurationArguments`] give, with what `serve` alone has.
///
/// # Errors
/// Everything that is wrong with the configuration, a line each.
pub(crate) fn load(
    arguments: &ConfigurationArguments,
    listen: Option<&str>,
    temporary: Option<&Path>,
) -> anyhow::Result<Loaded> {
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
        listen: listen.map(str::to_owned),
        data_dir: data_dir.map(|path| path.display().to_string()),
        strict: arguments.strict_config,
    };
    ottla_config::load(&sources).map_err(|rejected| anyhow::anyhow!("{rejected}"))
}
