//! Addresses to listen on and to tell clients, as `NAME://HOST:PORT` (pure).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::check::is_host;

/// Every interface, when listening; nobody can connect to it.
pub(crate) const NON_ROUTABLE: &str = "0.0.0.0";

/// One listener, or one advertised address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In capitals, as Kafka keeps it.
    pub name: String,
    /// `None` is every interface; as an advertised address, whatever this machine is called.
    pub host: Option<String>,
    /// 0 is a free port, known when the listener is bound.
    pub port: u16,
    pub protocol: SecurityProtocol,
}

/// What is spoken below Kafka's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// The number in a broker's registration.
    pub const fn code(self) -> i16 {
        self as i16
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl]
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(text))
    }
}

impl Listener {
    /// Whether a host is a loopback address, as far as names tell, and leads to this listener.
    pub(crate) fn is_reached_on_loopback(&self, host: &str) -> bool {
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let leads_here = match self.host.as_deref() {
            None | Some(NON_ROUTABLE | "::") => true,
            Some("localhost" | "127.0.0.1" | "::1") => {
                !host.parse().is_ok_and(|it: Ipv4Addr| it != Ipv4Addr::LOCALHOST)
            }
            Some(own) => own.eq_ignore_ascii_case(host),
        };
        is_loopback && leads_here
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or_default();
        if host.contains(':') {
            write!(f, "{}://[{host}]:{}", self.name, self.port)
        } else {
            write!(f, "{}://{host}:{}", self.name, self.port)
        }
    }
}

/// `listener.security.protocol.map` as it applies.
#[derive(Clone, Debug)]
pub(crate) struct ProtocolMap(BTreeMap<String, SecurityProtocol>);

impl ProtocolMap {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut map = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, protocol) = pair
                .rsplit_once(':')
                .ok_or_else(|| format!("{pair} is not of the form NAME:PROTOCOL"))?;
            let protocol = SecurityProtocol::parse(protocol.trim())
                .ok_or_else(|| format!("{protocol} is no security protocol"))?;
            map.insert(name.trim().to_uppercase(), protocol);
        }
        Ok(Self(map))
    }

    /// Without a map of their own, controller listeners speak PLAINTEXT unless a name says else.
    pub(crate) fn add_controllers(&mut self, names: &[String]) {
        for name in names {
            self.0.entry(name.to_uppercase()).or_insert(SecurityProtocol::Plaintext);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<SecurityProtocol> {
        self.0.get(name).copied()
    }
}

/// Reads `listeners` or `advertised.listeners`.
pub(crate) fn parse_all(entries: &[String], map: &ProtocolMap) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in entries {
        let listener = parse(entry, map)?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(format!("each listener needs a name of its own: {} twice", listener.name));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn parse(entry: &str, map: &ProtocolMap) -> Result<Listener, String> {
    let form = || format!("{entry} is not of the form NAME://HOST:PORT");
    let (name, address) = entry.rsplit_once("://").ok_or_else(form)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    if !is_host(host) {
        return Err(form());
    }
    let port = port.parse().map_err(|_| format!("{port} in {entry} is no port: 0 to 65535"))?;
    let name = name.to_uppercase();
    let protocol = map
        .get(&name)
        .ok_or_else(|| format!("listener {name} has no entry in listener.security.protocol.map"))?;
    Ok(Listener { name, host: (!host.is_empty()).then(|| host.to_owned()), port, protocol })
}

/// Two listeners on one port: allowed for one IPv4 and one IPv6 address only.
pub(crate) fn clash(listeners: &[Listener]) -> Option<(&Listener, &Listener)> {
    let is_v6 = |listener: &Listener| {
        listener.host.as_deref().and_then(|h| h.parse().ok()).map(|ip: IpAddr| ip.is_ipv6())
    };
    let clashing = |a: &Listener, b: &Listener| {
        a.port != 0
            && a.port == b.port
            && !matches!((is_v6(a), is_v6(b)), (Some(x), Some(y)) if x != y)
    };
    listeners
        .iter()
        .enumerate()
        .find_map(|(at, a)| listeners.iter().skip(at + 1).find(|b| clashing(a, b)).map(|b| (a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ProtocolMap {
        ProtocolMap::parse("PLAINTEXT:PLAINTEXT, ssl:SSL,controller:plaintext").unwrap()
    }

    fn one(entry: &str) -> Result<Listener, String> {
        parse_all(&[entry.to_owned()], &map()).map(|mut listeners| listeners.remove(0))
    }

    #[test]
    fn an_empty_host_is_every_interface_and_names_are_capitals() {
        let listener = one("plaintext://:9092").unwrap();
        assert_eq!(
            (listener.name.as_str(), listener.host, listener.port),
            ("PLAINTEXT", None, 9092)
        );
    }

    #[test]
    fn an_ipv6_address_loses_and_regains_its_brackets() {
        let listener = one("PLAINTEXT://[::1]:9092").unwrap();
        assert_eq!(listener.host.as_deref(), Some("::1"));
        assert_eq!(listener.to_string(), "PLAINTEXT://[::1]:9092");
    }

    #[test]
    fn the_map_decides_the_protocol() {
        assert_eq!(one("SSL://h:1").unwrap().protocol, SecurityProtocol::Ssl);
        assert_eq!(
            one("CLIENT://h:1").unwrap_err(),
            "listener CLIENT has no entry in listener.security.protocol.map"
        );
    }

    #[test]
    fn what_is_no_address_is_named() {
        for entry in ["localhost:9092", "PLAINTEXT://localhost", "PLAINTEXT://a b:1"] {
            assert_eq!(
                one(entry).unwrap_err(),
                format!("{entry} is not of the form NAME://HOST:PORT")
            );
        }
        assert!(one("PLAINTEXT://h:65536").unwrap_err().contains("65536"));
    }

    #[test]
    fn two_listeners_share_a_port_only_as_ipv4_and_ipv6() {
        let all = |entries: [&str; 2]| parse_all(&entries.map(str::to_owned), &map()).unwrap();
        assert!(clash(&all(["PLAINTEXT://:1", "SSL://:1"])).is_some());
        assert!(clash(&all(["PLAINTEXT://127.0.0.1:1", "SSL://[::1]:1"])).is_none());
        assert!(clash(&all(["PLAINTEXT://:0", "SSL://:0"])).is_none());
    }
}
