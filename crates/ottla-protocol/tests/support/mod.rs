//! What the tests share: all messages by name, their field tables, and random bytes that fit a table.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod random;
#[path = "../../../../xtask/src/protocol/schema.rs"]
pub(crate) mod schema;
pub(crate) mod table;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ottla_protocol::{DecodeError, Decoder, Encoder, Message};

use self::schema::Schema;

/// What can be done with a message of which only the name is known.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) versions: RangeInclusive<i16>,
    /// Reads all bytes as the message, and writes it again.
    pub(crate) rewrite: fn(Bytes, i16) -> anyhow::Result<Bytes>,
    pub(crate) decode: fn(Bytes, i16) -> Result<(), DecodeError>,
    /// Writes a message in which every field has its default value.
    pub(crate) write_default: fn(i16) -> anyhow::Result<Bytes>,
}

pub(crate) const fn entry<M: Message>() -> Entry {
    Entry {
        name: M::NAME,
        versions: M::VERSIONS,
        rewrite: |bytes, version| {
            let mut input = Decoder::new(bytes);
            let message = M::decode(&mut input, version)?;
            input.finish()?;
            let mut output = Encoder::new();
            message.encode(&mut output, version)?;
            Ok(output.into_bytes())
        },
        decode: |bytes, version| M::decode(&mut Decoder::new(bytes), version).map(|_| ()),
        write_default: |version| {
            let mut output = Encoder::new();
            M::default().encode(&mut output, version)?;
            Ok(output.into_bytes())
        },
    }
}

pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    table::ALL.iter().find(|entry| entry.name == name)
}

/// The field tables of all messages, Kafka's fields alone.
pub(crate) fn kafka_schemas() -> Vec<Schema> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let of_kafka = |path: &PathBuf| path.is_dir() && !path.ends_with(EXTENSIONS);
    let folders = list(&folder).into_iter().filter(of_kafka);
    let mut schemas: Vec<Schema> = folders.flat_map(|folder| read(&folder)).collect();
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(schemas.len(), table::ALL.len(), "a table for each message");
    schemas
}

/// The field tables of all messages with our own fields.
pub(crate) fn schemas() -> Vec<Schema> {
    let mut schemas = kafka_schemas();
    for extension in extensions() {
        let extended = schemas.iter_mut().find(|schema| schema.name == extension.name).unwrap();
        extended.extend(&extension).unwrap();
    }
    schemas
}

/// Our own fields alone.
pub(crate) fn extensions() -> Vec<Schema> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(EXTENSIONS))
}

const EXTENSIONS: &str = "extensions";

fn read(folder: &Path) -> Vec<Schema> {
    let texts = list(folder).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
    texts.map(|text| text.parse().unwrap()).collect()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
