//! Which names a topic may have, and which names Kafka takes for the same metric. Pure.

/// The longest name: a directory is named after the topic and the partition.
pub const LENGTH_MAX: usize = 249;
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Topics that belong to the cluster itself: listed as internal, and hidden by default.
pub const INTERNAL: [&str; 3] = [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE];
/// Where groups and their offsets are stored.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
pub const TRANSACTION_STATE: &str = "__transaction_state";
pub const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Whether a topic may be called so: 1 to 249 ASCII alphanumerics, `.`, `_` and `-`, but not `.` or `..`.
///
/// # Errors
/// Kafka's message about it.
pub fn validate(name: &str) -> Result<(), String> {
    match reason_invalid(name) {
        None => Ok(()),
        Some(reason) => Err(format!("Topic name is invalid: {reason}")),
    }
}

#[must_use]
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Kafka's metric names turn '.' into '_', so topics that differ only there would share metrics.
/// The form that such topics have in common, for a name that has one of the two.
#[must_use]
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

fn reason_invalid(name: &str) -> Option<String> {
    // Java measures in UTF-16 units.
    let length = name.encode_utf16().count();
    if name.is_empty() {
        Some("the empty string is not allowed".to_owned())
    } else if name == "." || name == ".." {
        Some(format!("'{name}' is not allowed"))
    } else if length > LENGTH_MAX {
        Some(format!("the length of '{name}' is longer than the max allowed length {LENGTH_MAX}"))
    } else if !name.bytes().all(is_legal) {
        Some(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ))
    } else {
        None
    }
}

const fn is_legal(letter: u8) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_and_three_signs_make_a_name() {
        assert_eq!(validate("Orders.placed_in-2026"), Ok(()));
        assert_eq!(validate(&"x".repeat(249)), Ok(()));
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said_in_kafkas_words() {
        let message = |name: &str| validate(name).expect_err("invalid");
        assert_eq!(message(""), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(message("."), "Topic name is invalid: '.' is not allowed");
        assert_eq!(message(".."), "Topic name is invalid: '..' is not allowed");
        assert_eq!(
            message("a b"),
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'"
        );
        let long = "x".repeat(250);
        assert_eq!(
            message(&long),
            format!(
                "Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"
            )
        );
    }

    #[test]
    fn only_names_with_a_dot_or_an_underscore_can_collide() {
        assert_eq!(collision_key("orders-placed"), None);
        assert_eq!(collision_key("orders.placed"), collision_key("orders_placed"));
    }
}
