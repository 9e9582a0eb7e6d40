//! Fetched record batches as named fields, down to each record (pure).

use bytes::Bytes;
use ottla_records::{Batches, RawBatch, TimestampType};

use super::value::Value;

/// Every whole batch, and how many bytes of another one follow.
pub(super) fn describe(records: Bytes) -> Value {
    let mut batches = Batches::new(records);
    let mut described = Vec::new();
    let left = loop {
        let left = batches.remaining().len();
        match batches.next() {
            Some(Ok(batch)) => described.push(batch_fields(&batch)),
            // A batch that was cut off: in its header, or before the length that it says.
            Some(Err(_)) | None => break left,
        }
    };
    Value::Fields(vec![
        ("batches".to_owned(), Value::List(described)),
        ("bytes_of_a_cut_batch".to_owned(), Value::leaf(left)),
    ])
}

fn batch_fields(batch: &RawBatch) -> Value {
    let header = batch.header();
    let crc = match batch.clone().verify_crc() {
        Err(_) => "wrong".to_owned(),
        // It covers the broker's own clock.
        Ok(_) if header.attributes.timestamp_type() == TimestampType::LogAppendTime => {
            "right".to_owned()
        }
        Ok(_) => header.crc.to_string(),
    };
    let mut fields = vec![
        ("base_offset", Value::leaf(header.base_offset)),
        ("batch_length", Value::leaf(header.batch_length)),
        ("partition_leader_epoch", Value::leaf(header.partition_leader_epoch)),
        ("magic", Value::leaf(header.magic)),
        ("crc", Value::Leaf(crc)),
        ("attributes", Value::leaf(header.attributes.0)),
        ("last_offset_delta", Value::leaf(header.last_offset_delta)),
        ("base_timestamp", Value::leaf(header.base_timestamp)),
        ("max_timestamp", Value::leaf(header.max_timestamp)),
        ("producer_id", Value::leaf(header.producer_id)),
        ("producer_epoch", Value::leaf(header.producer_epoch)),
        ("base_sequence", Value::leaf(header.base_sequence)),
    ];
    let records: Vec<Value> = match batch.records() {
        Ok(records) => records.map(|record| Value::of(&record)).collect(),
        Err(error) => vec![Value::leaf(error)],
    };
    fields.push(("records", Value::List(records)));
    Value::Fields(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The bytes of a `b"…"` as derived `Debug` writes them.
///
/// # Panics
/// When it is not such a text.
pub(super) fn unquoted(text: &str) -> Bytes {
    let inside = text.strip_prefix("b\"").and_then(|text| text.strip_suffix('"'));
    let mut bytes = inside.expect("bytes are shown as b\"…\"").bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' { escaped(&mut bytes) } else { byte });
    }
    plain.into()
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'x') => {
            let digits = [bytes.next(), bytes.next()].map(Option::unwrap_or_default);
            let digits = std::str::from_utf8(&digits).unwrap_or_default();
            u8::from_str_radix(digits, 16).expect("two hexadecimal digits follow \\x")
        }
        Some(other) => other,
        None => panic!("something follows a backslash"),
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::Timestamp;
    use ottla_records::{BatchBuilder, Compression};

    use super::*;

    #[test]
    fn bytes_are_read_as_debug_writes_them() {
        let all: Bytes = (0..=u8::MAX).collect();
        assert_eq!(unquoted(&format!("{all:?}")), all);
    }

    #[test]
    fn whole_batches_are_described_and_the_rest_is_counted() {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.append(Timestamp(5), Some(b"k"), None, &[]);
        let batch = batch.build_bytes();
        let twice: Bytes = [&batch[..], &batch[..10]].concat().into();
        let described = describe(twice).to_string();
        assert!(described.contains("base_offset: 0, batch_length: "), "{described}");
        assert!(described.ends_with("bytes_of_a_cut_batch: 10}"), "{described}");
    }
}
