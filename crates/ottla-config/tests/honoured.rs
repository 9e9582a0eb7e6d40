//! A row that says "honoured" is read by somebody: a property that nobody reads does nothing, whatever its text says.

use std::path::Path;
use std::{fs, io};

use ottla_config::property::{Scope, Status};
use ottla_config::table::{properties, topic_synonyms};

/// What this crate itself makes something of: what comes of it is read under another name.
const READ_HERE: &[(&str, &str)] = &[
    ("broker.id", "stands for node.id"),
    ("controller.listener.names", "says which listeners are controller_listeners"),
    ("listener.security.protocol.map", "is in each listener"),
    ("security.inter.broker.protocol", "stands for inter.broker.listener.name"),
    ("log.dir", "stands for log.dirs"),
    ("broker.rack", "is the field rack"),
    ("leader.replication.throttled.rate", "is Throttles::leader"),
    ("follower.replication.throttled.rate", "is Throttles::follower"),
    ("replica.alter.log.dirs.io.max.bytes.per.second", "is Throttles::moves"),
    ("internal.segment.bytes", "stands for segment.bytes"),
    ("internal.metadata.log.segment.bytes", "stands for metadata.log.segment.bytes"),
];

/// All code outside this crate that is not a test.
fn others() -> io::Result<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    for entry in fs::read_dir(crates)? {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() && !path.ends_with("ottla-config") {
            gather(&path.join("src"), &mut text)?;
        }
    }
    Ok(text)
}

fn gather(directory: &Path, text: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, text)?;
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let source = fs::read_to_string(&path)?;
            text.push_str(source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
    Ok(())
}

/// Whether the code reads the field that a property of this name becomes, or asks for the property by its name.
fn is_read(code: &str, name: &str) -> bool {
    let field = name.strip_prefix("ottla.").unwrap_or(name).replace('.', "_");
    is_field_read(code, &field) || code.contains(&format!("\"{name}\""))
}

fn is_field_read(code: &str, field: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    code.split(&format!(".{field}")).skip(1).any(ends)
}

/// The topic properties that have this one as their default.
fn topic_names(broker_name: &str) -> impl Iterator<Item = &'static str> {
    let falls_back =
        move |name: &&str| topic_synonyms(name).iter().any(|(it, _)| *it == broker_name);
    properties(Scope::Topic).map(|property| property.name).filter(falls_back)
}

#[test]
fn every_property_that_is_honoured_is_read() {
    let code = others().expect("the sources are here");
    let mut unread: Vec<&str> = Vec::new();
    for property in properties(Scope::Broker).chain(properties(Scope::Topic)) {
        let name = property.name;
        let is_known = READ_HERE.iter().any(|(known, _)| *known == name);
        let is_default = topic_names(name).any(|topic| is_read(&code, topic));
        let is_honoured = property.status == Status::Honoured;
        if is_honoured && !is_known && !is_default && !is_read(&code, name) {
            unread.push(name);
        }
    }
    assert_eq!(unread, [""; 0], "nobody outside this crate reads these");
}

#[test]
fn every_field_of_a_brokers_configuration_is_read() {
    let code = others().expect("the sources are here");
    let source = include_str!("../src/broker.rs");
    let fields = source.split("pub struct BrokerConfig {").nth(1).expect("it is there");
    let fields = fields.split("\n}").next().expect("it ends").lines();
    let name = |line: &'static str| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0);
    let names: Vec<&str> = fields.filter_map(name).collect();
    assert!(names.len() > 50, "{names:?}");
    let is_unread = |field: &&str| !is_field_read(&code, field) && !is_field_read(source, field);
    let unread: Vec<&str> = names.into_iter().filter(is_unread).collect();
    assert_eq!(unread, [""; 0], "nobody reads these");
}
