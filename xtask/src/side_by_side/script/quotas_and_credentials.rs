//! Quotas and SCRAM credentials, of which there are none, and filters that make no sense.

use anyhow::Result;
use ottla_protocol::messages::describe_client_quotas_request::ComponentData;
use ottla_protocol::messages::describe_user_scram_credentials_request::UserName;
use ottla_protocol::messages::{DescribeClientQuotasRequest, DescribeUserScramCredentialsRequest};

use super::super::both::Both;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    for version in versions::<DescribeClientQuotasRequest>() {
        quotas(both, version)?;
    }
    for version in versions::<DescribeUserScramCredentialsRequest>() {
        for users in [
            None,
            Some(&[][..]),
            Some(&["a"]),
            Some(&["a", "b"]),
            Some(&["a", "b", "a"]),
            Some(&[""]),
        ] {
            both.ask(version, &format!("users {users:?}"), |_| {
                let user = |name: &&str| UserName { name: (*name).into() };
                DescribeUserScramCredentialsRequest {
                    users: users.map(|users| users.iter().map(user).collect()),
                }
            })?;
        }
    }
    Ok(())
}

type Component<'a> = (&'a str, i8, Option<&'a str>);

fn quotas(both: &mut Both, version: i16) -> Result<()> {
    let filters: &[&[Component<'_>]] = &[
        &[],
        &[("user", 0, Some("u"))],
        &[("user", 1, None), ("client-id", 2, None)],
        &[("ip", 0, Some("127.0.0.1"))],
        &[("ip", 2, None), ("user", 2, None)],
        &[("ip", 2, None), ("client-id", 1, None)],
        &[("user", 0, None)],
        &[("user", 1, Some("u"))],
        &[("user", 2, Some("u"))],
        &[("user", 3, None)],
        &[("user", -1, None)],
        &[("user", 2, None), ("user", 2, None)],
        &[("", 2, None)],
        &[("group", 2, None)],
        &[("User", 2, None)],
    ];
    for filter in filters {
        for strict in [false, true] {
            let component = |(entity_type, match_type, text): &Component<'_>| ComponentData {
                entity_type: (*entity_type).into(),
                match_type: *match_type,
                r#match: text.map(Into::into),
            };
            both.ask(version, &format!("{filter:?}, strict: {strict}"), |_| {
                DescribeClientQuotasRequest {
                    components: filter.iter().map(component).collect(),
                    strict,
                }
            })?;
        }
    }
    Ok(())
}
