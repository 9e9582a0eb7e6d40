//! ACLs without an authorizer, and SASL on a listener without it.

use anyhow::Result;
use ottla_protocol::messages::create_acls_request::AclCreation;
use ottla_protocol::messages::delete_acls_request::DeleteAclsFilter;
use ottla_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};

use super::super::both::Both;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    ask_all(both)?;
    both.through_controllers(ask_all)
}

fn ask_all(both: &mut Both) -> Result<()> {
    for version in versions::<DescribeAclsRequest>() {
        let any = DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        both.ask(version, "anything", |_| any.clone())?;
        both.ask(version, "a topic", |_| DescribeAclsRequest {
            resource_type_filter: 2,
            resource_name_filter: Some("t".into()),
            principal_filter: Some("User:u".into()),
            host_filter: Some("*".into()),
            operation: 3,
            permission_type: 3,
            ..any.clone()
        })?;
        for unknown in [
            DescribeAclsRequest { resource_type_filter: 0, ..any.clone() },
            DescribeAclsRequest { pattern_type_filter: 0, ..any.clone() },
            DescribeAclsRequest { operation: 0, ..any.clone() },
            DescribeAclsRequest { permission_type: 0, ..any.clone() },
            DescribeAclsRequest { resource_type_filter: 99, operation: -1, ..any.clone() },
        ] {
            both.ask(version, "of an unknown kind", |_| unknown.clone())?;
        }
    }
    for version in versions::<CreateAclsRequest>() {
        let creation = AclCreation {
            resource_type: 2,
            resource_name: "t".into(),
            resource_pattern_type: 3,
            principal: "User:u".into(),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
        };
        for count in [0, 1, 3] {
            both.ask(version, &format!("{count} ACLs"), |_| CreateAclsRequest {
                creations: vec![creation.clone(); count],
            })?;
        }
        for unknown in [
            AclCreation { resource_type: 0, ..creation.clone() },
            AclCreation { resource_pattern_type: 0, ..creation.clone() },
            AclCreation { operation: 0, ..creation.clone() },
            AclCreation { permission_type: 0, ..creation.clone() },
            AclCreation { resource_type: 99, permission_type: -1, ..creation.clone() },
        ] {
            both.ask(version, "of an unknown kind", |_| CreateAclsRequest {
                creations: vec![creation.clone(), unknown.clone()],
            })?;
        }
    }
    for version in versions::<DeleteAclsRequest>() {
        let filter = DeleteAclsFilter {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        for count in [0, 1, 3] {
            both.ask(version, &format!("{count} filters"), |_| DeleteAclsRequest {
                filters: vec![filter.clone(); count],
            })?;
        }
        for unknown in [
            DeleteAclsFilter { resource_type_filter: 0, ..filter.clone() },
            DeleteAclsFilter { pattern_type_filter: 0, ..filter.clone() },
            DeleteAclsFilter { operation: 0, ..filter.clone() },
            DeleteAclsFilter { permission_type: 0, ..filter.clone() },
            DeleteAclsFilter { resource_type_filter: 99, operation: -1, ..filter.clone() },
        ] {
            both.ask(version, "of an unknown kind", |_| DeleteAclsRequest {
                filters: vec![filter.clone(), unknown.clone()],
            })?;
        }
    }
    sasl(both)
}

fn sasl(both: &mut Both) -> Result<()> {
    for version in versions::<SaslHandshakeRequest>() {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "", "no such"] {
            both.ask(version, &format!("mechanism {mechanism:?}"), |_| SaslHandshakeRequest {
                mechanism: mechanism.into(),
            })?;
        }
    }
    for version in versions::<SaslAuthenticateRequest>() {
        for auth_bytes in [&b""[..], b"\0user\0password"] {
            both.ask(version, &format!("{} bytes", auth_bytes.len()), |_| {
                SaslAuthenticateRequest { auth_bytes: auth_bytes.into() }
            })?;
        }
    }
    Ok(())
}
