//! Names that Kafka's clients and tools take for granted: which partition holds a group, what a member is called. Pure.

use std::fmt::Write as _;

use bytestring::ByteString;
use ottla_base::{Uuid, java_hash_code};

/// The partition of `__consumer_offsets` that a group belongs to: Java's hash of the name, without its sign.
///
/// # Panics
/// Without partitions.
#[must_use]
pub fn group_partition(group: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has partitions");
    // Java's abs of the smallest number is negative; Kafka takes 0 for it.
    java_hash_code(group).checked_abs().unwrap_or(0) % partitions
}

/// A new member's id: the instance id of a static member, or else the client's, and something random in the form of
/// Java's `UUID`.
#[must_use]
pub fn member_id(client_id: &str, instance_id: Option<&str>, random: Uuid) -> ByteString {
    let mut id = String::with_capacity(client_id.len() + 37);
    id.push_str(instance_id.unwrap_or(client_id));
    for (position, byte) in random.0.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&position) {
            id.push('-');
        }
        write!(id, "{byte:02x}").expect("a string takes everything");
    }
    id.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_apache_kafka_puts_them() {
        // "polygenelubricants" hashes to Java's smallest number.
        for (group, partition) in
            [("", 0), ("a", 47), ("my-group", 12), ("polygenelubricants", 0), ("grüppe", 12)]
        {
            assert_eq!(group_partition(group, 50), partition, "{group}");
        }
    }

    #[test]
    fn a_member_is_called_after_its_client_or_its_instance() {
        let random = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(member_id("c", None, random), "c-01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(member_id("c", Some("i"), random), "i-01234567-89ab-cdef-0123-456789abcdef");
    }
}
