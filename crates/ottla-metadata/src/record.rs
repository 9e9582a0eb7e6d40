//! Metadata records as values of the log: written in the versions of `metadata.version` 30. Pure.

use bytes::Bytes;
use ottla_protocol::EncodeError;
use ottla_protocol::records::MetadataRecord;

/// The value of a log record for `record`, in the version that belongs to
/// [`METADATA_VERSION_LEVEL`](crate::feature::METADATA_VERSION_LEVEL).
///
/// # Errors
/// [`EncodeError`] for what that version cannot say, such as a text of more than 32767 bytes.
pub fn encode(record: &MetadataRecord) -> Result<Bytes, EncodeError> {
    record.encode(version(record))
}

/// Written with `if` where Kafka's table of levels gives a version above zero: all others still have their first.
fn version(record: &MetadataRecord) -> i16 {
    if let MetadataRecord::RegisterBroker(_) = record {
        4
    } else if let MetadataRecord::BrokerRegistrationChange(_) = record {
        3
    } else if let MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) = record {
        2
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::records::{
        BrokerRegistrationChangeRecord, NoOpRecord, PartitionChangeRecord, PartitionRecord,
        RegisterBrokerRecord, TopicRecord,
    };

    #[test]
    fn a_value_is_a_frame_version_a_key_a_version_and_the_message() {
        let topic_id = ottla_base::Uuid([7; 16]);
        let record = TopicRecord { name: "abc".into(), topic_id };
        let expected = [&[1, 2, 0, 4][..], b"abc", &[7; 16], &[0]].concat();
        assert_eq!(encode(&record.into()).unwrap(), expected);
    }

    #[test]
    fn records_keep_everything_that_they_say() {
        let directories = vec![ottla_base::Uuid([3; 16])];
        let records: [MetadataRecord; 5] = [
            RegisterBrokerRecord { log_dirs: directories.clone(), ..Default::default() }.into(),
            BrokerRegistrationChangeRecord { fenced: -1, ..Default::default() }.into(),
            PartitionRecord { directories, replicas: vec![1], ..Default::default() }.into(),
            PartitionChangeRecord { leader: 3, isr: Some(vec![]), ..Default::default() }.into(),
            NoOpRecord {}.into(),
        ];
        for record in records {
            let (_, decoded) = MetadataRecord::decode(encode(&record).unwrap()).unwrap();
            assert_eq!(decoded, record);
        }
    }
}
