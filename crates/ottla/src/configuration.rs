//! Where a node's configuration comes from: the options that `serve` and `format` share.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use ottla_config::{Loaded, Sources};

use crate::data_directory;

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

/// Java reads a properties file as Latin-1, and people write UTF-8.
fn properties_text(bytes: Vec<u8>) -> String {
    let as_latin_1 = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
    String::from_utf8(bytes).unwrap_or_else(|error| as_latin_1(error.as_bytes()))
}

/// What [`ConfigurationArguments`] give.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn sources(arguments: &ConfigurationArguments) -> anyhow::Result<Sources> {
    let file = match &arguments.config {
        None => None,
        Some(path) => {
            let bytes = std::fs::read(path)
                .with_context(|| format!("can't read the configuration file {}", path.display()))?;
            Some((path.display().to_string(), properties_text(bytes)))
        }
    };
    let shown = |path: &PathBuf| path.display().to_string();
    Ok(Sources {
        file,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        set: arguments.set.clone(),
        data_dir: arguments.data_dir.as_ref().map(shown),
        strict: arguments.strict_config,
        ..Sources::default()
    })
}

/// The configuration of a node whose directories say who it is, where they are formatted.
///
/// # Errors
/// Everything that is wrong with the configuration, a line each.
pub(crate) fn load(sources: &mut Sources) -> anyhow::Result<Loaded> {
    sources.formatted = data_directory::formatted(&ottla_config::directories(sources));
    load_as_given(sources)
}

/// The same, with what the sources say already about directories.
///
/// # Errors
/// Likewise.
pub(crate) fn load_as_given(sources: &Sources) -> anyhow::Result<Loaded> {
    ottla_config::load(sources).map_err(|rejected| anyhow::anyhow!("{rejected}"))
}
