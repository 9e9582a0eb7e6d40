//! Random bytes that are a valid message, made from its field table without the codecs under test.

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

use ottla_base::SplitMix64;

use super::schema::{Field, Schema, Type};

/// A way through a schema that writes bytes; where they come from is up to `choice`.
pub(crate) struct Writer<'a> {
    schema: &'a Schema,
    version: i16,
    /// Random values, or without it the defaults.
    random: Option<SplitMix64>,
}

impl<'a> Writer<'a> {
    pub(crate) fn random(schema: &'a Schema, version: i16, seed: u64) -> Self {
        Self { schema, version, random: Some(SplitMix64::new(seed)) }
    }

    /// A message of random values.
    pub(crate) fn message(mut self) -> Vec<u8> {
        self.structure(&self.schema.fields)
    }

    fn structure(&mut self, fields: &[Field]) -> Vec<u8> {
        let mut out = Vec::new();
        let version = self.version;
        let here = fields.iter().filter(|field| field.versions.contains(version));
        let (mut tagged, plain): (Vec<_>, Vec<_>) =
            here.partition(|field| field.tagged.contains(version));
        for field in plain {
            out.extend(self.field(field, self.random.is_none()));
        }
        if self.schema.flexible.contains(version) {
            tagged.sort_by_key(|field| field.tag);
            out.extend(self.tagged_fields(&tagged));
        }
        out
    }

    fn tagged_fields(&mut self, fields: &[&Field]) -> Vec<u8> {
        let mut count = 0;
        let mut body = Vec::new();
        for field in fields {
            let bytes = self.field(field, self.random.is_none());
            // A tagged field with its default value is not written.
            if bytes != self.field(field, true) {
                count += 1;
                varint(&mut body, field.tag.unwrap());
                varint(&mut body, u32::try_from(bytes.len()).unwrap());
                body.extend(bytes);
            }
        }
        let mut out = Vec::new();
        varint(&mut out, count);
        out.extend(body);
        out
    }

    fn field(&mut self, field: &Field, default: bool) -> Vec<u8> {
        let compact = field.flexible.unwrap_or(self.schema.flexible).contains(self.version);
        let nullable = field.nullable.contains(self.version);
        let default_is_null =
            field.default.as_deref() == Some("null") || (nullable && field.kind == Type::Records);
        let null = if default {
            default_is_null
        } else {
            nullable && self.random.as_mut().is_some_and(|random| random.below(4) == 0)
        };
        let tagged = field.tagged.contains(self.version);
        if null {
            return null_of(&field.kind, compact, tagged);
        }
        let mut out = Vec::new();
        if nullable && matches!(field.kind, Type::Struct(_)) {
            out.push(1);
        }
        let saved = if default { self.random.take() } else { None };
        out.extend(self.value(&field.kind, compact, field.default.as_deref()));
        if default {
            self.random = saved;
        }
        out
    }

    fn value(&mut self, kind: &Type, compact: bool, default: Option<&str>) -> Vec<u8> {
        match kind {
            Type::Struct(name) => {
                let schema = self.schema;
                self.structure(schema.structure(name).unwrap())
            }
            Type::Array(element) => {
                let count = self.random.as_mut().map_or(0, |random| random.below(4));
                let mut out = length(count, compact, 4);
                for _ in 0..count {
                    out.extend(self.value(element, compact, None));
                }
                out
            }
            Type::String | Type::Bytes | Type::Records => {
                let text = self.random.as_mut().map_or("", random_text);
                let mut out =
                    length(text.len(), compact, if *kind == Type::String { 2 } else { 4 });
                out.extend(text.as_bytes());
                out
            }
            scalar => self.scalar(scalar, default),
        }
    }

    fn scalar(&mut self, kind: &Type, default: Option<&str>) -> Vec<u8> {
        let size = match kind {
            Type::Bool | Type::Int8 => 1,
            Type::Int16 | Type::Uint16 => 2,
            Type::Int32 | Type::Uint32 => 4,
            Type::Int64 | Type::Float64 => 8,
            Type::Uuid => 16,
            other => panic!("{other} is no scalar"),
        };
        let number = match (&mut self.random, default) {
            (Some(random), _) if *kind == Type::Bool => i128::from(random.draw() % 2),
            (Some(random), _) => {
                let few = [0, 1, -1, i128::from(i64::MAX), i128::from(random.draw())];
                few[random.below(few.len())]
            }
            (None, None | Some("false")) => 0,
            (None, Some("true")) => 1,
            (None, Some(text)) => text.strip_prefix("0x").map_or_else(
                || text.parse().unwrap(),
                |digits| i128::from_str_radix(digits, 16).unwrap(),
            ),
        };
        number.to_be_bytes()[16 - size..].to_vec()
    }
}

fn random_text(random: &mut SplitMix64) -> &'static str {
    const LONG: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\
        0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz";
    let texts = ["", "a", "topic", "größer", "日本", LONG];
    texts[random.below(texts.len())]
}

fn null_of(kind: &Type, compact: bool, tagged: bool) -> Vec<u8> {
    match kind {
        Type::Struct(_) if tagged => vec![0],
        Type::Struct(_) => vec![0xff],
        _ if compact => vec![0],
        Type::String => vec![0xff; 2],
        _ => vec![0xff; 4],
    }
}

fn length(len: usize, compact: bool, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if compact {
        varint(&mut out, u32::try_from(len + 1).unwrap());
    } else {
        out.extend(&len.to_be_bytes()[8 - size..]);
    }
    out
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}
