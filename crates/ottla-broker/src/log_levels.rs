//! The levels of the process's own log lines by part of the program, changed while it runs (KIP-412). Shell.
//!
//! Kafka names Java classes here; the parts of this program are its rooms. Changes are not kept: after a restart the
//! configuration counts again.

use std::collections::BTreeMap;
use std::fmt;

use ottla_base::ErrorCode;
use ottla_metadata::Rejection;
use ottla_metadata::controller::Operation;
use parking_lot::Mutex;

/// What stands for all parts that have no level of their own.
pub const ROOT: &str = "root";

/// The parts of the program that write log lines, as their lines name them.
const PARTS: &[&str] = &[
    "openraft",
    "ottla",
    "ottla_broker",
    "ottla_client",
    "ottla_env",
    "ottla_log",
    "ottla_quorum",
    ROOT,
];

/// In Kafka's spelling and order; FATAL writes what ERROR writes.
const LEVELS: &[&str] = &["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Puts levels into effect, given as directives such as `info,ottla_log=debug`.
pub type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The levels that are set; the others follow [`ROOT`].
pub struct LogLevels {
    set: Mutex<BTreeMap<&'static str, &'static str>>,
    apply: Apply,
}

impl fmt::Debug for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevels").field("set", &self.set.lock()).finish_non_exhaustive()
    }
}

impl LogLevels {
    /// `directives` are in effect already; what is finer than a part of the program is passed over.
    #[must_use]
    pub fn new(directives: &str, apply: Apply) -> Self {
        let mut set = BTreeMap::from([(ROOT, "ERROR")]);
        for directive in directives.split(',').map(str::trim) {
            let (part, level) = directive.split_once('=').unwrap_or((ROOT, directive));
            if let (Some(part), Some(level)) = (find(PARTS, part), find(LEVELS, level)) {
                set.insert(part, level);
            }
        }
        Self { set: Mutex::new(set), apply }
    }

    /// Every part and its level.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, &'static str)> {
        let set = self.set.lock();
        let level = |part| set.get(part).or_else(|| set.get(ROOT)).copied().unwrap_or("ERROR");
        PARTS.iter().map(|part| (*part, level(part))).collect()
    }

    /// Makes all of the changes or none, in Kafka's words.
    ///
    /// # Errors
    /// INVALID_CONFIG for a part or level that there is not, INVALID_REQUEST for an operation that makes no sense.
    pub fn alter(&self, operations: &[Operation], validate_only: bool) -> Result<(), Rejection> {
        let mut set = self.set.lock();
        let mut wanted = set.clone();
        for operation in operations {
            match check(operation)? {
                (part, Some(level)) => wanted.insert(part, level),
                (part, None) => wanted.remove(part),
            };
        }
        if validate_only {
            return Ok(());
        }
        let failed = |message| Rejection::new(ErrorCode::UNKNOWN_SERVER_ERROR, message);
        (self.apply)(&directives(&wanted)).map_err(failed)?;
        tracing::warn!(levels = directives(&wanted), "log levels changed");
        *set = wanted;
        Ok(())
    }
}

fn directives(set: &BTreeMap<&str, &str>) -> String {
    let level = |level: &str| match level {
        "FATAL" => "error".to_owned(),
        other => other.to_lowercase(),
    };
    let directive = |(part, name): (&&str, &&str)| match *part {
        ROOT => level(name),
        part => format!("{part}={}", level(name)),
    };
    set.iter().map(directive).collect::<Vec<_>>().join(",")
}

fn find(known: &[&'static str], name: &str) -> Option<&'static str> {
    known.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

/// The part that an operation is about, and the level that it is to get, if any.
fn check(operation: &Operation) -> Result<(&'static str, Option<&'static str>), Rejection> {
    let request = |message: String| Rejection::new(ErrorCode::INVALID_REQUEST, message);
    let config = |message: String| Rejection::new(ErrorCode::INVALID_CONFIG, message);
    let not_allowed = |what: String| {
        Err(request(format!("{what} is not allowed for the BROKER_LOGGER resource")))
    };
    let key = &*operation.key;
    let part = || {
        let known = PARTS.iter().find(|part| **part == key);
        known.copied().ok_or_else(|| config(format!("Logger {key} does not exist!")))
    };
    match operation.code {
        Operation::SET => {
            let part = part()?;
            let wanted = operation.value.as_deref().unwrap_or_default();
            let level = LEVELS.iter().find(|level| **level == wanted).ok_or_else(|| {
                let valid = LEVELS.join(", ");
                config(format!(
                    "Cannot set the log level of {key} to {wanted} as it is not a supported log level. \
                     Valid log levels are {valid}"
                ))
            })?;
            Ok((part, Some(level)))
        }
        Operation::DELETE if key == ROOT => {
            Err(request(format!("Removing the log level of the {ROOT} logger is not allowed")))
        }
        Operation::DELETE => Ok((part()?, None)),
        Operation::APPEND => not_allowed("APPEND operation".to_owned()),
        Operation::SUBTRACT => not_allowed("SUBTRACT operation".to_owned()),
        code => not_allowed(format!("Unknown operation type {code}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn levels(directives: &str) -> (LogLevels, Arc<Mutex<Vec<String>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&applied);
        let apply = move |directives: &str| {
            sink.lock().push(directives.to_owned());
            Ok(())
        };
        (LogLevels::new(directives, Box::new(apply)), applied)
    }

    fn operation(key: &str, code: i8, value: &str) -> Operation {
        Operation { key: key.into(), code, value: Some(value.into()) }
    }

    fn level_of(levels: &LogLevels, part: &str) -> &'static str {
        levels.all().into_iter().find(|(name, _)| *name == part).unwrap().1
    }

    #[test]
    fn parts_without_a_level_follow_the_root() {
        let (levels, applied) = levels("info,openraft=error");
        assert_eq!(level_of(&levels, "openraft"), "ERROR");
        assert_eq!(level_of(&levels, "ottla_log"), "INFO");
        levels.alter(&[operation("ottla_log", Operation::SET, "DEBUG")], false).unwrap();
        assert_eq!(*applied.lock(), ["openraft=error,ottla_log=debug,info"]);
        assert_eq!(level_of(&levels, "ottla_log"), "DEBUG");
        levels.alter(&[operation("ottla_log", Operation::DELETE, "")], false).unwrap();
        assert_eq!(level_of(&levels, "ottla_log"), "INFO");
    }

    #[test]
    fn one_bad_change_stops_all_and_a_check_changes_nothing() {
        let (levels, applied) = levels("info");
        let good = operation("ottla", Operation::SET, "TRACE");
        levels.alter(std::slice::from_ref(&good), true).unwrap();
        let refused = levels.alter(&[good, operation("ottla", Operation::SET, "LOUD")], false);
        assert_eq!(refused.unwrap_err().code, ErrorCode::INVALID_CONFIG);
        assert!(applied.lock().is_empty());
        assert_eq!(level_of(&levels, "ottla"), "INFO");
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_kafkas_words() {
        let (levels, _) = levels("info");
        let refusal = |key, code| levels.alter(&[operation(key, code, "INFO")], false).unwrap_err();
        assert_eq!(refusal("kafka", Operation::SET).message, "Logger kafka does not exist!");
        assert_eq!(
            refusal(ROOT, Operation::DELETE).message,
            "Removing the log level of the root logger is not allowed"
        );
        assert_eq!(
            refusal(ROOT, Operation::APPEND).message,
            "APPEND operation is not allowed for the BROKER_LOGGER resource"
        );
        assert_eq!(
            refusal(ROOT, 7).message,
            "Unknown operation type 7 is not allowed for the BROKER_LOGGER resource"
        );
    }
}
