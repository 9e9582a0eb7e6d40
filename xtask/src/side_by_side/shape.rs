//! A request of any API with something in every list, text and bytes, and where its lengths stand (pure).
//!
//! Made from the field tables, not from the codecs: whoever adds an API adds its lengths. What is asked for exists
//! nowhere, so that no request changes anything, whatever a broker makes of it.

use ottla_base::Uuid;

use crate::protocol::schema::{Field, Schema, Type};

/// Not a name that a topic may have.
const TEXT: &str = "no such name!";
/// What a field that waits says: long enough for whoever must do something, not for whoever waits for records.
const TIMEOUT_MS: i32 = 10_000;

/// The bytes of a message, and its lengths in the order in which they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) bytes: Vec<u8>,
    pub(super) lengths: Vec<Length>,
}

/// One length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Length {
    /// `Topics[].Name`.
    pub(super) path: String,
    pub(super) at: usize,
    /// How many bytes it takes.
    size: usize,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of a text.
    Int16,
    /// Of bytes, or of a list.
    Int32,
    /// One more than the length, so that 0 is null.
    Compact,
    /// Of tagged fields: how many there are, and how long each is.
    Plain,
}

/// A length that is not true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lie {
    /// As a person would say it.
    pub(super) said: String,
    bytes: Vec<u8>,
}

impl Length {
    /// The largest that can be said, and what is less than nothing.
    pub(super) fn lies(&self) -> Vec<Lie> {
        let lie = |said: &str, bytes: Vec<u8>| Lie { said: said.to_owned(), bytes };
        match self.form {
            Form::Int16 => [i16::MAX, -1, -2, i16::MIN]
                .map(|length| lie(&length.to_string(), length.to_be_bytes().to_vec()))
                .to_vec(),
            Form::Int32 => [i32::MAX, -1, -2, i32::MIN]
                .map(|length| lie(&length.to_string(), length.to_be_bytes().to_vec()))
                .to_vec(),
            Form::Compact => vec![
                lie("32767", varint(0x8000)),
                lie("2147483647", varint(0x8000_0000)),
                lie("4294967294", varint(u32::MAX)),
                lie("null", varint(0)),
            ],
            Form::Plain => {
                vec![lie("2147483647", varint(0x7fff_ffff)), lie("4294967295", varint(u32::MAX))]
            }
        }
    }
}

impl Shape {
    /// The bytes with one length replaced by a lie.
    pub(super) fn with(&self, length: &Length, lie: &Lie) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.splice(length.at..length.at + length.size, lie.bytes.iter().copied());
        bytes
    }
}

/// Writes the header of a request. `flexible` headers have tagged fields, of which there are none.
pub(super) fn header(key: i16, version: i16, flexible: bool) -> Shape {
    let mut shape = Shape::default();
    shape.bytes.extend(key.to_be_bytes());
    shape.bytes.extend(version.to_be_bytes());
    shape.bytes.extend(CORRELATION_ID.to_be_bytes());
    shape.length("(header).ClientId", TEXT.len(), Form::Int16);
    shape.bytes.extend(TEXT.as_bytes());
    if flexible {
        shape.length("(header).tags", 0, Form::Plain);
    }
    shape
}

pub(super) const CORRELATION_ID: i32 = 5;

/// Adds the body of a request. `batch` stands for all records.
pub(super) fn body(shape: &mut Shape, schema: &Schema, version: i16, batch: &[u8]) {
    Writer { schema, version, batch, shape }.structure("", &schema.fields);
}

impl Shape {
    fn length(&mut self, path: &str, length: usize, form: Form) {
        let at = self.bytes.len();
        let length = u32::try_from(length).expect("requests of the test are short");
        match form {
            Form::Int16 => self.bytes.extend(length.to_be_bytes().into_iter().skip(2)),
            Form::Int32 => self.bytes.extend(length.to_be_bytes()),
            Form::Compact => self.bytes.extend(varint(length + 1)),
            Form::Plain => self.bytes.extend(varint(length)),
        }
        let size = self.bytes.len() - at;
        self.lengths.push(Length { path: path.to_owned(), at, size, form });
    }
}

struct Writer<'a> {
    schema: &'a Schema,
    version: i16,
    batch: &'a [u8],
    shape: &'a mut Shape,
}

impl Writer<'_> {
    fn structure(&mut self, path: &str, fields: &[Field]) {
        let version = self.version;
        let here = fields.iter().filter(|field| field.versions.contains(version));
        let (mut tagged, plain): (Vec<_>, Vec<_>) =
            here.partition(|field| field.tagged.contains(version));
        for field in plain {
            self.field(&join(path, &field.name), field);
        }
        if self.schema.flexible.contains(version) {
            tagged.sort_by_key(|field| field.tag);
            self.tagged(path, &tagged);
        }
    }

    fn tagged(&mut self, path: &str, fields: &[&Field]) {
        self.shape.length(&join(path, "tags"), fields.len(), Form::Plain);
        for field in fields {
            let path = join(path, &field.name);
            self.shape.bytes.extend(varint(field.tag.unwrap_or_default()));
            // How long it is stands before it: write it apart, then move it behind its length.
            let mut inside = Shape::default();
            let (schema, version, batch) = (self.schema, self.version, self.batch);
            Writer { schema, version, batch, shape: &mut inside }.field(&path, field);
            self.shape.length(&join(&path, "size"), inside.bytes.len(), Form::Plain);
            let moved = self.shape.bytes.len();
            self.shape.bytes.extend(inside.bytes);
            let behind = |length: Length| Length { at: length.at + moved, ..length };
            self.shape.lengths.extend(inside.lengths.into_iter().map(behind));
        }
    }

    fn field(&mut self, path: &str, field: &Field) {
        let is_structure = matches!(field.kind, Type::Struct(_));
        if is_structure && field.nullable.contains(self.version) {
            self.shape.bytes.push(1);
        }
        let compact = field.flexible.unwrap_or(self.schema.flexible).contains(self.version);
        self.value(path, &field.kind, compact, field);
    }

    fn value(&mut self, path: &str, kind: &Type, compact: bool, field: &Field) {
        let long = if compact { Form::Compact } else { Form::Int32 };
        match kind {
            Type::Struct(name) => {
                let schema = self.schema;
                let fields = schema.structure(name).expect("a table has its structures");
                self.structure(path, fields);
            }
            Type::Array(element) => {
                self.shape.length(&format!("{path}[]"), 1, long);
                self.value(&format!("{path}[]"), element, compact, field);
            }
            Type::String => {
                let form = if compact { Form::Compact } else { Form::Int16 };
                self.text(path, form, TEXT.as_bytes());
            }
            Type::Bytes => self.text(path, long, TEXT.as_bytes()),
            Type::Records => self.text(path, long, self.batch),
            Type::Uuid => self.shape.bytes.extend(NOBODYS_ID.0),
            Type::Bool
            | Type::Int8
            | Type::Int16
            | Type::Uint16
            | Type::Int32
            | Type::Uint32
            | Type::Int64
            | Type::Float64 => self.number(kind, field),
        }
    }

    fn text(&mut self, path: &str, form: Form, text: &[u8]) {
        self.shape.length(path, text.len(), form);
        self.shape.bytes.extend(text);
    }

    fn number(&mut self, kind: &Type, field: &Field) {
        let size = match kind {
            Type::Bool | Type::Int8 => 1,
            Type::Int16 | Type::Uint16 => 2,
            Type::Int32 | Type::Uint32 => 4,
            _ => 8,
        };
        let bytes = number_of(field).to_be_bytes();
        self.shape.bytes.extend(bytes.into_iter().skip(16 - size));
    }
}

/// A number with which a request is in good faith: from a client, for all acknowledgements, in its own time.
fn number_of(field: &Field) -> i128 {
    match &*field.name.to_ascii_lowercase() {
        "acks" | "replicaid" => -1,
        "timeoutms" => i128::from(TIMEOUT_MS),
        _ => field.default.as_deref().map_or(0, default_of),
    }
}

fn default_of(text: &str) -> i128 {
    match (text, text.strip_prefix("0x")) {
        // A client that may make topics by asking for them would change something.
        ("true" | "false", _) => 0,
        // A list that may be missing is there, with a number in it.
        ("null", _) => 0,
        (_, Some(digits)) => i128::from_str_radix(digits, 16).expect("a table holds numbers"),
        (number, None) => number.parse().expect("a table holds numbers"),
    }
}

const NOBODYS_ID: Uuid = super::subject::NOBODYS_ID;

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ottla_protocol::messages::{FetchRequest, ProduceRequest};
    use ottla_protocol::{Decoder, Message as _};

    use super::*;
    use crate::protocol::tables;

    fn shape(name: &str, version: i16) -> Shape {
        let tables = tables().unwrap();
        let schema = tables.iter().find(|schema| schema.name == name).unwrap();
        let mut shape = Shape::default();
        body(&mut shape, schema, version, b"batch");
        shape
    }

    #[test]
    fn a_shape_is_a_request_with_something_in_everything() {
        let shape = shape("ProduceRequest", 9);
        let mut input = Decoder::new(Bytes::from(shape.bytes));
        let request = ProduceRequest::decode(&mut input, 9).unwrap();
        input.finish().unwrap();
        assert_eq!(request.transactional_id.unwrap(), TEXT);
        assert_eq!((request.acks, request.timeout_ms), (-1, TIMEOUT_MS));
        let data = &request.topic_data[0].partition_data[0];
        assert_eq!(data.records.as_ref().unwrap().len(), 5);
    }

    #[test]
    fn every_length_is_found_those_in_tagged_fields_too() {
        let shape = shape("FetchRequest", 17);
        FetchRequest::decode(&mut Decoder::new(Bytes::from(shape.bytes.clone())), 17).unwrap();
        let paths: Vec<_> = shape.lengths.iter().map(|length| &*length.path).collect();
        for path in ["Topics[]", "Topics[].Partitions[]", "RackId", "tags", "ClusterId.size"] {
            assert!(paths.contains(&path), "{path} is not among {paths:?}");
        }
        let cluster = shape.lengths.iter().find(|length| length.path == "ClusterId").unwrap();
        let text = &shape.bytes[cluster.at + 1..];
        assert!(text.starts_with(TEXT.as_bytes()), "it does not stand where it should");
    }

    #[test]
    fn no_lie_is_read_as_what_was_there() {
        for (name, version) in [("FetchRequest", 4), ("FetchRequest", 17)] {
            let shape = shape(name, version);
            for length in &shape.lengths {
                for lie in length.lies() {
                    assert_ne!(shape.with(length, &lie), shape.bytes, "{}", length.path);
                }
            }
        }
    }
}
