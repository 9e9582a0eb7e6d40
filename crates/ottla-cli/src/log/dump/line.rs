//! A line of output: a list of fields that is text or JSON. Pure.
//!
//! Fields have Kafka's names; JSON has them with underscores, and plainer ones for three of them. Bytes that are UTF-8
//! are a string. Others are hexadecimal in text, and in JSON base64, with a field beside them that says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ottla_records::{Header, TimestampType};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::output::printable;

/// What a line is of: the JSON's `type`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) kind: &'static str,
    /// Something is not as it should be.
    pub(super) is_damage: bool,
    pub(super) fields: Vec<(&'static str, Value)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Flag(bool),
    Number(i64),
    /// Words of ours, or Kafka's.
    Word(&'static str),
    /// What others wrote.
    Text(String),
    Bytes(Option<Bytes>),
    Headers(Vec<Header>),
    /// A time and who set it: one field of text under the name of its type.
    Time(TimestampType, i64),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl<T: Into<i64>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, |value| Self::Number(value.into()))
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl From<$number> for Value {
            fn from(value: $number) -> Self {
                Self::Number(value.into())
            }
        })*
    };
}
numbers!(i8, i16, i32, i64, u32);

/// Positions and sizes: no file has more bytes than an `i64` counts.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::None, Self::Number)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or(Self::None, Self::Number)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Word(value)
    }
}

impl Line {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, is_damage: false, fields: Vec::new() }
    }

    pub(super) fn damage(kind: &'static str) -> Self {
        Self { is_damage: true, ..Self::new(kind) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// `name: value name: value`, behind what tells the line from one of another kind.
    pub(super) fn text(&self) -> String {
        let fields: Vec<String> =
            self.fields.iter().map(|(name, value)| field(name, value)).collect();
        let fields = fields.join(" ");
        match self.kind {
            "record" => format!("| {fields}"),
            "damage" | "unfinished" | "unused" => format!("{}: {fields}", self.kind),
            _ => fields,
        }
    }

    pub(super) fn json(&self, file: &str) -> serde_json::Result<String> {
        serde_json::to_string(&Json { file, line: self })
    }
}

fn field(name: &str, value: &Value) -> String {
    match value {
        Value::Time(timestamp_type, time) => format!("{}: {time}", type_name(*timestamp_type)),
        Value::Headers(headers) => {
            let header =
                |it: &Header| format!("{}={}", shown(&it.key), shown_or_null(it.value.as_ref()));
            let headers: Vec<String> = headers.iter().map(header).collect();
            format!("{name}: [{}]", headers.join(","))
        }
        Value::None => format!("{name}: none"),
        Value::Flag(flag) => format!("{name}: {flag}"),
        Value::Number(number) => format!("{name}: {number}"),
        Value::Word(text) => format!("{name}: {text}"),
        Value::Text(text) => format!("{name}: {}", printable(text)),
        Value::Bytes(bytes) => format!("{name}: {}", shown_or_null(bytes.as_ref())),
    }
}

const fn type_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn shown_or_null(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| shown(bytes))
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => printable(text),
        Err(_) => bytes.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    }
}

struct Json<'a> {
    file: &'a str,
    line: &'a Line,
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("file", self.file)?;
        map.serialize_entry("type", self.line.kind)?;
        for (name, value) in &self.line.fields {
            let name = json_name(name);
            match value {
                Value::None => map.serialize_entry(&name, &())?,
                Value::Flag(flag) => map.serialize_entry(&name, flag)?,
                Value::Number(number) => map.serialize_entry(&name, number)?,
                Value::Word(text) => map.serialize_entry(&name, text)?,
                Value::Text(text) => map.serialize_entry(&name, text)?,
                Value::Bytes(bytes) => entry(&mut map, &name, bytes.as_deref())?,
                Value::Headers(headers) => {
                    let headers: Vec<JsonHeader<'_>> = headers.iter().map(JsonHeader).collect();
                    map.serialize_entry(&name, &headers)?;
                }
                Value::Time(timestamp_type, time) => {
                    map.serialize_entry("timestamp_type", type_name(*timestamp_type))?;
                    map.serialize_entry(&name, time)?;
                }
            }
        }
        map.end()
    }
}

struct JsonHeader<'a>(&'a Header);

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.key_text())?;
        entry(&mut map, "value", self.0.value.as_deref())?;
        map.end()
    }
}

/// The bytes under their name; the encoding appears only when they are not text.
fn entry<M: SerializeMap>(map: &mut M, name: &str, bytes: Option<&[u8]>) -> Result<(), M::Error> {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.serialize_entry(name, &()),
        Some(Ok(text)) => map.serialize_entry(name, text),
        Some(Err(bytes)) => {
            map.serialize_entry(name, &STANDARD.encode(bytes))?;
            map.serialize_entry(&format!("{name}_encoding"), "base64")
        }
    }
}

fn json_name(name: &str) -> String {
    match name {
        "compresscodec" => return "compression".to_owned(),
        "isvalid" => return "is_valid".to_owned(),
        "payload" => return "value".to_owned(),
        _ => {}
    }
    let lower = |letter: char| {
        let underscore = letter.is_ascii_uppercase().then_some('_');
        underscore.into_iter().chain(std::iter::once(letter.to_ascii_lowercase()))
    };
    name.chars().flat_map(lower).collect()
}
