//! What a broker says it serves, and how it answers who asks in a version of the future.

use anyhow::{Context, Result};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::{Encoder, Message as _};

use super::super::both::Both;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.through_controllers(what_is_served)?;
    what_is_served(both)?;
    for version in [5, 99, i16::MAX, -1] {
        both.talk(&format!("ApiVersions v{version}: a version of the future"), |_, connection| {
            connection.send(&from_the_future(version));
            Ok(vec![connection.receive()?])
        })?;
    }
    Ok(())
}

fn what_is_served(both: &mut Both) -> Result<()> {
    let served = keys_of_both(both)?;
    // An API that one of them does not have is not advertised by it; of the others, everything must be equal.
    let comparable = |response: &mut ApiVersionsResponse| {
        response.api_keys.retain(|api| served.contains(&api.api_key));
    };
    for version in versions::<ApiVersionsRequest>() {
        both.ask_edited(version, "what is served", |_, _| request("a", "1"), comparable)?;
    }
    for version in 3..=4 {
        for (name, software_version) in [
            ("", "1"),
            ("a", ""),
            ("-a", "1"),
            ("a-", "1"),
            ("a", "1 2"),
            ("ü", "1"),
            ("a", "v.1-2"),
        ] {
            let what = format!("software {name:?} {software_version:?}");
            both.ask_edited(version, &what, |_, _| request(name, software_version), comparable)?;
        }
    }
    Ok(())
}

fn request(name: &str, version: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: name.into(),
        client_software_version: version.into(),
    }
}

/// The APIs that both have.
fn keys_of_both(both: &mut Both) -> Result<Vec<i16>> {
    let [kafka, ottla] = both.each(|subject| {
        let response = subject.ask(0, &ApiVersionsRequest::default())?.answer();
        let response = response.context("no answer says what is served")?;
        Ok(response.api_keys.iter().map(|api| api.api_key).collect::<Vec<_>>())
    })?;
    Ok(kafka.into_iter().filter(|key| ottla.contains(key)).collect())
}

/// Nobody knows what its body looks like; the header is that of all flexible versions.
fn from_the_future(version: i16) -> Vec<u8> {
    let mut frame = Encoder::new();
    let begin = frame.begin_frame();
    let header = ottla_protocol::header::RequestHeader {
        request_api_key: 18,
        request_api_version: version,
        correlation_id: 77,
        client_id: Some("future".into()),
    };
    header.encode(&mut frame, 2).expect("the header has no field that version 2 lacks");
    frame.raw(&[1, 2, 3, 4]);
    frame.end_frame(begin).expect("a short frame has a length");
    frame.into_bytes().to_vec()
}
