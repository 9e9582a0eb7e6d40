//! How many connections a broker takes, in all and from one address (pure).

use std::collections::BTreeMap;

use crate::check::is_host;
use crate::settings::Settings;

/// What `max.connections` and its relatives say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Through all listeners of a role together.
    pub max_connections: i32,
    /// Through one listener, by its name in small letters, where it has a limit of its own.
    pub max_connections_by_listener: BTreeMap<String, i32>,
    pub max_connections_per_ip: i32,
    /// By host name or address, as written.
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
}

impl ConnectionLimits {
    /// Overrides that are not of the form are left out: they were refused where they came from.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            max_connections: settings.int("max.connections"),
            max_connections_by_listener: listener_limits(settings).collect(),
            max_connections_per_ip: settings.int("max.connections.per.ip"),
            max_connections_per_ip_overrides: parse_overrides(settings).unwrap_or_default(),
        }
    }
}

/// What `listener.name.NAME.max.connections` says; what is no number was refused where it came from.
pub(crate) fn listener_limits(settings: &Settings) -> impl Iterator<Item = (String, i32)> + '_ {
    settings.unknown().filter_map(|(name, unknown)| {
        let listener = name.strip_prefix("listener.name.")?.strip_suffix(".max.connections")?;
        Some((listener.to_owned(), unknown.text.trim().parse().ok()?))
    })
}

const OVERRIDES: &str = "max.connections.per.ip.overrides";

/// Reads `host:count` pairs; the error is about the first that is none.
pub(crate) fn parse_overrides(settings: &Settings) -> Result<BTreeMap<String, i32>, String> {
    let text = settings.text(OVERRIDES).unwrap_or_default();
    let mut overrides = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let parsed = pair.rsplit_once(':').and_then(|(host, count)| {
            let count: i32 = count.trim().parse().ok().filter(|count| *count >= 0)?;
            Some((host.trim(), count)).filter(|(host, _)| is_host(host))
        });
        let (host, count) =
            parsed.ok_or_else(|| format!("{OVERRIDES}: {pair} is not of the form HOST:COUNT"))?;
        overrides.insert(host.to_owned(), count);
    }
    Ok(overrides)
}
