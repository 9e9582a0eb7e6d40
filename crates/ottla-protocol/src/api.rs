//! Kafka's APIs: key, name, versions, and the listeners that serve them.

use std::fmt;
use std::ops::RangeInclusive;

pub use crate::generated::api::ApiKey;

/// Whom a listener talks to: clients and brokers, or the members of the controller quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    Broker,
    Controller,
}

/// A number that no API of Kafka 4.3 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no API has the key {0}")]
pub struct UnknownApiKey(pub i16);

/// One row of the table.
pub(crate) struct Api {
    pub(crate) name: &'static str,
    pub(crate) versions: (i16, i16),
    /// The first flexible version of the request, then of the response.
    pub(crate) flexible: (i16, i16),
    pub(crate) listeners: &'static [Listener],
    pub(crate) latest_unstable: bool,
}

macro_rules! define_api_keys {
    ($($name:ident = $key:literal, $low:literal..=$high:literal, flexible $request:expr_2021, $response:expr_2021,
        on [$($listener:ident),+], latest_unstable $unstable:literal;)*) => {
        /// The key by which a request names its API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every API, by ascending key.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub(crate) const fn row(self) -> crate::api::Api {
                match self {
                    $(Self::$name => crate::api::Api {
                        name: stringify!($name),
                        versions: ($low, $high),
                        flexible: ($request, $response),
                        listeners: &[$(crate::api::Listener::$listener,)+],
                        latest_unstable: $unstable,
                    },)*
                }
            }
        }

        impl TryFrom<i16> for ApiKey {
            type Error = crate::api::UnknownApiKey;

            fn try_from(key: i16) -> Result<Self, Self::Error> {
                match key {
                    $($key => Ok(Self::$name),)*
                    _ => Err(crate::api::UnknownApiKey(key)),
                }
            }
        }
    };
}
pub(crate) use define_api_keys;

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// The name as Kafka spells it, `ListOffsets`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Every version, that which is not stable yet included.
    #[must_use]
    pub const fn versions(self) -> RangeInclusive<i16> {
        let (low, high) = self.row().versions;
        low..=high
    }

    /// The versions that Kafka serves unless `unstable.api.versions.enable` is set.
    #[must_use]
    pub const fn stable_versions(self) -> RangeInclusive<i16> {
        let Api { versions: (low, high), latest_unstable, .. } = self.row();
        if latest_unstable { low..=high - 1 } else { low..=high }
    }

    /// Whether the latest version may still change.
    #[must_use]
    pub const fn latest_unstable(self) -> bool {
        self.row().latest_unstable
    }

    #[must_use]
    pub const fn listeners(self) -> &'static [Listener] {
        self.row().listeners
    }

    #[must_use]
    pub fn is_on(self, listener: Listener) -> bool {
        self.listeners().contains(&listener)
    }

    /// Whether the request has compact lengths and tagged fields in this version.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.row().flexible.0
    }

    /// The version of the header in front of the request. It is defined for versions that we do not know, too:
    /// ApiVersions must be answered in any version.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header in front of the response. That of ApiVersions is always the oldest, since a client
    /// reads it before it knows what the broker speaks (KIP-511).
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        let is_flexible = version >= self.row().flexible.1 && !matches!(self, Self::ApiVersions);
        if is_flexible { 1 } else { 0 }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_on_the_wire_and_the_name_are_two_forms_of_the_same_key() {
        for api in ApiKey::ALL {
            assert_eq!(ApiKey::try_from(api.key()), Ok(*api));
        }
        assert_eq!(ApiKey::Fetch.key(), 1);
        assert_eq!(ApiKey::Fetch.to_string(), "Fetch");
        assert_eq!(ApiKey::try_from(4), Err(UnknownApiKey(4)), "LeaderAndIsr is gone since 4.0");
    }

    #[test]
    fn only_the_last_version_of_init_producer_id_is_unstable() {
        let unstable: Vec<_> = ApiKey::ALL.iter().filter(|api| api.latest_unstable()).collect();
        assert_eq!(unstable, [&ApiKey::InitProducerId]);
        assert_eq!(ApiKey::InitProducerId.stable_versions(), 0..=5);
        assert_eq!(ApiKey::InitProducerId.versions(), 0..=6);
    }

    #[test]
    fn the_answer_to_api_versions_never_has_a_flexible_header() {
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
        assert_eq!(ApiKey::Metadata.response_header_version(9), 1);
    }

    #[test]
    fn sasl_handshake_and_offset_delete_are_never_flexible() {
        for api in [ApiKey::SaslHandshake, ApiKey::OffsetDelete] {
            assert_eq!(api.request_header_version(*api.versions().end()), 1);
            assert_eq!(api.response_header_version(*api.versions().end()), 0);
        }
    }

    #[test]
    fn the_table_is_kafkas() {
        assert_eq!(ApiKey::ALL.len(), 89);
        assert_eq!(ApiKey::Produce.versions(), 3..=13);
        assert!(ApiKey::Vote.is_on(Listener::Controller) && !ApiKey::Vote.is_on(Listener::Broker));
    }
}
