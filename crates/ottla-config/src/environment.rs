//! Properties from environment variables, as the official `apache/kafka` image maps them (pure).
//!
//! `KAFKA_` is dropped, letters become small, `___` becomes `-`, `__` becomes `_` and `_` becomes
//! `.`: `KAFKA_LOG_DIRS` is `log.dirs`. The image writes `name=value` lines, so values are read
//! with the properties syntax, backslashes included.

use crate::properties;

/// Variables of the image's start scripts and logging, which are no properties.
const NOT_PROPERTIES: &[&str] = &[
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// The property that a variable stands for, if it stands for one.
pub fn property_name(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("KAFKA_")?;
    if name.is_empty() || NOT_PROPERTIES.contains(&variable) {
        return None;
    }
    let dots = name.to_lowercase().replace('_', ".");
    Some(dots.replace("...", "-").replace("..", "_"))
}

/// The value as it arrives in the broker. A broken escape stays as it was written: the image
/// would not start, but a stray variable is no reason for that.
pub(crate) fn property_value(value: &str) -> String {
    properties::parse_value(value).unwrap_or_else(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_become_dots_underscores_and_dashes() {
        for (variable, name) in [
            ("KAFKA_LOG_DIRS", "log.dirs"),
            ("KAFKA_A__B", "a_b"),
            ("KAFKA_A___B", "a-b"),
            ("KAFKA_A____B", "a-.b"),
            ("KAFKA_LISTENER_NAME_EXT_SSL_KEY_PASSWORD", "listener.name.ext.ssl.key.password"),
        ] {
            assert_eq!(property_name(variable).as_deref(), Some(name), "{variable}");
        }
    }

    #[test]
    fn script_variables_and_foreign_ones_are_no_properties() {
        for variable in ["KAFKA_HEAP_OPTS", "KAFKA_VERSION", "PATH", "kafka_log_dirs", "KAFKA_"] {
            assert_eq!(property_name(variable), None, "{variable}");
        }
    }

    #[test]
    fn values_are_read_like_values_of_a_file() {
        assert_eq!(property_value("  a\\:b "), "a:b ");
        assert_eq!(property_value("\\u1"), "\\u1");
    }
}
