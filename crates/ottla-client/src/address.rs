//! Where a broker listens: host and port, as people write them. Pure.

use std::fmt;
use std::str::FromStr;

/// Kafka's customary port, used where none is written.
const DEFAULT_PORT: u16 = 9092;

/// A host name or IP address, and a port. Names are resolved when a connection is opened, so
/// that a broker which moves is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Without the brackets that an IPv6 address is written in.
    pub host: String,
    pub port: u16,
}

/// What was written is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    #[error("\"{0}\" is not an address: write HOST:PORT, such as localhost:9092 or [::1]:9092")]
    Form(String),
    /// It would be, with another number.
    #[error("\"{0}\" is not an address: its port is not between 1 and 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError::Form(text.to_owned());
        let (host, port) = split(text).ok_or_else(error)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if is_number(port) => port.parse().unwrap_or_default(),
            Some(_) => return Err(error()),
        };
        let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        match port {
            _ if !plain => Err(error()),
            0 => Err(AddressError::Port(text.to_owned())),
            port => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit())
}

/// Host and port, the port unread. An IPv6 address may go without brackets if it has no port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Address>().map_or_else(|error| error.to_string(), |a| a.to_string())
    }

    #[test]
    fn a_port_that_is_not_written_is_kafkas() {
        assert_eq!(shown("broker"), "broker:9092");
        assert_eq!(shown("broker:19092"), "broker:19092");
        assert_eq!(shown("[::1]"), "[::1]:9092");
        assert_eq!(shown("::1"), "[::1]:9092");
        assert_eq!(shown("[fe80::2]:1"), "[fe80::2]:1");
    }

    #[test]
    fn what_is_no_address_says_how_one_is_written() {
        for wrong in
            ["", ":9092", ":99999", "a:", "a:b", "a:-", "[::1", "[::1]x", "http://a", "a b"]
        {
            assert!(shown(wrong).contains("write HOST:PORT"), "{wrong:?} gave {}", shown(wrong));
        }
    }

    #[test]
    fn a_port_that_there_is_not_is_called_that() {
        for wrong in ["a:0", "a:65536", "a:99999", "a:-1", "[::1]:99999999999999999999"] {
            let expected =
                format!("\"{wrong}\" is not an address: its port is not between 1 and 65535");
            assert_eq!(shown(wrong), expected);
        }
    }
}
