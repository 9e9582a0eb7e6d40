//! Which values of a property are allowed, and what is said about the others (pure).
//!
//! The sentences are part of the protocol: admin clients show them to people as the message of
//! INVALID_CONFIG, so they are Kafka's, word for word.

use crate::value::{Value, java_double};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    BetweenDoubles(f64, f64),
    NonNull,
    NonEmpty,
    OneOf(&'static [&'static str]),
    OneOfIgnoringCase(&'static [&'static str]),
    /// A list without repetitions or empty entries.
    List {
        may_be_empty: bool,
    },
    /// The same, of these values only.
    ListOf {
        values: &'static [&'static str],
        may_be_empty: bool,
    },
    /// Empty, `*`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// 1 to 9, or -1 for the codec's own choice.
    GzipLevel,
    /// `{id}@{host}:{port}` entries.
    Voters,
    /// `{host}:{port}` entries.
    Servers,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
    /// `host:port` or `none`.
    HttpListener,
}

/// Why a value is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// Follows "Invalid value X for configuration Y: ".
    Value(String),
    /// A whole sentence that names the property itself.
    Sentence(String),
}

impl Check {
    pub(crate) fn apply(&self, name: &str, value: Option<&Value>) -> Result<(), Objection> {
        match (self, value) {
            (Self::Any, _) => Ok(()),
            (Self::AtLeast(minimum), value) => {
                in_range(value, Some((*minimum as f64, minimum.to_string())), None)
            }
            (Self::Between(minimum, maximum), value) => in_range(
                value,
                Some((*minimum as f64, minimum.to_string())),
                Some((*maximum as f64, maximum.to_string())),
            ),
            (Self::BetweenDoubles(minimum, maximum), value) => in_range(
                value,
                Some((*minimum, short_double(*minimum))),
                Some((*maximum, short_double(*maximum))),
            ),
            (Self::NonNull, None) => Err(Objection::Value("entry must be non null".to_owned())),
            (Self::NonEmpty, Some(Value::String(s))) if s.is_empty() => {
                Err(Objection::Value("String must be non-empty".to_owned()))
            }
            (Self::NonNull | Self::NonEmpty, _) => Ok(()),
            (Self::OneOf(values), value) => one_of(values, value),
            (Self::OneOfIgnoringCase(values), value) => one_of_ignoring_case(values, value),
            (Self::List { may_be_empty }, Some(Value::List(items))) => {
                list(name, items, &[], *may_be_empty)
            }
            (Self::ListOf { values, may_be_empty }, Some(Value::List(items))) => {
                list(name, items, values, *may_be_empty)
            }
            (Self::ThrottledReplicas, Some(Value::List(items))) => throttled_replicas(name, items),
            (Self::GzipLevel, Some(Value::Int(level))) => gzip_level(*level),
            (Self::Voters, Some(Value::List(items))) => {
                items.iter().try_for_each(|entry| Voter::parse(entry).map(drop))
            }
            (Self::Servers, Some(Value::List(items))) => {
                items.iter().try_for_each(|entry| server(entry).map(drop))
            }
            (Self::OffsetReset, Some(Value::String(s))) => offset_reset(name, s),
            (Self::HttpListener, Some(Value::String(s))) => http_listener(s),
            // Null, where Kafka's check of that property lets null pass.
            (
                Self::List { .. }
                | Self::ListOf { .. }
                | Self::ThrottledReplicas
                | Self::GzipLevel
                | Self::Voters
                | Self::Servers
                | Self::OffsetReset
                | Self::HttpListener,
                _,
            ) => Ok(()),
        }
    }

    /// The allowed values for the reference page and for error messages; empty when anything of
    /// the type will do.
    pub fn describe(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::AtLeast(minimum) => format!("at least {minimum}"),
            Self::Between(minimum, maximum) => format!("{minimum} to {maximum}"),
            Self::BetweenDoubles(minimum, maximum) => {
                format!("{} to {}", short_double(*minimum), short_double(*maximum))
            }
            Self::NonNull => "any text".to_owned(),
            Self::NonEmpty => "not empty".to_owned(),
            Self::OneOf(values) => format!("one of {}", values.join(", ")),
            Self::OneOfIgnoringCase(values) => {
                format!("one of {} (case does not matter)", values.join(", "))
            }
            Self::List { may_be_empty: true } => "values separated by commas".to_owned(),
            Self::List { may_be_empty: false } => {
                "at least one value, separated by commas".to_owned()
            }
            Self::ListOf { values, may_be_empty } => {
                let least = if *may_be_empty { "any" } else { "at least one" };
                format!("{least} of {}", values.join(", "))
            }
            Self::ThrottledReplicas => "partition:broker pairs, or *".to_owned(),
            Self::GzipLevel => "1 to 9, or -1".to_owned(),
            Self::Voters => "{id}@{host}:{port} entries".to_owned(),
            Self::Servers => "{host}:{port} entries".to_owned(),
            Self::HttpListener => "host:port, or none".to_owned(),
            Self::OffsetReset => "latest, earliest or by_duration:PnDTnHnMn.nS".to_owned(),
        }
    }
}

type Bound = Option<(f64, String)>;

fn in_range(value: Option<&Value>, minimum: Bound, maximum: Bound) -> Result<(), Objection> {
    let Some(number) = value.and_then(Value::number) else {
        return Err(Objection::Value("Value must be non-null".to_owned()));
    };
    if let Some((bound, text)) = minimum
        && number < bound
    {
        return Err(Objection::Value(format!("Value must be at least {text}")));
    }
    if let Some((bound, text)) = maximum
        && number > bound
    {
        return Err(Objection::Value(format!("Value must be no more than {text}")));
    }
    Ok(())
}

/// A bound as Kafka spells it: `0` stays an integer, `0.5` does not.
fn short_double(n: f64) -> String {
    java_double(n).trim_end_matches(".0").to_owned()
}

fn one_of(values: &[&str], value: Option<&Value>) -> Result<(), Objection> {
    match value {
        Some(Value::String(s)) if values.contains(&s.as_str()) => Ok(()),
        _ => Err(Objection::Value(format!("String must be one of: {}", values.join(", ")))),
    }
}

fn one_of_ignoring_case(values: &[&str], value: Option<&Value>) -> Result<(), Objection> {
    match value {
        Some(Value::String(s)) if values.iter().any(|v| v.eq_ignore_ascii_case(s)) => Ok(()),
        _ => Err(Objection::Value(format!(
            "String must be one of (case insensitive): {}",
            values.join(", ")
        ))),
    }
}

fn list(
    name: &str,
    items: &[String],
    values: &[&str],
    may_be_empty: bool,
) -> Result<(), Objection> {
    if items.is_empty() && !may_be_empty {
        let allowed = if values.is_empty() {
            "any non-empty value".to_owned()
        } else {
            format!("[{}]", values.join(", "))
        };
        return Err(Objection::Sentence(format!(
            "Configuration '{name}' must not be empty. Valid values include: {allowed}"
        )));
    }
    for item in items {
        if item.is_empty() {
            return Err(Objection::Sentence(format!(
                "Configuration '{name}' values must not be empty."
            )));
        }
        if !values.is_empty() && !values.contains(&item.as_str()) {
            // Kafka names the one bad entry, not the whole list.
            return Err(Objection::Sentence(format!(
                "Invalid value {item} for configuration {name}: String must be one of: {}",
                values.join(", ")
            )));
        }
    }
    Ok(())
}

fn throttled_replicas(name: &str, items: &[String]) -> Result<(), Objection> {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let pair = |s: &str| s.split_once(':').is_some_and(|(p, b)| number(p) && number(b));
    // An empty entry passes, as it does in Kafka.
    let pairs = items.iter().map(|item| item.trim()).all(|item| item.is_empty() || pair(item));
    if pairs || items.concat().trim() == "*" {
        return Ok(());
    }
    Err(Objection::Value(format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    )))
}

fn gzip_level(level: i32) -> Result<(), Objection> {
    if level == -1 || (1..=9).contains(&level) {
        return Ok(());
    }
    Err(Objection::Value("Value must be between 1 and 9 or equal to -1".to_owned()))
}

fn offset_reset(name: &str, text: &str) -> Result<(), Objection> {
    let duration = text.strip_prefix("by_duration:").is_some_and(is_duration);
    if duration || matches!(text, "latest" | "earliest") {
        return Ok(());
    }
    Err(Objection::Value(format!(
        "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', \
         'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
    )))
}

fn http_listener(text: &str) -> Result<(), Objection> {
    if text == "none" || host_and_port(text).is_some_and(|(host, _)| !host.is_empty()) {
        return Ok(());
    }
    Err(Objection::Value("Value must be host:port, or none".to_owned()))
}

/// An ISO 8601 duration of days, hours, minutes and seconds, not negative, as Java reads it.
fn is_duration(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let Some(body) = upper.strip_prefix('P') else { return false };
    let (days, time) = match body.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return false,
        None => (body, ""),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let days_fit = days.is_empty() || days.strip_suffix('D').is_some_and(digits);
    if !days_fit || (days.is_empty() && time.is_empty()) {
        return false;
    }
    let mut rest = time;
    for unit in ['H', 'M'] {
        if let Some((amount, tail)) = rest.split_once(unit) {
            if !digits(amount) {
                return false;
            }
            rest = tail;
        }
    }
    rest.is_empty()
        || rest.strip_suffix('S').is_some_and(|seconds| {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
            digits(whole) && digits(fraction) && fraction.len() <= 9
        })
}

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

impl Voter {
    pub(crate) fn parse(entry: &str) -> Result<Self, Objection> {
        const FORM: &str = "Each entry should be in the form `{id}@{host}:{port}`.";
        const NAME: &str = "controller.quorum.voters";
        let mut parts = entry.split('@');
        let (Some(id), Some(address), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Objection::Sentence(format!(
                "Invalid configuration value for {NAME}. {FORM}"
            )));
        };
        let id = id.parse().map_err(|_| {
            Objection::Sentence(format!("Failed to parse voter ID as an integer from {id}"))
        })?;
        let (host, port) = host_and_port(address).ok_or_else(|| {
            Objection::Sentence(format!(
                "Failed to parse host name from entry {entry} for the configuration {NAME}. {FORM}"
            ))
        })?;
        Ok(Self { id, host, port })
    }
}

pub(crate) fn server(entry: &str) -> Result<(String, u16), Objection> {
    host_and_port(entry).ok_or_else(|| {
        Objection::Sentence(format!(
            "Failed to parse host name from {entry} for the configuration \
             controller.quorum.bootstrap.servers. Each entry should be in the form \
             \"{{host}}:{{port}}\""
        ))
    })
}

/// `host:port`, `[v6]:port` or either behind a `scheme://`, which is ignored as Kafka ignores it.
pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
    is_host(host).then(|| (host.to_owned(), port))
}

/// What is wrong with an address that is to be `HOST:PORT`, with a port from `least` on.
pub(crate) fn not_an_address(text: &str, least: u16) -> String {
    let is_number = |port: &str| {
        let digits = port.strip_prefix('-').unwrap_or(port);
        !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit())
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_number(port) && !host.is_empty() && is_in_form(host) => {
            format!("the port of {text} is not between {least} and 65535")
        }
        _ => format!("{text} is not of the form HOST:PORT"),
    }
}

fn is_in_form(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    is_host(bare.unwrap_or(host))
}

pub(crate) fn is_host(host: &str) -> bool {
    host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-%._:".contains(&b))
}
