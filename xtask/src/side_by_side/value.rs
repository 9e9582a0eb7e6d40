//! An answer as a tree of named fields, whatever its message: what two brokers' answers are compared as (pure).
//!
//! The one view that all generated messages share is their derived `Debug`, so the tree is read from that. `Some`
//! and other wrappers of one value are passed over: a field is there, or it is `None`.

use std::fmt;

/// A field, a list of them, or a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Leaf(String),
    List(Vec<Self>),
    /// In the order of the message.
    Fields(Vec<(String, Self)>),
}

impl Value {
    pub(super) fn leaf(text: impl fmt::Display) -> Self {
        Self::Leaf(text.to_string())
    }

    /// Reads a message.
    ///
    /// # Panics
    /// When the text is not what derived `Debug` writes.
    pub(super) fn of(message: &impl fmt::Debug) -> Self {
        let text = format!("{message:?}");
        let mut parser = Parser { rest: &text };
        let value = parser.value();
        assert!(parser.rest.is_empty(), "{:?} is left of {text}", parser.rest);
        value
    }

    /// How many leaves there are.
    pub(super) fn leaves(&self) -> usize {
        match self {
            Self::Leaf(_) => 1,
            Self::List(items) => items.iter().map(Self::leaves).sum(),
            Self::Fields(fields) => fields.iter().map(|(_, value)| value.leaves()).sum(),
        }
    }

    /// Calls `change` for every field that has a name, those inside first.
    pub(super) fn each_field(&mut self, change: &mut impl FnMut(&str, &mut Self)) {
        match self {
            Self::Leaf(_) => {}
            Self::List(items) => items.iter_mut().for_each(|item| item.each_field(change)),
            Self::Fields(fields) => {
                for (name, value) in fields {
                    value.each_field(change);
                    change(name, value);
                }
            }
        }
    }

    /// Puts every list of structures into the order of what names them.
    pub(super) fn sort(&mut self) {
        match self {
            Self::Leaf(_) => {}
            Self::List(items) => {
                items.iter_mut().for_each(Self::sort);
                if items.iter().all(|item| matches!(item, Self::Fields(_))) {
                    items.sort_by_cached_key(|item| (item.naming_fields(), item.to_string()));
                }
            }
            Self::Fields(fields) => fields.iter_mut().for_each(|(_, value)| value.sort()),
        }
    }

    fn naming_fields(&self) -> Vec<String> {
        let Self::Fields(fields) = self else { return Vec::new() };
        let names = fields.iter().filter(|(name, _)| NAMING.contains(&name.as_str()));
        names.map(|(_, value)| value.to_string()).collect()
    }
}

/// The fields that tell the structures of a list apart.
const NAMING: &[&str] = &[
    "name",
    "topic",
    "topic_id",
    "partition_index",
    "partition",
    "index",
    "api_key",
    "resource_type",
    "resource_name",
];

/// One line, as in the message but without its types.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Self::Fields(fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}: {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// What two values differ in: where, and what is there on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// `topics[0].error_code`.
    pub(super) path: String,
    pub(super) left: String,
    pub(super) right: String,
}

/// All differences of two values. Lists of different lengths differ as a whole.
pub(super) fn differences(left: &Value, right: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), left, right, &mut found);
    found
}

fn compare(path: String, left: &Value, right: &Value, found: &mut Vec<Difference>) {
    match (left, right) {
        (Value::List(left), Value::List(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(format!("{path}[{index}]"), left, right, found);
            }
        }
        (Value::Fields(left), Value::Fields(right))
            if left.iter().map(|(name, _)| name).eq(right.iter().map(|(name, _)| name)) =>
        {
            for ((name, left), (_, right)) in left.iter().zip(right) {
                let dot = if path.is_empty() { "" } else { "." };
                compare(format!("{path}{dot}{name}"), left, right, found);
            }
        }
        (left, right) if left == right => {}
        (left, right) => {
            found.push(Difference { path, left: left.to_string(), right: right.to_string() });
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        if self.eat("[") {
            return Value::List(self.until("]", Self::value));
        }
        if self.rest.starts_with('"') || self.rest.starts_with("b\"") {
            return self.quoted();
        }
        let word = self.word();
        if self.eat(" { ") {
            let field = |parser: &mut Self| {
                let name = parser.word();
                assert!(parser.eat(": "), "a field has a value: {}", parser.rest);
                (name, parser.value())
            };
            return Value::Fields(self.until(" }", field));
        }
        // An error code: `NONE (0)`.
        if self.eat(" (") {
            let number = self.word();
            assert!(self.eat(")"), "an error code ends: {}", self.rest);
            return Value::Leaf(format!("{word} ({number})"));
        }
        if self.eat("(") {
            let mut items = self.until(")", Self::value);
            assert!(items.len() == 1, "only wrappers of one value are known: {word}");
            return items.remove(0);
        }
        Value::Leaf(word)
    }

    /// What stands between commas, up to `end`.
    fn until<T>(&mut self, end: &str, read: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(read(self));
            self.eat(", ");
        }
        items
    }

    /// A text or bytes, with quotes and escapes as they are.
    fn quoted(&mut self) -> Value {
        let open = self.rest.find('"').expect("the caller saw a quote") + 1;
        let mut escaped = false;
        let length = self.rest.bytes().skip(open).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        Value::Leaf(self.take(open + length.expect("a text ends with a quote") + 1))
    }

    fn word(&mut self) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-+.#".contains(c);
        let length = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        assert!(length > 0, "a word was expected: {}", self.rest);
        self.take(length)
    }

    fn take(&mut self, length: usize) -> String {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken.to_owned()
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::messages::{MetadataResponse, metadata_response};

    use super::*;

    fn answer(name: &str) -> MetadataResponse {
        MetadataResponse {
            cluster_id: Some(r#"a "quoted" \ text"#.into()),
            topics: vec![metadata_response::MetadataResponseTopic {
                name: Some(name.to_owned().into()),
                error_code: ottla_base::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                topic_authorized_operations: i32::MIN,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_message_is_read_into_its_fields() {
        let value = Value::of(&answer("orders"));
        assert_eq!(
            value.to_string(),
            "{throttle_time_ms: 0, brokers: [], cluster_id: \"a \\\"quoted\\\" \\\\ text\", controller_id: -1, \
             topics: [{error_code: UNKNOWN_TOPIC_OR_PARTITION (3), name: \"orders\", \
             topic_id: AAAAAAAAAAAAAAAAAAAAAA, is_internal: false, partitions: [], \
             topic_authorized_operations: -2147483648}], cluster_authorized_operations: -2147483648, \
             error_code: NONE (0)}"
        );
        assert_eq!(value.leaves(), 10);
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let found = differences(&Value::of(&answer("a")), &Value::of(&answer("b")));
        let expected = Difference {
            path: "topics[0].name".to_owned(),
            left: "\"a\"".to_owned(),
            right: "\"b\"".to_owned(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn lists_of_different_lengths_differ_as_a_whole() {
        let none = MetadataResponse { topics: Vec::new(), ..answer("a") };
        let found = differences(&Value::of(&none), &Value::of(&answer("a")));
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|found| found.path == "topics" && found.left == "[]"));
    }
}
