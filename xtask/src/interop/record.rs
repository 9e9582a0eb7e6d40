//! Records as clients write and read them, and the shapes that every client must carry (pure).

use serde_json::{Value, json};

/// One record, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub(crate) fn new(
        partition: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        Self {
            partition,
            timestamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    pub(crate) fn with_header(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        let headers: Vec<Value> = self
            .headers
            .iter()
            .map(|(name, value)| json!([name, value.as_deref().map(hex)]))
            .collect();
        json!({
            "partition": self.partition,
            "timestamp": self.timestamp,
            "key": self.key.as_deref().map(hex),
            "value": self.value.as_deref().map(hex),
            "headers": headers,
        })
    }

    /// A consumed record and its offset; `None` when the adapter broke the protocol.
    pub(crate) fn from_json(value: &Value) -> Option<(i64, Self)> {
        let header = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), bytes(pair.get(1)?)?));
        let record = Self {
            partition: i32::try_from(value.get("partition")?.as_i64()?).ok()?,
            timestamp: value.get("timestamp")?.as_i64()?,
            key: bytes(value.get("key")?)?,
            value: bytes(value.get("value")?)?,
            headers: value.get("headers")?.as_array()?.iter().map(header).collect::<Option<_>>()?,
        };
        Some((value.get("offset")?.as_i64()?, record))
    }

    /// What tells two records apart, short enough to read.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let fields = [
            ("partition", self.partition.to_string(), other.partition.to_string()),
            ("timestamp", self.timestamp.to_string(), other.timestamp.to_string()),
            ("key", shown(self.key.as_deref()), shown(other.key.as_deref())),
            ("value", shown(self.value.as_deref()), shown(other.value.as_deref())),
            ("headers", format!("{:?}", self.headers), format!("{:?}", other.headers)),
        ];
        if self == other {
            return None;
        }
        let differing = fields.iter().find(|(_, mine, theirs)| mine != theirs);
        Some(differing.map_or_else(
            || "the same length, other bytes".to_owned(),
            |(name, mine, theirs)| format!("{name} is {theirs}, written was {mine}"),
        ))
    }
}

fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() <= 40 => format!("{:?}", String::from_utf8_lossy(bytes)),
        Some(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// Keys, values and headers of every kind; `start` is the first timestamp.
pub(crate) fn shapes(start: i64) -> Vec<Record> {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let text = "a line that compresses well\n".repeat(400);
    let mut records = vec![
        Record::new(0, start, Some(b"key"), Some(b"value")),
        Record::new(0, start + 1, None, Some(b"without a key")),
        Record::new(0, start + 2, Some(b""), Some(b"with an empty key")),
        Record::new(0, start + 3, Some(b"tombstone"), None),
        Record::new(0, start + 4, Some(b"empty"), Some(b"")),
        Record::new(0, start + 5, None, None),
        Record::new(0, start + 6, Some(&every_byte), Some(&every_byte)),
        Record::new(
            0,
            start + 7,
            Some("Schlüssel".as_bytes()),
            Some("Österreich 漢字 🦦".as_bytes()),
        ),
        Record::new(0, start + 8, Some(b"text"), Some(text.as_bytes())),
        Record::new(0, start + 9, Some(b"noise"), Some(&noise(100_000, 7))),
        Record::new(0, start + 10, Some(b"headers"), Some(b"one of each"))
            .with_header("plain", Some(b"text"))
            .with_header("empty", Some(b""))
            .with_header("null", None)
            .with_header("twice", Some(b"first"))
            .with_header("twice", Some(b"second"))
            .with_header("bytes", Some(&every_byte)),
    ];
    let many = (0..200).map(|i| {
        let (key, value) = (format!("key {}", i % 7), format!("value {i}"));
        Record::new(0, start + 11 + i, Some(key.as_bytes()), Some(value.as_bytes()))
    });
    records.extend(many);
    records
}

/// Bytes that no codec makes smaller, the same for the same seed (xorshift).
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Hexadecimal text as bytes; the outer `None` means that it is neither text nor null.
fn bytes(value: &Value) -> Option<Option<Vec<u8>>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) => unhex(text).map(Some),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        &[high, low] => Some((digit(high)? << 4) | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_survives_the_adapter_protocol() {
        for (offset, record) in (0..).zip(shapes(1_000)) {
            let mut json = record.to_json();
            json["offset"] = json!(offset);
            assert_eq!(Record::from_json(&json), Some((offset, record)));
        }
    }

    #[test]
    fn a_difference_names_the_field() {
        let written = Record::new(0, 1, None, Some(b"a"));
        let read = Record::new(0, 1, None, None);
        assert_eq!(written.difference(&written.clone()), None);
        assert_eq!(written.difference(&read).as_deref(), Some("value is null, written was \"a\""));
    }
}
