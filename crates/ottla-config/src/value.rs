//! A property's value, read and written the way Kafka reads and writes it (pure).
//!
//! Surrounding blanks never count; numbers are decimal; booleans ignore case; lists are separated
//! by commas. The written form is the one that DescribeConfigs sends.

use std::fmt;

use crate::property::Kind;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    String(String),
    Int(i32),
    Short(i16),
    Long(i64),
    Double(f64),
    List(Vec<String>),
    /// A Java class name. There is no class path here: any name is taken as it stands.
    Class(String),
    Password(Password),
}

/// A secret: neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub fn new(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Value {
    /// Reads `text`; the error is what a value of this type must be, in Kafka's words.
    ///
    /// # Errors
    /// What a value of this type must be, in Kafka's words.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let trimmed = java_trim(text);
        let not_a_number = || format!("Not a number of type {}", kind.name());
        match kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Self::Boolean(true)),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Self::Boolean(false)),
            Kind::Boolean => Err("Expected value to be either true or false".to_owned()),
            Kind::Int => trimmed.parse().map(Self::Int).map_err(|_| not_a_number()),
            Kind::Short => trimmed.parse().map(Self::Short).map_err(|_| not_a_number()),
            Kind::Long => trimmed.parse().map(Self::Long).map_err(|_| not_a_number()),
            Kind::Double => parse_double(trimmed).map(Self::Double).ok_or_else(not_a_number),
            Kind::List => Ok(Self::List(split_list(trimmed))),
            Kind::String => Ok(Self::String(trimmed.to_owned())),
            Kind::Class => Ok(Self::Class(trimmed.to_owned())),
            Kind::Password => Ok(Self::Password(Password::new(trimmed.to_owned()))),
        }
    }

    /// A whole number of any width.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(i64::from(*n)),
            Self::Short(n) => Some(i64::from(*n)),
            Self::Long(n) => Some(*n),
            Self::Boolean(_)
            | Self::String(_)
            | Self::Double(_)
            | Self::List(_)
            | Self::Class(_)
            | Self::Password(_) => None,
        }
    }

    /// The entries of a list.
    pub fn items(&self) -> Option<&[String]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// The value as a number, for range checks: `f64`, as Kafka compares.
    pub(crate) fn number(&self) -> Option<f64> {
        if let Self::Double(n) = self {
            return Some(*n);
        }
        // Beyond 2^53 the comparison loses digits, exactly as Kafka's does.
        self.integer().map(|n| n as f64)
    }
}

/// The written form of DescribeConfigs. A password stays hidden.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Short(n) => write!(f, "{n}"),
            Self::Long(n) => write!(f, "{n}"),
            Self::Double(n) => f.write_str(&java_double(*n)),
            Self::List(items) => f.write_str(&items.join(",")),
            Self::String(s) | Self::Class(s) => f.write_str(s),
            Self::Password(p) => write!(f, "{p}"),
        }
    }
}

/// Java's `String.trim`: everything up to and including the blank goes, nothing else does.
pub(crate) fn java_trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// Empty text is an empty list; otherwise commas separate, with blanks around them ignored, and
/// an empty piece stays (so that the check can refuse it).
pub(crate) fn split_list(trimmed: &str) -> Vec<String> {
    if trimmed.is_empty() {
        return Vec::new();
    }
    // Java's `\s` in the separator: these six and no other blank.
    let blank = |c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let last = trimmed.matches(',').count();
    trimmed
        .split(',')
        .enumerate()
        .map(|(at, piece)| {
            // Only blanks next to a comma belong to the separator.
            let piece = if at > 0 { piece.trim_start_matches(blank) } else { piece };
            if at < last { piece.trim_end_matches(blank) } else { piece }
        })
        .map(str::to_owned)
        .collect()
}

/// Java's `Double.parseDouble`, without its hexadecimal form.
fn parse_double(trimmed: &str) -> Option<f64> {
    let unsigned = trimmed.trim_start_matches(['+', '-']);
    if unsigned == "NaN" || unsigned == "Infinity" {
        return trimmed.parse().ok();
    }
    // Java takes a type suffix, Rust takes words that Java does not ("inf", "nan").
    let digits = trimmed.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(trimmed);
    let decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    digits.chars().all(decimal).then(|| digits.parse().ok()).flatten()
}

/// Java's `Double.toString`: at least one digit after the point, and an exponent outside
/// 10^-3 .. 10^7.
pub(crate) fn java_double(n: f64) -> String {
    let size = n.abs();
    if n.is_nan() {
        "NaN".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if size == 0.0 || (1e-3..1e7).contains(&size) {
        let plain = format!("{n}");
        if plain.contains('.') { plain } else { format!("{plain}.0") }
    } else {
        let scientific = format!("{n:E}");
        match scientific.split_once('E') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => {
                format!("{mantissa}.0E{exponent}")
            }
            _ => scientific,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        Value::parse(Kind::List, text).unwrap().items().unwrap().to_vec()
    }

    #[test]
    fn blanks_around_a_value_do_not_count() {
        assert_eq!(Value::parse(Kind::Int, " \t42\r\n"), Ok(Value::Int(42)));
        assert_eq!(Value::parse(Kind::Boolean, " TRUE "), Ok(Value::Boolean(true)));
    }

    #[test]
    fn a_number_that_does_not_fit_its_type_is_not_a_number_of_that_type() {
        assert_eq!(
            Value::parse(Kind::Int, "2147483648"),
            Err("Not a number of type INT".to_owned())
        );
        assert_eq!(Value::parse(Kind::Long, "2147483648"), Ok(Value::Long(2_147_483_648)));
        assert_eq!(Value::parse(Kind::Short, "1e2"), Err("Not a number of type SHORT".to_owned()));
    }

    #[test]
    fn lists_are_separated_by_commas_and_blanks_around_them() {
        assert_eq!(list("  "), Vec::<String>::new());
        assert_eq!(list(" a , b,c "), ["a", "b", "c"]);
        assert_eq!(list("a,,b,"), ["a", "", "b", ""]);
    }

    #[test]
    fn doubles_are_read_and_written_as_java_does() {
        for (text, written) in [
            ("0.5", "0.5"),
            ("1", "1.0"),
            ("1e7", "1.0E7"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
            ("0.0001", "1.0E-4"),
            ("5d", "5.0"),
            ("-Infinity", "-Infinity"),
        ] {
            let value = Value::parse(Kind::Double, text).unwrap();
            assert_eq!(value.to_string(), written, "{text}");
        }
        assert!(Value::parse(Kind::Double, "inf").is_err());
        assert!(Value::parse(Kind::Double, "").is_err());
    }

    #[test]
    fn a_password_never_shows_itself() {
        let value = Value::parse(Kind::Password, "secret").unwrap();
        assert_eq!(value.to_string(), "[hidden]");
        assert!(!format!("{value:?}").contains("secret"));
    }
}
