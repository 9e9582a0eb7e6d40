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

/// `ottla format` with the options that say which node this is; a command that a shell takes as it is.
pub(crate) fn format_command(sources: &Sources) -> String {
    let mut words = vec!["ottla format".to_owned()];
    let mut option = |name: &str, value: &str| words.push(format!("{name} {}", quoted(value)));
    if let Some((path, _)) = &sources.file {
        option("--config", path);
    }
    if let Some(directory) = &sources.data_dir {
        option("--data-dir", directory);
    }
    sources.set.iter().for_each(|set| option("--set", set));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_formats_a_node_says_which_node_it_is() {
        let sources = Sources {
            file: Some(("conf/node 3.properties".to_owned(), String::new())),
            data_dir: Some("/var/lib/ottla".to_owned()),
            set: vec!["node.id=3".to_owned()],
            ..Sources::default()
        };
        let command = "ottla format --config 'conf/node 3.properties' --data-dir /var/lib/ottla --set node.id=3";
        assert_eq!(format_command(&sources), command);
        assert_eq!(format_command(&Sources::default()), "ottla format");
    }
}
