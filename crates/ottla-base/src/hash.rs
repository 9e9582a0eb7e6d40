//! Java's hash of a text, by which Kafka finds a group's partition and a partition's fetcher. Pure.

/// `String.hashCode`: over UTF-16 code units, and it may be negative.
#[must_use]
pub fn java_hash_code(text: &str) -> i32 {
    text.encode_utf16()
        .fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::java_hash_code;

    #[test]
    fn is_that_of_java() {
        for (text, hash) in
            [("", 0), ("a", 97), ("orders", -1_008_770_331), ("größer", -1_233_337_215)]
        {
            assert_eq!(java_hash_code(text), hash, "{text}");
        }
    }
}
